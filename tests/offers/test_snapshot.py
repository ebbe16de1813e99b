"""The packaged prices: truths every row must keep, and finding them."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import pytest

from soong.errors import ConfigError, NotFoundError
from soong.gpus.catalogue import find_gpu
from soong.gpus.gpu import Gpu
from soong.offers.offer import Offer
from soong.offers.snapshot import find_offer, offers_for, packaged_offers
from soong.tables import packaged

if TYPE_CHECKING:
    from pathlib import Path

OFFERS = packaged("prices", Offer)
LAMBDA = [offer for offer in OFFERS if offer.cloud == "lambda"]
GPU_IDS = {gpu.id for gpu in packaged("gpus", Gpu)}


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOONG_HOME", str(tmp_path))
    (tmp_path / "config").mkdir()


@pytest.mark.parametrize("offer", OFFERS, ids=lambda one: f"{one.cloud} {one.instance_type} {one.region}")
class TestEveryOffer:
    def test_its_gpu_is_known(self, offer: Offer) -> None:
        assert offer.gpu in GPU_IDS

    def test_it_costs_something_sensible(self, offer: Offer) -> None:
        assert 0.1 <= offer.usd_per_hour / offer.gpu_count <= 20

    def test_its_host_fits_its_gpu(self, offer: Offer) -> None:
        assert offer.cpu_architecture == find_gpu(offer.gpu).cpu_architecture

    def test_it_has_a_day_and_a_source_and_claims_nothing_live(self, offer: Offer) -> None:
        assert date(2026, 1, 1) <= date.fromisoformat(offer.as_of) <= date(2026, 11, 23)
        assert len(offer.source) > len("Lambda price page") - 1
        assert not offer.live
        assert not offer.spot
        assert offer.available is None


@pytest.mark.parametrize("offer", LAMBDA, ids=lambda offer: offer.instance_type)
class TestEveryOfferOfLambda:
    def test_its_name_says_the_count(self, offer: Offer) -> None:
        assert f"gpu_{offer.gpu_count}x_" in offer.instance_type

    def test_its_price_is_lambdas_own_and_holds_everywhere(self, offer: Offer) -> None:
        assert "Lambda" in offer.source
        assert offer.region is None


@pytest.mark.parametrize(
    "offer",
    [offer for offer in OFFERS if offer not in LAMBDA],
    ids=lambda one: f"{one.instance_type} {one.region}",
)
def test_a_price_of_another_cloud_says_whose_page_and_who_noted_it(offer: Offer) -> None:
    assert "as noted on that day in" in offer.source
    assert "/" in offer.source


def test_types_are_unique() -> None:
    assert len({(o.cloud, o.instance_type, o.region) for o in OFFERS}) == len(OFFERS)


def test_more_gpus_of_a_kind_cost_more_in_all() -> None:
    for gpu in GPU_IDS:
        prices = sorted((offer.gpu_count, offer.usd_per_hour) for offer in LAMBDA if offer.gpu == gpu)
        assert [usd for _, usd in prices] == sorted(usd for _, usd in prices)


def test_cheapest_means_by_price_not_by_memory() -> None:
    """Since the rises of 2026 a 24 GB A10 costs more at Lambda than a 48 GB A6000."""
    assert find_offer("gpu_1x_a10").usd_per_hour == 1.29
    assert find_offer("gpu_1x_a6000").usd_per_hour == 1.09


def test_one_a100_of_80_gb_is_not_sold() -> None:
    assert [offer.gpu_count for offer in offers_for("a100-80gb-sxm4")] == [8]


def test_offers_of_a_gpu_come_cheapest_first() -> None:
    assert [offer.gpu_count for offer in offers_for("h100-80gb-sxm5")] == [1, 2, 4, 8]
    assert [offer.instance_type for offer in offers_for("a6000-48gb", gpu_count=2)] == ["gpu_2x_a6000"]


def test_a_slip_in_a_type_gets_a_suggestion() -> None:
    with pytest.raises(NotFoundError) as caught:
        find_offer("gpu_1x_a600")
    assert "`gpu_1x_a6000`" in caught.value.hints[0]


def price(gpu: str = "a10-24gb", usd: str = "0.75") -> str:
    return f"""
[[price]]
cloud = "lambda"
instance_type = "gpu_1x_a10"
gpu = "{gpu}"
gpu_count = 1
usd_per_hour = {usd}
as_of = 2026-11-23
source = "my contract"
"""


def test_a_users_price_replaces_the_packaged_one(tmp_path: Path) -> None:
    (tmp_path / "config" / "prices.toml").write_text(price())
    assert find_offer("gpu_1x_a10").usd_per_hour == 0.75
    assert len(packaged_offers()) == len(LAMBDA)


def test_what_is_packaged_of_other_clouds_is_not_counted_here() -> None:
    assert list(packaged_offers()) == LAMBDA
    assert packaged_offers() is packaged_offers()


def test_a_users_price_of_an_unknown_gpu_is_named(tmp_path: Path) -> None:
    (tmp_path / "config" / "prices.toml").write_text(price(gpu="a11"))
    with pytest.raises(ConfigError, match=r"prices\.toml.*`lambda gpu_1x_a10`.*`a11`"):
        packaged_offers()


@pytest.mark.parametrize("usd", ["-1", "nan", "inf", "-inf", "'cheap'", "true", "1e99"])
def test_a_users_price_that_is_none_is_refused(tmp_path: Path, usd: str) -> None:
    (tmp_path / "config" / "prices.toml").write_text(price(usd=usd))
    with pytest.raises(ConfigError, match="usd_per_hour"):
        packaged_offers()
