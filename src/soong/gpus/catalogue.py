"""The GPUs soong knows: the packaged rows and the user's own, found by any name people use."""

from __future__ import annotations

from soong.errors import NotFoundError
from soong.gpus.gpu import Gpu
from soong.tables import rows

_LONGEST_WORD = 60


def all_gpus() -> tuple[Gpu, ...]:
    """Every GPU, in the table's order; the user's rows lie over the packaged ones.

    Raises:
        ConfigError: the user's gpus.toml cannot be read.
    """
    return rows("gpus", Gpu)


def find_gpu(word: str) -> Gpu:
    """The GPU that a person means by `word`.

    Args:
        word: our id, an alias or the card's name; case, blanks, dashes and the maker's name do not matter.

    Raises:
        NotFoundError: there is none, or several (`a100`); says which come near.
    """
    gpus = all_gpus()
    names = _names.of(gpus)
    found = names.get(word) or names.get(_plain(word))
    if found is None:
        raise _not_found(word, gpus)
    return found


class _Names:
    """The index by name of the table it saw last: a batch asks for the same one thousands of times."""

    def __init__(self) -> None:
        self._gpus: tuple[Gpu, ...] = ()
        self._index: dict[str, Gpu] = {}

    def of(self, gpus: tuple[Gpu, ...]) -> dict[str, Gpu]:
        if gpus is not self._gpus:
            self._gpus, self._index = gpus, _by_name(gpus)
        return self._index


_names = _Names()


def _by_name(gpus: tuple[Gpu, ...]) -> dict[str, Gpu]:
    """Every name to its GPU. Ids come last, so that no alias of one row hides another row."""
    names = {_plain(alias): gpu for gpu in gpus for alias in gpu.aliases}
    names.update({_plain(gpu.name): gpu for gpu in gpus})
    names.update({_plain(gpu.id): gpu for gpu in gpus})
    names.update({gpu.id: gpu for gpu in gpus})
    return names


def _plain(word: str) -> str:
    """Letters and digits only, without maker and brand: `NVIDIA GeForce RTX 4090` is `rtx4090`."""
    letters = "".join(letter for letter in word.lower() if letter.isalnum())
    for brand in ("nvidia", "amd", "geforce", "instinct"):
        letters = letters.removeprefix(brand)
    return letters


def _not_found(word: str, gpus: tuple[Gpu, ...]) -> NotFoundError:
    from difflib import get_close_matches

    shown = word[:_LONGEST_WORD]
    plain = _plain(shown)
    begun = sorted({gpu.id for gpu in gpus if plain and _plain(gpu.id).startswith(plain)})
    if len(begun) > 1:
        return NotFoundError(
            f"GPU `{shown}` could be {len(begun)} different ones",
            why=", ".join(begun),
            hints=tuple(f"`soong gpus info {near}`" for near in begun[:3]),
        )
    names = _names.of(gpus)
    alike = (names[name].id for name in get_close_matches(plain, list(names), n=5))
    near = dict.fromkeys([*begun, *alike])
    did_you_mean = tuple(f"did you mean `{gpu_id}`?" for gpu_id in list(near)[:2])
    return NotFoundError(f"there is no GPU `{shown}`", hints=(*did_you_mean, "`soong gpus` lists them"))
