"""gpuhunt's words for a GPU become our id, or nothing: a wrong variant would be a wrong price."""

from __future__ import annotations

import re

import gpuhunt  # type: ignore[import-untyped]
import pytest

from soong.gpus.catalogue import find_gpu
from soong.gpus.gpu import Gpu
from soong.offers.gpu_names import A_SLICE, NO_ROW, NOT_TOLD, Known, Unmapped, gpu_of
from soong.offers.offer import Offer
from soong.offers.price_sources import price_sources
from soong.tables import packaged

GPUS = {gpu.id: gpu for gpu in packaged("gpus", Gpu)}
KNOWN = Known(GPUS, {(o.cloud, o.instance_type): o.gpu for o in packaged("prices", Offer)})
NOT_KNOWN_TO_GPUHUNT = {"A30", "H20"}
"""Names that its marketplaces pass on as they come."""


@pytest.mark.parametrize(
    ("cloud", "instance_type", "chip", "memory_gb", "gpu"),
    [
        ("aws", "p4d.24xlarge", "A100", 40, "a100-40gb-sxm4"),
        ("aws", "p4de.24xlarge", "A100", 80, "a100-80gb-sxm4"),
        ("aws", "p5.48xlarge", "H100", 80, "h100-80gb-sxm5"),
        ("aws", "p3dn.24xlarge", "V100", 32, "v100-32gb-sxm2"),
        ("aws", "g6.xlarge", "L4", 22.35, "l4-24gb"),
        ("azure", "Standard_NC24ads_A100_v4", "A100", 80, "a100-80gb-pcie"),
        ("azure", "Standard_ND96amsr_A100_v4", "A100", 80, "a100-80gb-sxm4"),
        ("azure", "Standard_ND96asr_v4", "A100", 40, "a100-40gb-sxm4"),
        ("azure", "Standard_NC40ads_H100_v5", "H100NVL", 94, "h100-94gb-nvl"),
        ("gcp", "a2-ultragpu-1g", "A100", 80, "a100-80gb-sxm4"),
        ("gcp", "a3-highgpu-8g", "H100", 80, "h100-80gb-sxm5"),
        ("runpod", "NVIDIA H100 80GB HBM3", "H100", 80, "h100-80gb-sxm5"),
        ("runpod", "NVIDIA H100 PCIe", "H100", 80, "h100-80gb-pcie"),
        ("runpod", "NVIDIA A100-SXM4-80GB", "A100", 80, "a100-80gb-sxm4"),
        ("lambda", "gpu_1x_a100", "A100", 40, "a100-40gb-pcie"),
        ("lambda", "gpu_8x_a100", "A100", 40, "a100-40gb-sxm4"),
        ("nebius", "gpu-h100-sxm 1gpu-16vcpu-200gb", "H100", 80, "h100-80gb-sxm5"),
        ("oci", "BM.GPU.A100-v2.8", "A100", 80, "a100-80gb-sxm4"),
        ("verda", "1B300.30V", "B300", 268, "b300-288gb"),
        ("verda", "1A100.40S.22V", "A100", 40, "a100-40gb-sxm4"),
        ("vultr", "vbm-256c-3072gb-8-b200-gpu", "B200", 192, "b200-180gb"),
        ("hotaisle", "mi325x", "MI325X", 288, "mi325x-256gb"),
    ],
)
def test_what_is_told_is_mapped(
    cloud: str, instance_type: str, chip: str, memory_gb: float, gpu: str
) -> None:
    assert gpu_of(cloud, instance_type, chip, memory_gb, KNOWN) == gpu


@pytest.mark.parametrize(
    ("cloud", "instance_type", "chip", "memory_gb", "reason"),
    [
        ("vultr", "vcg-a100-12c-120g-80vram", "A100", 80, NOT_TOLD),
        ("vastai", "12345678", "H100", 80, NOT_TOLD),
        ("azure", "Standard_NC6s_v3", "V100", 16, NO_ROW),
        ("aws", "g6f.large", "L4", 2.79, A_SLICE),
        ("azure", "Standard_NV18ads_A10_v5", "A10", 12, A_SLICE),
        ("gcp", "g4-standard-24", "RTXPRO6000", 48, A_SLICE),
        ("vultr", "vcg-a16-6c-64g-16vram", "A16", 16, NO_ROW),
        ("gcp", "v5e", "v5litepod", 0, NO_ROW),
        ("vastai", "1", "RTX4090", 48, NO_ROW),
        ("aws", "?", "", 0, NO_ROW),
    ],
)
def test_what_is_not_told_is_not_guessed(
    cloud: str, instance_type: str, chip: str, memory_gb: float, reason: str
) -> None:
    found = gpu_of(cloud, instance_type, chip, memory_gb, KNOWN)
    assert isinstance(found, Unmapped)
    assert found.reason == reason


def test_every_name_of_a_chip_is_one_that_gpuhunt_uses() -> None:
    theirs = {accelerator.name for accelerator in gpuhunt.KNOWN_ACCELERATORS} | NOT_KNOWN_TO_GPUHUNT
    assert set(price_sources().chips) <= theirs


def test_every_gpu_of_ours_that_gpuhunt_names_is_found_by_that_name() -> None:
    """A GPU of ours is one of its chip's variants, or clouds do not rent it under a name that gpuhunt has."""
    mapped = {gpu for variants in price_sources().chips.values() for gpu in variants}
    for accelerator in gpuhunt.KNOWN_ACCELERATORS:
        try:
            ours = find_gpu(accelerator.name)
        except Exception:  # noqa: BLE001 - several, or none: both are other tests' business
            continue
        if abs(ours.label_gb - accelerator.memory) <= 0.15 * ours.label_gb:
            assert ours.id in mapped, f"{accelerator.name}: name {ours.id} in [chips] of price_sources.toml"


def test_every_variant_says_its_size_and_known_ones_are_that_large() -> None:
    for variants in price_sources().chips.values():
        for gpu in variants:
            size = re.search(r"-(\d+)gb", gpu)
            assert size is not None
            assert gpu not in GPUS or abs(int(size[1]) - GPUS[gpu].label_gb) <= 1


def test_packaged_types_of_other_clouds_keep_their_gpu() -> None:
    """Our own rows are what the rules are held against: gpuhunt's name and size of each lead to the same GPU."""
    chip_of = {gpu: chip for chip, variants in price_sources().chips.items() for gpu in variants}
    for offer in packaged("prices", Offer):
        size = GPUS[offer.gpu].label_gb
        assert gpu_of(offer.cloud, offer.instance_type, chip_of[offer.gpu], size, KNOWN) == offer.gpu
