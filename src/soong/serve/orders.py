"""`serve.json`: what the machine is told to do. No secret stands in it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from soong.models.resolve import ResolvedModel
    from soong.serve.command import Command, Requirements

SLOWEST_BYTES_PER_SECOND = 25e6
"""Downloads that are slower are given up: 200 Mbit/s; Lambda's machines have many times that."""
SLOWEST_LOADING_BYTES_PER_SECOND = 0.5e9
"""From the local disk to the GPU: a SATA disk does as much; Lambda's machines have NVMe."""
ENVIRONMENT_SECONDS = 1800.0
"""About 10 GB of packages, by the same slow line, with as much again for unpacking and compiling."""
WEIGHTS_BASE_SECONDS = 120.0
READY_BASE_SECONDS = 900.0
"""After loading: compilation, autotuning and graph capture take up to ten minutes on a cold cache."""

IGNORED = (
    "original/*",
    "metal/*",
    "*.pth",
    "*.pt",
    "consolidated*",
    "*.gguf",
    "*.onnx",
    "*.h5",
    "*.msgpack",
    "*.tflite",
)
"""Copies of the weights that repositories carry in other formats; engines read the safetensors files."""


class EngineOrders(msgspec.Struct, frozen=True, kw_only=True):
    """argv: with the machine's words, see `soong.serve.command`. port: 0 for a free one.

    chat_template: written to a file for the engine. encodes_chats: the engine needs none, of the repository neither.
    """

    name: str
    version: str
    argv: tuple[str, ...]
    env: dict[str, str]
    port: int = 0
    health: str = "/health"
    chat_template: str = ""
    encodes_chats: bool = False


class GateOrders(msgspec.Struct, frozen=True):
    """port: 0 for a free one."""

    port: int = 0


class EnvironmentOrders(msgspec.Struct, frozen=True, kw_only=True):
    """path: an environment that is there already; else what is installed, and under which name it is kept."""

    path: str = ""
    python: str = ""
    requirements: tuple[str, ...] = ()
    env: dict[str, str] = {}
    key: str = ""
    seconds: float = ENVIRONMENT_SECONDS


class WeightsOrders(msgspec.Struct, frozen=True, kw_only=True):
    """What is downloaded (repository, revision), or is there or was sent (file, sha256); neither: `path` as it is."""

    repository: str = ""
    revision: str = ""
    allow: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    bytes: int = 0
    file: str = ""
    sha256: str = ""
    path: str = ""
    seconds: float = 0.0


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """All of it. ready_seconds: from the engine's start to its first answer. gpus: that must compute; 0 asks none."""

    rental: str
    engine: EngineOrders
    environment: EnvironmentOrders
    weights: WeightsOrders
    gate: GateOrders = GateOrders()
    served_name: str = ""
    ready_seconds: float = READY_BASE_SECONDS
    filesystem: str = ""
    gpus: int = 0
    version: int = 1

    @property
    def limit_seconds(self) -> float:
        """When the endpoint must answer, counted from the start: every step's own limit together."""
        return self.environment.seconds + self.weights.seconds + self.ready_seconds


def make_orders(
    rental_id: str,
    command: Command,
    model: ResolvedModel,
    *,
    gpus: int,
    requirements: Requirements | None = None,
    environment: str = "",
    filesystem: str = "",
    remote_file: str = "",
) -> Orders:
    """The orders for one rental.

    Args:
        command: of the engine. model: what is served. gpus: how many must compute.
        requirements: what is installed; None where `environment` names a folder that is there already.
        filesystem: where a persistent one is mounted; empty without one.
        remote_file: the weights as they lie on the machine, sent or there already; empty to download the repository.
    """
    return Orders(
        rental=rental_id,
        engine=EngineOrders(
            name=command.engine,
            version=command.version,
            argv=command.argv,
            env=command.env,
            chat_template=command.chat_template,
            encodes_chats=command.encodes_chats,
        ),
        environment=_environment(command, requirements, environment),
        weights=_weights(model, remote_file),
        served_name=command.served_name,
        ready_seconds=ready_seconds(model.weights_bytes),
        filesystem=filesystem,
        gpus=gpus,
    )


def longest_seconds(weights_bytes: int, *, installs: bool, downloads: bool) -> float:
    """How long serving may take in all before it is given up, on a machine that is up; see `Orders.limit_seconds`.

    Args:
        installs: the engine's environment is not there yet. downloads: neither are the weights.

    >>> longest_seconds(140_000_000_000, installs=True, downloads=True) / 3600
    2.4166666666666665
    """
    environment = ENVIRONMENT_SECONDS if installs else 0.0
    weights = download_seconds(weights_bytes) if downloads else 0.0
    return environment + weights + ready_seconds(weights_bytes)


def download_seconds(weights_bytes: int) -> float:
    """How long the weights may take on the slowest line that is waited for."""
    return WEIGHTS_BASE_SECONDS + math.ceil(weights_bytes / SLOWEST_BYTES_PER_SECOND)


def ready_seconds(weights_bytes: int) -> float:
    """How long an engine may take from its start to its first answer.

    >>> ready_seconds(140_000_000_000)
    1180.0
    """
    return READY_BASE_SECONDS + math.ceil(weights_bytes / SLOWEST_LOADING_BYTES_PER_SECOND)


def _environment(command: Command, requirements: Requirements | None, path: str) -> EnvironmentOrders:
    if path or requirements is None:
        return EnvironmentOrders(path=path, seconds=0.0)
    return EnvironmentOrders(
        python=requirements.python,
        requirements=requirements.packages,
        env=requirements.build_env,
        key=f"{command.engine}-{command.version}-py{requirements.python}-{requirements.arch}",
    )


def _weights(model: ResolvedModel, remote_file: str) -> WeightsOrders:
    if remote_file:
        return WeightsOrders(file=remote_file)
    repository, _, revision = model.serve_from.partition("@")
    return WeightsOrders(
        repository=repository,
        revision=revision,
        ignore=IGNORED,
        bytes=model.weights_bytes,
        seconds=download_seconds(model.weights_bytes),
    )
