"""The queue before the provider: how many calls at once, and whose turn is next."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from bot.domain.errors import NotStarted, NotStartedCause, QueueFull, Restarting, TooManyActiveJobs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bot.domain.models import Circuit, FailurePolicy
    from bot.jobs.circuits import Circuits

_THROTTLE = timedelta(seconds=5)  # when a 429 does not say how long
_THROTTLE_MAX = timedelta(seconds=120)


@dataclass(slots=True, eq=False)
class Ticket:
    """One admitted request: first it waits, then it has a slot, until it leaves."""

    queue: RequestQueue = field(repr=False)
    member: int
    turn_future: asyncio.Future[None] = field(repr=False)
    entered_at: float = field(repr=False)  # on the loop's clock
    left: bool = False

    @property
    def position(self) -> int:
        """How many turns away; 0 once it is this one's turn."""
        return self.queue.position(self)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the turn and hold a slot; raises `NotStarted` if the ticket is dismissed first."""
        await self.turn_future
        try:
            yield
        finally:
            self.queue.release_slot(self)

    def succeeded(self) -> None:
        """A call of this ticket worked."""
        self.queue.succeeded(self)

    def failed(self, policy: FailurePolicy, *, retry_after: timedelta | None = None) -> None:
        """A call of this ticket failed, which means `policy`."""
        self.queue.failed(self, policy, retry_after=retry_after)

    def dismiss(self, cause: NotStartedCause | Circuit) -> bool:
        """End the waiting for `cause`; False if the turn has come already."""
        return self.queue.dismiss(self, cause)

    def leave(self) -> None:
        """Give everything back; may be called more than once."""
        self.queue.leave(self)


class RequestQueue:
    """Slots for provider calls and a fair queue before them: members take turns, each in the order of their requests.

    `limit` is the number of requests that may wait, `per_member` the number one member may have in progress. `on_turn`
    is told how many seconds each of them has waited.
    """

    def __init__(
        self,
        circuits: Circuits,
        *,
        concurrency: int,
        limit: int,
        per_member: int,
        on_turn: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.circuits = circuits
        self._concurrency = concurrency
        self._slots = concurrency  # halved by a 429, grown again by successes
        self._limit = limit
        self._per_member = per_member
        self._on_turn = on_turn
        self._waiting: dict[int, deque[Ticket]] = {}  # by member, in the order of their next turns
        self._running: set[Ticket] = set()
        self._tickets: dict[int, int] = {}  # how many each member has
        self._throttled: asyncio.TimerHandle | None = None  # while it is set, nothing starts
        self._closed = False

    # --- in and out ------------------------------------------------------------------------------------------------

    def enter(self, member: int) -> Ticket:
        """Take a ticket; raises `Restarting`, `CircuitOpen`, `TooManyActiveJobs`, `QueueFull`. Never waits."""
        if self._closed:
            raise Restarting
        breakers = self.circuits.awaiting_trial()
        if self._tickets.get(member, 0) >= self._per_member:
            raise TooManyActiveJobs(self._per_member)
        if self._free_slots() <= 0 and self.waiting >= self._limit:
            raise QueueFull(self._limit)
        loop = asyncio.get_running_loop()
        ticket = Ticket(self, member, loop.create_future(), loop.time())
        for breaker in breakers:
            breaker.trial = ticket
        self._tickets[member] = self._tickets.get(member, 0) + 1
        self._waiting.setdefault(member, deque()).append(ticket)
        self._start_next()
        return ticket

    def position(self, ticket: Ticket) -> int:
        own = self._waiting.get(ticket.member)
        if own is None or ticket not in own:
            return 0
        ahead, seen_own = own.index(ticket), False
        total = ahead + 1
        for member, others in self._waiting.items():
            if member == ticket.member:
                seen_own = True
                continue
            total += min(len(others), ahead if seen_own else ahead + 1)
        return total

    def release_slot(self, ticket: Ticket) -> None:
        self._running.discard(ticket)
        self._start_next()

    def leave(self, ticket: Ticket) -> None:
        self._running.discard(ticket)
        self._stop_waiting(ticket)
        if not ticket.turn_future.done():
            ticket.turn_future.cancel()
        self.circuits.abandon(ticket)
        if not ticket.left:
            ticket.left = True
            self._tickets[ticket.member] -= 1
            if not self._tickets[ticket.member]:
                del self._tickets[ticket.member]
        self._start_next()

    def dismiss(self, ticket: Ticket, cause: NotStartedCause | Circuit) -> bool:
        if not self._stop_waiting(ticket):
            return False
        _refuse(ticket, cause)
        return True

    def _stop_waiting(self, ticket: Ticket) -> bool:
        own = self._waiting.get(ticket.member)
        if own is None or ticket not in own:
            return False
        own.remove(ticket)
        if not own:
            del self._waiting[ticket.member]
        return True

    def close(self) -> None:
        """Accept nothing more, and dismiss everyone whose turn has not come."""
        self._closed = True
        if self._throttled is not None:
            self._throttled.cancel()
        self._dismiss_all(NotStartedCause.RESTARTING)

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def members_waiting(self) -> int:
        """How many people wait for their turn."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def tickets(self) -> int:
        """How many tickets have not been given back."""
        return sum(self._tickets.values())

    # --- what the calls taught -------------------------------------------------------------------------------------

    def succeeded(self, ticket: Ticket) -> None:
        """A call worked: speed up again."""
        self.circuits.succeeded(ticket)
        self._slots = min(self._concurrency, self._slots + 1)
        self._start_next()

    def failed(self, ticket: Ticket, policy: FailurePolicy, *, retry_after: timedelta | None = None) -> None:
        """A call failed: slow down or stop, as the policy says."""
        if policy.throttle:
            self._throttle(retry_after or _THROTTLE)
        for opened in self.circuits.failed(ticket, policy, retry_after=retry_after):
            self._dismiss_all(opened.circuit)

    def _throttle(self, pause: timedelta) -> None:
        if self._throttled is None:
            self._slots = max(1, self._slots // 2)  # once per pause: the calls of one burst say one thing
        else:
            self._throttled.cancel()
        seconds = min(pause, _THROTTLE_MAX).total_seconds()
        self._throttled = asyncio.get_running_loop().call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._throttled = None
        self._start_next()

    # --- turns -----------------------------------------------------------------------------------------------------

    def _free_slots(self) -> int:
        return 0 if self._throttled is not None else self._slots - len(self._running)

    def _start_next(self) -> None:
        while self._waiting and self._free_slots() > 0:
            member, own = next(iter(self._waiting.items()))
            ticket = own.popleft()
            del self._waiting[member]
            if own:
                self._waiting[member] = own  # at the end: everyone else goes first
            self._running.add(ticket)
            ticket.turn_future.set_result(None)
            self._on_turn(ticket.turn_future.get_loop().time() - ticket.entered_at)

    def _dismiss_all(self, cause: NotStartedCause | Circuit) -> None:
        for own in self._waiting.values():
            for ticket in own:
                _refuse(ticket, cause)
        self._waiting.clear()


def _refuse(ticket: Ticket, cause: NotStartedCause | Circuit) -> None:
    ticket.turn_future.set_exception(NotStarted(cause))
    ticket.turn_future.exception()  # marked as seen: nobody may be waiting for it yet
