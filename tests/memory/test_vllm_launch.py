"""What vLLM does beside weights and cache, against what its source says and logs show."""

from __future__ import annotations

from typing import Any

import pytest

from soong.gpus.catalogue import find_gpu
from soong.gpus.gpu import Gpu
from soong.memory import engines
from soong.memory.engines import _vllm_budget, _vllm_encoder, _vllm_graphs, _vllm_profile, vllm
from soong.memory.engines._constants import engine_tables, rules
from soong.memory.engines._facts import Facts
from soong.memory.footprint import EngineSettings, Footprint, ServedModel, Workload
from soong.memory.kv_cache import LayerKind
from soong.models.config_json import Config
from soong.models.families import read_architecture
from soong.models.quantization.reading import read_quantization
from soong.models.resolve import resolve
from soong.plan.verdict import judge

GIB = 1 << 30
MIB = 1 << 20

GPT_OSS_20B = {
    "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "hidden_size": 2880, "intermediate_size": 2880,
    "num_hidden_layers": 24, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 201088,
    "num_local_experts": 32, "num_experts_per_tok": 4, "sliding_window": 128, "max_position_embeddings": 131072,
    "layer_types": ["sliding_attention", "full_attention"] * 12, "torch_dtype": "bfloat16",
    "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": [
        "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]},
}  # fmt: skip

QWEN3_14B = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 5120, "intermediate_size": 17408,
    "num_hidden_layers": 40, "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128,
    "vocab_size": 151936, "max_position_embeddings": 40960, "torch_dtype": "bfloat16",
}  # fmt: skip

QWEN3_8B = QWEN3_14B | {
    "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
}  # fmt: skip

LLAMA_31_8B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "max_position_embeddings": 131072, "torch_dtype": "bfloat16",
}  # fmt: skip

QWEN25_7B = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944,
    "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
    "max_position_embeddings": 32768, "torch_dtype": "bfloat16",
}  # fmt: skip

QWEN35_27B = {
    "architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5",
    "text_config": {
        "model_type": "qwen3_5_text", "hidden_size": 5120, "intermediate_size": 17408, "num_hidden_layers": 64,
        "num_attention_heads": 24, "num_key_value_heads": 4, "head_dim": 256, "attn_output_gate": True,
        "full_attention_interval": 4, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
        "linear_num_key_heads": 16, "linear_num_value_heads": 48, "linear_value_head_dim": 128,
        "mamba_ssm_dtype": "float32", "vocab_size": 248320, "max_position_embeddings": 262144, "dtype": "bfloat16",
    },
    "vision_config": {
        "model_type": "qwen3_5", "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16,
        "num_position_embeddings": 2304, "out_hidden_size": 5120, "patch_size": 16, "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}  # fmt: skip

GEMMA2_LIKE = {
    "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", "hidden_size": 2304, "intermediate_size": 9216,
    "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
    "vocab_size": 256000, "sliding_window": 4096, "max_position_embeddings": 131072, "torch_dtype": "bfloat16",
}  # fmt: skip


def served(config: dict[str, Any]) -> ServedModel:
    read = Config(config)
    architecture = read_architecture(read)
    quantization = read_quantization(read, dtype=architecture.dtype)
    return ServedModel(key=str(config["model_type"]), architecture=architecture, quantization=quantization)


def a_gpu(gib: float = 79.19, capability: tuple[int, int] = (9, 0), **more: Any) -> Gpu:
    fields: dict[str, Any] = {
        "id": "a-card", "name": "A card", "vendor": "nvidia", "label_gb": 80, "memory_bytes": round(gib * GIB),
        "bandwidth_bytes_per_second": 0, "dense_flops": {}, "compute_capability": capability, "native_formats": (),
        "interconnect": "NVLink 4", "source": "", "as_of": "",
    }  # fmt: skip
    return Gpu(**{**fields, **more})


def launched(model: ServedModel, gpu: Gpu, version: str, context: int = 8192, **flags: Any) -> Footprint:
    settings = EngineSettings(name="vllm", version=version, **flags)
    return engines.footprint(model, gpu, Workload(context_tokens=context), settings)


def facts(**more: Any) -> Facts:
    fields: dict[str, Any] = {
        "weights_bytes": 0, "tensor_bytes": 0, "embedding_bytes": 0, "kinds": (), "layers": 32, "hidden_size": 4096,
        "vocab_size": 128256, "attention_width": 4096, "mlp_width": 14336, "expert_width": 0, "experts_per_token": 0,
        "mixture": False, "multimodal": False, "vision_parameters": 0, "name": "LlamaForCausalLM",
    }  # fmt: skip
    return Facts(**{**fields, **more})


def peak_of(model: Facts, version: str, tokens: int, sequences: int) -> _vllm_profile.Activations:
    constants = rules("vllm", version)
    encoder = _vllm_encoder.encoder_run(model, constants, tokens, 1)
    batch = _vllm_profile.Batch(tokens, sequences, processors=132)
    return _vllm_profile.activations(model, constants, engine_tables()["vllm"]["activations"], batch, encoder)


@pytest.mark.parametrize(
    ("gib", "capability", "name", "version", "batch"),
    [
        (79.19, (9, 0), "h100", "0.19.0", (8192, 1024)),
        (79.25, (8, 0), "a100-80gb", "0.33.0", (2048, 256)),
        (178.4, (10, 0), "b200", "0.27.0", (8192, 1024)),
        (178.4, (10, 0), "b200", "0.28.0", (16384, 1024)),
        (119.6, (12, 1), "gb10", "0.25.1", (2048, 256)),
        (23.7, (8, 6), "rtx3090", "0.33.0", (2048, 256)),
    ],
)
def test_batches_by_gpu_and_version(
    gib: float, capability: tuple[int, int], name: str, version: str, batch: tuple[int, int]
) -> None:
    assert _vllm_profile.batch_defaults(a_gpu(gib, capability, id=name), rules("vllm", version)) == batch


def test_one_gemma_4_video_fits_a_batch() -> None:
    """Its log on a GB10 prints 14.92 sequences of 262144 tokens, which 2496 tokens in flight give and 2048 do not."""
    gemma = facts(multimodal=True, model_type="gemma4", whole_items=True)
    assert _vllm_encoder.least_batch_tokens(gemma, rules("vllm", "0.25.1")) == 2496
    assert _vllm_encoder.least_batch_tokens(gemma, rules("vllm", "0.21.0")) == 0
    assert _vllm_encoder.least_batch_tokens(facts(), rules("vllm", "0.33.0")) == 0


def test_gemma_4_e4b_attends_in_one_direction() -> None:
    """An E4B on an L40S, 0.25.1: 22.01 GiB are 63.10 x 16,384 tokens, as 2,048 in flight give; 2,496 give 985,357."""
    e4b = facts(multimodal=True, model_type="gemma4")
    assert _vllm_encoder.least_batch_tokens(e4b, rules("vllm", "0.25.1")) == 0
    architecture = resolve("gemma-4-31b", allow_network=False).architecture
    assert architecture is not None
    assert architecture.whole_items


def test_the_sampler_is_what_logs_of_one_model_say() -> None:
    """Qwen3-14B on an H100 printed peaks of 5.64, 5.64, 2.23 and 2.23 GiB on 0.15, 0.16, 0.17 and 0.18."""
    qwen = facts(hidden_size=5120, vocab_size=151936, mlp_width=17408, name="Qwen3ForCausalLM")
    found = [
        peak_of(qwen, version, 8192, 1024).peak_bytes / GIB
        for version in ("0.15.0", "0.16.0", "0.17.0", "0.18.0")
    ]
    assert found == pytest.approx([5.64, 5.64, 2.23, 2.23], abs=0.006)


@pytest.mark.parametrize(
    ("version", "name", "quantized", "mixture", "recurrent", "second"),
    [
        ("0.21.0", "Qwen3ForCausalLM", False, False, False, False),
        ("0.22.0", "Qwen3ForCausalLM", False, False, False, True),
        ("0.22.0", "Qwen3ForCausalLM", True, False, False, False),
        ("0.23.0", "LlamaForCausalLM", False, False, False, True),
        ("0.24.0", "LlamaForCausalLM", True, False, False, True),
        ("0.24.0", "Gemma2ForCausalLM", False, False, False, False),
        ("0.25.0", "Gemma2ForCausalLM", False, False, False, True),
        ("0.26.0", "Qwen3MoeForCausalLM", False, True, False, False),
        ("0.26.0", "Qwen3_5ForConditionalGeneration", False, False, True, False),
        ("0.29.0", "Qwen3MoeForCausalLM", True, True, True, True),
    ],
)
def test_which_runner_serves_whom(
    version: str, name: str, quantized: bool, mixture: bool, recurrent: bool, second: bool
) -> None:
    kinds = (LayerKind("state", 4, 0, state_bytes=1 << 20, state_kind="gdn"),) if recurrent else ()
    model = facts(name=name, quantized=quantized, mixture=mixture, kinds=kinds)
    assert _vllm_profile.runs_in_second_runner(model, rules("vllm", version)) is second


def test_the_second_runner_pays_for_its_sampler_after_the_pool() -> None:
    """Its profile holds 2 bytes of a logit, its warm-up 14, and its penalties count every token of the vocabulary."""
    early = peak_of(facts(), "0.24.0", 8192, 1024)
    assert early.sampler_bytes < 0.36 * GIB < 1.7 * GIB < early.warm_up_bytes
    assert early.counters_bytes == 1024 * (128256 * 4 + 2 * 128256 // 8)
    assert early.budgeted_counters_bytes == 0
    late = peak_of(facts(), "0.27.0", 8192, 1024)
    assert late.budgeted_counters_bytes == late.counters_bytes
    assert not _vllm_profile.counts_graphs(facts(), rules("vllm", "0.28.0"))
    assert _vllm_profile.counts_graphs(facts(), rules("vllm", "0.29.0"))


def test_the_first_engine_keeps_a_state_for_every_sequence() -> None:
    """Nemotron-Nano-9B-v2 on 0.10.1: "Tried to allocate 33.75 GiB" for 27 layers in float32."""
    nemotron = facts(kinds=(LayerKind("state", 27, 0, state_bytes=128 * 80 * 128 * 4, state_kind="mamba2"),))
    slots = _vllm_profile.state_slots_bytes(nemotron, rules("vllm", "0.10.1"), 256)
    assert slots / GIB == 33.75
    assert _vllm_profile.state_slots_bytes(nemotron, rules("vllm", "0.10.2"), 256) == 0


@pytest.mark.parametrize(("packed", "since"), [(False, ("0.13.0", "0.15.0")), (True, ("0.22.0", "0.23.0"))])
def test_a_mixture_keeps_its_workspace_once_its_kernels_share_one(
    packed: bool, since: tuple[str, str]
) -> None:
    """Qwen3-VL-30B on 0.13 (H100 NVL) has 0.5 GiB more cache than with a workspace that stays."""
    mixture = facts(
        mixture=True, packed_experts=packed, expert_width=768, experts_per_token=8, hidden_size=2048, name=""
    )
    early, late = (peak_of(mixture, version, 8192, 1024) for version in since)
    assert late.kept_bytes - early.kept_bytes == 8192 * 2 * 8 * (2048 + 2048)
    assert early.forward_bytes - late.forward_bytes == 8192 * 2 * 8 * (2048 + 768)


@pytest.mark.parametrize(
    ("limit", "sequences", "captures", "largest"),
    [(512, 1024, 51 + 51, 512), (1024, 1024, 83 + 83, 1024), (512, 256, 51 + 35, 512), (2, 1, 2 + 1, 2)],
)
def test_captures_are_counted_as_logs_do(limit: int, sequences: int, captures: int, largest: int) -> None:
    """51 and 51 on an H100, 83 and 83 for gpt-oss on it, 51 and 35 on an A100 (start-up logs of 0.19 and 0.24)."""
    assert _vllm_graphs.captured_graphs(limit, sequences, 256, 2) == (captures, largest)


def test_gpt_oss_captures_more() -> None:
    """1.84 and 1.55 GiB on one and two H100."""
    found = [
        launched(served(GPT_OSS_20B), a_gpu(), "0.19.0", tensor_parallel=gpus).cuda_graphs_bytes / GIB
        for gpus in (1, 2)
    ]
    assert found == pytest.approx([1.84, 1.55], abs=0.06)


@pytest.mark.parametrize(
    ("gpus", "mixture", "gib"),
    [(1, False, 0.51), (1, True, 0.51), (2, False, 1.53), (4, False, 1.55), (2, True, 2.01), (4, True, 2.07)],
)
def test_what_a_group_takes_before_the_first_reading(gpus: int, mixture: bool, gib: float) -> None:
    """Total less free at start, as 29 logs of 0.19 on H100 print them."""
    found = _vllm_budget.context_bytes(rules("vllm", "0.19.0"), a_gpu(), gpus, mixture=mixture)
    assert found / GIB == pytest.approx(gib, abs=0.06)


@pytest.mark.parametrize("gpus", [1, 2])
def test_a_start_that_failed_does_not_fit(gpus: int) -> None:
    """gpt-oss-20b at 0.95 on H100: the warm-up found fragments alone, though all of it was less than the GPU."""
    found = launched(served(GPT_OSS_20B), a_gpu(), "0.19.0", memory_fraction=0.95, tensor_parallel=gpus)
    assert judge(found)[0] == "tight"
    assert 0 < found.free_bytes < found.uncertainty_bytes


def test_a_start_that_succeeded_is_never_refused() -> None:
    """Qwen3-14B at 0.95: 41.94 GiB of pool on 0.15, 45.23 on 0.18."""
    found = [
        launched(served(QWEN3_14B), a_gpu(), version, memory_fraction=0.95)
        for version in ("0.15.0", "0.18.0")
    ]
    assert [one.kv_pool_bytes / GIB for one in found] == pytest.approx([41.94, 45.23], abs=0.05)
    assert all(one.starts for one in found)


def test_before_pools_of_groups_a_window_was_all_that_was_asked() -> None:
    """gemma-3-12b on 0.8.4 started with 0.53 of one request's tokens."""
    small = a_gpu(14)
    found = launched(served(GEMMA2_LIKE), small, "0.8.4", context=65536, enforce_eager=True)
    assert found.starts
    assert found.max_concurrency is not None
    assert found.max_concurrency < 1
    assert judge(found)[0] == "tight"


def test_a_refusal_within_the_error_is_tight() -> None:
    model, step = served(QWEN3_14B), 64 * MIB
    verdicts = [
        judge(launched(model, a_gpu(memory / MIB / 1024), "0.33.0", context=40960))[0]
        for memory in range(31 * 1024 * MIB, 46 * 1024 * MIB, step)
    ]
    order = {"too-small": 0, "tight": 1, "fits": 2}
    ranks = [order[verdict] for verdict in verdicts]
    assert ranks == sorted(ranks)
    assert set(ranks) == {0, 1, 2}
    found = launched(model, a_gpu(37.2), "0.33.0", context=40960)
    if not found.starts:
        assert found.may_start == (judge(found)[0] == "tight")


def test_the_parts_are_the_terms() -> None:
    model, gpu = served(GPT_OSS_20B), a_gpu()
    settings = EngineSettings(name="vllm", version="0.19.0", tensor_parallel=2)
    found = engines.footprint(model, gpu, Workload(context_tokens=8192), settings)
    parts = engines.parts(model, gpu, Workload(context_tokens=8192), settings)
    by_name = {part.name: part.size_bytes for part in parts}
    assert by_name["captures"] + by_name["partial sums"] == found.cuda_graphs_bytes
    assert by_name["context"] + by_name["libraries"] == found.runtime_bytes
    assert "first" not in by_name
    assert by_name["sampler"] + by_name.get("kept meanwhile", 0) == found.activations_bytes
    assert all(part.formula for part in parts)


def test_engines_that_do_not_tell_have_no_parts() -> None:
    settings = EngineSettings(name="sglang", version="0.5.23")
    assert engines.parts(served(QWEN3_14B), a_gpu(), Workload(context_tokens=8192), settings) == ()


def test_an_encoder_may_need_more_than_the_sampler() -> None:
    """Qwen2.5-VL's largest image: 65536 patches of 1176 numbers, 12 rows of 1280 at the widest."""
    model = facts(
        multimodal=True, model_type="qwen2_5_vl", vision_hidden_size=1280, vision_mlp_rows=6840,
        vision_mlp_width=3420, name="",
    )  # fmt: skip
    run = _vllm_encoder.encoder_run(model, rules("vllm", "0.22.0"), 2048, 1)
    assert run.kept_bytes == 2 * (65536 * 1176 + 16384 * 4096)
    assert run.peak_bytes == 2 * 65536 * (1176 + 2 * 1280 + 10 * 1280)
    assert peak_of(model, "0.22.0", 2048, 10).peak_bytes == run.peak_bytes


def test_an_unknown_tower_widens_the_error() -> None:
    known = facts(multimodal=True, model_type="gemma3", vision_hidden_size=1152)
    other = facts(multimodal=True, model_type="something_new")
    newest = rules("vllm", "0.33.0")
    assert not _vllm_encoder.encoder_run(other, newest, 8192, 1).known
    assert _vllm_encoder.encoder_run(known, newest, 8192, 1).known
    assert _vllm_encoder.encoder_run(facts(), newest, 8192, 1) == (0, 0, True)


def test_compiling_copies_the_embedding() -> None:
    """Qwen3-8B on 0.27.1, RTX 4090, one launch twice: peak 1.18 GiB compiling, 0.19 with its kernels at hand."""
    qwen = facts(
        layers=36, vocab_size=151936, mlp_width=12288, name="Qwen3ForCausalLM",
        compiled_embedding_bytes=2 * 151936 * 4096,
    )  # fmt: skip
    found = peak_of(qwen, "0.27.1", 2048, 256)
    assert found.compile_bytes / GIB == pytest.approx(1.18, abs=0.006)
    assert (found.compiled_peak_bytes - found.budgeted_counters_bytes) / GIB == pytest.approx(0.19, abs=0.05)
    assert peak_of(qwen, "0.19.0", 2048, 256).compile_bytes == 0
    batch = _vllm_profile.Batch(2048, 256, processors=128, compiled=False)
    assert _vllm_profile.compile_bytes(qwen, rules("vllm", "0.27.1"), batch) == 0


@pytest.mark.parametrize(
    ("config", "version", "gpu", "flags", "pool_gib"),
    [
        (QWEN3_8B, "0.27.1", (23.52, (8, 9), "PCIe 4"), {}, 4.92),
        (LLAMA_31_8B, "0.26.0", (44.35, (8, 6), "PCIe 4"), {"memory_fraction": 0.9}, 23.9),
        (LLAMA_31_8B, "0.31.0", (79.25, (8, 0), "NVLink 3"), {}, 56.21),
        (LLAMA_31_8B, "0.19.0", (39.49, (8, 0), "NVLink 3"), {"memory_fraction": 0.9}, 19.92),
        (QWEN25_7B, "0.24.0", (31.36, (12, 0), "PCIe 5"), {"memory_fraction": 0.9}, 11.92),
    ],
)
def test_pools_on_other_cards(
    config: dict[str, Any],
    version: str,
    gpu: tuple[float, tuple[int, int], str],
    flags: dict[str, Any],
    pool_gib: float,
) -> None:
    """RTX 4090, A40, two A100, RTX 5090: first starts, as their logs print the pool."""
    gib, capability, interconnect = gpu
    card = a_gpu(gib, capability, interconnect=interconnect, id="a100" if capability == (8, 0) else "a-card")
    assert launched(served(config), card, version, **flags).kv_pool_bytes / GIB == pytest.approx(
        pool_gib, abs=0.26
    )


def test_a_later_start_may_hold_what_the_first_refuses() -> None:
    """Qwen3-8B on an RTX 4090, 0.27.1: 35,792 tokens compiling, 43,040 afterwards."""
    model, card = served(QWEN3_8B), a_gpu(23.52, (8, 9), interconnect="PCIe 4")
    first = launched(model, card, "0.27.1", context=38000)
    assert not first.starts
    assert judge(first)[0] == "tight"
    assert judge(launched(model, card, "0.27.1", context=40960 + 16384))[0] == "too-small"


@pytest.mark.parametrize(
    ("version", "tried", "gib"),
    [
        ("0.17.0", True, 0.13), ("0.19.0", True, 0.25), ("0.19.0", False, 0.13), ("0.24.0", False, 0.13),
        ("0.27.0", True, 0.13), ("0.31.0", True, 0.13),
    ],
)  # fmt: skip
def test_trying_graphs_counts_where_it_comes_before_the_reading(
    version: str, tried: bool, gib: float
) -> None:
    """0.24 to 0.27 GiB in 31 logs of 0.18 and 0.19; 0.13 on 0.24 where no graph was tried, and again on 0.31."""
    found = _vllm_budget.non_torch_bytes(rules("vllm", version), a_gpu(), 1, graphs_profiled=tried)
    assert found / GIB == pytest.approx(gib, abs=0.01)


def test_a_sparse_indexer_keeps_room_for_forty_contexts() -> None:
    """GLM-5.2 at 819,200 tokens on four GB200 with 0.26: peak 6.31 GiB, 4.03 of it the indexer's keys."""
    glm = facts(kinds=(LayerKind("indexer", 21, 132, shape=(1, 128, 0)),), name="", hidden_size=6144)
    batch = _vllm_profile.Batch(8192, 1024, processors=148, context_tokens=819_200)
    found = [
        _vllm_profile.activations(
            glm,
            rules("vllm", version),
            engine_tables()["vllm"]["activations"],
            batch,
            _vllm_encoder.NO_ENCODER,
        )
        for version in ("0.12.0", "0.26.0")
    ]
    assert [peak.kept_bytes / GIB for peak in found] == [0, pytest.approx(4.03, abs=0.01)]


@pytest.mark.parametrize(
    ("version", "context", "contexts"),
    [("0.31.0", 1 << 20, 40), ("0.32.0", 1 << 20, 16), ("0.32.0", 262_144, 40), ("0.32.0", 262_145, 16)],
)
def test_long_contexts_get_room_for_sixteen_since_0_32(version: str, context: int, contexts: int) -> None:
    """0.32 `config/vllm.py`: a factor of 5 up to 256 × 1024 tokens and 2 beyond, times 576 × 2 // 132."""
    glm = facts(kinds=(LayerKind("indexer", 21, 132, shape=(1, 128, 0)),))
    room = _vllm_profile.indexer_workspace_bytes(glm, rules("vllm", version), context)
    assert room == contexts * context * 132


def test_a_sparse_indexers_scores_are_profiled_since_0_19() -> None:
    """0.19 `envs.py` VLLM_SPARSE_INDEXER_MAX_LOGITS_MB: 512, which 0.18 has not."""
    glm = facts(kinds=(LayerKind("indexer", 21, 132, shape=(1, 128, 0)),), name="")
    batch = _vllm_profile.Batch(8192, 1024, processors=148, context_tokens=8192)
    terms = engine_tables()["vllm"]["activations"]
    before, after = (
        _vllm_profile.activations(glm, rules("vllm", version), terms, batch, _vllm_encoder.NO_ENCODER)
        for version in ("0.18.0", "0.19.0")
    )
    assert after.forward_bytes - before.forward_bytes == 512 * MIB


def test_vectors_are_pooled_in_float32_of_every_token() -> None:
    """`layers/pooler/tokwise/heads.py`: what is read, in float32 and once more divided by its length."""
    pooled = peak_of(facts(writes_text=False), "0.33.0", 8192, 1024)
    assert pooled.sampler_bytes == 8192 * 4096 * (2 + 4 + 4)


def test_an_eager_launch_has_no_buffers_of_fused_sums() -> None:
    """0.17 `config/vllm.py`: a pass of the compiler; three buffers of 512 MiB on four H100."""
    model, card = served(QWEN3_14B), find_gpu("h100-80gb-sxm5")
    compiled, eager = (
        vllm.moments(
            model,
            card,
            Workload(context_tokens=8192),
            EngineSettings(name="vllm", version="0.17.0", tensor_parallel=4, enforce_eager=given),
        ).non_torch_bytes
        for given in (False, True)
    )
    assert compiled - eager == 3 * 512 * MIB


@pytest.mark.parametrize(
    ("gpu", "gib"), [("b200-180gb", 1.5625), ("h200-141gb-sxm5", 1.5625), ("l40s-48gb", 0.0)]
)
def test_a_sparse_indexers_scores_are_captured(gpu: str, gib: float) -> None:
    """As wide as `max_model_len`, for each row of the largest graph of decoding, where DeepGEMM writes them."""
    glm = facts(kinds=(LayerKind("indexer", 21, 132, shape=(1, 128, 0)),), name="")
    terms, version = engine_tables()["vllm"]["graphs"], rules("vllm", "0.26.0")
    found = _vllm_graphs.graphs(
        glm, find_gpu(gpu), version, terms, tokens=8192, sequences=1024, context_tokens=819_200
    )
    assert found.indexer_bytes / GIB == gib


@pytest.mark.parametrize(
    ("version", "context_tokens", "images"),
    [
        ("0.23.0", 8192, 1), ("0.23.0", 32_767, 1), ("0.10.2", 32_768, 2), ("0.23.0", 128_000, 7),
        ("0.23.0", 1_000_000, 7), ("0.10.2", 1_000_000, 8), ("0.10.1", 128_000, 1),
    ],
)  # fmt: skip
def test_a_video_is_as_long_as_a_context(version: str, context_tokens: int, images: int) -> None:
    """Encoder budgets of 32,768 (Qwen2.5-Omni on 0.10.2, context 32,768) and 114,688 tokens (Qwen2.5-VL-7B on 0.23,
    context 128,000), "profiled with 1 video items"; an image at its largest is 16,384."""
    tower = facts(
        multimodal=True, model_type="qwen2_5_vl", vision_hidden_size=1280, vision_mlp_rows=6840, vision_mlp_width=3420,
        name="",
    )  # fmt: skip
    one, found = (
        _vllm_encoder.encoder_run(tower, rules("vllm", version), 2048, 1, context)
        for context in (1, context_tokens)
    )
    assert found.peak_bytes == images * one.peak_bytes
    assert _vllm_encoder.grows_with_context(tower)


@pytest.mark.parametrize(("context_tokens", "tokens"), [(4096, 6084), (20_084, 14_000), (327_680, 30_000)])
def test_a_video_of_glm_shrinks_to_what_all_frames_may_have(context_tokens: int, tokens: int) -> None:
    """An encoder budget of 6,084 tokens for GLM-OCR at a context of 4096 (0.18)."""
    tower = facts(
        multimodal=True, model_type="glm4v_moe", vision_hidden_size=1536, vision_mlp_rows=21888, vision_mlp_width=10944,
        name="",
    )  # fmt: skip
    run = _vllm_encoder.encoder_run(tower, rules("vllm", "0.20.0"), 2048, 1, context_tokens)
    pixels, hidden = 4 * tokens * 1176 * 2, tower.hidden_size
    assert run.kept_bytes == pixels + tokens * hidden * 2


def test_images_alone_do_not_grow_with_the_context() -> None:
    assert not _vllm_encoder.grows_with_context(facts(multimodal=True, model_type="qwen3_vl"))


@pytest.mark.parametrize(
    ("version", "gib"), [("0.10.2", 0.44), ("0.11.0", 2.67), ("0.12.0", 2.67), ("0.13.0", 0.44)]
)
def test_qwen3_vl_kept_a_video_with_its_time_stamps(version: str, gib: float) -> None:
    """Qwen3-VL-30B on 0.11 and 0.12 leaves 4.3 GiB beside weights and cache on one GPU of 80 GB, 3.8 on two."""
    tower = facts(
        multimodal=True, model_type="qwen3_vl_moe", hidden_size=2048, vision_hidden_size=1152, vision_mlp_rows=4304,
        vision_mlp_width=4304, name="",
    )  # fmt: skip
    run = _vllm_encoder.encoder_run(tower, rules("vllm", version), 2048, 1)
    assert run.kept_bytes / GIB == pytest.approx(gib, abs=0.02)


FUSED_GIB = 1.5


@pytest.mark.parametrize(
    ("version", "gpu", "gpus", "stages", "compiled", "gib"),
    [
        ("0.16.0", "h100-80gb-sxm5", 4, 1, True, 0.0), ("0.17.0", "h100-80gb-sxm5", 4, 1, True, FUSED_GIB),
        ("0.20.0", "h100-80gb-sxm5", 2, 1, True, FUSED_GIB), ("0.20.0", "h100-80gb-sxm5", 4, 1, False, 0.0),
        ("0.20.0", "h100-80gb-sxm5", 4, 2, True, 0.0), ("0.21.0", "h100-80gb-sxm5", 4, 2, True, FUSED_GIB),
        ("0.20.0", "h100-80gb-sxm5", 3, 1, True, 0.0), ("0.20.0", "h100-80gb-sxm5", 1, 1, True, 0.0),
        ("0.20.0", "h100-94gb-nvl", 2, 1, True, 0.0), ("0.20.0", "a100-80gb-sxm4", 4, 1, True, 0.0),
        ("0.20.0", "b200-180gb", 8, 1, True, FUSED_GIB), ("0.20.0", "rtxpro6000-96gb", 4, 1, True, 0.0),
        ("0.18.0", "b200-180gb", 4, 1, True, FUSED_GIB), ("0.18.0", "b300-288gb", 4, 1, True, 0.0),
        ("0.19.0", "b300-288gb", 4, 1, True, FUSED_GIB),
        ("0.26.0", "h100-80gb-sxm5", 4, 1, True, 0.0),
    ],
)  # fmt: skip
def test_fused_sums_of_a_group_have_buffers(
    version: str, gpu: str, gpus: int, stages: int, compiled: bool, gib: float
) -> None:
    """Qwen3-235B-FP8 on four H100 with 0.20: 3.7 GiB beside weights and cache, where 2.0 are all else; eager GLM-5.1
    on eight H200 with 0.20 lacks them."""
    constants, card = rules("vllm", version), find_gpu(gpu)
    plain = _vllm_budget.non_torch_bytes(
        {**constants, "fused_all_reduce_bytes": 0}, card, gpus, stages=stages
    )
    found = _vllm_budget.non_torch_bytes(constants, card, gpus, stages=stages, compiled=compiled)
    assert (found - plain) / GIB == gib


def test_one_gpu_before_hopper_takes_little() -> None:
    """A100 40 GB on 0.13 and 0.15 (eager): the cache is what 0.02 GiB leave, as on cards without NVLink; 0.10, 0.29
    and 0.3 where graphs were tried, on 0.19."""
    a100, card = find_gpu("a100-40gb-sxm4"), find_gpu("rtx3090-24gb")
    assert _vllm_budget.non_torch_bytes(rules("vllm", "0.15.1"), a100, 1) == 22_000_000
    tried = [
        _vllm_budget.non_torch_bytes(rules("vllm", "0.19.1"), gpu, 1, graphs_profiled=True)
        for gpu in (a100, card)
    ]
    assert tried == [268_000_000, 64_000_000]


def test_graphs_run_through_layers_without_a_cache_too() -> None:
    """gemma-4-E4B, 24 layers with a cache among 42: 0.71 GiB on 0.22.1 (RTX 3090)."""
    terms, version = engine_tables()["vllm"]["graphs"], rules("vllm", "0.22.1")
    shared = facts(layers=24, idle_layers=18, name="")
    whole = _vllm_graphs.graphs(shared, find_gpu("rtx3090-24gb"), version, terms, tokens=2048, sequences=256)
    assert whole.total_bytes / GIB == pytest.approx(0.71, abs=0.03)


@pytest.mark.parametrize(
    ("gpu", "gib"), [("l40s-48gb", 0.0), ("h100-80gb-sxm5", 0.0), ("rtx5090-32gb", 0.25)]
)
def test_the_first_graph_shows_on_blackwell(gpu: str, gib: float) -> None:
    """Qwen3.5-4B and 9B on cards of Ada with 0.22: what the captures take, no more."""
    terms, version = engine_tables()["vllm"]["graphs"], rules("vllm", "0.22.0")
    recurrent = facts(kinds=(LayerKind("state", 24, 0, state_bytes=1 << 20, state_kind="gdn"),), name="")
    found = _vllm_graphs.graphs(recurrent, find_gpu(gpu), version, terms, tokens=2048, sequences=256)
    assert found.first_bytes / GIB == pytest.approx(gib, abs=0.01)


def test_towers_turn_in_their_own_type_since_0_17() -> None:
    """Qwen3.5-9B on an L40S, 0.19: 2.0 GiB in all beside weights and pool, where a tower alone took 2.6 before."""
    tower = facts(
        multimodal=True, model_type="qwen3_5", vision_hidden_size=1152, vision_mlp_rows=4304, vision_mlp_width=4304,
        name="",
    )  # fmt: skip
    found = [
        _vllm_encoder.encoder_run(tower, rules("vllm", version), 8192, 1).peak_bytes / GIB
        for version in ("0.16.0", "0.19.0", "0.25.1")
    ]
    assert found == pytest.approx([2.58, 1.88, 1.88], abs=0.01)


@pytest.mark.parametrize(
    ("version", "gpus", "wider"), [("0.9.2", 1, False), ("0.19.0", 2, False), ("0.25.0", 2, True)]
)
def test_a_group_not_measured_widens_the_pool(version: str, gpus: int, wider: bool) -> None:
    """NCCL's share was 2.2 GiB on 0.19 and 0.6 on 0.26: between them either may be."""
    alone = launched(served(QWEN3_14B), a_gpu(), version)
    group = launched(served(QWEN3_14B), a_gpu(), version, tensor_parallel=gpus)
    assert (group.pool_uncertainty_bytes - alone.pool_uncertainty_bytes > GIB) is wider


def test_a_given_pool_leaves_its_errors_to_what_stays_free() -> None:
    model = served(QWEN3_14B)
    sized = launched(model, a_gpu(), "0.33.0")
    given = launched(model, a_gpu(), "0.33.0", kv_cache_memory_bytes=sized.kv_pool_bytes)
    assert given.pool_uncertainty_bytes == 0
    assert given.uncertainty_bytes > sized.uncertainty_bytes


def test_versions_that_nobody_read_are_not_refused_with_certainty() -> None:
    """Graphs took 1.1 and 3.7 GiB more than computed in two logs of 0.8."""
    old, read = (
        launched(served(QWEN3_14B), a_gpu(), version, memory_fraction=0.95, max_num_seqs=256)
        for version in ("0.8.5", "0.18.0")
    )
    assert old.uncertainty_bytes - read.uncertainty_bytes > 3 * GIB
    eager = launched(
        served(QWEN3_14B), a_gpu(), "0.8.5", memory_fraction=0.95, max_num_seqs=256, enforce_eager=True
    )
    assert old.uncertainty_bytes - eager.uncertainty_bytes > 3 * GIB


@pytest.mark.parametrize(("version", "concurrency"), [("0.27.1", 24.0), ("0.28.0", 22.5)])
def test_hybrids_cache_prefixes_by_default_since_0_28(version: str, concurrency: float) -> None:
    """A log of 0.27.1: 51.7 GiB for a 27B hybrid are 786,432 tokens, 24.00x of 32,768; caching takes a block more."""
    pool = launched(
        served(QWEN35_27B),
        a_gpu(140),
        version,
        32768,
        kv_cache_memory_bytes=round(51.7 * GIB),
        max_num_seqs=64,
    )
    assert pool.max_concurrency == pytest.approx(concurrency)


@pytest.mark.parametrize(
    ("version", "flags", "starts"),
    [
        ("0.27.1", {}, False),
        ("0.27.1", {"max_num_seqs": 256}, True),
        ("0.27.1", {"enforce_eager": True}, True),
        ("0.19.0", {}, True),
    ],
)
def test_graphs_of_hybrids_ask_for_a_block_each(version: str, flags: dict[str, Any], starts: bool) -> None:
    """A log of a 27B hybrid on an H100, 0.27.1: 1,024 sequences, the default, refused; 256 started."""
    launch = launched(served(QWEN35_27B), a_gpu(), version, **flags)
    assert launch.starts == starts
    assert ("exceeds available Mamba cache blocks" in launch.refusal) == (not starts)
    assert (launch.startable_sequences or 0) > 256 or starts


def test_what_a_hybrid_starts_with_is_less_than_its_blocks_by_the_error() -> None:
    launch = launched(served(QWEN35_27B), a_gpu(), "0.27.1")
    held = int(launch.refusal.rsplit(" ", 1)[1])
    assert launch.startable_sequences is not None
    assert held - launch.startable_sequences == pytest.approx(
        launch.pool_uncertainty_bytes / launch.kv_pool_bytes * held, abs=1
    )
