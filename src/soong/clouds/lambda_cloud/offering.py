"""Lambda's instance types as offers: which GPU, how many, which host, at which price, free where.

Lambda's answer has no field for the GPU's memory. Types that our price table knows get their GPU from there; of a new
one the words of `gpu_description` are read, `H100 (80 GB SXM5)`, and what no table knows keeps its own name, so that
a type that appears tomorrow is shown and never breaks the list.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from soong.errors import NotFoundError
from soong.gpus.catalogue import all_gpus, find_gpu
from soong.offers.offer import Offer
from soong.offers.snapshot import packaged_offers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from soong.clouds.lambda_cloud import wire

CENTS_PER_USD = 100

_ARM_WORDS = frozenset({"arm64", "aarch64", "arm"})
_LONGEST_SLUG = 60


def read_offers(types: Mapping[str, wire.InstanceTypeItem], *, cloud: str, as_of: str) -> tuple[Offer, ...]:
    """One offer for each type and region with room, and one without region for each type without room.

    Types without a GPU or without a price are left out: nothing can be served on the first, nor a cost told of the
    second.

    Args:
        types: as Lambda answers. cloud: the name to put on the offers. as_of: the day of the answer, ISO.
    """
    return tuple(offer for item in types.values() for offer in _offers(item, cloud, as_of))


def _offers(item: wire.InstanceTypeItem, cloud: str, as_of: str) -> Iterator[Offer]:
    kind = item.instance_type
    if kind.price_cents_per_hour is None or kind.specs is None or kind.specs.gpus < 1:
        return
    gpu = gpu_of(kind)
    regions: list[str | None] = [region.name for region in item.regions_with_capacity_available or ()]
    for region in regions or [None]:
        yield Offer(
            cloud=cloud,
            instance_type=kind.name,
            gpu=gpu,
            gpu_count=kind.specs.gpus,
            usd_per_hour=kind.price_cents_per_hour / CENTS_PER_USD,
            as_of=as_of,
            source="the cloud's own answer",
            live=True,
            available=bool(regions),
            region=region,
            cpu_architecture=cpu_architecture_of(kind),
            vcpus=kind.specs.vcpus,
            memory_gib=kind.specs.memory_gib,
            storage_gib=kind.specs.storage_gib,
        )


def gpu_of(kind: wire.InstanceType) -> str:
    """Our id of the GPU of an instance type; a name made of Lambda's own words where no table knows it."""
    known = _known(kind.name)
    if known is not None:
        return known.gpu
    words = kind.gpu_description or kind.name
    try:
        return find_gpu(words).id
    except NotFoundError:
        slug = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
        return slug[:_LONGEST_SLUG] or "unknown-gpu"


def cpu_architecture_of(kind: wire.InstanceType) -> str:
    """`x86_64` or `arm64`: as Lambda says, else as our tables say of the type or of its GPU."""
    if kind.architecture:
        return "arm64" if kind.architecture.lower() in _ARM_WORDS else "x86_64"
    known = _known(kind.name)
    if known is not None:
        return known.cpu_architecture
    gpu = gpu_of(kind)
    return next((found.cpu_architecture for found in all_gpus() if found.id == gpu), "x86_64")


def _known(instance_type: str) -> Offer | None:
    rows = (row for row in packaged_offers() if row.cloud == "lambda" and row.instance_type == instance_type)
    return next(rows, None)
