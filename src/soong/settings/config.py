"""What the user has set: one registry of settings, four places a value can come from.

A flag wins over the environment, the environment over `config.toml` in soong's configuration directory, the file over
the default; `look_up` tells where a value came from. Nothing here is secret: keys have places of their own
(`settings/secrets.py`), and a value that looks like one is refused.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from soong import units
from soong.errors import ConfigError, UsageError
from soong.settings import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Origin = Literal["flag", "environment", "file", "default"]
Plain = str | float | bool | None

FILE = "config.toml"
MOST_BYTES = 1 << 20


class Setting(NamedTuple):
    """One thing that can be set.

    key: `lease.hours`. help: one line. parse: from text, or from TOML's own value, to the value; also told the key,
    for its message. default: None where there is none.
    """

    key: str
    help: str
    parse: Callable[[Any, str], Plain]
    default: Plain = None

    @property
    def variable(self) -> str:
        """The variable of the environment that sets it: `SOONG_LEASE_HOURS`."""
        return "SOONG_" + self.key.upper().replace(".", "_")


class Found(NamedTuple):
    """The value of a setting. where: the flag, variable or file it came from, empty for a default."""

    setting: Setting
    value: Plain
    origin: Origin
    where: str = ""


def _text(given: Any, key: str) -> str:
    if not isinstance(given, str) or not given.strip() or not given.isprintable():
        raise _refused(key, given, "write one line of text")
    return given.strip()


def _word(given: Any, key: str) -> str:
    text = _text(given, key)
    if len(text.split()) != 1:
        raise _refused(key, given, "write one word")
    return text


def _small_word(given: Any, key: str) -> str:
    return _word(given, key).lower()


def _path(given: Any, key: str) -> str:
    return str(Path(_text(given, key)).expanduser())


def _flag(given: Any, key: str) -> bool:
    if isinstance(given, bool):
        return given
    words = {
        "true": True,
        "yes": True,
        "on": True,
        "1": True,
        "false": False,
        "no": False,
        "off": False,
        "0": False,
    }
    found = words.get(str(given).strip().lower())
    if found is None:
        raise _refused(key, given, "write true or false")
    return found


def _hours(given: Any, key: str) -> float:
    return units.parse_hours(given, what=key)


def _usd(given: Any, key: str) -> float:
    return units.parse_usd(given, what=key)


def _port(given: Any, key: str) -> int:
    text = str(given)
    if isinstance(given, bool) or not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise _refused(key, given, "write a port from 1 to 65535")
    return int(text)


def _one_of(*choices: str) -> Callable[[Any, str], str]:
    def parse(given: Any, key: str) -> str:
        if given not in choices:
            raise _refused(key, given, f"choose one of {', '.join(choices)}")
        return str(given)

    return parse


def _url(given: Any, key: str) -> str:
    text = _word(given, key)
    if not text.startswith(("https://", "http://")):
        raise _refused(key, given, "write an address that begins with https://")
    return text


def _owner(given: Any, key: str) -> str:
    text = _word(given, key)
    if len(text) > 128 or not text.isascii():
        raise _refused(key, given, "write one word of at most 128 plain letters: it becomes a tag")
    return text


SETTINGS = {
    setting.key: setting
    for setting in (
        Setting(
            "cloud",
            "Where to serve: lambda, sandbox for a rehearsal, or local for this computer.",
            _small_word,
            "lambda",
        ),
        Setting("model", "The model to start when none is named.", _word),
        Setting("gpu", "The GPU to take when none is named; else the cheapest that fits.", _word),
        Setting("region", "The only region to rent in; else any.", _word),
        Setting("engine", "The engine that serves.", _one_of("vllm", "sglang", "llama.cpp"), "sglang"),
        Setting("lease.hours", "How long a lease is when not said: 4, 90m, 1h30m.", _hours, 4.0),
        Setting("lease.cap_hours", "The longest a lease can ever become.", _hours, 8.0),
        Setting("lease.owner", "Who you are to others in the account; else made once.", _owner),
        Setting(
            "lease.idle",
            "End a machine after so long without a request: 30m, 1h; else only its lease.",
            _hours,
        ),
        Setting(
            "lease.reaper", "Where a reaper runs that does not need this computer, in your words.", _text
        ),
        Setting("lease.laptop_only", "Consent to long leases that only this computer guards.", _flag, False),
        Setting("ssh.key", "Your SSH key: the path of its private or public half.", _path),
        Setting("ssh.key_name", "What the key is called in the account.", _text),
        Setting("lambda.api_key_command", "A command that prints the API key: op read ...", _text),
        Setting("lambda.api_url", "Another address of Lambda's API.", _url, "https://cloud.lambda.ai"),
        Setting("lambda.auth", "How the key is sent: bearer or basic.", _one_of("bearer", "basic"), "bearer"),
        Setting("lambda.filesystem", "The filesystem to mount; keeps to its region.", _word),
        Setting(
            "budget.monthly_usd",
            "The most a month may cost, all machines together; what would pass it is refused.",
            _usd,
        ),
        Setting("budget.per_start_usd", "The most one start may cost where no --max-cost is given.", _usd),
        Setting(
            "prices.clouds",
            "Whose prices plans and `soong offers` look at when no cloud is named: lambda,runpod or all.",
            _text,
            "lambda",
        ),
        Setting("tunnel.port", "The port of this computer where the endpoint is reached.", _port, 8000),
        Setting(
            "serve.environment",
            "A folder with an engine's Python environment; rehearsals serve with it.",
            _path,
        ),
        Setting("notify.command", "A command that is run with a message when a wait ends.", _text),
    )
}
"""Every setting, in the order a person reads them."""


def value(key: str, *, flag: Any = None) -> Any:
    """The value of a setting, typed by its parser; None where nothing is set and there is no default.

    Args:
        key: of `SETTINGS`. flag: what the command line said, which wins; None when it said nothing.

    Raises:
        ConfigError: the file cannot be read, or the value in it or in the environment cannot be used.
        UsageError: the flag cannot be used.
    """
    return look_up(key, flag=flag).value


def look_up(key: str, *, flag: Any = None) -> Found:
    """The value of a setting and where it comes from; see `value`.

    Raises:
        NotFoundError: no such setting.
    """
    setting = find_setting(key)
    if flag is not None:
        return Found(
            setting, setting.parse(flag, key), "flag", f"--{key.rpartition('.')[2].replace('_', '-')}"
        )
    variable = os.environ.get(setting.variable, "").strip()
    if variable:
        return Found(setting, _usable(setting, variable, setting.variable), "environment", setting.variable)
    held = _file_values()
    if key in held:
        return Found(setting, _usable(setting, held[key], str(config_path())), "file", str(config_path()))
    return Found(setting, setting.default, "default")


def all_values() -> tuple[Found, ...]:
    """Every setting with its value and origin, in the registry's order.

    Raises:
        ConfigError: the file or a variable cannot be used.
    """
    return tuple(look_up(key) for key in SETTINGS)


def find_setting(key: str) -> Setting:
    """The setting of that key.

    Raises:
        UsageError: there is none; the nearest is suggested.
    """
    if key not in SETTINGS:
        raise UsageError(
            f"there is no setting `{key[:60]}`", hints=(*_near(key), "`soong config` lists them")
        )
    return SETTINGS[key]


def config_path() -> Path:
    """The file of settings, whether or not it is there."""
    return Path(paths.config_file(FILE))


def set_value(key: str, given: str) -> Found:
    """Write a setting into the file; comments and all else in it stay.

    Raises:
        UsageError: no such setting, the value cannot be used, or it looks like a secret.
        ConfigError: the file is broken; it is not touched. SoongError: it cannot be written.
    """
    setting = find_setting(key)
    _refuse_secret(key, given, ())
    parsed = setting.parse(given, key)

    def put(document: Any) -> None:
        import tomlkit

        table = document
        *parents, last = key.split(".")
        for parent in parents:
            if parent not in table:
                table[parent] = tomlkit.table()
            table = table[parent]
        table[last] = _as_toml(parsed)

    _change(put)
    return Found(setting, parsed, "file", str(config_path()))


def unset_value(key: str) -> bool:
    """Take a setting out of the file, known to soong or not; whether it was there.

    Raises:
        UsageError: neither soong nor the file knows the key.
        ConfigError: the file is no TOML. SoongError: it cannot be written.
    """
    was_there = False

    def take(document: Any) -> None:
        nonlocal was_there
        table = document
        *parents, last = key.split(".")
        for parent in parents:
            table = table.get(parent)
            if not hasattr(table, "get"):
                return
        was_there = last in table
        table.pop(last, None)

    if config_path().exists():
        _change(take)
    if not was_there:
        find_setting(key)
    return was_there


def _as_toml(parsed: Plain) -> Plain:
    return int(parsed) if isinstance(parsed, float) and parsed.is_integer() else parsed


def _change(change: Callable[[Any], None]) -> None:
    import tomlkit

    from soong.settings.files import locked, replace_text

    path = config_path()
    paths.made(path.parent)
    with locked(path.parent / f".{FILE}.lock"):
        _parsed(path)
        document = tomlkit.parse(path.read_text(encoding="utf-8") if path.exists() else "")
        try:
            change(document)
        except (TypeError, AttributeError, tomlkit.exceptions.TOMLKitError) as error:
            raise _unreadable(path, "a table and a value have the same name") from error
        replace_text(path, tomlkit.dumps(document))


def _file_values() -> Mapping[str, Any]:
    """The file's settings by key, as TOML has them; checked for strangers and secrets.

    Raises:
        ConfigError: the file cannot be read, or holds what is no setting.
    """
    path = config_path()
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return {}
    return _read_file(str(path), stat.st_mtime_ns, stat.st_size)


@cache
def _read_file(path: str, _changed_ns: int, _size: int) -> Mapping[str, Any]:
    flat = _flat(_parsed(Path(path)), "")
    for key, given in flat.items():
        if isinstance(given, str):
            _refuse_secret(key, given, (f"soong config unset {key}",))
        if key not in SETTINGS:
            raise ConfigError(
                f"{path}: there is no setting `{key[:60]}`",
                hints=(*_near(key), f"soong config unset {key}", "`soong config --help`"),
            )
    return flat


def _flat(table: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, inner in table.items():
        flat |= _flat(inner, f"{prefix}{name}.") if isinstance(inner, dict) else {f"{prefix}{name}": inner}
    return flat


def _parsed(path: Path) -> dict[str, Any]:
    """The file as TOML; empty where there is none.

    Raises:
        ConfigError: it cannot be read.
    """
    import tomllib

    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise _unreadable(path, f"it is larger than {MOST_BYTES >> 20} MiB")
        return tomllib.loads(text.decode())
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        raise _unreadable(path, "it is not UTF-8 text") from error
    except ValueError as error:
        raise _unreadable(path, f"not valid TOML: {error}") from error
    except RecursionError as error:
        raise _unreadable(path, "it is nested too deeply") from error
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error


def _usable(setting: Setting, given: Any, where: str) -> Plain:
    """The value of a file or variable.

    Raises:
        ConfigError: it cannot be used; says where it stands.
    """
    if isinstance(given, str):
        _refuse_secret(setting.key, given, ())
    try:
        return setting.parse(given, setting.key)
    except UsageError as error:
        hint = f"unset {where}" if where == setting.variable else f"soong config set {setting.key} VALUE"
        raise ConfigError(f"{where}: {error.message}", why=error.why, hints=(*error.hints, hint)) from error


def _refuse_secret(key: str, given: str, hints: tuple[str, ...]) -> None:
    from soong.settings import secrets

    if secrets.looks_like_secret(given):
        raise ConfigError(
            f"the value for `{key[:60]}` looks like a secret, which has no place among the settings",
            why="that file is meant to be shown, copied and kept in version control",
            hints=(
                *hints,
                f"put the key into {secrets.lambda_key_path()} (chmod 600), or: soong configure",
                f"or into the environment: {secrets.LAMBDA_VARIABLE}",
                "a command line stays in the shell's history: if this was a real key, make a new one",
            ),
        )


def _near(key: str) -> tuple[str, ...]:
    from difflib import get_close_matches

    ends = {name.rpartition(".")[2]: name for name in SETTINGS}
    near = get_close_matches(key[:60], SETTINGS, n=1) or [
        ends[end] for end in get_close_matches(key[:60].rpartition(".")[2], ends, n=1)
    ]
    return (f"did you mean `{near[0]}`?",) if near else ()


def _refused(key: str, given: object, why: str) -> UsageError:
    return UsageError(f"{key}: `{str(given)[:40]}` cannot be used", why=why)


def _unreadable(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"cannot read the settings in {path}",
        why=why,
        hints=("soong config edit", f"mv {path} {path}.broken"),
    )
