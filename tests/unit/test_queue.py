from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

import pytest

from bot.domain.errors import (
    CircuitOpen,
    NotStarted,
    NotStartedCause,
    ProviderRefused,
    QueueFull,
    Restarting,
    TooManyActiveJobs,
)
from bot.domain.failure_policy import policy_for
from bot.domain.models import Circuit, FailurePolicy
from bot.jobs.circuits import Circuits
from bot.jobs.queue import RequestQueue, Ticket
from tests.support.factories import NOON


class Watch:
    """A clock that advances when told to."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


class Bench:
    """A queue with its clock, and the circuits that the operator was told of."""

    def __init__(self, *, concurrency: int = 2, length: int = 100, per_member: int = 100) -> None:
        self.clock = Watch()
        self.opened: list[Circuit] = []
        circuits = Circuits(clock=self.clock, on_open=lambda circuit, _: self.opened.append(circuit))
        self.queue = RequestQueue(circuits, concurrency=concurrency, limit=length, per_member=per_member)

    def enter(self, *members: int) -> list[Ticket]:
        return [self.queue.enter(member) for member in members]

    def fail(self, code: str, *, status: int = 500, retry_after: timedelta | None = None) -> Ticket:
        """One call by a member of its own that fails with `code`."""
        ticket = self.queue.enter(-1)
        ticket.failed(policy(code, status), retry_after=retry_after)
        ticket.leave()
        return ticket

    def succeed(self) -> None:
        ticket = self.queue.enter(-1)
        ticket.succeeded()
        ticket.leave()


def policy(code: str, status: int = 500) -> FailurePolicy:
    return policy_for(ProviderRefused(code, status))


async def test_as_many_start_at_once_as_there_are_slots_and_the_rest_wait_in_line() -> None:
    bench = Bench(concurrency=2)
    tickets = bench.enter(1, 2, 3, 4)
    assert [ticket.position for ticket in tickets] == [0, 0, 1, 2]
    tickets[0].leave()
    assert [ticket.position for ticket in tickets] == [0, 0, 0, 1]


async def test_members_take_turns() -> None:
    bench = Bench(concurrency=1)
    running, *waiting = bench.enter(9, 1, 1, 1, 2, 2, 3)
    assert [ticket.position for ticket in waiting] == [1, 4, 6, 2, 5, 3]
    order = []
    running.leave()
    while (started := [ticket for ticket in waiting if ticket.position == 0]) and waiting:
        order.append(started[0].member)
        waiting.remove(started[0])
        started[0].leave()
    assert order == [1, 2, 3, 1, 2, 1]


async def test_a_turn_is_waited_for_and_given_back() -> None:
    bench = Bench(concurrency=1)
    first, second = bench.enter(1, 2)
    async with first.turn():
        waiter = asyncio.create_task(anext_turn(second))
        await asyncio.sleep(0)
        assert not waiter.done()
    await asyncio.wait_for(waiter, 1)


async def anext_turn(ticket: Ticket) -> None:
    async with ticket.turn():
        pass


async def test_the_line_is_bounded() -> None:
    bench = Bench(concurrency=1, length=2)
    bench.enter(1, 2, 3)
    with pytest.raises(QueueFull):
        bench.enter(4)


async def test_a_line_of_no_length_still_lets_those_in_who_start_at_once() -> None:
    bench = Bench(concurrency=1, length=0)
    [ticket] = bench.enter(1)
    with pytest.raises(QueueFull):
        bench.enter(2)
    ticket.leave()
    bench.enter(2)


async def test_one_member_may_have_only_so_many_under_way() -> None:
    bench = Bench(per_member=2)
    first, _ = bench.enter(1, 1)
    with pytest.raises(TooManyActiveJobs):
        bench.enter(1)
    bench.enter(2)
    first.leave()
    first.leave()  # leaving twice gives back once
    bench.enter(1)
    with pytest.raises(TooManyActiveJobs):
        bench.enter(1)


async def test_leaving_the_line_moves_the_others_up() -> None:
    bench = Bench(concurrency=1)
    _, second, third = bench.enter(1, 2, 3)
    second.leave()
    assert third.position == 1


async def test_a_refused_key_closes_the_gate_until_the_operator_acts() -> None:
    bench = Bench()
    bench.fail("INVALID_API_KEY", status=401)
    bench.clock.advance(days=30)
    with pytest.raises(CircuitOpen) as refused:
        bench.enter(1)
    assert (refused.value.circuit, refused.value.until) == (Circuit.KEY, None)
    assert bench.opened == [Circuit.KEY]


async def test_an_empty_balance_is_tried_once_after_ten_minutes_and_then_hourly() -> None:
    bench = Bench()
    bench.fail("INSUFFICIENT_CREDITS", status=402)
    with pytest.raises(CircuitOpen) as refused:
        bench.enter(1)
    assert refused.value.until == NOON + timedelta(minutes=10)
    bench.clock.advance(minutes=10)
    [trial] = bench.enter(1)
    with pytest.raises(CircuitOpen):
        bench.enter(2)  # one trial at a time
    trial.failed(policy("INSUFFICIENT_CREDITS", 402))
    trial.leave()
    with pytest.raises(CircuitOpen) as refused:
        bench.enter(3)
    assert refused.value.until == bench.clock.now + timedelta(hours=1)
    bench.clock.advance(hours=1)
    bench.succeed()
    bench.enter(4, 5, 6)
    assert bench.opened == [Circuit.BALANCE]  # told once, however many trials failed


async def test_a_trial_that_ends_without_an_answer_lets_the_next_one_try() -> None:
    bench = Bench()
    bench.fail("INSUFFICIENT_CREDITS", status=402)
    bench.clock.advance(minutes=10)
    [trial] = bench.enter(1)
    trial.leave()
    bench.enter(2)


async def test_maintenance_lasts_as_long_as_the_provider_says_and_doubles_otherwise() -> None:
    bench = Bench()
    bench.fail("SERVICE_UNDER_MAINTENANCE", status=503, retry_after=timedelta(minutes=7))
    assert bench.queue.circuits.open == {Circuit.MAINTENANCE: NOON + timedelta(minutes=7)}
    waits = []
    for _ in range(5):
        [until] = bench.queue.circuits.open.values()
        assert until is not None
        bench.clock.now = until
        bench.fail("SERVICE_UNDER_MAINTENANCE", status=503)
        [again] = bench.queue.circuits.open.values()
        assert again is not None
        waits.append((again - until) / timedelta(minutes=1))
    assert waits == [2, 4, 8, 15, 15]


async def test_too_many_failures_close_the_gate_for_a_minute() -> None:
    bench = Bench()
    for _ in range(4):
        bench.fail("INTERNAL_ERROR")
    assert not bench.queue.circuits.open
    bench.fail("INTERNAL_ERROR")
    assert bench.queue.circuits.open == {Circuit.FAILURES: NOON + timedelta(minutes=1)}


async def test_failures_among_more_successes_or_long_ago_do_not_count() -> None:
    bench = Bench()
    for _ in range(10):
        bench.succeed()
    for _ in range(9):
        bench.fail("INTERNAL_ERROR")
    assert not bench.queue.circuits.open
    slow = Bench()
    for _ in range(8):
        slow.fail("INTERNAL_ERROR")
        slow.clock.advance(seconds=40)
    assert not slow.queue.circuits.open


async def test_a_failed_trial_after_too_many_failures_waits_longer() -> None:
    bench = Bench()
    for _ in range(5):
        bench.fail("INTERNAL_ERROR")
    bench.clock.advance(minutes=1)
    bench.fail("INTERNAL_ERROR")
    assert bench.queue.circuits.open == {Circuit.FAILURES: bench.clock.now + timedelta(minutes=2)}


async def test_calls_under_way_when_a_circuit_opens_do_not_lengthen_it() -> None:
    bench = Bench(concurrency=3)
    tickets = bench.enter(1, 2, 3)
    for ticket in tickets:
        ticket.failed(policy("INSUFFICIENT_CREDITS", 402))
    assert bench.queue.circuits.open == {Circuit.BALANCE: NOON + timedelta(minutes=10)}
    assert bench.opened == [Circuit.BALANCE]


async def test_those_in_line_are_sent_away_when_a_circuit_opens() -> None:
    bench = Bench(concurrency=1)
    running, waiting = bench.enter(1, 2)
    running.failed(policy("INVALID_API_KEY", 401))
    with pytest.raises(NotStarted) as sent_away:
        await anext_turn(waiting)
    assert sent_away.value.reason == "not_started:key"


async def test_a_429_halves_the_calls_at_once_and_waits_as_asked() -> None:
    bench = Bench(concurrency=8)
    tickets = bench.enter(*range(8))
    for ticket in tickets:  # one burst says one thing
        ticket.failed(policy("TOO_MANY_REQUESTS", 429), retry_after=timedelta(milliseconds=30))
        ticket.leave()
    later = bench.enter(*range(10, 20))
    assert all(ticket.position > 0 for ticket in later)
    await asyncio.wait_for(anext_turn(later[0]), 2)  # started by the queue itself when the pause is over
    assert [ticket.position for ticket in later].count(0) == 5  # the four slots, and the one that went through
    for ticket in later[1:5]:
        ticket.succeeded()
        ticket.leave()
    assert [ticket.position for ticket in later].count(0) == 10  # success widens it again


async def test_a_closed_gate_takes_nobody_and_sends_the_line_away() -> None:
    bench = Bench(concurrency=1)
    _, waiting = bench.enter(1, 2)
    bench.queue.close()
    with pytest.raises(Restarting):
        bench.enter(3)
    with pytest.raises(NotStarted) as sent_away:
        await anext_turn(waiting)
    assert sent_away.value.reason == "not_started:restarting"


# --- taking a request back ----------------------------------------------------------------------------------------


async def test_who_is_sent_away_leaves_the_line_and_the_others_move_up() -> None:
    bench = Bench(concurrency=1)
    _, second, third = bench.enter(1, 2, 3)
    assert second.dismiss(NotStartedCause.CANCELLED)
    assert (third.position, bench.queue.waiting) == (1, 1)
    with pytest.raises(NotStarted) as sent:
        async with second.turn():
            pass
    assert sent.value.reason == "not_started:cancelled"
    second.leave()
    assert not second.dismiss(NotStartedCause.CANCELLED)


async def test_whose_turn_has_come_is_not_sent_away() -> None:
    bench = Bench(concurrency=1)
    [first] = bench.enter(1)
    assert not first.dismiss(NotStartedCause.CANCELLED)
    async with first.turn():
        assert bench.queue.running == 1


async def test_one_of_a_members_several_places_is_sent_away_and_frees_one_of_their_places() -> None:
    bench = Bench(concurrency=1, per_member=3)
    tickets = bench.enter(1, 1, 1)
    assert tickets[1].dismiss(NotStartedCause.CANCELLED)
    tickets[1].leave()
    assert tickets[2].position == 1
    bench.enter(1)
