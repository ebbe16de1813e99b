"""The planner as a library: one function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from soong.plan.planner import make_plan
from soong.plan.request import read_request

if TYPE_CHECKING:
    from soong.plan.plan import Plan


def plan_model(model: str, *, allow_network: bool = True, **options: Any) -> Plan:
    """What `model` needs, which machines hold it, and the one to take.

    Args:
        model: catalogue id, Hugging Face id, folder, config.json or .gguf file.
        allow_network: whether the Hugging Face Hub may be asked for a model that is not on this machine.
        options: those of `soong plan`, underscores for dashes: `context="32k"`, `gpu="h100-80gb-sxm5"`, ...

    Raises:
        SoongError: any of its children; see `soong.errors`.
    """
    return make_plan(read_request({"model": model, **options}), allow_network=allow_network)
