"""Phi-3-vision: Phi-3 behind the CLIP tower that its config names and does not size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from soong.models.config_json import Config
from soong.models.families import _multimodal, _parts, _towers

if TYPE_CHECKING:
    from soong.models.architecture import Architecture

_CLIP_LARGE_336 = Config(
    {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
    }
)
"""openai/clip-vit-large-patch14-336, as transformers and vLLM `phi3v.py`
`CLIP_VIT_LARGE_PATCH14_336_CONFIG` size it."""

_USED_LAYERS = 23
"""vLLM `phi3v.py` reads the output of layer -2 and does not load the last."""


def read(config: Config) -> Architecture:
    """The architecture of a Phi-3-vision config.

    Source of the shapes and their sharding: vLLM `phi3v.py`, `clip.py`.
    """
    text = _multimodal.read_text(config, config, prefix="model", model_type="phi3_v")
    prefix, hidden = "model.vision_embed_tokens", text.hidden_size
    image = config.section("img_processor").integer("image_dim_out", default=1024, least=1)
    merged = 4 * image
    towers = [
        *_towers.image_text_tower(
            f"{prefix}.img_processor.vision_model",
            _CLIP_LARGE_336,
            kind="clip_vision_model",
            deepest=_USED_LAYERS,
            post_norm=False,
        ),
        *_towers.two_linears(
            prefix, merged, hidden, hidden, split=False, names=("img_projection.0", "img_projection.2")
        ),
        # vLLM's tower makes a second embedding beside the language model's own: `phi3v.py` embed_tokens.
        replace(_parts.embedding("embed_tokens", text.vocab_size, hidden), part="vision", stored=False),
        _towers.table(f"{prefix}.glb_GN", (1, 1, merged), "projector"),
        _towers.table(f"{prefix}.sub_GN", (1, 1, 1, merged), "projector"),
    ]
    return _multimodal.joined(config, text, towers)
