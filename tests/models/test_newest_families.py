"""Families whose parameters vLLM's own classes (0.32) built on an H100, held to a millionth and to the token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from soong.memory.engines._vllm_pool import PoolRules, build_pool
from soong.memory.kv_cache import layer_kinds
from soong.memory.weights import weights_per_gpu
from soong.models.config_json import Config
from soong.models.families import read_architecture
from soong.models.quantization import unquantised

if TYPE_CHECKING:
    from soong.models.architecture import Architecture

POOL_BYTES, IN_FLIGHT_TOKENS = 40 << 30, 2 * 8192


def inkling(
    hidden: int, layers: int, heads: int, local_kv_heads: int, dense: int, width: int
) -> dict[str, Any]:
    return {
        "architectures": ["InklingForConditionalGeneration"],
        "model_type": "inkling_mm_model",
        "dtype": "bfloat16",
        "text_config": {
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "vocab_size": 201024,
            "num_attention_heads": heads,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "d_rel": 16,
            "rel_extent": 1024,
            "local_layer_ids": [layer for layer in range(layers) if (layer + 1) % 6],
            "dense_mlp_idx": 2,
            "sconv_kernel_size": 4,
            "swa_num_attention_heads": heads,
            "swa_num_key_value_heads": local_kv_heads,
            "sliding_window_size": 512,
            "n_routed_experts": 256,
            "num_experts_per_tok": 6,
            "n_shared_experts": 2,
            "dense_intermediate_size": dense,
            "intermediate_size": width,
            "use_gate_bias": True,
            "use_global_scale": True,
            "use_embed_norm": True,
        },
        "audio_config": {
            "decoder_dmodel": hidden,
            "n_mel_bins": 80,
            "mel_vocab_size": 16,
            "use_audio_norm": True,
        },
        "vision_config": {
            "decoder_dmodel": hidden,
            "patch_size": 40,
            "temporal_patch_size": 2,
            "n_channels": 3,
            "n_layers": 4,
            "use_vision_norm": True,
        },
    }


SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 16,
}
BAGEL = {
    "model_type": "bagel",
    "dtype": "bfloat16",
    "llm_config": {
        "model_type": "qwen2",
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "tie_word_embeddings": False,
    },
    "vit_config": SIGLIP,
}
MOSS = {
    "model_type": "moss_transcribe_diarize",
    "dtype": "bfloat16",
    "tie_word_embeddings": True,
    "text_config": {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
    "audio_config": {
        "num_mel_bins": 80,
        "d_model": 1024,
        "encoder_layers": 24,
        "encoder_attention_heads": 16,
        "encoder_ffn_dim": 4096,
        "max_source_positions": 1500,
    },
}
# A configuration written with its class's defaults is all that the next two need.
COSMOS = {
    "model_type": "cosmos3_edge",
    "dtype": "bfloat16",
    "text_config": {"model_type": "cosmos3_edge_text"},
    "vision_config": {"num_patches": 256},
}
FULL = {"head_dim": 512, "num_key_value_heads": 1}
EMBEDDING_GEMMA = {
    "model_type": "embedding_gemma2",
    "dtype": "bfloat16",
    "text_config": {
        "model_type": "embedding_gemma2_text",
        "per_layer_config": {"05": FULL, "11": FULL, "17": FULL, "23": FULL},
    },
}
INKLING = inkling(6144, 66, 64, 16, 24576, 3072)
INKLING_SMALL = inkling(4096, 42, 32, 8, 16384, 2048)


def read(config: dict[str, Any]) -> Architecture:
    return read_architecture(Config(config))


@pytest.mark.parametrize(
    ("config", "gpus", "weights_bytes"),
    [
        (INKLING, 1, 1894239107860),
        (INKLING, 8, 239285920532),
        (INKLING_SMALL, 1, 527451040244),
        (INKLING_SMALL, 8, 67570711028),
        (BAGEL, 1, 24311149568),
        (COSMOS, 1, 4835841440),
        (COSMOS, 2, 2419410480),
        (EMBEDDING_GEMMA, 1, 542005632),
        (EMBEDDING_GEMMA, 2, 286153088),
        (MOSS, 1, 1817076160),
        (MOSS, 8, 245320128),
    ],
)
def test_each_gpu_holds_the_bytes_of_the_engine_s_parameters(
    config: dict[str, Any], gpus: int, weights_bytes: int
) -> None:
    held = weights_per_gpu(
        read(config), unquantised("bfloat16"), tensor_parallel=gpus, engine="vllm", engine_version="0.32.0"
    )
    assert held.total_bytes == pytest.approx(weights_bytes, rel=3e-5)


@pytest.mark.parametrize(
    ("config", "gpus", "context_tokens", "pool_tokens"),
    [
        (INKLING, 1, 8192, 16144),
        (INKLING, 8, 32768, 252743),
        (INKLING_SMALL, 1, 8192, 27717),
        (INKLING_SMALL, 1, 32768, 54283),
        (INKLING_SMALL, 8, 32768, 434275),
    ],
)
def test_what_convolutions_look_back_on_takes_pages_of_its_own(
    config: dict[str, Any], gpus: int, context_tokens: int, pool_tokens: int
) -> None:
    kinds = layer_kinds(read(config), tensor_parallel=gpus, kv_dtype="bfloat16")
    pool = build_pool(kinds, PoolRules(True, 1.5, 2, 1, 16, 1))
    blocks = POOL_BYTES // pool.bytes_per_block
    found = blocks / pool.blocks_per_sequence(context_tokens, IN_FLIGHT_TOKENS) * context_tokens
    assert int(found) == pool_tokens


def test_inkling_small_is_as_large_as_its_published_nvfp4_files() -> None:
    # thinkingmachines/Inkling-Small-NVFP4: 170,733,074,592 bytes of tensors; routed experts in NVFP4 from the fourth
    # layer on, all else in 16 bits, eight layers of draft heads among it.
    drafts = {"num_nextn_predict_layers": 8, "local_layer_ids": [0, 2, 4, 5, 6, 7]}
    size = 0.0
    for weight in read({**INKLING_SMALL, "mtp_config": drafts}).weights:
        if not weight.stored:
            continue
        packed = weight.count // 40 * 39 if weight.part == "experts" else 0
        size += weight.elements * (packed * (4 + 8 / 16) / 8 + (weight.count - packed) * 2)
    assert size == pytest.approx(170_733_074_592, rel=1e-5)
