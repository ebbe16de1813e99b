"""A machine for rent: which GPU, how many, where, for how much, and since when we know."""

# No annotations as text here: msgspec compiles each of them when it first reads the table, a fortieth of `soong plan`.

from typing import Annotated

import msgspec

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=120)]
Day = Annotated[str, msgspec.Meta(min_length=10, max_length=10)]
Count = Annotated[int, msgspec.Meta(ge=1, le=1024)]
UsdPerHour = Annotated[float, msgspec.Meta(ge=0, lt=1e6)]


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """One instance type of one cloud at one price.

    Attributes:
        cloud: `lambda`, ...
        instance_type: the cloud's own name: `gpu_1x_a6000`.
        gpu: our GPU id. gpu_count: how many of them the machine has.
        usd_per_hour: for the whole machine.
        as_of: the day of the price, ISO. live: asked from the cloud just now.
        region: None when the price holds in every region. available: None when not asked.
        spot: may be taken away at any moment.
        launchable: soong rents there itself; else the offer is a price only, for the tools of `soong export`.
    """

    cloud: Name
    instance_type: Name
    gpu: Name
    gpu_count: Count
    usd_per_hour: UsdPerHour
    as_of: Day
    source: str
    live: bool = False
    available: bool | None = None
    region: str | None = None
    spot: bool = False
    cpu_architecture: str = "x86_64"
    vcpus: int | None = None
    memory_gib: int | None = None
    storage_gib: int | None = None
    launchable: bool = True
