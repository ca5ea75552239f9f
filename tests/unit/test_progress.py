"""A waiting member sees their position, then that generation has started, in at most one edit per 3 seconds."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, cast

import pytest

from bot.discord_io import buttons
from bot.domain.errors import NotStarted, NotStartedCause
from bot.domain.models import Downloading, Generating, Queued
from bot.jobs.circuits import Circuits
from bot.jobs.progress import PAUSE, DownloadProgress, Progress
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


# --- what is shown, and when ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class RecordedStatuses:
    """Records each edit; one takes `seconds`, and `reluctant` seconds more if it is cancelled."""

    seconds: float = 0.0
    reluctant: float = 0.0
    shown: list[tuple[float, Status]] = field(default_factory=list)
    in_flight: int = 0

    async def show_progress(self, job: Job, status: Status) -> None:
        assert job.id == a_job().id
        self.shown.append((now(), status))
        self.in_flight += 1
        try:
            await asyncio.sleep(self.seconds)
        finally:
            await asyncio.sleep(self.reluctant)
            self.in_flight -= 1


def now() -> float:
    return asyncio.get_running_loop().time()


def clock() -> datetime:
    return NOON + timedelta(seconds=now())


def as_messenger(recorded: RecordedStatuses) -> Messenger:
    return cast("Messenger", recorded)


def test_every_position_down_to_the_first_is_shown_and_then_the_start() -> None:
    async def scenario() -> None:
        recorded, queue = RecordedStatuses(), a_queue()
        ahead = [queue.enter(member) for member in range(3)]
        ticket = queue.enter(99)
        showing = Progress(a_job(), messenger=as_messenger(recorded), clock=clock)

        async def work() -> None:
            async with showing.turn(ticket, 3):
                await asyncio.sleep(60)

        waiting = asyncio.create_task(work())
        await asyncio.sleep(1)
        for one in ahead:
            one.leave()
            await asyncio.sleep(10)
        await waiting
        assert [status for _, status in recorded.shown] == [
            Queued(2),
            Queued(1),
            Generating(NOON + timedelta(seconds=21)),
        ]
        assert [at for at, _ in recorded.shown] == [3, 12, 24]

    on_virtual_time(scenario)


def test_after_a_slow_edit_the_next_one_follows_at_once() -> None:
    async def scenario() -> None:
        recorded, queue = RecordedStatuses(seconds=5), a_queue()
        ahead = [queue.enter(member) for member in range(40)]
        ticket = queue.enter(99)

        async def work() -> None:
            async with Progress(a_job(), messenger=as_messenger(recorded), clock=clock).turn(ticket, 40):
                pass

        waiting = asyncio.create_task(work())
        for one in ahead:
            one.leave()
            await asyncio.sleep(1)
        await waiting
        assert [at for at, _ in recorded.shown[:4]] == [3, 8, 13, 18]

    on_virtual_time(scenario)


def test_what_comes_next_waits_for_the_edit_that_is_in_flight() -> None:
    async def scenario() -> None:
        recorded, queue = RecordedStatuses(seconds=100, reluctant=7), a_queue()
        first, second, ticket = queue.enter(1), queue.enter(2), queue.enter(3)
        seen: list[tuple[float, int]] = []

        async def work() -> None:
            async with Progress(a_job(), messenger=as_messenger(recorded), clock=clock).turn(ticket, 2):
                seen.append((now(), recorded.in_flight))
                await asyncio.sleep(10)
            seen.append((now(), recorded.in_flight))

        waiting = asyncio.create_task(work())
        first.leave()
        await asyncio.sleep(5)
        second.leave()
        await waiting
        assert [status for _, status in recorded.shown] == [Queued(1), Generating(NOON + timedelta(seconds=12))]
        assert seen == [(12, 0), (29, 0)]

    on_virtual_time(scenario)


def test_a_turn_that_comes_while_a_reply_is_posted_is_shown_though_nothing_waits() -> None:
    async def scenario() -> None:
        recorded, queue = RecordedStatuses(), a_queue()
        ticket = queue.enter(1)
        async with Progress(a_job(), messenger=as_messenger(recorded), clock=clock).turn(ticket, 1):
            await asyncio.sleep(10)
        assert recorded.shown == [(3, Generating(NOON))]
        assert queue.running == 0

    on_virtual_time(scenario)


# --- a late image ---------------------------------------------------------------------------------------------------


def late(recorded: RecordedStatuses, *, generated: float = 0.0) -> DownloadProgress:
    job = replace(a_job(), generated_at=NOON + timedelta(seconds=generated))
    return DownloadProgress(job, messenger=as_messenger(recorded), clock=clock)


@pytest.mark.parametrize(("fetched", "shown"), [(29.9, []), (31.0, [(30, Downloading(None))])])
def test_an_image_is_called_late_after_thirty_seconds(fetched: float, shown: list[object]) -> None:
    async def scenario() -> None:
        recorded = RecordedStatuses()
        async with late(recorded).shown():
            await asyncio.sleep(fetched)
        assert recorded.shown == shown
        assert len(asyncio.all_tasks()) == 1

    on_virtual_time(scenario)


@pytest.mark.parametrize(("generated", "at"), [(-10, 20), (-28, PAUSE), (-3600, PAUSE)])
def test_an_image_that_was_late_before_a_restart_is_called_late_soon(generated: float, at: float) -> None:
    async def scenario() -> None:
        recorded = RecordedStatuses()
        async with late(recorded, generated=generated).shown():
            await asyncio.sleep(100)
        assert recorded.shown == [(at, Downloading(None))]

    on_virtual_time(scenario)


def test_the_next_try_is_shown_until_it_comes() -> None:
    async def scenario() -> None:
        recorded = RecordedStatuses()
        progress = late(recorded)
        async with progress.shown():
            await asyncio.sleep(10)
            progress.pausing(40)
            await asyncio.sleep(90)
            progress.pausing(20)
            await asyncio.sleep(100)
        assert recorded.shown == [
            (30, Downloading(NOON + timedelta(seconds=50))),
            (100, Downloading(NOON + timedelta(seconds=120))),
        ]

    on_virtual_time(scenario)


@pytest.mark.parametrize(("pause", "known"), [(29.0, False), (30.0, False), (31.0, True)])
def test_a_try_that_is_under_way_is_not_announced(pause: float, *, known: bool) -> None:
    async def scenario() -> None:
        recorded = RecordedStatuses()
        progress = late(recorded)
        async with progress.shown():
            progress.pausing(pause)
            await asyncio.sleep(40)
        assert recorded.shown == [(30, Downloading(NOON + timedelta(seconds=pause) if known else None))]

    on_virtual_time(scenario)


def test_changes_in_quick_succession_are_shown_every_three_seconds_with_the_last() -> None:
    async def scenario() -> None:
        recorded = RecordedStatuses()
        progress = late(recorded)
        async with progress.shown():
            await asyncio.sleep(31)
            for pause in (100, 200, 300, 400):
                progress.pausing(pause)
                await asyncio.sleep(0.5)
            await asyncio.sleep(60)
        assert [at for at, _ in recorded.shown] == [30, 33]
        assert recorded.shown[1][1] == Downloading(NOON + timedelta(seconds=32.5 + 400))

    on_virtual_time(scenario)


def test_the_image_waits_for_the_edit_that_calls_it_late() -> None:
    async def scenario() -> None:
        recorded = RecordedStatuses(seconds=100, reluctant=7)
        async with late(recorded).shown():
            await asyncio.sleep(31)
        assert (now(), recorded.in_flight) == (38, 0)

    on_virtual_time(scenario)
