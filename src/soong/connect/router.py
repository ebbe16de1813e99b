"""The router of a group of replicas: one port of this computer that leads to whichever machine is least busy.

A supervisor in the background keeps it, as one keeps each tunnel: it holds a lock as long as it lives, tells of itself
in a file, starts the router again when it dies, brings machines in and out as the ledger says, and ends with the group.
The router and its doors (`soong.connect.doors`) read the supervisor's pipe, and end when it does, however it does.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec

from soong.connect import supervised, tunnel
from soong.errors import RemoteError, SoongError, UsageError
from soong.settings import paths, records

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from soong.lease.ledger import Rental

EXTRA = "soong[router]"
SUPERVISOR = "soong.cli.keeping"
"""The module that runs `supervise`: it also tells the person, and replaces a machine where that was agreed to."""

LOOK_SECONDS = 1.0
START_SECONDS = 30.0
HOPE_SECONDS = 15.0
JOINING_SECONDS = 60.0
"""A machine that is new to the router and has not answered it for so long is silent."""
ANSWER_SECONDS = 5.0
AGAIN_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Before a router that died is started again; from the first again once one has lived for `STEADY_SECONDS`."""
STEADY_SECONDS = 60.0

SETTINGS = {
    # Requests that begin alike go to the machine whose cache has that beginning, unless it has two more to do than
    # another: waiting costs more than computing a prefix again. Router's own: 64 and 1.5, which leaves machines idle.
    "policy": "cache_aware",
    "balance_abs_threshold": 1,
    "balance_rel_threshold": 1.1,
    # A machine that dies is left out after two looks, a second apart. A request that meets it before is asked again
    # over five seconds (0.2, 0.4, 0.8, 1.6, 2): by then it goes to another, so that its sender sees no failure.
    "health_check_interval_secs": 1,
    "health_check_timeout_secs": 3,
    "health_failure_threshold": 2,
    "health_success_threshold": 1,
    "retry_max_retries": 6,
    "retry_initial_backoff_ms": 200,
    "retry_backoff_multiplier": 2.0,
    "retry_max_backoff_ms": 2000,
    # It counts answers of 500, which a bad request gets from every machine: it would shut them all for a minute.
    "disable_circuit_breaker": True,
    "worker_startup_check_interval": 1,
    "shutdown_grace_period_secs": 1,
    "log_level": "error",
}
"""Of sglang-router 0.3.2, where its defaults are for a rack of machines."""

PROXIES = ("http_proxy", "https_proxy", "all_proxy")
"""Variables that would send the router's requests to a tunnel's port on this computer to somebody else first."""

MemberState = Literal["joining", "answers", "silent"]


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One machine, as the router sees it.

    Attributes:
        state: joining: the router does not know it yet. answers: it is well. silent: it is asked in vain.
        since: this computer's time when that began.
    """

    rental_id: str
    name: str
    local_port: int
    state: MemberState = "joining"
    since: float = 0.0


class Router(msgspec.Struct, frozen=True, kw_only=True):
    """One router, as its supervisor writes it down. Times are this computer's.

    Attributes:
        group: whose it is. name: the person's word. port: of this computer. pid: of the supervisor.
        doors_pid, router_pid: of what it keeps; 0 without. is_up: whether the port answers. members: the machines.
        restarts: routers after the first. problem: what the last one died of.
    """

    group: str
    name: str
    port: int
    pid: int = 0
    doors_pid: int = 0
    router_pid: int = 0
    is_up: bool = False
    started_at: float = 0.0
    restarts: int = 0
    problem: str = ""
    members: tuple[Member, ...] = ()

    @property
    def answering(self) -> int:
        """How many machines are well, and are reached."""
        return sum(one.state == "answers" for one in self.members) if self.is_up else 0


def check_installed() -> None:
    """Make sure that the router is there, before anything is paid for.

    Raises:
        UsageError: it is not; says how to get it.
    """
    from importlib.util import find_spec

    if find_spec("sglang_router") is None:
        raise UsageError(
            "replicas need sglang-router, which is not installed",
            why="it shares the requests among the machines, on this computer",
            hints=(f"{sys.executable} -m pip install '{EXTRA}'", "the same without `--replicas`"),
        )


def folder() -> Path:
    """Where routers are written down."""
    return paths.state_dir() / "routers"


def running() -> tuple[Router, ...]:
    """Every router whose supervisor lives."""
    names = sorted(file.stem for file in folder().glob("[!.]*.json"))
    return tuple(found for name in names if (found := find(name)) is not None)


def find(group: str) -> Router | None:
    """The router of a group, if its supervisor lives."""
    return _read(group) if supervised.is_held(_lock(group)) else None


def start(group: str, *, name: str, port: int, hoped: int = 1) -> Router:
    """A router whose port answers, with a machine behind it; the one that runs, where it is there.

    Args:
        hoped: how many machines to wait for, a while; fewer are no failure.

    Raises:
        UsageError: the port of this computer is taken. RemoteError: no answer in time; what was begun here is ended.
    """
    from soong.launch.preflight import check_port

    found = find(group)
    was_there = found is not None and found.port == port
    if not was_there:
        stop(group)
        check_port(port)
        _write(Router(group=group, name=name, port=port, started_at=time.time()))
        supervised.spawn(SUPERVISOR, group, _log(group))
    ends_at = time.monotonic() + START_SECONDS
    hopes_until = time.monotonic() + HOPE_SECONDS
    while (now := time.monotonic()) < ends_at:
        found = find(group)
        if found is not None and found.is_up and found.answering >= (hoped if now < hopes_until else 1):
            return found
        time.sleep(0.05)
    if not was_there:
        stop(group)
    raise RemoteError(
        f"the router of {name} does not answer",
        why=(found.problem if found else "") or "no answer in time",
        hints=(f"soong tunnel start {name}", f"cat {_log(group)}", "soong tunnel"),
    )


def stop(group: str) -> bool:
    """End the router of a group; whether there was one.

    Raises:
        SoongError: it does not end.
    """

    def pid_of() -> int | None:
        found = _read(group)
        return found.pid if found is not None else None

    was_there = supervised.end(_lock(group), pid_of, "the router")
    _end_left_over(group)
    _file(group).unlink(missing_ok=True)
    return was_there


def keep_only(groups: Collection[str]) -> None:
    """End every other router, and forget it."""
    for file in folder().glob("[!.]*.lock"):
        if file.stem not in groups:
            with suppress(SoongError):
                stop(file.stem)
                file.unlink(missing_ok=True)
                _log(file.stem).unlink(missing_ok=True)


# --- the supervisor --------------------------------------------------------------------------------------------------


def supervise(group: str, look_after: Callable[[Router], None] = lambda _: None) -> int:
    """Keep the router until the group is over, or somebody ends this process. Returns the exit code.

    Args:
        look_after: called at each look with how things stand, and once at the end.
    """
    supervised.obey_signals()
    with supervised.held(paths.made(folder()) / _lock(group).name) as alone:
        router = _read(group)
        if not alone or router is None:
            return 1
        try:
            _end_left_over(group)
            _keep(msgspec.structs.replace(router, pid=os.getpid(), doors_pid=0, router_pid=0), look_after)
        except supervised.EndedError:
            pass
        finally:
            _file(group).unlink(missing_ok=True)
        look_after(msgspec.structs.replace(router, members=()))
    return 0


def _keep(router: Router, look_after: Callable[[Router], None]) -> None:
    """Router after router, until the group is over."""
    failures = 0
    while _open_members(router.group) != ():
        began = time.monotonic()
        try:
            with _Doors(router) as doors:
                router = _while_it_lives(doors, router, look_after)
                problem = "it ended by itself"
        except (SoongError, OSError) as error:
            problem = str(error)
        failures = 1 if time.monotonic() - began > STEADY_SECONDS else failures + 1
        router = _write(
            msgspec.structs.replace(
                router, is_up=False, doors_pid=0, router_pid=0, restarts=router.restarts + 1, problem=problem
            )
        )
        sys.stderr.write(f"the router is started again: {problem}\n")
        time.sleep(AGAIN_SECONDS[min(failures, len(AGAIN_SECONDS)) - 1])


def _while_it_lives(doors: _Doors, router: Router, look_after: Callable[[Router], None]) -> Router:
    router = _write(msgspec.structs.replace(router, doors_pid=doors.process.pid, router_pid=doors.router_pid))
    while doors.process.poll() is None:
        rentals = _open_members(router.group)
        if rentals == ():
            break
        if rentals is not None:
            router = _write(_looked(doors, router, rentals))
        look_after(router)
        time.sleep(LOOK_SECONDS)
    return router


def _looked(doors: _Doors, router: Router, rentals: Sequence[Rental]) -> Router:
    """How things stand now, once the router has been told which machines there are."""
    wanted = [one for one in rentals if one.phase == "ready" and one.serving == "ready" and one.local_port]
    try:
        health = doors.told({one.local_port: one.served_model for one in wanted if _is_reached(one)})
    except (OSError, ValueError):
        return msgspec.structs.replace(router, is_up=False)
    known = {one.rental_id: one for one in router.members}
    members = tuple(_member(one, health, known.get(one.id)) for one in wanted)
    return msgspec.structs.replace(router, is_up=True, members=members, problem="")


def _is_reached(rental: Rental) -> bool:
    found = tunnel.find(rental.id)
    return found is not None and found.state == "up"


def _member(rental: Rental, health: dict[int, bool], before: Member | None) -> Member:
    well = health.get(rental.local_port) and _is_reached(rental)
    state: MemberState = "answers" if well else "silent"
    if not well and (before is None or before.state == "joining"):
        waits = before is None or time.time() - before.since < JOINING_SECONDS
        state = "joining" if waits else "silent"
    since = before.since if before is not None and before.state == state else time.time()
    return Member(
        rental_id=rental.id, name=rental.name, local_port=rental.local_port, state=state, since=since
    )


def _open_members(group: str) -> tuple[Rental, ...] | None:
    """The group's machines that may run; None where the ledger cannot be read just now."""
    from soong.lease.ledger import open_ledger

    try:
        with open_ledger() as ledger:
            return tuple(one for one in ledger.open_rentals() if one.group == group)
    except SoongError:
        return None


class _Doors:
    """The doors and the router between them: a context manager that leaves nothing behind.

    Raises:
        RemoteError: they do not open.
    """

    def __init__(self, router: Router) -> None:
        from soong.launch.preflight import free_port
        from soong.serve.secrets import found_key

        self._port = free_port()
        self._key = secrets.token_hex(24)
        self._word = secrets.token_hex(24)
        self._added: dict[str, float] = {}
        orders = {
            "port": router.port,
            "key": found_key(router.group).reveal(),
            "router": {
                **SETTINGS,
                "host": "127.0.0.1",
                "port": self._port,
                "prometheus_host": "127.0.0.1",
                "prometheus_port": free_port(),
            },
            "router_key": self._key,
            "word": self._word,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "soong.connect.doors"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if name.lower() not in PROXIES},
        )
        try:
            about = self._begun(json.dumps(orders).encode() + b"\n")
            self.router_pid, self._back = int(about["router_pid"]), int(about["back_port"])
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the pipe: the doors end the router, and themselves."""
        assert self.process.stdin is not None  # noqa: S101 - narrows for the type checker
        with suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None  # noqa: S101
        self.process.stdout.close()
        supervised.end_if_it_says(getattr(self, "router_pid", 0), "sglang::router")

    def _begun(self, orders: bytes) -> dict[str, Any]:
        assert self.process.stdin is not None  # noqa: S101
        assert self.process.stdout is not None  # noqa: S101
        self.process.stdin.write(orders)
        self.process.stdin.flush()
        if select.select([self.process.stdout], [], [], START_SECONDS)[0]:
            line = self.process.stdout.readline()
            if line:
                return dict(json.loads(line))
        raise RemoteError("its port cannot be opened", hints=("soong tunnel",))

    def told(self, wanted: dict[int, str]) -> dict[int, bool]:
        """Bring machines in and out; which ports the router knows, and whether each is well.

        Args:
            wanted: the model's name by the port of this computer that leads to a machine.

        Raises:
            OSError, ValueError: the router does not answer.
        """
        from soong.connect.doors import word_of

        known = {one["url"]: one for one in self._ask("GET", "/workers")["workers"]}
        urls = {f"http://127.0.0.1:{self._back}/{word_of(self._word, port)}/{port}": port for port in wanted}
        self._added = {url: at for url, at in self._added.items() if url in urls}
        for url, one in known.items():
            if url not in urls:
                self._ask("DELETE", f"/workers/{one['id']}")
        for url, port in urls.items():
            if url not in known and time.monotonic() - self._added.get(url, -START_SECONDS) >= START_SECONDS:
                self._added[url] = time.monotonic()
                self._ask("POST", "/workers", {"url": url, "model_id": wanted[port]})
        return {port: bool(known[url]["is_healthy"]) for url, port in urls.items() if url in known}

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        import urllib.request

        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        data = json.dumps(body).encode() if body is not None else None
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}", data=data, headers=headers, method=method
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(asked, timeout=ANSWER_SECONDS) as answer:
            return dict(json.load(answer))


# --- files -----------------------------------------------------------------------------------------------------------


def _file(group: str) -> Path:
    return folder() / f"{group}.json"


def _lock(group: str) -> Path:
    return folder() / f"{group}.lock"


def _log(group: str) -> Path:
    return folder() / f"{group}.log"


def _read(group: str) -> Router | None:
    return records.read(_file(group), Router)


def _write(router: Router) -> Router:
    return router if _read(router.group) == router else records.write(_file(router.group), router)


def _end_left_over(group: str) -> None:
    """End what a supervisor that was killed may have left."""
    found = _read(group)
    if found is not None:
        supervised.end_if_it_says(found.doors_pid, "soong.connect.doors")
        supervised.end_if_it_says(found.router_pid, "sglang::router")
