"""A model by its repository on Hugging Face: from the cache on this machine, else asked for over the network."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from soong.errors import RemoteError, SoongError
from soong.models import catalogue
from soong.models.config_json import parse_config
from soong.models.from_files import State, folder_state, read_folder
from soong.models.reading import Facts, read
from soong.models.resolved import MOST_KEPT, ResolvedModel, keep

if TYPE_CHECKING:
    from collections.abc import Callable

    from soong.models.hub import Progress, Repository

KEPT_SECONDS = 300.0
"""How long the Hub's answer is good for within one process."""

FAILURE_KEPT_SECONDS = 60.0
"""A Hub that does not answer is not asked again for each line of a batch."""

_asked: dict[tuple[str, ...], tuple[float, Repository | SoongError]] = {}


def resolve(
    word: str, quantization: str | None, *, allow_network: bool, progress: Progress | None
) -> ResolvedModel:
    """The model of ORG/NAME, also with @REVISION; see `soong.models.resolve.resolve`."""
    from soong.models.hub_cache import check_name, check_revision, settings_from_environment, snapshot

    name, _, revision = word.partition("@")
    check_name(name)
    revision = check_revision(revision) if revision else "main"
    settings = settings_from_environment()
    folder = snapshot(settings, name, revision)
    facts = Facts(id=name, source="hub", serve_from=name)
    online = allow_network and not settings.offline
    cached: ResolvedModel | None = None
    if folder is not None:
        cached = _snapshot(str(folder), facts, quantization, folder_state(str(folder)))
        if cached.weights_basis == "headers" or not online:
            return cached
    if not online:
        raise _offline(name)

    def ask() -> Repository:
        from soong.models.hub import read_repository

        return read_repository(name, revision, settings=settings, progress=progress)

    key = (settings.endpoint, name, revision, settings.token or "")
    try:
        return _of_repository(_asked_once(key, ask), quantization)
    except RemoteError:
        if cached is None:
            raise
        return cached


def _offline(name: str) -> RemoteError:
    near = tuple(f"did you mean `{other}`?" for other in catalogue.similar(name))
    return RemoteError(
        f"{name} is not on this machine, and the network may not be asked",
        hints=(*near, catalogue.HOW_TO_LIST, "HF_HUB_OFFLINE=0 in front of a command allows it again"),
    )


@lru_cache(maxsize=MOST_KEPT)
def _snapshot(
    path: str,
    facts: Facts,
    quantization: str | None,
    states: tuple[State, ...],  # noqa: ARG001 - the cache's key
) -> ResolvedModel:
    return read_folder(path, facts, quantization)


def _asked_once(key: tuple[str, ...], ask: Callable[[], Repository]) -> Repository:
    from time import monotonic

    kept = _asked.get(key)
    if kept is None or kept[0] < monotonic():
        answer: Repository | SoongError
        try:
            answer = ask()
        except SoongError as error:
            answer = error
        seconds = FAILURE_KEPT_SECONDS if isinstance(answer, SoongError) else KEPT_SECONDS
        kept = (monotonic() + seconds, answer)
        keep(_asked, key, kept)
    if isinstance(kept[1], SoongError):
        raise kept[1].with_traceback(None)  # else each raise would lengthen the same traceback
    return kept[1]


@lru_cache(maxsize=MOST_KEPT)
def _of_repository(repository: Repository, quantization: str | None) -> ResolvedModel:
    name = repository.name
    facts = Facts(
        id=name,
        source="hub",
        serve_from=name,
        licence=repository.licence,
        gated=repository.gated,
        pools=repository.pools,
    )
    config = parse_config(repository.config, f"config.json of {name}")
    hf_quant = None
    if repository.hf_quant is not None:
        hf_quant = parse_config(repository.hf_quant, f"hf_quant_config.json of {name}")
    return read(config, hf_quant, repository.tensors, facts, quantization)
