"""The best machine for every model and format over any number of offers: a hundred thousand in about a second.

Equal to planning each model and format over all offers one by one, only quicker, for four reasons:

- Offers of the same GPUs differ in price alone, so the cheapest of each number of each GPU stands for all.
- A GPU that cannot hold its share with the headroom is not one that `fits`. Its share is at least the weights and the
  cache of an undivided model on a reference GPU, over the number of GPUs, and the least that an engine takes besides.
- No machine is faster than its ceiling (`soong.speed.ceiling`), so none is better than the ceiling and its price say.
  Machines are judged in that order, and none that would only be worse than the best so far.
- Of a machine that does not fit the speed is not asked.

So nothing is left out that could be chosen: a machine is passed over where a bound says that it does not fit, that it
cannot reach the target, or that it stands behind one that will do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from soong.gpus.catalogue import all_gpus
from soong.models.catalogue import all_models
from soong.models.resolve import resolve
from soong.offers.sources import ALL
from soong.plan.bounds import Bounds, by_gpu
from soong.plan.candidates import ENGINE_OF_GGUF, Machine, is_supported, judged_if_it_fits
from soong.plan.machines import is_asked_for, machines_for, refuse_place
from soong.plan.planner import question_of
from soong.plan.ranking import NEVER, rank_key
from soong.speed.ceiling import Ceilings
from soong.tables import held

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from soong.memory.footprint import EngineSettings
    from soong.models.model import Format, Model
    from soong.offers.offer import Offer
    from soong.plan.bounds import OfOneGpu, Order
    from soong.plan.candidates import Question
    from soong.plan.plan import Candidate
    from soong.plan.request import Request


class Placed(NamedTuple):
    """One format of one model, and the machine to run it on; None where nothing will do."""

    model: str
    quantization: str
    repository: str
    context_tokens: int
    candidate: Candidate | None


def placed_everywhere(
    offers: Sequence[Offer], request: Request, models: Iterable[Model] | None = None
) -> tuple[Placed, ...]:
    """The best machine for each format of each model.

    Args:
        offers: machines for rent. request: what is asked of each; its model and format do not count.
        models: of the catalogue; all where None.

    Raises:
        NotFoundError: no prices of the cloud that is asked for.
    """
    with held():
        search = Search(cheapest_machines(offers, request))
        return tuple(
            _placed(search, request, model.id, row)
            for model in (all_models() if models is None else models)
            for row in model.formats
        )


def _placed(search: Search, request: Request, model: str, row: Format) -> Placed:
    question = _question(request, model, row)
    return _place(question, row, search.best(question))


def _place(question: Question, row: Format, candidate: Candidate | None) -> Placed:
    context_tokens = question.workload.context_tokens
    return Placed(question.request.model, row.quantization, row.repository, context_tokens, candidate)


def best_models(
    offers: Sequence[Offer], request: Request, most: int, *, own_first: bool = True
) -> tuple[Placed, ...]:
    """The catalogue's models that are best by the request's rank, each in the format that is; the best first.

    As the first of all that `placed_everywhere` finds, and sooner: models are placed in the order that they have at
    best, until the next is behind the last of those that were found.

    Args:
        offers, request: as for `placed_everywhere`. most: how many models. own_first: as for `Search`.

    Raises:
        NotFoundError: no prices of the cloud that is asked for.
    """
    with held():
        search = Search(cheapest_machines(offers, request), own_first=own_first)
        rows = [(model.id, row) for model in all_models() for row in model.formats]
        waiting = []
        for place, (model, row) in enumerate(rows):
            asked = search.asked(_question(request, model, row))
            if asked.at_best is not None:
                waiting.append((asked.at_best, place, row, asked))
        waiting.sort(key=lambda one: one[:2])
        best: dict[str, tuple[tuple[float, float, int], Placed]] = {}
        last = NEVER
        for at_best, place, row, asked in waiting:
            if at_best > last:
                break
            candidate = asked.best()
            if candidate is None:
                continue
            found = (*rank_key(candidate, request), place), _place(asked.question, row, candidate)
            known = best.get(found[1].model)
            if known is None or found[0] < known[0]:
                best[found[1].model] = found
                last = (
                    sorted(order[0] for order, _ in best.values())[most - 1] if len(best) >= most else NEVER
                )
    in_order = sorted(best.values(), key=lambda one: one[0])
    return tuple(placed for _, placed in in_order[:most])


def _question(request: Request, model: str, row: Format) -> Question:
    asked = msgspec.structs.replace(request, model=model, quantization=row.quantization)
    found = resolve(
        model,
        quantization=row.quantization,
        allow_network=False,
        for_llama_cpp=request.engine == ENGINE_OF_GGUF,
    )
    return question_of(asked, found)


def cheapest_machines(offers: Sequence[Offer], request: Request) -> tuple[Machine, ...]:
    """The cheapest machine of each number of each GPU, of those that soong rents and of the others; cheapest first.

    In the order of a plan: of machines that cost the same the one with fewer GPUs, then the one offered first.

    Raises:
        NotFoundError: no such GPU, or no prices of the cloud. UsageError: the options contradict each other.
    """
    if request.gpu is not None or request.gpu_memory_bytes is not None:
        return machines_for(request, offers, {})[0]
    best: dict[tuple[str, int, bool], tuple[float, int, int]] = {}
    wanted = [offer for offer in offers if is_asked_for(offer, request)] if _narrows(request) else offers
    for index, offer in enumerate(wanted):
        key, price = (offer.gpu, offer.gpu_count, offer.launchable), offer.usd_per_hour
        known = best.get(key)
        if known is None or price < known[0]:
            best[key] = price, offer.gpu_count, index
    if not wanted and (request.cloud or request.region):
        refuse_place(request, offers)
    gpus = {gpu.id: gpu for gpu in all_gpus()}
    most = NEVER if request.max_usd_per_hour is None else request.max_usd_per_hour
    in_order = sorted(found for found in best.values() if found[0] <= most)
    machines = ((wanted[index], count) for _, count, index in in_order)
    return tuple(Machine(gpus[offer.gpu], count, offer) for offer, count in machines if offer.gpu in gpus)


def _narrows(request: Request) -> bool:
    """Whether the request leaves out more than dear offers: a hundred thousand are not each asked for nothing."""
    split = (request.tensor_parallel or 1) * request.pipeline_parallel
    return request.cloud not in {None, ALL} or bool(request.region or request.gpu_count) or split > 1


def best_machine(question: Question, machines: Sequence[Machine]) -> Candidate | None:
    """The machine that a plan over these would recommend.

    Args:
        question: model, format and workload. machines: as `cheapest_machines` gives them.
    """
    return Search(machines).best(question)


class Search:
    """The best machine for one question after another, among the same machines.

    Args:
        machines: as `cheapest_machines` gives them.
        own_first: as a plan chooses, a machine that soong rents where one will do; else the best, whoever rents it.
    """

    def __init__(self, machines: Sequence[Machine], *, own_first: bool = True) -> None:
        placed = list(enumerate(machines))
        first = [one for one in placed if not own_first or _is_own(one[1])]
        self._own = by_gpu(first)
        self._elsewhere = by_gpu([one for one in placed if own_first and not _is_own(one[1])])
        self._ceilings: dict[EngineSettings, Ceilings] = {}

    def best(self, question: Question) -> Candidate | None:
        """The machine that a plan over all of them would recommend."""
        return self.asked(question).best()

    def asked(self, question: Question) -> Asked:
        """The search for one question, before it begins."""
        settings = question.settings_of(1)
        ceilings = self._ceilings.get(settings)
        if ceilings is None:
            ceilings = self._ceilings[settings] = Ceilings(settings)
        return Asked(Bounds(question, ceilings), self._own, self._elsewhere)


def _is_own(machine: Machine) -> bool:
    return machine.offer is None or machine.offer.launchable


class Asked:
    """The search for one question among machines of soong's own clouds, and elsewhere where none of these will do."""

    def __init__(self, bounds: Bounds, own: Sequence[OfOneGpu], elsewhere: Sequence[OfOneGpu]) -> None:
        self.question = bounds.question
        self._bounds, self._own, self._elsewhere = bounds, own, elsewhere
        self._will_not: set[tuple[str, int]] = set()

    @property
    def at_best(self) -> float | None:
        """What the rank compares, at best; None where nothing can do."""
        firsts = (self._bounds.waiting(groups) for groups in (self._own, self._elsewhere))
        return min((first[0][0][0] for first in firsts if first), default=None)

    def best(self) -> Candidate | None:
        """The machine that a plan over all of them would recommend: of those that soong rents, else of the others."""
        return self._best_of(self._own) or self._best_of(self._elsewhere)

    def _best_of(self, groups: Sequence[OfOneGpu]) -> Candidate | None:
        """Of the machines that will do the first in order.

        `at_best` is never behind a machine's true order: its figure comes from a ceiling, the rest is exact. So once
        it is behind the best that was found, that machine is too, and so are all that follow.
        """
        best: tuple[Order, Candidate] | None = None
        for at_best, machine in self._bounds.in_order(self._bounds.waiting(groups)):
            if best is not None and at_best >= best[0]:
                break
            candidate = self._judged(machine)
            if candidate is not None:
                order = (*rank_key(candidate, self.question.request), at_best[2])
                best = (order, candidate) if best is None or order < best[0] else best
        return best[1] if best else None

    def _judged(self, machine: Machine) -> Candidate | None:
        """The candidate that a machine is, where it will do; None where it will not."""
        kind = (machine.gpu.id, machine.gpu_count)
        if kind in self._will_not:
            return None
        supported = is_supported(self.question, machine)
        found = judged_if_it_fits(self.question, machine) if supported else None
        if found is None or not found.will_do:
            self._will_not.add(kind)
            return None
        return found
