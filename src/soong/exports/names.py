"""What other tools call the things of a plan: `data/exports.toml`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from soong import tables
from soong.errors import UsageError

if TYPE_CHECKING:
    from soong.gpus.gpu import Gpu


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An engine's own container image; see the table's head for its fields."""

    engine: str
    version: str
    archs: tuple[str, ...]
    image: str
    health: Literal["python3", "curl"]
    shm_gib: int
    source: str
    as_of: str
    program: tuple[str, ...] = ()


class DstackGpu(msgspec.Struct, frozen=True):
    """A GPU as dstack's catalogue has it."""

    name: str
    memory_gb: int


class GpuNames(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU's names elsewhere. most_per_machine: how many of them one machine has at most."""

    id: str
    skypilot: tuple[str, ...] = ()
    dstack: DstackGpu | None = None
    kubernetes: tuple[str, ...] = ()
    most_per_machine: int = 8


Feature = Literal["images", "autodown", "machines", "ports", "spot"]


class Cloud(msgspec.Struct, frozen=True):
    """A cloud as offers name it, and as the tools do; and what a tool cannot do there (see the table's head)."""

    id: str
    skypilot: str = ""
    dstack: str = ""
    skypilot_lacks: frozenset[Feature] = frozenset()
    dstack_lacks: frozenset[Feature] = frozenset()


class Helper(msgspec.Struct, frozen=True):
    """A small image that a file needs beside the engine's."""

    name: str
    image: str
    source: str
    as_of: str


class Table(msgspec.Struct, frozen=True):
    """`data/exports.toml`."""

    image: tuple[Image, ...]
    gpu: tuple[GpuNames, ...]
    cloud: tuple[Cloud, ...]
    helper: tuple[Helper, ...]


def table() -> Table:
    """The packaged table; read once in a process."""
    found: Table = tables.packaged_document("exports", Table)
    return found


def image_of(engine: str, version: str, gpu: Gpu, *, model: str) -> Image:
    """The image that has this version of the engine for the GPU's machine. model: for the hint.

    Raises:
        UsageError: none is known.
    """
    if gpu.vendor not in {"nvidia", "unknown"}:
        raise UsageError(
            f"no container image of {engine} for {gpu.name} is known",
            why="the images that soong names are built for CUDA",
            hints=(f"soong export shell {model} --gpu {gpu.id}",),
        )
    rows = [row for row in table().image if row.engine == engine and gpu.cpu_architecture in row.archs]
    for row in rows:
        if row.version == version:
            return row
    versions = ", ".join(row.version for row in rows) or "none"
    raise UsageError(
        f"no container image of {engine} {version} for {gpu.cpu_architecture} is known",
        why=f"versions whose image is known: {versions}",
        hints=tuple(f"the same with `--engine-version {row.version}`" for row in rows),
    )


def names_of(gpu: Gpu) -> GpuNames:
    """The GPU's names elsewhere; none for a GPU that no table has."""
    return next((row for row in table().gpu if row.id == gpu.id), GpuNames(id=gpu.id))


def cloud_names(cloud: str) -> Cloud:
    """The cloud's names elsewhere; none for one that no tool has."""
    return next((row for row in table().cloud if row.id == cloud), Cloud(cloud))


def helper_image(name: str) -> str:
    """The image of a helper."""
    return next(row.image for row in table().helper if row.name == name)


def unknown_gpu(gpu: Gpu, tool: str, *, model: str) -> UsageError:
    """The error for a GPU that a tool has no name for. model: for the hint."""
    return UsageError(
        f"{tool} has no name for {gpu.name}",
        why="it asks for GPUs by name, and a wrong one would be another GPU",
        hints=(
            f"soong export shell {model} --gpu {gpu.id}",
            "the same with another `--gpu`; `soong gpus` lists them",
        ),
    )
