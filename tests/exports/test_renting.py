"""Which tool can rent which machine, and that a plan never advises one that cannot."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest
import yaml

from soong.cli.app import call
from soong.exports import names, renting
from soong.gpus.catalogue import find_gpu
from soong.offers.sources import known_offers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from soong.offers.offer import Offer
    from tests.exports.conftest import Ended

    Export = Callable[..., Ended]


def _offer(gpu: str, cloud: str) -> Offer:
    return next(offer for offer in known_offers("all") if offer.gpu == gpu and offer.cloud == cloud)


def test_every_cloud_has_one_row() -> None:
    clouds = [row.id for row in names.table().cloud]
    assert len(clouds) == len(set(clouds))


@pytest.mark.parametrize(
    ("gpu", "cloud", "tool"),
    [
        ("a6000-48gb", "lambda", "skypilot"),
        ("rtx4090-24gb", "runpod", "skypilot"),
        ("a6000-48gb", "verda", "dstack"),  # SkyPilot runs no containers there
        ("mi300x-192gb", "digitalocean", "shell"),  # the images are CUDA's
    ],
)
def test_the_tool_is_one_that_rents_that_machine(gpu: str, cloud: str, tool: str) -> None:
    assert renting.tool_for(_offer(gpu, cloud), find_gpu(gpu)) == tool


def test_what_several_machines_and_replicas_need(export: Export) -> None:
    spanning = ("--gpu", "h200", "--gpu-count", "16", "--tensor-parallel", "8", "--pipeline-parallel", "2")
    refused = export("skypilot", "kimi-k2", *spanning, "--cloud", "runpod")
    assert refused.code == 2
    assert "several machines" in refused.err
    assert "soong export dstack kimi-k2 --cloud runpod" in refused.err
    assert renting.missing("skypilot", "verda", replicas=2)
    assert not renting.missing("skypilot", "runpod", replicas=2)
    assert renting.missing("skypilot", "lambda", spot=True)


@pytest.mark.parametrize(
    "words",
    [
        "qwen3-32b --cloud all",
        "qwen3-32b --cloud all --rank cost-per-token",
        "kimi-linear-48b-a3b --cloud all",
        "llama-3.1-8b --cloud runpod --target 60",
        "llama-3.1-8b --cloud all --gpu l40s --context 32k",
    ],
)
def test_the_advised_command_writes_a_file_of_the_advised_machine(
    export: Export, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever was asked of the plan, the command that it prints is taken, and is about the machine that it names."""
    assert call(["plan", *shlex.split(words)]) == 0
    shown = capfd.readouterr().out
    line = next(line for line in shown.splitlines() if "`soong export " in line)
    command = line.split("`")[1]
    ended = export(*shlex.split(command)[2:])
    assert ended.code == 0, ended.err
    if not line.startswith("Better"):
        line = next(one for one in shown.splitlines() if one.startswith("Recommended"))
    best = line.partition(": ")[2].partition(",")[0]
    assert best
    assert best in ended.out


def test_a_machine_that_the_plan_has_no_price_of_is_priced_where_one_is_known(export: Export) -> None:
    runpod = min(
        offer.usd_per_hour
        for offer in known_offers("all")
        if offer.gpu == "rtx4090-24gb" and offer.gpu_count == 1 and not offer.spot
    )
    found = export("shell", "qwen2.5-7b", "--gpu", "rtx4090", "--json").json
    assert found["usd_per_hour"] == runpod


def test_hours_that_a_slow_download_may_eat_are_told(export: Export) -> None:
    spanning = ("kimi-k2", "--gpu", "h200", "--gpu-count", "16")
    assert "leaves time to serve" in export("skypilot", *spanning).out
    assert "leaves time to serve" not in export("skypilot", *spanning, "--hours", "24").out


def test_no_option_that_only_shows_is_typed_again(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert call(["plan", "qwen3-32b", "--cloud", "all", "--color", "never", "--max-price", "5", "-v"]) == 0
    said = capfd.readouterr().out
    assert "--max-price 5`" in said
    assert "--color" not in said
    assert "--verbose" not in said


def test_a_list_of_clouds_is_in_the_file(export: Export) -> None:
    words = ("llama-3.1-8b", "--gpu", "h100-80gb-sxm5", "--cloud", "lambda,runpod")
    found = yaml.safe_load(export("skypilot", *words).out)["resources"]
    assert {one["infra"] for one in found["any_of"]} == {"lambda", "runpod"}
    assert all(one["accelerators"].endswith(":1") for one in found["any_of"])
    assert yaml.safe_load(export("dstack", *words).out)["backends"] == ["lambda", "runpod"]
    partly = yaml.safe_load(export("skypilot", *words[:-1], "lambda,verda").out)["resources"]
    assert partly["infra"] == "lambda"


def test_spot_is_asked_only_where_the_tool_rents_it(export: Export) -> None:
    head = export("skypilot", "llama-3.1-8b", "--cloud", "lambda,runpod", "--spot").out
    assert "lambda as of" not in head
    assert "no spot price is known" in head
    assert (
        "cannot run this at lambda" in export("skypilot", "llama-3.1-8b", "--cloud", "lambda", "--spot").err
    )


def test_a_cloud_that_is_not_known_to_have_the_machine_is_told(export: Export) -> None:
    assert (
        "may not be for rent there"
        in export("dstack", "llama-3.1-8b", "--gpu", "h200", "--cloud", "lambda").out
    )
    assert (
        "may not be"
        not in export("dstack", "llama-3.1-8b", "--gpu", "h100-80gb-sxm5", "--cloud", "lambda").out
    )
