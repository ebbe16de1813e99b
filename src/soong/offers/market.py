"""What a cloud must be able to say, so that its machines can be chosen from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.offers.offer import Offer


class Market(Protocol):
    """A place where machines are for rent; each cloud brings one."""

    def offers(self) -> Sequence[Offer]:
        """Every machine for rent here, with its price and, where the cloud says so, whether one is free now.

        Raises:
            CredentialError: the cloud wants a key, and it is missing or refused.
            RemoteError: the cloud did not answer, or answered nonsense.
        """
        ...
