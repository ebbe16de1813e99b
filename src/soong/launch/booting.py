"""How long a machine takes until it can be used, and the refusal of leases that are over before that."""

from __future__ import annotations

import math

from soong import units
from soong.errors import UsageError
from soong.lease.lease import SECONDS_PER_HOUR

USUAL_SECONDS = {1: 300.0, 8: 1500.0}
"""From the launch to an address, by number of GPUs: Lambda says 3 to 5 minutes for one, 25 minutes were seen for eight
H100 (dstackai/dstack#2342). Of two and four nothing is published: they take no less than one."""
READY_SECONDS = 120.0
"""From the address to a machine that was looked over, in whole minutes: `active` came up to 62 s before a usable SSH,
the list is asked each 5 s, and the GPU up to three times, 20 s apart (`soong.connect.probing`)."""
USE_SECONDS = 360.0
"""The least use that is worth advising: the tenth of an hour under which `soong.launch.budget` suggests nothing."""
RUNS_ALREADY = "local"
"""This computer, as a cloud."""


class TooShortError(UsageError):
    """A lease that would be over before its machine can be used, so that nothing was asked for."""

    code = "too-short"


def usual_seconds(cloud: str, gpu_count: int) -> float:
    """How long such a machine usually boots; of sizes that nobody has published, the next smaller one's time.

    >>> usual_seconds("lambda", 1), usual_seconds("lambda", 4), usual_seconds("lambda", 8), usual_seconds("local", 1)
    (300.0, 300.0, 1500.0, 0.0)
    """
    if cloud == RUNS_ALREADY:
        return 0.0
    return max(seconds for size, seconds in USUAL_SECONDS.items() if size <= max(gpu_count, 1))


def ready_seconds(cloud: str, gpu_count: int) -> float:
    """How long it usually takes until such a machine is up and was looked over: a shorter lease buys nothing.

    >>> ready_seconds("lambda", 1), ready_seconds("local", 1)
    (420.0, 0.0)
    """
    return 0.0 if cloud == RUNS_ALREADY else usual_seconds(cloud, gpu_count) + READY_SECONDS


def least_words(seconds: float, usd_per_hour: float) -> str:
    """The least lease of so many seconds as a person asks for it: by time, and by the money that buys it.

    >>> least_words(300.0, 1.09)
    '`--hours 5m` (`--max-cost 0.10`)'
    """
    hours = math.ceil(seconds / 60) / 60
    usd = math.ceil(round(hours * usd_per_hour * 100, 6)) / 100
    return f"`--hours {units.format_hours(hours)}` (`--max-cost {usd:.2f}`)"


def check(
    cloud: str, hours: float, gpu_count: int, usd_per_hour: float, *, serving_seconds: float = 0.0
) -> None:
    """Make sure that a lease of these hours lasts until the machine is usually up and looked over.

    Args:
        usd_per_hour: of all machines of the lease together.
        serving_seconds: how long it may take after that until the model answers; 0 where nothing is served.

    Raises:
        TooShortError: it does not; tells the least that makes sense, which leaves some time to use it.
    """
    ready, seconds = ready_seconds(cloud, gpu_count), hours * SECONDS_PER_HOUR
    if seconds >= ready - 1e-6:
        return
    least = least_words(ready + USE_SECONDS, usd_per_hour)
    served = least_words(ready + serving_seconds + USE_SECONDS, usd_per_hour)
    raise TooShortError(
        f"a lease of {_length(seconds)} would be over before the machine can be used",
        why=_boot_words(gpu_count, usual_seconds(cloud, gpu_count)),
        hints=(
            f"to serve a model, on a slow line too, the least that makes sense is {served}",
            f"for the machine alone (`--no-serve`) it is {least}",
        )
        if serving_seconds
        else (f"the least that makes sense is {least}",),
    )


def hurried(cloud: str, hours: float, gpu_count: int, usd_per_hour: float) -> str:
    """What a lease says that lasts until the machine is up and leaves next to no time to use it; else nothing.

    Args:
        usd_per_hour: of all machines of the lease together.

    >>> hurried("lambda", 0.15, 1, 1.09)
    'of 9 min, 7 pass before the machine can be used; the least that makes sense is `--hours 13m` (`--max-cost 0.24`)'
    >>> hurried("lambda", 0.25, 1, 1.09), hurried("local", 0.01, 1, 0.0)
    ('', '')
    """
    ready, seconds = ready_seconds(cloud, gpu_count), hours * SECONDS_PER_HOUR
    if cloud == RUNS_ALREADY or seconds >= ready + USE_SECONDS - 1e-6:
        return ""
    least = least_words(ready + USE_SECONDS, usd_per_hour)
    return (
        f"of {_length(seconds + 1e-6)}, {ready / 60:.0f} pass before the machine can be used; "
        f"the least that makes sense is {least}"
    )


def _length(seconds: float) -> str:
    """A length that is too short, rounded down: it must not read as long as what it falls short of.

    >>> _length(59.9), _length(419.9)
    ('59 s', '6 min')
    """
    return f"{math.floor(seconds)} s" if seconds < 120 else f"{math.floor(seconds / 60)} min"


def _boot_words(gpu_count: int, boot: float) -> str:
    """How long it boots, as published for this size, or no less than what is published for a smaller one; and more."""
    size = f"a machine of {gpu_count} GPU{'s' * (gpu_count != 1)}"
    usually = "usually takes" if max(gpu_count, 1) in USUAL_SECONDS else "takes no less than"
    return (
        f"{size} {usually} {boot / 60:.0f} min to boot, "
        f"and up to {READY_SECONDS / 60:.0f} min more until SSH and its GPU answer"
    )
