"""Whole rentals through the real program, against a sandbox: what a person and a script see, and what is billed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.cli.rehearsal import MODEL, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Ended
    from tests.cli.rehearsal import Rehearsal

    Soong = Callable[..., Ended]

START = ("start", "--model", MODEL, "--cloud", "sandbox", "--yes")


def test_a_whole_life_in_words(soong: Soong, rehearsal: Rehearsal) -> None:
    begun = soong(*START, "--hours", "3")
    assert begun.code == 0, begun.err
    assert "is ready: gpu_1x_a6000 in us-east-1" in begun.out
    assert "(3 h); at most $3.27" in begun.err
    assert "nothing here costs money" in begun.err
    assert re.search(r"ended by a background process of this computer, armed and tried", begun.err)

    status = soong("status")
    assert status.code == 0
    for word in ("llama-3-1-8b", "gpu_1x_a6000", "us-east-1", "ready", "1.09", "2 h"):
        assert word in status.out

    assert "4 h more can be added" in soong("extend", "1", "--yes").out
    refused = soong("extend", "9", "--yes")
    assert refused.code == 2
    assert "at most 4 h can be added" in refused.err
    assert "soong extend 4" in refused.err

    shell = rehearsal.spawn("ssh", "--", "nvidia-smi")
    out, err = shell.communicate(timeout=30)
    assert (shell.returncode, "RTX A6000" in out) == (0, True), err
    failed = rehearsal.spawn("ssh", "--", "exit", "7")
    failed.communicate(timeout=30)
    assert failed.returncode == 7

    ended = soong("stop", "--yes")
    assert ended.code == 0
    assert re.search(r"llama-3-1-8b is gone: .*terminated.*It cost \$\d\.\d\d", ended.out)
    assert rehearsal.alive == []
    assert "nothing of soong's is running" in soong("status").out
    assert "ended" in soong("status", "--history").out
    costs = soong("costs", "--cloud", "sandbox")
    assert re.search(r"total.*\$[0-9.]+", costs.out)
    assert "nothing was rented" in soong("costs").out


def test_a_whole_life_for_a_script(soong: Soong, rehearsal: Rehearsal) -> None:
    begun = soong(*START, "--json", "--name", "box")
    assert begun.err == ""
    document = begun.json
    assert (document["name"], document["phase"], document["cloud"]) == ("box", "ready", "sandbox")
    status = soong("status", "--json").json
    (rental,) = status["rentals"]
    assert rental["id"] == document["id"]
    assert 0 < rental["remaining_seconds"] <= 4 * 3600
    assert status["usd_per_hour"] == 1.09
    assert status["problem"] is None
    assert soong("status", "-q").out.split() == [document["id"]]
    longer = soong("extend", "1", "box", "--yes", "--json").json
    assert longer["ends_at"] > document["ends_at"]
    bare = soong("--json").json
    assert bare["rentals"][0]["remaining_seconds"] == pytest.approx(
        rental["remaining_seconds"] + 3600, abs=900
    )
    ended = soong("stop", "box", "--yes", "--json").json
    assert [(one["name"], one["confirmed"]) for one in ended] == [("box", True)]
    spent = soong("costs", "--cloud", "sandbox", "--by", "model", "--json").json
    assert spent["usd"] == pytest.approx(ended[0]["cost_usd"], abs=0.01)
    (billed,) = rehearsal.bill
    assert spent["usd"] >= billed["usd"], "what soong shows is never less than the bill"
    assert soong("status", "--stopped", "-q").out.split() == [document["id"]]


def test_an_open_rental_costs_by_the_clock_of_its_cloud(soong: Soong, rehearsal: Rehearsal) -> None:
    assert soong(*START).code == 0
    rehearsal.skip(1.5)
    spent = soong("costs", "--cloud", "sandbox", "--json").json
    assert spent["usd"] == pytest.approx(1.5 * 1.09, rel=0.3)


def test_two_machines_are_told_apart_by_name(soong: Soong, rehearsal: Rehearsal) -> None:
    for name in ("one", "two"):
        assert soong(*START, "--name", name).code == 0
    twice = soong(*START, "--name", "one")
    assert (twice.code, "running already" in twice.err) == (2, True)
    which = soong("stop", "--yes")
    assert which.code == 2
    assert "`one`" in which.err
    assert "`two`" in which.err
    assert soong("extend", "1", "three", "--yes").code == 4
    assert soong("stop", "one", "--yes").code == 0
    assert [line["name"].split("-u")[0] for line in rehearsal.alive] == [
        f"soong-{rental.id}" for rental in rehearsal.ledger.open_rentals()
    ]
    assert soong("stop", "--all", "--yes").code == 0
    assert rehearsal.alive == []


def test_a_dry_run_launches_nothing_and_shows_the_request(soong: Soong, rehearsal: Rehearsal) -> None:
    shown = soong("start", "--model", MODEL, "--cloud", "sandbox", "--dry-run")
    assert shown.code == 0
    assert "instance_type_name: gpu_1x_a6000" in shown.out
    assert (
        soong("start", "--model", MODEL, "--cloud", "sandbox", "--dry-run", "-q").out.split()[0]
        == "gpu_1x_a6000"
    )
    assert rehearsal.bill == []
    assert [one["path"] for one in rehearsal.running.ask("GET", "requests") if one["method"] == "POST"] == []


def test_a_dry_run_without_a_key_says_that_room_is_not_known(soong: Soong) -> None:
    shown = soong("start", "--model", MODEL, "--dry-run")
    assert shown.code == 0
    assert "not known" in shown.out
    assert "no room" not in shown.out
    assert "no key" in shown.err


def test_the_money_ends_the_lease(soong: Soong, rehearsal: Rehearsal) -> None:
    document = soong(*START, "--max-cost", "2.18", "--json").json
    (rental,) = rehearsal.ledger.open_rentals()
    assert rental.lease.ends_at - rental.lease.launched_at == 2 * 3600
    assert document["phase"] == "ready"


def test_a_start_waits_for_room(soong: Soong, rehearsal: Rehearsal) -> None:
    everywhere = dict.fromkeys(rehearsal_types(), False)
    rehearsal.set(capacity=everywhere)
    none = soong(*START)
    assert none.code == 5
    assert "none of the machines that fit is free" in none.err
    before = rounds(rehearsal)
    waiting = rehearsal.spawn(*START, "--wait", "200h")
    until(lambda: rounds(rehearsal) >= before + 3)
    rehearsal.set(capacity={"gpu_1x_a10": True})
    out, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, err
    assert "looking again in a minute" in err
    assert "gpu_1x_a10" in out


def test_no_price_is_paid_that_was_not_shown(soong: Soong, rehearsal: Rehearsal) -> None:
    """The price rises while a start waits: it goes on waiting, and takes the machine at the price that was shown."""
    rehearsal.set(capacity=dict.fromkeys(rehearsal_types(), False))
    before = rounds(rehearsal)
    waiting = rehearsal.spawn(*START, "--wait", "200h")
    until(lambda: rounds(rehearsal) >= before + 2)
    rehearsal.set(cents={"gpu_1x_a10": 130})
    rehearsal.set(capacity={"gpu_1x_a10": True})
    before = rounds(rehearsal)
    until(lambda: rounds(rehearsal) >= before + 3)
    assert rehearsal.bill == []
    rehearsal.set(cents={"gpu_1x_a10": 129})
    out, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, err
    assert "gpu_1x_a10 costs more than was shown by now" in err
    assert "$1.29/h" in out


def test_a_few_types_are_asked_for_and_the_dearest_is_said(soong: Soong, rehearsal: Rehearsal) -> None:
    shown = soong("start", "--model", MODEL, "--cloud", "sandbox", "--dry-run")
    assert "up to $3.98 per hour, $15.92" in shown.out
    request = soong("start", "--model", MODEL, "--cloud", "sandbox", "--dry-run", "--json").json
    assert max(one["usd_per_hour"] for one in request["candidates"]) == 3.98
    rehearsal.set(capacity=dict.fromkeys(rehearsal_types(), False) | {"gpu_8x_h100_sxm5": True})
    assert "gpu_8x_h100_sxm5" in soong("start", "--model", MODEL, "--cloud", "sandbox", "--dry-run").out


def rounds(rehearsal: Rehearsal) -> int:
    return sum("instance-types" in one["path"] for one in rehearsal.running.ask("GET", "requests"))


def rehearsal_types() -> tuple[str, ...]:
    from soong.clouds.sandbox.catalogue import machine_types

    return tuple(machine_types())


def test_the_next_region_then_the_next_type(soong: Soong, rehearsal: Rehearsal) -> None:
    rehearsal.fault("no-capacity", instance_type="gpu_1x_a6000", region="us-east-1")
    first = soong(*START, "--json").json
    assert (first["instance_type"], first["region"]) == ("gpu_1x_a6000", "europe-central-1")
    rehearsal.fault("no-capacity", instance_type="gpu_1x_a6000", count=None)
    assert soong(*START, "--json").json["instance_type"] == "gpu_1x_a10"
    assert len(rehearsal.alive) == 2


def test_arm_machines_only_for_engines_that_run_there(soong: Soong, rehearsal: Rehearsal) -> None:
    def offered(engine: str) -> set[str]:
        words = ("start", "--model", MODEL, "--cloud", "sandbox", "--dry-run", "--json", "--engine", engine)
        return {one["instance_type"] for one in soong(*words).json["candidates"]}

    from soong.memory import engines

    for engine in ("vllm", "sglang", "llama.cpp"):
        runs = engines.runs_on_arm64(engine, engines.default_version(engine))
        assert ("gpu_1x_gh200" in offered(engine)) == runs


def test_a_gpu_that_is_too_small_is_the_persons_to_take(soong: Soong, rehearsal: Rehearsal) -> None:
    begun = soong(
        "start", "--model", "qwen2.5-coder-32b", "--gpu", "gpu_1x_a10", "--cloud", "sandbox", "--dry-run"
    )
    assert re.search(r"Warning: Selected GPU has 24GB but model needs ~\d+GB", begun.err), begun.err
    assert begun.code == 0
    assert "instance_type_name: gpu_1x_a10" in begun.out


def test_a_machine_that_does_not_compute_is_ended_and_replaced(soong: Soong, rehearsal: Rehearsal) -> None:
    rehearsal.fault("cuda-802")
    begun = soong(*START)
    assert begun.code == 0
    assert "does not compute" in begun.err
    assert len(rehearsal.bill) == 2
    assert len(rehearsal.alive) == 1


@pytest.mark.parametrize("width", ["80", "120"])
def test_screens_fit_the_terminal(
    soong: Soong, rehearsal: Rehearsal, width: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    screens = [
        soong(*START).err,
        soong("status").out,
        soong("reap", "--dry-run").out,
        soong("costs", "--cloud", "sandbox").out,
        soong("stop", "--yes").out,
        soong("status", "--history").out,
    ]
    tables = [line for screen in screens for line in screen.splitlines() if line[:1] in "│┌└├"]
    assert tables
    assert max(map(len, tables)) <= int(width)


def test_names_with_spaces_and_umlauts(soong: Soong, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("asyncssh")
    from tests.cli.rehearsal import Rehearsal

    home = tmp_path / "mein Büro" / "søong"
    monkeypatch.setenv("SOONG_HOME", str(home))
    with Rehearsal(home) as rehearsal:
        assert soong(*START).code == 0
        assert soong("configure", "--ssh-include").code == 0
        import subprocess

        config = tmp_path / "home" / ".ssh" / "config"
        line = ["ssh", "-F", str(config), "-o", "BatchMode=yes", "soong-llama-3-1-8b", "echo reached"]
        reached = subprocess.run(line, capture_output=True, text=True, timeout=30, check=False)
        assert reached.stdout == "reached\n", reached.stderr
        assert soong("stop", "--yes").code == 0
        assert rehearsal.alive == []
