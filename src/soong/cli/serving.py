"""What `start` does once the machine computes: prepared before money moves, then sent, followed and tunnelled."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from soong.errors import RemoteError, SoongError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from soong.cli.account import Account
    from soong.cli.output import Output
    from soong.connect.ssh import Host
    from soong.lease.clock import Clock
    from soong.lease.ledger import Rental
    from soong.models.resolve import ResolvedModel
    from soong.plan.plan import Candidate as Planned
    from soong.plan.plan import Plan
    from soong.serve.command import Requirements
    from soong.serve.machine import Machine
    from soong.serve.orders import Orders
    from soong.serve.serving import Endpoint
    from soong.settings.secrets import Secret

HERE = {"sandbox", "local"}
"""Clouds whose machines are this computer, so that its files need not be sent."""
NOT_IN_REHEARSAL = "a rehearsal ends at SSH, unless `--engine-env PATH` names an environment with an engine"


class Served(NamedTuple):
    """What is to be served. environment: a folder with an engine, to be used instead of a new one."""

    plan: Plan
    environment: str
    local_port: int


class Job(NamedTuple):
    """Everything that brings one machine to serve. weights_file: sent from here, where it is."""

    machine: Machine
    orders: Orders
    api_key: Secret
    hf_token: Secret | None
    weights_file: Path | None


def prepared(
    account: Account,
    plan: Plan,
    picks: tuple[Planned, ...],
    out: Output,
    *,
    environment: str,
    local_port: int,
) -> Served | None:
    """What will be served, checked before money moves; None where a rehearsal has no engine.

    Raises:
        UsageError: the engine cannot be installed on such a machine, or the model's files cannot be served.
    """
    from soong.settings import config

    folder = str(config.value("serve.environment", flag=environment or None) or "")
    if account.provider.cloud == "sandbox" and not folder:
        out.say(f"note: {NOT_IN_REHEARSAL}")
        return None
    if folder and not os.path.isdir(os.path.join(folder, "bin")):  # noqa: PTH112, PTH118 - no pathlib at the start
        raise UsageError(
            f"there is no environment in {folder}",
            why="its programs are looked for in `bin`",
            hints=(f"python3 -m venv {folder}", "soong config unset serve.environment"),
        )
    served = Served(plan, folder, local_port)
    for pick in picks:
        orders = _orders(
            "0" * 10, pick.engine_argv, pick.gpu.cpu_architecture, pick.gpu_count, served, account
        )
        if pick is picks[0]:
            for note in _notes(pick.engine_argv, plan):
                out.say(f"note: {note}")
        del orders
    return served


def serve(account: Account, rental: Rental, served: Served, out: Output) -> Rental:
    """Serve the model on a machine that is ready, and lead a port of this computer there.

    Returns:
        The rental, whose endpoint answers.

    Raises:
        ServingFailedError: the machine gave up; explained. TimedOutError: not ready in time. RemoteError: no answer.
    """
    from soong.cli.steps import Steps
    from soong.lease.clock import WallClock

    job = job_of(account, rental, served)
    rental = noted(
        account, rental, "starting", served_model=job.orders.served_name, local_port=served.local_port
    )
    try:
        with Steps(out, WallClock()) as steps:
            endpoint = brought_up(job, WallClock(), tell=steps.say, update=steps.update)
            rental = noted(account, rental, "ready", endpoint_port=endpoint.port)
    except KeyboardInterrupt:
        out.say(
            f"{rental.name} goes on starting its engine, and bills ${rental.usd_per_hour:.2f}/h; "
            "`soong logs --follow` follows it, `soong stop` ends it"
        )
        raise
    except SoongError as error:
        rental = noted(account, rental, "failed")
        raise explained(error, rental, served, out) from error
    return connect(account, rental, out)


def job_of(account: Account, rental: Rental, served: Served) -> Job:
    """What is to be sent to a machine that is ready, and how it is reached.

    Raises:
        RemoteError: it has no address.
    """
    from soong.serve.secrets import endpoint_key

    arch = _pick_of(rental, served).gpu.cpu_architecture
    orders = _orders(rental.id, rental.engine_argv, arch, rental.gpu_count, served, account)
    return Job(
        machine=machine_of(account, rental),
        orders=orders,
        api_key=endpoint_key(rental.endpoint_id),
        hf_token=_hub_token(served.plan.model) if orders.weights.repository else None,
        weights_file=_sent_file(account, served.plan.model),
    )


def brought_up(
    job: Job, clock: Clock, *, tell: Callable[[str], None], update: Callable[[str], None]
) -> Endpoint:
    """Send the orders, start the machine's own program, and follow it until the endpoint answers.

    Asks neither the ledger nor the cloud, so that several machines can be brought up at once.

    Raises:
        ServingFailedError, TimedOutError, RemoteError: see `serve`.
    """
    from soong.connect.programs import programs
    from soong.serve import serving

    tell("sending the orders")
    serving.send(
        job.machine,
        job.orders,
        programs(),
        api_key=job.api_key,
        hf_token=job.hf_token,
        weights_file=job.weights_file,
        tell=update,
    )
    offset = serving.begin(job.machine)
    return serving.wait(job.machine, job.orders, clock, offset=offset, tell=tell, update=update)


def _pick_of(rental: Rental, served: Served) -> Planned:
    """The plan's line that the machine was rented by."""
    return next(
        one
        for one in served.plan.candidates
        if one.engine_argv == rental.engine_argv and one.gpu_count == rental.gpu_count
    )


def connect(account: Account, rental: Rental, out: Output) -> Rental:
    """Lead the port of this computer to the endpoint; a tunnel that fails leaves the endpoint as it is."""
    if account.provider.cloud == "local":
        return noted(account, rental, "ready", local_port=rental.endpoint_port)
    from soong.connect import tunnel

    try:
        tunnel.start(host_of(account, rental), local_port=rental.local_port, remote_port=rental.endpoint_port)
    except SoongError as error:
        out.say(f"Warning: the endpoint answers on the machine, but there is no tunnel: {error}")
        out.hint("soong tunnel start")
    return rental


def machine_of(account: Account, rental: Rental) -> Machine:
    """The machine of a rental, to run things on.

    Raises:
        RemoteError: it has no address.
    """
    own: Any = getattr(account.provider, "machine", None)
    if own is not None:
        machine: Machine = own(rental.instance_id)
        return machine
    from soong.connect.machine import SshMachine

    host = host_of(account, rental)
    return SshMachine(lambda: host)


def host_of(account: Account, rental: Rental) -> Host:
    """How SSH reaches the machine of a rental.

    Raises:
        RemoteError: it has no address.
    """
    from soong.connect import keys, probing
    from soong.launch import finding
    from soong.settings import config

    machine = next(iter(finding.of_rental(rental, account.provider.instances())), None)
    endpoint = account.provider.ssh_endpoint(machine) if machine is not None else None
    if endpoint is None:
        raise RemoteError(f"{rental.name} has no address yet", hints=("soong status",))
    mine = keys.matching(keys.local_keys(config.value("ssh.key") or ""), account.provider.ssh_keys())
    key_file = mine[0].private_file if mine else str(keys.own_key_file())
    return probing.host_of(rental, endpoint, key_file)


def _orders(
    rental_id: str, argv: tuple[str, ...], arch: str, gpu_count: int, served: Served, account: Account
) -> Orders:
    from soong.serve import command
    from soong.serve.orders import make_orders

    plan = served.plan
    needs = (
        None
        if served.environment
        else command.requirements_of(plan.settings.name, plan.settings.version, arch)
    )
    needs = _without_cuda(needs, account) if needs else None
    built = command.engine_command(
        argv, plan.model, version=plan.settings.version, launcher=needs.launcher if needs else ()
    )
    return make_orders(
        rental_id,
        built,
        plan.model,
        gpus=gpu_count if account.provider.cloud != "local" else 0,
        requirements=needs,
        environment=served.environment,
        remote_file=_remote_file(account, plan.model, served.environment),
        filesystem=_kept_folder(account, rental_id),
    )


def _kept_folder(account: Account, rental_id: str) -> str:
    """Where engines and weights outlive the machine: on its filesystem, or on this computer; empty where nowhere."""
    if account.provider.cloud == "local":
        from soong.clouds.local.provider import kept_folder

        return str(kept_folder())
    from soong.launch import finding

    rental = account.ledger.find(rental_id)
    machine = next(iter(finding.of_rental(rental, account.provider.instances())), None) if rental else None
    if machine is None or not machine.filesystem_names:
        return ""
    places = [
        one.mount_point
        for one in account.provider.filesystems()
        if (one.name, one.region) == (machine.filesystem_names[0], machine.region)
    ]
    return f"{{root}}{places[0]}" if places and places[0] else ""


def _without_cuda(needs: Requirements, account: Account) -> Requirements:
    """What is installed on this computer, where it has no GPU: engines are built for CUDA elsewhere."""
    import msgspec

    kinds = getattr(account.provider, "gpus", ())
    if not any(gpu.vendor == "cpu" for gpu in kinds):
        return needs
    return msgspec.structs.replace(needs, build_env={})


def _notes(argv: tuple[str, ...], plan: Plan) -> tuple[str, ...]:
    from soong.serve.command import engine_command

    return engine_command(argv, plan.model, version=plan.settings.version).notes


def _remote_file(account: Account, model: ResolvedModel, environment: str) -> str:
    """Where the weights lie on the machine, if they are not downloaded there.

    Raises:
        UsageError: there are none to serve.
    """
    own = os.path.join(environment, "weights")  # noqa: PTH118
    if environment and account.provider.cloud == "sandbox" and os.path.isdir(own):  # noqa: PTH112
        return own
    if model.source == "config":
        raise UsageError(
            f"{model.id} describes a model and has no weights", hints=("--model ORG/NAME", "--no-serve")
        )
    if model.source not in {"folder", "gguf"}:
        return ""
    local = os.path.abspath(model.serve_from)  # noqa: PTH100
    if account.provider.cloud in HERE:
        return local
    if model.source == "folder":
        raise UsageError(
            f"the folder {model.id} cannot be sent to a rented machine",
            why="only a .gguf file is sent; folders are downloaded from the Hub",
            hints=("put it on the Hub as a private repository", "--no-serve, then `soong ssh`"),
        )
    return f".soong/sent/{os.path.basename(local)}"  # noqa: PTH119


def _sent_file(account: Account, model: ResolvedModel) -> Path | None:
    from pathlib import Path

    return Path(model.serve_from) if model.source == "gguf" and account.provider.cloud not in HERE else None


def _hub_token(model: ResolvedModel) -> Secret | None:
    """The person's token, where the repository may need one."""
    from soong.models.hub_cache import settings_from_environment
    from soong.settings.secrets import Secret

    token = settings_from_environment().token
    return Secret(token, origin="Hugging Face") if token and model.gated is not False else None


def noted(account: Account, rental: Rental, state: str, **fields: Any) -> Rental:
    """The rental, in the ledger, with how far its endpoint is."""
    return account.ledger.change(
        rental.id, f"serving-{state}", account.provider.clock.now(), serving=state, **fields
    )


def explained(error: SoongError, rental: Rental, served: Served, out: Output) -> SoongError:
    """The failure with what it means; a known one is first put on a screen."""
    from soong.serve import diagnosis
    from soong.serve.serving import ServingFailedError

    pick = _pick_of(rental, served)
    found = diagnosis.diagnose(error.engine_log) if isinstance(error, ServingFailedError) else None
    if found is not None:
        again = diagnosis.refitted(served.plan, pick, found) if found.is_of_memory else None
        out.say(diagnosis.screen(served.plan, pick, found, again))
        error.why = found.words
        error.hints = (*diagnosis.commands(served.plan, pick, found, again), *error.hints)
        if found.is_of_memory:
            file = diagnosis.keep_miss(served.plan, pick, found)
            out.say(f"the estimate was wrong: kept in {file}; please report its last line")
    return error
