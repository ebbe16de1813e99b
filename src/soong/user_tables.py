"""Write the user's own rows: comments stay, two writers at once lose nothing, a failure leaves the old file.

A change is made to a copy in the same folder, synced, and moved over the old file, under a lock that other
soong processes respect. A table that cannot be read is refused before it is touched.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from soong.errors import NotFoundError, UsageError
from soong.settings import paths
from soong.settings.files import locked, replace_text
from soong.tables import KEYS, ROW_TABLES, raw_rows, typed_row

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import msgspec
    from tomlkit import TOMLDocument


def table_path(subject: str) -> Path:
    """Where the user's rows of `models`, `gpus` or `prices` stand, whether or not the file exists."""
    return Path(paths.config_file(f"{subject}.toml"))


def add_row(subject: str, row: Mapping[str, Any], row_type: type[msgspec.Struct] | None = None) -> Path:
    """Append a row to the user's table and return the file.

    Args:
        subject: models, gpus or prices.
        row: the fields; those that are None are left out, since TOML has no null.
        row_type: the struct of the subject's rows; when given, the row is checked before anything is saved.

    Raises:
        UsageError: the user's table has a row of that name already.
        ConfigError: the user's table is broken, or the row does not fit `row_type`; nothing is changed.
        SoongError: the table cannot be written; says what to do.
    """
    path = table_path(subject)
    filled = _without_none(row)
    if row_type is not None:
        typed_row(subject, row_type, filled, str(path), 1)

    def append(document: TOMLDocument) -> None:
        import tomlkit
        from tomlkit.items import AoT

        present = document.get(ROW_TABLES[subject])
        if not isinstance(present, AoT):
            document.pop(ROW_TABLES[subject], None)
            present = tomlkit.aot()
            document.append(ROW_TABLES[subject], present)
            present = document[ROW_TABLES[subject]]
        if any(_key(subject, old) == _key(subject, filled) for old in present):
            name = _name(subject, filled)
            raise UsageError(
                f"`{name}` is already in {path}", hints=("choose another name, or remove that row first",)
            )
        present.append(tomlkit.item(filled))

    _change(subject, path, append)
    return path


def remove_row(subject: str, *key: str | None) -> Path:
    """Take the row of that key (an id; for prices cloud, instance type and region) out of the user's table.

    Raises:
        NotFoundError: the user's table has no such row.
        ConfigError: the user's table is broken; nothing is changed.
        SoongError: the table cannot be written; says what to do.
    """
    path = table_path(subject)
    wanted = (*key, *(None for _ in KEYS[subject][len(key) :]))

    def remove(document: TOMLDocument) -> None:
        present: list[Any] = document.get(ROW_TABLES[subject], [])
        for place, row in enumerate(present):
            if _key(subject, row) == wanted:
                del present[place]
                return
        raise NotFoundError(f"`{' '.join(part for part in key if part)}` is not in {path}")

    _change(subject, path, remove)
    return path


def _change(subject: str, path: Path, change: Callable[[TOMLDocument], None]) -> None:
    import tomlkit

    paths.made(path.parent)
    with locked(path.parent / f".{subject}.lock"):
        old = ""
        if path.exists():
            raw_rows(subject, str(path))
            old = path.read_text(encoding="utf-8")
        document = tomlkit.parse(old)
        change(document)
        replace_text(path, tomlkit.dumps(document))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [_without_none(inner) for inner in value]
    return value


def _key(subject: str, row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(field) for field in KEYS[subject])


def _name(subject: str, row: Mapping[str, Any]) -> str:
    return " ".join(str(part) for part in _key(subject, row) if part is not None)
