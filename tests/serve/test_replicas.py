"""`soong start --replicas`, with the real router, over machines of the sandbox that serve a fake engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from soong.connect import router, tunnel
from soong.launch import groups
from soong.launch.preflight import free_port
from soong.settings import paths
from tests.cli.rehearsal import MODEL, until
from tests.serve.test_start_serves import status_of
from tests.serve.test_tunnel import is_alive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from soong.lease.ledger import Rental
    from tests.cli.conftest import Ended
    from tests.cli.rehearsal import Rehearsal

    Soong = Callable[..., Ended]

pytestmark = [pytest.mark.slow, pytest.mark.real]
pytest.importorskip("sglang_router")

PATHS = (
    "/",
    "/v1",
    "/v1/models",
    "/v1/chat/completions",
    "/health",
    "/metrics",
    "/engine_metrics",
    "/liveness",
    "/readiness",
    "/get_server_info",
    "/workers",
    "/get_loads",
    "/flush_cache",
    "/nowhere",
)
"""Of an engine and of the router's own, which leaves half of these open by itself."""


@pytest.fixture(autouse=True)
def no_router_left(sealed: Path) -> Iterator[None]:
    """Every router that a test leaves ends with it."""
    yield
    router.keep_only(())


@pytest.fixture
def start(engine_environment: Path) -> tuple[str, ...]:
    (engine_environment / "weights").mkdir()
    common = ("--cloud", "sandbox", "--yes", "--engine-env", str(engine_environment))
    return (
        "start", "--model", MODEL, *common, "--name", "duo", "--replicas", "2", "--port", str(free_port()),
    )  # fmt: skip


def asked(soong: Soong, count: int = 1) -> list[str]:
    """What the endpoint says to so many questions, through the client that most people use."""
    import openai

    variables = soong("env", "duo", "--json").json
    with openai.OpenAI(
        base_url=variables["OPENAI_BASE_URL"], api_key=variables["OPENAI_API_KEY"], max_retries=0
    ) as client:
        answers = [
            client.chat.completions.create(
                model=variables["OPENAI_MODEL"], messages=[{"role": "user", "content": f"What of {number}?"}]
            )
            for number in range(count)
        ]
        stream = client.chat.completions.create(
            model=variables["OPENAI_MODEL"],
            messages=[{"role": "user", "content": "What is it?"}],
            stream=True,
        )
        streamed = "".join(piece.choices[0].delta.content or "" for piece in stream)
    return [str(one.choices[0].message.content) for one in answers] + [streamed]


def group_of(soong: Soong) -> dict[str, object]:
    (found,) = soong("status", "--json").json["groups"]
    return dict(found)


def test_two_machines_answer_as_one_and_end_as_one(
    soong: Soong, rehearsal: Rehearsal, start: tuple[str, ...]
) -> None:
    rehearsal.running.ask("POST", "clock", {"speed": 120})
    begun = soong(*start)
    assert begun.code == 0, begun.err
    assert "2 × $1.09 = $2.18 per hour" in begun.err
    assert "at most $8.72 for all" in begun.err
    assert "duo is ready: 2 machines" in begun.out
    url = f"http://127.0.0.1:{start[-1]}"
    assert f"`{MODEL}` answers at {url}/v1" in begun.out
    assert {path: status_of(f"{url}{path}") for path in PATHS} == dict.fromkeys(PATHS, 401)
    assert status_of(f"{url}/v1/models", "wrong") == 401

    assert asked(soong, 3) == ["Paris is the capital."] * 4
    key = soong("env", "--json").json["OPENAI_API_KEY"]
    (up,) = router.running()
    for pid in (up.pid, up.doors_pid, up.router_pid):
        assert key not in Path(f"/proc/{pid}/cmdline").read_text()
    assert all(key not in file.read_text() for file in router.folder().iterdir())
    group = group_of(soong)
    assert (group["name"], group["wanted"], group["running"], group["answering"]) == ("duo", 2, 2, 2)
    assert group["usd_per_hour"] == 2.18
    status = soong("status").out
    assert "2 × gpu_1x_a6000" in status
    assert "2 of 2 answer" in status
    own = {soong("env", name, "--json").json["OPENAI_BASE_URL"] for name in ("duo-1", "duo-2")}
    assert len(own) == 2
    assert f"{url}/v1" not in own
    assert len({one.endpoint_id for one in rehearsal.ledger.open_rentals()}) == 1

    assert soong("extend", "1", "duo-1", "--yes").code == 2
    assert "duo (2 machines) now ends" in soong("extend", "1", "--yes").out
    assert len({one.lease.ends_at for one in rehearsal.ledger.open_rentals()}) == 1
    which = soong("ssh", "--name", "duo", "--", "true")
    assert (which.code, "duo-1" in which.err) == (2, True)

    ended = soong("stop", "duo", "--yes", "--json").json
    assert sorted((one["name"], one["confirmed"]) for one in ended) == [("duo-1", True), ("duo-2", True)]
    assert rehearsal.alive == []
    assert (router.running(), tunnel.running()) == ((), ())
    with pytest.raises(OSError, match="refused"):
        status_of(url)


def test_a_machine_that_is_lost_is_told_and_one_more_is_added(
    soong: Soong, rehearsal: Rehearsal, start: tuple[str, ...], tmp_path: Path
) -> None:
    told = tmp_path / "told"
    notifier = tmp_path / "notify.sh"
    notifier.write_text(f'#!/bin/sh\necho "$1" >> {told}\n')
    notifier.chmod(0o755)
    assert soong("config", "set", "notify.command", str(notifier)).code == 0
    rehearsal.running.ask("POST", "clock", {"speed": 120})
    assert soong(*start).code == 0
    lost = next(one for one in rehearsal.ledger.open_rentals() if one.name == "duo-2")
    rehearsal.client().terminate(lost.instance_id)
    assert asked(soong, 5) == ["Paris is the capital."] * 6, "requests go on while nobody knows of it yet"
    until(lambda: told.exists() and "duo-2 is lost" in told.read_text(), 120)
    group = group_of(soong)
    assert (group["lost"], group["running"], group["wanted"]) == (["duo-2"], 1, 2)
    status = soong("status").out
    assert "duo-2 is lost" in status
    assert "soong start --add-to duo" in status
    assert len(rehearsal.alive) == 1

    more = soong("start", "--add-to", "duo", "--yes")
    assert more.code == 0, more.err
    assert "duo is ready: 2 machines" in more.out
    until(lambda: group_of(soong)["answering"] == 2, 30)
    assert len({one.lease.ends_at for one in rehearsal.ledger.open_rentals()}) == 1
    assert asked(soong, 3) == ["Paris is the capital."] * 4

    for one in rehearsal.ledger.open_rentals():
        rehearsal.client().terminate(one.instance_id)
    until(lambda: told.read_text().count("is lost") == 3, 120)
    until(lambda: router.running() == ())
    assert rehearsal.alive == []


def test_a_lost_machine_is_replaced_once_within_the_bill(
    soong: Soong, rehearsal: Rehearsal, start: tuple[str, ...]
) -> None:
    rehearsal.running.ask("POST", "clock", {"speed": 120})
    assert soong(*start, "--replace").code == 0
    first = {one.id: one for one in rehearsal.ledger.open_rentals()}
    agreed = next(iter(rehearsal.ledger.open_rentals())).group
    group = groups.find(agreed)
    assert group is not None
    rehearsal.client().terminate(next(iter(first.values())).instance_id)
    until(
        lambda: (
            sum(one.serving == "ready" for one in rehearsal.ledger.open_rentals()) == 2
            and any(one.id not in first for one in rehearsal.ledger.open_rentals())
        ),
        120,
    )
    until(lambda: group_of(soong)["answering"] == 2, 30)
    assert asked(soong, 3) == ["Paris is the capital."] * 4
    members = rehearsal.ledger.of_group(agreed)
    now = max(one.asked_at for one in members)
    assert groups.usd_to_end(members, now) <= group.usd + 0.01
    rehearsal.client().terminate(rehearsal.ledger.open_rentals()[0].instance_id)
    until(lambda: len(group_of(soong)["lost"]) == 1, 120)  # type: ignore[arg-type]
    assert len(rehearsal.bill) == 3, "a second loss is told, and not replaced"
    again = groups.find(agreed)
    assert again is not None
    assert again.replaced == 1


def test_a_machine_that_is_dead_is_ended_and_replaced(
    soong: Soong, rehearsal: Rehearsal, start: tuple[str, ...]
) -> None:
    """Its gate hangs, so it neither answers nor ends: the cloud shows nothing of it, and it would bill on."""
    rehearsal.running.ask("POST", "clock", {"speed": 60})
    assert soong(*start, "--replace").code == 0
    dead = next(one for one in rehearsal.ledger.open_rentals() if one.name == "duo-1")
    group = groups.find(dead.group)
    assert group is not None
    groups.write(msgspec.structs.replace(group, dead_seconds=3.0))
    root = rehearsal.running.ask("GET", f"machines/{dead.instance_id}")["root"]
    os.kill(gate_of(root), signal.SIGSTOP)
    until(lambda: rehearsal.ledger.get(dead.id).phase == "ended", 120)
    assert rehearsal.ledger.get(dead.id).end_reason == "soong stop"
    until(lambda: group_of(soong)["answering"] == 2, 120)
    assert [one.name for one in rehearsal.ledger.of_group(dead.group) if one.is_open] == ["duo-1", "duo-2"]
    assert len(rehearsal.alive) == 2


def gate_of(root: str) -> int:
    """The gate that runs on the machine in this folder."""
    for folder in Path("/proc").iterdir():
        try:
            if b"gate.py" in (folder / "cmdline").read_bytes() and str(
                (folder / "cwd").readlink()
            ).startswith(root):
                return int(folder.name)
        except OSError:
            continue
    raise AssertionError(f"no gate runs in {root}")


def test_an_engine_that_hangs_up_and_a_router_that_dies(
    soong: Soong, rehearsal: Rehearsal, start: tuple[str, ...]
) -> None:
    rehearsal.running.ask("POST", "clock", {"speed": 60})
    assert soong(*start).code == 0
    (up,) = router.running()
    os.kill(up.router_pid, signal.SIGKILL)
    until(lambda: (now := router.find(up.group)) is not None and now.restarts == 1 and now.answering == 2)
    assert asked(soong, 1) == ["Paris is the capital."] * 2
    one = next(one for one in rehearsal.ledger.open_rentals() if one.name == "duo-1")
    tunnel.stop(one.id)
    assert asked(soong, 5) == ["Paris is the capital."] * 6
    until(lambda: group_of(soong)["answering"] == 1, 30)
    assert soong("tunnel", "start", "duo").code == 0
    until(lambda: group_of(soong)["answering"] == 2, 30)

    now = router.find(up.group)
    assert now is not None
    os.kill(now.pid, signal.SIGKILL)
    until(lambda: not is_alive(now.doors_pid) and not is_alive(now.router_pid))
    assert "its router is down: `soong tunnel start duo`" in soong("status").out
    assert soong("tunnel", "start").code == 0
    assert asked(soong, 1) == ["Paris is the capital."] * 2
    assert soong("stop", "--yes").code == 0
    assert rehearsal.alive == []


def test_a_machine_that_does_not_serve_is_told_and_the_other_goes_on(
    soong: Soong, rehearsal: Rehearsal, start: tuple[str, ...], tmp_path: Path
) -> None:
    """The environment fails on every machine: then it is the error of one, and both are named with what they cost."""
    rehearsal.running.ask("POST", "clock", {"speed": 120})
    (tmp_path / "fails").write_text("ValueError: No available memory for the cache blocks.\n")
    failed = soong(*start)
    assert failed.code == 6
    assert "does not serve" in failed.err
    assert "soong stop duo-" in failed.err
    assert len(rehearsal.alive) == 2
    assert "serves nothing" in soong("status").out
    assert soong("stop", "--yes").code == 0
    again = soong(*start, "--all-or-nothing")
    assert again.code == 6
    assert rehearsal.alive == []


def test_without_the_router_nothing_is_paid_for(
    soong: Soong, rehearsal: Rehearsal, start: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "sglang_router" else found(name)
    )
    refused = soong(*start)
    assert refused.code == 2
    assert "pip install 'soong[router]'" in refused.err
    assert rehearsal.bill == []


PROGRAM = """
import openai, os, sys
client = openai.OpenAI()
question = [{"role": "user", "content": "What is it?"}]
answer = client.chat.completions.create(model=os.environ["OPENAI_MODEL"], messages=question)
print(answer.choices[0].message.content)
sys.exit(7)
"""


def test_run_around_two_machines(rehearsal: Rehearsal, start: tuple[str, ...]) -> None:
    rehearsal.running.ask("POST", "clock", {"speed": 120})
    environment = start[start.index("--engine-env") + 1]
    common = ("--cloud", "sandbox", "--yes", "--engine-env", environment, "--replicas", "2")
    ran = rehearsal.spawn("run", MODEL, *common, "--", sys.executable, "-c", PROGRAM)
    out, err = ran.communicate(timeout=120)
    assert (ran.returncode, out) == (7, "Paris is the capital.\n"), err
    assert len(rehearsal.bill) == 2
    assert rehearsal.alive == []


def test_all_idle_is_idle(soong: Soong, rehearsal: Rehearsal, start: tuple[str, ...]) -> None:
    rehearsal.running.ask("POST", "clock", {"speed": 120})
    assert soong(*start, "--idle", "30m").code == 0
    rehearsal.skip(1.0)
    until(lambda: rehearsal.alive == [], 60)
    reasons = {one.end_reason for one in rehearsal.ledger.rentals()}
    assert reasons == {"all of duo idle for 30 min"}


def test_a_machine_for_which_nothing_can_be_made_up_is_told_and_the_others_serve(
    soong: Soong, rehearsal: Rehearsal, start: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from soong.cli import serving
    from soong.errors import RemoteError

    job_of = serving.job_of

    def of_most(account: object, rental: Rental, served: object) -> object:
        if rental.name == "duo-1":
            raise RemoteError("duo-1 has no address")
        return job_of(account, rental, served)  # type: ignore[arg-type]

    monkeypatch.setattr(serving, "job_of", of_most)
    rehearsal.running.ask("POST", "clock", {"speed": 120})
    begun = soong(*start)
    assert begun.code == 0, begun.err
    assert "duo-1 does not serve: duo-1 has no address" in begun.err
    assert {one.name: one.serving for one in rehearsal.ledger.open_rentals()} == {
        "duo-1": "failed",
        "duo-2": "ready",
    }
    assert group_of(soong)["answering"] == 1
    assert asked(soong, 1) == ["Paris is the capital."] * 2


SUPERVISOR = """
import os, sys, time
from pathlib import Path
from soong.connect import router, supervised
with supervised.held(Path(sys.argv[1])):
    member = router.Member(rental_id="1", name="duo-1", local_port=1, state="silent")
    router._write(router.Router(
        group=sys.argv[2], name="duo", port=int(sys.argv[3]), pid=os.getpid(), is_up=True, members=(member,)
    ))
    print("holds", flush=True)
    time.sleep(600)
"""


def test_a_router_that_runs_is_left_where_no_machine_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells of lost machines, and leads to them as soon as one answers again."""
    from soong.errors import RemoteError

    monkeypatch.setattr(router, "START_SECONDS", 0.5)
    group, port = "cd" * 5, free_port()
    lock = paths.made(router.folder()) / f"{group}.lock"
    words = [sys.executable, "-c", SUPERVISOR, str(lock), group, str(port)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == "holds\n"
        with pytest.raises(RemoteError, match="does not answer"):
            router.start(group, name="duo", port=port)
        assert supervisor.poll() is None
        assert router.find(group) is not None
        supervisor.kill()
