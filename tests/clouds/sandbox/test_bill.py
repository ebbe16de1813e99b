"""What the sandbox says a machine would have cost: by the minute begun, from its health check to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.clouds.sandbox.conftest import Account


def _line(account: Account) -> Any:
    (line,) = account.get("/sandbox/bill")["machines"]
    return line


def test_an_hour_of_an_a10_costs_its_price(account: Account) -> None:
    instance_id = account.launch()
    record = account.sandbox.world.find(instance_id)
    account.skip(record.active_at - account.get("/sandbox/clock")["now"] - 5)
    assert _line(account)["usd"] == 0
    account.skip(5 + 3600 - 30)
    account.terminate(instance_id)
    account.skip(7200)
    line = _line(account)
    assert 3598 <= line["seconds"] <= 3605
    assert line["usd"] == pytest.approx(1.29, rel=0.03)
    assert line["usd"] * 60 / 1.29 == pytest.approx(round(line["usd"] * 60 / 1.29))
    total = account.get("/sandbox/bill")
    assert (total["total_usd"], total["real_usd"]) == (pytest.approx(line["usd"], abs=1e-4), 0)


def test_a_machine_that_nobody_ends_bills_on(account: Account) -> None:
    account.launch(instance_type_name="gpu_8x_b200_sxm6")
    account.skip(24 * 3600)
    line = _line(account)
    assert line["billed_until"] is None
    assert 23 * 53.52 < line["usd"] < 24 * 53.52


def test_a_machine_that_never_came_up_costs_nothing(account: Account) -> None:
    instance_id = account.launch()
    account.skip(60)
    account.terminate(instance_id)
    account.skip(7200)
    line = _line(account)
    assert (line["usd"], line["billed_from"]) == (0, None)
    assert line["billed_until"] is not None


def test_a_restart_is_billed_through(account: Account) -> None:
    instance_id = account.launch()
    account.skip(3600)
    before = _line(account)["seconds"]
    account.post("/instance-operations/restart", {"instance_ids": [instance_id]})
    account.skip(3600)
    assert _line(account)["seconds"] == pytest.approx(before + 3600, abs=5)
