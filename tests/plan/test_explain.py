"""The opened arithmetic of the cache: its lines are what the engine keeps on this GPU, and add up."""

from __future__ import annotations

import re

import pytest

import soong
from soong.plan.explain import explain


def figure(text: str, pattern: str) -> int:
    return sum(int(found.replace(",", "")) for found in re.findall(pattern, text))


@pytest.mark.parametrize(
    ("model", "engine", "gpu", "gpu_count"),
    [
        ("glm-5.2", "vllm", "b200-180gb", 8),  # entries of 576 bytes on Blackwell
        ("glm-5.2", "vllm", "h200-141gb-sxm5", 8),
        ("deepseek-v3.2", "sglang", "b200-180gb", 8),
        ("qwen3.5-27b", "sglang", "b200-180gb", 1),
        ("qwen3-8b", "vllm", "l4-24gb", 1),
    ],
)
def test_the_kinds_of_layers_add_up_to_one_token(model: str, engine: str, gpu: str, gpu_count: int) -> None:
    plan = soong.plan_model(model, engine=engine, gpu=gpu, gpu_count=gpu_count, allow_network=False)
    shown = "\n".join(explain(plan, plan.candidates[0]))
    of_kinds = figure(shown, r"layers × [\d,]+ bytes a token = ([\d,]+)")
    assert of_kinds == figure(shown, r"one more token +([\d,]+) bytes") > 0
