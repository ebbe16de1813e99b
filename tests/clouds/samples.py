"""Answers as Lambda gives them, small: prices and types as recorded on 2026-08-20, the rest by the specification."""

from __future__ import annotations

from typing import Any

REGION = {"name": "us-west-1", "description": "California, USA"}
OTHER_REGION = {"name": "us-east-1", "description": "Virginia, USA"}
_ACTION = {"available": True}


def instance_type(
    name: str, words: str, cents: int, *, gpus: int = 1, memory_gib: int = 200, **more: Any
) -> dict[str, Any]:
    """A kind of machine."""
    specs = {"gpus": gpus, "vcpus": 30, "memory_gib": memory_gib, "storage_gib": 512}
    return {
        "name": name,
        "description": f"{gpus}x {words}",
        "gpu_description": words,
        "price_cents_per_hour": cents,
        "specs": specs,
        **more,
    }


A10 = instance_type("gpu_1x_a10", "A10 (24 GB PCIe)", 129)
GH200 = instance_type("gpu_1x_gh200", "GH200 (96 GB)", 229, architecture="arm64")
H100 = instance_type("gpu_8x_h100_sxm5", "H100 (80 GB SXM5)", 3192, gpus=8)


def types(*kinds: tuple[dict[str, Any], list[dict[str, str]]]) -> dict[str, Any]:
    """The answer to `GET /instance-types`."""
    return {
        kind["name"]: {"instance_type": kind, "regions_with_capacity_available": regions}
        for kind, regions in kinds
    }


def instance(**more: Any) -> dict[str, Any]:
    """A machine that is up, with the secrets that such an answer carries."""
    actions = ("migrate", "rebuild", "restart", "cold_reboot", "terminate")
    return {
        "id": "0920582c7ff041399e34823a0be62549",
        "name": "soong-0123456789-u1800000000",
        "ip": "198.51.100.2",
        "status": "active",
        "ssh_key_names": ["my-key"],
        "file_system_names": [],
        "region": REGION,
        "instance_type": A10,
        "hostname": "soong",
        "jupyter_token": "jupyter-planted-secret",
        "jupyter_url": "https://jupyter.example/?token=jupyter-planted-secret",
        "actions": dict.fromkeys(actions, _ACTION),
        "tags": [{"key": "soong-id", "value": "0123456789"}],
        **more,
    }
