"""Price against speed: every machine that serves the model, and the front of those that no other beats in both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from soong import units
from soong.errors import NothingFitsError
from soong.pictures.subject import machine_name, nearest_words, requests_words
from soong.plan.ranking import nearest

if TYPE_CHECKING:
    from soong.plan.plan import Candidate, Plan


class Dot(msgspec.Struct, frozen=True, kw_only=True):
    """One machine.

    Attributes:
        name: `1× A10, lambda`, with the cloud where there are several. usd_per_hour: of the whole machine.
        tokens_per_second: output tokens of all users together; low and high: the range it is expected in.
        per_user_tokens_per_second: what one of them sees while an answer streams. sequences: at once.
        usd_per_million: output tokens. on_front: none is both as cheap and as fast. chosen: the recommended one.
        shown: that one, or the one that the plan shows where none is recommended.
        launchable: soong rents it itself; else it is a price only.
    """

    name: str
    usd_per_hour: float
    tokens_per_second: float
    low: float
    high: float
    per_user_tokens_per_second: float
    sequences: int
    usd_per_million: float
    on_front: bool
    chosen: bool
    shown: bool
    launchable: bool

    @property
    def each_words(self) -> str:
        """`31 tokens/s`: what each user sees, in the figures of the plan's table."""
        return f"{units.format_rate(self.per_user_tokens_per_second)} tokens/s"

    @property
    def cost_words(self) -> str:
        """`$0.28`: of a million output tokens, in the figures of the plan's table."""
        return f"${units.format_dollars(self.usd_per_million)}"


class SpeedView(msgspec.Struct, frozen=True, kw_only=True):
    """The dots, cheapest first.

    load: what their speed is for. basis: what it rests on. shown_is: what the one is that is named first.
    """

    dots: tuple[Dot, ...]
    load: str
    basis: str
    shown_is: str

    @property
    def note(self) -> str:
        """For the foot of the picture: what the speeds rest on."""
        return f"Speeds: {self.basis}"

    @property
    def front(self) -> tuple[Dot, ...]:
        """Those that no other beats, cheapest first."""
        return tuple(dot for dot in self.dots if dot.on_front)

    @property
    def to_name(self) -> tuple[Dot, ...]:
        """Those that must not be without a name: the shown one, then the front.

        Where nothing will do there is no front; those that no other beats stand for it.
        """
        shown = [dot for dot in self.dots if dot.shown]
        front = self.front or [dot for dot in self.dots if not any(_beats(other, dot) for other in self.dots)]
        return (*shown, *(dot for dot in front if not dot.shown))


def _beats(one: Dot, other: Dot) -> bool:
    as_cheap, faster = one.usd_per_hour <= other.usd_per_hour, one.tokens_per_second > other.tokens_per_second
    cheaper, as_fast = one.usd_per_hour < other.usd_per_hour, one.tokens_per_second >= other.tokens_per_second
    return (as_cheap and faster) or (cheaper and as_fast)


def speed_view(plan: Plan) -> SpeedView:
    """The price-against-speed picture of a plan.

    Raises:
        NothingFitsError: no machine has both a price and a known speed.
    """
    shown = [
        (index, one)
        for index, one in enumerate(plan.candidates)
        if one.starts and one.offer is not None and one.offer.usd_per_hour > 0 and one.throughput is not None
    ]
    if not shown:
        raise NothingFitsError(
            f"there is no machine with a price and a known speed for {plan.model.id}",
            hints=(
                f"soong plan {plan.request.model}",
                f"soong plan {plan.request.model} --plot --picture memory",
            ),
        )
    front, named = set(plan.front), plan.chosen or nearest(plan.candidates)
    several = len({one.offer.cloud for _, one in shown if one.offer}) > 1
    dots = [
        _dot(one, several=several, on_front=index in front, chosen=one is plan.chosen, shown=one is named)
        for index, one in shown
    ]
    bases = dict.fromkeys(one.throughput.basis for _, one in shown if one.throughput)
    return SpeedView(
        dots=tuple(sorted(dict.fromkeys(dots), key=lambda dot: (dot.usd_per_hour, -dot.tokens_per_second))),
        load=_load_words(plan),
        basis=next(iter(bases))
        if len(bases) == 1
        else "a roofline of each GPU; --json tells what each speed rests on",
        shown_is="recommended" if plan.chosen is not None else nearest_words(plan),
    )


def _dot(candidate: Candidate, *, several: bool, on_front: bool, chosen: bool, shown: bool) -> Dot:
    speed, offer = candidate.throughput, candidate.offer
    assert speed is not None  # noqa: S101 - chosen so by `speed_view`
    assert offer is not None  # noqa: S101 - the same
    total = speed.decode_tokens_per_second
    return Dot(
        name=machine_name(candidate, with_cloud=several),
        usd_per_hour=offer.usd_per_hour,
        tokens_per_second=total,
        low=total * speed.low_factor,
        high=total * speed.high_factor,
        per_user_tokens_per_second=speed.decode_tokens_per_second_per_user,
        sequences=speed.load.sequences,
        usd_per_million=candidate.usd_per_million_output_tokens or offer.usd_per_hour / (total * 3600) * 1e6,
        on_front=on_front,
        chosen=chosen,
        shown=shown,
        launchable=candidate.launchable,
    )


def _load_words(plan: Plan) -> str:
    """What the speeds are for: `one sequence, 1,024 tokens in and 1,024 out`; a searched batch with its size."""
    request, load = plan.request, plan.load
    lengths = requests_words(load)
    if not request.searches_batch:
        many = "one sequence" if load.sequences == 1 else f"{load.sequences:,} sequences at once"
        return f"{many}, {lengths}"
    shown = plan.chosen or nearest(plan.candidates)
    batch = (
        f" ({shown.throughput.load.sequences:,} on {machine_name(shown)})"
        if shown and shown.throughput
        else ""
    )
    target = request.target_tokens_per_second
    if target is not None:
        return f"the largest batch with {target:g} tokens/s for each user{batch}, {lengths}"
    many = "as many at once as will do" if load.requests else "the largest batch that will do"
    return f"{many}{batch}, {lengths}"
