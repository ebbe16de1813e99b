"""Does every GPU of this machine compute? Asks the CUDA driver, since `nvidia-smi` can look fine when it does not.

Prints one line of JSON, `{"gpus": [{"name", "memory_bytes"}]}` or `{"error": "...", "code": 802}`; ends with 0 or 1.
"""

import ctypes
import json
import sys

ONE_MIB = 1 << 20


class CudaError(Exception):
    """The driver refused a call."""

    def __init__(self, call: str, code: int) -> None:
        super().__init__(f"{call} failed with CUDA error {code}")
        self.code = code


def main() -> int:
    """Check, print, and give the exit code."""
    try:
        gpus = check(ctypes.CDLL("libcuda.so.1"))
    except OSError as error:
        return said({"error": f"the CUDA driver cannot be loaded: {error}", "code": None})
    except CudaError as error:
        return said({"error": str(error), "code": error.code})
    if not gpus:
        return said({"error": "the CUDA driver sees no GPU", "code": None})
    return said({"gpus": gpus})


def said(answer: dict) -> int:  # type: ignore[type-arg]
    """Print the answer; 0 when it is good."""
    sys.stdout.write(json.dumps(answer) + "\n")
    return 1 if "error" in answer else 0


def check(cuda: ctypes.CDLL) -> list:  # type: ignore[type-arg]
    """Every GPU: a context on it, and one MiB written and read back."""
    call(cuda, "cuInit", 0)
    count = ctypes.c_int()
    call(cuda, "cuDeviceGetCount", ctypes.byref(count))
    return [one_gpu(cuda, index) for index in range(count.value)]


def one_gpu(cuda: ctypes.CDLL, index: int) -> dict:  # type: ignore[type-arg]
    """Name and memory of a GPU that computes."""
    device, context, pointer = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    call(cuda, "cuDeviceGet", ctypes.byref(device), index)
    name = ctypes.create_string_buffer(100)
    call(cuda, "cuDeviceGetName", name, 100, device)
    memory = ctypes.c_size_t()
    call(cuda, "cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    call(cuda, "cuCtxCreate_v2", ctypes.byref(context), 0, device)
    call(cuda, "cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(ONE_MIB))
    call(cuda, "cuMemsetD8_v2", pointer, ctypes.c_ubyte(7), ctypes.c_size_t(ONE_MIB))
    byte = ctypes.c_ubyte()
    call(cuda, "cuMemcpyDtoH_v2", ctypes.byref(byte), pointer, ctypes.c_size_t(1))
    call(cuda, "cuCtxDestroy_v2", context)
    return {"name": name.value.decode(errors="replace"), "memory_bytes": memory.value}


def call(cuda: ctypes.CDLL, name: str, *values: object) -> None:
    """One call of the driver; raises CudaError when it refuses."""
    code = getattr(cuda, name)(*values)
    if code != 0:
        raise CudaError(name, code)


if __name__ == "__main__":
    sys.exit(main())
