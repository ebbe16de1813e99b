"""Plans to be drawn, from the packaged tables alone."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from soong.cli.app import call
from soong.plan.planner import make_plan
from soong.plan.request import read_request
from tests.cli.conftest import Ended

if TYPE_CHECKING:
    from collections.abc import Callable

    from soong.plan.plan import Plan

pytest.importorskip("matplotlib")
pytest.importorskip("plotille")


def a_plan(model: str = "llama-3.1-8b", **options: Any) -> Plan:
    return _made(model, tuple(sorted(options.items())))


@cache
def _made(model: str, options: tuple[tuple[str, Any], ...]) -> Plan:
    return make_plan(read_request({"model": model, **dict(options)}), allow_network=False)


@pytest.fixture
def soong(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Call soong with the given words."""

    def run(*words: str) -> Ended:
        capfd.readouterr()
        code = call(list(words))
        seen = capfd.readouterr()
        return Ended(int(code), seen.out, seen.err)

    return run
