"""The table of efficiencies: truths every row must keep, and finding rows."""

from __future__ import annotations

import pytest
from benchmarks.speed import fitting, writing

from soong.gpus.catalogue import find_gpu
from soong.gpus.gpu import Gpu
from soong.speed.efficiency import SpeedTable, kernel_of, packaged_efficiencies
from soong.tables import packaged, packaged_document

TABLE = packaged_document("speed", SpeedTable)
PRIORS = fitting.read_priors()


@pytest.mark.parametrize("kernel", TABLE.kernel, ids=lambda one: f"{one.generation}-{one.part}-{one.format}")
def test_no_kernel_beats_the_datasheet(kernel: object) -> None:
    assert 0 < kernel.memory <= 1  # type: ignore[attr-defined]
    assert 0 < kernel.compute <= 1  # type: ignore[attr-defined]
    assert 0 < kernel.launch_us < 200  # type: ignore[attr-defined]


def test_every_row_says_where_it_comes_from() -> None:
    for row in (*TABLE.generation, *TABLE.kernel, *TABLE.link, *TABLE.engine):
        assert len(row.source) > 10, row


def test_every_cuda_generation_of_the_gpu_table_has_a_row_of_its_own() -> None:
    known = {tuple(one) for row in TABLE.generation for one in row.capabilities}
    assert {gpu.compute_capability for gpu in packaged("gpus", Gpu)} - {None} <= known


def test_a_newer_card_is_taken_as_the_newest_known_kin() -> None:
    import msgspec

    newer = msgspec.structs.replace(find_gpu("h100"), compute_capability=(9, 5))
    rates = packaged_efficiencies().rates(newer, "vllm")
    assert rates is not None
    assert rates.generation.name == "hopper"


def test_a_radeon_of_ones_own_is_taken_as_its_kin() -> None:
    import msgspec

    card = msgspec.structs.replace(find_gpu("r9700"), id="own-24gb", name="Radeon RX 7900 XTX")
    big = msgspec.structs.replace(find_gpu("mi300x"), id="own-128gb", name="Instinct MI250X")
    found = [packaged_efficiencies().rates(gpu, "llama.cpp") for gpu in (card, big)]
    assert [rates.generation.name for rates in found if rates] == ["rdna", "cdna3"]


@pytest.mark.parametrize(
    ("gpu", "part", "storage", "kernel", "why"),
    [
        ("h100", "dense", "fp8", "fp8", "Hopper multiplies FP8"),
        ("a100-80gb-sxm4", "dense", "fp8", "int8-only", "Ampere unpacks it: Marlin"),
        ("a100-80gb-sxm4", "dense", "int8", "int8", "INT8 tensor cores"),
        ("h100", "dense", "nvfp4", "int4-only", "no FP4 before Blackwell"),
        ("b200", "dense", "nvfp4", "nvfp4", "Blackwell multiplies FP4"),
        ("h100", "experts", "mxfp4", "mxfp4", "Triton's kernel, 16-bit activations"),
        ("a100-80gb-sxm4", "experts", "mxfp4", "int4-only", "Marlin"),
        ("rtx4090", "dense", "gguf", "gguf", "llama.cpp"),
        ("b300", "dense", "int8", "int8-only", "INT8 at a small fraction, which the table leaves out"),
    ],
)
def test_formats_go_to_the_kernels_that_engines_take(
    gpu: str, part: str, storage: str, kernel: str, why: str
) -> None:
    card = find_gpu(gpu)
    rates = packaged_efficiencies().rates(card, "vllm")
    assert rates is not None
    found = kernel_of(rates, part, storage, card.native_formats)  # type: ignore[arg-type]
    assert found is not None
    assert found.format == kernel, why


def test_versions_pick_the_engines_row() -> None:
    card, table = find_gpu("h100"), packaged_efficiencies()
    newest, early = table.rates(card, "vllm", "0.33.0"), table.rates(card, "vllm", "0.11.0")
    assert newest is not None
    assert early is not None
    assert (newest.engine.until, early.engine.until) == ("", "0.14")
    assert table.rates(card, "vllm") == newest
    assert table.rates(card, "no such engine") is None


def test_the_packaged_table_stays_near_what_kernels_measured() -> None:
    """A fit moves figures; it must not make them up."""
    before = {(one.generation, one.part, one.format): one for one in PRIORS.kernel}
    for kernel in TABLE.kernel:
        prior = before[kernel.generation, kernel.part, kernel.format]
        assert 0.6 < kernel.compute / prior.compute < 1.5, kernel
        assert 0.5 < kernel.memory / prior.memory < 1.7, kernel


def test_a_table_survives_being_written() -> None:
    import tomllib

    import msgspec

    assert msgspec.convert(tomllib.loads(writing.as_toml(TABLE)), SpeedTable) == TABLE
