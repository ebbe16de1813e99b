"""Name a model; learn what it needs, what holds it and what that costs.

The library is the command line without the talk: `plan_model` takes the options of `soong plan` and returns the plan
as a frozen value. Names are resolved on first use, so that `import soong` stays cheap.

    >>> import soong
    >>> plan = soong.plan_model("llama-3.1-8b", context="32k", gpu="h100-80gb-sxm5")
    >>> plan.candidates[0].verdict
    'fits'
"""

from __future__ import annotations

TYPE_CHECKING = False  # `typing` takes 10 ms to import, in which a Ctrl-C could not be answered yet
if TYPE_CHECKING:
    from typing import Any

    from soong.errors import SoongError
    from soong.plan.api import plan_model
    from soong.plan.document import plan_document

__version__ = "0.1.0"

_HOMES = {
    "SoongError": "soong.errors",
    "plan_model": "soong.plan.api",
    "plan_document": "soong.plan.document",
}

__all__ = ["SoongError", "__version__", "plan_document", "plan_model"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'soong' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)
