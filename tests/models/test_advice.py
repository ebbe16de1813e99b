"""The decision tree and matrix of the model page, question by question."""

from __future__ import annotations

import math

import pytest

from soong.errors import UsageError
from soong.models import advice, catalogue

TREE = [
    ("reasoning", None, None, "deepseek-r1-70b"),
    ("reasoning", 32_768, "budget", "deepseek-r1-70b"),
    ("coding", 32_768, "high", "qwen2.5-coder-32b"),
    ("coding", 32_768, "budget", "qwen2.5-coder-32b-int4"),
    ("coding", 8_192, "high", "qwen2.5-coder-32b-int4"),
    ("coding", 8_192, None, "qwen2.5-coder-32b-int4"),
    ("coding", None, None, "qwen2.5-coder-32b-int4"),
    ("general", None, None, "llama-3.1-70b"),
    ("quick", None, None, "llama-3.1-8b"),
]

MATRIX = {
    "Debugging hard issue": "deepseek-r1-70b",
    "Refactoring large files": "qwen2.5-coder-32b",
    "Budget coding": "qwen2.5-coder-32b-int4",
    "Documentation writing": "llama-3.1-70b",
    "Quick code fix": "llama-3.1-8b",
}


@pytest.mark.parametrize(("task", "context_tokens", "quality", "expected"), TREE)
def test_the_tree(task: str, context_tokens: int | None, quality: str | None, expected: str) -> None:
    answer = advice.recommend(task, context_tokens=context_tokens, quality=quality)
    assert answer.models[0] == expected
    assert answer.reason.endswith(".")
    assert answer.scenario is not None
    assert answer.scenario.model == expected


def test_the_matrix() -> None:
    assert {row.scenario: row.model for row in advice.scenarios()} == MATRIX


@pytest.mark.parametrize("row", advice.scenarios(), ids=lambda row: row.scenario)
def test_the_tree_and_the_matrix_agree(row: advice.Scenario) -> None:
    answer = advice.recommend(row.task, context_tokens=row.context_tokens, quality=row.quality)
    assert answer.models[0] == row.model
    assert answer.scenario == row


def test_32k_is_long_whether_decimal_or_binary() -> None:
    for context_tokens in (32_000, 32_768):
        assert (
            advice.recommend("coding", context_tokens=context_tokens, quality="high").models[0]
            == "qwen2.5-coder-32b"
        )


def test_high_quality_carries_the_cheaper_way_out() -> None:
    answer = advice.recommend("coding", context_tokens=32_768, budget_usd_per_hour=0.8)
    assert answer.models == ("qwen2.5-coder-32b", "qwen2.5-coder-32b-int4")


def test_every_named_model_exists() -> None:
    for rule in advice.rules():
        for name in rule.models:
            assert rule.task in catalogue.find_model(name).tasks


def test_alternatives_are_for_the_task_and_hold_the_context() -> None:
    answer = advice.recommend("coding", context_tokens=200_000)
    assert not answer.holds_context
    assert answer.alternatives
    assert not set(answer.alternatives) & set(answer.models)
    for name in answer.alternatives:
        model = catalogue.find_model(name)
        assert "coding" in model.tasks
        assert (model.context_limit_tokens or 0) >= 200_000


def test_unknown_words_are_answered_with_what_was_meant() -> None:
    with pytest.raises(UsageError) as caught:
        advice.recommend("resoning")
    assert (
        caught.value.message == "Invalid task 'resoning'. Must be one of: reasoning, coding, general, quick"
    )
    assert caught.value.hints == ("did you mean `reasoning`?",)
    with pytest.raises(UsageError, match="Invalid quality"):
        advice.recommend("coding", quality="best")


@pytest.mark.parametrize(("context_tokens", "budget"), [(0, None), (-1, None), (None, 0.0), (None, math.nan)])
def test_numbers_must_be_positive(context_tokens: int | None, budget: float | None) -> None:
    with pytest.raises(UsageError, match="more than zero"):
        advice.recommend("coding", context_tokens=context_tokens, budget_usd_per_hour=budget)
