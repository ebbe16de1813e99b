"""Questions to a person. Nothing is asked without a terminal: then one line names the option, and soong ends with 2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from soong.cli.output import Output


def ask_text(
    question: str,
    *,
    out: Output,
    option: str,
    default: str = "",
    check: Callable[[str], object] | None = None,
) -> str:
    """A line of text.

    Args:
        question: what to ask. option: the flag that answers it without a terminal.
        default: what an empty answer means. check: refuses an answer with a `UsageError`; the person may try again.

    Raises:
        UsageError: there is no one to ask. KeyboardInterrupt: the person left.
    """
    _need_someone(out, question, option)
    import questionary

    def validate(text: str) -> bool | str:
        try:
            if check is not None:
                check(text or default)
        except UsageError as error:
            return str(error)
        return bool(text or default) or "an answer is needed"

    answer = questionary.text(question, default=default, validate=validate).unsafe_ask()
    return str(answer).strip()


def ask_secret(question: str, *, out: Output, option: str) -> str:
    """A line of text that is not shown while it is typed.

    Raises:
        UsageError: there is no one to ask. KeyboardInterrupt: the person left.
    """
    _need_someone(out, question, option)
    import questionary

    return str(questionary.password(question).unsafe_ask()).strip()


def ask_choice(question: str, choices: Sequence[tuple[str, str]], *, out: Output, option: str) -> str:
    """One of `choices`, pairs of (value, words).

    Raises:
        UsageError: there is no one to ask. KeyboardInterrupt: the person left.
    """
    _need_someone(out, question, option)
    import questionary

    entries = [questionary.Choice(words, value=value) for value, words in choices]
    return str(questionary.select(question, choices=entries).unsafe_ask())


def confirm(question: str, *, out: Output, option: str = "--yes") -> bool:
    """Yes or no; no is the default.

    Raises:
        UsageError: there is no one to ask. KeyboardInterrupt: the person left.
    """
    _need_someone(out, question, option)
    import questionary

    return bool(questionary.confirm(question, default=False).unsafe_ask())


def need_someone(question: str, *, out: Output, already: bool, option: str = "--yes") -> None:
    """Before anything is done on the way to a question: make sure that it can be asked, or is answered already.

    Raises:
        UsageError: there is no one to ask.
    """
    if not already:
        _need_someone(out, question, option)


def _need_someone(out: Output, question: str, option: str) -> None:
    if not out.can_ask:
        raise UsageError(f"cannot ask “{question}” without a terminal", hints=(f"give `{option}`",))
