"""The engine's whole command: the planned flags as they are, and beside them what serving needs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import msgspec

from soong import tables
from soong.errors import UsageError
from soong.models.remote_code import why_trusted
from soong.plan.loading import CASTING_ENGINES, has_no_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.models.resolve import ResolvedModel

PYTHON, BIN, MODEL, PORT, TEMPLATE = "{python}", "{bin}", "{model}", "{port}", "{chat_template}"
"""Words that the machine fills in: the environment's interpreter and its `bin`, the weights, the engine's port, the
file of the chat template."""

LOOPBACK = "127.0.0.1"


class Requirements(msgspec.Struct, frozen=True, kw_only=True):
    """What is installed for one engine version on one processor.

    Attributes:
        launcher: the words that start the program, where it is not `bin/NAME` of the environment.
        build_env: variables for the installer, where a package is compiled on the machine.
    """

    engine: str
    version: str
    arch: str
    python: str
    packages: tuple[str, ...]
    source: str
    as_of: str
    launcher: tuple[str, ...] = ()
    build_env: dict[str, str] = {}


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """What a family of models needs of each engine. name: a pattern on the repository's name; empty for any.

    Attributes:
        chat_template: Jinja, where the repository has none. engine_encodes_chats: the engine needs none.
    """

    model_types: tuple[str, ...] = ()
    name: str = ""
    sglang_tools: str = ""
    sglang_reasoning: str = ""
    vllm_tools: str = ""
    vllm_reasoning: str = ""
    chat_template: str = ""
    engine_encodes_chats: bool = False


Cause = Literal[
    "memory-load",
    "memory-pool",
    "memory-graphs",
    "memory-other-process",
    "context-too-long",
    "killed",
    "gated",
    "disk-full",
    "unsupported-model",
    "unsupported-quantization",
    "driver",
    "port",
]


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A known failure of an engine, by a pattern on its log. source: the file that prints it, and its version."""

    cause: Cause
    pattern: str
    source: str


class Table(msgspec.Struct, frozen=True):
    """`data/serving.toml`."""

    requirements: tuple[Requirements, ...]
    family: tuple[Family, ...]
    failure: tuple[Failure, ...]


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """How the engine is started. argv: with the machine's words. notes: what a person must hear before it runs.

    Attributes:
        chat_template: what the file of that name holds. encodes_chats: chats need no template.
    """

    engine: str
    version: str
    argv: tuple[str, ...]
    env: dict[str, str]
    served_name: str
    notes: tuple[str, ...] = ()
    chat_template: str = ""
    encodes_chats: bool = False


def table() -> Table:
    """The packaged table; read once in a process."""
    found: Table = tables.packaged_document("serving", Table)
    return found


def requirements_of(engine: str, version: str, arch: str) -> Requirements:
    """What to install.

    Args:
        arch: `x86_64` or `arm64`.

    Raises:
        UsageError: this version of the engine is not known to install on such a machine.
    """
    rows = [row for row in table().requirements if row.engine == engine and row.arch == arch]
    for row in rows:
        if row.version == version:
            return row
    versions = ", ".join(row.version for row in rows) or "none"
    raise UsageError(
        f"{engine} {version} cannot be installed on a rented {arch} machine",
        why=f"versions that soong installs there: {versions}",
        hints=tuple(f"the same with `--engine-version {row.version}`" for row in rows),
    )


def family_of(model_type: str, repository: str) -> Family:
    """The first row of the table that matches; an empty one where none does.

    >>> family_of("gpt_oss", "openai/gpt-oss-20b").sglang_tools
    'gpt-oss'
    """
    name = repository.lower()
    for family in table().family:
        if model_type in family.model_types and re.search(family.name, name):
            return family
    return Family()


def engine_command(
    argv: Sequence[str], model: ResolvedModel, *, version: str, launcher: Sequence[str] = ()
) -> Command:
    """The whole command of an engine.

    Args:
        argv: as the plan gives it: program, model, planned flags. model: what is served. version: the engine's.
        launcher: what starts the program on the machine, where it is not in the environment's `bin`.

    Raises:
        UsageError: the plan has no command, or assumed a format that no repository is known for.
    """
    check_files(argv, model)
    model_type = str((model.config or {}).get("model_type", ""))
    family = family_of(model_type, model.serve_from)
    name = served_name(model)
    engine, filled = _filled(argv, launcher)
    extra = {"sglang": _sglang, "vllm": _vllm, "llama.cpp": _llama_cpp}[engine](family, name)
    notes: list[str] = []
    why = why_trusted(model) if engine != "llama.cpp" else ""
    if why:
        notes.append(
            f"code from the repository {model.serve_from} will run on the machine (--trust-remote-code): {why}"
        )
    return Command(
        engine=engine,
        version=version,
        argv=(*filled, *extra),
        env=_environment(engine),
        served_name=name,
        notes=tuple(notes),
        chat_template=family.chat_template if engine != "llama.cpp" else "",
        encodes_chats=family.engine_encodes_chats,
    )


def served_name(model: ResolvedModel) -> str:
    """What a client calls the model: the catalogue's id or ORG/NAME; of a path its last part.

    >>> from types import SimpleNamespace
    >>> served_name(SimpleNamespace(id="/models/gemma.Q4_K_M.gguf", source="gguf"))
    'gemma.Q4_K_M'
    """
    if model.source in {"catalogue", "hub"}:
        return model.id
    last = model.id.rstrip("/").rsplit("/", 1)[-1]
    return last.removesuffix(".gguf").removesuffix(".json") or "model"


def _filled(argv: Sequence[str], launcher: Sequence[str]) -> tuple[str, list[str]]:
    """The engine's name, and the planned command with the machine's own program and weights."""
    if argv[0] == "vllm":
        return "vllm", [*(launcher or (f"{BIN}/vllm",)), "serve", MODEL, *argv[3:]]
    if argv[0] == "llama-server":
        return "llama.cpp", [*(launcher or (f"{BIN}/llama-server",)), "--model", MODEL, *argv[3:]]
    at = argv.index("--model-path")
    return "sglang", [PYTHON, *argv[1:at], "--model-path", MODEL, *argv[at + 2 :]]


def _sglang(family: Family, name: str) -> list[str]:
    """Source of the flags: SGLang 0.5.23 `srt/server_args.py` and `srt/arg_groups`."""
    words = ["--host", LOOPBACK, "--port", PORT, "--served-model-name", name, "--enable-metrics"]
    if family.sglang_tools:
        words += ["--tool-call-parser", family.sglang_tools]
    if family.sglang_reasoning:
        words += ["--reasoning-parser", family.sglang_reasoning]
    return words + _chat_template(family)


def _vllm(family: Family, name: str) -> list[str]:
    """Source of the flags: vLLM 0.33.0 `entrypoints/common/cli_args.py`; metrics are on by themselves."""
    words = ["--host", LOOPBACK, "--port", PORT, "--served-model-name", name]
    if family.vllm_tools:
        words += ["--enable-auto-tool-choice", "--tool-call-parser", family.vllm_tools]
    if family.vllm_reasoning:
        words += ["--reasoning-parser", family.vllm_reasoning]
    return words + _chat_template(family)


def _chat_template(family: Family) -> list[str]:
    """Both engines take a file; SGLang knows a Jinja file by its ending (0.5.23 `srt/parser/template_manager.py`)."""
    return ["--chat-template", TEMPLATE] if family.chat_template else []


def _llama_cpp(_: Family, name: str) -> list[str]:
    """Source of the flags: llama.cpp b10662 `common/arg.cpp`; `--jinja` finds the parsers in the model's template."""
    return ["--host", LOOPBACK, "--port", PORT, "--alias", name, "--metrics", "--jinja"]


def check_files(argv: Sequence[str], model: ResolvedModel) -> None:
    """Refuse a plan that has no command.

    Raises:
        UsageError: the plan assumed a format that nobody is known to have the model in, or has no command at all.
    """
    if argv:
        return
    if has_no_files(model, CASTING_ENGINES[0]):
        raise UsageError(
            f"no repository with {model.id} in {model.quantization_label} is known, so it cannot be served",
            why="the plan assumed the format; serving needs files in it",
            hints=(
                "name a repository that has it: soong start --model ORG/NAME",
                f"soong models info {model.id}",
            ),
        )
    raise UsageError(f"the plan of {model.id} has no command to serve it", hints=(f"soong plan {model.id}",))


def _environment(engine: str) -> dict[str, str]:
    """Variables of the engine: no reports to its makers, as the machine is the person's own."""
    if engine == "vllm":
        return {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    return {}
