"""Start, housekeeping, and shutdown: what becomes of each stored state."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from bot.domain.errors import DeliveryDelayed, Restarting, StorageUnavailable, Undeliverable
from bot.domain.models import AlertLevel, State
from tests.support.factories import NOON
from tests.support.use_case_harness import a_claim, run

if TYPE_CHECKING:
    from tests.support.use_case_harness import UseCaseHarness

MINUTE = 60.0
HOUR = 60 * MINUTE
WEEK = 7 * 24 * HOUR


async def recovered(harness: UseCaseHarness) -> None:
    await harness.recovery.recover()
    await harness.recovery.idle(10**7)


# --- a start --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "reason", "level"),
    [
        (State.RESERVED, "not_started:restarting", AlertLevel.COUNT),
        (State.ACKED, "not_started:restarting", AlertLevel.COUNT),
        (State.SENDING, "outcome_unknown", AlertLevel.WARN),
    ],
)
@pytest.mark.parametrize("restored", [False, True])
def test_what_cannot_go_on_is_released_told_and_never_sent(
    found: State, reason: str, level: AlertLevel, *, restored: bool
) -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.stored(found)
        await recovered(harness)
        assert harness.repository.jobs["old1"].reason == reason
        assert harness.alerts == [(level, reason.partition(":")[0])]
        assert list(harness.repository.notified_at) == ["old1"]
        assert harness.script.of("create") == []

    run(scenario, restored=restored)


def test_a_call_whose_answer_is_unknown_is_reported_with_its_job() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.stored(State.SENDING)
        await recovered(harness)
        [(_, _, line)] = harness.script.of("alert")
        assert line == "job old1: outcome_unknown (observed=the program stopped before the answer)"

    run(scenario)


@pytest.mark.parametrize("found", [State.GENERATED, State.SPOOLED])
def test_what_is_paid_for_is_delivered_and_its_source_kept(found: State) -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.stored(found)
        await recovered(harness)
        assert harness.repository.jobs["old1"].state is State.DELIVERED
        assert len(harness.script.of("fetch")) == (1 if found is State.GENERATED else 0)
        assert harness.script.of("keep") == [("old1",)]
        assert harness.script.of("create") == []
        assert harness.alerts == []

    run(scenario)


def test_an_image_that_waits_for_a_claim_goes_on_waiting() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.stored(State.SPOOLED, parked_at=NOON)
        await recovered(harness)
        assert harness.repository.jobs["old1"].ended_at is None
        assert harness.script.order("deliver", "hand_over", "notify", "keep") == []

    run(scenario)


def test_an_older_copy_of_the_database_delivers_nothing() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.stored(State.GENERATED, "generated")
        harness.stored(State.SPOOLED, "spooled")
        harness.stored(State.SPOOLED, "parked", parked_at=NOON)
        harness.stored(State.SPOOLED, "claimed", parked_at=NOON, claim=a_claim(NOON))
        await recovered(harness)
        assert {job.reason for job in harness.repository.jobs.values()} == {"not_started:restarting"}
        assert harness.script.order("deliver", "hand_over", "fetch") == []
        assert harness.script.of("open_jobs") == [(), ()]  # the claimed ones are not asked for

    run(scenario, restored=True)


def test_whoever_was_not_told_is_told_also_about_several_jobs() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.stored(State.RELEASED, "old1")
        harness.stored(State.RELEASED, "old2")
        harness.stored(State.SENDING, "old3")
        await recovered(harness)
        assert sorted(harness.repository.notified_at) == ["old1", "old2", "old3"]
        assert len(harness.script.of("notify")) == 3
        assert len(harness.script.of("released")) == 1

    run(scenario)


def test_an_image_that_was_being_handed_over_is_charged_and_the_others_stay() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.stored(State.SPOOLED, "old1", parked_at=NOON)
        harness.stored(State.SPOOLED, "old2", parked_at=NOON, claim=a_claim(harness.clock()))
        await recovered(harness)
        assert [job.id for job, _ in harness.script.of("hand_over")] == ["old2"]
        assert harness.repository.jobs["old1"].state is State.SPOOLED
        assert harness.repository.jobs["old2"].state is State.DELIVERED

    run(scenario)


def test_a_start_recovers_once() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.stored(State.SPOOLED)
        harness.script.seconds |= {"unnotified_jobs": 5.0, "deliver": 60.0}
        await asyncio.gather(harness.recovery.recover(), harness.recovery.recover(), harness.recovery.tidy())
        await harness.recovery.recover()
        await harness.recovery.idle(1000)
        assert len(harness.script.of("deliver")) == 1
        assert len(harness.script.of("unnotified_jobs")) == 1

    run(scenario)


@pytest.mark.parametrize("unreadable", ["unnotified_jobs", "open_jobs"])
def test_what_could_not_be_read_at_the_start_is_read_again(unreadable: str) -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.stored(State.RELEASED, "old1")
        harness.stored(State.SPOOLED, "old2")
        harness.will(unreadable, StorageUnavailable("locked"))
        with pytest.raises(StorageUnavailable):
            await harness.recovery.recover()
        assert harness.script.of("deliver") == []
        await recovered(harness)
        assert harness.repository.jobs["old2"].state is State.DELIVERED
        assert list(harness.repository.notified_at) == ["old1"]

    run(scenario)


def test_a_start_says_how_much_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def scenario(harness: UseCaseHarness) -> None:
        harness.stored(State.SPOOLED, "old1")
        harness.stored(State.SPOOLED, "old2")
        harness.stored(State.RELEASED, "old3")
        harness.spool.unneeded = 4
        await recovered(harness)
        messages = [record.getMessage() for record in caplog.records]
        assert "recovered: 2 jobs go on, 1 requesters to notify" in messages
        assert "4 files removed from the spool" in messages

    run(scenario)


# --- housekeeping ---------------------------------------------------------------------------------------------------


def test_housekeeping_before_a_start_has_recovered_does_that_first() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.stored(State.SENDING)
        await harness.recovery.tidy()
        await harness.recovery.idle(1000)
        assert harness.repository.jobs["old1"].reason == "outcome_unknown"
        assert len(harness.script.of("sweep")) == 1

    run(scenario)


def test_housekeeping_removes_files_that_no_open_job_needs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def scenario(harness: UseCaseHarness) -> None:
        await recovered(harness)
        await asyncio.sleep(HOUR)
        harness.stored(State.SPOOLED, "old1", parked_at=harness.clock())
        harness.stored(State.DELIVERED, "old2")
        harness.stored(State.ACKED, "old3")
        await harness.recovery.tidy()
        assert harness.script.of("sweep")[-1] == (NOON + timedelta(hours=1), frozenset({"old1", "old3"}))
        assert "files removed" not in caplog.text  # none was

    run(scenario)


@pytest.mark.parametrize("found", [State.GENERATED, State.SPOOLED])
def test_housekeeping_continues_what_a_fault_left_behind(found: State) -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        await recovered(harness)
        harness.stored(found)
        await harness.recovery.tidy()
        await harness.recovery.idle(1000)
        assert harness.repository.jobs["old1"].state is State.DELIVERED

    run(scenario)


@pytest.mark.parametrize("found", [State.RESERVED, State.ACKED, State.SENDING])
def test_housekeeping_leaves_a_job_alone_that_is_not_paid_for(found: State) -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        await recovered(harness)
        harness.stored(found)
        await harness.recovery.tidy()
        await harness.recovery.idle(1000)
        assert harness.repository.jobs["old1"].state is found

    run(scenario)


def test_housekeeping_does_not_start_a_job_twice() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.stored(State.SPOOLED)
        harness.stored(State.GENERATED, "old2")
        harness.script.seconds |= {"deliver": 60.0, "write": 60.0}
        await harness.recovery.recover()
        await asyncio.sleep(1)
        await harness.recovery.tidy()
        await harness.recovery.idle(1000)
        assert len(harness.script.of("deliver")) == 2

    run(scenario)


def test_housekeeping_does_not_start_a_job_again_that_ended_while_it_read_the_database() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        await recovered(harness)
        job = harness.stored(State.SPOOLED)
        harness.script.seconds["deliver"] = 1
        harness.outcomes._tasks.start(harness.lifecycle.run(job), job)
        reading = harness.repository.open_jobs

        async def slowly() -> list[object]:
            jobs = await reading()
            await asyncio.sleep(5)
            return jobs  # type: ignore[return-value]

        harness.repository.open_jobs = slowly  # type: ignore[method-assign,assignment]
        await harness.recovery.tidy()
        await harness.recovery.idle(1000)
        assert len(harness.script.of("deliver")) == 1

    run(scenario)


def test_housekeeping_does_not_start_a_job_that_began_while_it_read_the_database() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        await recovered(harness)
        harness.script.seconds |= {"open_jobs": 5.0, "deliver": 60.0}
        tidying = asyncio.create_task(harness.recovery.tidy())
        await asyncio.sleep(1)
        await harness.accept()
        await tidying
        await harness.recovery.idle(1000)
        assert len(harness.script.of("deliver")) == 1

    run(scenario)


@pytest.mark.parametrize(("after", "released"), [(WEEK, False), (WEEK + 1, True)])
def test_a_kept_image_is_released_after_a_week_and_no_sooner(after: float, *, released: bool) -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        await recovered(harness)
        harness.stored(State.SPOOLED, parked_at=NOON)
        await asyncio.sleep(after)
        await harness.recovery.tidy()
        await harness.recovery.idle(1000)
        job = harness.repository.jobs["old1"]
        assert job.state is (State.RELEASED if released else State.SPOOLED)
        assert job.reason == ("undeliverable" if released else None)
        assert harness.script.order("deliver") == []
        if released:
            [(_, _, line)] = harness.script.of("alert")
            assert line == "job old1: undeliverable (observed=not claimed in time)"

    run(scenario)


def test_an_image_that_is_being_handed_over_is_not_released_after_its_week() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        await recovered(harness)
        harness.stored(State.SPOOLED, "old1", parked_at=NOON)
        harness.stored(State.SPOOLED, "old2", parked_at=NOON)
        await asyncio.sleep(WEEK + 1)
        harness.outcomes.claimed.add("old1")
        await harness.recovery.tidy()
        await harness.recovery.idle(1000)
        assert [harness.repository.jobs[name].state for name in ("old1", "old2")] == [State.SPOOLED, State.RELEASED]

    run(scenario)


# --- a stop ---------------------------------------------------------------------------------------------------------


def test_a_stop_finishes_what_is_in_progress_and_dismisses_who_waits() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.script.seconds["create"] = 60
        first, second = await harness.accept(1), await harness.accept(2)
        await asyncio.sleep(1)
        await harness.recovery.close(grace=100)
        assert harness.repository.jobs[first.id].state is State.DELIVERED
        assert harness.repository.jobs[second.id].reason == "not_started:restarting"
        assert list(harness.repository.notified_at) == [second.id]
        with pytest.raises(Restarting):
            await harness.accept(3)
        assert asyncio.get_running_loop().time() == pytest.approx(60)

    run(scenario)


def test_a_stop_waits_no_longer_than_its_grace_and_leaves_what_is_paid_for() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.stored(State.SPOOLED, "parked", parked_at=NOON)
        harness.script.seconds |= {"create": 5.0, "write": 1000.0}
        paid = await harness.accept(1)
        await asyncio.sleep(6)
        harness.script.seconds["create"] = 1000
        sent = await harness.accept(2)
        await asyncio.sleep(1)
        await harness.recovery.close(grace=100)
        jobs = harness.repository.jobs
        assert jobs[paid.id].state is State.GENERATED
        assert jobs[sent.id].reason == "outcome_unknown"
        assert jobs["parked"].ended_at is None
        assert asyncio.get_running_loop().time() == pytest.approx(107)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scenario)


def test_a_stop_gives_ten_seconds_to_tell_whose_jobs_it_has_ended() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.stored(State.ACKED)
        harness.script.seconds["notify"] = 9
        await harness.recovery.close(grace=0)
        assert list(harness.repository.notified_at) == ["old1"]
        harness.stored(State.ACKED, "old2")
        harness.script.seconds["notify"] = 1000
        await harness.recovery.close(grace=0)
        assert asyncio.get_running_loop().time() == pytest.approx(19)

    run(scenario)


def test_a_stop_keeps_what_is_paid_for_also_with_an_older_copy_of_the_database() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        await recovered(harness)
        harness.stored(State.SPOOLED, "old1", parked_at=NOON)
        harness.stored(State.SPOOLED, "old2")
        await harness.recovery.close(grace=0)
        assert {job.ended_at for job in harness.repository.jobs.values()} == {None}

    run(scenario, restored=True)


def test_a_stop_tries_nothing_again() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("deliver", DeliveryDelayed("503"), always=1000)
        accepted = await harness.accept()
        await asyncio.sleep(100)
        await harness.recovery.close(grace=1000)
        assert asyncio.get_running_loop().time() == pytest.approx(100)
        assert harness.repository.jobs[accepted.id].state is State.GENERATED

    run(scenario)


def test_a_stop_waits_for_what_a_person_has_started_and_accepts_nothing_after_that() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        async def sharing() -> None:
            with harness.recovery.waited_for():
                await asyncio.sleep(30)

        share = asyncio.create_task(sharing())
        await asyncio.sleep(1)
        await harness.recovery.close(grace=100)
        assert share.done()
        assert asyncio.get_running_loop().time() == pytest.approx(30)
        with pytest.raises(Restarting), harness.recovery.waited_for():
            pass

    run(scenario)


def test_a_stop_says_what_it_waits_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("deliver", Undeliverable("403"))
        harness.script.seconds["create"] = 5
        await harness.accept()
        await asyncio.sleep(1)
        await harness.recovery.close(grace=150)
        assert "finishing what is in progress, for at most 150 s" in [record.getMessage() for record in caplog.records]

    run(scenario)


def test_a_stop_with_nothing_in_progress_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def scenario(harness: UseCaseHarness) -> None:
        await harness.recovery.close(grace=150)
        assert "finishing" not in caplog.text

    run(scenario)
