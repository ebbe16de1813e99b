"""Who is asked: the name and the pages that messages send a person to, for Lambda and for what stands in for it."""

from __future__ import annotations

from typing import NamedTuple


class Service(NamedTuple):
    """A service that speaks Lambda's API.

    Attributes:
        name: as messages call it. console_url: where a person can end a machine by hand.
        key_hints: what to do about a refused key. account_hints: ... about an account that may not.
        later_hints: ... when it stumbles.
    """

    name: str
    console_url: str
    key_hints: tuple[str, ...] = ()
    account_hints: tuple[str, ...] = ()
    later_hints: tuple[str, ...] = ()


LAMBDA = Service(
    name="Lambda",
    console_url="https://cloud.lambda.ai/instances",
    key_hints=(
        "soong configure",
        "`soong doctor` finds out whether the key works in another way",
        "your keys: https://cloud.lambda.ai/api-keys",
    ),
    account_hints=("look at the account: https://cloud.lambda.ai",),
    later_hints=("try again in a minute", "is Lambda well? https://status.lambda.ai"),
)
"""The pages are named by API 1.10.0 (keys, address) and by Lambda's documentation of 2026."""
