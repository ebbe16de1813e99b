"""Encoders, rerankers and reward models: what an engine keeps of a text, and what of its speed means anything."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from soong.cli.views import plan as view
from soong.errors import UsageError
from soong.gpus.catalogue import find_gpu
from soong.memory.engines import _facts, _vllm_graphs
from soong.memory.engines._constants import engine_tables, rules
from soong.memory.engines._facts import Facts
from soong.models.answers import writes_text
from soong.models.architecture import AttentionCache
from soong.models.resolve import resolve
from soong.plan.candidates import served_model, settings_for
from soong.plan.document import plan_document
from soong.plan.plan import Plan
from soong.plan.planner import make_plan
from soong.plan.request import read_request

BGE_M3 = {
    "architectures": ["XLMRobertaModel"], "model_type": "xlm-roberta", "hidden_size": 1024, "intermediate_size": 4096,
    "num_hidden_layers": 24, "num_attention_heads": 16, "vocab_size": 250002, "max_position_embeddings": 8194,
    "type_vocab_size": 1, "torch_dtype": "float32",
}  # fmt: skip
QWEN3 = {
    "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151669,
    "max_position_embeddings": 32768, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
}  # fmt: skip


@pytest.fixture
def planned(tmp_path: Path) -> Any:
    def plan(config: dict[str, Any], **options: Any) -> Plan:
        (tmp_path / "config.json").write_text(json.dumps(config))
        asked = {"model": str(tmp_path), "engine": "vllm", "gpu": "l4-24gb", **options}
        return make_plan(read_request(asked), allow_network=False)

    return plan


@pytest.mark.parametrize(
    ("name", "writes"),
    [
        ("Qwen3ForCausalLM", True),
        ("Qwen2_5_VLForConditionalGeneration", True),
        ("ChatGLMModel", True),
        ("InternVLChatModel", True),
        ("GPT2LMHeadModel", True),
        ("UltravoxModel", True),
        ("Qwen2_5OmniModel", True),
        ("MistralModel", True),
        ("Qwen3Model", False),
        ("BertModel", False),
        ("Qwen3ForSequenceClassification", False),
        ("BertForTokenClassification", False),
        ("InternLM2ForRewardModel", False),
        ("Qwen2ForProcessRewardModel", False),
        ("RobertaForMaskedLM", False),
        ("ColPaliForRetrieval", False),
    ],
)
def test_the_class_tells_what_a_model_answers_with(name: str, *, writes: bool) -> None:
    """As vLLM 0.33 resolved `--runner auto` for each of these classes."""
    some = resolve("qwen3-8b", allow_network=False).architecture
    assert some is not None
    assert writes_text(msgspec.structs.replace(some, name=name)) is writes
    assert not writes_text(msgspec.structs.replace(some, caches=()))


def test_an_encoder_keeps_nothing_and_reads(planned: Any) -> None:
    """vLLM makes no pool and profiles nothing where no layer has a cache: v1/engine/core.py _initialize_kv_caches."""
    plan = planned(BGE_M3)
    one = plan.candidates[0]
    footprint = one.footprint
    assert one.verdict == "fits"
    assert (footprint.kv_pool_bytes, footprint.kv_pool_tokens, footprint.workload_kv_bytes) == (0, None, 0)
    assert footprint.max_sequences == 256
    assert footprint.free_bytes > 15 << 30
    assert one.throughput is None
    told = plan_document(plan)
    assert told["model"]["writes_text"] is False
    speed = told["candidates"][0]["throughput"]
    assert speed["prefill_tokens_per_second"] > 1000
    assert speed["decode_tokens_per_second"] is None
    assert told["candidates"][0]["usd_per_million_output_tokens"] is None
    words = view.screen(plan)
    assert "No KV cache" in words
    assert "reads" in words
    assert "for each user" not in words
    assert "No KV cache" in view.explained(plan)


def test_a_decoder_that_looks_both_ways_is_an_encoder(planned: Any) -> None:
    """models/qwen3.py: with `is_causal` false its attention is ENCODER_ONLY, of which no layer has a cache."""
    both = {**QWEN3, "architectures": ["Qwen3ForSequenceClassification"], "is_causal": False}
    footprint = planned(both).candidates[0].footprint
    assert (footprint.kv_pool_bytes, footprint.max_sequences) == (0, 256)


@pytest.mark.parametrize("asked", [{"rank": "cost-per-token"}, {"rank": "time"}, {"requests": 10}])
def test_nothing_is_ranked_or_counted_by_answers(planned: Any, asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no tokens are written"):
        planned(BGE_M3, **asked)


QWEN3_EMBEDDING_8B = {
    **QWEN3, "architectures": ["Qwen3ForCausalLM"], "hidden_size": 4096, "intermediate_size": 12288,
    "num_hidden_layers": 36, "num_attention_heads": 32, "vocab_size": 151665, "max_position_embeddings": 40960,
    "tie_word_embeddings": False,
}  # fmt: skip


def test_a_file_beside_its_config_tells_what_a_model_is_for(planned: Any, tmp_path: Path) -> None:
    """Qwen3-Embedding-8B on 0.12.0 printed 14.1062 GiB of weights and 409,504 tokens (VideoCuttingAgent)."""
    asked = {"engine_version": "0.12.0", "gpu": "h100-80gb-sxm5", "context": 8192}
    writer = planned(QWEN3_EMBEDDING_8B, **asked).candidates[0]
    (tmp_path / "modules.json").write_text("[]")
    plan = planned(QWEN3_EMBEDDING_8B, **asked)
    found = plan.candidates[0].footprint
    assert found.loaded_bytes / (1 << 30) == pytest.approx(14.1062, abs=0.001)
    assert found.kv_pool_tokens == pytest.approx(409_504, rel=0.005)
    assert writer.footprint.kv_pool_tokens < 0.95 * 409_504
    assert plan.model.key != make_plan(read_request({"model": str(tmp_path / "config.json")})).model.key


@pytest.mark.parametrize(
    ("folder", "writes"), [("Qwen3-Embedding-8B", False), ("embeddings/Qwen3-8B", True), ("my-embed", False)]
)
def test_a_name_tells_it_where_only_that_is_seen(tmp_path: Path, folder: str, *, writes: bool) -> None:
    place = tmp_path / folder
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps(QWEN3_EMBEDDING_8B))
    for word in (str(place), str(place / "config.json")):
        assert writes_text(resolve(word).architecture) is writes  # type: ignore[arg-type]


def test_sglang_is_told_that_nothing_is_written(planned: Any, tmp_path: Path) -> None:
    assert "--is-embedding" not in planned(QWEN3_EMBEDDING_8B, engine="sglang").candidates[0].engine_argv
    (tmp_path / "modules.json").write_text("[]")
    told = planned(QWEN3_EMBEDDING_8B, engine="sglang", gpu="h100-80gb-sxm5").candidates[0]
    assert "--is-embedding" in told.engine_argv
    assert told.reading is not None


def test_a_batch_of_an_encoder_holds_its_longest_text(planned: Any) -> None:
    """No chunked prefill: engine/arg_utils.py _set_default_max_num_seqs_and_batched_tokens_args."""
    short, long = (planned(BGE_M3, context=context).candidates[0] for context in (512, 8192))
    assert long.footprint.activations_bytes > short.footprint.activations_bytes


def test_a_target_for_what_is_written_is_not_met(planned: Any) -> None:
    one = planned(BGE_M3, target=40).candidates[0]
    assert one.meets_target is False
    assert "vectors or scores" in one.reasons[-1]


def test_a_reranker_with_a_cache_keeps_its_pool_and_samples_nothing(planned: Any) -> None:
    """config/vllm.py: "Pooling models do not support full cudagraphs"; v1/worker/gpu_model_runner.py
    _dummy_pooler_run in the sampler's place."""
    writer = planned({**QWEN3, "architectures": ["Qwen3ForCausalLM"]}).candidates[0]
    scorer = planned({**QWEN3, "architectures": ["Qwen3ForSequenceClassification"]}).candidates[0]
    assert scorer.footprint.kv_pool_tokens > writer.footprint.kv_pool_tokens
    assert scorer.footprint.cuda_graphs_bytes < writer.footprint.cuda_graphs_bytes
    assert scorer.footprint.activations_bytes < writer.footprint.activations_bytes
    assert scorer.throughput is None
    assert scorer.reading is not None


def captures(facts: Facts) -> int:
    terms, constants = engine_tables()["vllm"]["graphs"], rules("vllm", "0.33.0")
    return _vllm_graphs.graphs(
        facts, find_gpu("l4-24gb"), constants, terms, tokens=2048, sequences=256
    ).captures


def gathered(**changed: Any) -> Facts:
    """Of Qwen3-8B, with something else in its architecture."""
    found = resolve("qwen3-8b", allow_network=False)
    model = served_model(found)
    assert model is not None
    if changed:
        other = msgspec.structs.replace(model.architecture, **changed)
        model = msgspec.structs.replace(model, key=f"changed-{sorted(changed)}", architecture=other)
    settings = settings_for(read_request({"model": "qwen3-8b", "engine": "vllm"}), found, 1)
    return _facts.gather(model, find_gpu("l4-24gb"), settings, "bfloat16")


def test_which_graphs_are_captured() -> None:
    """51 sizes up to 512 piece by piece, 35 up to 256 sequences whole: both for a model that writes."""
    facts = gathered()
    assert captures(facts) == 51 + 35
    assert captures(msgspec.structs.replace(facts, writes_text=False)) == 51
    assert captures(msgspec.structs.replace(facts, whole_prompts=True)) == 35


def test_what_an_encoder_hears_is_read_whole() -> None:
    own = AttentionCache(layers=2, kv_heads=4, key_dim=64, value_dim=64)
    assert not gathered().whole_prompts
    assert gathered(caches=(own, msgspec.structs.replace(own, cross=True))).whole_prompts


def test_sglang_makes_an_encoder_a_pool_all_the_same(planned: Any) -> None:
    """model_executor/model_runner.py makes one for every model; 24 layers of 2 × 1,024 numbers a token."""
    footprint = planned(BGE_M3, engine="sglang").candidates[0].footprint
    assert footprint.kv_bytes_per_token == 24 * 2 * 1024 * 2
    assert footprint.kv_pool_tokens > 100_000
