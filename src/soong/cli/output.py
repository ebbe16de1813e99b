"""One object to speak through: commands say what, this decides how.

stdout is the answer, stderr the talk. Three modes: human (tables and colour where a person looks), JSON (one
object or line on stdout, nothing else), quiet (ids only). No command asks which mode is on.
"""

from __future__ import annotations

import os
import sys
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from soong.errors import SoongError

P = ParamSpec("P")
R = TypeVar("R")

ColorChoice = Literal["auto", "always", "never"]
DOCS_ROOT = "docs"


class Output:
    """How one command speaks.

    Args:
        as_json: one JSON value on stdout and nothing else there.
        quiet: ids only, or nothing.
        verbose: show what is asked of whom.
        no_input: never ask, even at a terminal.
        color: whether to colour; `auto` follows the terminal, NO_COLOR and FORCE_COLOR.
    """

    def __init__(
        self,
        *,
        as_json: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        no_input: bool = False,
        color: ColorChoice = "auto",
    ) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose
        self.no_input = no_input
        self.color = color

    @property
    def can_ask(self) -> bool:
        """Whether a person sits at both ends, and has not forbidden questions."""
        return not (self.no_input or self.as_json) and sys.stdin.isatty() and sys.stderr.isatty()

    def answer(self, *, data: Callable[[], Any], ids: Iterable[str], human: Callable[[], str]) -> None:
        """The answer in the mode that was asked for; only that one is computed.

        Args:
            data: the value for JSON, of msgspec structs and plain types.
            ids: one line each in quiet mode.
            human: what a person sees.
        """
        if self.as_json:
            self.write_json(data())
        elif self.quiet:
            for line in ids:
                sys.stdout.write(f"{line}\n")
        else:
            self._print(human())

    def write_json(self, value: Any) -> None:
        """One JSON value and a newline on stdout."""
        import msgspec

        sys.stdout.write(msgspec.json.encode(value, enc_hook=str).decode() + "\n")

    def say(self, text: str) -> None:
        """Talk for a person, on stderr, broken between words; silent in quiet and JSON mode."""
        from soong.cli.text import prose

        self._talk(prose(text, stream=sys.stderr))

    def _talk(self, text: str) -> None:
        if not (self.quiet or self.as_json):
            click.echo(text, err=True, color=self._colored())

    def progress(self, what: str) -> Callable[[int, int], None]:
        """A listener that rewrites one line on a terminal, and says nothing elsewhere."""

        def listen(done: int, of: int) -> None:
            if sys.stderr.isatty() and not (self.quiet or self.as_json):
                sys.stderr.write(f"\r{what}: {done} of {of} files" + ("\n" if done == of else ""))
                sys.stderr.flush()

        return listen

    def hint(self, text: str) -> None:
        """What to do next; never broken, as it may be copied."""
        self._talk(f"hint: {text}")

    def _print(self, text: str) -> None:
        line = text if text.endswith("\n") else f"{text}\n"
        click.echo(line, nl=False, color=self._colored())

    def _colored(self) -> bool | None:
        """True and false decide; None leaves it to whether stdout is a terminal."""
        if self.color != "auto":
            return self.color == "always"
        if os.environ.get("NO_COLOR"):
            return False
        return True if os.environ.get("FORCE_COLOR") else None


class ErrorPrinter:
    """Writes errors to stderr, in words or as one JSON object."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def show(self, error: SoongError) -> None:
        """What happened, why, what to do next, where to read more."""
        sys.stderr.write(self._json(error) if self.as_json else self._words(error))

    def say(self, text: str) -> None:
        """A line that is no error."""
        sys.stderr.write(f"{text}\n")

    def _words(self, error: SoongError) -> str:
        lines = [f"{'' if error.message.startswith('Error:') else 'error: '}{error}"]
        lines += [f"hint: {hint}" for hint in error.hints]
        if error.docs:
            lines.append(f"docs: {DOCS_ROOT}/{error.docs}")
        return "".join(f"{harmless(line)}\n" for line in lines)

    def _json(self, error: SoongError) -> str:
        import msgspec

        return msgspec.json.encode(error_document(error)).decode() + "\n"


def error_document(error: SoongError) -> dict[str, Any]:
    """An error as scripts see it."""
    docs = f"{DOCS_ROOT}/{error.docs}" if error.docs else None
    message, *hints = (_encodable(one) for one in (str(error), *error.hints))
    return {"code": error.code, "message": message, "hints": hints, "docs": docs}


def harmless(words: str) -> str:
    """Words that may repeat what was typed or read: what a terminal would obey is written out."""
    if words.isprintable():
        return words
    shown = (one if one.isprintable() or one in "\n\t" else _written_out(one) for one in words)
    return "".join(shown).replace("\n", "\n  ")


def _encodable(words: str) -> str:
    """Words without the halves of characters that stand for bytes which were no text; JSON cannot hold those."""
    return words.encode(errors="backslashreplace").decode()


def _written_out(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def _import_msgspec() -> None:
    """Import what every command reads its tables with, quicker than it would be.

    It asks `typing_extensions` for what `typing` itself has, and without it takes that. Importing the former, which
    httpx brings, takes a thirtieth of `soong plan`.
    """
    if "msgspec" in sys.modules or "typing_extensions" in sys.modules:
        return
    sys.modules["typing_extensions"] = None  # type: ignore[assignment] # what Python itself takes for: not there
    try:
        import msgspec  # noqa: F401
    finally:
        del sys.modules["typing_extensions"]


def options(function: Callable[P, R]) -> Callable[..., R]:
    """Give a command the options that every command has; it receives them as `out`."""

    @click.option("--json", "as_json", is_flag=True, help="Answer with JSON on stdout.")
    @click.option("-q", "--quiet", is_flag=True, help="Answer with ids only.")
    @click.option("-v", "--verbose", is_flag=True, help="Show on stderr what is asked of whom.")
    @click.option("--no-input", is_flag=True, help="Never ask a question.")
    @click.option(
        "--color", type=click.Choice(["auto", "always", "never"]), default="auto", help="Colour the answer."
    )
    @wraps(function)
    def wrapper(
        *args: Any,
        as_json: bool,
        quiet: bool,
        verbose: bool,
        no_input: bool,
        color: ColorChoice,
        **kwargs: Any,
    ) -> R:
        context = click.get_current_context()
        parent = context.parent
        above = parent.meta.get("soong.output") if parent else None
        out = Output(
            as_json=as_json or (above.as_json if above else False),
            quiet=quiet or (above.quiet if above else False),
            verbose=verbose or (above.verbose if above else False),
            no_input=no_input or (above.no_input if above else False),
            color=color if color != "auto" or above is None else above.color,
        )
        context.meta["soong.output"] = out
        _import_msgspec()
        if out.verbose:
            from soong.cli import verbose as watching

            watching.begin()
            context.find_root().call_on_close(watching.end)
        return function(*args, out=out, **kwargs)  # type: ignore[arg-type]

    return wrapper
