"""How the tensors of a repository are stored, module by module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong.models.architecture import AttentionCache
from soong.models.quantization.formats import Compute, Format, checkpoint_matrix_bytes
from soong.models.quantization.matching import Names, canonical

if TYPE_CHECKING:
    from soong.models.architecture import Architecture, Weight

DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1, "int8": 1, "int64": 8}
"""Bytes of one number of the types that unquantised tensors have."""

TOWERS = frozenset({"vision", "audio", "projector"})
"""Parts that most exporters leave in 16 bits without saying so."""


class Rule(msgspec.Struct, frozen=True, eq=False):
    """The modules that `names` holds are stored in `form`; None: unquantised."""

    names: Names
    form: Format | None


class Quantization(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The storage of a repository.

    Attributes:
        method: the exporter's word, `none` for unquantised repositories.
        label: for people: "BF16", "FP8", "INT4 (AWQ)", "NVFP4 + FP8".
        dtype: the type of unquantised tensors.
        default: the format of every matrix that no rule speaks of; None: unquantised.
        rules: the first that holds a module decides.
        kv_cache_dtype: "fp8" where the files ask for it; "" where they say nothing.
        covers_towers: the default goes for vision and audio towers too.
        covers_head: the default goes for the output projection. covers_embedding: and for the embedding.
        only_experts: the default is for routed experts alone.
        exactly: the names that the list spells in full, for engines that compare nothing else.
        assumed: the format was not read from a repository but assumed of a name such as "int4".
        named: the files name the method as vLLM's loader looks for it; where they do not, it builds 16-bit layers.
        algorithm: ModelOpt's own word for the layout, by which engines refuse; "" for other methods.
        unread: how the method stores matrices is not known here: bytes are those of 16-bit tensors.
    """

    method: str
    label: str
    dtype: str
    default: Format | None = None
    rules: tuple[Rule, ...] = ()
    kv_cache_dtype: str = ""
    covers_towers: bool = False
    covers_head: bool = False
    covers_embedding: bool = False
    only_experts: bool = False
    exactly: frozenset[str] = frozenset()
    assumed: bool = False
    named: bool = True
    algorithm: str = ""
    unread: bool = False

    @property
    def compute(self) -> Compute:
        """The most demanding numbers that a GPU must compute with or unpack."""
        found = {form.compute for form in self.formats}
        ladder: tuple[Compute, ...] = ("fp4", "fp8", "int8", "int4")
        return next((one for one in ladder if one in found), "bf16")

    @property
    def formats(self) -> tuple[Format, ...]:
        """Every format that some module may have."""
        forms = [self.default, *(rule.form for rule in self.rules)]
        return tuple(dict.fromkeys(form for form in forms if form is not None))

    def number_bytes(self, weight: Weight) -> int:
        """Bytes of one unquantised number of this weight."""
        return DTYPE_BYTES.get(weight.dtype or self.dtype, 2)

    def spread(self, weight: Weight) -> tuple[tuple[Format | None, int], ...]:
        """The formats of a weight, each with the number of layers that have it (1 where it stands once)."""
        layers = max(1, len(weight.layers))
        if self.default is None and not self.rules:
            return ((None, layers),)
        if not weight.linear and not (self.covers_embedding and weight.part == "embedding"):
            return ((None, layers),)
        if not self.rules:
            return ((self._default(weight), layers),)
        return self._spread_by_rules(weight, layers)

    def spread_exactly(self, weight: Weight) -> tuple[tuple[Format | None, int], ...]:
        """As `spread`, for an engine that packs every matrix whose full name is not on the list."""
        layers = weight.layers or (0,)
        plain = sum(canonical(weight.path.replace("{}", str(layer))) in self.exactly for layer in layers)
        counts = ((None, plain), (self.default, len(layers) - plain))
        return tuple((form, count) for form, count in counts if count)

    def _default(self, weight: Weight) -> Format | None:
        part = weight.part
        excluded = (
            (part in TOWERS and not self.covers_towers)
            or (part == "lm_head" and not self.covers_head)
            or (self.only_experts and part != "experts" and weight.copies == 1)
        )
        return None if excluded else self.default

    def _spread_by_rules(self, weight: Weight, layers: int) -> tuple[tuple[Format | None, int], ...]:
        sample = weight.path.replace("{}", "0")
        asked: list[Rule] = []
        last = self._default(weight)
        for rule in self.rules:
            if rule.names.has_path(sample):
                last = rule.form
                break
            if rule.names.layered:
                asked.append(rule)
        if not asked:
            return ((last, layers),)
        return self._count_layers(weight, asked, last)

    def _count_layers(
        self, weight: Weight, asked: list[Rule], last: Format | None
    ) -> tuple[tuple[Format | None, int], ...]:
        """Layers by format; a path that stands once is asked with its own number, if it has one."""
        path, left = (weight.path, set(weight.layers)) if weight.layers else _numbered(weight.path)
        counts: dict[Format | None, int] = {}
        for rule in asked:
            hit = rule.names.layers(path, left)
            if hit:
                counts[rule.form] = counts.get(rule.form, 0) + len(hit)
                left = left - hit
        if left:
            counts[last] = counts.get(last, 0) + len(left)
        return tuple(counts.items())


def _numbered(path: str) -> tuple[str, set[int]]:
    parts = path.split(".")
    for place, part in enumerate(parts):
        if part.isdigit():
            parts[place] = "{}"
            return ".".join(parts), {int(part)}
    return path, {0}


def checkpoint_bytes(architecture: Architecture, quantization: Quantization) -> int:
    """Bytes of all tensors of the checkpoint, scales and zero points included, without the files' headers."""
    total = sum(_stored_bytes(weight, quantization) for weight in architecture.weights if weight.stored)
    if (
        quantization.kv_cache_dtype == "fp8"
    ):  # a float32 scale for the keys and one for the values of each layer
        total += (
            2 * 4 * sum(cache.layers for cache in architecture.caches if isinstance(cache, AttentionCache))
        )
    return total


def _stored_bytes(weight: Weight, quantization: Quantization) -> int:
    total = 0
    for form, layers in quantization.spread(weight):
        if form is None:
            one = weight.elements * quantization.number_bytes(weight)
        else:
            rows, columns = matrix_sides(weight)
            one = checkpoint_matrix_bytes(form, rows, columns)
        total += one * layers * weight.copies
    return total


def matrix_sides(weight: Weight) -> tuple[int, int]:
    """Output and input size of a weight that quantization packs."""
    rows = weight.shape[0]
    return rows, weight.elements // rows if rows else 0
