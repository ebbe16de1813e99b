"""What the real llama.cpp printed for small files of many architectures, asked of soong again.

The answers stand in `tests/golden/llama_cpp.toml` with how they were made; each file is written anew, its tensors being
holes.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.support.gguf_writer import write_gguf

from soong.gpus.gpu import Gpu
from soong.memory import engines
from soong.memory.footprint import EngineSettings, Footprint, ServedModel, Workload
from soong.models.gguf import read_gguf
from soong.models.gguf_architecture import read_architecture, read_quantization

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "llama.cpp"
MIB = 1 << 20
GIB = 1 << 30
GOLDEN = Path(__file__).parents[2] / "tests" / "golden" / "llama_cpp.toml"
KV_WORDS = {"F16": "auto", "Q8_0": "fp8"}


def models() -> list[dict[str, Any]]:
    """The rows: a file's keys and tensors, its buffers, and runs of it, each a list as the file's head tells."""
    rows: list[dict[str, Any]] = tomllib.loads(GOLDEN.read_text("utf-8"))["model"]
    return rows


def written(folder: Path, row: dict[str, Any]) -> Path:
    """The GGUF file of a row."""
    path = folder / f"{row['name']}.gguf"
    if not path.exists():
        tensors = [
            (name.replace("{}", str(layer)), tuple(shape), kind)
            for name, shape, kind, layers in row["tensors"]
            for layer in layers or [0]
        ]
        write_gguf(path, row["metadata"], tensors)
    return path


def served(path: Path) -> ServedModel:
    """A GGUF file as the planner serves it."""
    file = read_gguf(path)
    return ServedModel(
        key=str(path),
        architecture=read_architecture(file),
        quantization=read_quantization(file),
        weights_bytes=file.weights_bytes,
        weights_basis="headers",
    )


def a_gpu(gib: float = 512) -> Gpu:
    """A GPU of so much memory and nothing else that counts here."""
    return Gpu(
        id="x", name="X", vendor="nvidia", label_gb=80, memory_bytes=round(gib * GIB),
        bandwidth_bytes_per_second=0, dense_flops={}, compute_capability=(9, 0), native_formats=(),
        interconnect="", source="", as_of="",
    )  # fmt: skip


def settings(**more: Any) -> EngineSettings:
    """The newest build that is followed."""
    return EngineSettings(**{"name": NAME, "version": engines.default_version(NAME), **more})


def planned(folder: Path, row: dict[str, Any], run: list[Any]) -> Footprint:
    """What soong says of one run."""
    context, slots, micro_batch, cache, *_ = run
    workload = Workload(context_tokens=context, sequences=slots, kv_dtype=KV_WORDS[cache])
    model = served(written(folder, row))
    return engines.footprint(model, a_gpu(), workload, settings(max_num_batched_tokens=micro_batch))


def buffers(folder: Path) -> Iterator[tuple[str, str, str, int, float]]:
    """Case, architecture, figure, soong's bytes and the printed MiB, of every run."""
    for row in models():
        for run in row["runs"]:
            found, case = planned(folder, row, run), f"{row['name']} {run[0]}x{run[1]} {run[2]} {run[3]}"
            if run is row["runs"][0]:
                yield case, row["name"], "weights", found.weights_bytes, row["model_mib"]
            yield case, row["name"], "pool", found.kv_pool_bytes, run[4]
            yield case, row["name"], "states", found.state_bytes, run[5]
            yield case, row["name"], "activations", found.activations_bytes, run[6]
