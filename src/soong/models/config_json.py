"""Read a `config.json` that may be anything: typed, bounded access with an address in every complaint.

Hugging Face configs come from strangers. Sizes are checked here, once, so that the family readers can be
plain arithmetic: every integer is between 0 and `LARGEST`, every list is short enough to walk, and a wrong type
is a `ConfigError` that names the key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from soong.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LARGEST = 1 << 40
"""No size in a real config comes near a trillion; above it a number is a mistake or an attack."""

MOST_LAYERS = 4096
"""The deepest published decoders have a few hundred layers."""

MOST_BYTES = 8 << 20
"""The largest real config.json (with its ignore list of layers) is under one MiB."""

_decoder = msgspec.json.Decoder()


class Config:
    """A section of a config.json. Getters return checked values; `address` is where the section stands."""

    __slots__ = ("address", "values")

    def __init__(self, values: Mapping[str, Any], address: str = "") -> None:
        self.values = values
        self.address = address

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def where(self, key: str) -> str:
        """The dotted place of a key, for messages."""
        return f"{self.address}.{key}" if self.address else key

    def integer(self, *keys: str, default: int | None = None, least: int = 0) -> int:
        """The first of `keys` that is present, as an integer of at least `least`.

        Raises:
            ConfigError: none is present and there is no default, or the value is not a sensible integer.
        """
        for key in keys:
            value = self.values.get(key)
            if value is not None:
                return self._checked_integer(key, value, least)
        if default is None:
            raise ConfigError(
                f"config.json lacks `{self.where(keys[0])}`", why="the memory cannot be computed without it"
            )
        return default

    def _checked_integer(self, key: str, value: object, least: int) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"`{self.where(key)}` must be a whole number, not {_shown(value)}")
        if not least <= value <= LARGEST:
            raise ConfigError(f"`{self.where(key)}` is {_shown(value)}, which no real model has")
        return value

    def number(self, key: str, default: float) -> float:
        """A finite number."""
        value = self.values.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
            raise ConfigError(f"`{self.where(key)}` must be a number, not {_shown(value)}")
        return float(value)

    def flag(self, key: str, *, default: bool = False) -> bool:
        """True or false."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool | int):
            raise ConfigError(f"`{self.where(key)}` must be true or false, not {_shown(value)}")
        return bool(value)

    def text(self, key: str, default: str = "") -> str:
        """A string."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise ConfigError(f"`{self.where(key)}` must be text, not {_shown(value)}")
        return value

    def section(self, key: str) -> Config:
        """The object under `key`; an empty one where it is missing."""
        value = self.values.get(key)
        if value is None:
            return Config({}, self.where(key))
        if not isinstance(value, dict):
            raise ConfigError(f"`{self.where(key)}` must be an object, not {_shown(value)}")
        return Config(value, self.where(key))

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings; empty where it is missing."""
        return tuple(str(item) for item in self._listed(key, str))

    def integers(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers; empty where it is missing."""
        return tuple(self._checked_integer(key, item, -LARGEST) for item in self._listed(key, int))

    def _listed(self, key: str, kind: type) -> list[Any]:
        value = self.values.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
            raise ConfigError(f"`{self.where(key)}` must be a list, not {_shown(value)}")
        return value

    def layers(self, *keys: str) -> int:
        """A number of layers: at least one, at most `MOST_LAYERS`."""
        count = self.integer(*(keys or ("num_hidden_layers",)), least=1)
        if count > MOST_LAYERS:
            raise ConfigError(
                f"`{self.where(keys[0] if keys else 'num_hidden_layers')}` is {count:,}, which no real model has"
            )
        return count


def parse_config(data: bytes, name: str) -> Config:
    """The config in `data`, the content of the file or address `name`.

    Raises:
        ConfigError: it is empty, too large, not JSON, or not an object.
    """
    if not data.strip():
        raise ConfigError(f"{name} is empty")
    if len(data) > MOST_BYTES:
        raise ConfigError(f"{name} is {len(data):,} bytes long", why="a config.json is never that large")
    try:
        values = _decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name} is not valid JSON", why=str(error)) from None
    if not isinstance(values, dict):
        raise ConfigError(f"{name} must hold a JSON object, not {_shown(values)}")
    return Config(values)


def _decode(data: bytes) -> object:
    """JSON, and what Python writes for infinite numbers (`Infinity`, `NaN`), which some repositories hold."""
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError:
        if b"Infinity" not in data and b"NaN" not in data:
            raise
        import json

        try:
            values = json.loads(data)
            msgspec.json.encode(values)  # Python's reader lets half a surrogate pair through
        except ValueError as error:
            raise msgspec.DecodeError(str(error)) from None
        return values


def read_config(path: Path) -> Config:
    """The config in a file.

    Raises:
        ConfigError: it cannot be read, or `parse_config` refuses it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}", why=error.strerror or str(error)) from None
    return parse_config(data, str(path))


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) > LARGEST:
        return "a number of more than twelve digits"
    text = repr(value) if not isinstance(value, dict) else "an object"
    return text if len(text) <= 60 else f"{text[:57]}..."
