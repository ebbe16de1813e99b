"""What the sandbox can do beside Lambda's API, under `/sandbox`: its clock, its faults, its bill, its machines."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from soong.clouds.sandbox import bodies, catalogue
from soong.clouds.sandbox.answers import RefusedError
from soong.clouds.sandbox.state import Fault, InstanceRecord, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from soong.clouds.sandbox.server import Sandbox

PREFIX = "/sandbox"


class ClockChange(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /sandbox/clock`. skip_seconds: jump ahead at once."""

    speed: float | None = None
    skip_seconds: float = 0.0


class SettingsChange(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /sandbox/settings`.

    wave_seed: -1 stops the wave. capacity: `type` or `type/region` to free or not; null forgets what was said.
    cents: type to cents an hour; null goes back to the list.
    """

    rate_limit: bool | None = None
    wave_seed: int | None = None
    capacity: dict[str, bool | None] = {}
    cents: dict[str, int | None] = {}


def answer(sandbox: Sandbox, method: str, path: str, body: bytes, query: dict[str, str]) -> Any:
    """Carry out one request; `path` without the prefix.

    Raises:
        RefusedError: there is no such path, or its body cannot be used.
    """
    head, _, tail = path.partition("/")
    handler = ROUTES.get((method, head))
    if handler is None:
        raise RefusedError("global/not-found")
    return {"data": handler(sandbox, tail, body, query)}


def _clock(sandbox: Sandbox, *_: Any) -> Any:
    reading = sandbox.clock.reading
    return {
        "now": sandbox.clock.now(),
        "real_now": time.time(),
        "speed": reading.speed,
        "pace": reading.pace,
        "file": str(sandbox.folder / "clock.json"),
    }


def _set_clock(sandbox: Sandbox, _: str, body: bytes, *__: Any) -> Any:
    change = bodies.read(body, ClockChange)
    if change.speed is not None:
        if not 0 < change.speed < float("inf"):
            raise RefusedError("global/invalid-parameters", "A speed is a number above zero.")
        sandbox.clock.set_speed(change.speed)
    sandbox.clock.skip(change.skip_seconds)
    sandbox.world.changed.set()
    return _clock(sandbox)


def _faults(sandbox: Sandbox, *_: Any) -> Any:
    return sandbox.world.faults.waiting()


def _add_fault(sandbox: Sandbox, _: str, body: bytes, *__: Any) -> Any:
    return sandbox.world.afflict(bodies.read(body, Fault))


def _clear_faults(sandbox: Sandbox, name: str, *_: Any) -> Any:
    return {"cleared": sandbox.world.faults.clear(name)}


def _bill(sandbox: Sandbox, *_: Any) -> Any:
    lines = sandbox.world.bill()
    return {
        "now": sandbox.clock.now(),
        "machines": lines,
        "total_usd": round(sum(line.usd for line in lines), 4),
        "real_usd": 0,
    }


def _settings(sandbox: Sandbox, *_: Any) -> Any:
    return sandbox.world.settings


def _set_settings(sandbox: Sandbox, _: str, body: bytes, *__: Any) -> Any:
    change = bodies.read(body, SettingsChange)
    for word in (*change.capacity, *change.cents):
        if word.split("/")[0] not in catalogue.machine_types():
            raise RefusedError("global/invalid-parameters", f"There is no instance type {word!r}.")
        if "/" in word and word.split("/")[1] not in catalogue.REGIONS:
            raise RefusedError("global/invalid-parameters", f"There is no region in {word!r}.")
    old = sandbox.world.settings
    seed = old.wave_seed if change.wave_seed is None else change.wave_seed
    new = Settings(
        rate_limit=old.rate_limit if change.rate_limit is None else change.rate_limit,
        wave_seed=None if seed is None or seed < 0 else seed,
        capacity=_laid_over(old.capacity, change.capacity),
        cents=_laid_over(old.cents, change.cents),
    )
    sandbox.world.state.put(new)
    return new


def _laid_over(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in {**old, **new}.items() if value is not None}


def _machines(sandbox: Sandbox, instance_id: str, _: bytes, query: dict[str, str]) -> Any:
    if not instance_id:
        return [sandbox.machines.describe(record) for record in sandbox.world.listed()]
    record = sandbox.world.state.get(InstanceRecord, instance_id)
    if record is None:
        raise RefusedError("global/object-does-not-exist", "Specified instance does not exist.")
    if query.get("for") == "login":
        sandbox.machines.expect_login(instance_id)
    return sandbox.machines.describe(record)


def _requests(sandbox: Sandbox, _: str, __: bytes, query: dict[str, str]) -> Any:
    return sandbox.log.last(int(query.get("last", "200")))


def _status(sandbox: Sandbox, *_: Any) -> Any:
    from soong.clouds.sandbox import views

    return {
        "clock": _clock(sandbox),
        "settings": sandbox.world.settings,
        "faults": sandbox.world.faults.waiting(),
        "instances": [views.instance(sandbox.world, record) for record in sandbox.world.listed()],
        "ssh": sandbox.machines.can_run,
        "bill": _bill(sandbox),
    }


def _reset(sandbox: Sandbox, *_: Any) -> Any:
    sandbox.reset()
    return {}


def _stop(sandbox: Sandbox, *_: Any) -> Any:
    sandbox.stop_soon()
    return {}


ROUTES: dict[tuple[str, str], Callable[[Sandbox, str, bytes, dict[str, str]], Any]] = {
    ("GET", "clock"): _clock,
    ("POST", "clock"): _set_clock,
    ("GET", "faults"): _faults,
    ("POST", "faults"): _add_fault,
    ("DELETE", "faults"): _clear_faults,
    ("GET", "bill"): _bill,
    ("GET", "settings"): _settings,
    ("POST", "settings"): _set_settings,
    ("GET", "machines"): _machines,
    ("GET", "requests"): _requests,
    ("GET", "status"): _status,
    ("POST", "reset"): _reset,
    ("POST", "stop"): _stop,
}
