"""From a file to a chat and a proved end, nothing pretended but the cloud: a real llama-server serves a real model.

The machine is one of the sandbox: reached by OpenSSH, begun by the boot script, watched by the warden, ended by the
cloud. Engine, gate, tunnel, guardian and client are the real ones. `make e2e` makes what this needs and runs it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest

from soong.launch import guarding
from tests.cli.rehearsal import Rehearsal, until
from tests.e2e import environment as needs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openai import OpenAI
    from openai.types.chat import ChatCompletionMessageParam

FOLDER = needs.folder_given() or Path("nowhere")
ENGINE = needs.environment_of(FOLDER)
MODEL = needs.model_of(FOLDER)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.real,
    pytest.mark.skipif(needs.folder_given() is None, reason="no engine and model: `make e2e` makes them"),
    pytest.mark.skipif(shutil.which("ssh") is None, reason="needs OpenSSH's client"),
]

SPEED = 60.0
"""A lease of seven hours is seven minutes: enough for a real engine to start on a busy computer."""
COMMAND_SECONDS = 240.0
QUESTION: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the capital of Germany?"},
    {"role": "assistant", "content": "The capital of Germany is Berlin."},
    {"role": "user", "content": "What is the capital of France?"},
]
"""The model is not tuned for chats: it goes on with what it sees."""


class Ended(NamedTuple):
    """How one command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.out)


class Person(Rehearsal):
    """Somebody at a terminal, with a sandbox."""

    port = 0

    def soong(self, *words: str) -> Ended:
        """One command, to its end."""
        process = self.spawn(*words)
        out, err = process.communicate(timeout=COMMAND_SECONDS)
        return Ended(process.returncode, out, err)

    def start(self, *more: str) -> Ended:
        self.port = free_port()
        return self.soong(*self.start_words("start", "--model", str(MODEL)), *more)

    def start_words(self, *begin: str) -> list[str]:
        self.port = self.port or free_port()
        fixed = ("--engine", "llama.cpp", "--cloud", "sandbox", "--context", "4096", "--hours", "7", "--yes")
        return [*begin, *fixed, "--engine-env", str(ENGINE), "--port", str(self.port)]

    def in_real_time(self) -> None:
        """From here on an hour of the lease is an hour."""
        self.running.ask("POST", "clock", {"speed": 1})

    def hurry(self) -> None:
        self.running.ask("POST", "clock", {"speed": 600})

    def is_left_alone(self) -> None:
        """Nothing of it is left on this computer, once the guardian has stayed as long as it does."""
        guardian = f"{self.home}/state/guardian/sandbox.nonce"
        long_ago = time.time() - guarding.LINGER_SECONDS - 1
        os.utime(guardian, (long_ago, long_ago))
        ends_at = time.monotonic() + 60
        while left := self.processes():
            assert time.monotonic() < ends_at, left
            time.sleep(0.1)


@pytest.fixture
def person(sealed: Path) -> Iterator[Person]:
    with Person(sealed, speed=SPEED) as somebody:
        yield somebody


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def status_of(url: str, key: str = "") -> int:
    """What a path answers; 0 where nobody does."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def environment_printed(person: Person) -> dict[str, str]:
    """What a shell gets from `eval "$(soong env)"`."""
    import subprocess

    printed = person.soong("env")
    assert printed.code == 0, printed.err
    names = ("OPENAI_BASE_URL", "OPENAI_API_KEY")
    script = printed.out + "".join(f'\nprintf "%s\\n" "${name}"' for name in names)
    shell = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True, env={})
    return dict(zip(names, shell.stdout.split(), strict=True))


def client_of(person: Person) -> OpenAI:
    """The client that most people use, with nothing but what soong prints."""
    from openai import OpenAI

    printed = environment_printed(person)
    return OpenAI(base_url=printed["OPENAI_BASE_URL"], api_key=printed["OPENAI_API_KEY"], timeout=60)


def answer_of(client: OpenAI) -> str:
    (model,) = client.models.list().data
    said = client.chat.completions.create(model=model.id, messages=QUESTION, temperature=0, max_tokens=12)
    return said.choices[0].message.content or ""


def test_from_a_file_to_a_chat_and_a_proved_stop(person: Person) -> None:
    begun = person.start()
    assert begun.code == 0, begun.out + begun.err
    person.in_real_time()
    (rental,) = person.soong("status", "--json").json["rentals"]
    assert rental["phase"] == "ready"

    client = client_of(person)
    assert str(client.base_url).startswith(f"http://127.0.0.1:{person.port}/")
    assert "Paris" in answer_of(client)

    (model,) = client.models.list().data
    arrived = []
    with client.chat.completions.create(
        model=model.id, messages=QUESTION, temperature=0, max_tokens=48, stream=True
    ) as stream:
        arrived = [time.monotonic() for chunk in stream if chunk.choices and chunk.choices[0].delta.content]
    assert len(arrived) > 4
    assert arrived[-1] - arrived[0] > 0.02, "all came at once: something on the way gathers the answer"

    root = str(client.base_url).removesuffix("/").removesuffix("/v1")
    for path in ("/v1/models", "/health", "/metrics", "/", "/slots", "/props"):
        assert status_of(root + path) == 401, path
        assert status_of(root + path, "sk-wrong") == 401, path
    assert status_of(f"{root}/health", client.api_key) == 200
    assert status_of(f"{root}/metrics", client.api_key) == 200

    logs = person.soong("logs")
    assert (logs.code, "gemma" in logs.out + logs.err) == (0, True), logs.err
    assert client.api_key not in begun.out + begun.err + logs.out + logs.err

    leads = f"-L 127.0.0.1:{person.port}:"
    (carrier,) = (number for number, words in person.processes().items() if leads in words)
    os.kill(carrier, signal.SIGKILL)
    until(lambda: "Paris" in quietly(client), 60)
    (tunnel,) = person.soong("tunnel", "status", "--json").json
    assert (tunnel["state"], tunnel["restarts"]) == ("up", 1)

    person.hurry()
    ended = person.soong("stop", "--yes", "--json")
    assert [one["confirmed"] for one in ended.json] == [True]
    assert person.alive == []
    until(lambda: status_of(f"{root}/health") == 0)
    person.is_left_alone()


def quietly(client: OpenAI) -> str:
    """An answer; empty while there is none."""
    from openai import APIConnectionError

    try:
        return answer_of(client.with_options(max_retries=0, timeout=20))
    except APIConnectionError:
        return ""


def test_run_gives_a_command_the_endpoint_and_returns_its_code(person: Person, tmp_path: Path) -> None:
    script, told = tmp_path / "ask.py", tmp_path / "told"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom openai import OpenAI\n"
        "client = OpenAI()\n(model,) = client.models.list().data\n"
        f"said = client.chat.completions.create(model=model.id, messages={QUESTION!r}, temperature=0, max_tokens=12)\n"
        f"Path({str(told)!r}).write_text(said.choices[0].message.content)\nsys.exit(7)\n"
    )
    words = person.start_words("run", str(MODEL))
    ended = person.soong(*words, "--", sys.executable, str(script))
    assert ended.code == 7, ended.out + ended.err
    assert "Paris" in told.read_text()
    assert person.alive == []
    person.is_left_alone()


def test_a_machine_that_nobody_uses_is_ended_and_one_that_is_used_is_not(person: Person) -> None:
    begun = person.start("--idle", "30m")
    assert begun.code == 0, begun.out + begun.err
    client = client_of(person)
    used_until = time.monotonic() + 45
    while time.monotonic() < used_until:
        assert "Paris" in answer_of(client)
        assert len(person.alive) == 1, "ended although it was used"
        time.sleep(3)
    until(lambda: person.alive == [], 150)
    until(lambda: [one.phase for one in person.ledger.rentals()] == ["ended"], 60)
    assert [one.end_reason for one in person.ledger.rentals()] == ["idle for 30 min"]
    person.is_left_alone()


def test_the_end_of_the_lease_stops_the_engine_and_the_meter_and_a_later_end_does_so_later(
    person: Person,
) -> None:
    begun = person.start()
    assert begun.code == 0, begun.out + begun.err
    person.in_real_time()
    client = client_of(person)
    root = str(client.base_url).removesuffix("/").removesuffix("/v1")
    assert person.soong("extend", "1", "--yes").code == 0

    person.skip(7)
    time.sleep(
        4
    )  # the warden looks every second, the guardian at once: whoever does not know of the later end, ends it
    assert "Paris" in answer_of(client)
    assert len(person.alive) == 1

    person.skip(1)
    until(lambda: not any("llama-server" in words for words in person.processes().values()), 60)
    person.hurry()
    until(lambda: person.alive == [], 120)
    until(lambda: [one.phase for one in person.ledger.rentals()] == ["ended"], 60)
    person.is_left_alone()
    assert status_of(root) == 0
