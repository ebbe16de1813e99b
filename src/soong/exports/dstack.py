"""A dstack service, or a task where one replica spans machines.

Source: https://dstack.ai/docs/reference/dstack.yml/service (read 2026-11-23, release 0.22.5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from soong import units
from soong.errors import UsageError
from soong.exports import launching, local, names
from soong.exports.deployment import PORT
from soong.exports.documents import disk_gib, dumped, seconds
from soong.exports.header import header

if TYPE_CHECKING:
    from soong.exports.deployment import Deployment

CACHE = "/models"
RANK, LEADER = '"$DSTACK_NODE_RANK"', '"$DSTACK_MASTER_NODE_IP"'
IMAGE_GIB = 50
"""Room for the engine's image beside the weights."""


def written(deployment: Deployment) -> str:
    """The configuration.

    Raises:
        UsageError: dstack has no name for the GPU, no image of the engine is known, the weights lie here, or replicas
            of several machines each are asked for.
    """
    local.refuse(deployment, "dstack")
    if deployment.nodes > 1 and deployment.wishes.replicas > 1:
        raise UsageError(
            "dstack has no replicas of several machines each",
            why="its services run on one machine each, its tasks have no replicas",
            hints=(
                "the same without `--replicas`",
                f"soong export kubernetes {deployment.model} --replicas {deployment.wishes.replicas}",
            ),
        )
    spans = deployment.nodes > 1
    found: dict[str, Any] = {"type": "task" if spans else "service", "name": deployment.name}
    found["image"] = deployment.image.image
    found["env"] = _env(deployment)
    found["commands"] = ["set -eu\n" + _script(deployment)]
    if spans:
        found |= {"nodes": deployment.nodes, "ports": [PORT]}
    else:
        found |= _service(deployment)
    found["volumes"] = [{"instance_path": "/var/cache/soong", "path": CACHE, "optional": True}]
    found["resources"] = _resources(deployment)
    found |= _profile(deployment)
    return _head(deployment, spans=spans) + dumped(found)


def _script(deployment: Deployment) -> str:
    return launching.script(deployment, program=deployment.image.program, rank=RANK, leader=LEADER)


def _env(deployment: Deployment) -> dict[str, str]:
    secrets = launching.secrets_of(deployment)
    cache = {"HF_HOME": CACHE, **({"LLAMA_CACHE": CACHE} if deployment.engine == "llama.cpp" else {})}
    return {name: f"${{{{ secrets.{name} }}}}" for name in secrets} | cache


def _service(deployment: Deployment) -> dict[str, Any]:
    """auth: the engine asks for its own key in the very header in which dstack would ask for its token."""
    probe = {"type": "http", "url": "/health", "interval": "15s", "timeout": "10s"}
    return {
        "port": PORT,
        "auth": False,
        "replicas": deployment.wishes.replicas,
        "probes": [probe],
    }


def _resources(deployment: Deployment) -> dict[str, Any]:
    known = names.names_of(deployment.gpu).dstack
    if known is None:
        raise names.unknown_gpu(deployment.gpu, "dstack", model=deployment.model)
    found: dict[str, Any] = {
        "gpu": {"name": known.name, "memory": f"{known.memory_gb}GB", "count": deployment.gpus_per_node}
    }
    if deployment.image.shm_gib:
        found["shm_size"] = f"{deployment.image.shm_gib}GB"
    return found | {"disk": f"{disk_gib(deployment.disk_bytes) + IMAGE_GIB}GB.."}


def _profile(deployment: Deployment) -> dict[str, Any]:
    request = deployment.plan.request
    found: dict[str, Any] = {}
    clouds = deployment.names_of_clouds("dstack")
    if clouds:
        found["backends"] = clouds
    if request.region:
        found["regions"] = [request.region]
    if request.max_usd_per_hour is not None:
        found["max_price"] = request.max_usd_per_hour
    return found | {
        "spot_policy": "auto" if request.spot else "on-demand",
        "max_duration": seconds(deployment.seconds),
        "idle_duration": f"{deployment.wishes.idle_minutes}m",
    }


def _head(deployment: Deployment, *, spans: bool) -> str:
    secrets = [
        f'dstack secret set {name} "${name}"'
        for name in _env(deployment)
        if name not in {"HF_HOME", "LLAMA_CACHE"}
    ]
    where = (
        f"http://127.0.0.1:{PORT}/v1 while `dstack apply` or `dstack attach {deployment.name}` runs."
        if spans
        else "the address that `dstack apply` prints, with /v1."
    )
    return header(
        deployment,
        start=[*secrets, "dstack apply -f FILE"],
        ends=(
            f"the run after {units.format_hours(deployment.wishes.hours)} (max_duration), its machine "
            f"{deployment.wishes.idle_minutes} minutes later. At once: `dstack stop {deployment.name}`."
        ),
        notes=launching.token_note(deployment),
        reach=where,
    )
