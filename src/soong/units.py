"""Quantities as people type them, and as people read them.

Numbers that spend money or fill a GPU never travel without their unit: `Bytes`, `Usd`, `Hours` and `Tokens`
are plain numbers at run time and different things to the type checker. Decimal and binary sizes are kept
apart: `24GB` is 24,000,000,000 bytes and `24GiB` is 25,769,803,776.
"""

from __future__ import annotations

import re
from typing import NewType

from soong.errors import UsageError

Bytes = NewType("Bytes", int)
Usd = NewType("Usd", float)
Hours = NewType("Hours", float)
Tokens = NewType("Tokens", int)

GIB = 1 << 30

MOST_BYTES = 1 << 50
"""A PiB: no machine that serves a model has it, so above it a number is a slip."""
MOST_TOKENS = 1 << 30
"""A hundred times the longest context that any published model claims."""
MOST_HOURS = 8760.0
"""A year."""
MOST_USD = 1e6
"""No rented machine costs a million dollars an hour."""

BYTES_FORMS = "80GiB, 24GB, 512MiB, or a whole number of bytes"
TOKENS_FORMS = "8192, 32k (= 32,768), 100k (= 100,000) or 1M"
HOURS_FORMS = "4h, 90m, 1h30m, 2d, or a number of hours"
USD_FORMS = "$2.49 or 2.49"

_BYTE_UNITS = {
    "": 1,
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", 1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", 1)},
}
_TOKEN_UNITS = {"": 0, "k": 1, "m": 2}
_HOURS_PER = {"d": 24.0, "h": 1.0, "m": 1 / 60, "min": 1 / 60}

_NUMBER = r"[0-9]+(?:[,_][0-9]{3})*(?:\.[0-9]+)?|\.[0-9]+"
_QUANTITY = rf"(?a)({_NUMBER})\s*([a-zA-Z]*)"
_LONGEST = 40
"""Longer text is no number that a person meant."""


def parse_bytes(text: str | float, *, what: str = "size") -> Bytes:
    """A memory size in bytes.

    Args:
        text: `80GiB`, `24GB`, `512MiB`, or a whole number of bytes. `80G` is refused: it could be either.
        what: the option or field, for the message.

    Raises:
        UsageError: the text is no size, or the size is zero, negative, infinite or over a PiB.
    """
    number, unit = _split(text, what, BYTES_FORMS)
    factor = _BYTE_UNITS.get(unit.lower())
    if factor is None:
        hints = (
            (f"say {number:g}{unit.upper()}iB or {number:g}{unit.upper()}B",)
            if unit.lower() in {*"kmgt"}
            else ()
        )
        raise _refused(text, what, BYTES_FORMS, hints)
    size = number * factor
    if not 1 <= size <= MOST_BYTES or (factor == 1 and number != int(number)):
        raise _refused(text, what, BYTES_FORMS)
    return Bytes(round(size))


def parse_tokens(text: str | float, *, what: str = "tokens") -> Tokens:
    """A number of tokens.

    `k` and `M` follow the habit of model cards: a power of two counts in 1024s (8k is 8,192, 128k is 131,072,
    1M is 1,048,576), anything else in 1000s (100k is 100,000). A number without a letter is exact.

    Raises:
        UsageError: the text is no number of tokens, or it is zero, negative, fractional or absurdly large.
    """
    number, unit = _split(text, what, TOKENS_FORMS)
    power = _TOKEN_UNITS.get(unit.lower())
    if power is None:
        raise _refused(text, what, TOKENS_FORMS)
    whole = int(number)
    base = 1024 if number == whole and whole & (whole - 1) == 0 else 1000
    tokens = round(number * base**power, 6)
    if not 1 <= tokens <= MOST_TOKENS or tokens != int(tokens):
        raise _refused(text, what, TOKENS_FORMS)
    return Tokens(int(tokens))


def parse_hours(text: str | float, *, what: str = "hours") -> Hours:
    """A span of time in hours.

    Args:
        text: `4h`, `90m`, `1h30m`, `2d`, or a number of hours.
        what: the option or field, for the message.

    Raises:
        UsageError: the text is no span, or it is zero, negative or over a year.
    """
    written = _written(text, what, HOURS_FORMS)
    parts = list(re.finditer(_QUANTITY, written))
    if not parts or "".join(part[0] for part in parts) != written.replace(" ", ""):
        raise _refused(text, what, HOURS_FORMS)
    if len(parts) == 1 and not parts[0][2]:
        hours = _number(parts[0][1])
    else:
        factors = [_HOURS_PER.get(part[2].lower()) for part in parts]
        hours = sum(_number(part[1]) * factor for part, factor in zip(parts, factors, strict=True) if factor)
        if None in factors or factors != sorted((f for f in factors if f), reverse=True):
            raise _refused(text, what, HOURS_FORMS)
    if not 0 < hours <= MOST_HOURS:
        raise _refused(text, what, HOURS_FORMS)
    return Hours(hours)


def parse_usd(text: str | float, *, what: str = "price") -> Usd:
    """An amount of dollars, more than zero.

    Raises:
        UsageError: the text is no amount, or it is zero, negative, infinite or absurdly large.
    """
    plain = text.strip().removeprefix("$") if isinstance(text, str) else text
    number, unit = _split(plain, what, USD_FORMS)
    if unit.lower() not in {"", "usd"} or not 0 < number <= MOST_USD:
        raise _refused(text, what, USD_FORMS)
    return Usd(number)


def format_gib(size_bytes: float, digits: int = 1) -> str:
    """`79.2 GiB`: bytes as engines and nvidia-smi print them."""
    return f"{size_bytes / GIB:,.{digits}f} GiB"


def format_gb(size_gb: float, digits: int = 1) -> str:
    """`44.5 GB`: a figure that is already in decimal gigabytes, as the rule of thumb is."""
    return f"{size_gb:,.{digits}f} GB"


def format_tokens(tokens: int) -> str:
    """`131,072`."""
    return f"{tokens:,}"


def format_count(number: float) -> str:
    """`70.6B`, `494M`, `1.04T`: three figures that count, as model names give parameters."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= size * 0.9995:
            return f"{number / size:.3g}".removesuffix(".0") + letter
    return f"{number:g}"


def format_usd(amount: float) -> str:
    """`$2.49`; amounts under ten cents keep two figures that count, `$0.0031`."""
    if amount and abs(amount) < 0.1:
        return f"${amount:.2g}"
    return f"${amount:,.2f}"


def format_rate(tokens_per_second: float) -> str:
    """`1,142`, `142`, `7.4`: tokens a second."""
    return f"{tokens_per_second:,.0f}" if tokens_per_second >= 10 else f"{tokens_per_second:.1f}"


def format_dollars(amount: float) -> str:
    """`0.074`, `0.84`, `12.10`, `480`: two or three figures that count, as prices of a million tokens are told."""
    if amount >= 100:
        return f"{amount:,.0f}"
    return f"{amount:.2f}" if amount >= 0.1 else f"{amount:.3f}"


def format_hours(hours: float) -> str:
    """`4h`, `1h30m`, `45m`."""
    minutes = round(hours * 60)
    whole, rest = divmod(minutes, 60)
    return "".join([f"{whole}h" if whole else "", f"{rest}m" if rest or not whole else ""])


def _split(text: str | float, what: str, forms: str) -> tuple[float, str]:
    found = re.fullmatch(_QUANTITY, _written(text, what, forms))
    if found is None:
        raise _refused(text, what, forms)
    return _number(found[1]), found[2]


def _written(text: str | float, what: str, forms: str) -> str:
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        raise _refused(text, what, forms)
    if isinstance(text, int) and abs(text) > MOST_BYTES:
        raise _refused("a number beyond reason", what, forms)
    written = f"{text:f}".removesuffix(".000000") if isinstance(text, float) else str(text).strip()
    if len(written) > _LONGEST:
        raise _refused(text, what, forms)
    return written


def _number(digits: str) -> float:
    plain = digits.replace(",", "").replace("_", "")
    return float(plain) if "." in plain else int(plain)


def _refused(text: object, what: str, forms: str, hints: tuple[str, ...] = ()) -> UsageError:
    shown = str(text)
    if len(shown) > _LONGEST:
        shown = shown[:_LONGEST] + "…"
    return UsageError(f"{what}: `{shown}` cannot be used", why=f"write {forms}", hints=hints)
