"""Start several machines as one: the intent of all is written before the first is asked for, and none is forgotten.

They share a group and the end of their lease. They are asked for one after the other, boot at the same time, and are
looked over in turn. Those that come are kept, unless all or none is wanted; each that lacks is told with its reason.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from soong.errors import NothingFitsError, SoongError
from soong.launch import asking, booting, budget, extending, groups, starting, stopping
from soong.launch.booting import TooShortError
from soong.launch.provider import LaunchRefusedError, LaunchUnclearError
from soong.lease.lease import SECONDS_PER_HOUR, new_id
from soong.lease.ledger import held

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from soong.launch.provider import Provider
    from soong.launch.starting import Candidate, Prober, Terms
    from soong.lease.lease import Lease
    from soong.lease.ledger import Ledger, Rental


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """How many machines, of which group.

    Attributes:
        numbers: of the replicas, from 1. all_or_nothing: fewer are ended again. lease: whose ends the new machines get;
            None for a group that begins now. is_capped: whether the money of the terms bounds extensions too.
    """

    group: str
    numbers: tuple[int, ...]
    all_or_nothing: bool = False
    lease: Lease | None = None
    is_capped: bool = True


class Started(NamedTuple):
    """rentals: the machines, ready. lacking: one sentence for each that is not there."""

    rentals: tuple[Rental, ...]
    lacking: tuple[str, ...] = ()


def start_all(
    provider: Provider,
    ledger: Ledger,
    candidates: Callable[[], Sequence[Candidate]],
    terms: Terms,
    prober: Prober,
    wanted: Wanted,
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> Started:
    """Rent as many machines as are wanted, or as can be had.

    Args:
        candidates: asked anew for each round, best first. terms: `name` is the group's; `max_usd` is for all together.
        prober: looks each new machine over. tell: hears each step.

    Raises:
        NothingFitsError: no room within the wait, or not for all where all or none is wanted; what came is ended.
        LaunchRefusedError, LaunchUnclearError, MachineUnfitError: as of one machine, where none came at all.
        OverBudgetError: what can be had would take a month over its cap.
        TooShortError: the group, or the money, ends before a machine could be used.
        StopNotConfirmedError: something that was to be ended could not be proved gone.
    """
    with ExitStack() as holds:
        run = _Run(provider, ledger, terms, prober, wanted, holds, tell)
        try:
            run.ask_for_all(candidates)
            _check_enough(run, len(run.granted))
            run.look_all_over()
            _check_enough(run, len(run.ready))
            run.align()
        except BaseException as leaving:
            run.end_all(starting.why_left(leaving))
            raise
    return Started(run.ready, tuple(run.lacking))


def _check_enough(run: _Run, came: int) -> None:
    """Raise where nothing came, or not all of it and that is not enough."""
    if not came:
        raise run.failure or NothingFitsError(
            "no machine came", why="; ".join(run.lacking), hints=("soong available",)
        )
    if run.lacking and run.wanted.all_or_nothing:
        raise NothingFitsError(
            f"only {came} of {len(run.wanted.numbers)} machines could be had",
            why="; ".join(run.lacking),
            hints=(
                "the same without `--all-or-nothing` keeps those that come",
                "the same with fewer `--replicas`",
                "soong available",
            ),
        )


class _Run:
    """One start of several machines. holds: keeps other commands from settling what this one works on."""

    def __init__(
        self,
        provider: Provider,
        ledger: Ledger,
        terms: Terms,
        prober: Prober,
        wanted: Wanted,
        holds: ExitStack,
        tell: Callable[[str], None],
    ) -> None:
        self.provider = provider
        self.ledger = ledger
        self.terms = terms
        self.prober = prober
        self.wanted = wanted
        self.tell = tell
        self.granted: list[Rental] = []
        self.ready: tuple[Rental, ...] = ()
        self.lacking: list[str] = []
        self.failure: SoongError | None = None
        self._holds = holds
        self._lease: Lease | None = None
        self._begun = provider.clock.now()
        self._written: list[str] = []
        self._called: set[str] = set()

    # --- asking -------------------------------------------------------------------------------------------------------

    def ask_for_all(self, candidates: Callable[[], Sequence[Candidate]]) -> None:
        """Rounds over what has room, until something came or the wait is over."""
        clock = self.provider.clock
        deadline = clock.now() + self.terms.wait_seconds
        tried = False
        while True:
            found = list(candidates())
            if found:
                tried = True
                self._round(found)
            if self.granted or (self.failure is not None and not _is_about_room(self.failure)):
                return
            if clock.now() + starting.CYCLE_SECONDS > deadline:
                raise self.failure or starting.no_room(int(tried))
            self.lacking.clear()
            self.tell("no room anywhere; looking again in a minute")
            clock.sleep(starting.CYCLE_SECONDS)

    def _round(self, found: list[Candidate]) -> None:
        """Ask for each machine in turn, of the best that still has room. found: gets shorter as rooms prove full."""
        if not self.granted:
            self._lease, self._begun = None, self.provider.clock.now()
        try:
            intents = self._intended(self.wanted.numbers, found[0])
        except budget.OverBudgetError as error:
            self.failure = self.failure or error
            return
        for place, intent in enumerate(intents):
            try:
                self._asked(intent, found)
            except (LaunchRefusedError, LaunchUnclearError, budget.OverBudgetError, TooShortError) as error:
                self.failure = self.failure or error
                self._never_asked(intent, str(error))
                self.lacking.append(f"{intent.name}: {error}")
                self._given_up(intents[place + 1 :], str(error))
                return
            if not found:
                self._given_up(intents[place + 1 :], "there is no room")
                return

    def _asked(self, intent: Rental, found: list[Candidate]) -> None:
        """One machine, of the first candidate that has room for it."""
        while found:
            candidate = found[0]
            left = len(self.wanted.numbers) - len(self.granted)
            intent = self._of_candidate(intent, candidate, left)
            self._check_long_enough(intent)
            self.tell(f"{intent.name}: asking for {candidate.instance_type} in {candidate.region}")
            try:
                self.granted.append(self._launched(intent))
            except LaunchRefusedError as refused:
                if refused.refusal not in starting.NEXT_CANDIDATE:
                    raise
                self.tell(f"{candidate.instance_type} in {candidate.region}: {refused.message}")
                found.pop(0)
                if found:
                    (intent,) = self._intended((intent.replica,), found[0])
            else:
                return
        self.lacking.append(f"{intent.name}: there is no room")

    def _check_long_enough(self, intent: Rental) -> None:
        """Raise, and close the intent, where the machine would be ended before it can be used."""
        left_seconds = intent.lease.remaining_seconds(self.provider.clock.now())
        if left_seconds >= booting.ready_seconds(intent.cloud, intent.gpu_count):
            return
        error = TooShortError(
            f"its lease would be over in {max(0.0, left_seconds):.0f} s, before it can be used",
            hints=("soong status",),
        )
        self._never_asked(intent, str(error))
        raise error

    def _launched(self, intent: Rental) -> Rental:
        now = self.provider.clock.now()
        intent = self.ledger.change(intent.id, "asking", now, asked_at=now)
        self._called.add(intent.id)
        rental = asking.call(
            self.provider,
            self.ledger,
            intent,
            ssh_key_name=self.terms.ssh_key_name,
            user_data=self.terms.user_data(intent.lease),
            filesystems=self.terms.filesystem_names,
        )
        self.tell(f"{rental.name}: {rental.instance_id} is booting")
        return rental

    def _intended(self, numbers: Sequence[int], candidate: Candidate) -> tuple[Rental, ...]:
        """The intents of these replicas, in the ledger, and held by this process."""
        self._check_goes_on()
        intents = tuple(self._intent(number, candidate) for number in numbers)
        for one in intents:
            self._holds.enter_context(held(one.id))
        with budget.alone(self.terms.monthly_usd, self.ledger):
            self._check_month(intents)
            self.ledger.add(*intents)
        self._written += [one.id for one in intents]
        return intents

    def _check_goes_on(self) -> None:
        """Make sure that a group which is to be joined has not been ended since that was asked for.

        Raises:
            StoppedElsewhereError: it has: nothing is launched for it.
        """
        if self.wanted.lease is None or groups.going_on(self.ledger.of_group(self.wanted.group)):
            return
        raise starting.StoppedElsewhereError(
            f"{self.terms.name} was ended meanwhile, so nothing joins it", hints=("soong status --history",)
        )

    def _check_month(self, intents: Sequence[Rental]) -> None:
        ids = {one.id for one in intents}
        others = [one for one in self.ledger.rentals() if one.id not in ids]
        spans = [budget.Span(one.asked_at, one.lease.ends_at, one.usd_per_hour) for one in intents]
        counted = budget.counted(others, self.provider.cloud)
        now, cloud = self.provider.clock.now(), self.provider.cloud
        budget.check(self.terms.monthly_usd, counted, spans, now, again=budget.FEWER_HOURS, cloud=cloud)

    def _intent(self, number: int, candidate: Candidate) -> Rental:
        share = _share(self.terms)
        one = starting.intent(self.provider, candidate, share)
        return msgspec.structs.replace(
            one,
            lease=self._leased(one.lease),
            name=f"{self.terms.name}-{number}",
            group=self.wanted.group,
            replica=number,
            max_usd=one.max_usd if self.wanted.is_capped else None,
        )

    def _leased(self, own: Lease) -> Lease:
        """The lease of one more machine: its own id and beginning, the group's ends."""
        if self._lease is None:
            self._lease = self.wanted.lease or own
        ends = {"ends_at": self._lease.ends_at, "first_ends_at": self._lease.ends_at}
        return msgspec.structs.replace(own, id=new_id(), cap_at=self._lease.cap_at, **ends)

    def _of_candidate(self, intent: Rental, candidate: Candidate, left: int) -> Rental:
        """The intent for this candidate, with no later end than the money for all allows.

        Args:
            left: how many are still to be asked for, this one included.
        """
        ends_at = self._end_for_money(candidate, left)
        if ends_at < intent.lease.ends_at:
            self._bring_forward(ends_at)
        same = (intent.instance_type, intent.region) == (candidate.instance_type, candidate.region)
        if same and intent.lease.ends_at <= ends_at:
            return intent
        lease = msgspec.structs.replace(
            intent.lease, ends_at=min(intent.lease.ends_at, ends_at), first_ends_at=ends_at
        )
        fields = {
            name: getattr(candidate, name) for name in candidate.__struct_fields__ if hasattr(intent, name)
        }
        moved = msgspec.structs.replace(intent, lease=lease, **fields)
        with budget.alone(self.terms.monthly_usd, self.ledger):
            self._check_month((moved,))
            now = self.provider.clock.now()
            return self.ledger.change(intent.id, "moved", now, lease=lease, **fields)

    def _end_for_money(self, candidate: Candidate, left: int) -> int:
        assert self._lease is not None  # noqa: S101 - set with the first intent
        if self.terms.max_usd is None:
            return self._lease.ends_at
        rate = sum(one.usd_per_hour for one in self.granted) + candidate.usd_per_hour * left
        seconds = self.terms.max_usd / rate * SECONDS_PER_HOUR
        return min(self._lease.ends_at, int(self._begun + seconds))

    def _bring_forward(self, ends_at: int) -> None:
        """A dearer machine joins: all end sooner, for no more money. First the others, then it is asked for."""
        assert self._lease is not None  # noqa: S101
        what = "the next is dearer: all end sooner" if self.granted else "it ends sooner than it could"
        self.tell(f"{what}, for no more money than was agreed")
        self._lease = msgspec.structs.replace(self._lease, ends_at=ends_at)
        self.granted = [
            extending.shorten(self.provider, self.ledger, one, ends_at=ends_at) for one in self.granted
        ]

    def _given_up(self, intents: Sequence[Rental], why: str) -> None:
        """Intents that were never asked for: certainly no machine."""
        for one in intents:
            self._never_asked(one, why)
            self.lacking.append(f"{one.name}: not asked for, since {why}")

    def _never_asked(self, intent: Rental, why: str) -> None:
        """Close an intent, unless it was asked for after all or is closed already."""
        if intent.id in self._called or not self.ledger.get(intent.id).is_open:
            return
        now = self.provider.clock.now()
        self.ledger.change(
            intent.id, "refused", now, detail={"why": why}, phase="refused", end_reason=why, ended_at=now
        )

    # --- looking over -------------------------------------------------------------------------------------------------

    def look_all_over(self) -> None:
        """Wait for each machine, and replace an unfit one once."""
        for rental in self.granted:
            ready: Rental | None
            try:
                ready = self._sound(rental)
            except starting.MachineUnfitError as unfit:
                self.tell(f"{rental.name}: {unfit}; it is gone, trying one more")
                ready = self._another(rental)
            except starting.StoppedElsewhereError as stopped:
                self.failure = self.failure or stopped
                self.lacking.append(f"{rental.name}: {stopped}")
                continue
            if ready is not None:
                self.ready = (*self.ready, ready)

    def _sound(self, rental: Rental) -> Rental:
        """The machine, once it works.

        Raises:
            MachineUnfitError: it does not; it is gone.
        """
        try:
            machine = self.prober.probe(rental, lambda step: self.tell(f"{rental.name}: {step}"))
        except starting.MachineUnfitError as unfit:
            starting.check_wanted(self.ledger, rental)
            self.tell(f"{rental.name}: {unfit}; ending it")
            stopping.stop(self.provider, self.ledger, rental, why=str(unfit), tell=self.tell)
            raise
        share = _share(self.terms)
        rental = starting.at_true_price(self.provider, self.ledger, rental, machine, share, self.tell)
        now = self.provider.clock.now()
        ready = self.ledger.change(
            rental.id, "ready", now, phase="ready", ready_at=now, address=machine.address
        )
        starting.check_wanted(self.ledger, ready)
        return ready

    def _another(self, unfit: Rental) -> Rental | None:
        """One more machine of the same kind, in the place of an unfit one; None where that fails as well."""
        candidate = starting.Candidate(
            instance_type=unfit.instance_type,
            region=unfit.region,
            gpu=unfit.gpu,
            gpu_count=unfit.gpu_count,
            usd_per_hour=unfit.usd_per_hour,
            engine_argv=unfit.engine_argv,
        )
        try:
            (intent,) = self._intended((unfit.replica,), candidate)
            self._check_long_enough(intent)
            return self._sound(self._launched(intent))
        except stopping.StopNotConfirmedError:
            raise
        except (
            LaunchRefusedError,
            LaunchUnclearError,
            budget.OverBudgetError,
            starting.MachineUnfitError,
            starting.StoppedElsewhereError,
            TooShortError,
        ) as error:
            self.failure = self.failure or error
            self.lacking.append(f"{unfit.name}: {error}")
            return None

    def align(self) -> None:
        """One end for all, within the money for all: what an unfit machine has cost, and a true price, count too."""
        ends_at = min(one.lease.ends_at for one in self.ready)
        rate = sum(one.usd_per_hour for one in self.ready)
        left_usd = None
        if self.terms.max_usd is not None and rate:
            mine = {one.id for one in self.ready}
            now = self.provider.clock.now()
            gone = sum(self.ledger.get(one).cost_usd(now) for one in self._written if one not in mine)
            left_usd = max(0.0, self.terms.max_usd - gone)
            begun = sum(one.asked_at * one.usd_per_hour for one in self.ready) / rate
            fits = begun + left_usd / rate * SECONDS_PER_HOUR
            ends_at = min(ends_at, int(fits) if fits < ends_at - 1 else ends_at)
        self.ready = tuple(self._aligned(one, ends_at, rate, left_usd) for one in self.ready)

    def _aligned(self, rental: Rental, ends_at: int, rate: float, left_usd: float | None) -> Rental:
        """The rental with the common end, and its part of the money, which an extension may not pass.

        Args:
            rate: dollars an hour of all. left_usd: what those that are gone have left of the money; None for no limit.
        """
        if rental.lease.ends_at > ends_at:
            self.tell(f"{rental.name}: ends with the others")
            rental = extending.shorten(self.provider, self.ledger, rental, ends_at=ends_at)
        if left_usd is None or not self.wanted.is_capped:
            return rental
        share = left_usd * rental.usd_per_hour / rate
        return self.ledger.change(rental.id, "share", self.provider.clock.now(), max_usd=share)

    # --- leaving ------------------------------------------------------------------------------------------------------

    def end_all(self, why: str) -> None:
        """End everything that this start has launched: first ask for the end of each, then prove it.

        Raises:
            SoongError: one could not be proved gone; the guardian goes on.
        """
        written = [one for one in map(self.ledger.get, self._written) if one.is_open]
        self._given_up([one for one in written if one.id not in self._called], why)
        rentals = [one for one in written if one.id in self._called]
        if not rentals:
            return
        self.tell(f"{why}: ending {len(rentals)} machines; Ctrl-C again leaves that to the guardian")
        stopping.stop_all(self.provider, self.ledger, rentals, why=why, tell=self.tell)
        self.tell("they are gone")


def _share(terms: Terms) -> Terms:
    """The terms of one machine: each has the same part of the money."""
    most = terms.max_usd / terms.count if terms.max_usd is not None else None
    return msgspec.structs.replace(terms, max_usd=most, count=1)


def _is_about_room(error: SoongError) -> bool:
    return isinstance(error, LaunchRefusedError) and error.refusal in starting.NEXT_CANDIDATE
