"""Which modules a list of names in a quantization config means.

The lists come from several exporters, and engines read each in its own way: exact names (`lm_head`,
`model.layers.0.mlp.gate`), parents (`model.vision_tower`), last parts (`gate`), wildcards (`model.layers.0*`)
and regular expressions (`re:.*self_attn.*`). They may also spell a module with or without `model.` and
`language_model.`. Sources: vLLM 0.33 `quantization/utils/quant_utils.py` is_layer_skipped,
`quantization/modelopt.py` is_layer_excluded, `compressed_tensors/utils.py` should_ignore_layer.

A list may have a thousand entries and a model ten thousand modules, so an entry that names a layer goes into
a table of layers by name, and the others are asked once for all layers.
"""

from __future__ import annotations

import re
from fnmatch import translate
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOTS = ("model.", "language_model.", "backbone.", "transformer.", "thinker.")
"""Leading parts that only some spellings of a module have."""

FUSED = {
    "q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj",
    "gate_proj": "gate_up_proj", "up_proj": "gate_up_proj",
    "wq_a": "fused_wqa_wkv", "wkv": "fused_wqa_wkv",
    "in_proj_qkv": "in_proj_qkvz", "in_proj_z": "in_proj_qkvz",
    "q_a_proj": "fused_qkv_a_proj", "kv_a_proj_with_mqa": "fused_qkv_a_proj",
}  # fmt: skip
"""Some lists name the engine's fused module instead of its parts: vLLM 0.33 `packed_modules_mapping`."""

MOST_NAMES = 4096
"""Names whose spelling is remembered: models of a family share theirs, and each is asked about many times."""

LONGEST_PATTERN = 400
"""A longer regular expression is not a list of modules; it is left out rather than run."""

_NUMBER = r"((?:[^.]*\.)*?)([0-9]{1,6})(\..*)$"
"""A name with a number as one of its parts: what stands before it, the number, and the rest."""

_LAYERED = r"[0-9]|\\d(?!\+)|\[\^?\\d"


@lru_cache(maxsize=MOST_NAMES)
def canonical(name: str) -> str:
    """The name without the leading parts that spellings differ in."""
    stripped = True
    while stripped:
        stripped = False
        for root in ROOTS:
            if name.startswith(root):
                name, stripped = name[len(root) :], True
    return name


def fused(name: str) -> str:
    """The name of the engine's fused module, or the same name."""
    head, _, last = name.rpartition(".")
    return f"{head}.{FUSED[last]}" if last in FUSED else name


class Names:
    """A list of modules. `layered`: some entries name a layer, so the answer may differ between layers."""

    __slots__ = ("_everywhere", "_per_layer", "_templates", "layered")

    def __init__(self, entries: Iterable[str]) -> None:
        templates: dict[tuple[str, str], set[int]] = {}
        everywhere: list[str] = []
        per_layer: list[str] = []
        for entry in entries:
            if entry.startswith("re:"):
                pattern = entry[3:]
                (per_layer if re.search(_LAYERED, pattern) else everywhere).append(pattern)
            else:
                _sort_entry(entry, templates, everywhere, per_layer)
        self._templates = templates
        self._everywhere = _Patterns(everywhere)
        self._per_layer = _Patterns(per_layer)
        self.layered = bool(templates or per_layer)

    def has_path(self, path: str) -> bool:
        """Whether the list holds the module in every layer; `path` names any one of them."""
        return self._everywhere.match(path)

    def layers(self, path: str, among: set[int]) -> set[int]:
        """Those of the layers `among` in which the list holds the module; `path` has `{}` for the layer."""
        head, _, tail = canonical(path).partition("{}")
        tail += "."
        found: set[int] = set()
        for (entry_head, entry_tail), numbers in self._templates.items():
            if entry_head == head and tail.startswith(entry_tail):
                found |= numbers & among
        if self._per_layer:
            rest = among - found
            found |= {layer for layer in rest if self._per_layer.match(path.replace("{}", str(layer)))}
        return found


def _sort_entry(
    entry: str, templates: dict[tuple[str, str], set[int]], everywhere: list[str], per_layer: list[str]
) -> None:
    rooted, entry = entry.startswith(ROOTS), canonical(entry)
    bare = entry.rstrip("*")
    whole = bare == entry or bare[-1:].isdigit()
    numbered = re.match(_NUMBER, f"{bare}." if whole else bare) if "*" not in bare else None
    if numbered:
        head, number, tail = numbered.groups()
        templates.setdefault((head, tail), set()).add(int(number))
    elif "*" in entry:
        layered = any(character.isdigit() for character in entry)
        (per_layer if layered else everywhere).append(f"{translate(entry)[:-2]}(\\..*)?$")
    elif entry:
        anywhere = "" if rooted else r"(.*\.)?"
        everywhere.append(rf"{anywhere}{re.escape(entry)}(\.|$)")


class _Patterns:
    """Regular expressions asked as one; each spelling of a name is tried."""

    __slots__ = ("_compiled", "_known")

    def __init__(self, patterns: list[str]) -> None:
        self._known: dict[str, bool] = {}
        usable = [pattern for pattern in dict.fromkeys(patterns) if len(pattern) <= LONGEST_PATTERN]
        self._compiled = _compiled(usable)

    def __bool__(self) -> bool:
        return bool(self._compiled)

    def match(self, name: str) -> bool:
        if not self._compiled:
            return False
        found = self._known.get(name)
        if found is None:
            if len(self._known) >= MOST_NAMES:
                self._known.clear()
            spellings = {name, canonical(name), f"model.{name}", fused(name)}
            found = any(pattern.match(spelling) for pattern in self._compiled for spelling in spellings)
            self._known[name] = found
        return found


def _compiled(patterns: list[str]) -> tuple[re.Pattern[str], ...]:
    if not patterns:
        return ()
    try:
        return (re.compile("|".join(f"(?:{pattern})" for pattern in patterns)),)
    except re.error:
        return tuple(pattern for pattern in map(_compiled_or_none, patterns) if pattern)


def _compiled_or_none(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern)
    except re.error:
        return None
