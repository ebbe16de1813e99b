"""Each fault, as a client of the API sees it."""

from __future__ import annotations

import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from soong.clouds.sandbox.faults import KINDS
from tests.clouds.sandbox.conftest import A_WHILE

if TYPE_CHECKING:
    from tests.clouds.sandbox.conftest import Account

SEEN_ON_THE_MACHINE = {"no-ssh", "changed-host-key", "cuda-802"}
"""Tested in test_machines.py."""


def test_every_fault_has_a_test() -> None:
    here = {name.removeprefix("test_").replace("_", "-") for name in globals() if name.startswith("test_")}
    assert set(KINDS) - here == SEEN_ON_THE_MACHINE


def test_no_capacity(account: Account) -> None:
    account.fault("no-capacity", instance_type="gpu_1x_a10", region="us-east-1")
    assert account.launch(instance_type_name="gpu_1x_a6000")
    assert account.launch_refusal().code == "instance-operations/launch/insufficient-capacity"
    assert account.launch()


def test_quota(account: Account) -> None:
    account.fault("quota")
    assert account.launch_refusal().code == "global/quota-exceeded"


def test_unknown_error(account: Account) -> None:
    account.fault("unknown-error")
    refusal = account.launch_refusal()
    assert (refusal.status, refusal.code) == (500, "global/unknown")
    assert account.get("/instances") == []


def test_provider_error(account: Account) -> None:
    account.fault("provider-error")
    assert account.launch_refusal().code == "provider/internal-unavailable"
    assert account.get("/instances") == []


def test_provider_error_launched(account: Account) -> None:
    account.fault("provider-error-launched")
    assert account.launch_refusal().code == "provider/internal-unavailable"
    assert len(account.get("/instances")) == 1


def test_rate_limited(account: Account) -> None:
    account.fault("rate-limited", count=2)
    account.fault("rate-limited", seconds=3)
    first, second, third = (account.ask("GET", "/regions") for _ in range(3))
    assert [answer.status for answer in (first, second, third)] == [429, 429, 429]
    assert ("Retry-After" in first.headers, third.headers["Retry-After"]) == (False, "3")
    assert account.ask("GET", "/regions").status == 200


def test_server_error(account: Account) -> None:
    account.fault("server-error", path="/images")
    account.fault("server-error", path="/images", status=503)
    assert account.ask("GET", "/regions").status == 200
    assert [account.ask("GET", "/images").status for _ in range(3)] == [500, 503, 200]


def test_lost_answer(account: Account) -> None:
    account.fault("lost-answer")
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        account.launch()
    assert len(account.get("/instances")) == 1


def test_lost_request(account: Account) -> None:
    account.fault("lost-request")
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        account.launch()
    assert account.get("/instances") == []


def test_latency(account: Account) -> None:
    account.fault("latency", seconds=0.2, path="/regions")
    began = time.monotonic()
    account.get("/regions")
    assert time.monotonic() - began >= 0.2


def test_revoked_key(account: Account) -> None:
    account.fault("revoked-key", count=None)
    assert {account.ask("GET", path).code for path in ("/instances", "/ssh-keys")} == {
        "global/invalid-api-key"
    }
    assert account.ask("DELETE", "/sandbox/faults/revoked-key").data == {"cleared": 1}
    assert account.ask("GET", "/instances").status == 200


def test_account_inactive(account: Account) -> None:
    account.fault("account-inactive")
    assert account.ask("GET", "/instances").code == "global/account-inactive"


def test_vanishing(account: Account) -> None:
    first, second = account.launch(), account.launch()
    account.fault("vanishing")
    account.fault("vanishing", instance=first)
    lists = [[one["id"] for one in account.get("/instances")] for _ in range(3)]
    assert lists == [[], [second], [first, second]]


def test_terminate_unavailable(account: Account) -> None:
    instance_id = _active(account)
    account.fault("terminate-unavailable")
    assert account.terminate(instance_id).status == 400
    assert account.status(instance_id) == "active"
    assert account.terminate(instance_id).status == 200


def test_terminate_ignored(account: Account) -> None:
    instance_id = _active(account)
    account.fault("terminate-ignored")
    assert account.terminate(instance_id).status == 200
    account.skip(A_WHILE)
    assert account.status(instance_id) == "active"


def test_slow_boot(account: Account) -> None:
    account.fault("slow-boot", seconds=1000)
    instance_id = account.launch()
    account.skip(1000)
    assert account.status(instance_id) == "booting"
    account.skip(400)
    assert account.status(instance_id) == "active"


def test_unhealthy(account: Account) -> None:
    account.fault("unhealthy")
    assert account.status(_active(account)) == "unhealthy"
    assert account.status(_active(account)) == "active"


def test_preempted(account: Account) -> None:
    account.fault("preempted", seconds=100)
    instance_id = account.launch()
    for _ in range(20):  # it is listed for five minutes then, and how long it boots is drawn
        account.skip(60)
        if account.status(instance_id) not in {"booting", "active"}:
            break
    assert account.status(instance_id) == "preempted"


def test_unknown_status(account: Account) -> None:
    account.fault("unknown-status", instance_type="gpu_1x_a6000")
    instance_id = _active(account)
    assert account.status(instance_id) == "active"
    odd = account.launch(instance_type_name="gpu_1x_a6000")
    account.skip(A_WHILE)
    record = account.sandbox.world.find(odd)
    assert account.sandbox.world.status(record) == "rebuilding"
    assert account.terminate(odd).status == 200


def test_empty_ip(account: Account) -> None:
    account.fault("empty-ip", seconds=5000)
    instance_id = _active(account)
    assert account.get(f"/instances/{instance_id}")["ip"] == ""
    account.skip(5000)
    assert account.get(f"/instances/{instance_id}")["ip"] == "127.0.0.1"


def test_late_tags(account: Account) -> None:
    account.fault("late-tags", seconds=100)
    instance_id = account.launch(tags=[{"key": "soong-id", "value": "x"}])
    assert account.get(f"/instances/{instance_id}")["tags"] == []
    account.skip(100)
    assert account.get(f"/instances/{instance_id}")["tags"] == [{"key": "soong-id", "value": "x"}]


def test_slow_terminate(account: Account) -> None:
    account.fault("slow-terminate", seconds=500)
    instance_id = _active(account)
    account.terminate(instance_id)
    account.skip(490)
    assert account.status(instance_id) == "terminating"
    account.skip(20)
    assert account.status(instance_id) == "terminated"


def test_duplicate_key_names(account: Account) -> None:
    account.fault("duplicate-key-names")
    assert [key["name"] for key in account.get("/ssh-keys")] == ["me", "me"]
    assert account.launch_refusal().code == "global/unknown"


@pytest.mark.parametrize(
    ("name", "status"), [("unhealthy", "unhealthy"), ("preempted", "preempted"), ("slow-boot", "active")]
)
def test_a_machine_that_runs_can_be_struck(account: Account, name: str, status: str) -> None:
    instance_id, other = _active(account), _active(account)
    account.fault(name, instance=instance_id, seconds=0)
    assert (account.status(instance_id), account.status(other)) == (status, "active")
    assert account.get("/sandbox/faults") == []


def test_a_chance_of_one_half_strikes_about_half_the_time(account: Account) -> None:
    account.fault("server-error", path="/regions", count=None, probability=0.5)
    failed = sum(account.ask("GET", "/regions").status == 500 for _ in range(100))
    assert 25 <= failed <= 75


def test_once_is_once_however_many_ask_at_the_same_time(account: Account) -> None:
    account.fault("server-error", path="/regions", count=3)
    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(lambda _: account.ask("GET", "/regions").status, range(48)))
    assert sorted(statuses) == [200] * 45 + [500] * 3


@pytest.mark.parametrize("body", [{"name": "no-such"}, {"name": 3}, {}, {"name": "quota", "seconds": "x"}])
def test_a_fault_that_is_none_is_refused(account: Account, body: dict[str, Any]) -> None:
    assert account.ask("POST", "/sandbox/faults", body).status == 400


def _active(account: Account) -> str:
    instance_id = account.launch()
    account.skip(A_WHILE)
    return instance_id
