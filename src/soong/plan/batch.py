"""Many plans, one JSON line each: `soong plan --batch`.

A line in, a line out, in order. A bad line becomes an error object and nothing stops; memory stays flat, since
nothing is kept between lines but the bounded caches of the stations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from soong.errors import SoongError, UsageError
from soong.plan.document import plan_document
from soong.plan.planner import make_plan
from soong.plan.request import read_request
from soong.tables import held

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LONGEST_LINE_BYTES = 1 << 20
"""A request is a few hundred bytes; a longer line than this is not one."""

_decoder = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


COLLECT_AFTER = 20_000
"""Objects that may come up before Python looks for garbage in circles. Plans make none; a look at each 700th object,
the default, takes a thirtieth of a batch."""


def collect_rarely() -> None:
    """Let this process look for garbage rarely: for a program that answers batches and does little else."""
    import gc

    gc.enable()
    gc.set_threshold(COLLECT_AFTER)


def answer_lines(
    lines: Iterable[bytes], *, defaults: dict[str, Any], allow_network: bool = True
) -> Iterator[bytes]:
    """One JSON document and a newline for each request line; empty lines are passed over.

    Args:
        lines: requests, JSON objects of option names.
        defaults: options that hold where a line does not set them.
        allow_network: whether unknown Hugging Face ids may be asked of the Hub.
    """
    with held():
        for line in lines:
            if line.strip():
                yield _encoder.encode(_answer(line, defaults, allow_network)) + b"\n"


def _answer(line: bytes, defaults: dict[str, Any], allow_network: bool) -> dict[str, Any]:
    try:
        return plan_document(make_plan(read_request(_options(line, defaults)), allow_network=allow_network))
    except SoongError as error:
        return _error(error.code, str(error), error.hints)
    except (ArithmeticError, ValueError, TypeError, KeyError, RecursionError, OSError) as error:
        return _error("failed", f"cannot plan this line: {type(error).__name__}: {error}", ())


def _options(line: bytes, defaults: dict[str, Any]) -> dict[str, Any]:
    if len(line) > LONGEST_LINE_BYTES:
        raise UsageError(f"a request line of {len(line):,} bytes is too long")
    try:
        options = _decoder.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UsageError("the line is not valid JSON", why=str(error)) from None
    if not isinstance(options, dict):
        raise UsageError("a request line must be a JSON object")
    return {**defaults, **options}


def _error(code: str, message: str, hints: tuple[str, ...]) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "hints": list(hints)}}
