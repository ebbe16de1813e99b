"""A SkyPilot task: https://docs.skypilot.co/en/latest/reference/yaml-spec.html (read 2026-11-23, release 0.14.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from soong import units
from soong.exports import launching, local, names
from soong.exports.deployment import PORT
from soong.exports.documents import disk_gib, dumped
from soong.exports.header import header

if TYPE_CHECKING:
    from soong.exports.deployment import Deployment

RANK = '"$SKYPILOT_NODE_RANK"'
LEADER = '"$(printf \'%s\\n\' "$SKYPILOT_NODE_IPS" | head -n 1)"'
SMALLEST_DISK_GIB = 200
"""Room for the engine's image and the system beside the weights; an engine's image unpacks to some 30 GB."""


def written(deployment: Deployment) -> str:
    """The task; with more than one replica, a service of SkyServe.

    Raises:
        UsageError: SkyPilot has no name for the GPU, no image of the engine is known, or the weights lie here.
    """
    local.refuse(deployment, "SkyPilot")
    serves = deployment.wishes.replicas > 1
    task: dict[str, Any] = {"name": deployment.name, "resources": _resources(deployment, serves=serves)}
    if deployment.nodes > 1:
        task["num_nodes"] = deployment.nodes
    secrets = dict.fromkeys(launching.secrets_of(deployment))
    task["secrets"] = secrets
    if serves:
        task["service"] = {
            "readiness_probe": {"path": "/health", "initial_delay_seconds": deployment.deadline_seconds},
            "replicas": deployment.wishes.replicas,
        }
    task["run"] = "set -eu\n" + launching.script(
        deployment,
        program=deployment.image.program,
        rank=RANK,
        leader=LEADER,
        run="exec" if serves else f"exec timeout --kill-after=60 {deployment.seconds}",
    )
    return _head(deployment, secrets, serves=serves) + dumped(task)


def _resources(deployment: Deployment, *, serves: bool) -> dict[str, Any]:
    known = names.names_of(deployment.gpu).skypilot
    if not known:
        raise names.unknown_gpu(deployment.gpu, "SkyPilot", model=deployment.model)
    count, request = deployment.gpus_per_node, deployment.plan.request
    found: dict[str, Any] = {}
    clouds = deployment.names_of_clouds("skypilot")
    infra = [f"{cloud}/{request.region}" if request.region else cloud for cloud in clouds]
    if len(infra) > 1:  # SkyPilot takes no mapping of GPUs beside `any_of`
        found["any_of"] = [
            {"infra": place, "accelerators": f"{name}:{count}"} for place in infra for name in known
        ]
    else:
        found |= {"infra": infra[0]} if infra else {}
        found["accelerators"] = f"{known[0]}:{count}" if len(known) == 1 else dict.fromkeys(known, count)
    found["image_id"] = f"docker:{deployment.image.image}"
    found["disk_size"] = max(SMALLEST_DISK_GIB, disk_gib(deployment.disk_bytes) + SMALLEST_DISK_GIB // 2)
    if request.spot:
        found["use_spot"] = True
    if request.max_usd_per_hour is not None:
        found["max_hourly_cost"] = request.max_usd_per_hour
    found["autostop"] = {"idle_minutes": deployment.wishes.idle_minutes, "down": True}
    if serves:
        found["ports"] = PORT
    return found


def _head(deployment: Deployment, secrets: dict[str, None], *, serves: bool) -> str:
    given = " ".join(f"--secret {name}" for name in secrets)
    name, idle = deployment.name, deployment.wishes.idle_minutes
    if serves:
        return header(
            deployment,
            start=[f"sky serve up -n {name} {given} FILE"],
            ends=f"SkyServe has no deadline: `sky serve down {name}` ends all replicas, and until then they bill.",
            notes=launching.token_note(deployment),
            reach=f"`sky serve status --endpoint {name}`, port {PORT} of each replica open, without TLS.",
        )
    return header(
        deployment,
        start=[f"sky launch -c {name} {given} FILE"],
        ends=(
            f"the engine after {units.format_hours(deployment.wishes.hours)}, and the machine "
            f"{idle} minutes later; also {idle} minutes after an engine that failed. At once: `sky down {name}`."
        ),
        notes=launching.token_note(deployment),
        reach=(
            f"`ssh -L {PORT}:127.0.0.1:{PORT} {name}`, then http://127.0.0.1:{PORT}/v1. `ports: {PORT}` under "
            "resources would open it to all, without TLS."
        ),
    )
