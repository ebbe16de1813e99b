"""The search around a plan, and what is said of the quality of what it finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import soong
from soong.models.catalogue import find_model
from soong.models.model import Format
from soong.offers.sources import offers_to_plan
from soong.plan.cheaper import CLEARLY_CHEAPER, cheaper_format
from soong.plan.document import plan_document
from soong.plan.planner import make_plan
from soong.plan.quality import NOTHING_LOST, kv_cache_loss, losses, weights_loss
from soong.plan.request import read_request
from soong.plan.searching import Alternative, alternatives

if TYPE_CHECKING:
    from soong.plan.plan import Plan


def plan(model: str, **options: Any) -> Plan:
    return soong.plan_model(model, allow_network=False, **options)


# ── quality is data ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("loss", losses(), ids=lambda loss: f"{loss.of}-{loss.format}")
def test_every_loss_has_a_range_a_source_and_a_day(loss: Any) -> None:
    assert 0 <= loss.least_percent <= loss.most_percent < 100
    assert len(loss.source) > 20
    assert loss.as_of == "2026-11-23"


def test_no_format_has_two_losses() -> None:
    keys = [(loss.of, loss.format) for loss in losses()]
    assert len(keys) == len(set(keys))


def test_the_authors_own_format_and_sixteen_bits_lose_nothing() -> None:
    gpt_oss, llama = find_model("gpt-oss-120b"), find_model("llama-3.1-8b")
    assert weights_loss(gpt_oss, gpt_oss.formats[0]) is NOTHING_LOST
    assert weights_loss(llama, llama.formats[0]) is NOTHING_LOST
    eight_bits = weights_loss(llama, Format(quantization="int8", repository="someone/else"))
    assert eight_bits is not None
    assert (eight_bits.least_percent, eight_bits.most_percent) == (1, 3)
    assert "arXiv:2411.02355" in eight_bits.source


def test_a_format_that_nobody_measured_is_not_guessed() -> None:
    llama = find_model("llama-3.1-8b")
    assert weights_loss(llama, Format(quantization="int3", repository="someone/else")) is None
    assert kv_cache_loss("auto") is NOTHING_LOST


# ── the search ───────────────────────────────────────────────────────────────────────────────────────


def test_the_same_model_in_awq_at_half_the_price() -> None:
    asked = plan("qwen2.5-coder-32b")
    found = alternatives(asked)
    assert asked.chosen
    assert asked.chosen.offer
    cheaper = [one for one in found if one.usd_per_hour <= asked.chosen.offer.usd_per_hour / 2]
    assert any("INT4" in one.label for one in cheaper)
    assert next(one for one in found if one.as_asked).candidate == asked.chosen


@pytest.mark.parametrize("model", ["llama-3.1-70b", "qwen3-32b", "gpt-oss-120b", "mistral-7b"])
@pytest.mark.parametrize("rank", ["price", "cost-per-token"])
def test_nothing_found_is_beaten_by_another(model: str, rank: str) -> None:
    asked = plan(model, rank=rank)
    found = alternatives(asked)
    assert sum(one.as_asked for one in found) == 1

    def cost(one: Any) -> float:
        return float(one.usd_per_hour if rank == "price" else one.candidate.usd_per_million_output_tokens)

    def loss(one: Any) -> float:
        return float("nan") if one.expected_loss_percent is None else float(one.expected_loss_percent)

    assert [cost(one) for one in found] == sorted(cost(one) for one in found)
    for one in found:
        for other in found:
            cheap, good = cost(other) <= cost(one), loss(other) <= loss(one)
            dominated = cheap and good and other.context_tokens >= one.context_tokens
            assert other is one or one.as_asked or not dominated, (one.words, other.words)


def test_what_is_found_is_what_its_own_plan_recommends() -> None:
    for one in alternatives(plan("llama-3.1-70b", quantization="bf16")):
        again = make_plan(one.request, allow_network=False)
        assert again.chosen == one.candidate
        words = dict(zip(one.words[1::2], one.words[2::2], strict=True))
        typed = {key.removeprefix("--").replace("-", "_"): value for key, value in words.items()}
        assert plan(one.words[0], **typed).chosen == one.candidate


def test_a_shorter_context_is_offered_only_where_it_is_cheaper() -> None:
    found = alternatives(plan("llama-3.1-8b", context="128k"))
    by_context = {one.context_tokens: one.usd_per_hour for one in found if one.label == "FP16"}
    for context, price in by_context.items():
        assert all(price < dearer for longer, dearer in by_context.items() if longer > context)


def test_stated_lengths_are_never_cut() -> None:
    found = alternatives(plan("llama-3.1-8b", context="32k", input_tokens=20_000, output_tokens=1_000))
    assert all(one.context_tokens >= 21_000 for one in found)


def test_a_named_gpu_is_tried_in_several_counts() -> None:
    found = alternatives(plan("llama-3.1-70b", gpu="a6000-48gb", quantization="bf16"))
    assert {one.candidate.gpu.id for one in found} == {"a6000-48gb"}
    assert len({one.candidate.gpu_count for one in found}) > 1


# ── the one line of advice ───────────────────────────────────────────────────────────────────────────


def test_advice_saves_a_quarter_and_equals_its_own_plan() -> None:
    asked = plan("qwen2.5-coder-32b")
    one = cheaper_format(asked)
    assert one is not None
    assert asked.chosen
    assert asked.chosen.offer
    assert one.usd_per_hour <= CLEARLY_CHEAPER * asked.chosen.offer.usd_per_hour
    assert make_plan(one.request, allow_network=False).chosen == one.candidate


def test_no_advice_where_nothing_is_clearly_cheaper_or_the_format_was_chosen() -> None:
    assert cheaper_format(plan("llama-3.1-70b")) is None
    assert cheaper_format(plan("qwen2.5-coder-32b", quantization="fp16")) is None


def test_advice_where_nothing_holds_what_was_asked() -> None:
    small = [offer for offer in offers_to_plan() if offer.instance_type == "gpu_1x_a6000"]
    asked = make_plan(plan("qwen2.5-coder-32b").request, offers=small, allow_network=False)
    assert asked.chosen is None
    one = cheaper_format(asked)
    assert one is not None
    assert one.candidate.name == "gpu_1x_a6000"


def test_the_json_of_a_search() -> None:
    asked = plan("qwen2.5-coder-32b")
    rows = plan_document(asked, alternatives(asked))["alternatives"]
    own = [row for row in rows if row["as_asked"]]
    assert len(own) == 1
    assert own[0]["weights_loss"]["most_percent"] == 0
    other = next(row for row in rows if "INT4" in row["quantization"])
    assert other["weights_loss"]["source"]
    assert other["candidate"]["offer"]["usd_per_hour"] > 0
    assert other["words"][0] == "qwen2.5-coder-32b-int4"


@pytest.mark.parametrize("options", [{}, {"context": 32768}, {"sequences": 4}])
def test_every_way_is_compared_under_the_plans_own_load(options: dict[str, Any]) -> None:
    """A speed for other lengths is another question, and a cost per token with it."""
    asked = plan("qwen3-32b", **options)
    for one in alternatives(asked):
        speed = one.candidate.throughput
        if speed is not None and one.context_tokens == asked.workload.context_tokens:
            assert (speed.load.input_tokens, speed.load.output_tokens) == (
                asked.load.input_tokens,
                asked.load.output_tokens,
            )


def test_the_words_of_a_way_ask_for_the_very_figures_shown() -> None:
    asked = plan("qwen2.5-coder-32b", sequences=2, max_price=20)
    others = [one for one in alternatives(asked) if not one.as_asked]
    assert others
    for one in others:
        again = plan(one.words[0], **_options(one.words[1:])).chosen
        assert again is not None
        assert again.name == one.candidate.name
        assert again.usd_per_million_output_tokens == one.candidate.usd_per_million_output_tokens


SAID: dict[str, Any] = {
    "gpu": "my-card",
    "gpu_memory": 85_899_345_921,
    "engine": "vllm",
    "memory_fraction": 0.8512345678,
    "kv_cache_memory": 21_474_836_480,
    "max_num_seqs": 48,
    "max_num_batched_tokens": 4096,
    "enforce_eager": True,
    "expert_parallel": True,
    "text_only": True,
    "spot": True,
    "cloud": "lambda,runpod",
    "max_price": 12.3456789,
    "requests": 300,
    "lengths": "same",
    "rank": "time",
    "target": 12.5,
}


def test_the_words_leave_out_nothing_that_was_said() -> None:
    """Each is an option of the command, and all together make the same request."""
    from soong.cli.plan import command

    asked = read_request({"model": "gpt-oss-20b", **SAID})
    machine = plan("gpt-oss-20b", gpu="h100-80gb-sxm5").candidates[0]
    words = Alternative(
        request=asked,
        label="",
        repository="",
        context_tokens=8192,
        candidate=machine,
        weights_loss=None,
        kv_cache_loss=None,
    ).words
    known = {word for option in command.params for word in option.opts}
    assert {word for word in words if word.startswith("--")} <= known
    assert read_request({"model": words[0], **_options(words[1:])}) == asked


def _options(words: tuple[str, ...]) -> dict[str, Any]:
    """Words as a person types them; a flag has no value."""
    found: dict[str, Any] = {}
    for word, after in zip(words, (*words[1:], "--"), strict=True):
        if word.startswith("--"):
            name = word.removeprefix("--").replace("-", "_")
            found[name] = True if after.startswith("--") else after
    return found
