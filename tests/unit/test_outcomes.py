"""Every ending but the delivery: a hold released, an image kept or handed over, and the requester told."""

from __future__ import annotations

import asyncio
import errno
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from bot.domain.errors import (
    DeliveryDelayed,
    InternalError,
    MessageDeleted,
    OutcomeUnknown,
    OutputUnreachable,
    PictureUnusable,
    ProviderRefused,
    StorageUnavailable,
    Undeliverable,
)
from bot.domain.models import AlertLevel, Claimed, State, require
from tests.support.factories import NOON
from tests.support.use_case_harness import IMAGE, a_claim, run

if TYPE_CHECKING:
    from bot.domain.errors import JobFailed
    from tests.support.use_case_harness import UseCaseHarness

MINUTE = 60.0
HOUR = 60 * MINUTE
FULL_DISK = OSError(errno.ENOSPC, "no space left")


# --- released --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "reason", "request_id", "level"),
    [
        (
            ProviderRefused("CONTENT_POLICY", 400, request_id="req-7"),
            "provider_refused:CONTENT_POLICY",
            "req-7",
            "count",
        ),
        (OutcomeUnknown("reset", request_id="req-8"), "outcome_unknown", "req-8", "warn"),
        (OutcomeUnknown("reset"), "outcome_unknown", None, "warn"),
        (PictureUnusable("cut off"), "picture_unusable", None, "page"),
    ],
)
def test_a_release_is_recorded_counted_reported_and_told_in_this_order(
    failure: JobFailed, reason: str, request_id: str | None, level: str
) -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        job = harness.stored(State.SPOOLED)
        await asyncio.sleep(5)
        await harness.outcomes.release(job, failure)
        order = ["released with", "released", "ended", "alert", "logged", "notify", "told", "remove"]
        assert harness.script.order() == order
        assert harness.script.of("logged") == [(job.id, State.RELEASED)]
        assert harness.script.of("released with") == [(reason, request_id)]
        assert harness.outcomes_counted == [failure.kind]
        assert harness.alerts == [(AlertLevel(level), failure.kind)]
        ended = harness.repository.jobs[job.id]
        assert (ended.state, ended.ended_at) == (State.RELEASED, NOON + timedelta(seconds=5))
        assert harness.script.of("notify") == [(ended,)]
        assert harness.spool.files == {}

    run(scenario)


def test_a_job_that_has_ended_is_not_released_again() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        job = harness.stored(State.DELIVERED)
        await harness.outcomes.release(job, OutcomeUnknown("reset"))
        assert harness.script.order() == ["released with", "released"]
        assert harness.repository.jobs[job.id].state is State.DELIVERED

    run(scenario)


def test_a_release_waits_for_the_database() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        job = harness.stored(State.SENDING)
        harness.will("released", *[StorageUnavailable("disk full")] * 9)
        await harness.outcomes.release(job, OutcomeUnknown("reset"))
        assert harness.repository.jobs[job.id].state is State.RELEASED
        assert len(harness.script.of("notify")) == 1

    run(scenario)


def test_a_requester_is_told_for_a_day_and_then_no_more() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        job = harness.stored(State.SENDING)
        harness.will("notify", DeliveryDelayed("503"), always=10_000)
        await harness.outcomes.release(job, OutcomeUnknown("reset"))
        assert 24 <= harness.script.times("notify")[-1] / HOUR < 24.1
        assert list(harness.repository.notified_at) == [job.id]

    run(scenario)


def test_a_notification_that_fails_a_day_later_to_the_second_is_the_last() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        job = harness.stored(State.RELEASED)
        harness.will("notify", DeliveryDelayed("503"))
        harness.script.seconds["notify"] = 24 * HOUR
        await harness.outcomes.notify(job)
        assert len(harness.script.of("notify")) == 1
        assert harness.repository.notified_at == {job.id: NOON + timedelta(days=1)}

    run(scenario)


def test_pauses_between_notifications_grow_and_the_database_is_asked_about_no_released_job() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        job = harness.stored(State.RELEASED)
        harness.will("notify", *[DeliveryDelayed("503")] * 6)
        await harness.outcomes.notify(job)
        times = harness.script.times("notify")
        assert len(times) == 7
        assert 31.5 <= times[-1] <= 63
        assert harness.script.of("job") == []

    run(scenario)


def test_a_requester_who_cannot_be_told_is_not_tried_again() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        job = harness.stored(State.RELEASED)
        harness.will("notify", Undeliverable("403"))
        harness.will("told", *[StorageUnavailable("disk full")] * 3)
        await harness.outcomes.notify(job)
        assert len(harness.script.of("notify")) == 1
        assert list(harness.repository.notified_at) == [job.id]

    run(scenario)


def test_a_stop_while_a_requester_is_told_leaves_that_to_the_next_start() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        job = harness.stored(State.RELEASED)
        harness.will("notify", DeliveryDelayed("503"), always=100)
        telling = asyncio.create_task(harness.outcomes.notify(job))
        await asyncio.sleep(30)
        harness.recovery.stop_accepting()
        await telling
        assert harness.repository.notified_at == {}

    run(scenario)


# --- kept ------------------------------------------------------------------------------------------------------------


def test_an_undeliverable_image_on_disk_is_kept_reported_and_told() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        job = harness.stored(State.SPOOLED)
        await asyncio.sleep(5)
        await harness.outcomes.park(job, Undeliverable("403"))
        kept = await harness.ended(job)
        assert (kept.state, kept.parked_at) == (State.SPOOLED, NOON + timedelta(seconds=5))
        assert harness.script.of("write") == []
        assert harness.script.of("notify") == [(kept,)]
        [(level, key, line)] = harness.script.of("alert")
        assert (level, key) == (AlertLevel.WARN, "undeliverable")
        assert job.id in line
        assert "403" in line
        assert harness.spool.files == {job.id: IMAGE}

    run(scenario)


def test_an_image_is_kept_although_the_database_refuses_to_say_so_at_first() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("write", FULL_DISK)
        harness.will("deliver", MessageDeleted("10008"))
        harness.will("spooled", *[StorageUnavailable("disk full")] * 3)
        harness.will("parked", *[StorageUnavailable("disk full")] * 3)
        job = await harness.ended(await harness.accept())
        assert (job.state, job.parked_at is None) == (State.SPOOLED, False)
        assert harness.spool.files == {job.id: IMAGE}
        assert harness.alerts[-1] == (AlertLevel.WARN, "message_deleted")

    run(scenario)


def test_an_image_in_memory_waits_for_the_disk_before_it_is_kept() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("write", *[FULL_DISK] * 7)
        harness.will("deliver", Undeliverable("403"))
        job = await harness.ended(await harness.accept())
        assert job.parked_at is not None
        times = harness.script.times("write")
        assert len(times) == 8
        assert all(2**number / 2 <= times[number + 2] - times[number + 1] <= 2**number for number in range(6))
        assert require(job.picture).content is None
        assert harness.spool.files == {job.id: IMAGE}

    run(scenario)


def test_an_image_for_which_the_disk_has_no_room_in_a_day_is_released() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("write", FULL_DISK, always=10_000)
        harness.will("deliver", Undeliverable("403"))
        job = await harness.ended(await harness.accept())
        assert job.reason == "output_unreachable"
        assert 23.9 < harness.script.times("write")[-1] / HOUR < 24.1
        assert "spool: OSError 28" in harness.script.of("alert")[-1][2]
        assert job.parked_at is None

    run(scenario)


def test_an_image_whose_time_at_the_provider_is_over_to_the_second_is_not_written_again() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("write", FULL_DISK, FULL_DISK)
        harness.will("deliver", Undeliverable("403"))
        harness.script.seconds["deliver"] = 24 * HOUR - 5 * MINUTE
        job = await harness.ended(await harness.accept())
        assert len(harness.script.of("write")) == 2
        assert job.state is State.RELEASED

    run(scenario)


def test_an_image_in_memory_that_is_damaged_is_written_no_more_than_twice() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("write", FULL_DISK, PictureUnusable("cut off"), PictureUnusable("cut off"))
        harness.will("deliver", Undeliverable("403"))
        job = await harness.ended(await harness.accept())
        assert len(harness.script.of("write")) == 3
        assert job.reason == "picture_unusable"

    run(scenario)


def test_a_stop_while_an_image_waits_for_the_disk_leaves_it_to_the_next_start() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("write", FULL_DISK, always=100)
        harness.will("deliver", Undeliverable("403"))
        accepted = await harness.accept()
        await asyncio.sleep(30)
        harness.recovery.stop_accepting()
        job = await harness.ended(accepted)
        assert (job.state, job.parked_at) == (State.GENERATED, None)
        assert harness.script.of("notify") == []

    run(scenario)


def test_a_kept_image_is_announced_for_a_day_while_the_job_is_free_for_a_claim() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        job = harness.stored(State.SPOOLED)
        harness.will("notify", DeliveryDelayed("503"), always=10_000)
        await harness.outcomes.park(job, Undeliverable("403"))
        await asyncio.sleep(HOUR)
        harness.script.seconds["hand_over"] = 0
        await harness.ended(job)
        assert 24 <= harness.script.times("notify")[-1] / HOUR < 24.1

    run(scenario)


@pytest.mark.parametrize("ended", ["claimed", "forgotten"])
def test_an_announcement_ends_once_its_image_has_been_claimed(ended: str) -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        job = harness.stored(State.SPOOLED)
        harness.will("notify", DeliveryDelayed("503"), always=10_000)
        await harness.outcomes.park(job, Undeliverable("403"))
        await asyncio.sleep(HOUR)
        if ended == "claimed":
            assert await harness.outcomes.claim(a_claim(harness.clock())) == Claimed(1, 0)
        else:
            del harness.repository.jobs[job.id]
        await harness.recovery.idle(10**6)
        assert harness.script.times("notify")[-1] < 2 * HOUR

    run(scenario)


@pytest.mark.parametrize("failure", [Undeliverable("403"), DeliveryDelayed("503")])
def test_an_announcement_that_cannot_be_made_is_no_fault_and_neither_is_a_stop(
    failure: JobFailed, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        job = harness.stored(State.SPOOLED)
        harness.will("notify", failure, always=100)
        await harness.outcomes.park(job, Undeliverable("403"))
        await asyncio.sleep(30)
        await harness.recovery.close(grace=1000)
        assert asyncio.get_running_loop().time() < 31
        assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
        assert harness.repository.jobs[job.id].state is State.SPOOLED

    run(scenario)


# --- faults of the program -------------------------------------------------------------------------------------------


def test_a_fault_keeps_an_image_on_disk() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        job = harness.stored(State.SPOOLED)
        await harness.outcomes.internal_error(harness.stored(State.SPOOLED))
        assert (await harness.ended(job)).parked_at == NOON
        assert harness.alerts == [(AlertLevel.WARN, "undeliverable"), (AlertLevel.PAGE, "unforeseen")]
        assert "(observed=a fault of this program)" in harness.script.of("alert")[0][2]
        assert job.id in harness.script.of("alert")[1][2]

    run(scenario)


@pytest.mark.parametrize(
    ("after", "state"),
    [(0.0, State.GENERATED), (24 * HOUR - 5 * MINUTE - 1, State.GENERATED), (24 * HOUR - 5 * MINUTE, State.RELEASED)],
)
def test_a_fault_leaves_an_image_to_housekeeping_while_the_provider_keeps_it(after: float, state: State) -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        job = harness.stored(State.GENERATED)
        await asyncio.sleep(after)
        await harness.outcomes.internal_error(job)
        assert harness.repository.jobs[job.id].state is state
        assert (AlertLevel.PAGE, "unforeseen") in harness.alerts

    run(scenario)


def test_a_fault_is_judged_by_what_the_database_knows_and_not_by_what_the_job_had_before() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        before = harness.stored(State.SENDING)
        harness.stored(State.GENERATED)
        harness.will("job", StorageUnavailable("disk full"))
        await harness.outcomes.internal_error(before)
        assert harness.repository.jobs[before.id].state is State.GENERATED

    run(scenario)


def test_a_fault_after_the_end_changes_nothing() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        job = harness.stored(State.RELEASED)
        await harness.outcomes.internal_error(job)
        assert harness.script.order() == ["job"]

    run(scenario)


def test_a_fault_before_the_payment_ends_the_job() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        job = harness.stored(State.ACKED)
        await harness.outcomes.internal_error(job)
        assert harness.repository.jobs[job.id].reason == InternalError.kind

    run(scenario)


# --- claimed ---------------------------------------------------------------------------------------------------------


def kept(harness: UseCaseHarness, *job_ids: str, file: bool = True) -> None:
    """Images of member 1 that wait to be claimed."""
    for job_id in job_ids:
        harness.stored(State.SPOOLED, job_id, file=file, parked_at=NOON)


def states(harness: UseCaseHarness) -> list[State]:
    return [job.state for job in harness.repository.jobs.values()]


def test_a_claim_hands_over_the_oldest_image_and_charges_for_it() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        kept(harness, "old1", "old2", "old3")
        harness.script.seconds["hand_over"] = 5
        claim = a_claim(harness.clock())
        assert await harness.outcomes.claim(claim) == Claimed(1, 2)
        assert harness.script.order("claiming", "hand_over", "delivered", "remove") == [
            "claiming",
            "hand_over",
            "delivered",
            "remove",
        ]
        assert harness.script.of("claiming") == [("old1", claim)]
        [(job, picture)] = harness.script.of("hand_over")
        assert (job.id, job.claim, picture) == ("old1", claim, job.picture)
        done = harness.repository.jobs["old1"]
        assert (done.state, done.message_id) == (State.DELIVERED, 601)
        assert done.ended_at == NOON + timedelta(seconds=5)
        assert harness.outcomes_counted == ["claimed"]
        assert sorted(harness.spool.files) == ["old2", "old3"]
        assert harness.script.of("parked_jobs") == [(1,)]

    run(scenario)


def test_a_claim_without_images_says_how_many_wait() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.stored(State.SPOOLED, "of2", user_id=2, parked_at=NOON)
        assert await harness.outcomes.claim(a_claim(harness.clock())) == Claimed(0, 0)
        assert harness.script.of("parked_jobs") == [(1,), (1,)]

    run(scenario)


def test_a_second_claim_at_the_same_time_takes_the_next_image() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        kept(harness, "old1", "old2")
        harness.script.seconds["hand_over"] = 5
        claims = [asyncio.create_task(harness.outcomes.claim(a_claim(harness.clock()))) for _ in range(3)]
        assert [await claim for claim in claims] == [Claimed(1, 1), Claimed(1, 0), Claimed(0, 2)]
        assert [job.id for job, _ in harness.script.of("hand_over")] == ["old1", "old2"]
        assert harness.outcomes.claimed == set()

    run(scenario)


def test_housekeeping_does_not_touch_an_image_that_is_being_handed_over() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        kept(harness, "old1")
        await harness.recovery.recover()
        await asyncio.sleep(8 * 24 * HOUR)
        harness.script.seconds["hand_over"] = 5
        claiming = asyncio.create_task(harness.outcomes.claim(a_claim(harness.clock())))
        await asyncio.sleep(1)
        await harness.recovery.tidy()
        assert await claiming == Claimed(1, 0)
        assert harness.script.of("released") == []

    run(scenario)


@pytest.mark.parametrize("meanwhile", ["ended", "forgotten", "in progress"])
def test_an_image_that_is_not_to_be_had_any_more_does_not_block_the_next(meanwhile: str) -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        kept(harness, "old1", "old2")
        harness.script.seconds["parked_jobs"] = 5
        claiming = asyncio.create_task(harness.outcomes.claim(a_claim(harness.clock())))
        harness.script.seconds["job"] = 1
        await asyncio.sleep(5.5)
        first = harness.repository.jobs["old1"]
        if meanwhile == "ended":
            harness.stored(State.RELEASED, "old1")
        elif meanwhile == "forgotten":
            del harness.repository.jobs["old1"]
        else:
            harness.script.seconds["deliver"] = 60
            harness.outcomes._tasks.start(harness.lifecycle.run(first), first)
        assert await claiming == Claimed(1, 0)
        assert [job.id for job, _ in harness.script.of("hand_over")] == ["old2"]

    run(scenario)


def test_an_image_that_is_gone_from_the_spool_is_released_and_the_next_is_handed_over() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        kept(harness, "old1", file=False)
        kept(harness, "old2")
        assert await harness.outcomes.claim(a_claim(harness.clock())) == Claimed(1, 0)
        assert harness.repository.jobs["old1"].reason == "picture_unusable"
        assert "(observed=gone from the spool)" in harness.script.of("alert")[0][2]
        assert states(harness) == [State.RELEASED, State.DELIVERED]

    run(scenario)


def test_images_that_discord_does_not_take_stay_kept_and_the_first_failure_is_told() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        kept(harness, "old1", "old2", "old3")
        harness.will("hand_over", PictureUnusable("too large"), Undeliverable("403"))
        claim = a_claim(harness.clock())
        with pytest.raises(PictureUnusable):
            await harness.outcomes.claim(claim)
        assert states(harness) == [State.SPOOLED, State.SPOOLED, State.DELIVERED]
        assert harness.script.of("claiming") == [
            ("old1", claim),
            ("old1", None),
            ("old2", claim),
            ("old2", None),
            ("old3", claim),
        ]
        assert harness.outcomes.claimed == set()

    run(scenario)


def test_after_an_uncertain_answer_nothing_else_is_handed_over_and_the_claim_is_remembered() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        kept(harness, "old1", "old2")
        harness.will("hand_over", DeliveryDelayed("reset"))
        claim = a_claim(harness.clock())
        with pytest.raises(DeliveryDelayed):
            await harness.outcomes.claim(claim)
        assert len(harness.script.of("hand_over")) == 1
        assert harness.repository.jobs["old1"].claim == claim
        assert harness.outcomes.claimed == set()

    run(scenario)


def test_a_new_claim_finishes_the_earlier_one_where_that_was_begun() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        kept(harness, "old1", "old2")
        harness.will("hand_over", DeliveryDelayed("reset"))
        first = a_claim(harness.clock())
        with pytest.raises(DeliveryDelayed):
            await harness.outcomes.claim(first)
        await asyncio.sleep(MINUTE)
        assert await harness.outcomes.claim(a_claim(harness.clock())) == Claimed(1, 1, earlier=True)
        assert [job.claim for job, _ in harness.script.of("hand_over")] == [first, first]
        assert states(harness) == [State.DELIVERED, State.SPOOLED]

    run(scenario)


@pytest.mark.parametrize(
    ("after", "answer", "told"),
    [
        (14 * MINUTE - 1, None, Claimed(1, 0, earlier=True)),
        (14 * MINUTE, None, Claimed(1, 0)),
        (MINUTE, MessageDeleted("10008"), Claimed(1, 0)),
    ],
)
def test_an_earlier_claim_counts_while_its_answer_can_be_reached(
    after: float, answer: JobFailed | None, told: Claimed
) -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.stored(State.SPOOLED, parked_at=NOON, claim=a_claim(harness.clock()))
        harness.will("hand_over", answer)
        await asyncio.sleep(after)
        new = a_claim(harness.clock())
        assert await harness.outcomes.claim(new) == told
        assert harness.script.of("claiming") == ([] if told.earlier else [("old1", new)])

    run(scenario)


def test_an_image_that_was_claimed_twice_is_charged_once() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        kept(harness, "old1")
        harness.script.seconds["hand_over"] = 5
        claiming = asyncio.create_task(harness.outcomes.claim(a_claim(harness.clock())))
        await asyncio.sleep(1)
        harness.stored(State.DELIVERED)
        assert await claiming == Claimed(1, 0)
        assert harness.outcomes_counted == []

    run(scenario)


def test_a_charge_for_a_claimed_image_waits_for_the_database() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        kept(harness, "old1")
        harness.will("delivered", *[StorageUnavailable("disk full")] * 3)
        assert await harness.outcomes.claim(a_claim(harness.clock())) == Claimed(1, 0)
        assert states(harness) == [State.DELIVERED]

    run(scenario)


# --- claims that a stop has interrupted ------------------------------------------------------------------------------


def test_an_interrupted_claim_is_finished_once_discord_can_be_reached() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        job = harness.stored(State.SPOOLED, parked_at=NOON, claim=a_claim(harness.clock()))
        harness.will("hand_over", *[DeliveryDelayed("503")] * 5)
        await harness.outcomes.finish_claim(job)
        times = harness.script.times("hand_over")
        assert len(times) == 6
        assert 15.5 <= times[-1] <= 31
        assert harness.repository.jobs[job.id].state is State.DELIVERED

    run(scenario)


def test_an_interrupted_claim_is_tried_while_its_answer_can_be_reached() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        job = harness.stored(State.SPOOLED, parked_at=NOON, claim=a_claim(harness.clock()))
        harness.will("hand_over", DeliveryDelayed("503"), always=100)
        await harness.outcomes.finish_claim(job)
        assert 7 * MINUTE < harness.script.times("hand_over")[-1] < 14 * MINUTE
        assert harness.repository.jobs[job.id].state is State.SPOOLED

    run(scenario)


@pytest.mark.parametrize("answer", [Undeliverable("403"), OutputUnreachable("x")])
def test_an_interrupted_claim_that_cannot_be_finished_leaves_the_image_hash(answer: JobFailed) -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        job = harness.stored(State.SPOOLED, parked_at=NOON, claim=a_claim(harness.clock()))
        harness.will("hand_over", answer)
        await harness.outcomes.finish_claim(job)
        assert len(harness.script.of("hand_over")) == 1
        assert harness.repository.jobs[job.id].state is State.SPOOLED

    run(scenario)


def test_a_stop_interrupts_an_interrupted_claim_again() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        job = harness.stored(State.SPOOLED, parked_at=NOON, claim=a_claim(harness.clock()))
        harness.will("hand_over", DeliveryDelayed("503"), always=100)
        finishing = asyncio.create_task(harness.outcomes.finish_claim(job))
        await asyncio.sleep(30)
        harness.recovery.stop_accepting()
        await asyncio.wait_for(finishing, 1)
        assert harness.repository.jobs[job.id].state is State.SPOOLED

    run(scenario)


def test_endings_are_logged_with_their_job_and_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("notify", Undeliverable("403"))
        await harness.outcomes.release(harness.stored(State.SENDING), OutcomeUnknown("reset"))
        await harness.outcomes.release(harness.stored(State.DELIVERED), OutcomeUnknown("reset"))
        harness.will("hand_over", Undeliverable("404"))
        claimed = harness.stored(State.SPOOLED, parked_at=NOON, claim=a_claim(harness.clock()))
        await harness.outcomes.finish_claim(claimed)
        assert [record.getMessage() for record in caplog.records] == [
            "job old1 released: outcome_unknown (observed=reset)",
            "job old1: its requester could not be notified: undeliverable (observed=403)",
            "job old1 had already ended",
            "job old1 stays kept: undeliverable (observed=404)",
        ]

    run(scenario)
