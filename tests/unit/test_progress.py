"""What a member sees while they wait: the line moving, then that it runs, at most one edit in three seconds."""

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
from tests.conftest import a_job
from tests.support.factories import NOON
from tests.support.virtual_clock import Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from bot.domain.models import Job, Status
    from bot.domain.protocols import Messenger


@dataclass(slots=True)
class Shown:
    """What Discord was asked to show, and when; each takes it `seconds`."""

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


def progress(shown: Shown) -> Progress:
    return Progress(a_job(), messenger=cast("Messenger", shown), clock=lambda: NOON)


async def wait_in_line(shown: Shown, ticket: Ticket, *, work: float) -> None:
    async with progress(shown).turn(ticket, ticket.position):
        await asyncio.sleep(work)


def test_a_line_that_moves_is_shown_at_most_every_three_seconds() -> None:
    async def day() -> None:
        shown, queue = Shown(), a_queue()
        ahead = [queue.enter(member) for member in range(20)]
        waiting = asyncio.create_task(wait_in_line(shown, queue.enter(99), work=60))
        for ticket in ahead:  # the line moves once a second
            await asyncio.sleep(1)
            ticket.leave()
        await waiting
        times = [at for at, *_ in shown.edits]
        assert times[0] >= PAUSE
        assert all(later - sooner >= PAUSE for sooner, later in itertools.pairwise(times))
        assert {(text, cancellable) for _, text, cancellable in shown.edits[:-1]} == {("Queued", True)}
        assert shown.edits[-1][1:] == ("Generating", False)

    on_virtual_time(day)


def test_a_line_that_stands_still_is_not_shown_again() -> None:
    async def day() -> None:
        shown, queue = Shown(), a_queue()
        first, ticket = queue.enter(1), queue.enter(2)
        waiting = asyncio.create_task(wait_in_line(shown, ticket, work=60))
        await asyncio.sleep(600)
        assert shown.edits == []
        first.leave()
        await waiting
        assert [text for _, text, _ in shown.edits] == ["Generating"]

    on_virtual_time(day)


def test_who_did_not_wait_is_shown_nothing() -> None:
    async def day() -> None:
        shown = Shown()
        await wait_in_line(shown, a_queue().enter(1), work=60)
        assert shown.edits == []

    on_virtual_time(day)


def test_an_edit_that_discord_is_slow_to_take_never_follows_the_result() -> None:
    async def day() -> None:
        shown, queue = Shown(seconds=3600), a_queue()
        first, ticket = queue.enter(1), queue.enter(2)
        waiting = asyncio.create_task(wait_in_line(shown, ticket, work=10))
        await asyncio.sleep(1)
        first.leave()
        await waiting
        assert asyncio.get_running_loop().time() < 12
        assert len(asyncio.all_tasks()) == 1

    on_virtual_time(day)


def test_who_is_sent_away_while_waiting_leaves_nothing_behind() -> None:
    async def day() -> None:
        shown, queue = Shown(), a_queue()
        queue.enter(1)
        ticket = queue.enter(2)
        waiting = asyncio.create_task(wait_in_line(shown, ticket, work=10))
        await asyncio.sleep(1)
        assert ticket.dismiss(NotStartedCause.CANCELLED)
        with pytest.raises(NotStarted):
            await waiting
        assert len(asyncio.all_tasks()) == 1

    on_virtual_time(day)
