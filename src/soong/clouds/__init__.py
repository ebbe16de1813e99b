"""Adapters, one folder for each cloud. `open_provider` hands out the one that a name stands for.

`lambda`: Lambda Cloud; needs a key. `sandbox`: the same API on this computer, costs nothing. `local`: this computer
itself, with its own GPU or processor.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

from soong.errors import NotFoundError

if TYPE_CHECKING:
    from soong.launch.provider import Provider

CLOUDS = {
    "lambda": ("soong.clouds.lambda_cloud.provider", "Lambda Cloud; needs an API key"),
    "sandbox": ("soong.clouds.sandbox.provider", "a rehearsal on this computer; costs nothing"),
    "local": ("soong.clouds.local.provider", "this computer's own GPU or processor; costs nothing"),
}


def open_provider(cloud: str) -> Provider:
    """The account at `cloud` that this computer's settings name.

    Raises:
        NotFoundError: no such cloud. CredentialError: its key is missing. RemoteError: the sandbox does not start.
    """
    check_name(cloud)
    module = import_module(CLOUDS[cloud][0])
    return cast("Provider", module.open_provider())


def check_name(cloud: str) -> None:
    """Make sure that there is a cloud of that name.

    Raises:
        NotFoundError: there is none; the nearest is suggested.
    """
    if cloud not in CLOUDS:
        from difflib import get_close_matches

        from soong.offers.sources import known_clouds

        if cloud in known_clouds():
            raise NotFoundError(
                f"soong does not rent at `{cloud}`: it knows prices there, nothing more",
                hints=(f"soong plan MODEL --cloud {cloud}", f"soong offers --cloud {cloud}", "soong clouds"),
            )
        near = get_close_matches(cloud, CLOUDS, n=1)
        raise NotFoundError(
            f"there is no cloud `{cloud}`",
            hints=((f"did you mean `{near[0]}`?",) if near else ()) + ("soong clouds",),
        )
