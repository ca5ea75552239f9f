"""Who waits for a first answer goes first; nobody else waits for long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from bot.domain.models import State
from bot.jobs.first_answers import LONGEST_WAIT, FirstAnswers
from tests.support.use_case_harness import run

if TYPE_CHECKING:
    from tests.support.use_case_harness import UseCaseHarness


def test_one_request_alone_waits_for_nobody() -> None:
    async def scenario(_: UseCaseHarness) -> None:
        answers = FirstAnswers()
        await answers.give_way()
        with answers.pending():
            await answers.give_way()
        assert asyncio.get_running_loop().time() == 0

    run(scenario)


def test_what_can_wait_goes_on_when_the_last_answer_is_given() -> None:
    async def scenario(_: UseCaseHarness) -> None:
        answers = FirstAnswers()
        with answers.pending():
            with answers.pending():
                waiting = asyncio.create_task(answers.give_way())
                await asyncio.sleep(1)
            await asyncio.sleep(0.5)
            assert not waiting.done()
        await waiting
        assert asyncio.get_running_loop().time() == pytest.approx(1.5)

    run(scenario)


def test_a_crowd_that_never_ends_stops_nobody() -> None:
    async def scenario(_: UseCaseHarness) -> None:
        answers = FirstAnswers()
        with answers.pending(), answers.pending():
            await answers.give_way()
        assert asyncio.get_running_loop().time() == pytest.approx(LONGEST_WAIT)

    run(scenario)


def test_images_are_looked_at_and_kept_only_when_everybody_in_a_crowd_has_been_answered() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.script.seconds["reply"] = 1
        accepting = [asyncio.create_task(harness.accept(member)) for member in range(1, 4)]
        await asyncio.sleep(0.9)
        assert [len(harness.script.of(name)) for name in ("reply", "look", "create")] == [3, 0, 0]
        jobs = [await harness.ended(await job) for job in accepting]
        assert [job.state for job in jobs] == [State.DELIVERED] * 3
        order = harness.script.order()
        assert order.index("create") < order.index("keep")
        assert len(harness.script.of("keep")) == 3

    run(scenario, concurrency=3)
