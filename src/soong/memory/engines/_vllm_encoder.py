"""vLLM's vision encoder in the profile run: how many items at their largest, and what they hold.

Read in vLLM 0.22 and 0.33: `multimodal/encoder_budget.py` (items: the budget, at least one item, divided by the tokens
of the largest), `models/qwen2_5_vl.py` (attention with rotary in float32), `models/*_vl.py`
get_image_size_with_most_features.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from soong.memory.engines._constants import engine_tables

if TYPE_CHECKING:
    from soong.memory.engines._facts import Facts

BF16_BYTES = 2


class EncoderRun(NamedTuple):
    """peak_bytes: pixels and the widest layer. kept_bytes: pixels and outputs, which stay. known: a table's row."""

    peak_bytes: int
    kept_bytes: int
    known: bool


NO_ENCODER = EncoderRun(0, 0, known=True)


@lru_cache(maxsize=1)
def _largest_items() -> dict[str, dict[str, Any]]:
    """The rows of `[[vllm.encoders]]`, by model type."""
    return {name: row for row in engine_tables()["vllm"]["encoders"] for name in row["model_types"]}


def least_batch_tokens(facts: Facts, rules: dict[str, Any]) -> int:
    """The tokens that a batch holds at least by default: one item, for models that attend to all of it at once.

    Source: vLLM 0.22 `engine/arg_utils.py _get_min_mm_batched_tokens`;
    `transformers_utils/model_arch_config_convertor.py Gemma4ModelArchConfigConvertor.is_mm_prefix_lm`.
    """
    row = _largest_items().get(facts.model_type) if facts.whole_items and rules["multimodal_floor"] else None
    return int(row["item_tokens"]) if row is not None and row.get("floor") else 0


def encoder_run(facts: Facts, rules: dict[str, Any], tokens: int, tensor_parallel: int) -> EncoderRun:
    """The encoder on as many of its largest items as a batch of `tokens` holds, at least one.

    Args:
        facts: the model on this GPU; the tower's sizes are whole.
        rules: of the engine's version (`data/engines.toml` vllm.since).
        tokens: the engine's max_num_batched_tokens.
        tensor_parallel: GPUs that share the tower's layers.
    """
    if not facts.multimodal:
        return NO_ENCODER
    row = _largest_items().get(facts.model_type)
    if row is None:
        terms = engine_tables()["vllm"]["activations"]
        kept = facts.hidden_size * tokens * BF16_BYTES + int(terms["vision_bytes"])
        return EncoderRun(0, kept, known=False)
    items = max(1, tokens // row["item_tokens"])
    patches = items * row["item_patches"]
    pixels = patches * row["patch_numbers"] * BF16_BYTES
    outputs = items * row["item_tokens"] * facts.hidden_size * BF16_BYTES * row.get("output_copies", 1)
    layer = int(patches * BF16_BYTES * _layer_width(facts, rules, row, tensor_parallel))
    return EncoderRun(pixels + layer, pixels + outputs, known=True)


PLAIN_ROWS = 3 + 1
"""Query, key and value, and the product. With rotary: 15 where query and key are turned in float32 (side by side in 16
bits, in float32 before and after, and back in 16 bits: 0.12 `models/qwen2_vl.py apply_rotary_pos_emb_vision`), 10 where
in the model's own type, as later (`[[vllm.since]]` encoder_rotary_rows)."""


def _layer_width(facts: Facts, rules: dict[str, Any], row: dict[str, Any], tensor_parallel: int) -> float:
    """Numbers that one patch holds at the widest point of a layer.

    Its residual and normed row, whole; and of this GPU's heads attention's, or the MLP's rows and their product.
    """
    hidden = facts.vision_hidden_size
    attention = (rules["encoder_rotary_rows"] if row["rotary"] else PLAIN_ROWS) * hidden
    mlp = facts.vision_mlp_rows + facts.vision_mlp_width
    return 2 * hidden + max(attention, mlp) / tensor_parallel
