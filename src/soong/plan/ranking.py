"""Which candidate is best: by price, by cost per token or by time; and which no other beats in price and speed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soong.plan.plan import Candidate
    from soong.plan.request import Request

NEVER = float("inf")


def ranked(candidates: Sequence[Candidate], request: Request) -> tuple[Candidate, ...]:
    """The candidates, best first by the request's rank; those that cannot be ranked follow in order of price.

    Args:
        candidates: in order of price, as machines are found.
    """
    if request.rank == "price":
        return tuple(candidates)
    return tuple(sorted(candidates, key=lambda candidate: rank_key(candidate, request)))


def rank_key(candidate: Candidate, request: Request) -> tuple[float, float]:
    """What the rank compares, smaller is better: dollars an hour, dollars a token or hours; then dollars an hour."""
    price = candidate.offer.usd_per_hour if candidate.offer else NEVER
    if request.rank == "price":
        return price, price
    if request.rank == "cost-per-token":
        cost = candidate.usd_per_million_output_tokens
        return (NEVER if cost is None else cost), price
    hours = candidate.hours_of_job(request)
    return (NEVER if hours is None else hours), price


def choice(candidates: Sequence[Candidate]) -> int | None:
    """The index of the recommended one: the first that will do and that soong can rent, else the first that will do.

    Args:
        candidates: best first, as `ranked` gives them.
    """
    elsewhere = None
    for index, candidate in enumerate(candidates):
        if candidate.will_do:
            if candidate.launchable:
                return index
            elsewhere = index if elsewhere is None else elsewhere
    return elsewhere


def front(candidates: Sequence[Candidate]) -> tuple[int, ...]:
    """The indices of those that no other beats: none is both as cheap an hour and as fast, and better in one.

    Only candidates that will do, with a price and a known speed (output tokens a second of all users together), are
    compared. What is on the front in price and speed is also all that can be cheapest per token, since cost per token
    is price over speed.

    Returns:
        Cheapest first.
    """
    compared: list[tuple[float, float, int]] = []
    for index, candidate in enumerate(candidates):
        offer, speed = candidate.offer, candidate.throughput
        if (
            speed is not None
            and offer is not None
            and candidate.verdict == "fits"
            and candidate.meets_target is not False
        ):
            compared.append((offer.usd_per_hour, -speed.decode_tokens_per_second, index))
    compared.sort()
    found: list[int] = []
    best = last_price = NEVER
    for price, slowness, index in compared:
        if slowness < best or (slowness == best and price == last_price):
            found.append(index)
            best, last_price = slowness, price
    return tuple(found)


def nearest(candidates: Sequence[Candidate]) -> Candidate | None:
    """What to show where none is recommended: of those that fit, which are too slow then, the fastest.

    Where none fits: the first that starts, else the one that lacks least.
    """
    slow = [one for one in candidates if one.verdict == "fits" and one.throughput]
    if slow:
        return max(slow, key=_rate)
    starting = next((one for one in candidates if one.starts), None)
    return starting or max((one for one in candidates if one.footprint), key=_spare_bytes, default=None)


def _rate(candidate: Candidate) -> float:
    return candidate.throughput.decode_tokens_per_second_per_user if candidate.throughput else 0.0


def _spare_bytes(candidate: Candidate) -> int:
    footprint = candidate.footprint
    return footprint.total_bytes - footprint.need_bytes if footprint else 0
