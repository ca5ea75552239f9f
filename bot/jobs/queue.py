"""Admission: is the provider being called at all, how many calls at once, and whose turn is next."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from bot.domain.errors import CircuitOpen, MemberBusy, NotStarted, QueueFull, Refused, Restarting
from bot.domain.models import Circuit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from datetime import datetime

    from bot.domain.models import Verdict

log = logging.getLogger(__name__)

_MINUTE = timedelta(minutes=1)

# How long a circuit stays open before one trial, first to last; empty: until the operator acts and restarts.
_INTERVALS: Mapping[Circuit, tuple[timedelta, ...]] = {
    Circuit.KEY: (),
    Circuit.MOVED: (),
    Circuit.BALANCE: (10 * _MINUTE, 60 * _MINUTE),
    Circuit.MAINTENANCE: (1 * _MINUTE, 2 * _MINUTE, 4 * _MINUTE, 8 * _MINUTE, 15 * _MINUTE),
    Circuit.FAILURES: (1 * _MINUTE, 2 * _MINUTE, 4 * _MINUTE, 8 * _MINUTE, 15 * _MINUTE),
}

# Too many failures: of the last calls within the span, at least so many and at least half.
_WATCHED_CALLS = 20
_WATCHED_SPAN = 2 * _MINUTE
_FAILURES = 5

_THROTTLE = timedelta(seconds=5)  # when a 429 does not say how long
_THROTTLE_MAX = timedelta(seconds=120)


@dataclass(slots=True)
class _Breaker:
    """One open circuit: closed again by a trial that works."""

    until: datetime | None
    failed_trials: int = 0
    trial: Place | None = None


@dataclass(slots=True, eq=False)
class Place:
    """One admitted request: first in line, then with a slot, until it leaves."""

    gate: Gate = field(repr=False)
    member: int
    _turn: asyncio.Future[None] = field(repr=False)
    gone: bool = False

    @property
    def position(self) -> int:
        """How many turns away: 0 when it is this one's turn."""
        return self.gate.position(self)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the turn and hold the slot; raises `NotStarted` when the gate closes first."""
        await self._turn
        try:
            yield
        finally:
            self.gate.give_back(self)

    def succeeded(self) -> None:
        """A call of this place worked."""
        self.gate.succeeded(self)

    def failed(self, verdict: Verdict, *, retry_after: timedelta | None = None) -> None:
        """A call of this place failed, which means `verdict`."""
        self.gate.failed(self, verdict, retry_after=retry_after)

    def send_away(self, why: Refused) -> bool:
        """End the waiting for `why`; False when it is over already."""
        return self.gate.send_away(self, why)

    def leave(self) -> None:
        """Give everything back; may be called more than once."""
        self.gate.forget(self)


class Gate:
    """Slots for provider calls, a fair queue before them, and the circuits that close it all."""

    def __init__(
        self,
        *,
        concurrency: int,
        length: int,
        per_member: int,
        clock: Callable[[], datetime],
        on_open: Callable[[Circuit, datetime | None], None],
    ) -> None:
        self._concurrency = concurrency
        self._limit = concurrency  # halved by 429, grown by success
        self._length = length
        self._per_member = per_member
        self._clock = clock
        self._on_open = on_open
        self._waiting: dict[int, deque[Place]] = {}  # by member, in the order of their next turns
        self._running: set[Place] = set()
        self._places: dict[int, int] = {}  # how many each member has
        self._breakers: dict[Circuit, _Breaker] = {}
        self._calls: deque[tuple[datetime, bool]] = deque(maxlen=_WATCHED_CALLS)
        self._waker: asyncio.TimerHandle | None = None  # while it stands, nothing starts
        self._closed = False

    # --- in and out ------------------------------------------------------------------------------------------------

    def enter(self, member: int) -> Place:
        """Take a place; raises `Restarting`, `CircuitOpen`, `MemberBusy`, `QueueFull`. Nothing waits here."""
        if self._closed:
            raise Restarting
        trials = self._circuits_to_try()
        if self._places.get(member, 0) >= self._per_member:
            raise MemberBusy(self._per_member)
        if self._free_slots() <= 0 and self.waiting >= self._length:
            raise QueueFull(self._length)
        place = Place(self, member, asyncio.get_running_loop().create_future())
        for breaker in trials:
            breaker.trial = place
        self._places[member] = self._places.get(member, 0) + 1
        self._waiting.setdefault(member, deque()).append(place)
        self._start_next()
        return place

    def position(self, place: Place) -> int:
        line = self._waiting.get(place.member)
        if line is None or place not in line:
            return 0
        ahead, seen_own = line.index(place), False
        total = ahead + 1
        for member, others in self._waiting.items():
            if member == place.member:
                seen_own = True
                continue
            total += min(len(others), ahead if seen_own else ahead + 1)
        return total

    def give_back(self, place: Place) -> None:
        self._running.discard(place)
        self._start_next()

    def forget(self, place: Place) -> None:
        self._running.discard(place)
        self._leave_line(place)
        if not place._turn.done():  # noqa: SLF001 - a place and its gate are one piece of work
            place._turn.cancel()  # noqa: SLF001
        for breaker in self._breakers.values():
            if breaker.trial is place:
                breaker.trial = None  # it left without a verdict: the next one may try
        if not place.gone:
            place.gone = True
            self._places[place.member] -= 1
            if not self._places[place.member]:
                del self._places[place.member]
        self._start_next()

    def send_away(self, place: Place, why: Refused) -> bool:
        if not self._leave_line(place):
            return False
        place._turn.set_exception(NotStarted(why))  # noqa: SLF001 - a place and its gate are one piece of work
        place._turn.exception()  # noqa: SLF001 - whoever waits hears of it; nobody may be waiting yet
        return True

    def _leave_line(self, place: Place) -> bool:
        line = self._waiting.get(place.member)
        if line is None or place not in line:
            return False
        line.remove(place)
        if not line:
            del self._waiting[place.member]
        return True

    def close(self) -> None:
        """Take nothing more, and send everybody away who has not started."""
        self._closed = True
        if self._waker is not None:
            self._waker.cancel()
        self._send_away(Restarting())

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def open_circuits(self) -> dict[Circuit, datetime | None]:
        return {circuit: breaker.until for circuit, breaker in self._breakers.items()}

    # --- what the calls taught -------------------------------------------------------------------------------------

    def succeeded(self, place: Place) -> None:
        """A call worked: close what this place was the trial of, and speed up again."""
        self._calls.append((self._clock(), True))
        self._limit = min(self._concurrency, self._limit + 1)
        for circuit in [name for name, breaker in self._breakers.items() if breaker.trial is place]:
            del self._breakers[circuit]
            self._calls.clear()
            log.info("circuit closed: %s", circuit)
        self._start_next()

    def failed(self, place: Place, verdict: Verdict, *, retry_after: timedelta | None = None) -> None:
        """A call failed: slow down or stop, as the verdict says."""
        if verdict.throttle:
            self._throttle(retry_after or _THROTTLE)
        if verdict.pause is not None:
            self._open(verdict.pause, place, retry_after or verdict.pause_for)
        if verdict.counts:
            self._calls.append((self._clock(), False))
            if self._failing() or self._trial_of(place, Circuit.FAILURES):
                self._open(Circuit.FAILURES, place, None)

    def _throttle(self, pause: timedelta) -> None:
        if self._waker is None:
            self._limit = max(1, self._limit // 2)  # once per pause: the calls of one burst say one thing
        else:
            self._waker.cancel()
        seconds = min(pause, _THROTTLE_MAX).total_seconds()
        self._waker = asyncio.get_running_loop().call_later(seconds, self._wake)

    def _failing(self) -> bool:
        since = self._clock() - _WATCHED_SPAN
        recent = [worked for at, worked in self._calls if at >= since]
        failures = recent.count(False)
        return failures >= _FAILURES and failures * 2 >= len(recent)

    def _trial_of(self, place: Place, circuit: Circuit) -> bool:
        breaker = self._breakers.get(circuit)
        return breaker is not None and breaker.trial is place

    def _open(self, circuit: Circuit, place: Place, pause: timedelta | None) -> None:
        breaker = self._breakers.get(circuit)
        if breaker is not None and breaker.trial is not place:
            return  # a call that was under way when it opened
        failed_trials = 0 if breaker is None else breaker.failed_trials + 1
        until = self._reopens(circuit, failed_trials, pause)
        self._breakers[circuit] = _Breaker(until, failed_trials)
        if breaker is None:
            self._on_open(circuit, until)
        self._send_away(CircuitOpen(circuit, until))

    def _reopens(self, circuit: Circuit, failed_trials: int, pause: timedelta | None) -> datetime | None:
        intervals = _INTERVALS[circuit]
        if not intervals:
            return None
        usual = intervals[min(failed_trials, len(intervals) - 1)]
        return self._clock() + (usual if pause is None else min(max(usual, pause), intervals[-1]))

    # --- the line --------------------------------------------------------------------------------------------------

    def _circuits_to_try(self) -> list[_Breaker]:
        """The circuits whose trial this request may be; raises `CircuitOpen` while one still holds."""
        now = self._clock()
        for circuit, breaker in self._breakers.items():
            if breaker.until is None or now < breaker.until or breaker.trial is not None:
                raise CircuitOpen(circuit, breaker.until)
        return list(self._breakers.values())

    def _free_slots(self) -> int:
        return 0 if self._waker is not None else self._limit - len(self._running)

    def _start_next(self) -> None:
        while self._waiting and self._free_slots() > 0:
            member, line = next(iter(self._waiting.items()))
            place = line.popleft()
            del self._waiting[member]
            if line:
                self._waiting[member] = line  # to the end: everybody else goes first
            self._running.add(place)
            place._turn.set_result(None)  # noqa: SLF001

    def _send_away(self, why: Refused) -> None:
        for line in self._waiting.values():
            for place in line:
                place._turn.set_exception(NotStarted(why))  # noqa: SLF001
                place._turn.exception()  # noqa: SLF001 - whoever waits hears of it; nobody may be waiting yet
        self._waiting.clear()

    def _wake(self) -> None:
        self._waker = None
        self._start_next()
