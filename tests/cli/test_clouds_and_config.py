"""`config`, `clouds`, `available`, `offers --live`: what a person and a script see, against a real server."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec
import pytest

from tests.clouds import samples
from tests.clouds.conftest import KEY
from tests.clouds.server import FakeLambda, data, error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import Ended

    Soong = Callable[..., Ended]

KINDS = samples.types(
    (samples.H100, [samples.OTHER_REGION]),
    (samples.A10, [samples.REGION, samples.OTHER_REGION]),
    (samples.GH200, []),
)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLambda]:
    """A Lambda that this computer's settings name."""
    with FakeLambda() as running:
        monkeypatch.setenv("SOONG_LAMBDA_API_URL", running.url)
        monkeypatch.setenv("SOONG_LAMBDA_API_KEY", KEY)
        running.on("GET", "/instance-types", data(KINDS))
        running.on("GET", "/instances", data([samples.instance(), samples.instance(status="terminated")]))
        yield running
    assert running.faults == []


@pytest.mark.parametrize(
    "words",
    [
        *(["config", name] for name in ("get", "set", "unset", "edit", "path")),
        ["clouds", "check"],
    ],
    ids=" ".join,
)
def test_help_has_two_examples(soong: Soong, words: list[str]) -> None:
    ended = soong(*words, "--help")
    assert ended.code == 0
    assert ended.out.partition("Examples:")[2].count("soong") >= 2


# ── available, offers --live ─────────────────────────────────────────────────────────────────────


def test_available_lists_what_is_free_cheapest_first(soong: Soong, server: FakeLambda) -> None:
    ended = soong("available", "--json")
    assert [(o["instance_type"], o["region"], o["usd_per_hour"]) for o in ended.json] == [
        ("gpu_1x_a10", "us-east-1", 1.29),
        ("gpu_1x_a10", "us-west-1", 1.29),
        ("gpu_8x_h100_sxm5", "us-east-1", 31.92),
    ]
    assert soong("available", "-q").out.splitlines() == ["gpu_1x_a10", "gpu_8x_h100_sxm5"]
    human = soong("available").out
    assert "us-east-1, us-west-1" in human
    assert "gh200" not in human


@pytest.mark.parametrize(
    ("words", "types"),
    [
        (["--gpu", "a10"], ["gpu_1x_a10"]),
        (["--gpu", "gpu_8x_h100_sxm5"], ["gpu_8x_h100_sxm5"]),
        (["--region", "us-west-1"], ["gpu_1x_a10"]),
        (["--max-price", "$2"], ["gpu_1x_a10"]),
        (["--cloud", "lambda"], ["gpu_1x_a10", "gpu_8x_h100_sxm5"]),
    ],
)
def test_available_follows_its_options(
    soong: Soong, server: FakeLambda, words: list[str], types: list[str]
) -> None:
    assert soong("available", "-q", *words).out.splitlines() == types


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpu", "gh200"], "none of these is free now"),
        (["--gpu", "gpu_8x_h100_sxm5", "--region", "us-west-1"], "free in that region"),
        (["--max-price", "0.10"], "no machine for rent matches"),
    ],
)
def test_nothing_free_is_exit_5_with_a_way_on(
    soong: Soong, server: FakeLambda, words: list[str], message: str
) -> None:
    ended = soong("available", *words, "--json")
    assert (ended.code, ended.out) == (5, "")
    told = msgspec.json.decode(ended.err)
    assert message in told["message"]
    assert told["hints"][0].startswith("free now: `gpu_")
    assert "soong start --wait" in told["hints"][-1]


def test_nothing_free_anywhere(soong: Soong, server: FakeLambda) -> None:
    server.on("GET", "/instance-types", data(samples.types((samples.A10, []))))
    ended = soong("available")
    assert ended.code == 5
    assert "in any region" in ended.err


def test_an_empty_price_list_is_a_failed_cloud_and_not_nothing_free(soong: Soong, server: FakeLambda) -> None:
    server.on("GET", "/instance-types", data({}))
    ended = soong("available")
    assert ended.code == 6
    assert "empty price list" in ended.err


def test_live_offers_show_what_is_free_and_what_is_not(soong: Soong, server: FakeLambda) -> None:
    offers = soong("offers", "--live", "--json").json
    assert {(o["instance_type"], o["available"]) for o in offers} == {
        ("gpu_1x_a10", True),
        ("gpu_1x_gh200", False),
        ("gpu_8x_h100_sxm5", True),
    }
    assert all(o["live"] for o in offers)
    human = soong("offers", "--live").out
    assert "nowhere" in human
    assert "us-east-1, us-west-1" in human


def test_offers_without_live_ask_nobody(soong: Soong, server: FakeLambda) -> None:
    assert soong("offers").code == 0
    assert server.requests == []


@pytest.mark.parametrize("words", [["available"], ["offers", "--live"], ["clouds", "check"]], ids=" ".join)
def test_a_missing_key_is_exit_3(soong: Soong, words: list[str]) -> None:
    ended = soong(*words)
    assert (ended.code, ended.out) == (3, "")
    assert "soong configure" in ended.err


def test_an_unknown_cloud_is_exit_4(soong: Soong) -> None:
    ended = soong("available", "--cloud", "lamda")
    assert ended.code == 4
    assert "did you mean `lambda`?" in ended.err


# ── clouds ───────────────────────────────────────────────────────────────────────────────────────


def test_clouds_lists_without_asking_or_reading_a_key(soong: Soong, server: FakeLambda) -> None:
    rows = {row["cloud"]: row for row in soong("clouds", "--json").json}
    assert rows["lambda"]["key_origin"] == "SOONG_LAMBDA_API_KEY"
    assert rows["lambda"]["is_default"]
    assert not rows["sandbox"]["needs_key"]
    assert server.requests == []
    assert KEY not in soong("clouds").out


def test_check_says_what_runs_and_what_is_for_rent(soong: Soong, server: FakeLambda) -> None:
    facts = soong("clouds", "check", "lambda", "--json").json
    assert (facts["instances_billing"], facts["usd_per_hour"]) == (1, 1.29)
    assert (facts["instance_types"], facts["instance_types_free"]) == (3, 2)
    ended = soong("clouds", "check")
    assert "takes the key" in ended.out
    assert KEY not in ended.out


def test_check_with_a_refused_key(soong: Soong, server: FakeLambda) -> None:
    server.on("GET", "/instances", error("global/invalid-api-key", 401, f"Invalid {KEY}"))
    ended = soong("clouds", "check")
    assert ended.code == 3
    assert "soong doctor" in ended.err
    assert KEY not in ended.err


# ── config ───────────────────────────────────────────────────────────────────────────────────────


def test_config_shows_every_value_and_its_origin(soong: Soong, monkeypatch: pytest.MonkeyPatch) -> None:
    soong("config", "set", "region", "us-west-1")
    monkeypatch.setenv("SOONG_LEASE_HOURS", "2")
    rows = {row["key"]: row for row in soong("config", "--json").json}
    assert (rows["lease.hours"]["value"], rows["lease.hours"]["origin"]) == (2.0, "environment")
    assert (rows["region"]["value"], rows["region"]["origin"]) == ("us-west-1", "file")
    assert (rows["lease.cap_hours"]["value"], rows["lease.cap_hours"]["origin"]) == (8.0, "default")
    human = soong("config").out
    assert "SOONG_LEASE_HOURS" in human
    assert "config.toml" in human


def test_config_set_get_unset(soong: Soong) -> None:
    assert soong("config", "set", "lease.hours", "1h30m").code == 0
    assert soong("config", "get", "lease.hours").out == "1.5\n"
    assert soong("config", "get", "lease.hours", "--json").json["value"] == 1.5
    assert "no longer" in soong("config", "unset", "lease.hours").out
    assert soong("config", "get", "lease.hours", "-q").out == "4\n"


def test_what_is_not_set_prints_nothing(soong: Soong) -> None:
    ended = soong("config", "get", "model")
    assert (ended.code, ended.out.strip()) == (0, "")
    assert "not set" in ended.err
    assert soong("config", "get", "model", "--json").json["value"] is None


def test_setting_what_a_variable_overrides_says_so(soong: Soong, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOONG_CLOUD", "lambda")
    ended = soong("config", "set", "cloud", "sandbox")
    assert "SOONG_CLOUD" in ended.err
    assert "SOONG_CLOUD" not in ended.out


@pytest.mark.parametrize(
    "words",
    [
        ["get", "modle"],
        ["set", "modle", "x"],
        ["unset", "modle"],
        ["set", "lease.hours", "soon"],
        ["set", "model", KEY],
    ],
    ids=lambda words: words[0],
)
def test_slips_are_exit_2(soong: Soong, words: list[str]) -> None:
    ended = soong("config", *words)
    assert (ended.code, ended.out) == (2, "")
    assert "hint" in ended.err or "write" in ended.err
    assert KEY not in ended.err


@pytest.mark.parametrize(
    ("key", "word", "said"),
    [
        ("prices.clouds", "nimbus", "no prices of a cloud `nimbus`"),
        ("prices.clouds", "lambda,nimbus", "no prices of a cloud `nimbus`"),
        ("cloud", "sandbx", "did you mean `sandbox`?"),
    ],
)
def test_a_cloud_that_nobody_knows_is_not_written(soong: Soong, key: str, word: str, said: str) -> None:
    ended = soong("config", "set", key, word)
    assert (ended.code, said in ended.err) == (4, True), ended.err
    assert soong("config", "get", key, "--json").json["origin"] == "default"
    assert soong("plan", "llama-3.1-8b").code == 0


def test_clouds_may_be_written_in_any_case(soong: Soong) -> None:
    assert soong("config", "set", "prices.clouds", "Lambda,RUNPOD").code == 0
    assert {one["cloud"] for one in soong("offers", "--json").json} == {"lambda", "runpod"}
    assert soong("config", "set", "cloud", "SANDBOX").code == 0
    assert soong("config", "get", "cloud", "-q").out == "sandbox\n"
    assert soong("costs", "--cloud", "Lambda").code == 0


def test_path(soong: Soong, sealed: Path) -> None:
    assert soong("config", "path").out == f"{sealed}/config/config.toml\n"
    assert soong("config", "path", "--json").json == {
        "path": f"{sealed}/config/config.toml",
        "exists": False,
    }


def test_edit_opens_a_file_that_explains_itself(
    soong: Soong, sealed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor = tmp_path / "editor.py"
    editor.write_text(
        "import sys, pathlib\npath = pathlib.Path(sys.argv[1])\n"
        "path.write_text(path.read_text().replace('# hours = 4', 'hours = 3'))\n"
    )
    monkeypatch.setenv("EDITOR", f"{sys.executable} {editor}")
    monkeypatch.delenv("VISUAL", raising=False)
    assert soong("config", "edit").code == 0
    assert soong("config", "get", "lease.hours").out == "3\n"
    assert '# cloud = "lambda"' in (sealed / "config" / "config.toml").read_text()
    soong("config", "set", "cloud", "sandbox")
    soong("config", "set", "lease.cap_hours", "5")
    assert soong("config", "get", "cloud").out == "sandbox\n"
    assert soong("config", "get", "lease.cap_hours").out == "5\n"


def test_edit_asks_only_a_person(soong: Soong, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.delenv("EDITOR", raising=False)
    ended = soong("config", "edit")
    assert ended.code == 2
    assert "soong config set" in ended.err
