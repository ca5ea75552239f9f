"""A waiting member sees their position, then that generation has started, in at most one edit per 3 seconds."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pytest

from bot.discord_io import buttons
from bot.domain.errors import NotStarted, NotStartedCause
from bot.jobs.circuits import Circuits
from bot.jobs.progress import PAUSE, Progress
from bot.jobs.queue import RequestQueue, Ticket
from bot.text import results
from tests.support.factories import NOON, a_job
from tests.support.virtual_clock import Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from bot.domain.models import Job, Status
    from bot.domain.protocols import Messenger


@dataclass(slots=True)
class RecordedEdits:
    """Records each edit and its time; Discord needs `seconds` for each one."""

    seconds: float = 0.0
    edits: list[tuple[float, str, bool]] = field(default_factory=list)

    async def show_progress(self, job: Job, status: Status) -> None:
        text, cancellable = results.status(job, status), bool(buttons.of_status(job, status).children)
        self.edits.append((asyncio.get_running_loop().time(), text.partition(" · ")[0], cancellable))
        await asyncio.sleep(self.seconds)


def on_virtual_time(work: Callable[[], Coroutine[None, None, None]]) -> None:
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(work())


def a_queue() -> RequestQueue:
    return RequestQueue(Circuits(clock=lambda: NOON), concurrency=1, limit=100, per_member=100)


def progress(recorded: RecordedEdits) -> Progress:
    return Progress(a_job(), messenger=cast("Messenger", recorded), clock=lambda: NOON)


async def wait_in_queue(recorded: RecordedEdits, ticket: Ticket, *, work: float) -> None:
    async with progress(recorded).turn(ticket, ticket.position):
        await asyncio.sleep(work)


def test_a_moving_queue_is_shown_at_most_every_three_seconds() -> None:
    async def scenario() -> None:
        recorded, queue = RecordedEdits(), a_queue()
        ahead = [queue.enter(member) for member in range(20)]
        waiting = asyncio.create_task(wait_in_queue(recorded, queue.enter(99), work=60))
        for ticket in ahead:  # the queue moves once a second
            await asyncio.sleep(1)
            ticket.leave()
        await waiting
        times = [at for at, *_ in recorded.edits]
        assert times[0] >= PAUSE
        assert all(later - sooner >= PAUSE for sooner, later in itertools.pairwise(times))
        assert {(text, cancellable) for _, text, cancellable in recorded.edits[:-1]} == {("Queued", True)}
        assert recorded.edits[-1][1:] == ("Generating", False)

    on_virtual_time(scenario)


def test_an_unchanged_position_is_not_shown_again() -> None:
    async def scenario() -> None:
        recorded, queue = RecordedEdits(), a_queue()
        first, ticket = queue.enter(1), queue.enter(2)
        waiting = asyncio.create_task(wait_in_queue(recorded, ticket, work=60))
        await asyncio.sleep(600)
        assert recorded.edits == []
        first.leave()
        await waiting
        assert [text for _, text, _ in recorded.edits] == ["Generating"]

    on_virtual_time(scenario)


def test_a_request_that_starts_at_once_shows_no_progress() -> None:
    async def scenario() -> None:
        recorded = RecordedEdits()
        await wait_in_queue(recorded, a_queue().enter(1), work=60)
        assert recorded.edits == []

    on_virtual_time(scenario)


def test_a_slow_progress_edit_never_arrives_after_the_result() -> None:
    async def scenario() -> None:
        recorded, queue = RecordedEdits(seconds=3600), a_queue()
        first, ticket = queue.enter(1), queue.enter(2)
        waiting = asyncio.create_task(wait_in_queue(recorded, ticket, work=10))
        await asyncio.sleep(1)
        first.leave()
        await waiting
        assert asyncio.get_running_loop().time() < 12
        assert len(asyncio.all_tasks()) == 1

    on_virtual_time(scenario)


def test_a_request_dismissed_while_waiting_leaves_no_task_behind() -> None:
    async def scenario() -> None:
        recorded, queue = RecordedEdits(), a_queue()
        queue.enter(1)
        ticket = queue.enter(2)
        waiting = asyncio.create_task(wait_in_queue(recorded, ticket, work=10))
        await asyncio.sleep(1)
        assert ticket.dismiss(NotStartedCause.CANCELLED)
        with pytest.raises(NotStarted):
            await waiting
        assert len(asyncio.all_tasks()) == 1

    on_virtual_time(scenario)
