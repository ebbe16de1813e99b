"""Which machines a request is about: all for rent that it does not leave out, or the one that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong.errors import NotFoundError, UsageError
from soong.gpus.catalogue import all_gpus, find_gpu
from soong.gpus.gpu import Gpu
from soong.offers.sources import ALL, known_clouds, means
from soong.plan.candidates import Machine
from soong.plan.plan import LeftOut

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from soong.offers.offer import Offer
    from soong.plan.request import Request


def machines_for(request: Request, offers: Sequence[Offer], own: dict[str, Gpu]) -> Choice:
    """The machines of a request in order of price, and the GPUs that no machine stands for.

    Args:
        own: GPUs that come before those of the tables, by id.

    Raises:
        NotFoundError: no such GPU or cloud. UsageError: the options contradict each other.
    """
    if request.gpu is not None or request.gpu_memory_bytes is not None:
        return (_named_machine(request, offers, own),), ()
    if own:
        table = [*own.values(), *(gpu for gpu in all_gpus() if gpu.id not in own)]
        return _choose(request, offers, table)
    key = (
        request.cloud, request.region, request.gpu_count, request.max_usd_per_hour,
        request.tensor_parallel, request.pipeline_parallel,
    )  # fmt: skip
    gpus = all_gpus()
    kept = _chosen.of(offers, gpus)
    found = kept.get(key)
    if found is None:
        found = kept[key] = _choose(request, offers, gpus)
    return found


Choice = tuple[tuple[Machine, ...], tuple[LeftOut, ...]]


class _Chosen:
    """Machines by what decides them, of the tables last seen: a batch asks for the same ones thousands of times."""

    def __init__(self) -> None:
        self._offers: Sequence[Offer] = ()
        self._gpus: Sequence[Gpu] = ()
        self._found: dict[tuple[object, ...], Choice] = {}

    def of(self, offers: Sequence[Offer], gpus: Sequence[Gpu]) -> dict[tuple[object, ...], Choice]:
        """What was found in these very tables; an empty store for others, and for a list, which may change."""
        same = self._offers is offers and self._gpus is gpus and isinstance(offers, tuple)
        if not same or len(self._found) >= MOST_CHOICES:
            self._offers, self._gpus, self._found = offers, gpus, {}
        return self._found


MOST_CHOICES = 256
_chosen = _Chosen()


def _choose(request: Request, offers: Sequence[Offer], table: Sequence[Gpu]) -> Choice:
    wanted = [offer for offer in offers if is_asked_for(offer, request)]
    if not wanted and (request.cloud or request.region):
        refuse_place(request, offers)
    gpus = {gpu.id: gpu for gpu in table}
    machines = [Machine(gpus[offer.gpu], offer.gpu_count, offer) for offer in wanted if offer.gpu in gpus]
    machines.sort(
        key=lambda machine: (machine.offer.usd_per_hour if machine.offer else 0.0, machine.gpu_count)
    )
    return tuple(machines), tuple(_without_row(offers, wanted, request, table))


def is_asked_for(offer: Offer, request: Request) -> bool:
    """Whether a request leaves an offer in."""
    return (
        means(request.cloud, offer.cloud)
        and (request.region is None or offer.region in {None, request.region})
        and (request.gpu_count is None or offer.gpu_count == request.gpu_count)
        and (request.max_usd_per_hour is None or offer.usd_per_hour <= request.max_usd_per_hour)
        and (request.tensor_parallel or 1) * request.pipeline_parallel <= offer.gpu_count
    )


def refuse_place(request: Request, offers: Sequence[Offer]) -> None:
    """Refuse a cloud that nobody knows, where nothing is left of the offers.

    Raises:
        NotFoundError: no prices of the cloud that is asked for.
    """
    clouds = {offer.cloud for offer in offers}
    if request.cloud not in {None, ALL, *clouds}:
        known = ", ".join(sorted({*clouds, *known_clouds()}))
        raise NotFoundError(
            f"no prices of a cloud `{request.cloud}`",
            hints=(f"known clouds: {known}, or all of them: all", "soong offers --refresh"),
        )


def _without_row(
    offers: Sequence[Offer], wanted: Sequence[Offer], request: Request, table: Sequence[Gpu]
) -> Iterator[LeftOut]:
    """The GPUs that no candidate stands for, each with the reason."""
    priced = {offer.gpu for offer in offers}
    shown = {offer.gpu for offer in wanted}
    for gpu in table:
        if gpu.id not in priced:
            yield LeftOut(gpu.id, "no price")
        elif gpu.id not in shown:
            yield LeftOut(gpu.id, _why_filtered(request))


def _why_filtered(request: Request) -> str:
    if request.max_usd_per_hour is not None:
        return f"dearer than ${request.max_usd_per_hour:.2f}/hour, or left out by another option"
    return "left out by the options given"


def _named_machine(request: Request, offers: Sequence[Offer], own: dict[str, Gpu]) -> Machine:
    """The one machine that `--gpu` or `--gpu-memory` names."""
    parts, note = request.tensor_parallel or 1, ""
    offer = next((offer for offer in offers if offer.instance_type == request.gpu), None)
    if offer is not None:
        gpu = own.get(offer.gpu) or find_gpu(offer.gpu)
        count = request.gpu_count or offer.gpu_count
    else:
        gpu, note = (own[request.gpu], "") if request.gpu in own else _gpu_of(request)
        gpu = own.get(gpu.id, gpu)
        count = request.gpu_count or parts * request.pipeline_parallel
        offer = _cheapest_offer(offers, gpu.id, count, request)
    if request.gpu_memory_bytes is not None:
        gpu = msgspec.structs.replace(gpu, memory_bytes=request.gpu_memory_bytes)
        offer = None
    if parts * request.pipeline_parallel > count:
        split = f"`--tensor-parallel` {parts} × `--pipeline-parallel` {request.pipeline_parallel}"
        raise UsageError(
            f"{split} needs more than {count} GPUs",
            hints=(f"--gpu-count {parts * request.pipeline_parallel}",),
        )
    if offer is not None and offer.gpu_count != count:
        offer = _cheapest_offer(offers, gpu.id, count, request)
    return Machine(gpu, count, offer, note)


def _gpu_of(request: Request) -> tuple[Gpu, str]:
    """The GPU that was named, and a remark where its name stands for several: the smallest is the safe one."""
    word = request.gpu or ""
    try:
        return find_gpu(word, memory_bytes=request.gpu_memory_bytes), ""
    except NotFoundError as unknown:
        if request.gpu_memory_bytes is not None:
            return unknown_gpu(word or "gpu", request.gpu_memory_bytes), ""
        try:
            smallest = find_gpu(word, memory_bytes=1)
        except NotFoundError:
            raise unknown from None
        return (
            smallest,
            f"`{word}` is the name of several GPUs; taken as {smallest.id}, the one with least memory",
        )


def unknown_gpu(name: str, memory_bytes: int) -> Gpu:
    """A card that soong lacks, of which only the memory is known (a MIG slice, a new model)."""
    return Gpu(
        id=name,
        name=name,
        vendor="unknown",
        label_gb=round(memory_bytes / GB),
        memory_bytes=memory_bytes,
        bandwidth_bytes_per_second=0,
        dense_flops={},
        compute_capability=None,
        native_formats=(),
        interconnect="unknown",
        source="--gpu-memory",
        as_of="",
    )


GB = 10**9


def _cheapest_offer(offers: Sequence[Offer], gpu: str, count: int, request: Request) -> Offer | None:
    fitting = [
        offer
        for offer in offers
        if offer.gpu == gpu and offer.gpu_count == count and means(request.cloud, offer.cloud)
    ]
    return min(fitting, key=lambda offer: offer.usd_per_hour, default=None)
