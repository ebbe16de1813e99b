"""The programs that serving puts on a machine beside its orders: each one file, for a Python with nothing installed."""

from __future__ import annotations

import io
import zipfile
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

SINGLE = ("gate.py", "cuda_check.py")

PACKAGE = "soong_boot"
"""What the modules of `boot.py` are called there: a name that no package has which an engine brings."""

MAIN = f"""\
import sys

from {PACKAGE}.main import main

sys.exit(main(sys.argv[1:]))
"""

NO_DATE = (1980, 1, 1, 0, 0, 0)
"""The first that an archive can tell, so that the same modules are the same bytes."""


def programs() -> dict[str, bytes]:
    """The programs for the machine, by file name."""
    folder = resources.files("soong.connect.remote")
    return {
        "boot.py": _packed(folder.joinpath("boot")),
        **{name: folder.joinpath(name).read_bytes() for name in SINGLE},
    }


def _packed(folder: Traversable) -> bytes:
    """The modules of a folder as an archive that Python runs; not compressed, since a bare one may lack zlib."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("__main__.py", NO_DATE), MAIN)
        for module in sorted(folder.iterdir(), key=lambda one: one.name):
            if module.name.endswith(".py"):
                archive.writestr(zipfile.ZipInfo(f"{PACKAGE}/{module.name}", NO_DATE), module.read_bytes())
    return content.getvalue()
