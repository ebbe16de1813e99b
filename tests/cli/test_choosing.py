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


def test_every_price_shown_has_a_day_and_old_ones_their_age(soong: Soong) -> None:
    shown = soong("plan", "qwen3-32b", "--cloud", "all", "--all").out
    line = next(line for line in shown.splitlines() if line.startswith("Prices: "))
    plan = soong("plan", "qwen3-32b", "--cloud", "all", "--json").json
    offers = [one["offer"] for one in plan["candidates"] if one["offer"]]
    assert all(f"{offer['cloud']} " in line for offer in offers)
    assert "days old" in line
    assert any(offer["stale"] and offer["age_days"] > 30 for offer in offers)


def test_money_and_totals_have_a_range_too(soong: Soong) -> None:
    shown = soong("plan", "llama-3.1-8b", "--sequences", "4", "--job-tokens", "5M").out
    line = next(line for line in shown.splitlines() if line.startswith("Speed:"))
    assert line.count(" to ") == 4
    assert " to " in next(line for line in shown.splitlines() if line.startswith("Job:"))


def test_a_target_that_the_slow_end_misses_says_what_to_ask_for(soong: Soong) -> None:
    shown = soong("plan", "qwen3-32b", "--target", "40").out
    safe = shown.partition("--target ")[2].split()[0]
    again = soong("plan", "qwen3-32b", "--target", safe, "--json").json
    speed = again["candidates"][again["choice"]]["throughput"]
    assert speed["decode_tokens_per_second_per_user"] * speed["low_factor"] >= 39.5


def test_gpus_of_several_machines_are_told_as_such(soong: Soong) -> None:
    several = soong("plan", "kimi-k2", "--gpu", "h200", "--gpu-count", "16").out
    assert "2 machines" in several
    assert "--nnodes" in several
    assert "machines, as one has" not in soong("plan", "kimi-k2", "--gpu", "b200", "--gpu-count", "8").out


def test_small_machines_are_not_a_page_of_their_own(soong: Soong) -> None:
    shown = rows(soong("plan", "kimi-k2").out)
    assert len(shown) < 12
    assert any(row.startswith("▶") for row in shown)


def test_the_arithmetic_has_the_speed_and_the_price_of_a_token(soong: Soong) -> None:
    shown = soong("plan", "qwen3-32b", "--sequences", "8", "--explain").out
    line = next(line for line in shown.splitlines() if "a million output tokens: $" in line)
    price, rate = line.partition("$")[2].split()[0], line.partition("÷ (")[2].split()[0]
    cost = float(line.rpartition("$")[2])
    assert float(price) / (float(rate.replace(",", "")) * 3600) * 1e6 == pytest.approx(cost, rel=0.01)


@pytest.mark.parametrize(
    ("rank", "figure"), [("cost-per-token", "usd_per_million_output_tokens"), ("time", "job_hours")]
)
def test_a_recommendation_is_the_best_by_the_rank_that_was_asked_for(
    soong: Soong, rank: str, figure: str
) -> None:
    found = soong("recommend", "--task", "coding", "--rank", rank, "--json").json
    figures = [one[figure] for one in found]
    assert figures == sorted(figures)


def test_a_card_that_is_too_small_is_not_told_a_format_that_would_not_help(soong: Soong) -> None:
    assert "--quantization int4" not in soong("plan", "kimi-k2", "--gpu", "rtx4090").out
    larger = soong("plan", "qwen3-32b", "--gpu", "l40s-48gb", "--context", "32k").out
    assert "has 48GB but model needs ~45GB" not in larger


@pytest.mark.parametrize(
    ("rank", "figure"),
    [("price", "usd_per_hour"), ("cost-per-token", "usd_per_million_output_tokens"), ("time", "job_hours")],
)
def test_any_task_means_the_whole_catalogue_in_every_format(soong: Soong, rank: str, figure: str) -> None:
    found = soong("recommend", "--task", "any", "--rank", rank, "--cloud", "all", "--json").json
    figures = [one[figure] for one in found]
    assert figures == sorted(figures)
    assert len({one["model"] for one in found}) == len(found) == 9
    best = found[0]
    words = ("plan", best["model"], "--quantization", best["quantization"], "--rank", rank, "--cloud", "all")
    plan = soong(*words, "--json").json
    first = next(one for one in plan["candidates"] if one["verdict"] == "fits")
    assert first["offer"]["instance_type"] == best["instance_type"]


def test_any_task_names_the_format_to_plan_next(soong: Soong) -> None:
    shown = soong("recommend", "--task", "any", "--rank", "cost-per-token").out
    assert shown.startswith("At any task: ")
    assert "Format" in shown
    assert "--quantization" in shown.splitlines()[-1]


def test_a_recommendation_is_refused_for_a_cloud_that_nobody_knows(soong: Soong) -> None:
    ended = soong("recommend", "--task", "coding", "--cloud", "nowhere")
    assert ended.code == 4
    assert "nowhere" in ended.err


def test_a_job_is_done_by_as_many_at_once_as_the_machine_runs(soong: Soong) -> None:
    """Not one answer after the other, which nobody would rent a machine for."""
    plan = soong("plan", "qwen3-32b", "--job-tokens", "10M", "--json").json
    chosen = plan["candidates"][plan["choice"]]
    assert chosen["throughput"]["sequences"] > 8
    assert chosen["job"]["hours"] < 48
    assert "the queue included" in soong("plan", "qwen3-32b", "--job-tokens", "10M").out


def test_users_who_wait_do_not_see_the_target(soong: Soong) -> None:
    words = ("plan", "llama-3.1-8b", "--gpu", "h100-80gb-sxm5", "--engine", "vllm", "--context", "2000")
    lengths = ("--input-tokens", "1000", "--output-tokens", "1000", "--sequences", "512")
    shown = soong(*words, *lengths).out
    assert " of 512 wait for their turn" in shown
    found = soong(*words, *lengths, "--target", "10", "--json").json["candidates"][0]
    assert found["throughput"]["decode_tokens_per_second_per_user"] > 10
    assert found["meets_target"] is False
    assert any("of 512 at once; the others wait" in reason for reason in found["reasons"])


def test_where_clouds_are_named_a_recommendation_is_the_best_of_them(soong: Soong) -> None:
    """A price only is a price too: the cheapest of all clouds is not the cheapest of Lambda's."""
    ours = soong("recommend", "--task", "any", "--json").json[0]
    all_of_them = soong("recommend", "--task", "any", "--cloud", "all", "--json").json[0]
    runpod = soong("recommend", "--task", "any", "--cloud", "runpod", "--json").json[0]
    assert all_of_them["usd_per_hour"] <= min(ours["usd_per_hour"], runpod["usd_per_hour"])
    assert (ours["launchable"], all_of_them["launchable"]) == (True, False)
    assert "† price only" in soong("recommend", "--task", "any", "--cloud", "all").out


def test_what_follows_a_recommendation_asks_for_the_same(soong: Soong) -> None:
    words = ("recommend", "--task", "coding", "--budget", "1.5", "--context", "8k", "-v")
    line = next(line for line in soong(*words).out.splitlines() if line.startswith("Next: "))
    assert "--max-price 1.5" in line
    assert "--context 8192" in line
    assert "--verbose" not in line
    assert soong(*line.removeprefix("Next: soong ").split()).code == 0


def test_any_is_a_task_without_a_quality(soong: Soong) -> None:
    assert soong("recommend", "--task", "any", "--quality", "high").code == 2
    assert "--task any" in soong("recommend", "--task", "bogus").err


def test_the_first_token_has_the_range_that_was_measured_or_a_wide_one(soong: Soong) -> None:
    few, many = (
        soong("plan", "qwen3-32b", "--sequences", count, "--json").json["load"]["first_token_factors"]
        for count in ("1", "64")
    )
    assert few[0] < 1 < few[1]
    assert many == [0.5, 2.0]
    assert many[0] < few[0]
    searched = soong("plan", "qwen3-32b", "--target", "20", "--json").json["load"]
    assert searched["first_token_factors"] is None
