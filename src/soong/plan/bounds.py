"""What can be said of machines for one question before any of them is judged.

Two bounds, each of them safe: a machine whose GPUs cannot hold the least share with the headroom does not `fit`; none
is faster than its ceiling (`soong.speed.ceiling`), so none has a better place in a rank than ceiling and price say.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from soong.gpus.catalogue import find_gpu
from soong.memory import engines
from soong.memory.rule_of_thumb import HEADROOM_FACTOR
from soong.plan.plan import SECONDS_PER_HOUR
from soong.plan.ranking import NEVER
from soong.speed.ceiling import Ceiling, asked_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from soong.gpus.gpu import Gpu
    from soong.memory.footprint import Footprint, ServedModel
    from soong.plan.candidates import Machine, Question
    from soong.speed.ceiling import Asked, Ceilings

REFERENCE_GPU = "h100-80gb-sxm5"
LEAST_WEIGHTS = 0.99
LEAST_CACHE = 0.5
LEAST_BESIDES_BYTES = 512 << 20
"""What any GPU holds at the least: of the reference's weights and cache over the number of GPUs (splits never hold
less than their part; sparse latent attention is kept in half the bytes on Blackwell), and beside them for driver,
runtime and activations. A test holds the three against models, formats and GPUs of the tables."""

Order = tuple[float, float, int]
"""The smaller the better: the figure of the rank, dollars an hour, and the place among machines in order of price."""

Waiting = tuple[Order, bool, "Machine", int]
"""A machine with the order that it has at best, whether by a first look, and how many GPUs divide a layer."""


class OfOneGpu:
    """All machines with one kind of GPU, in order of price: dollars an hour, place and number of GPUs of each."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.machines: list[tuple[float, int, int, Machine]] = []
        self.most_gpus = 1

    def add(self, place: int, machine: Machine) -> None:
        """One more of them."""
        price = machine.offer.usd_per_hour if machine.offer else NEVER
        self.machines.append((price, place, machine.gpu_count, machine))
        self.most_gpus = max(self.most_gpus, machine.gpu_count)


def by_gpu(machines: Sequence[tuple[int, Machine]]) -> tuple[OfOneGpu, ...]:
    """Machines, each with its place, sorted by what is the same for many of them."""
    found: dict[str, OfOneGpu] = {}
    for place, machine in machines:
        gpu = machine.gpu
        if gpu.id not in found:
            found[gpu.id] = OfOneGpu(gpu)
        found[gpu.id].add(place, machine)
    return tuple(found.values())


class Bounds:
    """The bounds of one question.

    Args:
        question: model, format and workload. ceilings: of its engine.
    """

    def __init__(self, question: Question, ceilings: Ceilings) -> None:
        self.question, self.request = question, question.request
        self._ceilings = ceilings
        self._asked: Asked | None = None
        self._least_bytes = 0.0
        self._has_target = self.request.target_tokens_per_second is not None
        self._by_price = self.request.rank == "price"
        self._of_gpus: dict[str, Ceiling | None] = {}
        self._shares: dict[int, tuple[int, float]] = {}
        if question.served is not None:
            whole = _whole(question, question.served)
            self._least_bytes = _least(whole)
            if self._has_target or not self._by_price:
                self._asked = _asked(question, question.served, whole.tensor_bytes * LEAST_WEIGHTS)

    def waiting(self, groups: Sequence[OfOneGpu]) -> list[Waiting]:
        """The machines that may do, a heap by the order that each has at best."""
        waiting = [one for group in groups for one in self._in_reach(group)]
        heapify(waiting)
        return waiting

    def in_order(self, waiting: list[Waiting]) -> Iterator[tuple[Order, Machine]]:
        """The machines that may do, each with the order that it has at best; the best first.

        Whichever comes to the front by a first look is looked at again, and waits by that.
        """
        while waiting:
            order, is_rough, machine, parallel = heappop(waiting)
            if not is_rough:
                yield order, machine
                continue
            figure = self._looked_at_again(machine.gpu, parallel, order)
            if figure is not None:
                heappush(waiting, ((figure, *order[1:]), False, machine, parallel))

    def _in_reach(self, group: OfOneGpu) -> Iterator[Waiting]:
        """The machines whose GPUs could hold their share with the headroom, at a first look."""
        gpu = group.gpu
        ceiling: Ceiling | None = None
        for price, place, gpu_count, machine in group.machines:
            parallel, least_bytes = self._share(gpu_count)
            if least_bytes > gpu.memory_bytes:
                continue
            if self._by_price:
                yield (price, price, place), self._has_target, machine, parallel
                continue
            ceiling = ceiling or self.ceiling(gpu, group.most_gpus)
            if ceiling is not None:
                yield (self._figure(ceiling.roughly(parallel), price), price, place), True, machine, parallel
            elif not self._has_target:  # its speed is not known, so that it is ranked last
                yield (NEVER, price, place), False, machine, parallel

    def _share(self, gpu_count: int) -> tuple[int, float]:
        """How many of so many GPUs divide a layer, and what each must have at the least."""
        found = self._shares.get(gpu_count)
        if found is None:
            question, served = self.question, self.question.served
            parallel = max(question.split_of(served, gpu_count).parallel, 1) if served else gpu_count
            parts = parallel * (self.request.pipeline_parallel if served else 1)
            needed = (self._least_bytes / parts + LEAST_BESIDES_BYTES) * HEADROOM_FACTOR
            found = self._shares[gpu_count] = parallel, needed
        return found

    def _looked_at_again(self, gpu: Gpu, parallel: int, order: Order) -> float | None:
        """The figure of a machine at best; None where it cannot reach the target."""
        ceiling = self.ceiling(gpu, parallel)
        fastest = ceiling.tokens_per_second(parallel) if ceiling else 0.0
        if not fastest:
            return None
        return order[0] if self._by_price else self._figure(fastest, order[1])

    def _figure(self, tokens_per_second: float, usd_per_hour: float) -> float:
        """What `ranking.rank_key` compares, at this speed."""
        hours = 1 / (tokens_per_second * SECONDS_PER_HOUR)
        if self.request.rank == "time":
            return (self.request.job_of(self.question.load) or 1) * hours
        return usd_per_hour * hours * 1e6

    def ceiling(self, gpu: Gpu, most_parallel: int) -> Ceiling | None:
        """Of one GPU; None where no speed is asked for, or none is known."""
        if gpu.id not in self._of_gpus:
            known = self._ceilings.of(gpu) if self._asked else None
            ceiling = Ceiling(self._asked, known, most_parallel) if self._asked and known else None
            self._of_gpus[gpu.id] = ceiling
        return self._of_gpus[gpu.id]


def _asked(question: Question, served: ServedModel, least_weights_bytes: float) -> Asked:
    request, load = question.request, question.load
    most = load.requests if request.searches_batch else load.sequences
    if load.requests:
        most = min(most, load.requests)
    return asked_of(
        served,
        load,
        question.settings_of(1),
        kv_dtype=request.kv_dtype,
        least_weights_bytes=least_weights_bytes,
        most=most,
        target_tokens_per_second=request.target_tokens_per_second,
        told=question.workload.sequences if request.max_num_seqs is None else 0,
    )


def least_bytes(question: Question) -> float:
    """What all GPUs together hold of weights and cache at the least; 0 where only the model's size is known."""
    return 0.0 if question.served is None else _least(_whole(question, question.served))


def _least(whole: Footprint) -> float:
    return whole.tensor_bytes * LEAST_WEIGHTS + whole.workload_kv_bytes * LEAST_CACHE


def _whole(question: Question, served: ServedModel) -> Footprint:
    """The undivided model on a reference GPU."""
    return engines.footprint(served, find_gpu(REFERENCE_GPU), question.workload, question.settings_of(1))
