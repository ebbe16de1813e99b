"""The GPUs: truths every row must keep, and finding one by any name people use."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import pytest

from soong.errors import NotFoundError
from soong.gpus.catalogue import all_gpus, find_gpu
from soong.gpus.gpu import Gpu
from soong.tables import packaged

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30
GPUS = packaged("gpus", Gpu)
FASTER_OR_EQUAL = [("fp16", "fp32"), ("bf16", "fp32"), ("int8", "fp16"), ("fp8", "fp16"), ("fp4", "fp8")]


@pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.id)
class TestEveryGpu:
    def test_memory_is_a_little_less_than_the_label(self, gpu: Gpu) -> None:
        assert 0.88 <= gpu.memory_bytes / (gpu.label_gb * GIB) <= 1.0

    def test_memory_is_whole_mebibytes(self, gpu: Gpu) -> None:
        assert gpu.memory_bytes % (1 << 20) == 0

    def test_bandwidth_is_of_this_world(self, gpu: Gpu) -> None:
        assert 200e9 <= gpu.bandwidth_bytes_per_second <= 10e12

    def test_smaller_formats_are_not_slower(self, gpu: Gpu) -> None:
        for smaller, larger in FASTER_OR_EQUAL:
            if smaller in gpu.dense_flops and larger in gpu.dense_flops:
                assert gpu.dense_flops[smaller] >= gpu.dense_flops[larger], (smaller, larger)

    def test_rates_are_within_physical_reason(self, gpu: Gpu) -> None:
        assert all(1e12 <= rate <= 2e16 for rate in gpu.dense_flops.values())

    def test_what_has_a_rate_is_native(self, gpu: Gpu) -> None:
        assert set(gpu.dense_flops) <= set(gpu.native_formats)

    def test_formats_follow_the_compute_capability(self, gpu: Gpu) -> None:
        """CUDA C programming guide: bf16 from 8.0, fp8 from 8.9, fp4 from 10.0."""
        if gpu.compute_capability is not None:
            assert ("bf16" in gpu.native_formats) == (gpu.compute_capability >= (8, 0))
            assert ("fp8" in gpu.native_formats) == (gpu.compute_capability >= (8, 9))
            assert ("fp4" in gpu.native_formats) == (gpu.compute_capability >= (10, 0))
        else:
            assert gpu.vendor == "amd"

    def test_it_has_a_source_and_a_day(self, gpu: Gpu) -> None:
        assert len(gpu.source) > 20
        assert gpu.source[0] != "/"
        assert date(2018, 1, 1) <= date.fromisoformat(gpu.as_of) <= date(2026, 11, 23)

    def test_its_id_is_lower_case_with_the_label_in_it(self, gpu: Gpu) -> None:
        assert gpu.id == gpu.id.lower()
        assert f"{gpu.label_gb}gb" in gpu.id

    def test_every_name_finds_it(self, gpu: Gpu) -> None:
        for name in (gpu.id, gpu.id.upper(), gpu.name, *gpu.aliases):
            assert find_gpu(name).id == gpu.id


def test_names_are_unique() -> None:
    names = [name for gpu in GPUS for name in {gpu.id, *gpu.aliases}]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize(
    ("gpu", "printed_gib", "source"),
    [
        ("h100-80gb-sxm5", 79.19, "vLLM 0.19 start-up logs of llm-d-planner, H100 80GB"),
        ("a100-80gb-sxm4", 79.25, "vLLM start-up log of LukeJYK/AutoScientists"),
        ("rtxpro6000-96gb", 94.97, "vLLM start-up log of 2215860382/VedioSifter"),
        ("l40s-48gb", 44.40, "vllm-project/vllm issue 23230"),
    ],
)
def test_memory_is_what_engines_print(gpu: str, printed_gib: float, source: str) -> None:
    assert find_gpu(gpu).memory_bytes / GIB == pytest.approx(printed_gib, abs=0.011), source


def test_facts_that_plans_rest_on() -> None:
    assert find_gpu("quadro-rtx6000-24gb").label_gb == 24  # Turing, not the Ada card of 48 GB
    assert "bf16" not in find_gpu("quadro-rtx6000-24gb").native_formats
    assert "bf16" not in find_gpu("v100-16gb-sxm2").native_formats
    assert find_gpu("gh200-96gb").cpu_architecture == "arm64"
    assert find_gpu("gb10-128gb").unified_memory


@pytest.mark.parametrize(
    ("word", "gpu"),
    [
        ("NVIDIA GeForce RTX 4090", "rtx4090-24gb"),
        ("NVIDIA H100 80GB HBM3", "h100-80gb-sxm5"),
        ("H100", "h100-80gb-sxm5"),
        ("rtx a6000", "a6000-48gb"),
        ("NVIDIA H200-SXM-141GB", "h200-141gb-sxm5"),
        ("NVIDIA GH200 480GB", "gh200-96gb"),
        ("AMD Instinct MI300X", "mi300x-192gb"),
        ("A100 40GB", "a100-40gb-sxm4"),
        ("A100-SXM4-80GB", "a100-80gb-sxm4"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb-sxm4"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb-pcie"),
        ("NVIDIA A100-PCIE-40GB", "a100-40gb-pcie"),
        ("NVIDIA H100 NVL", "h100-94gb-nvl"),
        ("8xH100", "h100-80gb-sxm5"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "h100-80gb-sxm5"),
        ("RTX PRO 6000 Blackwell Max-Q", "rtxpro6000-96gb"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "rtxpro6000-96gb"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtxpro6000-96gb"),
        ("RTX6000 Pro Blackwell", "rtxpro6000-96gb"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx6000ada-48gb"),
        ("NVIDIA B300 SXM6 AC", "b300-288gb"),
        ("B200 192GB", "b200-180gb"),
        ("NVIDIA DGX Spark", "gb10-128gb"),
        ("Tesla V100-SXM2-32GB", "v100-32gb-sxm2"),
        ("A800", "a800-80gb-sxm4"),
    ],
)
def test_people_and_drivers_have_their_own_names(word: str, gpu: str) -> None:
    assert find_gpu(word).id == gpu


@pytest.mark.parametrize(
    ("word", "memory_gib", "gpu"),
    [
        ("A100", 79.25, "a100-80gb-sxm4"),
        ("A100", 39.4, "a100-40gb-sxm4"),
        ("a100-pcie", 79.2, "a100-80gb-pcie"),
        ("V100", 31.7, "v100-32gb-sxm2"),
        ("H100", 79.19, "h100-80gb-sxm5"),
        ("H100", 93.1, "h100-94gb-nvl"),
        ("H100", 40.0, "h100-80gb-sxm5"),  # a slice of one
        ("h100-80gb-sxm5", 93.1, "h100-80gb-sxm5"),  # an id is an id
        ("H100 64GB", 63.4, "h100-80gb-sxm5"),
    ],
)
def test_the_memory_picks_the_variant(word: str, memory_gib: float, gpu: str) -> None:
    assert find_gpu(word, memory_bytes=round(memory_gib * GIB)).id == gpu


@pytest.mark.parametrize("word", ["RTX 4090 Laptop", "H100 64GB", "x", "nvidia", "80GB", "", "RTX 3090 Ti"])
def test_another_card_is_not_taken_for_one_we_know(word: str) -> None:
    with pytest.raises(NotFoundError):
        find_gpu(word)


def test_a_name_of_several_lists_them() -> None:
    with pytest.raises(NotFoundError) as caught:
        find_gpu("a100")
    assert "a100-40gb-sxm4" in caught.value.why
    assert "a100-80gb-pcie" in caught.value.why


def test_a_slip_gets_a_suggestion() -> None:
    with pytest.raises(NotFoundError) as caught:
        find_gpu("h100-80gb-smx5")
    assert caught.value.hints[0] == "did you mean `h100-80gb-sxm5`?"


def test_the_start_of_one_name_suggests_it() -> None:
    with pytest.raises(NotFoundError) as caught:
        find_gpu("mi325")
    assert caught.value.hints[0] == "did you mean `mi325x-256gb`?"


@pytest.mark.parametrize("word", ["", " ", "-", "x" * 100_000, "\x00", "🦆"])
def test_nonsense_is_not_found_and_not_repeated_at_length(word: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        find_gpu(word)
    assert len(caught.value.message) < 120


def test_a_users_row_replaces_and_adds(sealed: Path) -> None:
    (sealed / "config").mkdir(parents=True)
    (sealed / "config" / "gpus.toml").write_text(
        """
[[gpu]]
id = "a10-24gb"
name = "my A10"
vendor = "nvidia"
label_gb = 24
memory_bytes = 23_000_000_000
bandwidth_bytes_per_second = 600_000_000_000
dense_flops = { bf16 = 1.25e14 }
compute_capability = [8, 6]
native_formats = ["bf16"]
interconnect = "none"
source = "nvidia-smi"
as_of = 2026-11-20
"""
    )
    assert find_gpu("a10-24gb").memory_bytes == 23_000_000_000
    assert find_gpu("a10-24gb").as_of == "2026-11-20"
    assert len(all_gpus()) == len(GPUS)
