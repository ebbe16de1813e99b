"""The public door lists what it gives."""

from __future__ import annotations

import pytest

import soong


@pytest.mark.parametrize("name", soong.__all__)
def test_every_listed_name_is_there(name: str) -> None:
    assert getattr(soong, name) is not None


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        soong.nothing  # noqa: B018


def test_the_example_of_the_docstring_holds() -> None:
    plan = soong.plan_model("llama-3.1-8b", context="32k", gpu="h100-80gb-sxm5")
    assert plan.candidates[0].verdict == "fits"
