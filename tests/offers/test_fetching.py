"""The true gpuhunt reads a true catalogue over real HTTP; what cannot be had leaves what was there."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from soong.errors import NotFoundError, RemoteError, TimedOutError, UsageError
from soong.offers import fetching, price_cache
from soong.offers.asking_gpuhunt import Answer, Row, Told, ask
from soong.offers.fetching import fetch, read_answer, remember_live
from soong.offers.offer import Offer
from soong.offers.price_sources import price_sources
from soong.offers.sources import known_offers, offers_to_plan, unmapped
from tests.offers.catalogue_server import VERSION, CatalogueServer, Marketplace, item
from tests.support.hub_server import Reply

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MOMENT = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CatalogueServer]:
    """gpuhunt's store, on this machine, with all its catalogues."""
    with CatalogueServer() as running:
        running.publish(tmp_path)
        monkeypatch.setenv("GPUHUNT_CATALOG_URL", running.catalogue_url)
        yield running


@pytest.mark.usefixtures("server")
class TestAWholeFetch:
    def test_every_published_cloud_comes(self) -> None:
        fetched = fetch()
        published = {provider.cloud for provider in price_sources().provider if provider.published}
        assert {one.cloud for one in fetched.catalogues} == published
        assert fetched.problems == {}
        assert set(price_cache.cached_clouds()) == published

    def test_a_price_has_its_day_its_source_and_its_marks(self) -> None:
        fetch()
        [spot] = [one for one in known_offers("aws") if one.spot]
        assert spot == Offer(
            cloud="aws",
            instance_type="p5.48xlarge",
            gpu="h100-80gb-sxm5",
            gpu_count=8,
            usd_per_hour=21.3,
            as_of="2026-11-22",
            source=f"gpuhunt, catalogue {VERSION}",
            region="us-east-1",
            spot=True,
            vcpus=8,
            launchable=False,
        )

    def test_the_newer_prices_of_lambda_count_for_a_plan_that_names_no_cloud(self) -> None:
        fetch()
        found = {one.instance_type: one for one in offers_to_plan()}
        assert found["gpu_1x_a10"].usd_per_hour == 1.49
        assert found["gpu_1x_a10"].region is None
        assert found["gpu_1x_gh200"].cpu_architecture == "arm64"
        assert all(one.launchable for one in found.values())

    def test_machines_that_nobody_can_take_by_the_hour_are_left_out(self) -> None:
        fetch()
        assert 9.0 not in {one.usd_per_hour for one in known_offers("runpod")}

    def test_a_name_for_any_number_of_gpus_says_how_many(self) -> None:
        fetch()
        assert {(one.instance_type, one.gpu_count) for one in known_offers("runpod")} == {
            ("NVIDIA H100 80GB HBM3", 1),
            ("8x NVIDIA H100 80GB HBM3", 8),
        }

    def test_what_has_no_gpu_of_ours_is_counted(self) -> None:
        fetch()
        counts = unmapped(["aws", "azure", "gcp", "runpod"])
        assert sum(counts.values()) == 3
        assert {name.partition(":")[0] for name in counts} == {"L4 2.79 GB", "V100 16 GB", "v5litepod 0 GB"}
        assert {one.gpu for one in known_offers("azure")} == {"a100-80gb-pcie"}


class TestPartsAndFailures:
    def test_a_cloud_that_fails_keeps_what_was_known_and_is_named(self, server: CatalogueServer) -> None:
        fetch()
        before = price_cache.read("aws")
        server.on("/v3/aws/version", Reply(503))
        fetched = fetch()
        assert set(fetched.problems) == {"aws"}
        assert price_cache.read("aws") == before

    @pytest.mark.parametrize("body", [b"", b"PK\x03\x04 no zip", b"<html>sign in</html>"])
    def test_a_catalogue_that_is_none_is_like_a_failure(self, server: CatalogueServer, body: bytes) -> None:
        server.on(f"/v3/runpod/{VERSION}/catalog.zip", Reply(body=body))
        assert set(fetch().problems) == {"runpod"}

    def test_nobody_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        monkeypatch.setenv("GPUHUNT_CATALOG_URL", f"http://127.0.0.1:{port}/v3")
        with pytest.raises(RemoteError) as caught:
            fetch()
        assert caught.value.why == "Connection refused"
        assert price_cache.cached_clouds() == ()

    def test_a_server_that_says_nothing_has_an_end(self, server: CatalogueServer) -> None:
        server.on("/v3/aws/version", Reply(hang=True))
        with pytest.raises(TimedOutError, match=r"1\.5 s"):
            fetch(most_seconds=1.5)
        assert price_cache.cached_clouds() == ()

    def test_one_cloud_alone(self, server: CatalogueServer) -> None:
        server.on("/v3/aws/version", Reply(503))
        fetched = fetch("runpod")
        assert [one.cloud for one in fetched.catalogues] == ["runpod"]
        assert fetched.problems == {}
        assert price_cache.cached_clouds() == ("runpod",)

    def test_without_gpuhunt_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(UsageError, match="gpuhunt") as caught:
            fetch()
        assert caught.value.hints[0] == "pip install 'soong[prices]'"

    def test_a_cloud_that_gpuhunt_has_not(self) -> None:
        with pytest.raises(NotFoundError, match="nimbus") as caught:
            fetch("nimbus")
        assert "runpod" in caught.value.hints[0]

    def test_a_cloud_that_wants_a_key_says_which(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CRUSOE_ACCESS_KEY", raising=False)
        with pytest.raises(UsageError, match="CRUSOE_ACCESS_KEY"):
            fetch("crusoe")

    def test_what_the_cloud_told_today_is_not_put_back_to_last_night(self, server: CatalogueServer) -> None:
        live = Offer(
            cloud="lambda", instance_type="gpu_1x_a10", gpu="a10-24gb", gpu_count=1, usd_per_hour=1.11,
            as_of="2026-11-23", source="the cloud's own answer", live=True, available=True, region="us-east-1",
        )  # fmt: skip
        remember_live([live])
        fetch()
        assert [(one.usd_per_hour, one.as_of) for one in offers_to_plan()] == [(1.11, "2026-11-23")]
        assert len(server.requests) == 18


def rows(*changes: dict[str, Any]) -> tuple[Row, ...]:
    plain: dict[str, Any] = {
        "instance_type": "p5.48xlarge",
        "region": "us-east-1",
        "usd_per_hour": 55.04,
        "gpu_count": 8,
        "chip": "H100",
        "gpu_memory_gb": 80.0,
        "spot": False,
        "vcpus": 192,
        "cpu_architecture": "x86",
        "flags": (),
    }
    return tuple(Row(**(plain | change)) for change in changes)


def read(*changes: dict[str, Any], version: str = VERSION) -> price_cache.Catalogue:
    told = Told("aws", version=version, rows=rows(*changes))
    aws = price_sources().provider_of("aws")
    [found] = read_answer(Answer((told,)), aws, moment=MOMENT).catalogues
    return found


@pytest.mark.parametrize(
    "name", [provider.name for provider in price_sources().provider if not provider.published]
)
def test_gpuhunt_has_a_way_to_ask_every_cloud_that_is_asked_directly(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody answers here, so each fails; but for want of an answer, and not of a provider or a key of another name."""
    for provider in price_sources().provider:
        for key in provider.keys:
            monkeypatch.setenv(key, "nothing")
    monkeypatch.setattr("requests.sessions.Session.send", _no_network)
    [told] = ask([name]).told
    assert (told.provider, told.rows, told.error) == (name, (), "no network in this test")


def _no_network(*_: object, **__: object) -> None:
    raise ConnectionError("no network in this test")


class TestReading:
    @pytest.mark.parametrize(
        ("version", "day"),
        [
            ("20261122-1042", "2026-11-22"),
            ("20261122", "2026-11-22"),
            ("latest", "2026-11-23"),
            ("20261399-1", "2026-11-23"),
            ("20991231-1", "2026-11-23"),
            ("", "2026-11-23"),
        ],
    )
    def test_the_day_is_the_catalogues_own_else_that_of_the_fetch(self, version: str, day: str) -> None:
        assert read({}, version=version).as_of == day
        assert read({}, version=version).offers[0].as_of == day

    @pytest.mark.parametrize(
        "change",
        [
            {"usd_per_hour": 0.0},
            {"usd_per_hour": -1.0},
            {"usd_per_hour": float("nan")},
            {"usd_per_hour": float("inf")},
            {"gpu_count": 0},
            {"gpu_count": 5000},
            {"instance_type": ""},
            {"instance_type": "x" * 500},
            {"instance_type": "evil\x1b[2J"},
            {"region": "us\n"},
        ],
        ids=str,
    )
    def test_a_row_that_is_no_machine_is_passed_over(self, change: dict[str, Any]) -> None:
        assert len(read({}, change).offers) == 1

    def test_of_the_same_machine_in_the_same_place_the_cheapest_counts(self) -> None:
        found = read({"usd_per_hour": 60.0}, {}, {"usd_per_hour": 58.0}, {"region": "us-west-2"})
        assert {(one.region, one.usd_per_hour) for one in found.offers} == {
            ("us-east-1", 55.04),
            ("us-west-2", 55.04),
        }

    def test_a_cloud_that_soong_has_no_name_for_is_passed_over(self) -> None:
        told = (Told("newcloud", version=VERSION, rows=rows({})), Told("aws", version=VERSION, rows=rows({})))
        assert [one.cloud for one in read_answer(Answer(told), None, moment=MOMENT).catalogues] == ["aws"]


BUNDLE: dict[str, Any] = {
    "id": 4242, "cpu_cores": 64, "cpu_cores_effective": 16.0, "cpu_ram": 256_000, "disk_space": 100.0,
    "storage_cost": 0.1, "gpu_name": "RTX 4090", "gpu_ram": 24_564, "num_gpus": 2, "dph_base": 0.7,
    "geolocation": "Oslo, NO", "min_bid": 0.3, "rentable": True, "rented": False,
}  # fmt: skip
"""An offer as Vast.ai's search answers it; only the fields that gpuhunt reads."""


class TestAMarketplace:
    """Vast.ai is asked directly, and only when it is named: the true gpuhunt, here in this process."""

    @pytest.fixture(autouse=True)
    def _in_this_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fetching, "_answered", lambda named, most_seconds: ask(named))

    def test_its_offers_are_dated_today_and_priced_with_their_disk(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        unclear = BUNDLE | {"id": 7, "gpu_name": "A100 PCIE", "gpu_ram": 81_920}
        with Marketplace(200, json.dumps({"offers": [BUNDLE, unclear]}).encode()) as market:
            monkeypatch.setattr("gpuhunt.providers.vastai.bundles_url", market.url)
            [catalogue] = fetch("vastai").catalogues
        disk = 100.0 * 0.1 / 30 / 24
        assert {
            (one.gpu, one.gpu_count, one.spot, round(one.usd_per_hour, 4)) for one in catalogue.offers
        } == {
            ("rtx4090-24gb", 2, False, round(0.7 + disk, 4)),
            ("rtx4090-24gb", 2, True, round(0.3 + disk, 4)),
        }
        assert catalogue.as_of == catalogue.fetched_at[:10]
        assert sum(catalogue.unmapped.values()) == 2

    def test_one_that_fails_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with Marketplace(500) as market:
            monkeypatch.setattr("gpuhunt.providers.vastai.bundles_url", market.url)
            with pytest.raises(RemoteError, match="500"):
                fetch("vastai")


def test_live_prices_are_kept_without_what_holds_only_now() -> None:
    live = [
        Offer(
            cloud="lambda", instance_type=name, gpu=gpu, gpu_count=1, usd_per_hour=1.11, as_of="2026-11-23",
            source="the cloud's own answer", live=True, available=region is not None, region=region,
        )
        for name, gpu, region in (
            ("gpu_1x_a10", "a10-24gb", "us-east-1"),
            ("gpu_1x_a10", "a10-24gb", "us-west-1"),
            ("gpu_1x_a6000", "a6000-48gb", None),
            ("gpu_1x_new", "b400-512gb", None),
        )
    ]  # fmt: skip
    assert remember_live(live)
    kept = known_offers("lambda")
    assert [one.instance_type for one in kept] == ["gpu_1x_a10", "gpu_1x_a6000"]
    assert {(one.live, one.available, one.region, one.launchable) for one in kept} == {
        (False, None, None, True)
    }
    assert unmapped(["lambda"]) == {"b400-512gb: no such GPU in soong's table": 1}


def test_what_is_not_live_is_not_kept() -> None:
    assert not remember_live([])
    assert not remember_live([item_as_offer()])
    assert price_cache.read("lambda") is None


def item_as_offer() -> Offer:
    row = item("gpu_1x_a10", "A10", 24, 1.29)
    return Offer(
        cloud="lambda", instance_type=row.instance_name, gpu="a10-24gb", gpu_count=row.gpu_count,
        usd_per_hour=row.price, as_of="2026-09-05", source="a list",
    )  # fmt: skip
