"""The GPUs soong knows: the packaged rows and the user's own, found by any name people use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.errors import NotFoundError
from soong.gpus.gpu import Gpu
from soong.gpus.words import read_words
from soong.tables import rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.gpus.words import Words

_LONGEST_WORD = 60


def all_gpus() -> tuple[Gpu, ...]:
    """Every GPU, in the table's order; the user's rows lie over the packaged ones.

    Raises:
        ConfigError: the user's gpus.toml cannot be read.
    """
    return rows("gpus", Gpu)


def find_gpu(word: str, *, memory_bytes: int | None = None) -> Gpu:
    """The GPU that a person, a driver or a log means by `word`.

    Args:
        word: our id, an alias or the card's name; case, blanks, dashes and the maker's name do not matter, and what
            `nvidia-smi` prints is understood (`NVIDIA A100-SXM4-40GB`).
        memory_bytes: what the card is known to have; picks among variants (an `a100` of 40 or 80 GB).

    Raises:
        NotFoundError: there is none, or several (`a100`, nothing said of its memory); says which come near.
    """
    gpus = all_gpus()
    found = _names.of(gpus).get(word) or _names.of(gpus).get(_plain(word))
    if found is not None and (memory_bytes is None or word == found.id):
        return found
    meant = _meant(word, gpus, memory_bytes) or ((found,) if found else ())
    if len(meant) != 1:
        raise _not_found(word, gpus, meant)
    return meant[0]


class _Names:
    """The indexes of the table it saw last: a batch asks for the same one thousands of times."""

    def __init__(self) -> None:
        self._gpus: tuple[Gpu, ...] = ()
        self._by_name: dict[str, Gpu] = {}
        self._by_chip: dict[str, tuple[Gpu, ...]] = {}

    def of(self, gpus: tuple[Gpu, ...]) -> dict[str, Gpu]:
        """Every name to its GPU."""
        if gpus is not self._gpus:
            self._gpus, self._by_name, self._by_chip = gpus, _by_name(gpus), {}
        return self._by_name

    def with_chip(self, chip: str, gpus: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
        """The GPUs of one chip, in the table's order."""
        if gpus is not self._gpus or not self._by_chip:
            self.of(gpus)
            self._by_chip = _by_chip(gpus)
        return self._by_chip.get(chip, ())


_names = _Names()


def _by_name(gpus: tuple[Gpu, ...]) -> dict[str, Gpu]:
    """Every name to its GPU. Ids come last, so that no alias of one row hides another row."""
    names = {_plain(alias): gpu for gpu in gpus for alias in gpu.aliases}
    names.update({_plain(gpu.name): gpu for gpu in gpus})
    names.update({_plain(gpu.id): gpu for gpu in gpus})
    names.update({gpu.id: gpu for gpu in gpus})
    return names


def _by_chip(gpus: tuple[Gpu, ...]) -> dict[str, tuple[Gpu, ...]]:
    found: dict[str, tuple[Gpu, ...]] = {}
    for gpu in gpus:
        for chip in {read_words(name).chip for name in (gpu.id, gpu.name, *gpu.aliases)} - {""}:
            found[chip] = (*found.get(chip, ()), gpu)
    return found


def _plain(word: str) -> str:
    """Letters and digits only, without maker and brand: `NVIDIA GeForce RTX 4090` is `rtx4090`."""
    letters = "".join(letter for letter in word.lower() if letter.isalnum())
    for brand in ("nvidia", "amd", "geforce", "instinct"):
        letters = letters.removeprefix(brand)
    return letters


def _meant(word: str, gpus: tuple[Gpu, ...], memory_bytes: int | None) -> Sequence[Gpu]:
    """The rows that the parts of a word can mean: the same chip, the stated socket and size, the nearest memory."""
    words = read_words(word[:_LONGEST_WORD])
    chips = _names.with_chip(words.chip, gpus)
    chips = tuple(gpu for gpu in chips if not words.socket or words.socket in _plain(gpu.id)) or chips
    sized = tuple(gpu for gpu in chips if words.allows(gpu.label_gb))
    if memory_bytes is None or (sized and words.size_gb):
        return _usual(words, sized, gpus)
    return _usual(words, _nearest(chips, memory_bytes), gpus)[:1]


def _nearest(found: Sequence[Gpu], memory_bytes: int) -> Sequence[Gpu]:
    gaps = {gpu.id: abs(gpu.memory_bytes - memory_bytes) for gpu in found}
    return [gpu for gpu in found if gaps[gpu.id] <= min(gaps.values()) + SAME_MEMORY_BYTES]


SAME_MEMORY_BYTES = 512 << 20
"""Drivers move a card's total by some hundred MiB: nearer cards than this cannot be told apart by it."""


def _usual(words: Words, found: Sequence[Gpu], gpus: tuple[Gpu, ...]) -> Sequence[Gpu]:
    """The one that the table itself gives the bare name (`h100`, `a100-40gb`), where it is among those found."""
    names = _names.of(gpus)
    sizes = {gpu.label_gb for gpu in found}
    bare = (words.chip, *(f"{words.chip}{size}gb" for size in sizes if len(sizes) == 1))
    return next(([names[name]] for name in bare if names.get(name) in found), found)


def _not_found(word: str, gpus: tuple[Gpu, ...], meant: Sequence[Gpu]) -> NotFoundError:
    from difflib import get_close_matches

    shown = word[:_LONGEST_WORD]
    plain = _plain(shown)
    begun = sorted({gpu.id for gpu in gpus if plain and _plain(gpu.id).startswith(plain)})
    several = begun if len(begun) > 1 else sorted(gpu.id for gpu in meant)
    if len(several) > 1:
        return NotFoundError(
            f"GPU `{shown}` could be {len(several)} different ones",
            why=", ".join(several),
            hints=tuple(f"`soong gpus info {near}`" for near in several[:3]),
        )
    names = _names.of(gpus)
    alike = (names[name].id for name in get_close_matches(plain, list(names), n=5))
    near = dict.fromkeys([*begun, *alike])
    did_you_mean = tuple(f"did you mean `{gpu_id}`?" for gpu_id in list(near)[:2])
    return NotFoundError(f"there is no GPU `{shown}`", hints=(*did_you_mean, "`soong gpus` lists them"))
