"""The scripts run: with an engine that is none, a real shell, and a real API server's words."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
import yaml

import soong.exports.key_guard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.exports.conftest import Ended

    Export = Callable[..., Ended]

KEY = "sk-the.key~of_1+2/3="
PATIENCE_SECONDS = 30.0
ENGINES = {"vllm": "vllm", "sglang": "python", "llama.cpp": "llama-server"}


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def _script(export: Export, tmp_path: Path, port: int, *words: str) -> Path:
    file = tmp_path / "serve.sh"
    text = export("shell", "qwen2.5-7b", "--gpu", "a100-80gb-sxm4", *words).out
    file.write_text(text.replace("--port 8000", f"--port {port}").replace(":8000/", f":{port}/"))
    return file


def _started(file: Path, programs: Path, **variables: str) -> subprocess.Popen[str]:
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(file.parent), **variables}
    return subprocess.Popen(
        ["sh", str(file)], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _until(what: Callable[[], bool], started: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert started.poll() is None or what(), started.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def _answers(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_it_serves_until_it_is_told_to_end(
    export: Export, programs: Path, tmp_path: Path, engine: str
) -> None:
    port = _free_port()
    file = _script(export, tmp_path, port, "--engine", engine)
    started = _started(file, programs, SOONG_API_KEY=KEY)
    try:
        _until(lambda: _answers(port), started)
        words = (tmp_path / "words").read_text()
        environment = (tmp_path / "environment").read_text()
        assert KEY not in words
        if engine == "sglang":
            settings = Path(words.splitlines()[words.splitlines().index("--config") + 1])
            assert yaml.safe_load(settings.read_text()) == {"api-key": KEY}
            assert settings.stat().st_mode & 0o077 == 0
        else:
            name = {"vllm": "VLLM_API_KEY", "llama.cpp": "LLAMA_API_KEY"}[engine]
            assert f"{name}={KEY}\n" in environment
    finally:
        started.send_signal(signal.SIGTERM)
        _, err = started.communicate(timeout=PATIENCE_SECONDS)
    assert "the engine has ended" in err
    assert not _answers(port)


@pytest.mark.slow
def test_it_ends_in_time_and_runs_what_was_asked_for(export: Export, programs: Path, tmp_path: Path) -> None:
    port = _free_port()
    file = _script(export, tmp_path, port, "--engine", "vllm", "--hours", "0.001")
    began = time.monotonic()
    started = _started(file, programs, SOONG_API_KEY=KEY, SOONG_AT_END="echo gave the machine back")
    out, err = started.communicate(timeout=PATIENCE_SECONDS)
    assert time.monotonic() - began >= 3.6
    assert started.returncode == 0
    assert "ready:" in err
    assert "gave the machine back" in out


@pytest.mark.slow
def test_an_engine_that_fails_is_told_by_its_code(export: Export, programs: Path, tmp_path: Path) -> None:
    (programs / "vllm").write_text("#!/bin/sh\necho out of memory >&2\nexit 7\n")
    file = _script(export, tmp_path, _free_port(), "--engine", "vllm")
    _, err = (started := _started(file, programs, SOONG_API_KEY=KEY)).communicate(timeout=PATIENCE_SECONDS)
    assert started.returncode == 7
    assert "out of memory" in err
    assert "ready:" not in err


@pytest.mark.slow
def test_an_engine_that_never_answers_is_ended(export: Export, programs: Path, tmp_path: Path) -> None:
    (programs / "vllm").write_text("#!/bin/sh\nexec sleep 60\n")
    file = _script(export, tmp_path, _free_port(), "--engine", "vllm")
    text = file.read_text()
    deadline = (
        next(line for line in text.splitlines() if line.startswith("give_up=")).split("+ ")[-1].rstrip(")")
    )
    file.write_text(text.replace(deadline, "1"))
    started = _started(file, programs, SOONG_API_KEY=KEY)
    _, err = started.communicate(timeout=PATIENCE_SECONDS)
    assert "did not answer within 1 seconds" in err
    assert started.returncode != 0


@pytest.mark.parametrize(
    ("variables", "code", "word"),
    [
        ({}, 2, "SOONG_API_KEY"),
        ({"SOONG_API_KEY": ""}, 2, "SOONG_API_KEY"),
        ({"SOONG_API_KEY": "two words"}, 64, "only letters"),
        ({"SOONG_API_KEY": "-flag"}, 64, "only letters"),
        ({"SOONG_API_KEY": 'a"b'}, 64, "only letters"),
    ],
)
def test_without_a_good_key_nothing_starts(
    export: Export, programs: Path, tmp_path: Path, variables: dict[str, str], code: int, word: str
) -> None:
    file = _script(export, tmp_path, _free_port(), "--engine", "vllm")
    _, err = (started := _started(file, programs, **variables)).communicate(timeout=PATIENCE_SECONDS)
    assert started.returncode == code or (code == 2 and started.returncode == 1)
    assert word in err
    assert not (tmp_path / "words").exists()


def test_a_gated_model_wants_a_token(export: Export, programs: Path, tmp_path: Path) -> None:
    file = tmp_path / "serve.sh"
    file.write_text(export("shell", "llama-3.1-8b", "--gpu", "a6000-48gb").out)
    _, err = (started := _started(file, programs, SOONG_API_KEY=KEY)).communicate(timeout=PATIENCE_SECONDS)
    assert started.returncode != 0
    assert "HF_TOKEN" in err
    assert "accept the terms of https://huggingface.co/meta-llama" in err


def test_a_machine_with_too_few_gpus_is_refused(export: Export, programs: Path, tmp_path: Path) -> None:
    (programs / "nvidia-smi").write_text("#!/bin/sh\necho 0\n")
    file = _script(export, tmp_path, _free_port(), "--gpu-count", "2", "--tensor-parallel", "2")
    _, err = (started := _started(file, programs, SOONG_API_KEY=KEY)).communicate(timeout=PATIENCE_SECONDS)
    assert started.returncode == 69
    assert "this machine has 1 GPUs; the plan needs 2" in err


def test_a_machine_without_the_engine_is_refused(export: Export, programs: Path, tmp_path: Path) -> None:
    (programs / "vllm").unlink()
    file = _script(export, tmp_path, _free_port(), "--engine", "vllm")
    _, err = (started := _started(file, programs, SOONG_API_KEY=KEY)).communicate(timeout=PATIENCE_SECONDS)
    assert started.returncode == 69
    assert "pip install vllm==0.33.0" in err


@pytest.mark.parametrize("rank", ["0", "1"])
def test_each_machine_of_several_gets_its_number(
    export: Export, programs: Path, tmp_path: Path, rank: str
) -> None:
    """As LeaderWorkerSet runs it, under `sh -c`."""
    words = (
        "--gpu",
        "h100-80gb-sxm5",
        "--gpu-count",
        "16",
        "--tensor-parallel",
        "8",
        "--pipeline-parallel",
        "2",
    )
    text = export("kubernetes", "llama-3.1-70b", "--engine", "vllm", *words).out
    template = next(yaml.safe_load_all(text))["spec"]["leaderWorkerTemplate"]
    script = template["leaderTemplate" if rank == "0" else "workerTemplate"]["spec"]["containers"][0][
        "command"
    ][2]
    (programs / "vllm").write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{tmp_path}/words"\n')
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "TMPDIR": str(tmp_path),
        "SOONG_API_KEY": KEY,
        "LWS_WORKER_INDEX": rank,
        "LWS_LEADER_ADDRESS": "leader.example",
    }
    subprocess.run(["sh", "-c", script], env=environment, check=True)
    seen = (tmp_path / "words").read_text().split()
    assert seen[seen.index("--node-rank") + 1] == rank
    assert seen[seen.index("--master-addr") + 1] == "leader.example"
    assert ("--headless" in seen) == (rank == "1")


def test_a_composed_engine_that_ends_in_time_has_not_failed(
    export: Export, programs: Path, tmp_path: Path
) -> None:
    text = export("compose", "qwen2.5-7b", "--gpu", "a10-24gb", "--engine", "vllm", "--hours", "0.0003").out
    script = yaml.safe_load(text)["services"]["engine"]["command"][0].replace("$$", "$")
    (tmp_path / "SOONG_API_KEY").write_text(KEY)
    (programs / "vllm").write_text(f'#!/bin/sh\necho "$VLLM_API_KEY" > "{tmp_path}/words"\nexec sleep 30\n')
    ran = subprocess.run(
        ["sh", "-c", script.replace("/run/secrets", str(tmp_path))],
        env={"PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)},
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert ran.returncode == 0
    assert (tmp_path / "words").read_text().strip() == KEY


# --- vLLM's guard ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "header", "status"),
    [
        ("/health", b"", 200),
        ("/v1/models", b"Bearer " + KEY.encode(), 200),
        ("/invocations", b"Bearer " + KEY.encode(), 200),
        ("/invocations", b"", 401),
        ("/invocations", b"Bearer wrong", 401),
        ("/tokenize", KEY.encode(), 401),
        ("/health/../invocations", b"", 401),
        ("/metrics", b"", 401),
    ],
)
def test_vllm_lets_nobody_in_without_the_key(
    monkeypatch: pytest.MonkeyPatch, path: str, header: bytes, status: int
) -> None:
    monkeypatch.setenv("SOONG_API_KEY", KEY)
    sent: list[Any] = []

    async def engine(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", header)] if header else []
    guard = soong.exports.key_guard.KeyGuard(engine)
    asyncio.run(guard({"type": "http", "path": path, "headers": headers}, None, send))
    assert sent[0]["status"] == status


def test_vllm_closes_a_websocket_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOONG_API_KEY", KEY)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    guard = soong.exports.key_guard.KeyGuard(None)
    asyncio.run(guard({"type": "websocket", "path": "/v1/realtime", "headers": []}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_the_guard_that_is_written_out_can_be_imported(export: Export, tmp_path: Path) -> None:
    text = export("shell", "qwen2.5-7b", "--gpu", "a10-24gb", "--engine", "vllm").out
    file = tmp_path / "key_guard.py"
    file.write_text(text.split("<< 'PYTHON'\n")[1].split("PYTHON\n")[0])
    spec = importlib.util.spec_from_file_location("written_guard", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.KeyGuard.__doc__ == soong.exports.key_guard.KeyGuard.__doc__


# --- the lease of Kubernetes ----------------------------------------------------------------------------------------


class _Api(BaseHTTPRequestHandler):
    """Two calls of Kubernetes' API, and what was asked of them."""

    seen: list[tuple[str, str, str, bytes]]
    created: str

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, body: bytes = b"") -> None:
        self.seen.append((self.command, self.path, self.headers.get("Authorization", ""), body))
        data = json.dumps(
            {"metadata": {"creationTimestamp": self.created}, "spec": {"template": {}}}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self._answer()

    def do_PATCH(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))


@pytest.fixture
def api() -> Iterator[tuple[type[_Api], str]]:
    handler = type("Handler", (_Api,), {"seen": [], "created": ""})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def _lease(export: Export, tmp_path: Path, address: str, *words: str) -> subprocess.CompletedProcess[str]:
    documents = list(yaml.safe_load_all(export("kubernetes", "llama-3.1-70b", *words).out))
    job = next(document for document in documents if document["kind"] == "Job")
    script = job["spec"]["template"]["spec"]["containers"][0]["command"][2]
    for name, value in (("namespace", "models"), ("token", "the-token"), ("ca.crt", "")):
        (tmp_path / name).write_text(value)
    return subprocess.run(
        [
            "sh",
            "-c",
            script.replace("/var/run/secrets/kubernetes.io/serviceaccount", str(tmp_path)).replace(
                "sleep 5", "sleep 0.1"
            ),
        ],
        env={"PATH": os.environ["PATH"], "API": address},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )


@pytest.mark.slow
def test_the_lease_counts_from_its_creation_and_scales_to_zero(
    export: Export, tmp_path: Path, api: tuple[type[_Api], str]
) -> None:
    """A Job whose pod is started again an hour late does not begin anew."""
    handler, address = api
    handler.created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 3600))
    began = time.monotonic()
    ran = _lease(export, tmp_path, address, "--gpu", "gpu_8x_a100_80gb_sxm4", "--hours", "1.0003")
    assert ran.returncode == 0, ran.stderr
    assert time.monotonic() - began < 15
    asked, ended = handler.seen
    assert asked[:2] == ("GET", "/apis/batch/v1/namespaces/models/jobs/soong-llama-3-1-70b-lease")
    assert ended[:2] == ("PATCH", "/apis/apps/v1/namespaces/models/deployments/soong-llama-3-1-70b/scale")
    assert ended[2] == "Bearer the-token"
    assert json.loads(ended[3]) == {"spec": {"replicas": 0}}


@pytest.mark.slow
def test_the_lease_ends_a_set_of_machines(
    export: Export, tmp_path: Path, api: tuple[type[_Api], str]
) -> None:
    handler, address = api
    handler.created = "2026-01-01T00:00:00Z"
    words = (
        "--gpu",
        "h100-80gb-sxm5",
        "--gpu-count",
        "16",
        "--tensor-parallel",
        "8",
        "--pipeline-parallel",
        "2",
    )
    assert _lease(export, tmp_path, address, *words).returncode == 0
    path = "/apis/leaderworkerset.x-k8s.io/v1/namespaces/models/leaderworkersets/soong-llama-3-1-70b/scale"
    assert handler.seen[-1][:2] == ("PATCH", path)


def test_a_lease_that_does_not_know_its_beginning_ends_nothing(
    export: Export, tmp_path: Path, api: tuple[type[_Api], str]
) -> None:
    handler, address = api
    ran = _lease(export, tmp_path, address, "--gpu", "gpu_8x_a100_80gb_sxm4")
    assert ran.returncode == 1
    assert [asked[0] for asked in handler.seen] == ["GET"]


@pytest.mark.slow
def test_a_lease_that_cannot_ask_does_not_pretend(export: Export, tmp_path: Path) -> None:
    """It fails, so that Kubernetes starts it again."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        documents = list(yaml.safe_load_all(export("kubernetes", "qwen2.5-7b", "--gpu", "a10-24gb").out))
    job = next(document for document in documents if document["kind"] == "Job")
    script = job["spec"]["template"]["spec"]["containers"][0]["command"][2].replace("--retry 20", "--retry 0")
    for name in ("namespace", "token", "ca.crt"):
        (tmp_path / name).write_text("x")
    ran = subprocess.run(
        ["sh", "-c", script.replace("/var/run/secrets/kubernetes.io/serviceaccount", str(tmp_path))],
        env={"PATH": os.environ["PATH"], "API": address},
        capture_output=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert ran.returncode != 0
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "OnFailure"
