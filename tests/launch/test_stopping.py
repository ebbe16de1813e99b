"""Stop is a proof: every answer that is none is "not yet"."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from soong.errors import CredentialError
from soong.launch import stopping
from tests.clouds.server import Reply, data, error
from tests.launch.conftest import machine

if TYPE_CHECKING:
    from soong.clouds.lambda_cloud.provider import LambdaProvider
    from soong.lease.ledger import Ledger, Rental
    from tests.clouds.conftest import HandClock
    from tests.clouds.server import FakeLambda

TERMINATE = ("POST", "/instance-operations/terminate")
LIST = ("GET", "/instances")


def taken(rental: Rental) -> Reply:
    return data({"terminated_instances": [machine(rental.lease, status="terminating")]})


def test_terminated_is_proof(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, rental: Rental
) -> None:
    server.on(*TERMINATE, taken(rental))
    server.on(
        *LIST,
        data([machine(rental.lease)]),
        data([machine(rental.lease, status="terminating")]),
        data([machine(rental.lease, status="terminated")]),
    )
    gone = stopping.stop(provider, ledger, rental, why="a test")
    assert gone.evidence == "the cloud lists it as terminated"
    assert len(server.asked(*TERMINATE)) == 1
    assert server.asked(*TERMINATE)[0].json == {"instance_ids": ["i-1"]}
    after = ledger.get(rental.id)
    assert (after.phase, after.ended_at, after.end_reason) == ("ended", gone.at, "a test")
    assert [event.kind for event in ledger.events(rental.id)][-2:] == ["stop-asked", "ended"]


def test_missing_is_proof_only_when_a_second_list_says_so_half_a_minute_later(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, rental: Rental, clock: HandClock
) -> None:
    server.on(*LIST, data([]))
    begun = clock.now()
    gone = stopping.stop(provider, ledger, rental, why="a test")
    assert "missing from two lists" in gone.evidence
    assert clock.now() - begun >= 30
    assert server.asked(*TERMINATE) == []


@pytest.mark.parametrize(
    "seen",
    [
        {"status": "terminating"},
        {"status": "active"},
        {"status": "unhealthy"},
        {"status": "preempted"},
        {"status": "reticulating"},
    ],
    ids=str,
)
def test_no_other_status_is_proof(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, rental: Rental, seen: dict[str, str]
) -> None:
    server.on(*TERMINATE, taken(rental))
    server.on(*LIST, data([machine(rental.lease, **seen)], off_spec=True))
    with pytest.raises(stopping.StopNotConfirmedError) as caught:
        stopping.stop(provider, ledger, rental, why="a test")
    words = " ".join([str(caught.value), *caught.value.hints])
    assert "STOP NOT CONFIRMED" in words
    assert "$1.29/h" in words
    assert "https://cloud.lambda.ai/instances" in words
    assert ledger.get(rental.id).phase == "ending"


def test_one_list_without_it_proves_nothing_when_it_comes_back(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, rental: Rental
) -> None:
    server.on(*TERMINATE, taken(rental))
    here, away = data([machine(rental.lease)]), data([])
    server.on(*LIST, away, here, away, here, away, here)
    with pytest.raises(stopping.StopNotConfirmedError):
        stopping.stop(provider, ledger, rental, why="a test")


def test_404_on_terminate_proves_nothing(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, rental: Rental
) -> None:
    server.on(*TERMINATE, error("global/object-does-not-exist", 404))
    server.on(*LIST, data([machine(rental.lease)]))
    with pytest.raises(stopping.StopNotConfirmedError):
        stopping.stop(provider, ledger, rental, why="a test")


def test_a_terminate_that_is_refused_is_asked_again_soon(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, rental: Rental, clock: HandClock
) -> None:
    busy = error("global/invalid-parameters", 400)
    server.on(*TERMINATE, busy, busy, taken(rental))
    listed = [data([machine(rental.lease)])] * 3 + [data([machine(rental.lease, status="terminated")])]
    server.on(*LIST, *listed)
    begun = clock.now()
    stopping.stop(provider, ledger, rental, why="a test")
    assert len(server.asked(*TERMINATE)) == 3
    assert clock.now() - begun < 20


def test_a_terminate_that_was_taken_and_forgotten_is_asked_again_each_minute(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, rental: Rental
) -> None:
    server.on(*TERMINATE, taken(rental))
    server.on(*LIST, data([machine(rental.lease)]))
    with pytest.raises(stopping.StopNotConfirmedError):
        stopping.stop(provider, ledger, rental, why="a test")
    assert len(server.asked(*TERMINATE)) == 5


def test_a_cloud_that_fails_is_asked_on(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, rental: Rental
) -> None:
    server.on(*TERMINATE, taken(rental))
    failing = [error("global/internal-error", 500, off_spec=True)] * 6
    server.on(
        *LIST, *failing, data([machine(rental.lease)]), data([machine(rental.lease, status="terminated")])
    )
    assert stopping.stop(provider, ledger, rental, why="a test")


def test_a_refused_key_is_said_at_once(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, rental: Rental
) -> None:
    server.on(*LIST, error("global/invalid-api-key", 401))
    with pytest.raises(CredentialError):
        stopping.stop(provider, ledger, rental, why="a test")
    assert ledger.get(rental.id).phase == "ending"


def test_a_machine_without_an_id_is_found_by_its_tag_or_its_name(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, rental: Rental
) -> None:
    ledger.change(rental.id, "forgotten", 0.0, instance_id="")
    server.on(*TERMINATE, taken(rental))
    other = machine(rental.lease, id="i-2", name="training", tags=[])
    by_tag = machine(rental.lease, name="renamed by hand")
    server.on(
        *LIST, data([other, by_tag]), data([other, machine(rental.lease, status="terminated", tags=[])])
    )
    assert stopping.stop(provider, ledger, ledger.get(rental.id), why="a test")
    assert [request.json for request in server.asked(*TERMINATE)] == [{"instance_ids": ["i-1"]}]


def test_what_an_earlier_command_missed_counts(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, rental: Rental, clock: HandClock
) -> None:
    """Two commands, each too short for a proof, make one together."""
    server.on(*LIST, data([]))
    with pytest.raises(stopping.StopNotConfirmedError):
        stopping.stop(provider, ledger, rental, why="a test", patience_seconds=0)
    clock.sleep(31)
    assert stopping.stop(provider, ledger, ledger.get(rental.id), why="a test", patience_seconds=0)
