"""After an interruption the ledger follows the cloud, and says so."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from soong.launch import settling
from soong.lease.lease import extended
from tests.clouds.server import data
from tests.launch.conftest import machine
from tests.lease.test_ledger import a_rental

if TYPE_CHECKING:
    from soong.clouds.lambda_cloud.provider import LambdaProvider
    from soong.lease.ledger import Ledger, Rental
    from tests.clouds.conftest import HandClock
    from tests.clouds.server import FakeLambda

LIST = ("GET", "/instances")
TERMINATE = ("POST", "/instance-operations/terminate")


@pytest.fixture
def asked(ledger: Ledger, provider: LambdaProvider, clock: HandClock) -> Rental:
    rental = a_rental(7, account=provider.account, asked_at=clock.now())
    ledger.add(rental)
    return rental


def test_a_start_that_died_is_adopted(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, asked: Rental
) -> None:
    server.on(*LIST, data([machine(asked.lease, id="i-5")]))
    assert [one.what for one in settling.settle(provider, ledger)] == ["adopted"]
    after = ledger.get(asked.id)
    assert (after.phase, after.instance_id, after.address) == ("granted", "i-5", "198.51.100.2")
    assert settling.settle(provider, ledger) == ()


def test_a_start_that_died_before_the_call_is_closed_only_after_two_minutes(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, asked: Rental, clock: HandClock
) -> None:
    server.on(*LIST, data([]))
    clock.sleep(100)
    assert settling.settle(provider, ledger) == ()
    assert ledger.get(asked.id).phase == "asked"
    clock.sleep(30)
    assert [one.what for one in settling.settle(provider, ledger)] == ["never-launched"]
    assert ledger.get(asked.id).phase == "refused"


def test_a_start_that_lives_is_left_alone(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, asked: Rental
) -> None:
    code = (
        "import sys\nfrom soong.lease.ledger import held\n"
        f"with held('{asked.id}'):\n    print(flush=True)\n    sys.stdin.read()\n"
    )
    starter = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert starter.stdout is not None
    starter.stdout.readline()
    server.on(*LIST, data([machine(asked.lease)]))
    assert settling.settle(provider, ledger) == ()
    assert ledger.get(asked.id).phase == "asked"
    starter.kill()
    starter.communicate()
    assert [one.what for one in settling.settle(provider, ledger)] == ["adopted"]


def test_a_machine_that_somebody_else_ended(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, rental: Rental, clock: HandClock
) -> None:
    server.on(*LIST, data([]))
    assert settling.settle(provider, ledger) == ()
    clock.sleep(31)
    assert [one.what for one in settling.settle(provider, ledger)] == ["ended-elsewhere"]
    assert ledger.get(rental.id).phase == "ended"


def test_a_machine_that_was_missing_once_and_is_back(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, rental: Rental, clock: HandClock
) -> None:
    server.on(*LIST, data([]), data([machine(rental.lease)]), data([]))
    for _ in range(3):
        assert settling.settle(provider, ledger) == ()
        clock.sleep(31)
    assert ledger.get(rental.id).phase == "granted"


def test_an_end_that_another_computer_moved(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, rental: Rental
) -> None:
    longer = extended(rental.lease, hours=1, now=rental.asked_at)
    server.on(*LIST, data([machine(longer)]))
    assert [one.what for one in settling.settle(provider, ledger)] == ["moved"]
    assert ledger.get(rental.id).lease == longer


def test_a_stop_that_died_is_finished(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, rental: Rental, clock: HandClock
) -> None:
    ledger.change(rental.id, "stop-asked", clock.now(), phase="ending", end_reason="soong stop")
    server.on(*TERMINATE, data({"terminated_instances": [machine(rental.lease)]}))
    server.on(*LIST, data([machine(rental.lease)]))
    assert [one.what for one in settling.settle(provider, ledger)] == ["stop-unfinished"]
    assert len(server.asked(*TERMINATE)) == 1
    server.on(*LIST, data([machine(rental.lease, status="terminated")]))
    assert [one.what for one in settling.settle(provider, ledger)] == ["stop-finished"]


def test_other_accounts_and_strangers_are_not_touched(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, rental: Rental
) -> None:
    ledger.add(a_rental(9, account="another"))
    stranger = machine(rental.lease, id="i-x", name="training", tags=[{"key": "owner", "value": "bob"}])
    server.on(*LIST, data([machine(rental.lease), stranger]))
    assert settling.settle(provider, ledger) == ()
    assert ledger.get(a_rental(9).id).phase == "asked"
    assert server.asked(*TERMINATE) == []
