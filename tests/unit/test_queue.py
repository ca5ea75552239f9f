from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

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
from tests.support.virtual_clock import Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class ManualClock:
    """A clock that only moves when a test advances it."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


class QueueHarness:
    """A queue, its clock, and the circuits reported to the operator."""

    def __init__(self, *, concurrency: int = 2, length: int = 100, per_member: int = 100) -> None:
        self.clock = ManualClock()
        self.opened: list[Circuit] = []
        circuits = Circuits(clock=self.clock, on_open=lambda circuit, _: self.opened.append(circuit))
        self.queue = RequestQueue(circuits, concurrency=concurrency, limit=length, per_member=per_member)

    def enter(self, *members: int) -> list[Ticket]:
        return [self.queue.enter(member) for member in members]

    def fail(self, code: str, *, status: int = 500, retry_after: timedelta | None = None) -> Ticket:
        """One call that fails with `code`, by a member with no other request."""
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


async def test_requests_start_until_the_slots_are_full_and_the_rest_wait() -> None:
    harness = QueueHarness(concurrency=2)
    tickets = harness.enter(1, 2, 3, 4)
    assert [ticket.position for ticket in tickets] == [0, 0, 1, 2]
    tickets[0].leave()
    assert [ticket.position for ticket in tickets] == [0, 0, 0, 1]


async def test_members_take_turns() -> None:
    harness = QueueHarness(concurrency=1)
    running, *waiting = harness.enter(9, 1, 1, 1, 2, 2, 3)
    assert [ticket.position for ticket in waiting] == [1, 4, 6, 2, 5, 3]
    order = []
    running.leave()
    while (started := [ticket for ticket in waiting if ticket.position == 0]) and waiting:
        order.append(started[0].member)
        waiting.remove(started[0])
        started[0].leave()
    assert order == [1, 2, 3, 1, 2, 1]


async def test_a_ticket_waits_for_its_turn_and_frees_the_slot() -> None:
    harness = QueueHarness(concurrency=1)
    first, second = harness.enter(1, 2)
    async with first.turn():
        waiter = asyncio.create_task(wait_for_turn(second))
        await asyncio.sleep(0)
        assert not waiter.done()
    await asyncio.wait_for(waiter, 1)


async def wait_for_turn(ticket: Ticket) -> None:
    async with ticket.turn():
        pass


async def test_the_queue_is_bounded() -> None:
    harness = QueueHarness(concurrency=1, length=2)
    harness.enter(1, 2, 3)
    with pytest.raises(QueueFull):
        harness.enter(4)


async def test_a_queue_of_length_zero_accepts_requests_that_start_at_once() -> None:
    harness = QueueHarness(concurrency=1, length=0)
    [ticket] = harness.enter(1)
    with pytest.raises(QueueFull):
        harness.enter(2)
    ticket.leave()
    harness.enter(2)


async def test_the_requests_of_one_member_are_limited() -> None:
    harness = QueueHarness(per_member=2)
    first, _ = harness.enter(1, 1)
    with pytest.raises(TooManyActiveJobs):
        harness.enter(1)
    harness.enter(2)
    first.leave()
    first.leave()  # leaving twice frees one slot only
    harness.enter(1)
    with pytest.raises(TooManyActiveJobs):
        harness.enter(1)


async def test_leaving_the_queue_moves_the_others_up() -> None:
    harness = QueueHarness(concurrency=1)
    _, second, third = harness.enter(1, 2, 3)
    second.leave()
    assert third.position == 1


async def test_a_refused_key_opens_the_circuit_until_the_operator_acts() -> None:
    harness = QueueHarness()
    harness.fail("INVALID_API_KEY", status=401)
    harness.clock.advance(days=30)
    with pytest.raises(CircuitOpen) as refused:
        harness.enter(1)
    assert (refused.value.circuit, refused.value.until) == (Circuit.KEY, None)
    assert harness.opened == [Circuit.KEY]


async def test_an_empty_balance_is_tried_after_ten_minutes_and_then_hourly() -> None:
    harness = QueueHarness()
    harness.fail("INSUFFICIENT_CREDITS", status=402)
    with pytest.raises(CircuitOpen) as refused:
        harness.enter(1)
    assert refused.value.until == NOON + timedelta(minutes=10)
    harness.clock.advance(minutes=10)
    [trial] = harness.enter(1)
    with pytest.raises(CircuitOpen):
        harness.enter(2)  # one trial at a time
    trial.failed(policy("INSUFFICIENT_CREDITS", 402))
    trial.leave()
    with pytest.raises(CircuitOpen) as refused:
        harness.enter(3)
    assert refused.value.until == harness.clock.now + timedelta(hours=1)
    harness.clock.advance(hours=1)
    harness.succeed()
    harness.enter(4, 5, 6)
    assert harness.opened == [Circuit.BALANCE]  # reported once, however many trials failed


async def test_a_trial_that_ends_without_an_answer_lets_the_next_one_try() -> None:
    harness = QueueHarness()
    harness.fail("INSUFFICIENT_CREDITS", status=402)
    harness.clock.advance(minutes=10)
    [trial] = harness.enter(1)
    trial.leave()
    harness.enter(2)


async def test_a_maintenance_pause_follows_retry_after_and_doubles_without_it() -> None:
    harness = QueueHarness()
    harness.fail("SERVICE_UNDER_MAINTENANCE", status=503, retry_after=timedelta(minutes=7))
    assert harness.queue.circuits.open == {Circuit.MAINTENANCE: NOON + timedelta(minutes=7)}
    waits = []
    for _ in range(5):
        [until] = harness.queue.circuits.open.values()
        assert until is not None
        harness.clock.now = until
        harness.fail("SERVICE_UNDER_MAINTENANCE", status=503)
        [again] = harness.queue.circuits.open.values()
        assert again is not None
        waits.append((again - until) / timedelta(minutes=1))
    assert waits == [2, 4, 8, 15, 15]


async def test_too_many_failures_open_the_circuit_for_a_minute() -> None:
    harness = QueueHarness()
    for _ in range(4):
        harness.fail("INTERNAL_ERROR")
    assert not harness.queue.circuits.open
    harness.fail("INTERNAL_ERROR")
    assert harness.queue.circuits.open == {Circuit.FAILURES: NOON + timedelta(minutes=1)}


async def test_failures_outnumbered_by_successes_or_long_ago_do_not_count() -> None:
    harness = QueueHarness()
    for _ in range(10):
        harness.succeed()
    for _ in range(9):
        harness.fail("INTERNAL_ERROR")
    assert not harness.queue.circuits.open
    slow = QueueHarness()
    for _ in range(8):
        slow.fail("INTERNAL_ERROR")
        slow.clock.advance(seconds=40)
    assert not slow.queue.circuits.open


async def test_a_failed_trial_after_too_many_failures_waits_longer() -> None:
    harness = QueueHarness()
    for _ in range(5):
        harness.fail("INTERNAL_ERROR")
    harness.clock.advance(minutes=1)
    harness.fail("INTERNAL_ERROR")
    assert harness.queue.circuits.open == {Circuit.FAILURES: harness.clock.now + timedelta(minutes=2)}


async def test_calls_in_progress_when_a_circuit_opens_do_not_extend_it() -> None:
    harness = QueueHarness(concurrency=3)
    tickets = harness.enter(1, 2, 3)
    for ticket in tickets:
        ticket.failed(policy("INSUFFICIENT_CREDITS", 402))
    assert harness.queue.circuits.open == {Circuit.BALANCE: NOON + timedelta(minutes=10)}
    assert harness.opened == [Circuit.BALANCE]


async def test_waiting_requests_are_dismissed_when_a_circuit_opens() -> None:
    harness = QueueHarness(concurrency=1)
    running, waiting = harness.enter(1, 2)
    running.failed(policy("INVALID_API_KEY", 401))
    with pytest.raises(NotStarted) as dismissed:
        await wait_for_turn(waiting)
    assert dismissed.value.reason == "not_started:key"


async def test_a_429_halves_concurrency_and_pauses_for_retry_after() -> None:
    harness = QueueHarness(concurrency=8)
    tickets = harness.enter(*range(8))
    for ticket in tickets:  # one burst counts once
        ticket.failed(policy("TOO_MANY_REQUESTS", 429), retry_after=timedelta(milliseconds=30))
        ticket.leave()
    later = harness.enter(*range(10, 20))
    assert all(ticket.position > 0 for ticket in later)
    await asyncio.wait_for(wait_for_turn(later[0]), 2)  # the queue itself starts it when the pause is over
    assert [ticket.position for ticket in later].count(0) == 5  # the four slots, and the one that finished
    for ticket in later[1:5]:
        ticket.succeeded()
        ticket.leave()
    assert [ticket.position for ticket in later].count(0) == 10  # successes raise the limit again


async def test_a_closed_queue_accepts_nobody_and_dismisses_waiting_requests() -> None:
    harness = QueueHarness(concurrency=1)
    _, waiting = harness.enter(1, 2)
    harness.queue.close()
    with pytest.raises(Restarting):
        harness.enter(3)
    with pytest.raises(NotStarted) as dismissed:
        await wait_for_turn(waiting)
    assert dismissed.value.reason == "not_started:restarting"


# --- cancelling a request -----------------------------------------------------------------------------------------


async def test_a_dismissed_request_leaves_the_queue_and_the_others_move_up() -> None:
    harness = QueueHarness(concurrency=1)
    _, second, third = harness.enter(1, 2, 3)
    assert second.dismiss(NotStartedCause.CANCELLED)
    assert (third.position, harness.queue.waiting) == (1, 1)
    with pytest.raises(NotStarted) as dismissed:
        async with second.turn():
            pass
    assert dismissed.value.reason == "not_started:cancelled"
    second.leave()
    assert not second.dismiss(NotStartedCause.CANCELLED)


async def test_a_request_whose_turn_has_come_cannot_be_dismissed() -> None:
    harness = QueueHarness(concurrency=1)
    [first] = harness.enter(1)
    assert not first.dismiss(NotStartedCause.CANCELLED)
    async with first.turn():
        assert harness.queue.running == 1


async def test_dismissing_one_of_a_members_requests_frees_one_of_their_slots() -> None:
    harness = QueueHarness(concurrency=1, per_member=3)
    tickets = harness.enter(1, 1, 1)
    assert tickets[1].dismiss(NotStartedCause.CANCELLED)
    tickets[1].leave()
    assert tickets[2].position == 1
    harness.enter(1)


# --- slowing down, on virtual time --------------------------------------------------------------------------------


def on_virtual_time(scenario: Callable[[], Coroutine[None, None, None]]) -> None:
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(scenario())


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize(("asked", "seconds"), [(None, 5), (30, 30), (119, 119), (3600, 120)])
def test_after_a_429_nothing_starts_for_as_long_as_it_asks_up_to_two_minutes(asked: int | None, seconds: int) -> None:
    async def scenario() -> None:
        harness = QueueHarness(concurrency=4)
        retry_after = None if asked is None else timedelta(seconds=asked)
        harness.fail("TOO_MANY_REQUESTS", status=429, retry_after=retry_after)
        [ticket] = harness.enter(1)
        assert ticket.position == 1
        await wait_for_turn(ticket)
        assert now() == seconds

    on_virtual_time(scenario)


def test_the_last_429_of_a_burst_says_when_calls_start_again_and_each_pause_halves_them_once() -> None:
    async def scenario() -> None:
        harness = QueueHarness(concurrency=8)
        [running] = harness.enter(99)
        for seconds in (10, 60, 20):
            running.failed(policy("TOO_MANY_REQUESTS", 429), retry_after=timedelta(seconds=seconds))
        running.leave()
        waiting = harness.enter(*range(10))
        await asyncio.sleep(19)
        assert harness.queue.running == 0
        await asyncio.sleep(2)
        assert harness.queue.running == 4
        waiting[0].failed(policy("TOO_MANY_REQUESTS", 429))
        for ticket in waiting:
            ticket.leave()
        harness.enter(*range(10))
        await asyncio.sleep(6)
        assert harness.queue.running == 2

    on_virtual_time(scenario)


def test_half_of_an_odd_number_of_calls_is_rounded_down() -> None:
    async def scenario() -> None:
        harness = QueueHarness(concurrency=3)
        harness.fail("TOO_MANY_REQUESTS", status=429)
        await asyncio.sleep(6)
        harness.enter(1, 2, 3)
        assert harness.queue.running == 1

    on_virtual_time(scenario)


def test_at_least_one_call_is_made_however_often_the_provider_throttles() -> None:
    async def scenario() -> None:
        harness = QueueHarness(concurrency=2)
        for _ in range(4):
            harness.fail("TOO_MANY_REQUESTS", status=429)
            await asyncio.sleep(6)
        harness.enter(1, 2)
        assert harness.queue.running == 1

    on_virtual_time(scenario)


def test_each_success_allows_one_more_call_up_to_the_setting() -> None:
    async def scenario() -> None:
        harness = QueueHarness(concurrency=4)
        harness.fail("TOO_MANY_REQUESTS", status=429)
        await asyncio.sleep(6)
        running = harness.enter(*range(10))
        assert harness.queue.running == 2
        for allowed in (3, 4, 4, 4):
            running[0].succeeded()
            assert harness.queue.running == allowed

    on_virtual_time(scenario)


def test_a_stop_during_a_pause_starts_nothing_afterwards() -> None:
    async def scenario() -> None:
        harness = QueueHarness()
        harness.fail("TOO_MANY_REQUESTS", status=429)
        [waiting] = harness.enter(1)
        harness.queue.close()
        with pytest.raises(NotStarted):
            await wait_for_turn(waiting)
        with pytest.raises(Restarting):
            harness.enter(2)

    on_virtual_time(scenario)


async def test_a_429_alone_dismisses_nobody_and_any_other_failure_stops_nothing() -> None:
    harness = QueueHarness(concurrency=1)
    running, waiting = harness.enter(1, 2)
    running.failed(policy("CONTENT_POLICY", 400))
    running.leave()
    assert waiting.position == 0
    harness.enter(3)
    waiting.failed(policy("TOO_MANY_REQUESTS", 429))
    assert harness.queue.waiting == 1
    harness.queue.close()


# --- what the numbers say ---------------------------------------------------------------------------------------------


async def test_a_refusal_says_how_many_may_wait_or_be_in_progress() -> None:
    harness = QueueHarness(concurrency=1, length=2, per_member=3)
    harness.enter(1, 1, 1)
    with pytest.raises(TooManyActiveJobs) as active:
        harness.enter(1)
    with pytest.raises(QueueFull) as full:
        harness.enter(2)
    assert (active.value.limit, full.value.length) == (3, 2)


async def test_the_queue_knows_how_many_wait_run_and_have_not_left() -> None:
    harness = QueueHarness(concurrency=2)
    tickets = harness.enter(1, 1, 2, 3, 3)
    queue = harness.queue
    assert (queue.waiting, queue.running, queue.tickets) == (3, 2, 5)
    async with tickets[0].turn():
        pass
    assert (queue.waiting, queue.running, queue.tickets) == (2, 2, 5)
    for ticket in tickets:
        ticket.leave()
        ticket.leave()
    assert (queue.waiting, queue.running, queue.tickets) == (0, 0, 0)
    assert (queue._tickets, queue._waiting) == ({}, {})


async def test_a_full_queue_takes_who_can_start_at_once_and_a_throttled_one_takes_nobody_more() -> None:
    harness = QueueHarness(concurrency=2, length=0)
    first, _ = harness.enter(1, 2)
    first.leave()
    [third] = harness.enter(3)
    third.failed(policy("TOO_MANY_REQUESTS", 429))
    third.leave()
    with pytest.raises(QueueFull):
        harness.enter(4)
    harness.queue.close()


async def test_a_refused_request_is_not_the_trial_of_a_circuit() -> None:
    harness = QueueHarness(per_member=1)
    harness.enter(1)
    harness.fail("INSUFFICIENT_CREDITS", status=402)
    harness.clock.advance(minutes=10)
    with pytest.raises(TooManyActiveJobs):
        harness.enter(1)
    harness.enter(2)


async def test_everyone_who_waits_is_dismissed_also_several_of_one_member() -> None:
    harness = QueueHarness(concurrency=1)
    running, *waiting = harness.enter(1, 1, 1, 2, 3)
    running.failed(policy("INVALID_API_KEY", 401))
    assert harness.queue.waiting == 0
    for ticket in waiting:
        with pytest.raises(NotStarted) as dismissed:
            await wait_for_turn(ticket)
        assert dismissed.value.cause is Circuit.KEY


async def test_who_leaves_while_waiting_is_waited_for_by_nobody() -> None:
    harness = QueueHarness(concurrency=1)
    _, waiting = harness.enter(1, 2)
    waiting.leave()
    assert waiting.turn_future.cancelled()
    assert "turn_future" not in repr(waiting)
