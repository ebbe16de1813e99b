"""A Compose file for one machine: https://docs.docker.com/reference/compose-file (read 2026-11-23, Compose 2.40)."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

from soong import units
from soong.errors import UsageError
from soong.exports import launching
from soong.exports.deployment import PORT
from soong.exports.documents import dumped
from soong.exports.header import header

if TYPE_CHECKING:
    from soong.exports.deployment import Deployment

CACHE = "/models"
GIVEN = "/given"
"""Where weights of this computer are mounted."""
SECRETS = "/run/secrets"


def written(deployment: Deployment) -> str:
    """The file; each replica is a service of its own, with GPUs and a port of its own.

    Raises:
        UsageError: the plan spans machines, or no image of the engine is known.
    """
    if deployment.nodes > 1:
        raise UsageError(
            f"Compose serves on one machine, and the plan needs {deployment.nodes}",
            hints=("the same with `kubernetes`, `skypilot` or `dstack` in place of `compose`",),
        )
    replicas = deployment.wishes.replicas
    services = {
        "engine" if replicas == 1 else f"engine-{index + 1}": _service(deployment, index)
        for index in range(replicas)
    }
    found: dict[str, Any] = {"name": deployment.name, "services": services, "volumes": {"models": {}}}
    found["secrets"] = {name: {"environment": name} for name in _secrets(deployment)}
    return _head(deployment) + dumped(found)


def _secrets(deployment: Deployment) -> list[str]:
    return launching.secrets_of(deployment)


def _service(deployment: Deployment, index: int) -> dict[str, Any]:
    image = deployment.image
    found: dict[str, Any] = {
        "image": image.image,
        "entrypoint": ["/bin/sh", "-c"],
        "command": [_script(deployment).replace("$", "$$")],
        "environment": _environment(deployment),
        "secrets": _secrets(deployment),
        "ports": [f"127.0.0.1:{PORT + index}:{PORT}"],
        "volumes": _volumes(deployment),
    }
    if image.shm_gib:
        found["shm_size"] = f"{image.shm_gib}gb"
    found["deploy"] = {"resources": {"reservations": {"devices": [_devices(deployment, index)]}}}
    found["healthcheck"] = _healthcheck(deployment)
    return found | {"stop_grace_period": "60s", "restart": "no"}


def _script(deployment: Deployment) -> str:
    """Secrets come as files, so that neither `docker inspect` nor `docker compose config` shows them.

    The end in time is no failure.
    """
    read = "".join(f'{name}="$(cat {SECRETS}/{name})"\nexport {name}\n' for name in _secrets(deployment))
    engine = launching.script(
        _mounted(deployment),
        program=deployment.image.program,
        run=f"timeout --kill-after=60 {deployment.seconds}",
    )
    return f'set -eu\n{read}{engine.rstrip()} || {{ code=$?; [ "$code" -eq 124 ] || exit "$code"; }}\n'


def _mounted(deployment: Deployment) -> Deployment:
    """The deployment with the weights where the container has them."""
    if not deployment.local:
        return deployment
    import msgspec

    inside = _inside(deployment)
    words = tuple(inside if word == deployment.source else word for word in deployment.argv)
    return msgspec.structs.replace(deployment, argv=words)


def _inside(deployment: Deployment) -> str:
    if deployment.engine == "llama.cpp":
        return f"{GIVEN}/{posixpath.basename(deployment.source)}"
    return GIVEN


def _environment(deployment: Deployment) -> dict[str, str]:
    found = {"HF_HOME": CACHE}
    if deployment.engine == "llama.cpp":
        found["LLAMA_CACHE"] = CACHE
    return found


def _volumes(deployment: Deployment) -> list[Any]:
    kept: list[Any] = [f"models:{CACHE}"]
    if not deployment.local:
        return kept
    folder = deployment.source
    if deployment.engine == "llama.cpp":
        folder = posixpath.dirname(folder) or "."
    source = folder if folder.startswith(("/", ".", "~")) else f"./{folder}"
    return [*kept, {"type": "bind", "source": source, "target": GIVEN, "read_only": True}]


def _devices(deployment: Deployment, index: int) -> dict[str, Any]:
    count = deployment.gpus_per_node
    if deployment.wishes.replicas == 1:
        return {"driver": "nvidia", "count": count, "capabilities": ["gpu"]}
    ids = [str(index * count + place) for place in range(count)]
    return {"driver": "nvidia", "device_ids": ids, "capabilities": ["gpu"]}


def _healthcheck(deployment: Deployment) -> dict[str, Any]:
    address = f"http://127.0.0.1:{PORT}/health"
    asks = {
        "python3": [
            "CMD",
            "python3",
            "-c",
            f"from urllib.request import urlopen; urlopen({address!r}, timeout=5)",
        ],
        "curl": ["CMD", "curl", "--fail", "--silent", "--max-time", "5", address],
    }
    return {
        "test": asks[deployment.image.health],
        "interval": "10s",
        "timeout": "10s",
        "retries": 3,
        "start_period": f"{deployment.deadline_seconds}s",
    }


def _head(deployment: Deployment) -> str:
    replicas = deployment.wishes.replicas
    ports = str(PORT) if replicas == 1 else f"{PORT} to {PORT + replicas - 1}"
    needs = " and ".join(_secrets(deployment))
    return header(
        deployment,
        start=[f"export {name}=..." for name in _secrets(deployment)]
        + ["docker compose -f FILE up --detach --wait"],
        ends=(
            f"the engine after {units.format_hours(deployment.wishes.hours)}; it is not started again. The machine "
            "itself bills until whoever rents it ends it. At once: `docker compose -f FILE down`."
        ),
        notes=launching.token_note(deployment),
        reach=(
            f"http://127.0.0.1, port {ports}, with /v1; of this machine alone. {needs} may also stand in a `.env` file."
        ),
    )
