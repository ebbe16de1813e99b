"""Experts that stay whole, some on each GPU: bytes as vLLM's own classes have them, and the commands for it."""

from __future__ import annotations

from typing import Any

import pytest

import soong
from soong.memory.dividing import tensor_parallel_problem
from soong.memory.weights import WeightShare, weights_per_gpu
from soong.models.config_json import Config
from soong.models.families import read_architecture
from soong.models.quantization import read_quantization
from soong.models.resolve import resolve
from soong.plan.candidates import served_model
from soong.plan.request import read_request
from soong.plan.searching import Alternative
from soong.speed.work import work_of

SIZES = (2, 4, 8)

OF_THE_CATALOGUE = {
    ("qwen3-30b-a3b", "bf16"): (30544917248, 15285252864, 7680586496),
    ("qwen3-30b-a3b", "fp8"): (15600067712, 7812828288, 3931794560),
    ("qwen3-235b-a22b", "fp8"): (118272811216, 59186488016, 29692621520),
    ("minimax-m2.5", "fp8"): (115158750160, 57677309136, 28936588624),
    ("deepseek-v3", "fp8"): (337144623664, 169141629104, 85140131824),
    ("glm-4.7", "fp8"): (177672618680, 88985011896, 44641208504),
    ("gpt-oss-20b", "mxfp4"): (6883055616, 3443950848, 1724398464),
    ("gpt-oss-120b", "mxfp4"): (32637998016, 16332588864, 8179884288),
    ("kimi-k2-thinking", "int4"): (298192440272, 150185891792, 76182617552),
    ("qwen3-next-80b-a3b", "bf16"): (79725032000, 39925738368, 20026091552),
}
"""Parameters of one GPU at 2, 4 and 8: vLLM 0.32.0's classes on PyTorch's meta device with `enable_expert_parallel`."""

GLM_AIR = {
    "model_type": "glm4_moe", "architectures": ["Glm4MoeForCausalLM"], "attention_bias": True, "head_dim": 128,
    "hidden_size": 4096, "intermediate_size": 10944, "moe_intermediate_size": 1408, "num_attention_heads": 96,
    "num_key_value_heads": 8, "num_hidden_layers": 46, "n_routed_experts": 128, "n_shared_experts": 1,
    "num_experts_per_tok": 8, "first_k_dense_replace": 1, "vocab_size": 151552, "num_nextn_predict_layers": 1,
    "max_position_embeddings": 131072, "partial_rotary_factor": 0.5, "use_qk_norm": False,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
SIXTY_EXPERTS = {
    "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "head_dim": 128, "hidden_size": 2048,
    "intermediate_size": 6144, "moe_intermediate_size": 768, "num_attention_heads": 32, "num_key_value_heads": 4,
    "num_hidden_layers": 8, "num_experts": 60, "num_experts_per_tok": 8, "vocab_size": 151936,
    "max_position_embeddings": 40960, "decoder_sparse_step": 1, "mlp_only_layers": [],
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip


def held(architecture: Any, quantization: Any, size: int, **options: Any) -> WeightShare:
    engine = {"engine": "vllm", "engine_version": "0.32.0", "expert_parallel": True, **options}
    return weights_per_gpu(architecture, quantization, tensor_parallel=size, **engine)


def served(name: str, quantization: str) -> Any:
    return served_model(resolve(name, quantization=quantization, allow_network=False))


@pytest.mark.parametrize(("name", "quantization"), OF_THE_CATALOGUE)
def test_each_gpu_holds_the_bytes_of_the_engine_s_parameters(name: str, quantization: str) -> None:
    model = served(name, quantization)
    found = [held(model.architecture, model.quantization, size).total_bytes for size in SIZES]
    assert found == pytest.approx(OF_THE_CATALOGUE[name, quantization], rel=1e-6)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (GLM_AIR, (106923429088, 53509293280, 26802225376)),  # a shared expert, divided as ever
        (SIXTY_EXPERTS, (3040288896, 1521164416, 803545216)),  # 8 of 60 on the fullest of eight GPUs
    ],
)
def test_shared_experts_and_uneven_ones(config: dict[str, Any], expected: tuple[int, ...]) -> None:
    architecture = read_architecture(Config(config))
    quantization = read_quantization(Config(config), dtype=architecture.dtype)
    assert tuple(held(architecture, quantization, size).total_bytes for size in SIZES) == expected


def test_sglang_wants_as_many_experts_on_each_gpu() -> None:
    architecture = read_architecture(Config(SIXTY_EXPERTS))
    refused = "60 experts cannot be spread evenly over 8 GPUs"
    options: dict[str, Any] = {"expert_parallel": True}
    assert tensor_parallel_problem(architecture, 8, engine="sglang", **options) == refused
    assert tensor_parallel_problem(architecture, 8, engine="vllm", **options) is None
    assert tensor_parallel_problem(architecture, 4, engine="sglang", **options) is None


def test_stages_of_whole_experts_are_half_a_model() -> None:
    model = served("deepseek-v3", "fp8")
    whole, stage = (
        held(model.architecture, model.quantization, 8, pipeline_parallel=stages).parts["experts"]
        for stages in (1, 2)
    )
    assert stage / whole == pytest.approx(30 / 58)  # 31 layers of 61 at most, the first three dense


def plan(model: str, **options: Any) -> Any:
    return soong.plan_model(model, allow_network=False, gpu="h200", **options).candidates[0]


FLAGS = {
    "vllm": "--tensor-parallel-size 8 --enable-expert-parallel",
    "sglang": "--tp-size 8 --ep-size 8",
}


@pytest.mark.parametrize("asked", [{"gpu_count": 8}, {"tensor_parallel": 8}])
@pytest.mark.parametrize(("engine", "version"), [("vllm", "0.18.0"), ("sglang", None), (None, None)])
def test_cut_groups_keep_experts_whole(
    engine: str | None, version: str | None, asked: dict[str, int]
) -> None:
    candidate = plan("minimax-m2.5", engine=engine, engine_version=version, **asked)
    assert (candidate.verdict, candidate.tensor_parallel, candidate.expert_parallel) == ("fits", 8, True)
    assert FLAGS[engine or "sglang"] in " ".join(candidate.engine_argv)
    assert (
        "expert parallelism, 32 of 256 experts whole on each GPU: divided, `w1` keeps 192 columns"
        in " ".join(candidate.reasons)
    )


def test_where_nothing_is_cut_experts_are_divided_unless_asked() -> None:
    divided = plan("minimax-m2.5", engine="vllm", tensor_parallel=4)
    asked = plan("minimax-m2.5", engine="vllm", tensor_parallel=4, expert_parallel=True)
    assert (divided.expert_parallel, asked.expert_parallel) == (False, True)
    assert "--enable-expert-parallel" not in divided.engine_argv
    assert "--enable-expert-parallel" in asked.engine_argv
    assert not any("expert parallelism" in reason for reason in (*divided.reasons, *asked.reasons))
    assert asked.footprint.tensor_bytes == pytest.approx(divided.footprint.tensor_bytes, rel=1e-3)


def test_the_workspace_has_rows_as_wide_as_a_whole_expert() -> None:
    divided, asked = (
        plan(
            "mixtral-8x7b", engine="vllm", tensor_parallel=4, expert_parallel=apart
        ).footprint.activations_bytes
        for apart in (False, True)
    )
    batch, experts, width, hidden = 8192, 2, 14336, 4096
    rows = [max(2 * one, hidden) + max(one, hidden) for one in (width // 4, width)]
    assert asked - divided == batch * experts * 2 * (rows[1] - rows[0])


def test_what_else_cannot_be_divided_stays_so() -> None:
    candidate = plan("minimax-m2.5", tensor_parallel=32, gpu_count=32)
    assert candidate.verdict == "unsupported"
    assert "48 attention heads" in candidate.reasons[0]


@pytest.mark.parametrize(
    ("model", "options", "reason"),
    [
        ("llama-3.1-8b", {"engine": "vllm"}, "a dense model has no experts to spread"),
        ("qwen3-30b-a3b", {"engine": "llama.cpp"}, "llama.cpp has no expert parallelism"),
        ("gpt-oss-120b", {"engine": "sglang"}, "SGLang unpacks MXFP4 experts to 16 bits"),
    ],
)
def test_it_is_refused_in_words(model: str, options: dict[str, str], reason: str) -> None:
    candidate = plan(model, gpu_count=2, expert_parallel=True, **options)
    assert candidate.verdict == "unsupported"
    assert reason in candidate.reasons[0]


def test_one_gpu_has_all_experts_and_needs_no_flag() -> None:
    candidate = plan("qwen3-30b-a3b", engine="vllm", expert_parallel=True)
    assert candidate.verdict == "fits"
    assert "--enable-expert-parallel" not in candidate.engine_argv


@pytest.mark.parametrize("name", ["qwen3-30b-a3b", "deepseek-v3"])
def test_the_gpus_together_do_the_work_of_the_model(name: str) -> None:
    model = served(name, "fp8")
    whole, apart = (
        work_of(model, tensor_parallel=size, expert_parallel=size > 1).experts[0] for size in (1, 4)
    )
    assert apart.weights_bytes * 4 == pytest.approx(whole.weights_bytes)
    assert apart.flops_per_token * 4 == pytest.approx(whole.flops_per_token)
    assert (
        work_of(model, tensor_parallel=4, expert_parallel=True).dense
        == work_of(model, tensor_parallel=4).dense
    )


def test_the_command_that_plans_it_again_has_the_flag() -> None:
    request = read_request({"model": "qwen3-30b-a3b", "expert_parallel": True, "gpu": "h200", "gpu_count": 2})
    planned = plan("qwen3-30b-a3b", expert_parallel=True, gpu_count=2)
    again = Alternative(
        request=request, label="FP8", repository="", context_tokens=8192, candidate=planned, weights_loss=None,
        kv_cache_loss=None,
    )  # fmt: skip
    assert "--expert-parallel" in again.words


def test_on_one_gpu_there_is_nothing_to_keep_whole() -> None:
    """No flag is in the command then, so neither a refusal nor a word is about it."""
    found = soong.plan_model(
        "gpt-oss-20b", gpu="h100-80gb-sxm5", engine="sglang", expert_parallel=True, allow_network=False
    ).candidates[0]
    assert found.verdict == "fits"
    assert not found.expert_parallel
    assert "--ep-size" not in found.engine_argv


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_pipeline_stages_keep_towers_as_whole_as_one_stage_does(engine: str) -> None:
    """The part that no stage shares is as large on the stage that holds it."""
    model = served_model(resolve("kimi-k2.5", allow_network=False))
    assert model is not None
    alone, staged = (
        weights_per_gpu(
            model.architecture,
            model.quantization,
            tensor_parallel=8,
            engine=engine,
            engine_version="0.33.0" if engine == "vllm" else "0.5.23",
            compute_capability=(9, 0),
            pipeline_parallel=stages,
        )
        for stages in (1, 2)
    )
    assert staged.parts["vision"] == alone.parts["vision"]
