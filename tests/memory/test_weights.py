"""The weights of one GPU against what vLLM allocates and prints."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from soong.memory.dividing import tensor_parallel_problem
from soong.memory.weights import WeightShare, batch_buffer_bytes, weights_per_gpu
from soong.models.config_json import Config
from soong.models.families import read_architecture
from soong.models.quantization import Quantization, read_quantization, uniform
from soong.models.resolve import resolve

if TYPE_CHECKING:
    from soong.models.architecture import Architecture

GOLDEN: dict[str, Any] = tomllib.loads(
    (Path(__file__).parents[1] / "golden" / "weights.toml").read_text("utf-8")
)


def model(row: dict[str, Any]) -> tuple[Architecture, Quantization]:
    shape = dict(GOLDEN[row["shape"]])
    if "quantization" in row:
        shape["quantization_config"] = row["quantization"]
    config = Config(shape)
    architecture = read_architecture(config)
    return architecture, read_quantization(config, dtype=architecture.dtype)


def share(row: dict[str, Any], **more: Any) -> WeightShare:
    options = {"tensor_parallel": 1, "engine": "vllm", "engine_version": row.get("version", "0.33.0"), **more}
    return weights_per_gpu(*model(row), **options)


@pytest.mark.parametrize("row", GOLDEN["allocated"], ids=lambda row: f"{row['shape']}-{row['ranks']['1']}")
def test_each_rank_holds_the_bytes_that_vllm_allocates(row: dict[str, Any]) -> None:
    held = {size: share(row, tensor_parallel=int(size)).total_bytes for size in row["ranks"]}
    assert held == row["ranks"]


@pytest.mark.parametrize("row", GOLDEN["printed"], ids=lambda row: f"{row['shape']}-{row['gib']}")
def test_loaded_bytes_are_what_the_log_printed(row: dict[str, Any]) -> None:
    capability = tuple(row["capability"]) if "capability" in row else None
    loaded = share(row, compute_capability=capability).loaded_bytes / 2**30
    assert loaded == pytest.approx(row["gib"], rel=0.003)  # two digits are printed


CATALOGUED: list[tuple[str, dict[str, Any], float]] = [
    # The vision tower is packed with the rest: vLLM pull request 35289, then the newest release 0.16.0.
    ("Qwen/Qwen3.5-27B", {"engine_version": "0.16.0", "packed": "fp8"}, 28.0),
    # Gemma's class hands its tower nothing: 0.17.2rc1 with `--quantization fp8`.
    ("google/gemma-4-31B-it", {"engine_version": "0.17.2", "packed": "fp8"}, 31.47),
    # Whole segments: 0.11.0rc2 on an MI300X.
    ("google/gemma-3-27b-it", {"engine_version": "0.11.0", "vendor": "amd"}, 51.7891),
    # An MI300X too, where segments and tensors differ little.
    ("Qwen/Qwen2.5-14B-Instruct", {"engine_version": "0.17.1", "vendor": "amd"}, 27.63),
    ("Qwen/Qwen3-Next-80B-A3B-Instruct", {"engine_version": "0.10.2", "tensor_parallel": 2}, 74.2812),
    ("openai/gpt-oss-120b", {"engine_version": "0.10.1"}, 65.9651),  # vLLM issue 23278, an H100: Marlin
    # H100s in Triton: issue 33155 with the loaded scales kept, a log of 0.19 with tiles of 64, one without either.
    ("openai/gpt-oss-120b", {"engine_version": "0.14.1"}, 64.38),
    ("openai/gpt-oss-20b", {"engine_version": "0.19.0", "tensor_parallel": 2}, 7.01),
    ("openai/gpt-oss-120b", {"engine_version": "0.25.1"}, 61.29),
    ("RedHatAI/Qwen3-Next-80B-A3B-Instruct-NVFP4", {"engine_version": "0.15.0"}, 44.31),  # vLLM issue 33544
    ("google/gemma-4-26B-A4B", {"engine_version": "0.19.0", "compute_capability": (8, 0)}, 48.5),
]


@pytest.mark.parametrize(
    ("name", "options", "gib"), CATALOGUED, ids=[f"{name}-{gib}" for name, _, gib in CATALOGUED]
)
def test_loaded_bytes_of_the_catalogue_are_what_logs_printed(
    name: str, options: dict[str, Any], gib: float
) -> None:
    found = resolve(name, allow_network=False)
    assert found.architecture is not None
    packed = options.get("packed")
    held = weights_per_gpu(
        found.architecture,
        uniform(packed, on_loading=True) if packed else found.quantization,
        **{"tensor_parallel": 1, "engine": "vllm", **{k: v for k, v in options.items() if k != "packed"}},
    )
    assert held.loaded_bytes / 2**30 == pytest.approx(gib, rel=0.0045)


@pytest.mark.parametrize(
    ("name", "version", "packed", "gib"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "0.19.0", None, 14.25),
        ("Qwen/Qwen2.5-7B-Instruct", "0.24.0", None, 14.29),  # on an RTX 4090, and 0.22.0 on an L40S
        ("google/gemma-4-31B-it", "0.26.0", None, 58.99),  # on a B300
        ("Qwen/Qwen3-8B", "0.28.0", None, 15.27),  # on an L4, as the next
        ("Qwen/Qwen3-8B", "0.28.0", "fp8", 9.06),
    ],
)
def test_blocks_are_whole_while_a_model_loads_since_0_21(
    name: str, version: str, packed: Any, gib: float
) -> None:
    found = resolve(name, allow_network=False)
    assert found.architecture is not None
    quantization = uniform(packed, on_loading=True) if packed else found.quantization
    held = weights_per_gpu(
        found.architecture, quantization, tensor_parallel=1, engine="vllm", engine_version=version
    )
    assert held.loaded_bytes / 2**30 == pytest.approx(gib, abs=0.025 if packed else 0.02)


@pytest.mark.parametrize(
    ("version", "tensor_parallel", "batch_tokens", "gib"),
    [
        ("0.22.0", 2, 16384, 74.35),
        ("0.23.0", 2, 8192, 74.08),
        ("0.25.1", 4, 8192, 38.09),
        ("0.32.0", 8, 8192, 19.79),
    ],
)
def test_deepseek_v4_keeps_room_for_a_batch(
    version: str, tensor_parallel: int, batch_tokens: int, gib: float
) -> None:
    """Of V4-Flash: picked tokens, and before 0.27 hidden states for drafts."""
    architecture = resolve("deepseek-ai/DeepSeek-V4-Flash", allow_network=False)
    assert architecture.architecture is not None
    held = weights_per_gpu(
        architecture.architecture,
        architecture.quantization,
        tensor_parallel=tensor_parallel,
        engine="vllm",
        engine_version=version,
    )
    beside = batch_tokens * batch_buffer_bytes(architecture.architecture, "vllm", version)
    assert (held.loaded_bytes + beside) / 2**30 == pytest.approx(gib, abs=0.09)


@pytest.mark.parametrize(("version", "drafted"), [("0.26.1", 4 * 4096), ("0.27.0", 0)])
def test_deepseek_v4_keeps_hidden_states_for_drafts_until_0_26(version: str, drafted: int) -> None:
    """`models/deepseek_v4/nvidia/model.py` _mtp_hidden_buffer: four streams of 4,096 numbers, whether a draft runs or
    not; 0.27 asks needs_mtp_hidden_states."""
    found = resolve("deepseek-ai/DeepSeek-V4-Flash", allow_network=False).architecture
    assert found is not None
    now = batch_buffer_bytes(found, "vllm", "0.32.0")
    assert batch_buffer_bytes(found, "vllm", version) - now == 2 * drafted


def test_gemma_made_keys_for_layers_that_share_them_until_0_29() -> None:
    """Gemma 4 E4B: vLLM 0.22.1 printed 15.18 GiB and 0.19.2rc1 15.16, buffers of 2,048 tokens among them.

    Of 42 layers the last 18 read another's cache, three of them with heads of 512 numbers, the others of 256; each
    of their two heads has a row for every number, of keys and of values, and one norm (vLLM pull request 54917).
    """
    rows = (
        (Path(__file__).parents[2] / "benchmarks/accuracy/published/configs.jsonl").read_text().splitlines()
    )
    found = next(row for row in map(json.loads, rows) if row["repository"] == "google/gemma-4-E4b-it")
    config = Config(found["config"])
    architecture = read_architecture(config)
    storage = read_quantization(config, dtype=architecture.dtype)
    before, after = (
        weights_per_gpu(architecture, storage, tensor_parallel=1, engine="vllm", engine_version=version)
        for version in ("0.22.1", "0.29.0")
    )
    numbers = 3 * 512 + 15 * 256
    assert before.total_bytes - after.total_bytes == 2 * (numbers * 2 * 2 * 2560 + numbers)
    buffers = 2 * 2048 * architecture.input_buffer_numbers
    assert (before.loaded_bytes + buffers) / 2**30 == pytest.approx(15.17, abs=0.02)


def test_rocm_printed_whole_segments_until_0_27() -> None:
    row = {"shape": "llama-8b"}
    older, newer = (share(row, vendor="amd", engine_version=version) for version in ("0.17.1", "0.28.0"))
    assert older.total_bytes == newer.total_bytes
    assert older.loaded_bytes > newer.loaded_bytes == share(row, engine_version="0.28.0").loaded_bytes


def test_parts_add_up() -> None:
    held = share({"shape": "llama-8b"}, tensor_parallel=8)
    assert sum(held.parts.values()) == held.total_bytes
    assert held.parts["embedding"] == 128256 * 4096 * 2 // 8


def test_key_and_value_heads_are_repeated_beyond_their_number() -> None:
    held = share({"shape": "llama-8b"}, tensor_parallel=16)
    one_head = 4096 * 128 * 2 * 32
    queries_and_output = 2 * 4096 * 4096 * 2 * 32 // 16
    assert held.parts["attention"] == queries_and_output + 2 * one_head + 32 * 16
    assert any("8 key-value heads" in note for note in held.notes)


def test_a_vocabulary_is_padded_to_64_rows() -> None:
    config = Config({**GOLDEN["mistral-7b"], "vocab_size": 32001})
    held = weights_per_gpu(
        read_architecture(config), uniform("bf16"), tensor_parallel=2, engine="vllm", engine_version="0.33.0"
    )
    assert held.parts["lm_head"] == 32064 // 2 * 4096 * 2


def test_float32_checkpoints_are_loaded_in_16_bits() -> None:
    config = Config({**GOLDEN["llama-1b"], "torch_dtype": "float32"})
    held = weights_per_gpu(
        read_architecture(config), uniform("fp32"), tensor_parallel=1, engine="vllm", engine_version="0.33.0"
    )
    assert held.total_bytes == share({"shape": "llama-1b"}).total_bytes


def test_marlin_pads_nvfp4_experts_where_there_are_no_fp4_tensor_cores() -> None:
    row = {"shape": "gpt-oss-20b", "quantization": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}
    hopper = share(row, tensor_parallel=4, compute_capability=(9, 0))  # 720 becomes 768
    assert hopper.padding_bytes / hopper.parts["experts"] == pytest.approx(48 / 720, rel=0.01)
    blackwell = share(row, tensor_parallel=4, compute_capability=(10, 0))
    assert blackwell.padding_bytes < hopper.padding_bytes / 100  # tiles of the linear layers' scales
    assert blackwell.total_bytes == hopper.total_bytes


def test_packed_latent_attention_is_unpacked_for_decoding() -> None:
    held = share({"shape": "deepseek-r1"}, tensor_parallel=8)
    rotary = 163840 * 64 * 2
    assert held.buffers_bytes == rotary + 61 * 128 * (128 + 128) * 512 * 2 // 8


def test_pipeline_stages_divide_layers_and_put_the_ends_on_the_ends() -> None:
    whole = share({"shape": "llama-8b"})
    stage = share({"shape": "llama-8b"}, pipeline_parallel=2)
    assert stage.total_bytes == pytest.approx(whole.total_bytes / 2, rel=0.001)


def test_the_rotary_table_stands_beside_the_weights() -> None:
    assert share({"shape": "llama-8b"}).buffers_bytes == 131072 * 128 * 2


@pytest.mark.parametrize(
    ("shape", "size", "reason"),
    [
        ("llama-8b", 8, None),
        ("llama-8b", 3, "32 attention heads cannot be divided among 3 GPUs"),
        ("llama-8b", 64, "32 attention heads cannot be divided among 64 GPUs"),
    ],
)
def test_sizes_that_do_not_divide_are_refused_in_words(shape: str, size: int, reason: str | None) -> None:
    architecture, quantization = model({"shape": shape})
    assert tensor_parallel_problem(architecture, size, quantization) == reason


def test_scale_blocks_must_not_be_cut() -> None:
    config = Config({**GOLDEN["llama-8b"], "intermediate_size": 11008})
    blocks = read_quantization(
        Config({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}),
        dtype="bfloat16",
    )
    problem = tensor_parallel_problem(read_architecture(config), 4, blocks)
    assert problem == "`gate_proj` keeps 2,752 columns a GPU, which cuts its quantization groups of 128"
