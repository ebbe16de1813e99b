"""From orders to an endpoint, on a folder that is a machine; broken off at every step and begun again."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from soong.connect.programs import programs
from soong.connect.remote.boot import orders, progress, sharing, weights
from tests.remote.conftest import KEY, end_marked, eventually, old_python

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = pytest.mark.slow


class Machine:
    """A home with boot.py in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "home" / ".soong"
        self.home.mkdir(parents=True)
        self.started: list[subprocess.Popen[bytes]] = []
        for name, content in programs().items():
            (self.home / name).write_bytes(content)
        self.engine = Path(__file__).with_name("fake_engine.py")
        (self.home / "api_key").write_text(KEY)
        self.environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.home.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PIP_NO_INDEX": "1",
            "UV_OFFLINE": "1",
        }

    def order(self, *options: str, **more: Any) -> None:
        orders = {
            "version": 1,
            "rental": "x",
            "engine": {"name": "fake", "argv": ["{python}", str(self.engine), "{port}", *options], "port": 0},
            "gate": {"port": 0},
            "environment": {"path": str(self.given())},
            "weights": {},
            "ready_seconds": 20,
            **more,
        }
        (self.home / "serve.json").write_text(json.dumps(orders))

    def given(self) -> Path:
        """An environment that is there already, with a Hub that is a folder."""
        folder = self.root / "given"
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        (folder / "lib").mkdir(exist_ok=True)
        (folder / "lib" / "huggingface_hub.py").write_text(
            Path(__file__).with_name("fake_hub.py").read_text()
        )
        python = folder / "bin" / "python"
        python.write_text(
            f'#!/bin/sh\nexport PYTHONPATH={folder / "lib"} FAKE_HUB={self.root / "hub"}\nexec {old_python()} "$@"\n'
        )
        python.chmod(0o755)
        return folder

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        with (self.home / "boot.log").open("ab") as log:
            process = subprocess.Popen(
                [old_python(), str(self.home / "boot.py"), *words],
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        self.started.append(process)
        return process

    def lines(self) -> list[dict[str, Any]]:
        found = []
        with suppress(OSError):
            for line in (self.home / "progress.jsonl").read_text().splitlines():
                with suppress(ValueError):
                    found.append(json.loads(line))
        return found

    def until(self, step: str, state: str, after: int = 0, seconds: float = 30.0) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            lines = self.lines()[after:]
            found = [line for line in lines if (line["step"], line["state"]) == (step, state)]
            failed = [line for line in lines if line["state"] == "failed"]
            assert found or not failed, failed
            return found[-1] if found else None

        return dict(eventually(look, f"{step} {state}", seconds))

    def failure(self) -> dict[str, Any]:
        return dict(
            eventually(
                lambda: next((one for one in self.lines() if one["state"] == "failed"), None), "a failure"
            )
        )

    def kill(self) -> None:
        pid = json.loads((self.home / "boot.pid").read_text())["pid"]
        os.kill(pid, signal.SIGKILL)

    def engine_pid(self) -> int:
        return int(json.loads((self.home / "engine.json").read_text())["pid"])

    def hub(self, **behaviour: Any) -> dict[str, bytes]:
        files = {
            "config.json": b"{}",
            "model-1.safetensors": os.urandom(700_000),
            "model-2.safetensors": os.urandom(300_000),
            "original/model.pth": b"unwanted",
        }
        for name, content in files.items():
            path = self.root / "hub" / "files" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (self.root / "hub" / "behaviour.json").write_text(json.dumps(behaviour))
        return files

    def seen(self) -> list[str]:
        return list(json.loads((self.root / "hub" / "behaviour.json").read_text()).get("seen", []))


WEIGHTS = {"repository": "org/name", "revision": "abc", "ignore": ["original/*"], "bytes": 1_000_002}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    for _ in range(3):
        end_marked(f"SOONG_SERVING={machine.home}".encode())
        time.sleep(0.02)
    for process in machine.started:
        process.kill()
        process.wait()


def status_of(port: int, path: str, key: str = "") -> int:
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Bearer {key}"}
    )
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_from_orders_to_an_endpoint_that_only_the_key_opens(machine: Machine) -> None:
    files = machine.hub()
    (machine.home / "hf_token").write_text("hf_secret")
    machine.order("--seconds-to-load", "0.3", weights=WEIGHTS)
    process = machine.start()
    ready = machine.until("ready", "done")
    for path in ("/health", "/metrics", "/v1/models"):
        assert status_of(ready["gate_port"], path) == 401
        assert status_of(ready["gate_port"], path, KEY) == 200
    steps = [(line["step"], line["state"]) for line in machine.lines() if line["state"] != "running"]
    assert steps == [
        (step, state)
        for step in ("environment", "weights", "engine", "ready")
        for state in ("started", "done")
    ]
    folder = machine.home / "weights" / "org--name@abc"
    for name in ("config.json", "model-1.safetensors", "model-2.safetensors"):
        assert (folder / name).read_bytes() == files[name]
    assert not (folder / "original").exists()
    assert machine.seen() == ["hf_secret"]
    assert not (machine.home / "hf_token").exists()
    assert "hf_secret" not in "".join(
        path.read_text(errors="replace") for path in machine.home.glob("*") if path.is_file()
    )
    assert process.poll() is None


def test_it_detaches_itself_and_runs_once(machine: Machine) -> None:
    machine.order()
    assert machine.start("start").wait(20) == 0
    machine.until("ready", "done")
    assert machine.start("run").wait(20) == 0
    assert "runs already" in (machine.home / "boot.log").read_text()
    engine = machine.engine_pid()
    assert machine.start("stop").wait(40) == 0
    assert not Path(f"/proc/{engine}").exists()
    assert machine.lines()[-1]["state"] == "stopped"
    assert not (machine.home / "wanted").exists()


@pytest.mark.parametrize("step", ["weights", "engine", "ready", "later"])
def test_killed_at_any_step_it_goes_on(machine: Machine, step: str) -> None:
    machine.hub(pause=0.15)
    machine.order("--seconds-to-load", "1.0", weights=WEIGHTS)
    machine.start()
    if step == "later":
        machine.until("ready", "done")
    elif step == "weights":
        eventually(lambda: list((machine.home / "weights").glob("**/*.incomplete")), "half a file")
    else:
        machine.until(step, "started")
    machine.kill()
    before = len(machine.lines())
    machine.start("start")
    ready = machine.until("ready", "done", after=before)
    assert status_of(ready["gate_port"], "/v1/models", KEY) == 200
    pids = [
        folder.name
        for folder in Path("/proc").glob("[0-9]*")
        if str(machine.engine).encode() in _cmdline(folder) and b"{port}" not in _cmdline(folder)
        and f"SOONG_SERVING={machine.home}".encode() in _environ(folder)
    ]  # fmt: skip
    assert len(pids) == 1
    if step == "later":
        assert "ran already" in machine.until("engine", "done", after=before)["message"]


def _cmdline(folder: Path) -> bytes:
    with suppress(OSError):
        return (folder / "cmdline").read_bytes()
    return b""


def _environ(folder: Path) -> bytes:
    with suppress(OSError):
        return (folder / "environ").read_bytes()
    return b""


def test_weights_that_are_there_are_not_asked_for_again(machine: Machine) -> None:
    machine.hub()
    machine.order(weights=WEIGHTS)
    machine.start()
    machine.until("ready", "done")
    machine.kill()
    before = len(machine.lines())
    machine.start("start")
    assert "already" in machine.until("weights", "done", after=before)["message"]
    assert len(machine.seen()) == 1


def test_a_broken_line_is_tried_again(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.hub(fail=["ConnectionError: Temporary failure in name resolution"])
    machine.order(weights=WEIGHTS)
    machine.start()
    machine.until("ready", "done")
    assert len(machine.seen()) == 2
    assert any("again in 5 s" in line["message"] for line in machine.lines())


def test_a_file_that_arrived_wrong_is_fetched_again(machine: Machine) -> None:
    files = machine.hub(spoil="model-2.safetensors")
    machine.order(weights=WEIGHTS)
    machine.start()
    machine.until("ready", "done")
    folder = machine.home / "weights" / "org--name@abc"
    assert (folder / "model-2.safetensors").read_bytes() == files["model-2.safetensors"]
    assert len(machine.seen()) == 2


def test_no_access_is_said_at_once(machine: Machine) -> None:
    machine.hub(fail=["GatedRepoError: 403 Client Error. Cannot access gated repo"])
    machine.order(weights=WEIGHTS)
    assert machine.start().wait(30) == 1
    failure = machine.failure()
    assert (failure["step"], failure["reason"]) == ("weights", "no-access")
    assert "the Hub refuses access" in failure["message"]


def test_weights_that_the_disk_cannot_hold_are_not_begun(machine: Machine) -> None:
    machine.hub()
    machine.order(weights={**WEIGHTS, "bytes": 10**18})
    assert machine.start().wait(30) == 1
    failure = machine.failure()
    assert failure["reason"] == "disk-full"
    assert "GB are free" in failure["message"]
    assert machine.seen() == []


def test_a_disk_that_fills_up_is_said(machine: Machine) -> None:
    machine.hub(fail=["OSError: [Errno 28] No space left on device"])
    machine.order(weights=WEIGHTS)
    assert machine.start().wait(30) == 1
    assert machine.failure()["reason"] == "disk-full"


def test_a_sent_file_is_verified(machine: Machine) -> None:
    content = os.urandom(100_000)
    (machine.home / "model.gguf").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    machine.order(weights={"file": "model.gguf", "sha256": digest, "bytes": len(content)})
    machine.start()
    machine.until("ready", "done")


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"sha256": "0" * 64}, "checksum"), ({"bytes": 8}, "checksum"), ({"file": "nowhere.gguf"}, "not-found")],
)
def test_a_sent_file_that_is_wrong_is_refused(machine: Machine, change: dict[str, Any], reason: str) -> None:
    (machine.home / "model.gguf").write_bytes(b"weights")
    machine.order(weights={"file": "model.gguf", **change})
    assert machine.start().wait(30) == 1
    assert machine.failure()["reason"] == reason


def test_an_engine_that_ends_is_told_with_its_last_words(machine: Machine) -> None:
    machine.order(
        "--log",
        "torch.OutOfMemoryError: CUDA out of memory",
        "--seconds-to-load",
        "0.3",
        "--die-after",
        "0.01",
        "--exit-code",
        "3",
    )
    assert machine.start().wait(30) == 1
    failure = machine.failure()
    assert failure["exit_code"] == 3
    assert "torch.OutOfMemoryError: CUDA out of memory" in failure["log"]


def test_an_engine_that_ends_later_is_told_too(machine: Machine) -> None:
    machine.order()
    process = machine.start()
    machine.until("ready", "done")
    os.kill(machine.engine_pid(), signal.SIGKILL)
    assert process.wait(30) == 1
    failure = machine.failure()
    assert failure["step"] == "engine"
    assert failure["exit_code"] == -9
    assert "signal 9" in failure["message"]


def test_an_engine_that_never_answers_is_ended(machine: Machine) -> None:
    machine.order("--seconds-to-load", "60", ready_seconds=0.5)
    assert machine.start().wait(30) == 1
    failure = machine.failure()
    assert failure["reason"] == "timeout"
    assert not Path(f"/proc/{machine.engine_pid()}").exists()


def test_other_orders_replace_the_engine(machine: Machine) -> None:
    machine.order()
    machine.start()
    machine.until("ready", "done")
    first = machine.engine_pid()
    machine.kill()
    before = len(machine.lines())
    machine.order("--log", "other")
    machine.start("start")
    machine.until("ready", "done", after=before)
    assert machine.engine_pid() != first
    assert not Path(f"/proc/{first}").exists()


def test_a_gate_that_dies_comes_back(machine: Machine) -> None:
    machine.order()
    machine.start()
    ready = machine.until("ready", "done")
    gate = int(json.loads((machine.home / "gate.json").read_text())["pid"])
    os.kill(gate, signal.SIGKILL)

    def serves() -> bool:
        with suppress(OSError):
            return status_of(ready["gate_port"], "/v1/models", KEY) == 200
        return False

    eventually(serves, "the gate came back")


def test_a_port_that_is_taken_is_said(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        machine.order(engine={"argv": ["{python}", str(machine.engine), "{port}"], "port": port})
        assert machine.start().wait(30) == 1
    failure = machine.failure()
    assert failure["reason"] == "port-taken"
    assert str(port) in failure["message"]


def test_missing_programs_keys_and_orders_are_said(machine: Machine) -> None:
    machine.order(engine={"argv": ["/nowhere/engine"], "port": 0})
    assert machine.start().wait(30) == 1
    assert "cannot be started" in machine.failure()["message"]
    (machine.home / "progress.jsonl").unlink()
    (machine.home / "serve.json").write_text("{")
    assert machine.start().wait(30) == 1
    assert machine.failure()["reason"] == "orders"
    (machine.home / "progress.jsonl").unlink()
    (machine.home / "api_key").unlink()
    machine.order()
    assert machine.start().wait(30) == 1
    assert "no key" in machine.failure()["message"]


def test_too_few_gpus_are_said(machine: Machine) -> None:
    (machine.home / "cuda_check.py").write_text('print(\'{"gpus": [{"name": "A"}]}\')')
    machine.order(gpus=2)
    assert machine.start().wait(30) == 1
    failure = machine.failure()
    assert (failure["step"], failure["message"]) == ("cuda", "1 of 2 GPUs compute")


def wheel(folder: Path) -> Path:
    """A package that is nothing but a name."""
    path = folder / "demo-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("demo.py", "VALUE = 4711\n")
        file.writestr("demo-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n")
        file.writestr(
            "demo-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: me\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        file.writestr("demo-1.0.dist-info/RECORD", "demo.py,,\n")
    return path


def test_an_environment_is_made_kept_and_taken_from_the_filesystem(machine: Machine) -> None:
    shared = machine.root / "shared"
    shared.mkdir()
    wish = {"requirements": [str(wheel(machine.root))], "key": "demo-1.0", "python": ""}
    machine.order(environment=wish, filesystem=str(shared))
    machine.start()
    machine.until("ready", "done", seconds=150)
    archive = eventually(
        lambda: next(iter(shared.glob("soong/environments/demo-1.0-*.tar")), None), "the archive"
    )
    machine.start("stop").wait(40)
    folder = machine.home / "environments" / archive.stem
    assert (folder / "complete").exists()
    subprocess.run(["rm", "-rf", str(machine.home / "environments")], check=True)
    before = len(machine.lines())
    machine.start("start")
    assert "filesystem" in machine.until("environment", "done", after=before, seconds=150)["message"]
    found = subprocess.run(
        [folder / "bin" / "python", "-c", "import demo; print(demo.VALUE)"], capture_output=True, check=True
    )
    assert found.stdout == b"4711\n"


def fake_uv(machine: Machine, install: str) -> None:
    """A uv that makes environments without pip, and installs by a line of shell."""
    tools = machine.root / "tools"
    tools.mkdir()
    (tools / "uv").write_text(
        f'#!/bin/sh\n[ "$1" = venv ] && exec {old_python()} -m venv --without-pip "$5"\n{install}\n'
    )
    (tools / "uv").chmod(0o755)
    machine.environment["PATH"] = f"{tools}:{machine.environment['PATH']}"


@pytest.mark.parametrize(
    ("files", "engine", "said"),
    [
        ({}, {}, True),
        ({"tokenizer_config.json": '{"bos_token": "x"}'}, {}, True),
        ({"tokenizer_config.json": "{"}, {}, True),
        ({"tokenizer_config.json": '{"chat_template": "{{ messages }}"}'}, {}, False),
        ({"chat_template.jinja": "{{ messages }}"}, {}, False),
        ({"tekken.json": "{}"}, {}, False),
        ({}, {"chat_template": "{{ messages }}"}, False),
        ({}, {"encodes_chats": True}, False),
    ],
)
def test_a_model_that_cannot_chat_is_said_to_be_so(
    tmp_path: Path, files: dict[str, str], engine: dict[str, Any], said: bool
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert ("no chat template" in weights.without_chats(tmp_path, engine)) is said


def test_the_engine_gets_the_template_as_a_file(machine: Machine) -> None:
    template = "{{ messages }}"
    argv = ["{python}", str(machine.engine), "{port}", "--chat-template", "{chat_template}"]
    machine.order(engine={"name": "fake", "argv": argv, "port": 0, "chat_template": template})
    machine.start()
    machine.until("ready", "done")
    words = Path(f"/proc/{machine.engine_pid()}/cmdline").read_bytes().split(b"\0")
    assert Path(words[words.index(b"--chat-template") + 1].decode()).read_text() == template


def test_a_filesystem_that_is_not_mounted_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOONG_ROOT", str(tmp_path))
    assert orders.mounted("{root}/lambda/nfs/mine") == ""
    (tmp_path / "lambda" / "nfs" / "mine").mkdir(parents=True)
    assert orders.mounted("{root}/lambda/nfs/mine") == f"{tmp_path}/lambda/nfs/mine"
    assert orders.mounted("/kept/here") == "/kept/here"


def test_an_environment_that_was_broken_off_is_made_anew(machine: Machine) -> None:
    stays, half = machine.root / "line-is-broken", machine.root / "half"
    stays.touch()
    fake_uv(machine, f"touch {half}; while [ -e {stays} ]; do sleep 0.1; done")
    machine.order(environment={"requirements": ["demo==1.0"], "key": "demo"})
    machine.start()
    eventually(half.exists, "half an environment")
    machine.kill()
    stays.unlink()
    (folder,) = (machine.home / "environments").iterdir()
    (folder / "bin" / "left-over").touch()
    before = len(machine.lines())
    machine.start("start")
    assert "installed by uv" in machine.until("environment", "done", after=before)["message"]
    machine.until("ready", "done", after=before)
    assert not (folder / "bin" / "left-over").exists()


def test_an_installer_that_compiles_is_told_for_what(machine: Machine) -> None:
    heard = machine.root / "heard"
    fake_uv(machine, f'echo "$CMAKE_ARGS" > {heard}')
    wish = {"requirements": ["demo==1.0"], "key": "demo", "env": {"CMAKE_ARGS": "-DGGML_CUDA=ON"}}
    machine.order(environment=wish)
    machine.start()
    machine.until("environment", "done", seconds=60)
    assert heard.read_text() == "-DGGML_CUDA=ON\n"


def test_packages_that_are_not_to_be_had_are_said(machine: Machine) -> None:
    machine.order(environment={"requirements": ["no-such-package-4711==1.0"], "key": "x"})
    assert machine.start().wait(150) == 1
    failure = machine.failure()
    assert (failure["step"], failure["reason"]) == ("environment", "not-found")
    assert failure["log"]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "disk-full",
        ),
        ("Temporary failure in name resolution", "no-network"),
        ("ERROR: Package 'x' requires a different Python: 3.10.12 not in '>=3.11'", "wrong-python"),
        ("huggingface_hub.errors.GatedRepoError: 401 Client Error.", "no-access"),
        ("ERROR: No matching distribution found for vllm==99", "not-found"),
        ("something else", "exited"),
    ],
)
def test_last_words_are_understood(said: str, reason: str) -> None:
    assert progress.reason_of([said], 1, oom_kills=0) == reason


def test_the_systems_killer_is_recognised() -> None:
    assert progress.reason_of(["working"], -9, oom_kills=1) == "killed-oom"


def test_a_lock_of_another_machine_is_waited_for_until_it_is_stale(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text("other:host:1")
    assert not sharing.lock_taken(lock, "me")
    assert not sharing.lock_taken(lock, "me")
    old = time.time() - 2 * sharing.STALE_LOCK_SECONDS
    os.utime(lock, (old, old))
    assert not sharing.lock_taken(lock, "me")
    assert sharing.lock_taken(lock, "me")
    assert lock.read_text() == "me"


def test_nothing_is_lost_of_a_line_that_was_cut_off(machine: Machine) -> None:
    machine.order()
    (machine.home / "progress.jsonl").write_text('{"step": "weig')
    machine.start()
    machine.until("ready", "done")
    assert len(machine.lines()) >= 8


def test_halves_that_nothing_can_go_on_with_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "huggingface" / "download"
    folder.mkdir(parents=True)
    lost = folder / f"MVShNYG3D1RZMjG9DGZiBolSwrg=.{'e2' * 32}.f47a3f97.incomplete"
    resumable = folder / f"MVShNYG3D1RZMjG9DGZiBolSwrg=.{'e2' * 32}.incomplete"
    for path in (lost, resumable):
        path.write_bytes(b"half")
    weights.drop_lost(tmp_path)
    assert not lost.exists()
    assert resumable.exists()
