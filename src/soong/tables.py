"""The tables of facts: packaged rows as frozen values, with the user's own rows laid over them.

People edit TOML, `data/<subject>.toml`; programs read JSON, `data/compiled/<subject>.json`, since reading
TOML costs more than a whole command may. `python -m soong.tables` writes the second from the first, and a
test proves that the two agree. The user's rows stand in `<subject>.toml` of the configuration directory, in
the same form; only when that file exists is TOML read at all.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from soong.errors import ConfigError
from soong.settings import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")  # noqa: PTH100, PTH118, PTH120 - start-up time

ROW_TABLES = {"models": "model", "gpus": "gpu", "prices": "price"}
"""Subjects that are lists of rows, and the TOML table of one row. Other subjects are free-form."""

KEYS = {"models": ("id",), "gpus": ("id",), "prices": ("cloud", "instance_type", "region")}
"""The fields that name a row: a user's row replaces the packaged row with the same ones."""

MOST_BYTES = 8 << 20
"""A user's table larger than this is no table."""

Row = TypeVar("Row", bound=msgspec.Struct)
Document = TypeVar("Document")
Held = TypeVar("Held")


@cache
def packaged(subject: str, row_type: type[Row]) -> tuple[Row, ...]:
    """The packaged rows of `models`, `gpus` or `prices`, in the file's order; read once in a process."""
    return tuple(msgspec.json.decode(_compiled(subject), type=list[row_type]))  # type: ignore[valid-type]


@cache
def packaged_document(subject: str, document_type: type[Document]) -> Document:
    """A packaged free-form table as one value; read once in a process."""
    return msgspec.json.decode(_compiled(subject), type=document_type)


def rows(subject: str, row_type: type[Row]) -> tuple[Row, ...]:
    """The packaged rows with the user's laid over: same key, user's row in its place; new keys at the end.

    The same tuple comes back until the user's file changes.

    Raises:
        ConfigError: the user's table cannot be read; names file, row and field.
    """
    found = _user_file(subject)
    return packaged(subject, row_type) if found is None else _laid_rows(subject, row_type, *found)


def user_rows(subject: str, row_type: type[Row]) -> tuple[Row, ...]:
    """The user's own rows, empty when there is no such file.

    Raises:
        ConfigError: the table cannot be read; names file, row and field.
    """
    found = _user_file(subject)
    return () if found is None else _user_rows(subject, row_type, *found)


UserFile = tuple[str, int, int]
"""The path of a user's table, and its time and size, to tell one state of it from another."""

_held: dict[str, Any] | None = None


@contextmanager
def held() -> Iterator[None]:
    """Look at the user's tables, and at kept prices, once for all that is done inside: a batch sees one state."""
    global _held  # noqa: PLW0603 - one switch for the process, as the files are
    _held = {}
    try:
        yield
    finally:
        _held = None


def looked_up(key: str, look: Callable[[], Held]) -> Held:
    """What `look` finds; inside `held` it looks once for each key."""
    if _held is None:
        return look()
    if key not in _held:
        _held[key] = look()
    found: Held = _held[key]
    return found


def _user_file(subject: str) -> UserFile | None:
    """The state of a user's table; None without one."""
    return looked_up(subject, lambda: _found_user_file(subject))


def _found_user_file(subject: str) -> UserFile | None:
    path = paths.config_file(f"{subject}.toml")
    try:
        stat = os.stat(path)  # noqa: PTH116 - one call, no import
    except (OSError, ValueError):
        return None
    return path, stat.st_mtime_ns, stat.st_size


@cache
def _laid_rows(subject: str, row_type: type[Row], path: str, changed_ns: int, size: int) -> tuple[Row, ...]:
    key = _key_of(subject)
    laid = {key(row): row for row in packaged(subject, row_type)}
    laid.update({key(row): row for row in _user_rows(subject, row_type, path, changed_ns, size)})
    return tuple(laid.values())


@cache
def _user_rows(subject: str, row_type: type[Row], path: str, _changed_ns: int, _size: int) -> tuple[Row, ...]:
    return tuple(
        typed_row(subject, row_type, raw, path, place) for place, raw in enumerate(raw_rows(subject, path), 1)
    )


def raw_rows(subject: str, path: str) -> list[Mapping[str, Any]]:
    """The row tables of a user's TOML file, not yet typed.

    Raises:
        ConfigError: the file is no TOML, too large, not readable, or holds something else than rows.
    """
    import tomllib

    try:
        with open(path, "rb") as file:  # noqa: PTH123 - start-up time
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise _unreadable(path, f"it is larger than {MOST_BYTES >> 20} MiB")
        document = tomllib.loads(text.decode())
    except UnicodeDecodeError as error:
        raise _unreadable(path, "it is not UTF-8 text") from error
    except (
        ValueError
    ) as error:  # TOMLDecodeError, and Python's own refusal of a number of thousands of digits
        raise _unreadable(path, f"not valid TOML: {error}") from error
    except RecursionError as error:
        raise _unreadable(path, "it is nested too deeply") from error
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    return _row_tables(subject, document, path)


def _row_tables(subject: str, document: dict[str, Any], path: str) -> list[Mapping[str, Any]]:
    name = ROW_TABLES[subject]
    strange = [key for key in document if key != name]
    if strange:
        raise _unreadable(path, f"it has `{strange[0][:60]}`, but only [[{name}]] tables belong here")
    found = document.get(name, [])
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise _unreadable(path, f"`{name}` must be written as [[{name}]] tables")
    return found


def typed_row(subject: str, row_type: type[Row], raw: Mapping[str, Any], path: str, place: int) -> Row:
    """One raw row as a value.

    Args:
        subject: models, gpus or prices.
        row_type: the struct of that subject's rows.
        raw: the row as TOML gives it.
        path: the file, for messages.
        place: which row of the file, from 1, for messages.

    Raises:
        ConfigError: a field is missing, unknown or badly typed; names file, row and field.
    """
    name = " ".join(str(raw[key])[:60] for key in KEYS[subject] if key in raw)
    where = f"{path}, [[{ROW_TABLES[subject]}]] number {place}" + (f" (`{name}`)" if name else "")
    unknown = [key for key in raw if key not in row_type.__struct_encode_fields__]
    if unknown:
        raise ConfigError(
            f"{where}: there is no field `{unknown[0][:60]}`",
            hints=(*_did_you_mean(unknown[0], row_type.__struct_encode_fields__), _mend(path)),
        )
    try:
        return msgspec.convert(_plain(raw), row_type)
    except msgspec.ValidationError as error:
        message, _, field = str(error).partition(" - at ")
        field = f" `{field.strip('`').removeprefix('$.')}`:" if field else ""
        raise ConfigError(f"{where}:{field} {message}", hints=(_mend(path),)) from error


def _plain(value: Any) -> Any:
    """TOML's own dates as the ISO text that rows hold."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value.isoformat() if hasattr(value, "isoformat") else value


def _key_of(subject: str) -> Callable[[msgspec.Struct], tuple[Any, ...]]:
    fields = KEYS[subject]
    return lambda row: tuple(getattr(row, field) for field in fields)


def _did_you_mean(word: str, known: Sequence[str]) -> tuple[str, ...]:
    from difflib import get_close_matches

    near = get_close_matches(word[:60], known, n=1)
    return (f"did you mean `{near[0]}`?",) if near else ()


def _unreadable(path: str, why: str) -> ConfigError:
    return ConfigError(f"cannot read the table {path}", why=why, hints=(_mend(path),))


def _mend(path: str) -> str:
    return f"mend the file in an editor, or move it away: `mv {path} {path}.broken`"


def compiled_path(subject: str) -> str:
    """The packaged JSON of a subject."""
    return os.path.join(DATA, "compiled", f"{subject}.json")  # noqa: PTH118 - start-up time


def _compiled(subject: str) -> bytes:
    with open(compiled_path(subject), "rb") as file:  # noqa: PTH123 - start-up time
        return file.read()


def compiled_from(subject: str, source: bytes) -> bytes:
    """The JSON that stands for a packaged TOML source: its rows, or all of it where it is free-form."""
    import tomllib

    document = tomllib.loads(source.decode())
    content = document.get(ROW_TABLES[subject], []) if subject in ROW_TABLES else document
    return msgspec.json.encode(_plain(content)) + b"\n"


def compile_all(*, only_check: bool = False) -> list[str]:
    """Write `data/compiled/` anew from every `data/*.toml`; returns the subjects whose JSON changed, or would."""
    from pathlib import Path

    target = paths.made(Path(DATA) / "compiled")
    changed = []
    for source in sorted(Path(DATA).glob("*.toml")):
        compiled = compiled_from(source.stem, source.read_bytes())
        file = target / f"{source.stem}.json"
        if not file.exists() or file.read_bytes() != compiled:
            changed.append(source.stem)
            if not only_check:
                file.write_bytes(compiled)
    return changed


def main(words: Sequence[str]) -> int:
    """Compile, or with `--check` only say what is stale; returns the exit code."""
    only_check = "--check" in words
    changed = compile_all(only_check=only_check)
    if only_check and changed:
        print("stale:", ", ".join(changed), "(run `make tables`)")  # noqa: T201 - a developer's command
        return 1
    print("compiled:", ", ".join(changed) or "all up to date")  # noqa: T201
    return 0


if __name__ == "__main__":
    import sys

    sys.exit(main(sys.argv[1:]))
