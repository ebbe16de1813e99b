"""A real model on this computer, from its file to a chat and a proved end."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from soong.clouds.local import processes
from soong.clouds.local.provider import open_provider
from tests.cli.conftest import soong
from tests.clouds.local.test_life import a_computer_without_gpus
from tests.e2e import environment as needs

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Ended

__all__ = ["a_computer_without_gpus", "soong"]

FOLDER = needs.folder_given() or Path("nowhere")
ENGINE = needs.environment_of(FOLDER)
MODEL = needs.model_of(FOLDER)
PROMPT = "The capital of Germany is Berlin. The capital of Italy is Rome. The capital of France is"


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.skipif(needs.folder_given() is None, reason="no engine and model: `make e2e` makes them")
def test_a_file_is_served_from_where_it_lies(soong: Callable[..., Ended]) -> None:
    begun = soong(
        "start", "--model", str(MODEL), "--cloud", "local", "--context", "2048", "--engine-env", str(ENGINE), "--yes"
    )  # fmt: skip
    assert begun.code == 0, begun.err
    words = [line.removeprefix("export ").partition("=") for line in soong("env").out.splitlines()]
    told = {name: value.strip("'\"") for name, _, value in words}
    assert "Paris" in _answer(told["OPENAI_BASE_URL"], told["OPENAI_API_KEY"])
    with pytest.raises(urllib.error.HTTPError) as refused:
        _answer(told["OPENAI_BASE_URL"], "not-the-key")
    refused.value.close()
    assert refused.value.code == 401
    (machine,) = open_provider().instances()
    assert len(processes.living(machine.id)) >= 3, "boot, gate and engine"
    assert soong("stop", "--yes").code == 0
    assert not processes.living(machine.id)
    assert MODEL.exists()
    with pytest.raises(urllib.error.URLError, match="refused"):
        _answer(told["OPENAI_BASE_URL"], told["OPENAI_API_KEY"])


def _answer(url: str, key: str) -> str:
    body = {"model": "any", "max_tokens": 16, "temperature": 0, "prompt": PROMPT}
    request = urllib.request.Request(
        f"{url}/completions",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["choices"][0]["text"])
