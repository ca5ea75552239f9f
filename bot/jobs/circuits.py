"""The circuit breakers: while one is open, no calls are sent to the provider; one trial call closes it again."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from bot.domain.errors import CircuitOpen
from bot.domain.models import Circuit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from bot.domain.models import FailurePolicy

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


@dataclass(slots=True)
class Breaker:
    """One open circuit. `trial` is the caller whose call decides; any object will do."""

    until: datetime | None
    failed_trials: int = 0
    trial: object | None = None


class Circuits:
    """`on_open` is told of every circuit that opens, and when its first trial is allowed, if ever; `on_close` of every
    one that closes.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], datetime],
        on_open: Callable[[Circuit, datetime | None], None] = lambda *_: None,
        on_close: Callable[[Circuit], None] = lambda _: None,
    ) -> None:
        self._clock = clock
        self._on_open = on_open
        self._on_close = on_close
        self._breakers: dict[Circuit, Breaker] = {}
        self._calls: deque[tuple[datetime, bool]] = deque(maxlen=_WATCHED_CALLS)

    @property
    def open(self) -> dict[Circuit, datetime | None]:
        """The open circuits, and when each allows a trial."""
        return {circuit: breaker.until for circuit, breaker in self._breakers.items()}

    def awaiting_trial(self) -> list[Breaker]:
        """The circuits that the next request may try; raises `CircuitOpen` while one allows no trial."""
        now = self._clock()
        for circuit, breaker in self._breakers.items():
            if breaker.until is None or now < breaker.until or breaker.trial is not None:
                raise CircuitOpen(circuit, breaker.until)
        return list(self._breakers.values())

    def abandon(self, caller: object) -> None:
        """The caller left without an answer: another one may try."""
        for breaker in self._breakers.values():
            if breaker.trial is caller:
                breaker.trial = None

    def succeeded(self, caller: object) -> None:
        """A call worked: close the circuits that it was the trial of."""
        self._calls.append((self._clock(), True))
        for circuit in [name for name, breaker in self._breakers.items() if breaker.trial is caller]:
            self.close(circuit)

    def close(self, circuit: Circuit) -> None:
        """Send calls to the provider again, whatever a trial would say."""
        if self._breakers.pop(circuit, None) is not None:
            self._calls.clear()
            log.info("circuit closed: %s", circuit)
            self._on_close(circuit)

    def restore(self, circuit: Circuit) -> None:
        """After a start: a circuit that was open before it. The next request is its trial."""
        self._breakers.setdefault(circuit, Breaker(self._clock()))

    def failed(self, caller: object, policy: FailurePolicy, *, retry_after: timedelta | None) -> list[CircuitOpen]:
        """A call failed; returns the circuits that this opens, or keeps open after a trial."""
        opened = []
        if policy.pause is not None:
            opened.append(self._open(policy.pause, caller, retry_after or policy.pause_for))
        if policy.counts:
            self._calls.append((self._clock(), False))
            if self._failing() or self._is_trial(caller, Circuit.FAILURES):
                opened.append(self._open(Circuit.FAILURES, caller, None))
        return [one for one in opened if one is not None]

    def _failing(self) -> bool:
        since = self._clock() - _WATCHED_SPAN
        recent = [worked for at, worked in self._calls if at >= since]
        failures = recent.count(False)
        return failures >= _FAILURES and failures * 2 >= len(recent)

    def _is_trial(self, caller: object, circuit: Circuit) -> bool:
        breaker = self._breakers.get(circuit)
        return breaker is not None and breaker.trial is caller

    def _open(self, circuit: Circuit, caller: object, pause: timedelta | None) -> CircuitOpen | None:
        breaker = self._breakers.get(circuit)
        if breaker is not None and breaker.trial is not caller:
            return None  # this call was already in progress when the circuit opened
        failed_trials = 0 if breaker is None else breaker.failed_trials + 1
        until = self._next_trial(circuit, failed_trials, pause)
        self._breakers[circuit] = Breaker(until, failed_trials)
        if breaker is None:
            self._on_open(circuit, until)
        return CircuitOpen(circuit, until)

    def _next_trial(self, circuit: Circuit, failed_trials: int, pause: timedelta | None) -> datetime | None:
        intervals = _INTERVALS[circuit]
        if not intervals:
            return None
        usual = intervals[min(failed_trials, len(intervals) - 1)]
        return self._clock() + (usual if pause is None else min(max(usual, pause), intervals[-1]))
