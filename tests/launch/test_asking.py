"""A launch is asked once; a lost answer is looked for, never repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from soong.launch import asking, settling
from soong.launch.provider import LaunchRefusedError, LaunchUnclearError
from tests.clouds.server import Reply, data, error
from tests.launch.conftest import machine
from tests.lease.test_ledger import a_rental

if TYPE_CHECKING:
    from soong.clouds.lambda_cloud.provider import LambdaProvider
    from soong.launch.provider import LaunchRequest
    from soong.lease.ledger import Ledger, Rental
    from tests.clouds.conftest import HandClock
    from tests.clouds.server import FakeLambda

LAUNCH = ("POST", "/instance-operations/launch")
LIST = ("GET", "/instances")
LOST = Reply(drop=True)


@pytest.fixture
def intent(provider: LambdaProvider, clock: HandClock) -> Rental:
    return a_rental(account=provider.account, asked_at=clock.now())


def ask(provider: LambdaProvider, ledger: Ledger, intent: Rental) -> Rental:
    return asking.ask(provider, ledger, intent, ssh_key_name="my-key", user_data="#!/bin/bash\n")


def test_the_intent_is_on_the_disk_before_the_call(
    server: FakeLambda,
    provider: LambdaProvider,
    ledger: Ledger,
    intent: Rental,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    phases = []
    launch = provider.launch

    def noting(request: LaunchRequest) -> str:
        phases.append(ledger.get(intent.id).phase)
        return launch(request)

    monkeypatch.setattr(provider, "launch", noting)
    server.on(*LAUNCH, data({"instance_ids": ["i-9"]}))
    granted = ask(provider, ledger, intent)
    assert phases == ["asked"]
    assert (granted.phase, granted.instance_id) == ("granted", "i-9")
    sent = server.asked(*LAUNCH)[0].json
    assert sent["name"] == intent.lease.instance_name
    assert {tag["key"]: tag["value"] for tag in sent["tags"]} == intent.lease.tags
    assert sent["ssh_key_names"] == ["my-key"]


def test_a_lost_answer_whose_machine_is_there(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, intent: Rental
) -> None:
    server.on(*LAUNCH, LOST)
    server.on(*LIST, data([]), data([machine(intent.lease, id="i-7", status="booting")]))
    assert ask(provider, ledger, intent).instance_id == "i-7"
    assert len(server.asked(*LAUNCH)) == 1


@pytest.mark.parametrize(
    "answer",
    [
        LOST,
        error("global/internal-error", 500, off_spec=True),
        error("provider/internal-unavailable", 400, off_spec=True),
        error("global/unknown", 400, off_spec=True),
        Reply(502, b"<html>Bad Gateway</html>", off_spec=True),
    ],
    ids=["dropped", "500", "provider", "unknown", "html"],
)
def test_an_unclear_answer_without_a_machine_is_looked_for_over_a_minute(
    server: FakeLambda,
    provider: LambdaProvider,
    ledger: Ledger,
    intent: Rental,
    clock: HandClock,
    answer: Reply,
) -> None:
    server.on(*LAUNCH, answer)
    server.on(*LIST, data([]))
    begun = clock.now()
    with pytest.raises(LaunchUnclearError):
        ask(provider, ledger, intent)
    assert len(server.asked(*LAUNCH)) == 1
    assert clock.now() - begun >= 60
    assert len(server.asked(*LIST)) == 5
    assert ledger.get(intent.id).phase == "refused"


def test_a_machine_that_appears_after_all_is_ended_by_the_next_command(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, intent: Rental
) -> None:
    server.on(*LAUNCH, LOST)
    server.on(*LIST, data([]))
    with pytest.raises(LaunchUnclearError):
        ask(provider, ledger, intent)
    server.on(*LIST, data([machine(intent.lease, id="i-late")]))
    server.on("POST", "/instance-operations/terminate", data({"terminated_instances": []}))
    found = settling.settle(provider, ledger)
    assert [one.what for one in found] == ["undone"]
    assert server.asked("POST", "/instance-operations/terminate")[0].json == {"instance_ids": ["i-late"]}


def test_a_cloud_that_cannot_even_be_looked_at_keeps_the_rental_open(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, intent: Rental
) -> None:
    """Nothing is known, so nothing is given up: the guardian finds the machine when the cloud answers again."""
    server.on(*LAUNCH, LOST)
    server.on(*LIST, Reply(503, b"", off_spec=True))
    with pytest.raises(LaunchUnclearError):
        ask(provider, ledger, intent)
    assert ledger.get(intent.id).phase == "asked"


def test_a_refusal_is_certain(
    server: FakeLambda, provider: LambdaProvider, ledger: Ledger, intent: Rental
) -> None:
    server.on(*LAUNCH, error("instance-operations/launch/insufficient-capacity", 400))
    with pytest.raises(LaunchRefusedError) as caught:
        ask(provider, ledger, intent)
    assert caught.value.refusal == "no-capacity"
    assert ledger.get(intent.id).phase == "refused"
    assert server.asked(*LIST) == []
