"""Runs in an environment of its own with SkyPilot, dstack, Compose and the Kubernetes schemas: see `make parsers`.

Reads a JSON list of files, `{"tool": ..., "text": ...}`, and writes what each tool's own parser makes of them: a list
of `{"error": ...}` or of facts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

KEY = "SOONG_API_KEY"
KUBERNETES = "1.34.0"


def skypilot(text: str) -> dict[str, Any]:
    import sky
    import yaml

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "task.yaml")
        file.write_text(text)
        bare = sky.Task.from_yaml(str(file))
    given = [(name, "given") for name in yaml.safe_load(text)["secrets"]]
    task = sky.Task.from_yaml_config(yaml.safe_load(text), secrets_overrides=given)
    resources = list(task.resources)
    autostop = resources[0].autostop_config
    return {
        "name": task.name,
        "nodes": task.num_nodes,
        "accelerators": sorted(
            (name, count) for one in resources for name, count in (one.accelerators or {}).items()
        ),
        "image": resources[0].image_id,
        "autostop": [autostop.idle_minutes, autostop.down],
        "ports": resources[0].ports,
        "cloud": str(resources[0].cloud),
        "run": task.run,
        "bare": bare.name,
        "secrets": {name: value.get_secret_value() for name, value in task.secrets.items()},
        "service": _service(task),
    }


def skypilot_lacks(cloud: str) -> dict[str, Any]:
    """The features that SkyPilot's own code denies at a cloud, by its name there."""
    import sky
    from sky.utils import registry

    resources = sky.Resources(infra=cloud)
    denied = registry.CLOUD_REGISTRY.from_str(cloud)._unsupported_features_for_resources(resources)
    return {"lacks": sorted(feature.name for feature in denied)}


def _service(task: Any) -> dict[str, Any] | None:
    from sky.serve import serve_utils

    if task.service is None:
        return None
    serve_utils.validate_service_task(task, pool=False)
    spec = task.service
    return {
        "path": spec.readiness_path,
        "delay": spec.initial_delay_seconds,
        "replicas": [spec.min_replicas, spec.max_replicas],
    }


def dstack(text: str) -> dict[str, Any]:
    import yaml
    from dstack._internal.core.models.configurations import parse_run_configuration
    from gpuhunt import KNOWN_NVIDIA_GPUS

    found = parse_run_configuration(yaml.safe_load(text))
    gpu = found.resources.gpu
    known = any(one.name == gpu.name[0] and one.memory == gpu.memory.min for one in KNOWN_NVIDIA_GPUS)
    return {
        "type": found.type,
        "gpu": [gpu.name, gpu.memory.min, gpu.count.min, gpu.count.max],
        "known": known,
        "nodes": getattr(found, "nodes", None),
        "replicas": found.replicas.min if getattr(found, "replicas", None) else None,
        "max_duration": found.max_duration,
        "idle_duration": found.idle_duration,
        "probes": [probe.url for probe in getattr(found, "probes", [])],
        "auth": getattr(found, "auth", None),
        "env": found.env.as_dict(),
        "commands": found.commands,
        "shm_bytes": found.resources.shm_size and found.resources.shm_size * 2**30,
    }


def kubernetes(text: str) -> dict[str, Any]:
    """Every document by Kubernetes' own schema; of a LeaderWorkerSet, which is no part of these, the pods."""
    import kubernetes_validate
    import yaml

    if not hasattr(
        kubernetes_validate.utils.schema_contents, "cache_info"
    ):  # else 3 MB are read for each document
        kubernetes_validate.utils.schema_contents = lru_cache(kubernetes_validate.utils.schema_contents)
    kinds = []
    for document in yaml.safe_load_all(text):
        kinds.append(document["kind"])
        checked = [document]
        if document["kind"] == "LeaderWorkerSet":
            template = document["spec"]["leaderWorkerTemplate"]
            pods = [template["leaderTemplate"], template["workerTemplate"]]
            checked = [{"apiVersion": "v1", "kind": "Pod", **pod} for pod in pods]
        for one in checked:
            kubernetes_validate.validate(one, KUBERNETES, strict=True)
    return {"kinds": kinds}


def compose(text: str) -> dict[str, Any]:
    """What `docker compose config` makes of it."""
    program = Path(sys.executable).with_name("docker-compose")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "compose.yaml")
        file.write_text(text)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": folder,
            KEY: "LEAKED-key",
            "HF_TOKEN": "LEAKED-token",
        }
        ran = subprocess.run(
            [program, "-f", file, "config", "--format", "json"],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
    if ran.returncode != 0:
        raise ValueError(ran.stderr)
    shown: dict[str, Any] = json.loads(ran.stdout)
    return {"shown": shown, "leaks": "LEAKED" in ran.stdout}


def shell(text: str) -> dict[str, Any]:
    program = Path(sys.executable).with_name("shellcheck")
    ran = subprocess.run(
        [program, "--shell=sh", "-"], input=text, capture_output=True, text=True, check=False
    )
    if ran.returncode != 0:
        raise ValueError(ran.stdout)
    return {"warnings": 0}


PARSERS = {
    "skypilot": skypilot,
    "skypilot-lacks": skypilot_lacks,
    "dstack": dstack,
    "kubernetes": kubernetes,
    "compose": compose,
    "shell": shell,
}


def main() -> None:
    answers = []
    for asked in json.load(sys.stdin):
        try:
            answers.append(PARSERS[asked["tool"]](asked["text"]))
        except Exception as error:  # noqa: BLE001 - whatever the parser says is the answer
            answers.append({"error": f"{type(error).__name__}: {error}"[:2000]})
    json.dump(answers, sys.stdout, default=str)


if __name__ == "__main__":
    main()
