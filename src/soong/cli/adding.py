"""`soong models add` and `remove`: the conversation around the user's own table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from soong import units
from soong.cli import prompts
from soong.errors import ConfigError, RemoteError, UsageError
from soong.memory.rule_of_thumb import (
    RuleOfThumb,
    parse_stated_quantization,
    rule_of_thumb,
)

if TYPE_CHECKING:
    from soong.cli.output import Output
    from soong.models.resolve import ResolvedModel

BILLION = 10**9
MOST_BILLIONS = 100_000
QUANTIZATION_WORDS = (
    ("fp16", "FP16 (2 bytes/param)"),
    ("fp32", "FP32 (4 bytes/param)"),
    ("int8", "INT8 (1 byte/param)"),
    ("int4", "INT4 (0.5 bytes/param)"),
)


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """What was said so far; None is still open."""

    name: str | None = None
    hf_path: str | None = None
    params: str | None = None
    quantization: str | None = None
    context: str | None = None


def add_model(answers: Answers, *, out: Output, offline: bool) -> None:
    """Complete the answers (flags win, then the repository, then the person), save the row, say what it needs.

    Raises:
        UsageError: an answer makes no sense, is missing with nobody to ask, or the name is taken by a built-in model.
        NotFoundError, CredentialError, RemoteError: the repository cannot be read; nothing is saved then.
    """
    _check(answers)
    found = _read_repository(answers, out=out, offline=offline)
    if found is None:
        answers = _ask_for_the_rest(answers, out=out)
    row = _row(answers, found)
    _refuse_built_in(row["id"])
    from soong.models.model import Model
    from soong.user_tables import add_row

    stated = answers.quantization or _stated(row, found)
    estimate = rule_of_thumb(row["parameters"] / BILLION, stated, row["context_limit_tokens"])
    add_row("models", row, Model)
    _report(row, estimate, out=out)


def _stated(row: dict[str, Any], found: ResolvedModel | None) -> str:
    """The word for the formula: the typed one, else the one nearest to the repository's own format."""
    from soong.plan.planner import stated_quantization

    return stated_quantization(found) if found is not None else str(row["quantization"])


def _check(answers: Answers) -> None:
    """Refuse typed nonsense before anything is asked or fetched."""
    if answers.name is not None:
        check_free_name(answers.name)
    if answers.hf_path is not None:
        check_path(answers.hf_path)
    if answers.params is not None:
        parse_billions(answers.params)
    if answers.quantization is not None:
        parse_stated_quantization(answers.quantization)
    if answers.context is not None:
        units.parse_tokens(answers.context, what="`--context`")


def check_name(name: str) -> str:
    """A model id: letters, digits, dots, dashes and underscores.

    Raises:
        UsageError: anything else, or longer than 96 characters.
    """
    import re

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}", name):
        raise UsageError(
            f"`{name[:100]}` cannot be a model's id",
            why="it takes letters, digits, `.`, `-` and `_`",
            hints=("soong models add --name my-model",),
        )
    return name


def check_free_name(name: str) -> str:
    """A model id that no built-in model has.

    Raises:
        UsageError: it is malformed or taken.
    """
    _refuse_built_in(check_name(name))
    return name


def _name_from_path(hf_path: str | None) -> str | None:
    """The id that a repository's name suggests."""
    return hf_path.rsplit("/", 1)[-1].lower() if hf_path else None


def check_path(path: str) -> str:
    """An ORG/NAME on Hugging Face.

    Raises:
        UsageError: it is not of that form.
    """
    import re

    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", path) or ".." in path:
        raise UsageError(
            f"`{path[:100]}` is not a Hugging Face path",
            hints=("it looks like mistralai/Mistral-Nemo-Instruct-2407",),
        )
    return path


def parse_billions(text: str) -> int:
    """A number of parameters from billions: `12` is 12,000,000,000; a trailing `B` is forgiven.

    Raises:
        UsageError: not a number between 0 and 100,000 billion.
    """
    try:
        billions = float(text.strip().rstrip("bB"))
    except ValueError:
        billions = -1.0
    if not 0 < billions <= MOST_BILLIONS:
        raise UsageError(
            f"`--params` takes billions of parameters, not `{text[:40]}`",
            hints=("--params 12", "--params 7.6"),
        )
    return round(billions * BILLION)


def _read_repository(answers: Answers, *, out: Output, offline: bool) -> ResolvedModel | None:
    """What the repository says; None where everything was typed, no path was, or it could not be asked.

    A missing or gated path is refused also where everything was typed: nobody wants to save it.
    """
    if answers.hf_path is None:
        return None
    typed_everything = None not in (answers.params, answers.quantization, answers.context)
    if typed_everything and offline:
        return None
    from soong.models.resolve import resolve

    out.say(f"Reading {answers.hf_path} …")
    try:
        found = resolve(answers.hf_path, allow_network=not offline, progress=out.progress("Headers"))
    except ConfigError as error:
        if not typed_everything:
            raise
        out.say(f"Not checked: {error}")
        return None
    except RemoteError as error:
        if typed_everything or out.can_ask:
            out.say(f"Not checked: {error}")
            return None
        raise type(error)(
            error.message, why=error.why, hints=(*error.hints, _typed_hint(answers)), docs=error.docs
        ) from None
    return None if typed_everything else found


def _typed_hint(answers: Answers) -> str:
    name = f" --name {answers.name}" if answers.name else ""
    return (
        f"type what its files would have said: soong models add{name} --hf-path {answers.hf_path}"
        " --params 12 --quantization fp16 --context 128000"
    )


def _ask_for_the_rest(answers: Answers, *, out: Output) -> Answers:
    """The specification's prompts, for what is still open."""
    if out.can_ask and answers == Answers():
        out.say("Add Custom Model\n")
    name = answers.name or _name_from_path(answers.hf_path)
    if name is None:
        name = prompts.ask_text("Model name/ID:", out=out, option="--name", check=check_free_name)
    hf_path = answers.hf_path or prompts.ask_text(
        "HuggingFace model path:", out=out, option="--hf-path", check=check_path
    )
    params = answers.params or prompts.ask_text(
        "Parameter count (billions):", out=out, option="--params", check=parse_billions
    )
    quantization = answers.quantization or prompts.ask_choice(
        "Quantization:", QUANTIZATION_WORDS, out=out, option="--quantization"
    )
    context = answers.context or prompts.ask_text(
        "Context length:",
        out=out,
        option="--context",
        check=lambda text: units.parse_tokens(text, what="the context length"),
    )
    return Answers(name=name, hf_path=hf_path, params=params, quantization=quantization, context=context)


def _row(answers: Answers, found: ResolvedModel | None) -> dict[str, Any]:
    """The row for the user's table; typed answers win over what the repository says."""
    hf_path = answers.hf_path or ""
    name = answers.name or _name_from_path(hf_path) or ""
    check_name(name)
    row: dict[str, Any] = {"id": name, "name": name, "hf_path": hf_path}
    row["parameters"] = parse_billions(answers.params) if answers.params else _of(found).parameters
    row["quantization"] = (
        parse_stated_quantization(answers.quantization)
        if answers.quantization
        else _of(found).quantization_id
    )
    context = (
        units.parse_tokens(answers.context, what="`--context`")
        if answers.context
        else _of(found).context_limit_tokens
    )
    if context is None:
        raise UsageError(f"{hf_path} does not say its context length", hints=("add `--context 8192`",))
    row["context_limit_tokens"] = context
    row["default_context_tokens"] = context
    if found is not None and not answers.params and not answers.quantization:
        row |= found.catalogue_facts()
    return row


def _of(found: ResolvedModel | None) -> ResolvedModel:
    if found is None:
        raise UsageError(
            "the model's size is missing", hints=("add `--params`, `--quantization` and `--context`",)
        )
    return found


def _refuse_built_in(name: str) -> None:
    from soong.models.catalogue import packaged_ids

    if name.lower().endswith((".json", ".gguf")):
        raise UsageError(f"`{name}` would be taken for a file", hints=("choose another `--name`",))
    if name.lower() in packaged_ids():
        raise UsageError(
            f"'{name}' is a built-in model",
            why="only custom models can be added or removed",
            hints=("choose another `--name`",),
        )


def _report(row: dict[str, Any], estimate: RuleOfThumb, *, out: Output) -> None:
    """The specification's three lines, and the exact figures where the files were read."""
    from soong.plan.describing import minimum_label_gb

    minimum = minimum_label_gb(estimate.with_headroom_gb)
    lines = [
        f"Estimated VRAM: {units.format_gb(estimate.total_gb)}",
        f"Minimum GPU: {minimum} GB" if minimum else "Minimum GPU: larger than any single GPU",
        "",
        f"Model '{row['id']}' added successfully!",
    ]
    out.answer(
        data=lambda: {"model": row, "rule_of_thumb": estimate, "minimum_gpu_gb": minimum},
        ids=[row["id"]],
        human=lambda: "\n".join(lines),
    )
    out.hint(f"soong plan {row['id']}")


def remove_model(name: str, *, yes: bool, out: Output) -> None:
    """Remove a row of the user's own table, after a question.

    Raises:
        NotFoundError: no such model. UsageError: it is built in, or there is nobody to ask.
    """
    from soong.models.catalogue import find_model
    from soong.user_tables import remove_row

    model = find_model(name)
    if not model.custom:
        raise UsageError(
            f"Cannot remove '{model.id}': it is a built-in model",
            why="only custom models can be removed",
            hints=("soong models",),
        )
    if not yes and not prompts.confirm(f"Remove custom model '{model.id}'?", out=out):
        out.say(f"Model '{model.id}' kept.")
        return
    remove_row("models", model.id)
    out.answer(
        data=lambda: {"removed": model.id}, ids=[model.id], human=lambda: f"Model '{model.id}' removed."
    )
