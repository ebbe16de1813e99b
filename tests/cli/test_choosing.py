"""What a person sees of a choice: the rows, the columns that fit, the marks, and the sentences below."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Ended

    Soong = Callable[..., Ended]


def rows(shown: str) -> list[str]:
    """The first column of the first table."""
    table = shown.partition("├")[2].partition("└")[0]
    return [line.split("│")[1].strip() for line in table.splitlines() if line.startswith("│")]


def test_dominated_rows_are_folded_and_all_shows_them(soong: Soong) -> None:
    folded, everything = soong("plan", "llama-3.1-8b").out, soong("plan", "llama-3.1-8b", "--all").out
    plan = soong("plan", "llama-3.1-8b", "--json").json
    assert "dominated rows folded" in folded
    assert "--all shows them" in folded
    assert "folded" not in everything
    assert len(rows(everything)) == len(plan["candidates"])
    front = {plan["candidates"][index]["offer"]["instance_type"] for index in plan["front"]}
    assert front <= {row.removeprefix("▶ ") for row in rows(folded)}


@pytest.mark.parametrize("columns", ["80", "100", "140"])
@pytest.mark.parametrize(
    "words",
    [
        ("plan", "llama-3.1-8b"),
        ("plan", "llama-3.1-70b", "--search"),
        ("plan", "qwen3-32b", "--rank", "time", "--target", "20", "--all"),
        ("recommend", "--task", "coding", "--rank", "cost-per-token"),
    ],
    ids=" ".join,
)
def test_tables_fit_the_terminal(
    soong: Soong, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    shown = soong(*words).out
    lines = [line for line in shown.splitlines() if line[:1] in "┌│└"]
    assert lines
    assert max(map(len, lines)) <= int(columns)
    assert "tok/s" in shown
    assert "$/M out" in shown


def test_a_speed_has_a_range_a_load_and_what_it_rests_on(soong: Soong) -> None:
    shown = soong("plan", "llama-3.1-8b", "--sequences", "4").out
    line = next(line for line in shown.splitlines() if line.startswith("Speed:"))
    assert " to " in line
    assert "for all 4" in line
    assert "1,024 tokens in, 1,024 out" in shown
    assert "roofline" in shown


def test_a_searched_batch_is_a_column_and_is_said(soong: Soong) -> None:
    shown = soong("plan", "llama-3.1-8b", "--rank", "cost-per-token").out
    assert "Batch" in shown
    assert "the largest that memory holds" in shown
    assert "Recommended, cheapest per token" in shown


def test_a_target_out_of_reach_shows_the_fastest_and_ends_with_5(soong: Soong) -> None:
    ended = soong("plan", "llama-3.1-70b", "--target", "1000")
    assert ended.code == 5
    assert "too slow" in ended.out
    assert "Nothing that fits gives each user 1000 tokens/s. The fastest: gpu_8x_b200_sxm6" in ended.out


def test_a_job_has_its_time_and_its_bill(soong: Soong) -> None:
    shown = soong("plan", "llama-3.1-8b", "--job-tokens", "10M").out
    line = next(line for line in shown.splitlines() if line.startswith("Job:"))
    assert line.startswith("Job: 10,000,000 output tokens in ")
    assert "$" in line


def test_price_only_rows_are_marked_and_the_better_one_is_named(soong: Soong) -> None:
    shown = soong("plan", "llama-3.1-8b", "--cloud", "all").out
    assert "† price only" in shown
    assert "Better, price only: " in shown
    assert "soong export" in shown
    assert "Recommended: gpu_1x_a6000" in shown


def test_one_piece_of_advice_with_its_source_and_command(soong: Soong) -> None:
    shown = soong("plan", "qwen2.5-coder-32b").out
    assert "Cheaper: the same model in INT4 (AWQ) fits gpu_1x_a6000" in shown
    assert "half the price" in shown
    assert "arXiv:2411.02355" in shown
    words = shown.strip().splitlines()[-1].split()
    assert words[:2] == ["soong", "plan"]
    assert "Recommended: gpu_1x_a6000" in soong(*words[1:]).out


def test_a_search_is_for_one_model(soong: Soong) -> None:
    ended = soong("plan", "--batch", "-", "--search")
    assert ended.code == 2
    assert "--search" in ended.err


def test_recommend_ranks_by_what_matters(soong: Soong) -> None:
    found = soong("recommend", "--task", "general", "--rank", "cost-per-token", "--json").json[1:]
    costs = [row["usd_per_million_output_tokens"] for row in found]
    assert costs == sorted(costs)
    assert all(row["sequences"] > 1 for row in found)


def test_start_plans_by_the_target(soong: Soong) -> None:
    ended = soong("start", "--model", "llama-3.1-8b", "--target", "100", "--dry-run", "--cloud", "sandbox")
    assert ended.code == 0, ended.err
    assert rows(ended.out)[0].endswith("gpu_1x_gh200")
    assert "gpu_1x_a6000" not in ended.out
