"""The sandbox's refusals, in the words of Lambda's error envelope."""

from __future__ import annotations

from typing import Any

WORDS = {
    "global/account-inactive": (
        403,
        "Your account is inactive.",
        "Make sure you have verified your email address and have a valid payment method.",
    ),
    "global/conflict": (409, "The request conflicts with the current state of the resource.", ""),
    "global/duplicate": (400, "A resource with this name exists already.", "Choose another name."),
    "global/internal-error": (500, "An internal server error occurred.", "Try again later."),
    "global/invalid-api-key": (
        401,
        "API key was invalid, expired, or deleted.",
        "Check your API key or create a new one, then try again.",
    ),
    "global/invalid-parameters": (400, "Invalid request data.", ""),
    "global/not-found": (404, "The requested resource was not found.", ""),
    "global/object-does-not-exist": (404, "The object does not exist.", "Check the ID and try again."),
    "global/quota-exceeded": (400, "Quota exceeded.", "Contact Support to increase your quota."),
    "global/too-many-requests": (429, "Too many requests.", "Slow down."),
    "global/unknown": (500, "An unknown error occurred.", ""),
    "filesystems/filesystem-in-use": (400, "The filesystem is in use.", "Terminate its instances first."),
    "firewall-rulesets/firewall-ruleset-in-use": (
        400,
        "Firewall ruleset is in use by one or more instances.",
        "Terminate all instances that are using the ruleset before deleting it.",
    ),
    "instance-operations/launch/file-system-in-wrong-region": (
        400,
        "The filesystem is not in the region of the instance.",
        "Launch in the region of the filesystem.",
    ),
    "instance-operations/launch/insufficient-capacity": (
        400,
        "Not enough capacity to fulfill launch request.",
        "Choose an instance type with more availability, or try again later.",
    ),
    "provider/internal-unavailable": (503, "The provider is unavailable.", "Try again later."),
}
"""Code to its HTTP status, message and suggestion. Codes and statuses: Lambda Cloud API 1.10.0; the body of a 429,
`global/unknown` and `provider/…` are not in it, their form here is ours."""


class RefusedError(Exception):
    """A request is answered with an error.

    Args:
        code: of `WORDS`. message: in place of the usual one. status: in place of the usual one.
        headers: beside the usual ones.
    """

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        status: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        usual_status, usual_message, self.suggestion = WORDS[code]
        super().__init__(message or usual_message)
        self.code = code
        self.status = status or usual_status
        self.headers = headers or {}

    @property
    def body(self) -> dict[str, Any]:
        """The envelope."""
        error = {"code": self.code, "message": str(self)}
        if self.suggestion:
            error["suggestion"] = self.suggestion
        return {"error": error}


class DroppedError(Exception):
    """The connection is cut, and no answer is sent."""
