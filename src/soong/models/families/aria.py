"""Aria: a mixture of experts that sees through SigLIP and a cross-attention of learned queries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

TEXT_DEFAULTS = {
    "hidden_size": 4096,
    "intermediate_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "moe_num_experts": 8,
    "moe_topk": 2,
    "moe_num_shared_experts": 2,
}
"""transformers `configuration_aria.py` AriaTextConfig."""

DEFAULT_QUERIES = 128


def read(config: Config) -> Architecture:
    """The architecture of an Aria config. Source: vLLM 0.32 `models/aria.py`, `models/idefics2_vision_model.py`."""
    section = _multimodal.text_section(config)
    text = _multimodal.read_text(
        config, section, prefix="language_model.model", model_type="aria_text", defaults=TEXT_DEFAULTS
    )
    vision = config.section("vision_config")
    towers = [*_tower(vision), *_projector(config, vision, text.hidden_size)]
    return _multimodal.joined(config, text, towers, head="language_model.lm_head")


def _tower(vision: Config) -> list[Weight]:
    """Defaults of transformers `Idefics3VisionConfig`; the last norm is left out."""
    size = _towers.sizes(vision, hidden=1152, inner=3072, depth=12, heads=16)
    hidden, prefix = size.hidden, "vision_tower"
    return [
        *_towers.convolution(
            f"{prefix}.embeddings.patch_embedding", _towers.patches(vision, hidden, patch=32)
        ),
        _towers.table(
            f"{prefix}.embeddings.position_embedding", (_towers.grid(vision, image=224, patch=32), hidden)
        ),
        *_towers.encoder(f"{prefix}.encoder.layers.{{}}", _towers.CLIP, size),
    ]


def _projector(config: Config, vision: Config, text_size: int) -> list[Weight]:
    hidden = vision.integer("hidden_size", default=1152, least=1)
    path = "multi_modal_projector"
    cross = f"{path}.cross_attn"
    weights = [_towers.table(f"{path}.query", (_queries(config), hidden), "projector")]
    for name in ("q_proj", "k_proj", "v_proj"):
        weights += _towers.linear(f"{cross}.{name}", hidden, hidden, "projector", bias=False)
    weights += [
        _towers.table(f"{cross}.multihead_attn.in_proj_weight", (3 * hidden, hidden), "projector"),
        _towers.vector(f"{cross}.multihead_attn.in_proj_bias", 3 * hidden, "projector"),
        *_towers.linear(f"{cross}.multihead_attn.out_proj", hidden, hidden, "projector"),
        *_towers.linear(f"{cross}.linear", hidden, hidden, "projector"),
    ]
    for name in (f"{cross}.layer_norm", f"{cross}.layer_norm_kv", f"{path}.layer_norm"):
        weights += _towers.norm(name, hidden, "projector")
    return [
        *weights,
        *_towers.linear(
            f"{path}.feed_forward.linear_in", text_size, hidden, "projector", "column", bias=False
        ),
        *_towers.linear(
            f"{path}.feed_forward.linear_out", text_size, text_size, "projector", "row", bias=False
        ),
    ]


def _queries(config: Config) -> int:
    """As many as the largest image needs."""
    counts = config.section("projector_patch_to_query_dict").values.values()
    return max((count for count in counts if isinstance(count, int)), default=DEFAULT_QUERIES)
