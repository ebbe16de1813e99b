"""What was fetched is kept whole, read fast, and never in the way."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
import pytest

from soong.offers import price_cache
from soong.offers.offer import Offer
from soong.offers.price_cache import Catalogue
from soong.offers.sources import known_offers, offers_to_plan

if TYPE_CHECKING:
    from pathlib import Path


def offer(number: int = 0, cloud: str = "aws") -> Offer:
    return Offer(
        cloud=cloud,
        instance_type=f"p{number % 900}.48xlarge",
        gpu="h100-80gb-sxm5",
        gpu_count=1 + number % 8,
        usd_per_hour=1.0 + number % 977,
        as_of="2026-11-22",
        source="gpuhunt, catalogue 20261122-1",
        region=f"us-east-{number // 900}",
        spot=bool(number % 2),
        launchable=False,
    )


def catalogue(count: int = 3, cloud: str = "aws") -> Catalogue:
    return Catalogue(
        cloud=cloud,
        as_of="2026-11-22",
        fetched_at="2026-11-23T12:00:00+00:00",
        source="gpuhunt, catalogue 20261122-1",
        version="20261122-1",
        offers=tuple(offer(number, cloud) for number in range(count)),
        unmapped={"A16 16 GB: no such GPU in soong's table": 7},
    )


def test_what_is_written_is_read() -> None:
    assert price_cache.read("aws") is None
    price_cache.write([catalogue(), catalogue(cloud="azure")])
    assert price_cache.read("aws") == catalogue()
    assert price_cache.cached_clouds() == ("aws", "azure")


def test_only_its_owner_may_read_the_directory_and_nothing_is_left_beside_the_files(sealed: Path) -> None:
    price_cache.write([catalogue()])
    folder = sealed / "cache" / "prices"
    assert folder.stat().st_mode & 0o77 == 0
    assert [file.name for file in folder.iterdir()] == ["aws.msgpack"]


@pytest.mark.parametrize("cloud", ["../aws", "", "a/b", "AWS", "x" * 100])
def test_a_name_that_is_none_has_no_file(cloud: str) -> None:
    assert price_cache.path_of(cloud) == ""
    assert price_cache.read(cloud) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not msgpack",
        msgspec.msgpack.encode({"schema": "soong.prices/1"}),
        msgspec.msgpack.encode(msgspec.structs.replace(catalogue(), schema="soong.prices/99")),
        msgspec.msgpack.encode(catalogue(cloud="azure")),
        msgspec.msgpack.encode(catalogue())[:-20],
        msgspec.msgpack.encode(catalogue()).replace(b"us-east-0", b"us-\xff\xff\xff\xff-0"),
    ],
    ids=["empty", "noise", "little", "of tomorrow", "of another cloud", "cut off", "no text"],
)
def test_a_file_that_cannot_be_read_counts_as_none(sealed: Path, content: bytes) -> None:
    file = sealed / "cache" / "prices" / "aws.msgpack"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    assert price_cache.read("aws") is None
    assert {offer.source.partition(",")[0] for offer in known_offers("aws")} == {"AWS price list"}


@pytest.mark.slow
def test_a_hundred_thousand_offers_are_loaded_in_half_a_second() -> None:
    """Loaded, and each machine put at its cheapest region; the best of three, since a test machine is busy."""
    clouds = {"aws": 60_000, "azure": 30_000, "runpod": 10_000}
    price_cache.write([catalogue(count, cloud) for cloud, count in clouds.items()])
    took = []
    for _ in range(3):
        price_cache.write([catalogue(10_000, "runpod")])
        began = time.process_time()
        offers = offers_to_plan("all", spot=True)
        took.append(time.process_time() - began)
        assert len(known_offers("all")) > 100_000
        assert len({(o.cloud, o.instance_type, o.gpu_count, o.spot) for o in offers}) == len(offers)
    assert min(took) < 0.5
