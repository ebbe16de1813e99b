"""What a model is made of: its tensors and its caches, as its authors wrote them.

An `Architecture` is read once from a `config.json` and says nothing about engines, GPUs or sharding
amounts: it lists every weight of the checkpoint with the *way* it may be split, and every cache that one
token or one sequence leaves behind. `soong.memory` turns it into bytes per GPU.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

Part = Literal[
    "embedding",
    "attention",
    "mlp",
    "experts",
    "router",
    "norm",
    "lm_head",
    "vision",
    "audio",
    "projector",
    "state",
    "mtp",
    "other",
]
"""What a weight is for, for the printed breakdown."""

Shard = Literal["replicated", "column", "row", "vocab", "kv"]
"""How tensor parallel splits a weight of shape (out, in) or (out,).

replicated: every GPU holds all of it. column: `out` is divided. row: `in` is divided.
vocab: `out` is the vocabulary, padded by the engine, then divided.
kv: `out` is key or value heads × their size; divided by heads, replicated once the GPUs outnumber the heads.
"""


class Weight(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor of the checkpoint, standing for all its copies (layers × experts) of the same shape.

    path: module path in the checkpoint with `{}` where the layer number goes, without `.weight`; a bias ends
        in `.bias`. Experts are written with expert number 0: `model.layers.{}.mlp.experts.0.up_proj`.
    shape: as a checkpoint of 16-bit weights stores it: (out, in) for a matrix, (n,) for a vector.
    layers: the layer numbers that have this weight; empty when it stands once.
    copies: how many stand in each layer (the number of experts); 1 for all else.
    active_copies: how many of them one token uses; None means all.
    heads: for `kv` sharding: how many key or value heads `out` holds.
    dtype: set when the checkpoint or engine keeps this tensor in another type than the model's ("float32").
    linear: a matrix multiplication that quantization methods may pack (never embeddings, norms, convolutions).
    served: False for what an engine does not load by default (multi-token-prediction layers, audio output).
    stored: False for what is not in the checkpoint and the engine makes itself (Gemma 4's values, a copy of its keys).
    whole_unless: heads that GPUs must be able to share evenly, else each holds all of the weight (0: no such rule).
    least: the fewest numbers of the divided side that vLLM keeps on each of several GPUs; it fills up with zeros.
    """

    path: str
    shape: tuple[int, ...]
    part: Part
    shard: Shard = "replicated"
    layers: tuple[int, ...] = ()
    copies: int = 1
    active_copies: int | None = None
    heads: int = 0
    dtype: str = ""
    linear: bool = False
    served: bool = True
    stored: bool = True
    whole_unless: int = 0
    least: int = 0

    @property
    def elements(self) -> int:
        """Numbers in one copy."""
        return math.prod(self.shape)

    @property
    def count(self) -> int:
        """How many copies the whole model holds."""
        return max(1, len(self.layers)) * self.copies


class AttentionCache(msgspec.Struct, frozen=True, kw_only=True, tag="attention"):
    """Keys and values of `layers` layers: per token, `kv_heads` × (`key_dim` + `value_dim`) numbers each.

    window: tokens a sliding layer keeps (0: all of them). chunk: tokens of a chunked-attention layer (0: not chunked).
    cross: keys and values of what an encoder read, not of the decoder's own tokens.
    idle_layers: layers of the same shape that need no cache, since they read another layer's or an image's; SGLang
        gives them one all the same.
    streams: what short convolutions saw last, `key_dim` numbers a head, which vLLM keeps like keys in blocks of
        `window` tokens and SGLang as a state.
    """

    layers: int
    kv_heads: int
    key_dim: int
    value_dim: int
    window: int = 0
    chunk: int = 0
    cross: bool = False
    idle_layers: int = 0
    streams: bool = False


class LatentCache(msgspec.Struct, frozen=True, kw_only=True, tag="latent"):
    """MLA: one compressed vector per token and layer, the same on every tensor-parallel GPU.

    latent_dim: kv_lora_rank. rope_dim: qk_rope_head_dim.
    indexer_layers, indexer_dim: layers with a sparse-attention indexer (DSA) and the size of its key; 0 without one.
    window: for sliding MLA layers.
    """

    layers: int
    latent_dim: int
    rope_dim: int
    indexer_layers: int = 0
    indexer_dim: int = 0
    window: int = 0


class CompressedCache(msgspec.Struct, frozen=True, kw_only=True, tag="compressed"):
    """DeepSeek-V4: a sliding window of latent vectors, and one vector for every `ratio` tokens of the past.

    layers: how many layers use this ratio. ratio: tokens per kept vector (0: the layer has its window alone).
    indexer_dim: the size of the sparse indexer's key, kept once per `ratio` tokens too; 0 without one.
    """

    layers: int
    latent_dim: int
    rope_dim: int
    window: int
    ratio: int
    indexer_dim: int = 0


class StateTensor(msgspec.Struct, frozen=True, kw_only=True):
    """One recurrent tensor of a layer. `split` axis is divided among tensor-parallel GPUs (-1: replicated).

    dtype: "" for the model's own, else the type the engine keeps it in by default ("float32").
    groups: set when the `split` axis holds this many groups that heads share (Mamba-2): each GPU keeps
        max(1, groups / GPUs) whole groups, so they are replicated once the GPUs outnumber them.
    """

    name: str
    shape: tuple[int, ...]
    split: int = 0
    dtype: str = ""
    groups: int = 0


class StateCache(msgspec.Struct, frozen=True, kw_only=True, tag="state"):
    """Recurrent state: fixed per sequence, whatever its length.

    kda-bounded: KDA whose gate has a lower bound, as vLLM's fast kernel wants it. ring: the keys that an indexer pools
    next.
    token_bytes: what a layer keeps of each token beside, already pooled; 0 for true states.
    """

    kind: Literal["mamba1", "mamba2", "gdn", "kda", "kda-bounded", "shortconv", "lightning", "ring"]
    layers: int
    tensors: tuple[StateTensor, ...]
    token_bytes: int = 0


Cache = AttentionCache | LatentCache | CompressedCache | StateCache


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the planner needs to know of a model's build.

    Attributes:
        name: the class in the config's `architectures`, or the model type where none is given.
        model_type: the config's own word.
        dtype: the type of unquantised weights: bfloat16, float16 or float32.
        context_limit_tokens: the longest context the authors state, after rope scaling; None when not stated.
        hidden_size, vocab_size, intermediate_size: as used by activations; `intermediate_size` is the widest MLP.
        attention_heads: query heads, which a tensor-parallel size must divide; 0 for models without attention.
        experts, experts_per_token: routed experts; 0 for dense models.
        weights: every tensor of the checkpoint.
        caches: what tokens and sequences leave behind.
        multimodal: takes images, audio or video beside text.
        pooled: its repository is an embedder's, though its class is one that generates.
        encoder_only: produces embeddings; no generation.
        mtp_layers: multi-token-prediction layers in the checkpoint.
        rotary_bytes: position tables that engines compute and keep on every GPU; no part of the checkpoint.
        early_rotary_bytes: the same for vLLM before 0.32. tower_tables_bytes: what of both belongs to towers.
        input_buffer_numbers: numbers that vLLM keeps room for between towers and decoder, for each token of a batch.
        whole_items: tokens of an image or a video attend to all of it, so that a batch must hold it whole (Gemma 4).
        vision_shape: layers and hidden size as a `vision_config` names them, 0 for one it does not name; None without
            such a section. SGLang's default memory fraction depends on these words, not on the tower.
    """

    name: str
    model_type: str
    dtype: str
    context_limit_tokens: int | None
    hidden_size: int
    vocab_size: int
    intermediate_size: int
    attention_heads: int
    weights: tuple[Weight, ...]
    caches: tuple[Cache, ...]
    experts: int = 0
    experts_per_token: int = 0
    multimodal: bool = False
    pooled: bool = False
    mtp_layers: int = 0
    rotary_bytes: int = 0
    early_rotary_bytes: int = 0
    tower_tables_bytes: int = 0
    input_buffer_numbers: int = 0
    whole_items: bool = False
    vision_shape: tuple[int, int] | None = None

    @property
    def parameters(self) -> int:
        """Numbers in the checkpoint, every layer and tower counted, quantization scales not."""
        return sum(weight.elements * weight.count for weight in self.weights if weight.stored)

    @property
    def active_parameters(self) -> int:
        """Stored numbers that one generated token is multiplied with; of the served weights, embeddings included."""
        return sum(_active_elements(weight) for weight in self.weights if weight.served and weight.stored)

    def served_weights(self) -> Iterator[Weight]:
        """The weights an engine loads by default."""
        return (weight for weight in self.weights if weight.served)


def _active_elements(weight: Weight) -> int:
    copies = weight.copies if weight.active_copies is None else weight.active_copies
    return weight.elements * max(1, len(weight.layers)) * copies
