"""What Lambda's refusals mean, by their code: the one field that Lambda asks to branch on.

Source: Lambda Cloud API 1.10.0, the error schemas of each path, and codes that were met in the wild.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from soong.errors import CredentialError, NotFoundError, RemoteError, SoongError
from soong.launch.provider import LaunchRefusedError, LaunchUnclearError

if TYPE_CHECKING:
    from soong.clouds.lambda_cloud.service import Service
    from soong.clouds.lambda_cloud.wire import Refusal as RefusalBody
    from soong.launch.provider import Refusal

NOTHING_LAUNCHED: dict[str, Refusal] = {
    "instance-operations/launch/insufficient-capacity": "no-capacity",
    "instance-operations/launch/file-system-in-wrong-region": "wrong-region",
    "global/quota-exceeded": "quota",
    "global/object-does-not-exist": "missing",
    "global/not-found": "missing",
    "global/invalid-parameters": "invalid",
    "global/invalid-api-key": "account",
    "global/account-inactive": "account",
    "global/invalid-address": "account",
    "global/forbidden": "account",
}
"""Codes that prove that a launch made nothing, when they come with a status from 400 to 499. Every other code
(`global/internal-error`, `global/unknown`, `provider/...`) proves nothing."""

NO_KEY = "global/invalid-api-key"
_ACCOUNT = frozenset({"global/account-inactive", "global/invalid-address", "global/forbidden"})
_MISSING = frozenset({"global/object-does-not-exist", "global/not-found"})

_REFUSED = {
    "no-capacity": "no machine of this type is free in this region",
    "wrong-region": "the filesystem stands in another region",
    "quota": "the account's quota is used up",
    "missing": "something that the launch names does not exist",
    "invalid": "the request is not valid",
    "account": "the account or its key may not launch",
}


def is_passing(status: int, code: str) -> bool:
    """Whether the same question may be answered a moment later."""
    return (
        status in {408, 429}
        or status >= 500
        or code == "global/internal-error"
        or code.startswith("provider/")
    )


def ordinary_error(service: Service, what: str, status: int, refusal: RefusalBody) -> SoongError:
    """The error for a refusal of anything but a launch.

    Args:
        service: who refused. what: what was asked: `to list the instances`. status: of the answer. refusal: its body.
    """
    why = words_of(status, refusal)
    suggestion = _suggestion(refusal)
    if refusal.code == NO_KEY or (status == 401 and not refusal.code):
        return CredentialError(f"{service.name} refused the API key", why=why, hints=service.key_hints)
    if refusal.code in _ACCOUNT or (status == 403 and not refusal.code):
        message = f"the account may not ask {service.name} {what}"
        return CredentialError(message, why=why, hints=(*service.account_hints, *suggestion))
    if refusal.code in _MISSING or (status in {404, 410} and not refusal.code):
        return NotFoundError(f"{service.name} does not know what it was asked {what}", why=why)
    return RemoteError(f"{service.name} was asked {what} and refused", why=why, hints=suggestion)


def launch_error(
    service: Service, status: int, refusal: RefusalBody
) -> LaunchRefusedError | LaunchUnclearError:
    """The error for the refusal of a launch: certain that nothing was launched, or unclear."""
    why = words_of(status, refusal)
    reason = NOTHING_LAUNCHED.get(refusal.code)
    if reason is None or status == 429 or not 400 <= status < 500:
        return unclear(service, why)
    return LaunchRefusedError(
        f"{service.name} launched nothing: {_REFUSED[reason]}",
        refusal=reason,
        why=why,
        hints=(*_launch_hints(service, reason), *_suggestion(refusal)),
    )


def _launch_hints(service: Service, reason: Refusal) -> tuple[str, ...]:
    return {
        "no-capacity": ("soong available",),
        "wrong-region": ("soong config unset lambda.filesystem",),
        "quota": (*service.account_hints, "soong status"),
        "missing": ("soong doctor",),
        "invalid": (),
        "account": (*service.key_hints, *service.account_hints),
    }[reason]


def unclear(service: Service, why: str) -> LaunchUnclearError:
    """The error for a launch of which nobody knows whether it made a machine."""
    return LaunchUnclearError(
        f"it is not clear whether {service.name} launched a machine",
        why=why,
        hints=("soong status", f"look yourself: {service.console_url}"),
    )


def words_of(status: int, refusal: RefusalBody) -> str:
    """Status, code and message of a refusal in one line."""
    said = ": ".join(part for part in (refusal.code, refusal.message) if part)
    return f"status {status}, {said}" if said else f"status {status}, and no reason that can be read"


def _suggestion(refusal: RefusalBody) -> tuple[str, ...]:
    return (refusal.suggestion,) if refusal.suggestion else ()
