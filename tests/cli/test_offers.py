"""`soong offers` as a person and a script see it: dated, marked, refreshed, and never silent about what is missing."""

from __future__ import annotations

import socket
from datetime import date
from typing import TYPE_CHECKING

import pytest

from soong.settings.config import SETTINGS
from tests.offers.catalogue_server import CatalogueServer
from tests.support.hub_server import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import Ended
    from tests.cli.rehearsal import Rehearsal

    Soong = Callable[..., Ended]


@pytest.fixture(autouse=True)
def _a_day_of_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is old stays so: the packaged list is of September, the server's catalogue of the day before."""
    monkeypatch.setattr("soong.offers.freshness.today", lambda: date(2026, 11, 23))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CatalogueServer]:
    with CatalogueServer() as running:
        running.publish(tmp_path)
        monkeypatch.setenv("GPUHUNT_CATALOG_URL", running.catalogue_url)
        yield running


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network: the catalogue's address answers nobody."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("GPUHUNT_CATALOG_URL", f"http://127.0.0.1:{listener.getsockname()[1]}/v3")


class TestTheList:
    def test_it_is_lambdas_and_says_what_else_there_is(self, soong: Soong) -> None:
        ended = soong("offers")
        assert ended.code == 0
        assert "gpu_1x_a6000" in ended.out
        assert "p5.48xlarge" not in ended.out
        assert "aws, azure" in ended.out
        assert "soong offers --cloud all" in ended.out

    def test_old_prices_say_their_age_and_how_to_get_newer_ones(self, soong: Soong) -> None:
        out = soong("offers").out
        assert "79 days old" in out
        assert "soong offers --live" in out
        assert "soong offers --refresh" in out

    def test_fresh_ones_say_their_day(self, soong: Soong) -> None:
        out = soong("offers", "--cloud", "aws").out
        assert "2026-11-09" in out
        assert "days old" not in out
        assert "Old prices" not in out

    def test_a_cloud_where_soong_does_not_rent_is_marked_and_the_export_is_named(self, soong: Soong) -> None:
        out = soong("offers", "--cloud", "runpod").out
        assert "price only" in out
        assert "soong export skypilot MODEL --cloud runpod" in out
        assert "price only" not in soong("offers").out

    def test_and_the_export_is_that_of_a_tool_which_rents_there(self, soong: Soong) -> None:
        assert "soong export dstack MODEL --cloud crusoe" in soong("offers", "--cloud", "crusoe").out

    def test_scripts_see_age_and_marks(self, soong: Soong) -> None:
        [one] = soong("offers", "--cloud", "aws", "--gpu", "h100-80gb-sxm5", "--json").json
        assert one["launchable"] is False
        assert one["spot"] is False
        assert (one["age_days"], one["stale"]) == (14, False)
        assert all(one["stale"] for one in soong("offers", "--json").json)

    def test_an_unknown_cloud_names_the_known_ones(self, soong: Soong) -> None:
        ended = soong("offers", "--cloud", "nimbus")
        assert ended.code == 4
        assert "runpod" in ended.err
        assert "soong offers --refresh" in ended.err

    @pytest.mark.parametrize("command", [("offers",), ("plan", "llama-3.1-8b")], ids=" ".join)
    def test_a_comma_alone_names_no_cloud(self, soong: Soong, command: tuple[str, ...]) -> None:
        ended = soong(*command, "--cloud", ",")
        assert (ended.code, "`--cloud` names no cloud" in ended.err) == (2, True)
        assert "--cloud all" in ended.err

    def test_several_clouds_in_any_case(self, soong: Soong) -> None:
        ended = soong("offers", "--cloud", "Lambda, runpod", "--json")
        assert {one["cloud"] for one in ended.json} == {"lambda", "runpod"}
        refused = soong("offers", "--cloud", "lambda,nimbus")
        assert (refused.code, "no prices of a cloud `nimbus`" in refused.err) == (4, True)

    def test_plans_take_several_clouds_too(self, soong: Soong) -> None:
        several = soong("plan", "llama-3.1-8b", "--cloud", "RUNPOD,lambda", "--json").json
        told = {one["offer"]["cloud"] for one in several["candidates"] if one["offer"]}
        assert told == {"lambda", "runpod"}
        for words in (("plan", "llama-3.1-8b"), ("recommend", "--task", "coding")):
            assert soong(*words, "--cloud", "lambda,RunPod").code == 0
            refused = soong(*words, "--cloud", "lambda,nimbus")
            assert (refused.code, "no prices of a cloud `nimbus`" in refused.err) == (4, True)

    def test_an_export_for_several_clouds_is_of_the_cheapest(self, soong: Soong) -> None:
        ended = soong("export", "shell", "llama-3.1-8b", "--cloud", "lambda,runpod")
        assert ended.code == 0, ended.err
        assert "of runpod as of" in ended.out

    def test_a_region_that_the_cloud_has_not_is_refused(self, soong: Soong) -> None:
        ended = soong("offers", "--region", "us-east1")
        assert ended.code == 4
        assert "did you mean `--region us-east-1`?" in ended.err
        assert soong("offers", "--region", "us-east-1").code == 0

    @pytest.mark.parametrize(
        "words", [(), ("--cloud", "lambda"), ("--gpu", "gpu_1x_a10", "--cloud", "lambda")]
    )
    def test_so_it_is_in_a_plan(self, soong: Soong, words: tuple[str, ...]) -> None:
        ended = soong("plan", "llama-3.1-8b", "--region", "us-east1", *words)
        assert ended.code == 4
        assert "there is no region `us-east1`" in ended.err
        assert "hint: did you mean `--region us-east-1`?" in ended.err
        assert soong("plan", "llama-3.1-8b", "--region", "us-east-1", *words).code == 0

    def test_prices_that_name_no_region_say_so(self, soong: Soong) -> None:
        ended = soong("offers", "--cloud", "all", "--region", "mars")
        assert "has a region mars is not known: these prices name none" in ended.out
        listed = soong("offers", "--cloud", "all", "--region", "mars", "--json").json
        assert listed
        assert {one["region"] for one in listed} == {None}
        assert "lambda" not in {one["cloud"] for one in listed}, "its regions are known, and mars is none"

    def test_a_region_of_which_no_price_is_known_names_those_of_the_prices(self, soong: Soong) -> None:
        ended = soong("offers", "--cloud", "aws", "--region", "mars")
        assert ended.code == 5
        assert "hint: these prices are of us-east-1" in ended.err

    def test_what_no_offer_matches_says_where_more_are(self, soong: Soong) -> None:
        ended = soong("offers", "--max-price", "0.01")
        assert ended.code == 5
        assert "soong offers --cloud all" in ended.err

    @pytest.mark.parametrize("columns", ["80", "100", "120", "200"])
    def test_no_line_of_the_table_is_wider_than_the_screen(
        self, soong: Soong, monkeypatch: pytest.MonkeyPatch, columns: str
    ) -> None:
        monkeypatch.setenv("COLUMNS", columns)
        lines = [line for line in soong("offers", "--cloud", "all").out.splitlines() if line[:1] in "┌│├└"]
        assert lines
        assert max(map(len, lines)) <= int(columns)


class TestRefresh:
    def test_fetched_prices_are_shown_and_stay(self, soong: Soong, server: CatalogueServer) -> None:
        ended = soong("offers", "--refresh", "--cloud", "all")
        assert ended.code == 0
        assert "Fetched offers:" in ended.err
        assert "2026-11-22" in ended.out
        asked = len(server.requests)
        again = soong("offers", "--cloud", "all")
        assert again.out == ended.out
        assert len(server.requests) == asked

    def test_a_plan_of_that_cloud_uses_them(self, soong: Soong, server: CatalogueServer) -> None:
        soong("offers", "--refresh", "-q")
        plan = soong("plan", "llama-3.1-8b", "--cloud", "cloudrift", "--json").json
        offer = plan["candidates"][plan["choice"]]["offer"]
        assert (offer["usd_per_hour"], offer["as_of"], offer["launchable"]) == (0.39, "2026-11-22", False)
        assert server.requests

    @pytest.mark.usefixtures("server")
    def test_a_named_type_is_looked_for_in_regions_of_other_clouds(self, soong: Soong) -> None:
        soong("offers", "--refresh", "-q")
        found = soong("plan", "llama-3.1-8b", "--gpu", "p5.48xlarge", "--region", "eu-west-1", "--json").json
        assert {(one["offer"]["cloud"], one["offer"]["usd_per_hour"]) for one in found["candidates"]} == {
            ("aws", 60.5)
        }

    @pytest.mark.usefixtures("server")
    def test_spot_is_marked_and_can_be_chosen_or_left_out(self, soong: Soong) -> None:
        soong("offers", "--refresh", "-q")
        assert "spot, price only" in soong("offers", "--cloud", "aws").out
        of_aws = [one["spot"] for one in soong("offers", "--cloud", "aws", "--json").json]
        assert sorted(of_aws) == [False, False, True]
        assert [o["spot"] for o in soong("offers", "--cloud", "aws", "--spot", "--json").json] == [True]
        assert {o["spot"] for o in soong("offers", "--cloud", "aws", "--no-spot", "--json").json} == {False}

    @pytest.mark.usefixtures("server")
    def test_each_machine_stands_once_for_a_person_and_in_every_region_for_a_script(
        self, soong: Soong
    ) -> None:
        soong("offers", "--refresh", "-q")
        assert soong("offers", "--cloud", "aws", "--no-spot").out.count("p5.48xlarge") == 1
        regions = {one["region"] for one in soong("offers", "--cloud", "aws", "--no-spot", "--json").json}
        assert regions == {"us-east-1", "eu-west-1"}
        only = soong("offers", "--cloud", "aws", "--region", "eu-west-1", "--json").json
        assert [one["usd_per_hour"] for one in only] == [60.5]

    @pytest.mark.usefixtures("server")
    def test_what_is_not_listed_is_counted_with_the_reason(self, soong: Soong) -> None:
        out = soong("offers", "--refresh", "--cloud", "azure").out
        assert "Offers not listed, 1" in out
        assert "no such GPU in soong's table: V100 16 GB (1)" in out

    @pytest.mark.usefixtures("nobody")
    def test_without_a_network_one_line_says_so_and_the_known_prices_are_shown(self, soong: Soong) -> None:
        ended = soong("offers", "--refresh")
        assert ended.code == 0
        assert ended.err.splitlines() == [
            "notice: no newer prices (Connection refused); these are the ones known before"
        ]
        assert ended.out == soong("offers").out

    def test_without_a_network_what_was_fetched_before_is_shown(
        self, soong: Soong, server: CatalogueServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = soong("offers", "--refresh", "--cloud", "runpod")
        monkeypatch.setenv("GPUHUNT_CATALOG_URL", f"{server.url}/nothing/here")
        second = soong("offers", "--refresh", "--cloud", "runpod")
        assert second.code == 0
        assert "notice: no newer prices" in second.err
        assert second.out == first.out

    def test_one_cloud_that_fails_is_named_and_the_others_come(
        self, soong: Soong, server: CatalogueServer
    ) -> None:
        server.on("/v3/aws/version", Reply(503))
        ended = soong("offers", "--refresh", "--cloud", "all")
        assert ended.code == 0
        assert "notice: no newer prices of aws" in ended.err
        assert "runpod 2" in ended.err

    @pytest.mark.usefixtures("nobody")
    def test_json_stays_alone_on_stdout(self, soong: Soong) -> None:
        ended = soong("offers", "--refresh", "--json")
        assert ended.json
        assert ended.err == ""

    def test_the_extra_is_named_where_it_is_missing(
        self, soong: Soong, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        ended = soong("offers", "--refresh")
        assert ended.code == 2
        assert "pip install 'soong[prices]'" in ended.err

    @pytest.mark.usefixtures("server")
    def test_the_list_of_models_follows_the_newer_prices(self, soong: Soong) -> None:
        before = {row["id"]: row for row in soong("models", "--json").json}
        soong("offers", "--refresh", "-q")
        after = {row["id"]: row for row in soong("models", "--json").json}
        assert before["llama-3.1-8b"]["price_as_of"] == "2026-09-05"
        assert after["llama-3.1-8b"]["price_as_of"] == "2026-11-22"


@pytest.mark.usefixtures("server")
def test_a_cache_that_cannot_be_written_is_named(soong: Soong, sealed: Path) -> None:
    (sealed / "cache").mkdir(parents=True)
    (sealed / "cache" / "prices").write_text("in the way")
    ended = soong("offers", "--refresh")
    assert ended.code == 1
    assert "SOONG_HOME" in ended.err


def test_renting_where_soong_knows_only_prices_is_explained(soong: Soong) -> None:
    ended = soong("start", "--cloud", "runpod", "--model", "llama-3.1-8b", "--yes")
    assert ended.code == 4
    assert "soong plan MODEL --cloud runpod" in ended.err


class TestLive:
    @pytest.mark.parametrize("cloud", ["runpod", "all"])
    @pytest.mark.parametrize("words", [["offers", "--live"], ["available"]], ids=" ".join)
    def test_a_cloud_that_soong_does_not_rent_at_cannot_be_asked(
        self, soong: Soong, words: list[str], cloud: str
    ) -> None:
        ended = soong(*words, "--cloud", cloud)
        assert ended.code == 2
        assert "lambda, sandbox, local" in ended.err
        assert f"soong offers --refresh --cloud {cloud}" in ended.err

    def test_live_and_refresh_are_two_things(self, soong: Soong) -> None:
        assert soong("offers", "--live", "--refresh").code == 2

    def test_a_cloud_that_does_not_answer_is_an_error_and_not_an_old_price(
        self, soong: Soong, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        monkeypatch.setenv("SOONG_LAMBDA_API_KEY", "secret_test_0123456789abcdef")
        monkeypatch.setenv("SOONG_LAMBDA_API_URL", f"http://127.0.0.1:{port}")
        ended = soong("offers", "--live")
        assert ended.code == 6
        assert ended.out == ""

    def test_the_sandboxs_prices_are_not_kept_as_lambdas(
        self, soong: Soong, rehearsal: Rehearsal, sealed: Path
    ) -> None:
        assert rehearsal
        ended = soong("offers", "--live", "--cloud", "sandbox", "--json")
        assert ended.code == 0
        assert {one["cloud"] for one in ended.json} == {"sandbox"}
        assert {one["stale"] for one in ended.json} == {False}
        assert not (sealed / "cache" / "prices").exists()

    def test_lambdas_own_answer_is_kept_for_plans(
        self, soong: Soong, rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The sandbox speaks Lambda's API; here it stands at Lambda's own address."""
        setting = SETTINGS["lambda.api_url"]
        monkeypatch.setitem(SETTINGS, "lambda.api_url", setting._replace(default=rehearsal.running.url))
        monkeypatch.setenv("SOONG_LAMBDA_API_KEY", rehearsal.running.key)
        live = soong("offers", "--live", "--cloud", "lambda", "--json")
        assert live.code == 0, live.err
        assert {one["live"] for one in live.json} == {True}
        kept = soong("offers", "--json").json
        assert {(one["live"], one["available"], one["source"]) for one in kept} == {
            (False, None, "the cloud's own answer")
        }
        assert {one["as_of"] for one in kept} == {one["as_of"] for one in live.json}
        assert {one["instance_type"] for one in kept} == {one["instance_type"] for one in live.json}

    def test_a_cache_that_cannot_be_written_takes_nothing_from_the_answer(
        self, soong: Soong, rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch, sealed: Path
    ) -> None:
        setting = SETTINGS["lambda.api_url"]
        monkeypatch.setitem(SETTINGS, "lambda.api_url", setting._replace(default=rehearsal.running.url))
        monkeypatch.setenv("SOONG_LAMBDA_API_KEY", rehearsal.running.key)
        (sealed / "cache").mkdir(parents=True, exist_ok=True)
        (sealed / "cache" / "prices").write_text("in the way")
        assert soong("offers", "--live", "--cloud", "lambda").code == 0

    def test_an_answer_from_another_address_is_not(
        self, soong: Soong, rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch, sealed: Path
    ) -> None:
        monkeypatch.setenv("SOONG_LAMBDA_API_URL", rehearsal.running.url)
        monkeypatch.setenv("SOONG_LAMBDA_API_KEY", rehearsal.running.key)
        assert soong("offers", "--live", "--cloud", "lambda").code == 0
        assert not (sealed / "cache" / "prices").exists()


class TestPlansElsewhere:
    def test_a_plan_says_that_it_is_a_price_only_and_which_export_uses_it(self, soong: Soong) -> None:
        out = soong("plan", "llama-3.1-8b", "--cloud", "runpod").out
        assert "Price only" in out
        assert "soong export skypilot llama-3.1-8b --cloud runpod" in out

    def test_a_stale_price_says_its_age_in_the_recommendation(self, soong: Soong) -> None:
        assert "(price of 2026-09-05, 79 days old)" in soong("plan", "llama-3.1-8b").out
        assert "days old" not in soong("plan", "llama-3.1-70b", "--cloud", "azure").out

    def test_all_clouds_at_once(self, soong: Soong) -> None:
        plan = soong("plan", "llama-3.1-70b", "--cloud", "all", "--json").json
        clouds = {one["offer"]["cloud"] for one in plan["candidates"]}
        assert {"lambda", "runpod", "aws", "azure", "nebius"} <= clouds

    def test_a_type_for_any_number_of_gpus_is_found_with_its_number(self, soong: Soong) -> None:
        plan = soong(
            "plan", "llama-3.1-70b", "--cloud", "runpod", "--gpu", "8x NVIDIA H100 80GB HBM3", "--json"
        ).json
        [one] = plan["candidates"]
        assert (one["gpu_count"], one["offer"]["usd_per_hour"]) == (8, 21.52)

    def test_the_export_of_a_cloud_asks_for_that_cloud_alone(self, soong: Soong) -> None:
        out = soong("export", "skypilot", "llama-3.1-8b", "--cloud", "runpod").out
        assert "infra: runpod" in out
        assert "of runpod as of 2026-09-25" in out
