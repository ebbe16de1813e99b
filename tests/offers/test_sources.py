"""Which price counts: the newest list of a cloud, the user's rows above all, other clouds only when asked for."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from soong import tables
from soong.clouds import CLOUDS
from soong.errors import ConfigError
from soong.gpus.gpu import Gpu
from soong.offers import price_cache, sources
from soong.offers.offer import Offer
from soong.offers.price_cache import Catalogue
from soong.offers.price_sources import LAUNCHABLE, price_sources
from soong.offers.snapshot import packaged_offers
from soong.plan.planner import make_plan
from soong.plan.request import read_request

if TYPE_CHECKING:
    from pathlib import Path

PACKAGED = tables.packaged("prices", Offer)


def offer(**more: Any) -> Offer:
    fields: dict[str, Any] = {
        "cloud": "runpod",
        "instance_type": "NVIDIA L40S",
        "gpu": "l40s-48gb",
        "gpu_count": 1,
        "usd_per_hour": 0.5,
        "as_of": "2026-11-22",
        "source": "a test",
        "launchable": False,
    }
    return Offer(**(fields | more))


def keep(*offers: Offer, as_of: str = "2026-11-22") -> None:
    for cloud, of_cloud in itertools.groupby(offers, key=lambda one: one.cloud):
        price_cache.write(
            [
                Catalogue(
                    cloud=cloud,
                    as_of=as_of,
                    fetched_at="2026-11-23T12:00:00+00:00",
                    source="a test",
                    version="",
                    offers=tuple(of_cloud),
                    unmapped={},
                )
            ]
        )


def own(sealed: Path, **more: Any) -> None:
    row: dict[str, Any] = {
        "cloud": "garage",
        "instance_type": "mine",
        "gpu": "rtx4090-24gb",
        "gpu_count": 1,
        "usd_per_hour": 0.05,
        "as_of": "2026-11-01",
        "source": "the meter",
    }
    (sealed / "config").mkdir(parents=True, exist_ok=True)
    lines = "\n".join(f"{key} = {msgspec.json.encode(value).decode()}" for key, value in (row | more).items())
    (sealed / "config" / "prices.toml").write_text(f"[[price]]\n{lines}\n")


def clouds(offers: tuple[Offer, ...]) -> set[str]:
    return {one.cloud for one in offers}


class TestWhichClouds:
    def test_a_plan_counts_lambda_alone_when_nothing_is_said(self) -> None:
        assert clouds(sources.offers_to_plan()) == {"lambda"}
        assert set(sources.offers_to_plan()) == set(packaged_offers())

    def test_and_does_so_after_the_prices_of_others_were_fetched(self) -> None:
        before = sources.offers_to_plan()
        keep(offer())
        assert sources.offers_to_plan() == before

    def test_one_cloud_or_all_when_they_are_named(self) -> None:
        assert clouds(sources.offers_to_plan("runpod")) == {"runpod"}
        assert clouds(sources.offers_to_plan("all")) == clouds(PACKAGED)
        assert sources.offers_to_plan("nimbus") == ()

    def test_a_cloud_that_is_only_kept_counts_too(self) -> None:
        keep(offer(cloud="vultr", instance_type="vcg-l40s"))
        assert [one.instance_type for one in sources.offers_to_plan("vultr")] == ["vcg-l40s"]
        assert "vultr" in clouds(sources.offers_to_plan("all"))
        assert "vultr" in sources.known_clouds()

    @pytest.mark.parametrize("said", ["lambda,runpod", "lambda, runpod", "lambda runpod"])
    def test_the_setting_says_what_is_usual(
        self, sealed: Path, monkeypatch: pytest.MonkeyPatch, said: str
    ) -> None:
        monkeypatch.setenv("SOONG_PRICES_CLOUDS", said)
        assert clouds(sources.offers_to_plan()) == {"lambda", "runpod"}
        monkeypatch.delenv("SOONG_PRICES_CLOUDS")
        (sealed / "config").mkdir(parents=True)
        (sealed / "config" / "config.toml").write_text(f'prices.clouds = "{said}"\n')
        assert clouds(sources.offers_to_plan()) == {"lambda", "runpod"}

    def test_the_setting_may_say_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SOONG_PRICES_CLOUDS", "all")
        assert clouds(sources.offers_to_plan()) == clouds(PACKAGED)
        assert not sources.only_packaged()

    def test_a_setting_without_any_price_is_explained(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SOONG_PRICES_CLOUDS", "lambda,nimbus")
        with pytest.raises(ConfigError, match=r"SOONG_PRICES_CLOUDS.*`nimbus`") as caught:
            sources.offers_to_plan()
        assert "soong offers --refresh --cloud nimbus" in caught.value.hints
        assert sources.offers_to_plan("runpod")


class TestWhichPrice:
    def test_the_newest_list_of_a_cloud_counts_whole(self) -> None:
        keep(offer(cloud="lambda", instance_type="gpu_1x_a10", gpu="a10-24gb", launchable=True))
        assert [one.instance_type for one in sources.offers_to_plan()] == ["gpu_1x_a10"]
        assert not sources.only_packaged()

    @pytest.mark.parametrize("as_of", ["2026-08-01", "2026-11-08"])
    def test_a_list_older_than_the_packaged_one_does_not_count(self, as_of: str) -> None:
        keep(offer(), as_of=as_of)
        assert 0.5 not in {one.usd_per_hour for one in sources.offers_to_plan("runpod")}

    def test_a_list_without_an_offer_takes_nothing_away(self) -> None:
        price_cache.write(
            [
                Catalogue(
                    cloud="runpod",
                    as_of="2026-11-22",
                    fetched_at="",
                    source="",
                    version="",
                    offers=(),
                    unmapped={},
                )
            ]
        )
        assert sources.offers_to_plan("runpod")

    def test_a_row_of_the_users_lies_over_both(self, sealed: Path) -> None:
        own(sealed, cloud="runpod", instance_type="NVIDIA L40S", gpu="l40s-48gb", usd_per_hour=0.25)
        for _ in range(2):
            prices = [
                o.usd_per_hour for o in sources.known_offers("runpod") if o.instance_type == "NVIDIA L40S"
            ]
            assert prices == [0.25]
            keep(offer(region="US"), offer(region="CA"))

    def test_a_row_of_the_users_for_one_region_leaves_the_others(self, sealed: Path) -> None:
        keep(offer(region="US"), offer(region="CA"))
        own(
            sealed,
            cloud="runpod",
            instance_type="NVIDIA L40S",
            gpu="l40s-48gb",
            usd_per_hour=9.0,
            region="US",
        )
        found = {(one.region, one.usd_per_hour) for one in sources.known_offers("runpod")}
        assert found == {("US", 9.0), ("CA", 0.5)}

    def test_rows_of_the_users_own_cloud_always_count(self, sealed: Path) -> None:
        own(sealed)
        assert clouds(sources.offers_to_plan()) == {"lambda", "garage"}
        assert clouds(sources.offers_to_plan("runpod")) == {"runpod"}
        assert clouds(sources.offers_to_plan("garage")) == {"garage"}

    def test_a_row_of_the_users_with_an_unknown_gpu_is_named(self, sealed: Path) -> None:
        own(sealed, gpu="rtx4091")
        with pytest.raises(ConfigError, match=r"prices\.toml.*`garage mine`.*`rtx4091`") as caught:
            sources.offers_to_plan("all")
        assert "soong gpus" in caught.value.hints[0]


class TestHowTheyAreShownToAPlan:
    def test_each_machine_once_at_its_cheapest_region(self) -> None:
        keep(offer(region="US"), offer(region="CA", usd_per_hour=0.4), offer(region="FR", usd_per_hour=0.6))
        assert [(o.region, o.usd_per_hour) for o in sources.offers_to_plan("runpod")] == [("CA", 0.4)]

    def test_without_a_region_where_the_price_is_the_same_in_all(self) -> None:
        keep(offer(region="US"), offer(region="CA"))
        assert [(o.region, o.usd_per_hour) for o in sources.offers_to_plan("runpod")] == [(None, 0.5)]

    def test_in_every_order_of_the_regions(self) -> None:
        prices = {"US": 0.5, "CA": 0.5, "FR": 0.6}
        for order in itertools.permutations(prices):
            found = sources.at_cheapest_region([offer(region=r, usd_per_hour=prices[r]) for r in order])
            assert [one.usd_per_hour for one in found] == [0.5]
            assert found[0].region in {"US", "CA"}

    def test_with_a_region_only_what_is_there_or_everywhere(self) -> None:
        keep(offer(region="US"), offer(region="CA"), offer(instance_type="everywhere", gpu="l4-24gb"))
        found = sources.offers_to_plan("runpod", region="US")
        assert {(o.instance_type, o.region) for o in found} == {("NVIDIA L40S", "US"), ("everywhere", None)}

    def test_of_types_with_the_same_gpus_the_cheapest_unless_one_is_named(self) -> None:
        larger = {"instance_type": "with a larger host", "usd_per_hour": 0.7}
        keep(offer(), offer(**larger), offer(**larger, gpu_count=2))
        assert {(o.instance_type, o.gpu_count) for o in sources.offers_to_plan("runpod")} == {
            ("NVIDIA L40S", 1),
            ("with a larger host", 2),
        }
        assert len(sources.offers_to_plan("runpod", every_type=True)) == 3
        request = read_request({"model": "llama-3.1-8b", "cloud": "runpod", "gpu": "with a larger host"})
        [candidate] = make_plan(request, allow_network=False).candidates
        assert candidate.offer is not None
        assert candidate.offer.usd_per_hour == 0.7

    def test_every_type_where_soong_rents_itself(self) -> None:
        types = [one.instance_type for one in sources.offers_to_plan() if one.gpu == "v100-16gb-sxm2"]
        assert types == ["gpu_8x_v100", "gpu_8x_v100_n"]

    def test_spot_only_when_it_is_asked_for(self) -> None:
        keep(offer(), offer(spot=True, usd_per_hour=0.1))
        assert [o.spot for o in sources.offers_to_plan("runpod")] == [False]
        assert {o.spot for o in sources.offers_to_plan("runpod", spot=True)} == {False, True}

    def test_the_same_tuple_until_a_file_changes(self, sealed: Path) -> None:
        first = sources.offers_to_plan("all")
        assert sources.offers_to_plan("all") is first
        keep(offer())
        second = sources.offers_to_plan("all")
        assert second is not first
        own(sealed)
        assert sources.offers_to_plan("all") is not second

    @pytest.mark.parametrize("room", range(3))
    def test_the_same_tuple_when_the_store_is_full(self, room: int) -> None:
        sources._made.clear()
        sources._made.update({("other", n): ((), ()) for n in range(sources.MOST_REMEMBERED - room)})
        first = sources.offers_to_plan("all")
        assert sources.offers_to_plan("all") is first
        assert len(sources._made) <= sources.MOST_REMEMBERED

    def test_a_batch_sees_one_state(self) -> None:
        with tables.held():
            first = sources.offers_to_plan("runpod")
            keep(offer())
            assert sources.offers_to_plan("runpod") is first
        assert sources.offers_to_plan("runpod") is not first


def test_soong_rents_where_it_has_an_adapter() -> None:
    assert set(CLOUDS) == LAUNCHABLE


def test_what_soong_cannot_rent_is_a_price_only() -> None:
    for one in sources.known_offers("all"):
        assert one.launchable is (one.cloud == "lambda")


@pytest.mark.parametrize(("cloud", "launchable"), [("garage", True), ("runpod", False), ("lambda", True)])
def test_the_users_own_machine_may_be_recommended_but_a_public_cloud_stays_a_price(
    sealed: Path, cloud: str, launchable: bool
) -> None:
    own(sealed, cloud=cloud)
    found = [one for one in sources.known_offers("all") if one.instance_type == "mine"]
    assert [one.launchable for one in found] == [launchable]


def test_every_packaged_cloud_beside_lambda_is_one_that_gpuhunt_can_renew() -> None:
    renewed = {provider.cloud for provider in price_sources().provider}
    assert clouds(PACKAGED) <= renewed


def test_a_plan_of_another_cloud_chooses_its_cheapest_that_fits() -> None:
    plan = make_plan(read_request({"model": "llama-3.1-8b", "cloud": "runpod"}), allow_network=False)
    fitting = [c for c in plan.candidates if c.verdict == "fits" and c.offer]
    assert plan.chosen is not None
    assert plan.chosen.offer is not None
    assert plan.chosen.offer.cloud == "runpod"
    assert plan.chosen.offer.usd_per_hour == min(c.offer.usd_per_hour for c in fitting if c.offer)
    assert all(c.offer is not None and not c.offer.launchable for c in plan.candidates)


def test_a_cheaper_spot_price_is_chosen_only_when_spot_is_asked_for() -> None:
    gpus = {gpu.id for gpu in tables.packaged("gpus", Gpu)}
    assert "l40s-48gb" in gpus
    keep(offer(), offer(spot=True, usd_per_hour=0.1))
    for spot, usd in ((False, 0.5), (True, 0.1)):
        request = read_request({"model": "llama-3.1-8b", "cloud": "runpod", "spot": spot})
        plan = make_plan(request, allow_network=False)
        assert plan.chosen is not None
        assert plan.chosen.offer is not None
        assert plan.chosen.offer.usd_per_hour == usd
