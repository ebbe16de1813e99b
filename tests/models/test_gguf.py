from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import pytest

from soong.errors import ConfigError
from soong.models.architecture import AttentionCache, LatentCache, StateCache
from soong.models.gguf import GGML_TYPES, read_gguf
from soong.models.gguf_architecture import read_architecture, read_quantization
from soong.models.quantization import checkpoint_bytes
from tests.support.gguf_writer import text, value_bytes, write_gguf

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = 4
META: dict[str, Any] = {
    "general.architecture": "qwen3",
    "general.file_type": 15,
    "qwen3.block_count": LAYERS,
    "qwen3.context_length": 40960,
    "qwen3.embedding_length": 256,
    "qwen3.feed_forward_length": 512,
    "qwen3.attention.head_count": 4,
    "qwen3.attention.head_count_kv": 2,
    "qwen3.attention.key_length": 64,
    "qwen3.attention.value_length": 64,
    "tokenizer.ggml.tokens": [f"token{number}" for number in range(5000)],
    "tokenizer.ggml.scores": list(range(5000)),
    "general.tags": ["a", "b"],
}
Tensor = tuple[str, tuple[int, ...], str]


def layer(number: int, down: str = "Q4_K") -> list[Tensor]:
    return [
        (f"blk.{number}.attn_norm.weight", (256,), "F32"),
        (f"blk.{number}.attn_q.weight", (256, 256), "Q4_K"),
        (f"blk.{number}.attn_k.weight", (128, 256), "Q4_K"),
        (f"blk.{number}.attn_v.weight", (128, 256), "Q6_K"),
        (f"blk.{number}.attn_output.weight", (256, 256), "Q4_K"),
        (f"blk.{number}.ffn_gate.weight", (512, 256), "Q4_K"),
        (f"blk.{number}.ffn_up.weight", (512, 256), "Q4_K"),
        (f"blk.{number}.ffn_down.weight", (256, 512), down),
    ]


TENSORS: list[Tensor] = [
    ("token_embd.weight", (5000, 256), "Q8_0"),
    ("output_norm.weight", (256,), "F32"),
    *(tensor for number in range(LAYERS) for tensor in layer(number, "Q6_K" if number < 2 else "Q4_K")),
]


def meta_of(name: str, **values: Any) -> dict[str, Any]:
    base = {key: value for key, value in META.items() if not key.startswith("tokenizer")}
    renamed = {key.replace("qwen3.", f"{name}."): value for key, value in base.items()}
    own = {f"{name}.{key.replace('__', '.')}": value for key, value in values.items()}
    return {**renamed, "general.architecture": name, **own}


class TestTable:
    @pytest.mark.parametrize("version", [2, 3])
    def test_bytes_and_numbers(self, tmp_path: Path, version: int) -> None:
        file = read_gguf(write_gguf(tmp_path / "x.gguf", META, TENSORS, version=version))
        numbers = 5000 * 256 + 256 + LAYERS * (256 + 2 * 256 * 256 + 2 * 128 * 256 + 3 * 512 * 256)
        assert file.parameters == numbers
        assert file.bytes_by_type["Q8_0"] == 5000 * 256 // 32 * 34
        assert file.bytes_by_type["Q6_K"] == (4 * 128 * 256 + 2 * 256 * 512) // 256 * 210
        assert file.bytes_by_type["F32"] == 5 * 256 * 4
        assert file.label == "Q4_K_M"
        assert file.metadata["tokenizer.ggml.tokens#"] == 5000

    def test_block_sizes_are_those_of_the_formats(self) -> None:
        """Bits of one number as llama.cpp's `quantize --help` and README state them."""
        published = {
            "Q4_0": 4.5, "Q8_0": 8.5, "Q2_K": 2.625, "Q3_K": 3.4375, "Q4_K": 4.5, "Q5_K": 5.5, "Q6_K": 6.5625,
            "IQ2_XXS": 2.0625, "IQ2_XS": 2.3125, "IQ3_XXS": 3.0625, "IQ1_S": 1.5625, "IQ4_NL": 4.5,
            "IQ3_S": 3.4375, "IQ4_XS": 4.25, "IQ1_M": 1.75, "TQ1_0": 1.6875, "TQ2_0": 2.0625, "MXFP4": 4.25,
            "Q2_0": 2.25,
        }  # fmt: skip
        bits = {name: size * 8 / block for name, block, size in GGML_TYPES.values()}
        assert {name: bits[name] for name in published} == published

    def test_a_split_model_is_read_whole(self, tmp_path: Path) -> None:
        write_gguf(tmp_path / "m-00001-of-00002.gguf", META, TENSORS[:10])
        second = write_gguf(tmp_path / "m-00002-of-00002.gguf", {"split.no": 1}, TENSORS[10:])
        whole = read_gguf(write_gguf(tmp_path / "x.gguf", META, TENSORS))
        assert read_gguf(second).weights_bytes == whole.weights_bytes
        assert read_gguf(second).architecture_name == "qwen3"
        second.unlink()
        with pytest.raises(ConfigError, match="m-00002-of-00002"):
            read_gguf(tmp_path / "m-00001-of-00002.gguf")

    def test_a_changed_file_is_read_again(self, tmp_path: Path) -> None:
        path = write_gguf(tmp_path / "x.gguf", META, TENSORS)
        before = read_gguf(path)
        assert read_gguf(path) is before
        write_gguf(path, META, TENSORS[:-1])
        assert read_gguf(path).parameters == before.parameters - 512 * 256


class TestHostileFiles:
    HEAD = b"GGUF" + struct.pack("<I", 3)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"GG",
            b"GGUF",
            b"PK\x03\x04" + bytes(100),
            b"GGUF" + struct.pack("<I", 1) + bytes(64),
            b"GGUF" + struct.pack(">I", 3) + bytes(64),
            HEAD + struct.pack("<QQ", 1 << 60, 0),
            HEAD + struct.pack("<QQ", 0, 1 << 60),
            HEAD + struct.pack("<QQ", 0, 0),
            HEAD + struct.pack("<QQ", 0, 1) + struct.pack("<Q", 1 << 62),
            HEAD + struct.pack("<QQ", 0, 1) + text("k") + struct.pack("<I", 99),
            HEAD + struct.pack("<QQ", 0, 1) + text("k") + struct.pack("<IQ", 8, 1 << 50),
            HEAD + struct.pack("<QQ", 0, 1) + text("k") + struct.pack("<IIQ", 9, 4, 1 << 60),
            HEAD + struct.pack("<QQ", 0, 1) + text("k") + struct.pack("<IIQ", 9, 8, 1000),
            HEAD + struct.pack("<QQ", 0, 1) + text("k") + struct.pack("<IIQ", 9, 9, 1) + bytes(200),
            HEAD + struct.pack("<QQ", 1, 0) + text("t") + struct.pack("<I", 9) + bytes(200),
            HEAD + struct.pack("<QQ", 1, 0) + text("t") + struct.pack("<IQIQ", 1, 4, 99, 0),
            HEAD + struct.pack("<QQ", 1, 0) + text("t") + struct.pack("<IQIQ", 1, 0, 0, 0),
            HEAD + struct.pack("<QQ", 1, 0) + text("t") + struct.pack("<IQQIQ", 2, 1 << 40, 1 << 40, 0, 0),
            HEAD + struct.pack("<QQ", 1, 0) + text("t") + struct.pack("<IQIQ", 1, 33, 2, 0) + bytes(200),
            HEAD + struct.pack("<QQ", 1, 0) + text("t") + struct.pack("<IQIQ", 1, 4, 0, 1 << 63) + bytes(200),
            HEAD + struct.pack("<QQ", 2, 0) + 2 * (text("t") + struct.pack("<IQIQ", 1, 4, 0, 0)) + bytes(200),
            HEAD + struct.pack("<QQ", 0, 1) + text("general.alignment") + value_bytes(0) + bytes(64),
        ],
    )
    def test_are_refused(self, tmp_path: Path, data: bytes) -> None:
        path = tmp_path / "x.gguf"
        path.write_bytes(data)
        with pytest.raises(ConfigError, match=r"x\.gguf"):
            read_gguf(path)

    def test_a_download_that_was_cut_off(self, tmp_path: Path) -> None:
        path = write_gguf(tmp_path / "x.gguf", META, TENSORS)
        size = path.stat().st_size
        for kept in (size - 1000, 5000, 30):
            with path.open("r+b") as file:
                file.truncate(kept)
            with pytest.raises(ConfigError, match="is cut off"):
                read_gguf(path)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("qwen3.block_count", 1 << 40),
            ("qwen3.block_count", "four"),
            ("qwen3.attention.head_count_kv", [1, 2]),
            ("qwen3.attention.head_count_kv", [-1] * LAYERS),
            ("qwen3.embedding_length", 1.5),
            ("general.architecture", 3),
        ],
    )
    def test_absurd_metadata(self, tmp_path: Path, key: str, value: object) -> None:
        file = read_gguf(write_gguf(tmp_path / "x.gguf", {**META, key: value}, TENSORS))
        with pytest.raises(ConfigError):
            read_architecture(file)


class TestArchitecture:
    def read(self, tmp_path: Path, meta: dict[str, Any], tensors: list[Tensor]) -> Any:
        file = read_gguf(write_gguf(tmp_path / "x.gguf", meta, tensors))
        architecture = read_architecture(file)
        assert architecture.parameters == file.parameters
        assert checkpoint_bytes(architecture, read_quantization(file)) == file.weights_bytes
        return architecture

    def test_a_dense_model(self, tmp_path: Path) -> None:
        found = self.read(tmp_path, META, TENSORS)
        assert found.caches == (AttentionCache(layers=4, kv_heads=2, key_dim=64, value_dim=64),)
        assert (found.context_limit_tokens, found.hidden_size, found.vocab_size) == (40960, 256, 5000)
        assert (found.attention_heads, found.intermediate_size) == (4, 512)

    def test_windows_follow_the_models_rule(self, tmp_path: Path) -> None:
        found = self.read(tmp_path, meta_of("gemma2", attention__sliding_window=128), TENSORS)
        assert {(cache.window, cache.layers) for cache in found.caches} == {(128, 2), (0, 2)}

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("mellum", {(128, 3), (0, 1)}),
            ("lfm2", {(128, 4)}),
            ("phi3", {(0, 4)}),
            ("exaone4", {(0, 4)}),
            ("gpt-oss", {(128, 2), (0, 2)}),
        ],
    )
    def test_windows_of_other_models(self, tmp_path: Path, name: str, expected: set[tuple[int, int]]) -> None:
        """Source: llama.cpp `src/models/`, load_swa_pattern; EXAONE 4 slides in its 64-layer model alone."""
        found = self.read(tmp_path, meta_of(name, attention__sliding_window=128), TENSORS)
        assert {(cache.window, cache.layers) for cache in found.caches} == expected

    def test_windows_follow_the_files_own_list(self, tmp_path: Path) -> None:
        pattern = [True, True, True, False]
        meta = meta_of(
            "gemma4",
            attention__sliding_window=64,
            attention__sliding_window_pattern=pattern,
            attention__key_length_swa=32,
            attention__value_length_swa=32,
            attention__head_count_kv=[2, 2, 2, 1],
        )
        sliding, full = self.read(tmp_path, meta, TENSORS).caches
        assert sliding == AttentionCache(layers=3, kv_heads=2, key_dim=32, value_dim=32, window=64)
        assert full == AttentionCache(layers=1, kv_heads=1, key_dim=64, value_dim=64)

    def test_experts_are_counted_and_few_are_active(self, tmp_path: Path) -> None:
        tensors = [
            *TENSORS,
            ("blk.0.ffn_up_exps.weight", (8, 64, 256), "Q4_K"),
            ("blk.0.ffn_gate_inp.weight", (8, 256), "F32"),
        ]
        found = self.read(tmp_path, meta_of("qwen3moe", expert_count=8, expert_used_count=2), tensors)
        assert found.parameters - found.active_parameters == 6 * 64 * 256
        assert (found.experts, found.experts_per_token) == (8, 2)

    def test_latent_attention(self, tmp_path: Path) -> None:
        tensors: list[Tensor] = [("token_embd.weight", (100, 256), "F16")]
        tensors += [(f"blk.{number}.attn_kv_a_mqa.weight", (576, 256), "F16") for number in range(LAYERS)]
        meta = meta_of(
            "deepseek2",
            attention__kv_lora_rank=512,
            attention__key_length_mla=192,
            attention__head_count_kv=1,
            rope__dimension_count=64,
        )
        found = self.read(tmp_path, meta, tensors)
        assert found.caches == (LatentCache(layers=4, latent_dim=512, rope_dim=64),)

    def test_a_hybrid_of_attention_and_state(self, tmp_path: Path) -> None:
        """Jamba's figures by llama.cpp: (4 - 1) × 512 convolution numbers and 16 × 512 of state a layer."""
        tensors: list[Tensor] = [("token_embd.weight", (100, 256), "F16"), *layer(3)]
        for number in range(3):
            tensors += [
                (f"blk.{number}.ssm_in.weight", (1024, 256), "Q4_K"),
                (f"blk.{number}.ssm_x.weight", (48, 512), "F32"),
            ]
        meta = meta_of(
            "jamba",
            attention__head_count_kv=[0, 0, 0, 2],
            ssm__conv_kernel=4,
            ssm__inner_size=512,
            ssm__state_size=16,
            ssm__time_step_rank=16,
        )
        attention, state = self.read(tmp_path, meta, tensors).caches
        assert attention.layers == 1
        assert isinstance(state, StateCache)
        assert (state.kind, state.layers) == ("mamba1", 3)
        assert [tensor.shape for tensor in state.tensors] == [(3 * 512,), (16 * 512,)]
        assert {tensor.dtype for tensor in state.tensors} == {"float32"}

    def test_layers_that_predict_further_tokens_are_not_served(self, tmp_path: Path) -> None:
        found = self.read(tmp_path, meta_of("glm4moe", nextn_predict_layers=1), TENSORS)
        assert found.caches[0].layers == 3
        assert found.mtp_layers == 1
