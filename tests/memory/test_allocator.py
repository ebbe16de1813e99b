"""What the driver gives away for a model's tensors, against start-up logs and PyTorch's own rules."""

from __future__ import annotations

import pytest

from soong.memory.allocator import reused_rounding_bytes, rounding_bytes, segments_bytes
from soong.memory.weights import weights_per_gpu
from soong.models.config_json import Config
from soong.models.families import read_architecture
from soong.models.quantization import read_quantization

MIB, GIB = 1 << 20, 1 << 30
QWEN = {"model_type": "qwen3", "vocab_size": 151936, "head_dim": 128, "max_position_embeddings": 40960}


def test_small_tensors_share_segments_of_two_mebibytes() -> None:
    assert segments_bytes([(100_000, 20)]) == 2 * MIB
    assert segments_bytes([(100_000, 21)]) == 4 * MIB


def test_a_middling_tensor_takes_a_corner_of_twenty_mebibytes() -> None:
    assert segments_bytes([(8 * MIB, 1)]) == 20 * MIB
    assert segments_bytes([(8 * MIB, 2)]) == 20 * MIB
    assert segments_bytes([(8 * MIB, 3)]) == 40 * MIB


def test_what_is_left_of_a_segment_takes_the_next_tensor_that_fits() -> None:
    assert segments_bytes([(8 * MIB, 2), (4 * MIB, 2)]) == 40 * MIB
    assert segments_bytes([(8 * MIB, 2), (4 * MIB, 1)]) == 20 * MIB


def test_large_tensors_are_rounded_up_to_two_mebibytes() -> None:
    assert segments_bytes([(43 * MIB, 2)]) == 88 * MIB
    assert rounding_bytes(43 * MIB) == MIB
    assert rounding_bytes(42 * MIB + 1) == 0  # the rest is large enough to be split off and used


def test_blocks_from_the_split_limit_on_are_used_whole() -> None:
    limit = 20 * MIB
    assert rounding_bytes(42 * MIB + 1, whole_from_bytes=limit) == 2 * MIB - 1
    assert rounding_bytes(18 * MIB + 1, whole_from_bytes=limit) == 0
    assert rounding_bytes(20 * MIB, whole_from_bytes=limit) == 0


def test_a_tensor_takes_the_whole_block_that_a_slightly_larger_one_left() -> None:
    """Qwen3-8B's layer as its file has it: keys of 24 MiB go where the output projection's 32 MiB were."""
    limit = 20 * MIB
    layer = [(96, 48), (192, 96), (32, 16), (48, 24)]
    assert reused_rounding_bytes([(a * MIB, b * MIB) for a, b in layer], whole_from_bytes=limit) == 8 * MIB
    assert reused_rounding_bytes([(96 * MIB, 48 * MIB)], whole_from_bytes=limit) == 0
    assert reused_rounding_bytes([(18 * MIB, 9 * MIB)], whole_from_bytes=limit) == 0


@pytest.mark.parametrize(
    ("sizes", "tensor_parallel", "printed_gib"),
    [
        # github.com/cl-vv-h/SGLang_Tutor .claude/skills/clean-startup-log/SKILL.md: Qwen3-8B
        ((4096, 12288, 36, 32, 8, False), 1, 15.28),
        # github.com/sgl-project/sglang/pull/22537: Qwen3-32B on B200, 0.5.10
        ((5120, 25600, 64, 64, 8, False), 4, 15.50),
    ],
)
def test_sglang_prints_the_memory_that_loading_took(
    sizes: tuple[int, int, int, int, int, bool], tensor_parallel: int, printed_gib: float
) -> None:
    names = (
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "tie_word_embeddings",
    )  # fmt: skip
    assert _loaded_gib({**QWEN, **dict(zip(names, sizes, strict=True))}, tensor_parallel) == pytest.approx(
        printed_gib, abs=0.005
    )


def test_sglang_s_figure_of_a_small_model_is_two_percent_above_its_tensors() -> None:
    # github.com/cli991/qwctest sglang.txt: Qwen2.5-3B-Instruct, 5.88 GB printed of 5.75 GiB in tensors
    config = {
        "model_type": "qwen2", "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 11008,
        "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2,
        "tie_word_embeddings": True, "max_position_embeddings": 32768,
    }  # fmt: skip
    assert _loaded_gib(config, 1) == pytest.approx(5.88, abs=0.005)


def _loaded_gib(values: dict[str, object], tensor_parallel: int) -> float:
    config = Config(values)
    architecture = read_architecture(config)
    share = weights_per_gpu(
        architecture,
        read_quantization(config, dtype=architecture.dtype),
        tensor_parallel=tensor_parallel,
        engine="sglang",
        engine_version="0.5.10",
    )
    return share.loaded_bytes / GIB
