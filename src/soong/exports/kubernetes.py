"""Manifests for Kubernetes: a Deployment, or a LeaderWorkerSet where one replica spans machines.

Kubernetes' own API of release 1.34 and earlier; leaderworkerset.x-k8s.io/v1 of release 0.6 and later, which hands
each pod its number (LWS_WORKER_INDEX). Pods of a Deployment have no deadline of their own, so a Job with rights to
nothing else scales it to zero when the lease is over.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from soong import units
from soong.exports import launching, local, names
from soong.exports.deployment import PORT
from soong.exports.documents import disk_gib, dumped
from soong.exports.header import header

if TYPE_CHECKING:
    from soong.exports.deployment import Deployment

CACHE = "/models"
PRODUCT = "nvidia.com/gpu.product"
RANK, LEADER = '"$LWS_WORKER_INDEX"', '"$LWS_LEADER_ADDRESS"'
GROUP = "leaderworkerset.x-k8s.io"
NAME_LABEL = "app.kubernetes.io/name"
PROBE_SECONDS = 10
GRACE_SECONDS = 60
MARGIN_SECONDS = 600
"""What a pod may wait for its image beside the deadline of its engine: some 10 GB by a line of 200 Mbit/s."""
LEASE_SPARE_SECONDS = 3600
"""How long the lease's Job goes on trying when the API server does not answer at the end."""

LEASE = """\
set -eu
account=/var/run/secrets/kubernetes.io/serviceaccount
api="${{API:-https://kubernetes.default.svc}}/apis"
namespace="$(cat "$account/namespace")"
ask() {{
  curl --silent --show-error --fail --max-time 30 --retry 20 --retry-all-errors --retry-delay 5 \\
    --cacert "$account/ca.crt" --header "Authorization: Bearer $(cat "$account/token")" "$@"
}}
job="$(ask "$api/batch/v1/namespaces/$namespace/jobs/{lease}")"
began="$(printf '%s\\n' "$job" |
  sed -n 's/.*"creationTimestamp": *"\\([0-9-]*\\)T\\([0-9:]*\\)Z".*/\\1 \\2/p' | head -n 1)"
[ -n "$began" ] || {{ echo "when this Job was made cannot be read" >&2; exit 1; }}
ends=$(($(date -u -d "$began" +%s) + {seconds}))
while [ "$(date +%s)" -lt "$ends" ]; do sleep 5; done
ask --request PATCH --header 'Content-Type: application/merge-patch+json' \\
  --data '{{"spec":{{"replicas":0}}}}' --output /dev/null \\
  "$api/{group}/namespaces/$namespace/{resource}/{name}/scale"
echo "the lease is over: {resource} {name} has no replicas any more"
"""
"""Counts from the Job's own creation, so that a pod that is started again does not begin a new lease."""


def written(deployment: Deployment) -> str:
    """The manifests.

    Raises:
        UsageError: the GPU's label or the engine's image is not known, or the weights lie here.
    """
    local.refuse(deployment, "Kubernetes")
    if not names.names_of(deployment.gpu).kubernetes:
        raise names.unknown_gpu(deployment.gpu, "Kubernetes", model=deployment.model)
    spans = deployment.nodes > 1
    documents = [] if _is_many(deployment) else [_cache_claim(deployment)]
    documents += [_leader_worker_set(deployment) if spans else _deployment(deployment)]
    documents += [_service(deployment), *_lease(deployment)]
    return _head(deployment) + dumped(*documents)


def _is_many(deployment: Deployment) -> bool:
    """Whether pods on several machines would share a volume, which most kinds of volume do not allow."""
    return deployment.nodes > 1 or deployment.wishes.replicas > 1


def _metadata(deployment: Deployment, suffix: str = "") -> dict[str, Any]:
    labels = {NAME_LABEL: deployment.name, "app.kubernetes.io/managed-by": "soong"}
    return {"name": f"{deployment.name}{suffix}", "labels": labels}


def _cache_claim(deployment: Deployment) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _metadata(deployment, "-models"),
        "spec": _claim(deployment),
    }


def _claim(deployment: Deployment) -> dict[str, Any]:
    size = f"{disk_gib(deployment.disk_bytes)}Gi"
    return {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}


def _deployment(deployment: Deployment) -> dict[str, Any]:
    many = _is_many(deployment)
    strategy: dict[str, Any] = {"type": "Recreate"}
    if many:
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(deployment),
        "spec": {
            "replicas": deployment.wishes.replicas,
            "selector": {"matchLabels": {NAME_LABEL: deployment.name}},
            "strategy": strategy,
            "progressDeadlineSeconds": deployment.deadline_seconds + MARGIN_SECONDS,
            "template": _pod(deployment, answers=True),
        },
    }


def _leader_worker_set(deployment: Deployment) -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "LeaderWorkerSet",
        "metadata": _metadata(deployment),
        "spec": {
            "replicas": deployment.wishes.replicas,
            "startupPolicy": "LeaderCreated",
            "leaderWorkerTemplate": {
                "size": deployment.nodes,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": _pod(deployment, answers=True, role="leader"),
                "workerTemplate": _pod(deployment, answers=False, role="worker"),
            },
        },
    }


def _pod(deployment: Deployment, *, answers: bool, role: str = "") -> dict[str, Any]:
    """answers: that clients reach it, so that it is probed."""
    labels = {NAME_LABEL: deployment.name, **({"role": role} if role else {})}
    return {
        "metadata": {"labels": labels},
        "spec": {
            **_placement(deployment),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "containers": [_container(deployment, answers=answers)],
            "volumes": _volumes(deployment),
        },
    }


def _placement(deployment: Deployment) -> dict[str, Any]:
    """The GPU by its label; by affinity where it has several."""
    tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    known = names.names_of(deployment.gpu).kubernetes
    if len(known) == 1:
        return {"nodeSelector": {PRODUCT: known[0]}, "tolerations": tolerations}
    match = {"key": PRODUCT, "operator": "In", "values": list(known)}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [match]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    return {"affinity": affinity, "tolerations": tolerations}


def _container(deployment: Deployment, *, answers: bool) -> dict[str, Any]:
    script = launching.script(deployment, program=deployment.image.program, rank=RANK, leader=LEADER)
    found: dict[str, Any] = {
        "name": "engine",
        "image": deployment.image.image,
        "command": ["/bin/sh", "-c", "set -eu\n" + script],
        "env": _env(deployment),
        "resources": {"limits": {"nvidia.com/gpu": str(deployment.gpus_per_node)}},
        "securityContext": {"allowPrivilegeEscalation": False},
        "volumeMounts": [{"name": "models", "mountPath": CACHE}],
    }
    if deployment.image.shm_gib:
        found["volumeMounts"].append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108 - shared memory
    if answers:
        found["ports"] = [{"name": "http", "containerPort": PORT}]
        found |= _probes(deployment)
    return found


def _env(deployment: Deployment) -> list[dict[str, Any]]:
    key = {"secretKeyRef": {"name": deployment.name, "key": launching.KEY}}
    found: list[dict[str, Any]] = [{"name": launching.KEY, "valueFrom": key}]
    if deployment.consent != "no":
        token: dict[str, Any] = {"name": deployment.name, "key": launching.TOKEN}
        if deployment.consent == "unknown":
            token["optional"] = True
        found.append({"name": launching.TOKEN, "valueFrom": {"secretKeyRef": token}})
    found.append({"name": "HF_HOME", "value": CACHE})
    if deployment.engine == "llama.cpp":
        found.append({"name": "LLAMA_CACHE", "value": CACHE})
    return found


def _probes(deployment: Deployment) -> dict[str, Any]:
    """No liveness probe: under load `/health` may answer late, and a restart would throw everybody out."""
    asks = {
        "httpGet": {"path": "/health", "port": "http"},
        "periodSeconds": PROBE_SECONDS,
        "timeoutSeconds": 5,
    }
    tries = math.ceil(deployment.deadline_seconds / PROBE_SECONDS)
    return {
        "startupProbe": {**asks, "failureThreshold": tries},
        "readinessProbe": {**asks, "failureThreshold": 3},
    }


def _volumes(deployment: Deployment) -> list[dict[str, Any]]:
    models: dict[str, Any] = {"persistentVolumeClaim": {"claimName": f"{deployment.name}-models"}}
    if _is_many(deployment):
        models = {"ephemeral": {"volumeClaimTemplate": {"spec": _claim(deployment)}}}
    found: list[dict[str, Any]] = [{"name": "models", **models}]
    if deployment.image.shm_gib:
        shared = {"medium": "Memory", "sizeLimit": f"{deployment.image.shm_gib}Gi"}
        found.append({"name": "shm", "emptyDir": shared})
    return found


def _service_name(deployment: Deployment) -> str:
    """LeaderWorkerSet makes a headless Service under its own name, by which its pods find each other."""
    return f"{deployment.name}-http" if deployment.nodes > 1 else deployment.name


def _service(deployment: Deployment) -> dict[str, Any]:
    selector = {NAME_LABEL: deployment.name, **({"role": "leader"} if deployment.nodes > 1 else {})}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(deployment, _service_name(deployment).removeprefix(deployment.name)),
        "spec": {"selector": selector, "ports": [{"name": "http", "port": PORT, "targetPort": "http"}]},
    }


def _lease(deployment: Deployment) -> list[dict[str, Any]]:
    """The Job that ends it, and the rights that this takes: to read itself, and to scale this one thing."""
    metadata = _metadata(deployment, "-lease")
    group, resource = _scaled(deployment)
    rules = [
        {
            "apiGroups": ["batch"],
            "resources": ["jobs"],
            "resourceNames": [metadata["name"]],
            "verbs": ["get"],
        },
        {
            "apiGroups": [group],
            "resources": [f"{resource}/scale"],
            "resourceNames": [deployment.name],
            "verbs": ["patch"],
        },
    ]
    rbac = "rbac.authorization.k8s.io"
    role = {"apiGroup": rbac, "kind": "Role", "name": metadata["name"]}
    subject = {"kind": "ServiceAccount", "name": metadata["name"]}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": role,
            "subjects": [subject],
        },
        _lease_job(deployment, metadata),
    ]


def _scaled(deployment: Deployment) -> tuple[str, str]:
    """The API group and the resource that the lease ends."""
    return (GROUP, "leaderworkersets") if deployment.nodes > 1 else ("apps", "deployments")


def _lease_job(deployment: Deployment, metadata: dict[str, Any]) -> dict[str, Any]:
    container = {
        "name": "lease",
        "image": names.helper_image("curl"),
        "command": ["/bin/sh", "-c", lease_script(deployment)],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "runAsNonRoot": True, "runAsUser": 65534},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "activeDeadlineSeconds": deployment.seconds + LEASE_SPARE_SECONDS,
            "backoffLimit": 100,
            "template": {
                "spec": {
                    "serviceAccountName": metadata["name"],
                    "restartPolicy": "OnFailure",
                    "containers": [container],
                }
            },
        },
    }


def lease_script(deployment: Deployment) -> str:
    """What the lease's Job runs: waits for the end, then scales to zero."""
    group, resource = _scaled(deployment)
    return LEASE.format(
        lease=f"{deployment.name}-lease",
        seconds=deployment.seconds,
        group=f"{group}/v1",
        resource=resource,
        name=deployment.name,
    )


def _head(deployment: Deployment) -> str:
    name = deployment.name
    secrets = [launching.KEY, *([launching.TOKEN] if deployment.consent != "no" else [])]
    lines = " ".join(f'"{secret}=${secret}"' for secret in secrets)
    kind = "leaderworkerset" if deployment.nodes > 1 else "deployment"
    service = _service_name(deployment)
    return header(
        deployment,
        start=[
            f"printf '%s\\n' {lines} | kubectl create secret generic {name} --from-env-file=/dev/stdin",
            "kubectl apply -f FILE",
        ],
        ends=(
            f"after {units.format_hours(deployment.wishes.hours)} the Job {name}-lease scales the {kind} to zero; "
            "GPU nodes end when the cluster's autoscaler removes them. At once, with the cache: "
            "`kubectl delete -f FILE`; that also comes before a new lease."
        ),
        reach=(
            f"http://{service}:{PORT}/v1 in the cluster; `kubectl port-forward service/{service} {PORT}` leads there "
            "from outside."
        ),
    )
