"""What the parts of a GPU's name say: chip, gigabytes, socket; the rest is the maker's adornment.

Drivers, shops and people write the same card in many ways: `NVIDIA A100-SXM4-40GB`, `A100 40GB`,
`NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition`. The chip, and what tells its variants apart, is what counts.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

SOCKETS = {
    "sxm": "sxm", "sxm2": "sxm", "sxm3": "sxm", "sxm4": "sxm", "sxm5": "sxm", "sxm6": "sxm", "hgx": "sxm", "dgx": "sxm",
    "pcie": "pcie", "pci": "pcie", "nvl": "nvl",
}  # fmt: skip
"""How a card is connected, by the words for it; boards of HGX and DGX machines are SXM."""

ADORNMENTS = frozenset({
    "nvidia", "amd", "geforce", "instinct", "tesla", "gpu", "gpus", "graphics", "card", "edition",
    "generation", "workstation", "server", "blackwell", "hopper", "ampere", "max", "q", "maxq",
    "hbm2", "hbm2e", "hbm3", "hbm3e", "gddr5", "gddr6", "gddr6x", "gddr7", "vram", "memory",
    "tensor", "core", "oam", "x", "mig", "grid", "single", "dual", "quad", "ac",
})  # fmt: skip
"""Words that do not tell one row of the table from another. Laptop cards are other chips, so `laptop` is not here."""

_COUNT = r"(?i)^\s*\d{1,2}\s*[x×*]\s*(?=\D)"
_SIZE = r"(?i)(\d+(?:\.\d+)?)\s*gi?b\b"
_MIG_SLICE = r"(?i)\b\d+g\.\d+gb\b"
_PART = r"[a-z0-9]+"
"""Not compiled before they are needed: most commands name no GPU."""

LABEL_TOLERANCE = 0.15
"""Shops round differently: a B200 is sold as 180 and as 192 GB, an RTX PRO 6000 as 96 GB and shown as 95 GiB."""


class Words(msgspec.Struct, frozen=True):
    """A name taken apart. chip: `a100`, `rtx4090`; socket: `sxm`, `pcie`, `nvl` or empty; size_gb: as said, or None."""

    chip: str
    socket: str
    size_gb: float | None

    def allows(self, label_gb: int) -> bool:
        """Whether a card of so many gigabytes can be meant."""
        return self.size_gb is None or abs(label_gb - self.size_gb) <= LABEL_TOLERANCE * label_gb


@lru_cache(maxsize=1024)
def read_words(name: str) -> Words:
    """The parts of a name; an empty chip where nothing but adornment is left."""
    text = re.sub(_MIG_SLICE, " ", re.sub(_COUNT, "", name.lower()))
    size = re.search(_SIZE, text)
    parts = re.findall(_PART, re.sub(_SIZE, " ", text))
    socket = next((SOCKETS[part] for part in parts if part in SOCKETS), "")
    chip = "".join(part for part in parts if part not in SOCKETS and part not in ADORNMENTS)
    return Words(chip, socket, float(size[1]) if size else None)
