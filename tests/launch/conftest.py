"""Station 8's tests speak real HTTP to a scripted Lambda, by a clock that never makes anyone wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from soong.lease.ledger import Ledger, Rental
from tests.cli.conftest import rehearsal, unpaced
from tests.clouds import samples
from tests.clouds.conftest import client, clock, provider, server
from tests.launch.several import several
from tests.lease.test_ledger import a_rental

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from soong.lease.lease import Lease
    from tests.clouds.conftest import HandClock

__all__ = ["client", "clock", "provider", "rehearsal", "server", "several", "unpaced"]


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    monkeypatch.setenv("SOONG_HOME", str(tmp_path))
    with Ledger(tmp_path / "state" / "ledger.sqlite") as opened:
        yield opened


@pytest.fixture
def rental(ledger: Ledger, clock: HandClock, provider: Any) -> Rental:
    """A machine that was granted a minute ago."""
    made = a_rental(account=provider.account, asked_at=clock.now() - 60)
    ledger.add(made)
    return ledger.change(made.id, "granted", clock.now() - 50, phase="granted", instance_id="i-1")


def machine(lease: Lease, **more: Any) -> dict[str, Any]:
    """A machine of a lease as Lambda tells of it."""
    tags = [{"key": key, "value": value} for key, value in lease.tags.items()]
    return samples.instance(**{"id": "i-1", "name": lease.instance_name, "tags": tags, **more})
