"""How many sequences the engine is told to run at once, where nobody said it and its own number will not do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from soong.memory import engines
from soong.plan.verdict import judge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from soong.gpus.gpu import Gpu
    from soong.memory.footprint import EngineSettings, Footprint, ServedModel, Workload


def with_sequences(
    served: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings, footprint: Footprint
) -> tuple[EngineSettings, Footprint, str]:
    """The flags and memory with a number of sequences at once that the engine starts with and that was asked for.

    As they are where the number was named, or where the engine's own will do.

    Args:
        served, gpu, workload, settings: what is planned. footprint: with the engine's own number.

    Returns:
        Flags, memory, and what a person must know of it; empty where nothing changed.
    """
    unchanged = (settings, footprint, "")
    if settings.max_num_seqs is not None:
        return unchanged
    running = footprint.most_running
    sure = footprint.startable_sequences
    if sure is not None and running is not None and sure < running:
        lowered = _fewer(served, gpu, workload, settings, footprint)
        if lowered is None:
            return unchanged
        fails = bool(footprint.refusal)
        settings, footprint = lowered
        return settings, footprint, _told(settings, DEFAULT_FAILS if fails else DEFAULT_MAY_FAIL)
    if running is None or running >= workload.sequences:
        return unchanged
    # vLLM refuses passes of fewer tokens than sequences (0.33 `config/scheduler.py` verify_max_model_len).
    most = engines.pass_tokens(gpu, settings) or workload.sequences
    raised = replace(settings, max_num_seqs=min(workload.sequences, most))
    found = engines.footprint(served, gpu, workload, raised)
    if found.refusal or (found.most_running or 0) <= running:
        return unchanged
    return raised, found, _told(raised, f"by itself the engine runs {running:,}")


DEFAULT_FAILS = "the engine's default does not start, for lack of recurrent state"
DEFAULT_MAY_FAIL = "the engine's default may not start, for lack of recurrent state"


def _told(settings: EngineSettings, why: str) -> str:
    many = settings.max_num_seqs or 1
    return f"{many:,} sequence{'' if many == 1 else 's'} at once: {why}"


def _fewer(
    served: ServedModel, gpu: Gpu, workload: Workload, settings: EngineSettings, footprint: Footprint
) -> tuple[EngineSettings, Footprint] | None:
    """A number that it starts with, best one that fits, not below what was asked; None where there is none.

    Where some surely start, the largest power of two of them. Where none are sure, smaller numbers are tried, since
    they take less for their logits too, and so leave more for the pool.
    """
    sure, limit = footprint.startable_sequences or 0, footprint.most_running or 1
    asked = min(workload.sequences, limit)
    if sure:
        lowered = replace(settings, max_num_seqs=max(1 << (sure.bit_length() - 1), min(asked, sure)))
        return lowered, engines.footprint(served, gpu, workload, lowered)
    fewest = replace(settings, max_num_seqs=asked)
    last = engines.footprint(served, gpu, workload, fewest)
    if last.refusal and not last.may_start:
        return None
    starting = None
    for sequences in _halved(limit, asked):
        lowered = replace(settings, max_num_seqs=sequences)
        found = engines.footprint(served, gpu, workload, lowered)
        if judge(found, workload)[0] == "fits":
            return lowered, found
        if starting is None and not found.refusal and (found.startable_sequences or 0) >= sequences:
            starting = lowered, found
    return starting or (fewest, last)


def _halved(limit: int, asked: int) -> Iterator[int]:
    """Powers of two below the limit and above what is asked, the largest first; then what is asked."""
    power = 1 << max(limit - 1, 1).bit_length() - 1
    while asked < power < limit:
        yield power
        power >>= 1
    yield asked
