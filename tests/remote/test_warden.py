"""The warden tells what it knows, takes no doubt for idleness, and stops what is served when the lease ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from soong.connect.remote import warden
from tests.remote.conftest import eventually, old_python, post, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

VLLM = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m {x} y"} 1.0
vllm:num_requests_running{engine="1",model_name="m {x} y"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 4.0
vllm:prompt_tokens_total{engine="0",model_name="m"} 1.2345e+06
vllm:prompt_tokens_created{engine="0",model_name="m"} 1.7e+09
vllm:generation_tokens_total{engine="0",model_name="m"} 10.0
vllm:generation_tokens_total{engine="1",model_name="m"} 20.0
"""
SGLANG = """\
sglang:num_running_reqs{engine_type="unified",model_name="m",tp_rank="0"} 0.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",tp_rank="0"} 0.0
"""
SGLANG_USED = (
    SGLANG
    + """\
sglang:prompt_tokens_total{model_name="m",is_streaming="True"} 8.0
sglang:generation_tokens_total{model_name="m",is_streaming="True"} 5.0
sglang:generation_tokens_total{model_name="m",is_streaming="False"} 6.0
"""
)
LLAMA = """\
llamacpp:prompt_tokens_total 7
llamacpp:tokens_predicted_total 9
llamacpp:requests_processing 0
llamacpp:requests_deferred 2
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (VLLM, ("vllm", 3, 4, 30, 1_234_500)),
        (SGLANG, ("sglang", 0, 0, 0, 0)),
        (SGLANG_USED, ("sglang", 0, 0, 11, 8)),
        (LLAMA, ("llama.cpp", 0, 2, 9, 7)),
    ],
)
def test_counters_of_each_engine(text: str, expected: tuple[Any, ...]) -> None:
    assert tuple(warden.sample_of(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>not found</html>",
        "other_metric 1",
        VLLM.replace("vllm:generation_tokens_total", "vllm:generation_tokens"),
        VLLM.replace("vllm:num_requests_waiting{", "vllm:num_requests_resting{"),
        VLLM.replace(" 4.0", " NaN"),
        VLLM.replace(" 4.0", " -1"),
        VLLM.replace(" 4.0", " many"),
        LLAMA.replace("llamacpp:requests_deferred", "llamacpp:requests_delayed"),
        SGLANG.replace("sglang:num_queue_reqs", "sglang:num_queued"),
    ],
)
def test_missing_metrics_are_unknown(text: str) -> None:
    with pytest.raises(warden.UnreadableError):
        warden.sample_of(text)


def quiet(tokens: int = 5, running: int = 0, queued: int = 0) -> warden.Sample:
    return warden.Sample("vllm", running, queued, tokens, 7)


def test_idle_counts_from_the_first_quiet_look() -> None:
    idleness = warden.Idleness()
    for moment in (100.0, 110.0, 120.0):
        idleness.saw(quiet(), moment)
    assert idleness.since == 100.0


@pytest.mark.parametrize(
    "between",
    [None, quiet(running=1), quiet(queued=1), quiet(tokens=6), quiet(tokens=0)],
    ids=["unknown", "running", "queued", "tokens", "restarted"],
)
def test_whatever_happens_or_is_not_known_begins_it_anew(between: warden.Sample | None) -> None:
    idleness = warden.Idleness()
    idleness.saw(quiet(), 100.0)
    idleness.saw(between, 110.0)
    assert idleness.since in {None, 110.0}
    idleness.saw(quiet(), 120.0)
    assert idleness.since == 120.0 or (between == quiet() and idleness.since == 110.0)


def test_logins_with_a_terminal_are_counted(tmp_path: Path) -> None:
    titles = {
        "1": "sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups",
        "20": "sshd: ubuntu [priv]",
        "21": "sshd: ubuntu@pts/0",
        "31": "sshd: ubuntu@notty",
        "41": "sshd-session: ubuntu@pts/12",
        "50": "bash\0-c\0echo sshd: ubuntu@pts/3",
    }
    for pid, title in titles.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cmdline").write_bytes(title.encode() + b"\0")
    assert warden.ssh_sessions(tmp_path) == 2
    assert warden.ssh_sessions(tmp_path / "nowhere") is None


class Machine:
    """A folder that is a machine, with a warden that runs there as it would on a rented one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "opt" / "soong"
        self.home = root / "home" / ".soong"
        self.bin = root / "bin"
        for folder in (self.folder, self.home, self.bin):
            folder.mkdir(parents=True)
        (self.folder / "warden.py").write_bytes(program("warden.py").read_bytes())
        self.processes: list[subprocess.Popen[bytes]] = []

    def is_impatient(self) -> None:
        """Its warden waits a second, not twenty, for what is asked to end."""
        file = self.folder / "warden.py"
        patient = f"\nTERM_SECONDS = {warden.TERM_SECONDS}\n"
        assert patient in file.read_text()
        file.write_text(file.read_text().replace(patient, "\nTERM_SECONDS = 1.0\n"))

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "HOME": str(self.home.parent),
            "SOONG_ROOT": str(self.root),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def lease(self, ends_in: float, *, cap_in: float = 1e6, **more: Any) -> None:
        now = time.time()
        content = {
            "id": "0123456789",
            "owner": "me",
            "ends_at": now + ends_in,
            "cap_at": now + cap_in,
            **more,
        }
        half = self.folder / "half"
        half.write_text(json.dumps(content))
        half.replace(self.folder / "lease.json")

    def command(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def run(self) -> subprocess.Popen[bytes]:
        words = [old_python(), str(self.folder / "warden.py"), "run"]
        with (self.folder / "warden.log").open("ab") as log:
            process = subprocess.Popen(words, env=self.environment, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def ask(self, *words: str, stdin: str = "") -> tuple[int, dict[str, Any]]:
        ended = subprocess.run(
            [old_python(), str(self.folder / "warden.py"), *words],
            env=self.environment, input=stdin, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        return ended.returncode, json.loads(ended.stdout)

    def status(self) -> dict[str, Any]:
        about = eventually(self.about, "the warden answers")
        asked = urllib.request.Request(
            f"http://127.0.0.1:{about['port']}/status", headers={"Authorization": f"Bearer {about['token']}"}
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return dict(json.loads(answer.read()))

    def about(self) -> dict[str, Any]:
        with suppress(OSError):
            return dict(json.loads((self.folder / "warden.json").read_bytes()))
        return {}

    def until(self, look: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        return dict(eventually(lambda: (said := self.status()) and look(said) and said, "the status"))

    def serve(self, port: int) -> None:
        (self.home / "ports.json").write_text(json.dumps({"engine": port, "gate": 1}))

    def told(self) -> str:
        return (self.folder / "warden.log").read_text()

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.end()


def clock_at(now: float, speed: float) -> dict[str, Any]:
    return {"clock": {"start": now, "real_start": time.time(), "speed": speed}}


def test_status_without_anything_served(machine: Machine) -> None:
    machine.lease(3600, cap_in=7200)
    machine.run()
    said = machine.until(lambda said: said["lease"] and said["idle_unknown_because"])
    assert said["phase"] == "waiting"
    assert said["lease"]["id"] == "0123456789"
    assert 3500 < said["lease"]["remaining_seconds"] <= 3600
    assert said["idle_seconds"] is None
    assert said["engine"]["running"] is None
    assert machine.ask("status")[1]["phase"] == "waiting"


def test_only_the_token_opens_and_only_its_user_can_read_it(machine: Machine) -> None:
    machine.lease(3600)
    machine.run()
    machine.status()
    assert (machine.folder / "warden.json").stat().st_mode & 0o777 == 0o600
    url = f"http://127.0.0.1:{machine.about()['port']}"
    for path, token, code in (
        ("/status", "", 401),
        ("/status", "wrong", 401),
        ("/", "", 401),
        ("/lease", machine.about()["token"], 404),
    ):
        asked = urllib.request.Request(
            url + path, headers={"Authorization": f"Bearer {token}"} if token else {}
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(asked, timeout=10)
        with refused.value as answer:
            assert answer.code == code


def test_it_sees_the_engine_work_and_rest(machine: Machine, engine: int) -> None:
    machine.lease(3600 * 100, **clock_at(time.time(), 50.0))
    machine.serve(engine)
    machine.run()
    said = machine.until(lambda said: (said["idle_seconds"] or 0) > 20)
    assert said["phase"] == "serving"
    assert said["engine"] == {
        "engine": "vllm",
        "running": 0,
        "queued": 0,
        "generated_tokens": 0,
        "prompt_tokens": 0,
    }
    post(engine, "/v1/chat/completions", {"chunks": 8})
    said = machine.until(lambda said: said["engine"]["generated_tokens"] == 8)
    idle_then = said["idle_seconds"]
    assert idle_then is not None
    assert idle_then < 60
    post(engine, "/set", {"metrics": "nothing to see"})
    said = machine.until(lambda said: said["idle_seconds"] is None)
    assert "missing" in said["idle_unknown_because"]
    post(engine, "/set", {"metrics": None, "generated": 0})
    assert machine.until(lambda said: said["idle_seconds"] is not None)["idle_seconds"] < 60


def test_gpu_use_is_told_when_there_is_a_gpu(machine: Machine) -> None:
    machine.command("nvidia-smi", 'printf "7, 1000\\n93, 2000\\n"')
    machine.lease(3600)
    machine.run()
    said = machine.until(lambda said: said["gpu_utilization_percent"] is not None)
    assert (said["gpu_utilization_percent"], said["gpu_memory_used_mib"]) == (93, 3000)


def sleeper(machine: Machine, script: str) -> subprocess.Popen[bytes]:
    """A process that counts as served."""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env={"PATH": "/usr/bin:/bin", "SOONG_SERVING": str(machine.home)},
        start_new_session=True,
        stdout=subprocess.PIPE,
    )
    machine.processes.append(process)
    assert process.stdout is not None
    process.stdout.readline()
    return process


POLITE = "import time; print(1, flush=True); time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"


def test_the_end_of_the_lease_stops_what_is_served(machine: Machine) -> None:
    served = sleeper(machine, POLITE)
    machine.command("wall", 'cat >> "$SOONG_ROOT/walled"')
    machine.lease(1.5)
    machine.run()
    assert served.wait(20) == -signal.SIGTERM
    said = machine.until(lambda said: said["phase"] == "ended")
    assert said["lease"]["remaining_seconds"] <= 0
    assert "ended at" in eventually(
        lambda: "ended at" in (text := (machine.folder / "motd").read_text()) and text
    )
    assert "lease of this machine ends in" in (machine.root / "walled").read_text()
    assert "is over" in (machine.root / "walled").read_text()


@pytest.mark.slow
def test_what_does_not_stop_is_killed(machine: Machine) -> None:
    machine.is_impatient()
    served = sleeper(machine, STUBBORN)
    machine.lease(0.5)
    machine.run()
    machine.until(lambda said: said["phase"] == "ended")
    assert eventually(lambda: served.poll() is not None and served.returncode) == -signal.SIGKILL


def test_another_machine_on_the_same_computer_is_left_alone(machine: Machine, tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", POLITE], env={"SOONG_SERVING": f"{machine.home}2"}, stdout=subprocess.PIPE
    )
    machine.processes.append(other)
    machine.lease(0.2)
    machine.run()
    machine.until(lambda said: said["phase"] == "ended")
    time.sleep(0.5)
    assert other.poll() is None


def test_more_time_reaches_it_through_the_command(machine: Machine) -> None:
    served = sleeper(machine, POLITE)
    machine.lease(4, cap_in=50)
    machine.run()
    machine.until(lambda said: said["lease"])
    now = time.time()
    longer = {"id": "0123456789", "owner": "me", "ends_at": now + 30, "cap_at": now + 1e6}
    code, said = machine.ask("lease", stdin=json.dumps(longer))
    assert code == 0
    assert said["cap_at"] < now + 51
    machine.until(lambda said: said["lease"]["remaining_seconds"] > 10)
    assert served.poll() is None
    code, said = machine.ask("lease", stdin=json.dumps({**longer, "ends_at": now + 1e6}))
    assert code == 0
    remaining = machine.until(lambda said: said["lease"]["remaining_seconds"] > 31)["lease"][
        "remaining_seconds"
    ]
    assert remaining < 51  # the cap


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"id": "0123456789", "ends_at": "soon", "cap_at": 1}',
        '{"id": "other", "ends_at": 9e9, "cap_at": 9e9}',
    ],
)
def test_a_lease_that_makes_no_sense_is_not_taken(machine: Machine, text: str) -> None:
    machine.lease(3600)
    machine.run()
    machine.until(lambda said: said["lease"])
    before = (machine.folder / "lease.json").read_text()
    code, said = machine.ask("lease", stdin=text)
    assert code == 2
    assert "not taken" in said["error"]
    assert (machine.folder / "lease.json").read_text() == before


def test_garbage_in_its_files_changes_nothing(machine: Machine) -> None:
    machine.lease(3600)
    machine.run()
    machine.until(lambda said: said["lease"])
    (machine.folder / "lease.json").write_bytes(b"\xff\0{{{")
    for name in ("progress.jsonl", "ports.json", "engine.json", "serve.json", "wanted", "boot.lock"):
        (machine.home / name).write_bytes(b"\xff\0" * 1000 + b"[" * 100_000)
    said = machine.until(lambda said: said["lease_trouble"])
    assert said["lease"]["remaining_seconds"] > 3000
    machine.processes[0].kill()
    machine.processes[0].wait()
    (machine.folder / "warden.json").unlink()
    machine.run()
    assert machine.until(lambda said: said["lease_trouble"])["lease"]["remaining_seconds"] > 3000


def test_a_second_one_ends_at_once(machine: Machine) -> None:
    machine.lease(3600)
    machine.run()
    about = eventually(machine.about)
    assert machine.run().wait(20) == 0
    assert "another warden" in machine.told()
    assert machine.about() == about


def test_a_rehearsal_ends_by_its_own_clock(machine: Machine) -> None:
    served = sleeper(machine, POLITE)
    machine.lease(3600, **clock_at(time.time(), 1800.0))
    machine.run()
    assert served.wait(20) == -signal.SIGTERM


def test_the_clock_of_a_rehearsal_can_be_a_file_that_changes(machine: Machine) -> None:
    served = sleeper(machine, POLITE)
    clock = machine.root / "clock.json"
    now = time.time()
    clock.write_text(json.dumps({"anchor": now, "real": now, "speed": 1, "pace": 1, "running": True}))
    machine.lease(3600, clock={"file": str(clock)})
    machine.run()
    assert machine.until(lambda said: said["lease"])["lease"]["remaining_seconds"] > 3000
    half = machine.root / "clock.half"
    half.write_text(json.dumps({"anchor": now + 4000, "real": now, "speed": 1, "pace": 1, "running": True}))
    half.replace(clock)
    assert served.wait(20) == -signal.SIGTERM


def test_an_unreadable_clock_never_ends_a_lease_early(machine: Machine) -> None:
    machine.lease(3600, clock={"file": str(machine.root / "nowhere")})
    machine.run()
    assert machine.until(lambda said: said["lease"])["lease"]["remaining_seconds"] > 3000


def fake_boot(machine: Machine) -> Path:
    """A boot.py that writes down that it was started."""
    started = machine.root / "started"
    (machine.home / "boot.py").write_text(f"open({str(started)!r}, 'a').write('1')\n")
    return started


def test_boot_is_started_again_after_a_reboot(machine: Machine) -> None:
    started = fake_boot(machine)
    (machine.home / "wanted").touch()
    (machine.home / "progress.jsonl").write_text('{"step": "weights", "state": "running"}\n')
    machine.lease(3600)
    machine.run()
    eventually(started.exists, "boot.py was started")


@pytest.mark.parametrize("why", ["never wanted", "failed for good", "runs", "lease is over"])
def test_boot_is_not_started_for_nothing(machine: Machine, why: str) -> None:
    started = fake_boot(machine)
    line = (
        {"step": "engine", "state": "failed"}
        if why == "failed for good"
        else {"step": "ready", "state": "done"}
    )
    (machine.home / "progress.jsonl").write_text(json.dumps(line) + "\n")
    if why != "never wanted":
        (machine.home / "wanted").touch()
    (machine.home / "boot.lock").touch()
    with (machine.home / "boot.lock").open("ab") as lock:
        if why == "runs":
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        machine.lease(-5 if why == "lease is over" else 3600)
        machine.run()
        machine.until(lambda said: said["lease"] and said["idle_unknown_because"])
        time.sleep(1.2)
    assert not started.exists()


def test_more_time_after_the_end_starts_boot_again(machine: Machine) -> None:
    started = fake_boot(machine)
    (machine.home / "wanted").touch()
    (machine.home / "progress.jsonl").write_text('{"step": "engine", "state": "stopped"}\n')
    machine.lease(-1)
    machine.run()
    machine.until(lambda said: said["phase"] == "ended")
    machine.lease(3600)
    eventually(started.exists, "boot.py was started")
    assert machine.until(lambda said: said["phase"] != "ended")


def test_no_terminal_of_the_computer_is_written_to_from_a_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wall = tmp_path / "bin" / "wall"
    wall.parent.mkdir()
    wall.write_text(f"#!/bin/sh\ncat > {tmp_path}/walled\n")
    wall.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wall.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SOONG_ROOT", str(tmp_path / "machine"))
    warden.tell_logged_in("hello")
    assert not (tmp_path / "walled").exists()
    monkeypatch.setenv("SOONG_ROOT", str(tmp_path))
    warden.tell_logged_in("hello")
    assert (tmp_path / "walled").read_text() == "hello\n"
