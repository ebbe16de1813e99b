"""A reaper ends what is over and its own, and reports everything else with its price."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from soong.launch.reaping import reap
from soong.lease.lease import make_lease
from tests.clouds.server import data, error
from tests.launch.conftest import machine

if TYPE_CHECKING:
    from soong.clouds.lambda_cloud.provider import LambdaProvider
    from soong.lease.lease import Lease
    from soong.lease.ledger import Ledger, Rental
    from tests.clouds.conftest import HandClock
    from tests.clouds.server import FakeLambda

LIST = ("GET", "/instances")
TERMINATE = ("POST", "/instance-operations/terminate")


def lease(clock: HandClock, hours_ago: float, owner: str = "ada") -> Lease:
    return make_lease(owner=owner, now=clock.now() - hours_ago * 3600, hours=4, cap_hours=8)


def test_only_what_is_over_and_ours_is_ended(
    server: FakeLambda, provider: LambdaProvider, clock: HandClock
) -> None:
    over = machine(lease(clock, 5), id="i-over")
    running = machine(lease(clock, 3), id="i-running")
    others = machine(lease(clock, 5, "bob"), id="i-bob")
    stranger = machine(lease(clock, 5), id="i-stranger", name="training", tags=[])
    server.on(*TERMINATE, data({"terminated_instances": []}))
    rest = [running, others, stranger]
    server.on(
        *LIST, data([over, *rest]), data([over, *rest]), data([{**over, "status": "terminated"}, *rest])
    )
    rows = {row.instance_id: row for row in reap(provider, owner="ada")}
    assert {name: row.outcome for name, row in rows.items()} == {
        "i-over": "ended",
        "i-running": "running",
        "i-bob": "other-owner",
        "i-stranger": "not-ours",
    }
    assert rows["i-stranger"].usd_per_hour == 1.29
    assert rows["i-running"].remaining_seconds == pytest.approx(3600, abs=10)
    assert {tuple(request.json["instance_ids"]) for request in server.asked(*TERMINATE)} == {("i-over",)}


def test_all_owners_means_every_tag_of_soong_and_no_stranger(
    server: FakeLambda, provider: LambdaProvider, clock: HandClock
) -> None:
    others = machine(lease(clock, 5, "bob"), id="i-bob")
    stranger = machine(lease(clock, 5), id="i-stranger", name="training", tags=[])
    server.on(*LIST, data([others, stranger]))
    rows = reap(provider, owner="ada", all_owners=True, dry_run=True)
    assert [row.outcome for row in rows] == ["would-end", "not-ours"]
    assert server.asked(*TERMINATE) == []


def test_all_are_asked_to_end_before_any_proof_is_waited_for(
    server: FakeLambda, provider: LambdaProvider, clock: HandClock
) -> None:
    """One machine that does not end must not let the others bill on meanwhile."""
    stuck, other = machine(lease(clock, 5), id="i-stuck"), machine(lease(clock, 6), id="i-other")
    server.on(*TERMINATE, data({"terminated_instances": []}))
    server.on(*LIST, data([stuck, other]), data([stuck, {**other, "status": "terminated"}]))
    rows = {row.instance_id: row.outcome for row in reap(provider, owner="ada", patience_seconds=100)}
    assert rows == {"i-stuck": "not-confirmed", "i-other": "ended"}
    first_two = [request.json["instance_ids"] for request in server.asked(*TERMINATE)[:2]]
    assert first_two == [["i-stuck"], ["i-other"]]


def test_a_machine_whose_tags_lag_is_ended_only_by_its_own_ledger(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, rental: Rental, clock: HandClock
) -> None:
    clock.sleep(5 * 3600)
    bare = machine(rental.lease, tags=[])
    server.on(*LIST, data([bare]))
    assert [row.outcome for row in reap(provider, owner="ada", dry_run=True)] == ["other-owner"]
    assert [row.outcome for row in reap(provider, owner="ada", dry_run=True, ledger=ledger)] == ["would-end"]


def test_the_proof_is_written_to_the_ledger(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, rental: Rental, clock: HandClock
) -> None:
    clock.sleep(5 * 3600)
    server.on(*TERMINATE, data({"terminated_instances": []}))
    server.on(*LIST, data([machine(rental.lease)]), data([machine(rental.lease, status="terminated")]))
    assert [row.outcome for row in reap(provider, owner="ada", ledger=ledger)] == ["ended"]
    after = ledger.get(rental.id)
    assert (after.phase, after.end_reason) == ("ended", "lease over")


def test_a_cloud_that_refuses_to_end_is_reported(
    server: FakeLambda, provider: LambdaProvider, clock: HandClock
) -> None:
    server.on(*LIST, data([machine(lease(clock, 5))]))
    server.on(*TERMINATE, error("global/internal-error", 500, off_spec=True))
    rows = reap(provider, owner="ada", patience_seconds=60)
    assert [row.outcome for row in rows] == ["not-confirmed"]
    assert "STOP NOT CONFIRMED" in rows[0].message
