"""`soong` alone: where to begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soong.cli.output import Output

THINGS_TO_TRY = (
    ("soong plan llama-3.1-8b", "what a model needs, and the cheapest GPU that holds it"),
    ("soong recommend --task coding", "which model to take"),
    ("soong models", "what there is to choose from"),
)


def show(out: Output) -> None:
    """Three things to try; none needs an account."""
    width = max(len(line) for line, _ in THINGS_TO_TRY)
    lines = ["Three things to try, no account needed:", ""]
    lines += [f"  {line:<{width}}   {what}" for line, what in THINGS_TO_TRY]
    lines += ["", "`soong --help` lists every command."]
    out.answer(
        data=lambda: {"try": [line for line, _ in THINGS_TO_TRY]},
        ids=(),
        human=lambda: "\n".join(lines),
    )
