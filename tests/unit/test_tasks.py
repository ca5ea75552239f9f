"""The tasks of jobs: counted, waited for, and cancelled, and no fault of one is lost."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bot.jobs.tasks import JobTasks
from bot.ops.logs import job_id
from tests.support.factories import a_job
from tests.support.virtual_clock import Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

JOB = a_job()
OTHER = replace(JOB, id="q7r2")


def on_virtual_time(scenario: Callable[[JobTasks], Coroutine[None, None, None]]) -> None:
    async def work() -> None:
        await scenario(JobTasks())

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(work())


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_running_task_is_counted_under_its_job_until_it_ends() -> None:
    async def scenario(tasks: JobTasks) -> None:
        tasks.start(asyncio.sleep(5), JOB)
        tasks.start(asyncio.sleep(5), JOB)
        tasks.start(asyncio.sleep(9), OTHER)
        assert (len(tasks), sorted(tasks.jobs)) == (3, sorted([JOB.id, OTHER.id]))
        await asyncio.sleep(6)
        assert (len(tasks), sorted(tasks.jobs)) == (1, [OTHER.id])
        await asyncio.sleep(6)
        assert (len(tasks), sorted(tasks.jobs)) == (0, [])

    on_virtual_time(scenario)


def test_work_beside_a_job_writes_to_it_but_does_not_keep_others_from_it() -> None:
    async def scenario(tasks: JobTasks) -> None:
        tasks.start_beside(asyncio.sleep(5), JOB)
        assert (sorted(tasks.jobs), sorted(tasks.in_progress)) == ([JOB.id], [])
        tasks.start(asyncio.sleep(9), OTHER)
        assert (sorted(tasks.jobs), sorted(tasks.in_progress)) == (sorted([JOB.id, OTHER.id]), [OTHER.id])
        await tasks.idle(100)
        assert now() == pytest.approx(9)

    on_virtual_time(scenario)


def test_a_notice_is_waited_for_and_leaves_its_job_free() -> None:
    async def scenario(tasks: JobTasks) -> None:
        tasks.start_notice(asyncio.sleep(5), JOB)
        assert len(tasks) == 1
        assert JOB.id not in tasks.jobs
        await tasks.idle(100)
        assert now() == pytest.approx(5)

    on_virtual_time(scenario)


def test_a_tasks_name_says_what_it_works_on() -> None:
    async def scenario(tasks: JobTasks) -> None:
        tasks.start(asyncio.sleep(5), JOB)
        tasks.start_notice(asyncio.sleep(5), JOB)
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert {f"job-{JOB.id}", f"notice-{JOB.id}"} <= names
        await tasks.cancel()

    on_virtual_time(scenario)


def test_what_a_task_logs_carries_the_id_of_its_job_and_nothing_else_does() -> None:
    async def scenario(tasks: JobTasks) -> None:
        seen = []

        async def work() -> None:
            seen.append(job_id.get())

        tasks.start(work(), JOB)
        tasks.start_notice(work(), OTHER)
        assert job_id.get() == ""
        await tasks.idle(1)
        assert seen == [JOB.id, OTHER.id]

    on_virtual_time(scenario)


def test_a_fault_is_logged_with_its_task_and_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(tasks: JobTasks) -> None:
        fault = RuntimeError("a bug")

        async def work() -> None:
            raise fault

        tasks.start(work(), JOB)
        await tasks.idle(1)
        [record] = caplog.records
        assert record.levelno == logging.ERROR
        assert record.getMessage() == f"job-{JOB.id} ended with a fault; the next start recovers its job"
        assert record.exc_info
        assert record.exc_info[1] is fault
        assert len(tasks) == 0

    on_virtual_time(scenario)


def test_neither_an_end_nor_a_cancellation_is_logged_as_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(tasks: JobTasks) -> None:
        tasks.start(asyncio.sleep(1), JOB)
        await tasks.idle(5)
        tasks.start(asyncio.sleep(100), JOB)
        await tasks.cancel()
        assert caplog.records == []
        assert len(tasks) == 0

    on_virtual_time(scenario)


def test_cancelling_waits_until_every_task_has_ended_even_with_a_fault() -> None:
    async def scenario(tasks: JobTasks) -> None:
        ended = []

        async def work(seconds: float) -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                await asyncio.sleep(seconds)
                ended.append(seconds)
                if seconds == 2:
                    raise RuntimeError("a bug")

        for seconds in (1, 2, 3):
            tasks.start(work(seconds), JOB)
        await asyncio.sleep(1)
        await tasks.cancel()
        assert ended == [1, 2, 3]
        assert now() == pytest.approx(4)

    on_virtual_time(scenario)


def test_waiting_ends_with_the_last_task_or_with_its_time() -> None:
    async def scenario(tasks: JobTasks) -> None:
        await tasks.idle(100)
        assert now() == 0
        for seconds in (1, 5, 3):
            tasks.start(asyncio.sleep(seconds), JOB)
        await tasks.idle(100)
        assert now() == pytest.approx(5)
        tasks.start(asyncio.sleep(1000), JOB)
        await tasks.idle(10)
        assert now() == pytest.approx(15)
        assert len(tasks) == 1
        await tasks.cancel()

    on_virtual_time(scenario)


def test_waiting_includes_what_a_task_starts_at_its_end() -> None:
    async def scenario(tasks: JobTasks) -> None:
        async def work() -> None:
            await asyncio.sleep(1)
            tasks.start(asyncio.sleep(5), OTHER)

        tasks.start(work(), JOB)
        await tasks.idle(100)
        assert now() == pytest.approx(6)

    on_virtual_time(scenario)


def test_several_may_wait_at_once_and_one_may_stop_waiting() -> None:
    async def scenario(tasks: JobTasks) -> None:
        tasks.start(asyncio.sleep(5), JOB)
        impatient = asyncio.create_task(tasks.idle(100))
        patient = asyncio.create_task(tasks.idle(100))
        await asyncio.sleep(1)
        impatient.cancel()
        await asyncio.wait([impatient])
        await patient
        assert now() == pytest.approx(5)
        assert tasks._waiting == set()

    on_virtual_time(scenario)


def test_two_tasks_that_end_at_the_same_moment_wake_whoever_waits_once() -> None:
    async def scenario(tasks: JobTasks) -> None:
        tasks.start(asyncio.sleep(5), JOB)
        tasks.start(asyncio.sleep(5), OTHER)
        await tasks.idle(100)
        assert now() == pytest.approx(5)

    on_virtual_time(scenario)


# --- the current task -----------------------------------------------------------------------------------------------


def test_a_task_that_includes_itself_is_waited_for_until_its_block_ends() -> None:
    async def scenario(tasks: JobTasks) -> None:
        async def person() -> None:
            with tasks.including_this():
                await asyncio.sleep(5)
            await asyncio.sleep(1000)

        task = asyncio.create_task(person())
        await asyncio.sleep(1)
        assert len(tasks) == 1
        await tasks.idle(100)
        assert now() == pytest.approx(5)
        assert not task.done()
        task.cancel()

    on_virtual_time(scenario)


def test_a_task_that_includes_itself_twice_is_counted_until_the_outer_block_ends() -> None:
    async def scenario(tasks: JobTasks) -> None:
        with tasks.including_this():
            with tasks.including_this():
                assert len(tasks) == 1
            assert len(tasks) == 1
        assert len(tasks) == 0

    on_virtual_time(scenario)


def test_a_task_that_includes_itself_and_fails_is_counted_no_longer() -> None:
    async def scenario(tasks: JobTasks) -> None:
        with pytest.raises(RuntimeError), tasks.including_this():
            raise RuntimeError
        assert len(tasks) == 0

    on_virtual_time(scenario)
