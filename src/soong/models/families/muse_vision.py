"""Muse Glimmer with its vision tower, which mixes window and full attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.models.families import _multimodal, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight
    from soong.models.config_json import Config

_LAYER = _towers.Layer(attention="attn.", out="proj", norms=("norm1", "norm2"), mlp_split=False)


def read(config: Config) -> Architecture:
    """The architecture of a Muse Glimmer config.

    Source of the shapes: transformers `modeling_muse_glimmer.py`; of their sharding: vLLM
    `muse_glimmer.py`, which divides the tower's attention and keeps its MLPs whole.
    """
    section = _multimodal.text_section(config)
    text = _multimodal.read_text(
        config, section, prefix="model.language_model", model_type="muse_glimmer_text"
    )
    return _multimodal.joined(config, text, _tower(config, config.section("vision_config"), text.hidden_size))


def _tower(config: Config, vision: Config, text_size: int) -> list[Weight]:
    size = _towers.sizes(vision, hidden=1536, inner=8960, depth=50, heads=16)
    hidden, prefix = size.hidden, "model.vision_tower"
    heads = vision.integer("num_attention_heads", "num_heads", default=16, least=1)
    patch = _towers.edge(vision, "patch_size", 14)
    inputs = _towers.COLOURS * vision.integer("patch_temporal", default=2, least=1) * patch**2
    rows, columns = (vision.integer(key, default=32, least=1) for key in ("pos_emb_height", "pos_emb_width"))
    merged = hidden * vision.integer("merge_size", default=2, least=1) ** 2
    middle = config.integer("projector_hidden_size", default=4096, least=1)
    return [
        *_towers.linear(f"{prefix}.patch_embedder.patch_embedding", hidden, inputs, "vision", bias=False),
        _towers.table(f"{prefix}.patch_embedder.position_embedding_table", (rows * columns, hidden)),
        *_towers.norm(f"{prefix}.ln_pre", hidden),
        *_towers.whole_unless(heads, _towers.encoder(f"{prefix}.layers.{{}}", _LAYER, size)),
        *_towers.norm(f"{prefix}.ln_post", hidden),
        *_towers.two_linears(
            "model.vision_adapter", merged, middle, middle, bias=False, split=False, names=("fc1", "fc2")
        ),
        *_towers.linear("model.vision_projection", text_size, middle, "projector", bias=False),
    ]
