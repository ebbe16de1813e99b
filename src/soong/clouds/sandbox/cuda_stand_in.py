"""Laid on a machine of the sandbox as `sitecustomize`: CUDA's driver library answers as the rented type would.

Every Python there loads it at its start, so it imports little, and works out nothing before somebody asks ctypes
for `libcuda`. `ROOT/etc/sandbox.json` says which GPUs there are; `ROOT/etc/cuda-error` holds the error that every
start of CUDA gives, where there is one.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

SUCCESS, OUT_OF_MEMORY, NOT_INITIALIZED, NO_DEVICE, INVALID_DEVICE = 0, 2, 3, 100, 101
ERRORS = {
    SUCCESS: (b"CUDA_SUCCESS", b"no error"),
    1: (b"CUDA_ERROR_INVALID_VALUE", b"invalid argument"),
    OUT_OF_MEMORY: (b"CUDA_ERROR_OUT_OF_MEMORY", b"out of memory"),
    NOT_INITIALIZED: (b"CUDA_ERROR_NOT_INITIALIZED", b"initialization error"),
    NO_DEVICE: (b"CUDA_ERROR_NO_DEVICE", b"no CUDA-capable device is detected"),
    INVALID_DEVICE: (b"CUDA_ERROR_INVALID_DEVICE", b"invalid device ordinal"),
    802: (b"CUDA_ERROR_SYSTEM_NOT_READY", b"system not yet initialized"),
}
"""Names and words of the CUDA driver API 12.8."""
MAJOR, MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*"""
FIRST_ADDRESS, PAGE_BYTES = 0x7F0000000000, 1 << 21
A_CONTEXT = 0x5A5A5A5A
NAMES = ("libcuda.so", "libcuda.dylib")


class Driver:
    """Takes the place of the library; its functions take `argtypes` and `restype` like those of ctypes."""

    def __init__(self, name: str) -> None:
        import json

        self._name = name
        self._root = os.environ["SOONG_ROOT"]
        with open(f"{self._root}/etc/sandbox.json") as file:  # noqa: PTH123 - pathlib costs each Python there 10 ms
            self._facts = json.load(file)
        self._is_ready = False
        self._next = FIRST_ADDRESS
        self._used: dict[int, int] = {}

    def __getattr__(self, name: str) -> Function:
        if not name.startswith("cu"):
            raise AttributeError(name)
        function = Function(self, name.removesuffix("_v2").removesuffix("_v3"))
        setattr(self, name, function)
        return function

    __getitem__ = __getattr__

    def call(self, name: str, arguments: tuple[Any, ...]) -> int:
        """One call of the API; returns its error. What is not known here is fine once CUDA has started."""
        known = getattr(Driver, f"_{name}", None)
        if known is None or name in BEFORE_START:
            return int(known(self, *arguments)) if known else self._ready()
        return self._ready() or int(known(self, *arguments))

    def _ready(self) -> int:
        return SUCCESS if self._is_ready else NOT_INITIALIZED

    def _cuInit(self, _: Any) -> int:  # noqa: N802 - the API's names, here and below
        try:
            with open(f"{self._root}/etc/cuda-error") as file:  # noqa: PTH123
                return int(file.read())
        except OSError:
            self._is_ready = self._facts["gpus"] > 0
            return SUCCESS if self._is_ready else NO_DEVICE

    def _cuDriverGetVersion(self, place: Any) -> int:  # noqa: N802
        return put(place, self._facts["cuda_version"])

    def _cuGetErrorName(self, error: Any, place: Any) -> int:  # noqa: N802
        return put(place, ERRORS[number(error)][0]) if number(error) in ERRORS else 1

    def _cuGetErrorString(self, error: Any, place: Any) -> int:  # noqa: N802
        return put(place, ERRORS[number(error)][1]) if number(error) in ERRORS else 1

    def _cuDeviceGetCount(self, place: Any) -> int:  # noqa: N802
        return put(place, self._facts["gpus"])

    def _cuDeviceGet(self, place: Any, ordinal: Any) -> int:  # noqa: N802
        is_there = 0 <= number(ordinal) < self._facts["gpus"]
        return put(place, number(ordinal)) if is_there else INVALID_DEVICE

    def _cuDeviceGetName(self, buffer: Any, length: Any, _: Any) -> int:  # noqa: N802
        text = self._facts["gpu"].encode()[: number(length) - 1] + b"\0"
        ctypes.memmove(buffer, text, len(text))
        return SUCCESS

    def _cuDeviceTotalMem(self, place: Any, _: Any) -> int:  # noqa: N802
        return put(place, self._facts["memory_bytes"])

    def _cuDeviceGetAttribute(self, place: Any, attribute: Any, _: Any) -> int:  # noqa: N802
        major, minor = self._facts["compute_capability"]
        return put(place, {MAJOR: major, MINOR: minor}.get(number(attribute), 1))

    def _cuCtxCreate(self, place: Any, *_: Any) -> int:  # noqa: N802
        return put(place, A_CONTEXT)

    _cuDevicePrimaryCtxRetain = _cuCtxGetCurrent = _cuCtxCreate  # noqa: N815

    def _cuMemGetInfo(self, free: Any, total: Any) -> int:  # noqa: N802
        put(free, self._facts["memory_bytes"] - sum(self._used.values()))
        return put(total, self._facts["memory_bytes"])

    def _cuMemAlloc(self, place: Any, size: Any) -> int:  # noqa: N802
        if sum(self._used.values()) + number(size) > self._facts["memory_bytes"]:
            return OUT_OF_MEMORY
        self._next += PAGE_BYTES
        self._used[self._next] = number(size)
        return put(place, self._next)

    def _cuMemFree(self, address: Any) -> int:  # noqa: N802
        return SUCCESS if self._used.pop(number(address), None) is not None else 1


BEFORE_START = ("cuInit", "cuDriverGetVersion", "cuGetErrorName", "cuGetErrorString")


class Function:
    """One function of the library."""

    def __init__(self, driver: Driver, name: str) -> None:
        self._driver = driver
        self._name = name
        self.restype: Any = ctypes.c_int
        self.argtypes: Any = None

    def __call__(self, *arguments: Any) -> int:
        """The error, as a number."""
        return self._driver.call(self._name, arguments)


def put(place: Any, value: Any) -> int:
    """Write where a pointer points: `byref(x)`, `pointer(x)`, or an address."""
    if hasattr(place, "_obj"):
        place._obj.value = value  # noqa: SLF001 - how ctypes keeps what `byref` points to
    elif hasattr(place, "contents"):
        place.contents.value = value
    else:
        ctypes.cast(place, ctypes.POINTER(ctypes.c_uint64))[0] = value
    return SUCCESS


def number(value: Any) -> int:
    """A plain number from one, or from one of ctypes."""
    return int(getattr(value, "value", value) or 0)


def install() -> None:
    """Let `ctypes.CDLL` hand out the driver under its name, and real libraries under all others."""
    real = ctypes.CDLL

    class CDLL(real):  # type: ignore[misc, valid-type]
        """A library; for the driver, what stands in for it."""

        def __new__(cls, name: Any = None, *_: Any, **__: Any) -> Any:
            """The driver under its names, a real library under all others."""
            if name and os.path.basename(str(name)).startswith(NAMES):  # noqa: PTH119
                return Driver(str(name))
            return super().__new__(cls)

    ctypes.CDLL = CDLL  # type: ignore[misc]
    ctypes.cdll = ctypes.LibraryLoader(CDLL)


if __name__ == "sitecustomize":
    install()
