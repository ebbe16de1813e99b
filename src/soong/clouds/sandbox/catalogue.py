"""What the sandbox has for rent: the packaged Lambda price list, with capacity and prices that can move."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from soong.gpus.catalogue import find_gpu
from soong.offers.snapshot import packaged_offers

if TYPE_CHECKING:
    from soong.clouds.sandbox.state import Settings
    from soong.offers.offer import Offer

REGIONS = {
    "us-east-1": "Virginia, USA",
    "us-west-1": "California, USA",
    "us-west-2": "Arizona, USA",
    "us-west-3": "Utah, USA",
    "us-south-2": "North Texas, USA",
    "us-south-3": "Central Texas, USA",
    "us-midwest-1": "Illinois, USA",
    "europe-central-1": "Germany",
    "asia-south-1": "India",
    "asia-northeast-1": "Osaka, Japan",
    "asia-northeast-2": "Tokyo, Japan",
    "me-west-1": "Israel",
    "australia-east-1": "Sydney, Australia",
}
"""As Lambda's instance-types answer of 2025-11-22 names them."""

HOME_REGION = "us-east-1"
"""Every type is free here unless something says otherwise, so that a first rehearsal finds a machine."""

WAVE_SECONDS = 1800.0
"""How long capacity stays as it is while the wave runs: our choice, to be seen in a rehearsal."""
WAVE_SHARE = 0.35
"""Of the pairs of type and region, free at a time: 8 of 23 types had room anywhere on 2026-08-15."""
PRICE_WAVE_SECONDS = 7 * 86400.0
PRICE_WAVE_SPREAD = 0.2

BOOT_SECONDS = {0: 120.0, 1: 240.0, 2: 360.0, 4: 600.0, 8: 1500.0}
"""By number of GPUs: Lambda says 3 to 5 minutes for one; 25 minutes were seen for 8×H100 (dstack issue 2342)."""

_SHOP_WORDS = {
    "a10-24gb": ("A10 (24 GB PCIe)", "NVIDIA A10"),
    "a100-40gb-pcie": ("A100 (40 GB PCIe)", "NVIDIA A100-PCIE-40GB"),
    "a100-40gb-sxm4": ("A100 (40 GB SXM4)", "NVIDIA A100-SXM4-40GB"),
    "a100-80gb-sxm4": ("A100 (80 GB SXM4)", "NVIDIA A100-SXM4-80GB"),
    "a6000-48gb": ("A6000 (48 GB)", "NVIDIA RTX A6000"),
    "b200-180gb": ("B200 (180 GB SXM6)", "NVIDIA B200"),
    "gh200-96gb": ("GH200 (96 GB)", "NVIDIA GH200 480GB"),
    "h100-80gb-pcie": ("H100 (80 GB PCIe)", "NVIDIA H100 PCIe"),
    "h100-80gb-sxm5": ("H100 (80 GB SXM5)", "NVIDIA H100 80GB HBM3"),
    "quadro-rtx6000-24gb": ("RTX 6000 (24 GB)", "Quadro RTX 6000"),
    "v100-16gb-sxm2": ("Tesla V100 (16 GB)", "Tesla V100-SXM2-16GB"),
}
"""By GPU id: Lambda's `gpu_description` of 2026-08-20, and the name that NVIDIA's driver gives it."""


class MachineType(NamedTuple):
    """One instance type: the API's words, and what a machine of it shows when it is asked."""

    name: str
    description: str
    gpu_description: str
    cents_per_hour: int
    gpus: int
    vcpus: int
    memory_gib: int
    storage_gib: int
    architecture: str
    gpu_name: str
    gpu_memory_bytes: int
    compute_capability: tuple[int, int]


@cache
def machine_types() -> dict[str, MachineType]:
    """Every Lambda type of the price table, by name."""
    return {
        offer.instance_type: _machine_type(offer) for offer in packaged_offers() if offer.cloud == "lambda"
    }


def _machine_type(offer: Offer) -> MachineType:
    gpu = find_gpu(offer.gpu)
    words, driver_name = _SHOP_WORDS.get(offer.gpu, (f"{gpu.name} ({gpu.label_gb} GB)", f"NVIDIA {gpu.name}"))
    return MachineType(
        name=offer.instance_type,
        description=f"{offer.gpu_count}x {words}",
        gpu_description=words,
        cents_per_hour=round(offer.usd_per_hour * 100),
        gpus=offer.gpu_count,
        vcpus=offer.vcpus or 8 * offer.gpu_count,
        memory_gib=offer.memory_gib or 64 * offer.gpu_count,
        storage_gib=offer.storage_gib or 512,
        architecture=offer.cpu_architecture,
        gpu_name=driver_name,
        gpu_memory_bytes=gpu.memory_bytes,
        compute_capability=gpu.compute_capability or (0, 0),
    )


def cents_now(machine_type: MachineType, settings: Settings, now: float) -> int:
    """The price in US cents an hour at the sandbox's time `now`."""
    if machine_type.name in settings.cents:
        return settings.cents[machine_type.name]
    if settings.wave_seed is None:
        return machine_type.cents_per_hour
    share = _chance(settings.wave_seed, "price", machine_type.name, int(now // PRICE_WAVE_SECONDS))
    return round(machine_type.cents_per_hour * (1 + PRICE_WAVE_SPREAD * (2 * share - 1)))


def regions_with_room(machine_type: str, settings: Settings, now: float) -> tuple[str, ...]:
    """Where one more machine of this type can be had, at the sandbox's time `now`."""
    return tuple(region for region in REGIONS if _has_room(machine_type, region, settings, now))


def _has_room(machine_type: str, region: str, settings: Settings, now: float) -> bool:
    said = settings.capacity.get(f"{machine_type}/{region}", settings.capacity.get(machine_type))
    usual = region in _usual_regions(machine_type)
    if f"{machine_type}/{region}" in settings.capacity:
        return bool(said)
    if said is not None:
        return said and usual
    if settings.wave_seed is None:
        return usual
    return _chance(settings.wave_seed, machine_type, region, int(now // WAVE_SECONDS)) < WAVE_SHARE


@cache
def _usual_regions(machine_type: str) -> frozenset[str]:
    others = [region for region in REGIONS if region != HOME_REGION]
    return frozenset({HOME_REGION, others[int(_chance(0, machine_type) * len(others))]})


def boot_seconds(machine_type: MachineType, instance_id: str) -> float:
    """From launch to `active`, by the sandbox's clock: a quarter more or less, the same for the same machine."""
    base = BOOT_SECONDS.get(machine_type.gpus, BOOT_SECONDS[8])
    return base * (0.75 + 0.5 * _chance(0, instance_id))


def _chance(*parts: object) -> float:
    """A number in [0, 1) that is the same for the same parts, on every computer."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=6).digest()) / (1 << 48)
