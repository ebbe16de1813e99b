"""Fetch what other clouds charge, through gpuhunt, and keep it: the one place where prices come over the network.

gpuhunt (https://github.com/dstackai/gpuhunt) is the price catalogue of the makers of dstack, collected every night from
the clouds' own lists; the extra `soong[prices]` installs it. Nothing is fetched unless a person asks.
"""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from soong import tracing
from soong.errors import NotFoundError, RemoteError, TimedOutError, UsageError
from soong.gpus.catalogue import all_gpus
from soong.offers import price_cache
from soong.offers.asking_gpuhunt import Answer, Told
from soong.offers.gpu_names import Known, Unmapped, gpu_of
from soong.offers.offer import Offer
from soong.offers.price_cache import Catalogue
from soong.offers.price_sources import LAUNCHABLE, Provider, price_sources
from soong.tables import packaged

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from soong.offers.asking_gpuhunt import Row

MOST_SECONDS = 180.0
"""How long a fetch may take in all: nine catalogues of some megabytes over a slow line."""

LONGEST_NAME = 120
MOST_GPUS = 1024
MOST_USD_PER_HOUR = 1e6
"""What an `Offer` can hold."""

EXTRA = "pip install 'soong[prices]'"


class Fetched(NamedTuple):
    """What a fetch brought. problems: why a cloud's prices did not come, by our name of the cloud."""

    catalogues: tuple[Catalogue, ...]
    problems: dict[str, str]


def fetch(cloud: str | None = None, *, most_seconds: float = MOST_SECONDS) -> Fetched:
    """Ask gpuhunt, and keep what it says in the cache.

    Args:
        cloud: one cloud of ours; None and `all` mean the published catalogue of all it has.
        most_seconds: the whole fetch ends by then.

    Raises:
        UsageError: gpuhunt is not installed, or a key that it needs is not set.
        NotFoundError: gpuhunt has no prices of that cloud.
        RemoteError: nothing came; what is kept stays. TimedOutError: not in time.
        SoongError: the cache cannot be written.
    """
    wanted = None if cloud in {None, "all"} else _provider_of(cloud or "")
    _refuse_without_gpuhunt()
    named = [wanted.name] if wanted is not None and not wanted.published else []
    if wanted is not None:
        _refuse_without_keys(wanted)
    fetched = read_answer(_answered(named, most_seconds), wanted, moment=datetime.now(UTC))
    if not fetched.catalogues:
        raise RemoteError("no prices came", why="; ".join(dict.fromkeys(fetched.problems.values())))
    price_cache.write([catalogue for catalogue in fetched.catalogues if _is_news(catalogue)])
    return fetched


def _is_news(catalogue: Catalogue) -> bool:
    """Whether nothing newer is kept: what the cloud itself told today is, beside a catalogue of last night."""
    kept = price_cache.read(catalogue.cloud)
    return kept is None or kept.as_of <= catalogue.as_of


def _provider_of(cloud: str) -> Provider:
    found = price_sources().provider_of(cloud)
    if found is None:
        clouds = ", ".join(sorted(provider.cloud for provider in price_sources().provider))
        raise NotFoundError(
            f"gpuhunt has no prices of a cloud `{cloud[:60]}`", hints=(f"it has: {clouds}", "soong offers")
        )
    return found


def _refuse_without_gpuhunt() -> None:
    from importlib.util import find_spec

    if find_spec("gpuhunt") is None:
        raise UsageError(
            "fetching prices needs gpuhunt, which is not installed",
            why="it is what the extra `prices` adds",
            hints=(EXTRA, "`soong offers --live` asks Lambda itself, with your key"),
        )


def _refuse_without_keys(provider: Provider) -> None:
    import os

    missing = [name for name in provider.keys if not os.environ.get(name, "").strip()]
    if missing:
        raise UsageError(
            f"{provider.cloud} tells its prices only with a key",
            why=f"not set: {', '.join(missing)}",
            hints=(f"export {missing[0]}=...", "`soong offers --refresh` fetches the published catalogue"),
        )


def _answered(named: Sequence[str], most_seconds: float) -> Answer:
    import subprocess

    # -P: modules come from where soong is installed, not from the directory that the person happens to be in.
    command = tracing.own([sys.executable, "-P", "-m", "soong.offers.asking_gpuhunt", *named])
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=most_seconds)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise TimedOutError(f"gpuhunt's prices did not come within {most_seconds:g} s") from error
    try:
        return msgspec.msgpack.decode(done.stdout, type=Answer)
    except msgspec.DecodeError as error:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [f"exit {done.returncode}"]
        raise RemoteError("gpuhunt failed", why=last[0][:300], hints=(EXTRA,)) from error


def read_answer(answer: Answer, wanted: Provider | None, *, moment: datetime) -> Fetched:
    """What gpuhunt said, as prices of ours.

    Args:
        answer: its answer. wanted: only this provider; None for all. moment: of the fetch.
    """
    providers = {provider.name: provider for provider in price_sources().provider}
    known = Known({gpu.id for gpu in all_gpus()}, _packaged_types())
    catalogues, problems = [], {}
    for told in answer.told:
        provider = providers.get(told.provider)
        if provider is None or wanted not in {None, provider}:
            continue
        if told.error:
            problems[provider.cloud] = told.error
        else:
            catalogues.append(_catalogue(told, provider, known, moment))
    expected = (
        [wanted]
        if wanted is not None
        else [provider for provider in providers.values() if provider.published]
    )
    came = {catalogue.cloud for catalogue in catalogues}
    for provider in expected:
        if provider.cloud not in came:
            problems.setdefault(provider.cloud, answer.error or "its catalogue did not come")
    return Fetched(tuple(catalogues), problems)


def _packaged_types() -> dict[tuple[str, str], str]:
    return {(offer.cloud, offer.instance_type): offer.gpu for offer in packaged("prices", Offer)}


def _catalogue(told: Told, provider: Provider, known: Known, moment: datetime) -> Catalogue:
    now = moment.date().isoformat()
    day = min(_day_of(told.version) or now, now)
    source = f"gpuhunt, catalogue {told.version}" if told.version else f"gpuhunt, asked of {provider.cloud}"
    unmapped: dict[str, int] = {}
    cheapest: dict[tuple[str, int, str, bool], Offer] = {}
    several = _counts_of_types(told.rows)
    left_out = price_sources().flags.left_out
    for row in told.rows:
        if not _is_machine(row) or not left_out.isdisjoint(row.flags):
            continue
        gpu = gpu_of(provider.cloud, row.instance_type, row.chip, row.gpu_memory_gb, known)
        if isinstance(gpu, Unmapped):
            key = f"{gpu.name}: {gpu.reason}"
            unmapped[key] = unmapped.get(key, 0) + 1
            continue
        offer = _offer(row, provider.cloud, gpu, several, day, source)
        place = (offer.instance_type, offer.gpu_count, row.region, row.spot)
        if place not in cheapest or offer.usd_per_hour < cheapest[place].usd_per_hour:
            cheapest[place] = offer
    return Catalogue(
        cloud=provider.cloud,
        as_of=day,
        fetched_at=moment.isoformat(timespec="seconds"),
        source=source,
        version=told.version,
        offers=tuple(cheapest.values()),
        unmapped=unmapped,
    )


def _is_machine(row: Row) -> bool:
    """Whether the row is one that a person can rent and an `Offer` can hold."""
    return (
        0 < row.usd_per_hour < MOST_USD_PER_HOUR
        and 1 <= row.gpu_count <= MOST_GPUS
        and 0 < len(row.instance_type) <= LONGEST_NAME
        and row.instance_type.isprintable()
        and row.region.isprintable()
    )


def _counts_of_types(rows: Iterable[Row]) -> dict[str, set[int]]:
    """How many GPUs a type of that name may have: RunPod's names say only which, and any number is rented."""
    counts: dict[str, set[int]] = {}
    for row in rows:
        counts.setdefault(row.instance_type, set()).add(row.gpu_count)
    return counts


def _offer(row: Row, cloud: str, gpu: str, counts: dict[str, set[int]], day: str, source: str) -> Offer:
    many = row.gpu_count > 1 and len(counts[row.instance_type]) > 1
    return Offer(
        cloud=cloud,
        instance_type=f"{row.gpu_count}x {row.instance_type}"[:LONGEST_NAME] if many else row.instance_type,
        gpu=gpu,
        gpu_count=row.gpu_count,
        usd_per_hour=round(row.usd_per_hour, 6),
        as_of=day,
        source=source,
        region=row.region or None,
        spot=row.spot,
        cpu_architecture="arm64" if row.cpu_architecture == "arm" else "x86_64",
        vcpus=row.vcpus or None,
        launchable=cloud in LAUNCHABLE,
    )


def _day_of(version: str) -> str | None:
    """The day of a catalogue: its version is `20260818-42`, the day and the number of the run."""
    try:
        return date.fromisoformat(version.partition("-")[0]).isoformat()
    except ValueError:
        return None


def remember_live(offers: Sequence[Offer]) -> bool:
    """Keep the prices that a cloud has just told, for plans without its key; whether there were any.

    Args:
        offers: live ones of one cloud, one for each type and region with room.

    Raises:
        SoongError: the cache cannot be written.
    """
    if not offers or not all(offer.live for offer in offers):
        return False
    cheapest = {offer.instance_type: offer for offer in sorted(offers, key=lambda offer: -offer.usd_per_hour)}
    kept = [
        msgspec.structs.replace(offer, live=False, available=None, region=None) for offer in cheapest.values()
    ]
    known = {gpu.id for gpu in all_gpus()}
    catalogue = Catalogue(
        cloud=kept[0].cloud,
        as_of=kept[0].as_of,
        fetched_at=datetime.now(UTC).isoformat(timespec="seconds"),
        source=kept[0].source,
        version="",
        offers=tuple(offer for offer in kept if offer.gpu in known),
        unmapped={
            f"{offer.gpu}: no such GPU in soong's table": 1 for offer in kept if offer.gpu not in known
        },
    )
    price_cache.write([catalogue])
    return True
