"""The facts about prices themselves: how long one lasts, who tells them, and what their words mean in ours."""

from __future__ import annotations

import msgspec

from soong.tables import packaged_document

LAUNCHABLE = frozenset({"lambda", "sandbox", "local"})
"""The clouds that soong rents on itself; a test holds them equal to the adapters there are."""


class Freshness(msgspec.Struct, frozen=True):
    """How many days a price counts as current; `moving_days` is for spot prices and for `moving_clouds`."""

    on_demand_days: int
    moving_days: int
    moving_clouds: frozenset[str]


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """A provider of gpuhunt's.

    name: gpuhunt's. cloud: ours. published: in the nightly catalogue, else asked directly when it is named.
    keys: variables that must be set for it to be asked.
    """

    name: str
    cloud: str
    published: bool
    keys: tuple[str, ...] = ()


class Flags(msgspec.Struct, frozen=True):
    """gpuhunt's flags of rows that are no machine to take by the hour."""

    left_out: frozenset[str]


class Memory(msgspec.Struct, frozen=True):
    """How far a stated memory may be from the gigabytes of an id, as factors of them."""

    least: float
    most: float


class VariantRule(msgspec.Struct, frozen=True, kw_only=True):
    """Which variant a type of a cloud is: where `match` finds the type's name, the GPU's id ends in one of `suffix`.

    cloud: empty where it holds in every cloud.
    """

    match: str
    suffix: tuple[str, ...]
    cloud: str = ""
    source: str = ""


class PriceSources(msgspec.Struct, frozen=True):
    """The whole table."""

    freshness: Freshness
    provider: tuple[Provider, ...]
    flags: Flags
    chips: dict[str, tuple[str, ...]]
    memory: Memory
    word: tuple[VariantRule, ...]
    type: tuple[VariantRule, ...]

    def provider_of(self, cloud: str) -> Provider | None:
        """The provider that tells the prices of a cloud of ours; None where gpuhunt has none."""
        return next((provider for provider in self.provider if provider.cloud == cloud), None)


class _OnlyFreshness(msgspec.Struct, frozen=True):
    """The one part of the table that every plan needs; reading the rest too would cost it a percent of its time."""

    freshness: Freshness


def freshness_rule() -> Freshness:
    """How many days a price counts as current; read once in a process."""
    found: _OnlyFreshness = packaged_document("price_sources", _OnlyFreshness)
    return found.freshness


def price_sources() -> PriceSources:
    """The packaged table; read once in a process."""
    found: PriceSources = packaged_document("price_sources", PriceSources)
    return found
