"""The line that says what the engine will print, against what engines printed."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from soong.units import GIB

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Ended

    Soong = Callable[..., Ended]

ASKED = ("--gpu", "h100-80gb-sxm5", "--gpu-count", "1", "--context", "8192")
SWEEP = ("--engine", "vllm", "--engine-version", "0.19.0", "--memory-fraction", "0.95", *ASKED)


@pytest.mark.parametrize(
    ("model", "weights_gib", "pool_gib", "tokens", "concurrency"),
    [
        ("Qwen/Qwen3-8B", 15.27, 57.5, 418_688, 51.11),
        ("google/gemma-2-9b-it", 17.22, 54.12, 168_880, 20.6),
        ("microsoft/phi-4", 27.39, 46.08, 241_568, 29.49),
    ],
)
def test_vllm_s_lines(
    soong: Soong, model: str, weights_gib: float, pool_gib: float, tokens: int, concurrency: float
) -> None:
    """Start-up logs of vLLM 0.19.0 on an H100, as llm-d-planner published them."""
    shown = re.search(
        r"vllm will print: model ([\d.]+) GiB, KV cache ([\d.]+) GiB, ([\d,]+) tokens, ([\d.]+)x of 8,192",
        soong("plan", model, *SWEEP).out,
    )
    assert shown
    assert float(shown[1]) == pytest.approx(weights_gib, abs=0.02)
    assert float(shown[2]) == pytest.approx(pool_gib, rel=0.01)
    assert int(shown[3].replace(",", "")) == pytest.approx(tokens, rel=0.01)
    assert float(shown[4]) == pytest.approx(concurrency, rel=0.01)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llama.cpp"])
def test_the_line_is_the_document_s_figures(soong: Soong, engine: str) -> None:
    words = ("plan", "qwen3-8b", "--engine", engine, *ASKED)
    shown = soong(*words).out
    line = next(line for line in shown.splitlines() if line.startswith(f"{engine} will print"))
    found = json.loads(soong(*words, "--json").out)["candidates"][0]
    unit = GIB if engine != "llama.cpp" else 1 << 20
    assert f"{found['loaded_bytes_per_gpu'] / unit:,.2f} " in line
    if engine != "llama.cpp":
        assert str(found["kv_pool_tokens"]) in line.replace(",", "")


def test_what_does_not_start_prints_nothing(soong: Soong) -> None:
    assert "will print" not in soong("plan", "llama-3.1-405b", *ASKED).out
