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
PATCHES_TO_A_TOKEN = 4
"""`spatial_merge_size` of Qwen's and GLM's towers is 2."""


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


def grows_with_context(facts: Facts) -> bool:
    """Whether the largest item is a video as long as a context."""
    row = _largest_items().get(facts.model_type, {})
    return facts.multimodal and bool(row.get("video") or row.get("video_tokens"))


def encoder_run(
    facts: Facts, rules: dict[str, Any], tokens: int, tensor_parallel: int, context_tokens: int = 0
) -> EncoderRun:
    """The encoder on as many of its largest items as a batch of `tokens` holds, at least one.

    Args:
        facts: the model on this GPU; the tower's sizes are whole.
        rules: of the engine's version (`data/engines.toml` vllm.since).
        tokens: the engine's max_num_batched_tokens.
        tensor_parallel: GPUs that share the tower's layers.
        context_tokens: `max_model_len`, which a video of images at their largest must fit.
    """
    if not facts.multimodal:
        return NO_ENCODER
    row = _largest_items().get(facts.model_type)
    if row is None:
        terms = engine_tables()["vllm"]["activations"]
        kept = facts.hidden_size * tokens * BF16_BYTES + int(terms["vision_bytes"])
        return EncoderRun(0, kept, known=False)
    item_tokens, item_patches = _largest_item(row, rules, context_tokens)
    items = max(1, tokens // item_tokens)
    rows, patches = items * item_tokens, items * item_patches
    stamped = row.get("stamped_video_tokens", 0) if rules["encoder_keeps_stamps"] else 0
    if stamped:
        patches = int(row["stamped_video_patches"])
        rows = patches // PATCHES_TO_A_TOKEN + stamped
    pixels = patches * row["patch_numbers"] * BF16_BYTES
    outputs = rows * facts.hidden_size * BF16_BYTES * row.get("output_copies", 1)
    layer = int(patches * BF16_BYTES * _layer_width(facts, rules, row, tensor_parallel))
    return EncoderRun(pixels + layer, pixels + outputs, known=True)


def _largest_item(row: dict[str, Any], rules: dict[str, Any], context_tokens: int) -> tuple[int, int]:
    """Tokens and patches of the largest item: an image, or a video that a context may hold.

    Source: vLLM 0.23 get_num_frames_with_most_features: `models/qwen2_vl.py`, where two frames are an image at its
    largest; `models/glm4_1v.py`, where frames shrink so that all of a video stay below a number of tokens.
    """
    image, patches = int(row["item_tokens"]), int(row["item_patches"])
    if row.get("video"):
        images = max(1, min(context_tokens // image, int(rules["video_images"])))
        return images * image, images * patches
    if "video_tokens" in row:
        video = max(image, min(context_tokens - image, int(row["video_tokens"])))
        return video, video * PATCHES_TO_A_TOKEN
    return image, patches


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
