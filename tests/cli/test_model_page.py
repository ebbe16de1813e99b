"""The specification's page, command by command and message by message."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Ended

    Soong = Callable[..., Ended]

THE_SEVEN = {
    "llama-3.1-8b": 23.6,
    "qwen2.5-coder-32b-int4": 23.6,
    "qwen2.5-coder-32b": 76.4,
    "codellama-34b": 80.8,
    "deepseek-r1-70b": 44.5,
    "llama-3.1-70b": 44.5,
    "mistral-7b": 21.4,
}
"""The page's models and what its formula gives for each."""


def test_models_lists_the_seven_and_more(soong: Soong) -> None:
    ended = soong("models")
    assert ended.code == 0
    for column in ("Available Models", "ID", "Params", "Quant", "VRAM", "Min GPU"):
        assert column in ended.out
    rows = soong("models", "--json").json
    assert set(THE_SEVEN) <= {row["id"] for row in rows}
    assert len(rows) >= 67


def test_models_are_sorted_by_memory(soong: Soong) -> None:
    needs = [row["vram_bytes"] for row in soong("models", "--json").json]
    assert needs == sorted(needs)


def test_the_list_is_exact_for_every_built_in_model(soong: Soong) -> None:
    assert {row["basis"] for row in soong("models", "--json").json} <= {"config", "headers"}


@pytest.mark.parametrize(("model", "total_gb"), THE_SEVEN.items())
def test_the_rule_of_thumb_is_exact_to_the_formula(soong: Soong, model: str, total_gb: float) -> None:
    rule = soong("plan", model, "--json").json["rule_of_thumb"]
    assert rule["total_gb"] == pytest.approx(total_gb)
    assert rule["with_headroom_gb"] == pytest.approx(total_gb * 1.1)


def test_info_shows_every_section_of_the_page(soong: Soong) -> None:
    ended = soong("models", "info", "deepseek-r1-70b")
    assert ended.code == 0
    for text in (
        "DeepSeek-R1 70B",
        "HuggingFace Path: deepseek-ai/DeepSeek-R1-Distill-Llama-70B",
        "Parameters: 70",
        "Quantization: INT4",
        "Context Length: 8,192 tokens",
        "VRAM Breakdown:",
        "35.0 GB",
        "4.0 GB",
        "2.0 GB",
        "3.5 GB",
        "Total estimated",
        "44.5 GB",
        "With 10% headroom",
        "49.0 GB",
        "Recommended GPU:",
        "Price: $",
        "Good for:",
        "• Complex multi-step reasoning",
        "• Debugging difficult issues",
        "• Architecture decisions",
        "• Code review with explanations",
        "Not good for:",
        "• Simple/quick tasks (overkill)",
        "Notes: Chain-of-thought reasoning. Slower but more accurate.",
    ):
        assert text in ended.out, text


def test_int4_is_served_from_a_repository_that_holds_int4(soong: Soong) -> None:
    plan = soong("models", "info", "deepseek-r1-70b", "--json").json["plan"]
    assert plan["model"]["weights_bytes"] < 45e9
    argv = next(row["engine_argv"] for row in plan["candidates"] if row["engine_argv"])
    assert "casperhansen/deepseek-r1-distill-llama-70b-awq" in argv


def test_coder_32b_in_16_bit_does_not_fit_an_a6000(soong: Soong) -> None:
    ended = soong("plan", "qwen2.5-coder-32b", "--gpu", "gpu_1x_a6000", "--json")
    assert ended.code == 5
    assert ended.json["candidates"][0]["verdict"] == "too-small"


def test_a_gpu_that_is_too_small_gets_the_pages_warning(soong: Soong) -> None:
    ended = soong("plan", "qwen2.5-coder-32b", "--gpu", "gpu_1x_a10")
    assert ended.code == 5
    assert re.search(r"Warning: Selected GPU has 24GB but model needs ~7\dGB", ended.out)
    assert "--quantization int4" not in ended.out  # 4 bits at the same context need more than 24 GB too


def test_a_gpu_that_holds_it_in_4_bits_gets_the_page_s_other_way(soong: Soong) -> None:
    ended = soong("plan", "qwen2.5-coder-32b", "--gpu", "gpu_1x_a6000", "--context", "32k")
    hint = re.search(r"hint: soong (plan .* --quantization int4)", ended.out)
    assert hint
    assert soong(*hint[1].split()).code == 0


def test_every_option_has_a_variable(soong: Soong, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOONG_PLAN_ENGINE", "vllm")
    assert soong("plan", "mistral-7b", "--json").json["engine"]["name"] == "vllm"


def test_compare_answers_the_pages_comparison(soong: Soong) -> None:
    ended = soong("models", "compare")
    assert ended.code == 0
    for text in ("Best for", "Strengths", "Weaknesses", "Use when", "deepseek-r1-70b", "llama-3.1-8b"):
        assert text in ended.out


def test_add_by_flags_says_what_the_formula_gives(soong: Soong) -> None:
    ended = _add(soong)
    assert ended.code == 0, ended.err
    assert "Estimated VRAM: 32.4 GB" in ended.out
    assert "Minimum GPU: 40 GB" in ended.out
    assert "Model 'mistral-nemo-12b' added successfully!" in ended.out
    row = next(row for row in soong("models", "--json").json if row["id"] == "mistral-nemo-12b")
    assert row["basis"] == "rule-of-thumb"
    assert "~" in next(line for line in soong("models").out.splitlines() if "mistral-nemo-12b" in line)


def _add(soong: Soong, *more: str) -> Ended:
    return soong(
        "models",
        "add",
        "--name",
        "mistral-nemo-12b",
        "--hf-path",
        "mistralai/Mistral-Nemo-Instruct-2407",
        "--params",
        "12",
        "--quantization",
        "fp16",
        "--context",
        "128000",
        *more,
    )


def test_remove_needs_a_yes_without_a_terminal(soong: Soong) -> None:
    _add(soong)
    refused = soong("models", "remove", "mistral-nemo-12b")
    assert refused.code == 2
    assert "--yes" in refused.err
    removed = soong("models", "remove", "mistral-nemo-12b", "--yes")
    assert removed.code == 0
    assert "mistral-nemo-12b" not in soong("models", "-q").out.split()


def test_built_in_models_cannot_be_removed(soong: Soong) -> None:
    ended = soong("models", "remove", "deepseek-r1-70b", "--yes")
    assert ended.code == 2
    assert "built-in" in ended.err


def test_built_in_names_cannot_be_added(soong: Soong) -> None:
    ended = soong(
        "models",
        "add",
        "--name",
        "llama-3.1-8b",
        "--hf-path",
        "a/b",
        "--params",
        "1",
        "--quantization",
        "fp16",
        "--context",
        "2048",
    )
    assert ended.code == 2


def test_an_unknown_model_gets_the_pages_words(soong: Soong) -> None:
    ended = soong("plan", "custom-model")
    assert ended.code == 4
    assert "Model 'custom-model' not found." in ended.err
    assert "Use 'soong models' to see available models." in ended.err


def test_a_near_miss_gets_a_suggestion(soong: Soong) -> None:
    assert "llama-3.1-8b" in soong("models", "info", "lama-3.1-8b").err


def test_an_invalid_quantization_gets_the_pages_words(soong: Soong) -> None:
    ended = soong(
        "models",
        "add",
        "--name",
        "m",
        "--hf-path",
        "a/b",
        "--params",
        "1",
        "--quantization",
        "fp8",
        "--context",
        "1k",
    )
    assert ended.code == 2
    assert "Invalid quantization 'fp8'. Must be one of: fp32, fp16, int8, int4" in ended.err


@pytest.mark.parametrize("params", ["-3", "0", "nan", "inf", "1e30", "many"])
def test_absurd_sizes_are_refused(soong: Soong, params: str) -> None:
    ended = soong(
        "models",
        "add",
        "--name",
        "m",
        "--hf-path",
        "a/b",
        f"--params={params}",
        "--quantization",
        "fp16",
        "--context",
        "1k",
    )
    assert ended.code == 2
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("words", "model"),
    [
        (("--task", "reasoning"), "deepseek-r1-70b"),
        (("--task", "coding", "--context", "32k", "--quality", "high"), "qwen2.5-coder-32b"),
        (("--task", "coding", "--context", "32k", "--quality", "budget"), "qwen2.5-coder-32b-int4"),
        (("--task", "coding"), "qwen2.5-coder-32b-int4"),
        (("--task", "general"), "llama-3.1-70b"),
        (("--task", "quick"), "llama-3.1-8b"),
    ],
)
def test_recommend_follows_the_pages_decision_tree(soong: Soong, words: tuple[str, ...], model: str) -> None:
    ended = soong("recommend", *words, "--json")
    assert ended.code == 0, ended.err
    assert ended.json[0]["model"] == model


def test_recommend_keeps_to_the_budget(soong: Soong) -> None:
    for row in soong("recommend", "--task", "general", "--budget", "1.50", "--json").json:
        assert row["usd_per_hour"] <= 1.5


def test_recommend_knows_its_tasks(soong: Soong) -> None:
    ended = soong("recommend", "--task", "codin")
    assert ended.code in {2, 4}
    assert "coding" in ended.err


def test_recommend_asks_only_a_person(soong: Soong) -> None:
    ended = soong("recommend")
    assert ended.code == 2
    assert "--task" in ended.err
