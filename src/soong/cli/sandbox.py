"""`soong sandbox`: a cloud on this computer, for rehearsals; costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from soong import units
from soong.cli import output, text, times
from soong.errors import UsageError

if TYPE_CHECKING:
    from soong.clouds.sandbox.process import Running

CENTS_PER_USD = 100
LOG_LINES = 20
FREE = "It costs nothing: every price here is what the real cloud would take."


@click.group(
    "sandbox",
    invoke_without_command=True,
    epilog="\b\nExamples:\n  soong sandbox\n  soong sandbox start --speed 60\n"
    "  soong sandbox fault no-capacity --type gpu_1x_a10\n",
)
@output.options
@click.pass_context
def command(ctx: click.Context, out: output.Output) -> None:
    """Rehearse with a cloud on this computer: Lambda's API, machines to log in to, a fast clock. Costs nothing."""
    if ctx.invoked_subcommand is None:
        _status(out)


@command.command("status", epilog="\b\nExamples:\n  soong sandbox status\n  soong sandbox status --json\n")
@output.options
def status_command(out: output.Output) -> None:
    """What runs in the sandbox, what it would have cost, and what is about to go wrong."""
    _status(out)


@command.command("start", epilog="\b\nExamples:\n  soong sandbox start\n  soong sandbox start --speed 60\n")
@click.option(
    "--speed", type=float, help="Seconds of the sandbox in a real one; 600 unless it was set before."
)
@click.option(
    "--rate-limit/--no-rate-limit", default=None, help="Answer requests in quick succession with 429."
)
@output.options
def start_command(speed: float | None, rate_limit: bool | None, out: output.Output) -> None:
    """Start it, or change the one that runs. `--cloud sandbox` starts it by itself."""
    from soong.clouds.sandbox import process

    running = process.start(speed=_checked_speed(speed))
    if rate_limit is not None:
        running.ask("POST", "settings", {"rate_limit": rate_limit})
    clock = running.ask("GET", "clock")
    out.answer(
        data=lambda: {"url": running.url, "pid": running.pid, "clock": clock, "costs_money": False},
        ids=[running.url],
        human=lambda: (
            f"The sandbox answers at {running.url}, {clock['speed']:g} times as fast as life. {FREE}"
        ),
    )


@command.command("stop", epilog="\b\nExamples:\n  soong sandbox stop\n  soong sandbox stop --json\n")
@output.options
def stop_command(out: output.Output) -> None:
    """Stop the server and its machines. Its clock stands still, and all goes on at the next start."""
    from soong.clouds.sandbox import process

    was_running = process.stop()
    out.answer(
        data=lambda: {"stopped": was_running},
        ids=[],
        human=lambda: "The sandbox has stopped." if was_running else "The sandbox was not running.",
    )


@command.command("reset", epilog="\b\nExamples:\n  soong sandbox reset\n  soong sandbox reset -q\n")
@output.options
def reset_command(out: output.Output) -> None:
    """Forget every machine, key, fault, price and setting. The address and the clock stay."""
    _running().ask("POST", "reset")
    out.answer(data=lambda: {"reset": True}, ids=[], human=lambda: "The sandbox is as new.")


@command.command(
    "clock", epilog="\b\nExamples:\n  soong sandbox clock --speed 1\n  soong sandbox clock --skip 2h\n"
)
@click.option("--speed", type=float, help="Seconds of the sandbox in a real one, from now on.")
@click.option("--skip", help="Jump ahead by this much: 90m, 2h.")
@output.options
def clock_command(speed: float | None, skip: str | None, out: output.Output) -> None:
    """The sandbox's time. While a machine starts or somebody logs in, it slows down by itself."""
    hours = units.parse_hours(skip, what="`--skip`") if skip is not None else 0.0
    change = {"speed": _checked_speed(speed), "skip_seconds": hours * 3600}
    running = _running()
    clock = running.ask("POST", "clock", change) if speed or hours else running.ask("GET", "clock")
    out.answer(
        data=lambda: clock,
        ids=[f"{clock['now']:.3f}"],
        human=lambda: (
            f"{times.iso(clock['now'])} in the sandbox, {clock['speed']:g} times as fast as life"
            + ("" if clock["pace"] == clock["speed"] else f" ({clock['pace']:g} at this moment)")
        ),
    )


@command.command("faults", epilog="\b\nExamples:\n  soong sandbox faults\n  soong sandbox faults --json\n")
@output.options
def faults_command(out: output.Output) -> None:
    """Everything that can go wrong on demand, and what is waiting to."""
    from soong.clouds.sandbox.faults import KINDS

    waiting = _running().ask("GET", "faults")
    out.answer(
        data=lambda: {"faults": {name: kind.words for name, kind in KINDS.items()}, "waiting": waiting},
        ids=list(KINDS),
        human=lambda: "\n".join(
            [*(f"{name:<25}{kind.words}" for name, kind in KINDS.items()), *_waiting(waiting)]
        ),
    )


@command.command(
    "fault",
    epilog="\b\nExamples:\n  soong sandbox fault lost-answer\n"
    "  soong sandbox fault server-error --path /instances --count 3\n  soong sandbox fault --clear\n",
)
@click.argument("name", required=False)
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True, help="How often.")
@click.option("--always", is_flag=True, help="Every time, until it is cleared.")
@click.option("--probability", type=click.FloatRange(0, 1), default=1.0, help="Of each chance to happen.")
@click.option("--path", default="", help="Only requests whose `METHOD /path` contains this.")
@click.option("--type", "instance_type", default="", help="Only launches of this instance type.")
@click.option("--region", default="", help="Only launches in this region.")
@click.option("--instance", default="", help="This machine, now, although it runs already; `*` for all.")
@click.option("--seconds", type=click.FloatRange(min=0), help="How long; see `soong sandbox faults`.")
@click.option("--status", type=click.IntRange(500, 599), help="HTTP status of `server-error`.")
@click.option("--word", default="", help="The word of `unknown-status`.")
@click.option("--clear", is_flag=True, help="Take faults out: those of NAME, or all.")
@output.options
def fault_command(name: str | None, always: bool, clear: bool, out: output.Output, **about: Any) -> None:
    """Let NAME go wrong, once unless told otherwise."""
    running = _running()
    if clear:
        cleared = running.ask("DELETE", f"faults/{_known_fault(name) if name else ''}")
        out.answer(data=lambda: cleared, ids=[], human=lambda: f"{cleared['cleared']} taken out.")
        return
    if name is None:
        raise UsageError("which fault?", hints=("`soong sandbox faults` lists them",))
    fault = {key: value for key, value in about.items() if value not in {None, ""}}
    count = None if always else about["count"]
    added = running.ask("POST", "faults", {**fault, "name": _known_fault(name), "count": count})
    out.answer(data=lambda: added, ids=[added.get("id", "")], human=lambda: _fault_words(added))


@command.command(
    "capacity",
    epilog="\b\nExamples:\n  soong sandbox capacity gpu_1x_a10 --none\n"
    "  soong sandbox capacity gpu_1x_h100_sxm5/us-west-1 --free\n  soong sandbox capacity --wave 7\n",
)
@click.argument("place", required=False)
@click.option("--free", "has_room", flag_value="yes", help="There is room for PLACE.")
@click.option("--none", "has_room", flag_value="no", help="There is none.")
@click.option("--usual", "has_room", flag_value="usual", help="As if nothing had been said.")
@click.option(
    "--wave", type=click.IntRange(min=0), help="Capacity and prices change by themselves, by this seed."
)
@click.option("--no-wave", is_flag=True, help="They stay as they are.")
@output.options
def capacity_command(
    place: str | None, has_room: str | None, wave: int | None, no_wave: bool, out: output.Output
) -> None:
    """What is free where. PLACE is a type, or type/region."""
    change: dict[str, Any] = {}
    if place and has_room:
        change["capacity"] = {place: {"yes": True, "no": False, "usual": None}[has_room]}
    if wave is not None or no_wave:
        change["wave_seed"] = -1 if no_wave else wave
    _show_types(_changed(change), out, only=(place or "").split("/")[0])


@command.command(
    "price",
    epilog="\b\nExamples:\n  soong sandbox price gpu_1x_a10 1.49\n  soong sandbox price gpu_1x_a10 --usual\n",
)
@click.argument("instance_type")
@click.argument("usd_per_hour", required=False)
@click.option("--usual", is_flag=True, help="Back to the price list.")
@output.options
def price_command(instance_type: str, usd_per_hour: str | None, usual: bool, out: output.Output) -> None:
    """What a type costs an hour from now on; machines that run keep their price."""
    change: dict[str, Any] = {}
    if usual:
        change["cents"] = {instance_type: None}
    elif usd_per_hour is not None:
        change["cents"] = {instance_type: round(units.parse_usd(usd_per_hour) * CENTS_PER_USD)}
    _show_types(_changed(change), out, only=instance_type)


@command.command("bill", epilog="\b\nExamples:\n  soong sandbox bill\n  soong sandbox bill --json\n")
@output.options
def bill_command(out: output.Output) -> None:
    """What every machine would have cost, by the sandbox's own count: from its health check to its end."""
    bill = _running().ask("GET", "bill")
    out.answer(
        data=lambda: bill, ids=[f"{bill['total_usd']:.2f}"], human=lambda: _bill_words(bill["machines"], bill)
    )


@command.command("log", epilog="\b\nExamples:\n  soong sandbox log\n  soong sandbox log INSTANCE_ID\n")
@click.argument("instance", required=False)
@click.option(
    "--last", type=click.IntRange(min=1), default=LOG_LINES, show_default=True, help="How many lines."
)
@output.options
def log_command(instance: str | None, last: int, out: output.Output) -> None:
    """The last requests that reached the sandbox, or what a machine's user data wrote."""
    running = _running()
    if instance:
        lines = _user_data_log(running.ask("GET", f"machines/{instance}")["user_data_log"])[-last:]
        out.answer(data=lambda: lines, ids=lines, human=lambda: "\n".join(lines))
        return
    requests = running.ask("GET", f"requests?last={last}")
    lines = [_request_words(one) for one in requests]
    out.answer(data=lambda: requests, ids=lines, human=lambda: "\n".join(lines) or "No requests yet.")


@command.command("url", epilog="\b\nExamples:\n  soong sandbox url\n  soong sandbox url --json\n")
@output.options
def url_command(out: output.Output) -> None:
    """The address and the key, for any client of Lambda's API. The key opens this sandbox and nothing else."""
    running = _running()
    api = f"{running.url}/api/v1"
    out.answer(
        data=lambda: {"url": running.url, "api_url": api, "key": running.key},
        ids=[running.url, running.key],
        human=lambda: (
            f"url  {api}\nkey  {running.key}\n\ncurl -H 'Authorization: Bearer {running.key}' {api}/instances"
        ),
    )


def _status(out: output.Output) -> None:
    from soong.clouds.sandbox import process

    running = process.find()
    if running is None:
        out.answer(
            data=lambda: {"running": False, "costs_money": False},
            ids=[],
            human=lambda: f"The sandbox is not running. {FREE}\n\nsoong sandbox start",
        )
        return
    status = running.ask("GET", "status")
    out.answer(
        data=lambda: {
            "running": True,
            "costs_money": False,
            "url": running.url,
            "pid": running.pid,
            **status,
        },
        ids=[one["id"] for one in status["instances"]],
        human=lambda: _status_words(running, status),
    )


def _status_words(running: Running, status: dict[str, Any]) -> str:
    clock = status["clock"]
    parts = [
        f"The sandbox runs at {running.url}, {clock['speed']:g} times as fast as life. {FREE}",
        f"It is {times.iso(clock['now'])} there.",
    ]
    if not status["ssh"]:
        parts.append("Machines have no SSH: asyncssh is missing. `pip install 'soong[sandbox]'`")
    if status["instances"]:
        listed = {one["id"]: one["status"] for one in status["instances"]}
        lines = [line for line in status["bill"]["machines"] if line["id"] in listed]
        parts.append(_bill_words(lines, status["bill"], listed))
    else:
        parts.append("No machines.")
    return "\n".join([*parts, *_waiting(status["faults"])])


def _bill_words(
    lines: list[dict[str, Any]], bill: dict[str, Any], listed: dict[str, str] | None = None
) -> str:
    states = listed or {}
    rows = [
        [
            line["name"] or line["id"],
            line["instance_type"],
            states.get(line["id"], "gone" if line["billed_until"] else "there"),
            times.span(line["seconds"]),
            units.format_usd(line["cents_per_hour"] / CENTS_PER_USD),
            units.format_usd(line["usd"]),
        ]
        for line in lines
    ]
    table = text.table(["Machine", "Type", "Status", "Billed", "$/hour", "Would cost"], rows, right=(3, 4, 5))
    return f"{table}\nAll machines so far: {units.format_usd(bill['total_usd'])}, of which real money: $0"


def _show_types(running: Running, out: output.Output, *, only: str) -> None:
    from soong.clouds.sandbox import catalogue
    from soong.clouds.sandbox.state import Settings

    settings = _settings(running, Settings)
    now = running.ask("GET", "clock")["now"]
    rows = [
        (name, catalogue.cents_now(one, settings, now), catalogue.regions_with_room(name, settings, now))
        for name, one in catalogue.machine_types().items()
        if only in {"", name}
    ]
    out.answer(
        data=lambda: [{"type": name, "cents": cents, "regions": list(where)} for name, cents, where in rows],
        ids=[name for name, _, where in rows if where],
        human=lambda: text.table(
            ["Type", "$/hour", "Free in"],
            [
                [name, units.format_usd(cents / CENTS_PER_USD), ", ".join(where) or "nowhere"]
                for name, cents, where in rows
            ],
            right=(1,),
        ),
    )


def _settings(running: Running, kind: type[Any]) -> Any:
    import msgspec

    return msgspec.convert(running.ask("GET", "settings"), kind)


def _changed(change: dict[str, Any]) -> Running:
    running = _running()
    if change:
        running.ask("POST", "settings", change)
    return running


def _running() -> Running:
    from soong.clouds.sandbox import process

    return process.start()


def _known_fault(name: str) -> str:
    from soong.clouds.sandbox.faults import KINDS

    if name in KINDS:
        return name
    from difflib import get_close_matches

    near = tuple(f"did you mean `{one}`?" for one in get_close_matches(name, KINDS, n=1))
    raise UsageError(f"there is no fault `{name}`", hints=(*near, "`soong sandbox faults` lists them"))


def _checked_speed(speed: float | None) -> float | None:
    from soong.clouds.sandbox.clock import FASTEST, SLOWEST

    if speed is not None and not SLOWEST <= speed <= FASTEST:
        raise UsageError(
            f"a speed of {speed:g} is out of range",
            why=f"{SLOWEST:g} to {FASTEST:,.0f}",
            hints=("--speed 600",),
        )
    return speed


def _waiting(faults: list[dict[str, Any]]) -> list[str]:
    return ["", "Waiting to happen:", *(f"  {_fault_words(fault)}" for fault in faults)] if faults else []


def _fault_words(fault: dict[str, Any]) -> str:
    count = fault.get("count", 1)
    often = "every time" if count is None else "once" if count == 1 else f"{count} times"
    often = often if fault.get("id") else "now"
    usual = {"probability": 1.0}
    more = [
        f"{key.replace('_', ' ')} {value}"
        for key, value in fault.items()
        if key not in {"id", "name", "count"} and usual.get(key) != value
    ]
    return ", ".join([f"{fault['name']} {often}", *more])


def _request_words(request: dict[str, Any]) -> str:
    when, status = times.iso(request["at"]), request["status"] or "---"
    return f"{when} {status} {request['method']} {request['path']}"


def _user_data_log(path: str) -> list[str]:
    from pathlib import Path

    try:
        return Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return []
