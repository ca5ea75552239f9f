"""What the use case asks of the outside, in which order, and when: from a request to the charge for its image."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from bot.domain.errors import (
    AnswerUnusable,
    DeliveryDelayed,
    OutcomeUnknown,
    OutputGone,
    OutputUnreachable,
    PictureUnusable,
    ProviderRefused,
    ProviderUnreachable,
    QuotaExceeded,
    SourceExpired,
    StorageUnavailable,
    TooManyActiveJobs,
    Undeliverable,
)
from bot.domain.models import AlertLevel, Allowance, Circuit, Downloading, Generating, Queued, State, require
from bot.domain.quota import day
from bot.ops.logs import job_id
from tests.support.factories import NOON, limit, request, requester
from tests.support.use_case_harness import IMAGE, OUTPUT, run

if TYPE_CHECKING:
    from bot.domain.errors import JobFailed
    from bot.domain.models import Job
    from tests.support.use_case_harness import UseCaseHarness

MINUTE = 60.0
HOUR = 60 * MINUTE
FULL_DISK = OSError(errno.ENOSPC, "no space left")
SPENT = QuotaExceeded(Allowance(limit(), 5), 1)


class Discord(Exception):
    """Discord does not take a reply."""


# --- the straight line ---------------------------------------------------------------------------------------------


def test_a_request_becomes_an_image_and_one_charge_in_this_order() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        job = await harness.ended(await harness.accept())
        order = [name for name in harness.script.order() if name not in ("look", "keep")]  # beside the others
        assert order[:8] == [
            "check",
            "reserve",
            "reply",
            "started",
            "prepare",
            "sending",
            "create",
            "generated",
        ]
        assert order[8:11] == ["write", "fetch", "fetched"]
        assert order[11:] == ["deliver", "delivered", "ended", "logged", "remove", "add_again_reaction"]
        assert (job.state, job.message_id) == (State.DELIVERED, 501)
        assert harness.outcomes_counted == ["delivered"]
        assert harness.script.of("logged") == [(job.id, State.DELIVERED)]
        assert harness.alerts == []

    run(scenario)


def test_every_step_has_what_the_one_before_has_found() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        for name in ("reply", "create", "write", "deliver"):
            harness.script.seconds[name] = 10
        job = await harness.ended(await harness.accept())
        [(prepared,)] = harness.script.of("prepare")
        [(sent,)] = harness.script.of("create")
        assert prepared == job.request
        assert sent == replace(job.request, image_base64="data:")
        assert harness.script.of("generated") == [(job.id, OUTPUT, NOON + timedelta(seconds=20))]
        assert harness.script.of("fetch") == [(OUTPUT.url,)]
        [(shown, picture)] = harness.script.of("deliver")
        assert (shown.id, shown.state, shown.picture) == (job.id, State.GENERATED, picture)
        assert harness.script.of("add_again_reaction") == [(job.id, 501)]
        assert (job.sent_at, job.ended_at) == (NOON + timedelta(seconds=10), NOON + timedelta(seconds=40))
        assert harness.script.of("keep") == [(job.id,)]

    run(scenario)


def test_a_hold_has_the_models_cost_and_the_members_limit_of_discords_day() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        await asyncio.sleep(10)
        parent = harness.stored(State.RELEASED)
        yesterday = NOON - timedelta(days=1)
        asked = replace(request(), prompt="again")
        await harness.lifecycle.accept(asked, requester(4, at=yesterday), harness.reply, parent=parent)
        [(held,)] = harness.script.of("reserve")
        assert (held.request, held.requester.user_id) == (asked, 4)
        assert (held.cost, held.limits) == (3, (limit(5, user_id=4, window=day(yesterday)),))
        assert (held.now, held.parent_id) == (NOON + timedelta(seconds=10), parent.id)
        assert harness.script.of("check") == [(asked,)]

    run(scenario)


def test_a_member_is_told_the_limits_of_today() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        await asyncio.sleep(13 * HOUR)
        await harness.admission.allowances(requester(4, at=harness.clock()))
        tomorrow = day(NOON + timedelta(days=1))
        assert harness.script.of("allowances") == [((limit(5, user_id=4, window=tomorrow),),)]

    run(scenario)


def test_a_reply_says_when_generation_starts_or_how_many_are_ahead() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.script.seconds["create"] = 60
        await asyncio.sleep(10)
        first, second = await harness.accept(1), await harness.accept(2)
        assert harness.script.of("reply") == [
            (first.id, Generating(NOON + timedelta(seconds=10))),
            (second.id, Queued(1)),
        ]
        assert (first.state, first.message_id) == (State.RESERVED, 101)
        assert (second.state, second.message_id) == (State.ACKED, 101)
        await harness.ended(second)
        assert harness.script.of("show_progress") == [(second.id, Generating(NOON + timedelta(seconds=70)))]

    run(scenario)


def test_what_a_reply_shows_is_not_shown_again_though_the_turn_comes_meanwhile() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.script.seconds["create"] = 5
        await harness.accept(1)
        harness.script.seconds["reply"] = 20
        job = await harness.ended(await harness.accept(2))
        assert (job.id, Queued(1)) in harness.script.of("reply")
        [(_, shown)] = harness.script.of("show_progress")
        assert shown == Generating(NOON + timedelta(seconds=20))

    run(scenario)


def test_a_request_that_starts_at_once_is_never_shown_as_queued() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.script.seconds["create"] = 60
        await harness.ended(await harness.accept())
        assert harness.script.of("show_progress") == []

    run(scenario)


# --- what is refused ----------------------------------------------------------------------------------------------


def test_a_request_whose_image_has_expired_holds_nothing_and_no_ticket() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.sources.rejected = SourceExpired("image")
        with pytest.raises(SourceExpired):
            await harness.accept()
        assert harness.script.order() == ["check"]
        assert harness.queue.tickets == 0

    run(scenario)


@pytest.mark.parametrize("refusal", [SPENT, StorageUnavailable("disk full"), asyncio.CancelledError()])
def test_a_request_that_the_ledger_refuses_gives_its_place_back(refusal: BaseException) -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("reserve", refusal, refusal)
        for _ in range(2):  # a place that leaked would refuse the second one
            with pytest.raises(type(refusal)):
                await harness.accept()
        assert (harness.queue.tickets, harness.queue.running, harness.queue.waiting) == (0, 0, 0)
        assert harness.script.of("reply") == []
        assert (await harness.ended(await harness.accept())).state is State.DELIVERED

    run(scenario, per_member=1)


def test_a_member_at_the_limit_is_refused_before_anything_is_stored() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        job = await harness.accept()
        with pytest.raises(TooManyActiveJobs):
            await harness.accept()
        assert len(harness.script.of("reserve")) == 1
        await harness.accept(2)
        await harness.ended(job)
        await harness.accept()

    run(scenario, per_member=1)


@pytest.mark.parametrize("failing", ["reply", "acked"])
def test_a_reply_that_cannot_be_shown_or_recorded_returns_the_hold_and_the_place(failing: str) -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        fault = Discord() if failing == "reply" else StorageUnavailable("disk full")
        harness.will(failing, fault)
        harness.script.seconds["look"] = 1  # with something to wait for, the message is recorded before
        with pytest.raises(type(fault)):
            await harness.accept()
        assert harness.queue.tickets == 0
        job = await harness.ended(harness.repository.jobs["job1"])
        assert (job.state, job.reason) == (State.RELEASED, "not_started")
        moment = timedelta(seconds=0.05 if failing == "acked" else 0)  # the end of the look is waited for that long
        assert harness.repository.notified_at == {job.id: NOON + moment}
        assert harness.script.of("create") == []
        assert harness.script.of("started") == []

    run(scenario)


def test_a_stop_waits_for_a_request_that_is_being_accepted() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.script.seconds["reply"] = 5
        accepting = asyncio.create_task(harness.accept())
        await asyncio.sleep(1)
        await harness.recovery.idle(1000)
        assert accepting.done()
        assert harness.repository.jobs["job1"].state is State.DELIVERED

    run(scenario)


def test_a_stop_waits_for_a_hold_that_is_being_taken() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.script.seconds["reserve"] = 5
        accepting = asyncio.create_task(harness.accept())
        await asyncio.sleep(1)
        await harness.recovery.idle(1000)
        assert accepting.done()

    run(scenario)


# --- waiting in the queue -----------------------------------------------------------------------------------------


def test_a_cancelled_request_is_never_sent_and_gives_its_place_back() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.script.seconds["create"] = 60
        first, second = await harness.accept(1), await harness.accept(2)
        await asyncio.sleep(1)
        assert not harness.lifecycle.cancel(first.id)  # it has started
        assert harness.lifecycle.cancel(second.id)
        await asyncio.sleep(1)
        assert not harness.lifecycle.cancel(second.id)
        assert not harness.lifecycle.cancel("nothing")
        assert (await harness.ended(second)).reason == "not_started:cancelled"
        assert len(harness.script.of("create")) == 1
        assert harness.queue.tickets == 0

    run(scenario)


def test_a_source_image_that_expired_in_the_queue_ends_the_request_before_its_call() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("prepare", SourceExpired("image"))
        job = await harness.ended(await harness.accept())
        assert job.reason == "not_started:sourceexpired"
        assert harness.script.of("sending") == []
        assert harness.queue.tickets == 0

    run(scenario)


def test_a_call_that_cannot_be_recorded_first_is_not_made() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("sending", StorageUnavailable("disk full"))
        job = await harness.ended(await harness.accept())
        assert job.reason == "not_started"
        assert harness.script.of("create") == []
        assert (harness.queue.tickets, harness.queue.running) == (0, 0)

    run(scenario)


def test_the_next_request_starts_while_the_image_of_the_one_before_is_fetched() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.script.seconds |= {"create": 5.0, "write": 60.0}
        await harness.accept(1)
        await harness.ended(await harness.accept(2))
        assert harness.script.times("create") == [0, 5]

    run(scenario)


def test_no_more_than_eight_images_are_transferred_at_once_in_either_direction() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.script.seconds |= {"write": 10.0, "deliver": 10.0}
        for member in range(9):
            await harness.accept(member)
        await harness.recovery.idle(1000)
        assert harness.script.times("write") == [0] * 8 + [10]
        assert harness.script.times("deliver") == [10] * 7 + [20] * 2

    run(scenario, concurrency=9)


# --- the paid call --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failures", "calls", "state"),
    [
        ([OutcomeUnknown("reset")], 1, State.RELEASED),
        ([AnswerUnusable("{}")], 1, State.RELEASED),
        ([ProviderRefused("CONTENT_POLICY", 400)], 1, State.RELEASED),
        ([ProviderRefused("INTERNAL_ERROR", 500)], 1, State.RELEASED),
        ([ProviderUnreachable("dns")] * 2, 3, State.DELIVERED),
        ([ProviderUnreachable("dns")] * 3, 3, State.RELEASED),
        ([ProviderRefused("TOO_MANY_REQUESTS", 429)] * 2, 3, State.DELIVERED),
        ([ProviderRefused("TOO_MANY_REQUESTS", 429)] * 3, 3, State.RELEASED),
        ([ProviderUnreachable("dns"), OutcomeUnknown("reset")], 2, State.RELEASED),
    ],
)
def test_a_call_is_made_again_only_if_the_one_before_did_no_work(
    failures: list[JobFailed], calls: int, state: State
) -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("create", *failures)
        job = await harness.ended(await harness.accept())
        assert len(harness.script.of("create")) == calls
        assert job.state is state
        assert job.reason == (failures[-1].reason if state is State.RELEASED else None)
        assert len(harness.script.of("sending")) == 1
        assert harness.queue.tickets == 0

    run(scenario)


def test_a_server_error_is_retried_once_if_the_operator_allows_it() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("create", *[ProviderRefused("INTERNAL_ERROR", 500)] * 2)
        job = await harness.ended(await harness.accept())
        assert len(harness.script.of("create")) == 2
        assert job.reason == "provider_refused:INTERNAL_ERROR"

    run(scenario, retry_server_errors=True)


@pytest.mark.parametrize("named", [{"persona": "a"}, {"style": "a"}, {"persona": "a", "style": "b"}])
def test_a_preset_that_is_not_found_says_nothing_about_the_service(named: dict[str, str]) -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("create", *[ProviderRefused("NOT_FOUND", 404)] * 5)
        for member in range(5):
            await harness.ended(await harness.accept(member, **named))
        assert harness.queue.circuits.open == {}

    run(scenario)


def test_a_route_that_is_not_found_opens_the_circuit_of_too_many_failures() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("create", *[ProviderRefused("NOT_FOUND", 404)] * 5)
        for member in range(5):
            await harness.ended(await harness.accept(member))
        assert list(harness.queue.circuits.open) == [Circuit.FAILURES]

    run(scenario)


def test_the_provider_is_left_alone_for_as_long_as_it_asks() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("create", ProviderRefused("TOO_MANY_REQUESTS", 429, retry_after=timedelta(seconds=40)))
        await harness.accept(1)
        await asyncio.sleep(1)
        waiting = await harness.accept(2)
        await harness.ended(waiting)
        first, *later = harness.script.times("create")
        assert first == 0
        assert len(later) == 2
        assert all(40 <= at <= 50 for at in later)

    run(scenario, concurrency=4)  # halved: there is room for the second one, but the pause counts for it as well


def test_calls_that_work_close_a_circuit_again() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("create", ProviderRefused("INSUFFICIENT_CREDITS", 402))
        await harness.ended(await harness.accept())
        assert harness.alerts == [(AlertLevel.PAGE, "circuit:balance"), (AlertLevel.COUNT, "provider_refused")]
        await asyncio.sleep(10 * MINUTE)
        await harness.ended(await harness.accept())
        assert harness.queue.circuits.open == {}

    run(scenario)


def test_a_stop_during_the_pause_before_a_call_ends_the_request_as_its_last_try_did() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("create", ProviderRefused("TOO_MANY_REQUESTS", 429, retry_after=timedelta(seconds=100)))
        accepted = await harness.accept()
        await asyncio.sleep(1)
        harness.recovery.stop_accepting()
        job = await harness.ended(accepted)
        assert job.reason == "provider_refused:TOO_MANY_REQUESTS"
        assert len(harness.script.of("create")) == 1
        assert asyncio.get_running_loop().time() < 2

    run(scenario)


def test_an_answer_is_recorded_however_long_the_database_refuses_it() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("generated", *[StorageUnavailable("disk full")] * 50)
        job = await harness.ended(await harness.accept())
        assert job.state is State.DELIVERED
        assert len(harness.script.of("create")) == 1

    run(scenario)


# --- fetching the image --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failures", "fetches", "reason"),
    [
        ([OutputUnreachable("reset")] * 9, 10, None),
        ([OutputGone("404")] * 2, 3, None),
        ([OutputGone("404")] * 3, 3, "output_gone"),
        ([PictureUnusable("cut off")], 2, None),
        ([PictureUnusable("cut off")] * 2, 2, "picture_unusable"),
    ],
)
def test_a_download_is_tried_again_while_the_output_may_still_arrive(
    failures: list[JobFailed], fetches: int, reason: str | None
) -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("write", *failures)
        job = await harness.ended(await harness.accept())
        assert len(harness.script.of("write")) == fetches
        assert job.reason == reason
        assert len(harness.script.of("create")) == 1

    run(scenario)


def test_a_download_is_tried_until_the_provider_keeps_the_output_no_longer() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("write", OutputUnreachable("reset"), always=10_000)
        job = await harness.ended(await harness.accept())
        assert job.reason == "output_unreachable"
        hours = harness.script.times("write")[-1] / HOUR
        assert 23.9 < hours < 24.1
        assert harness.alerts == [(AlertLevel.PAGE, "output_unreachable")]

    run(scenario)


def test_an_output_that_has_expired_to_the_second_is_not_fetched_again() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("write", OutputUnreachable("reset"))
        harness.script.seconds["write"] = 24 * HOUR - 5 * MINUTE
        job = await harness.ended(await harness.accept())
        assert len(harness.script.of("write")) == 1
        assert job.reason == "output_unreachable"

    run(scenario)


def test_a_late_image_is_announced_with_its_next_try() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("write", OutputUnreachable("reset"), always=6)
        accepted = await harness.accept()
        await harness.ended(accepted)
        shown = [status for _, status in harness.script.of("show_progress")]
        assert shown
        assert all(isinstance(status, Downloading) for status in shown)
        tries = harness.script.times("write")
        assert require(shown[0].next_try) - NOON == pytest.approx(
            timedelta(seconds=next(at for at in tries if at > harness.script.times("show_progress")[0])),
            abs=timedelta(seconds=1e-3),
        )

    run(scenario)


def test_a_late_image_takes_up_no_place_among_the_transfers_while_it_pauses() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("write", OutputUnreachable("reset"), always=17 * 9)
        for member in range(17):
            await harness.accept(member)
        await asyncio.sleep(0.4)
        assert len(harness.script.of("write")) == 17

    run(scenario, concurrency=17)


def test_an_image_that_the_disk_has_no_room_for_is_delivered_from_memory() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("write", FULL_DISK)
        job = await harness.ended(await harness.accept())
        [(shown, picture)] = harness.script.of("deliver")
        assert (shown.state, shown.picture) == (State.GENERATED, picture)
        assert picture.content == IMAGE
        assert harness.script.of("spooled") == []
        assert harness.script.of("fetch") == [(OUTPUT.url,)]
        assert job.state is State.DELIVERED
        assert harness.script.of("alert") == [(AlertLevel.PAGE, "spool", "spool: OSError 28")]

    run(scenario)


def test_an_image_that_neither_disk_nor_memory_has_room_for_is_fetched_later() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("write", FULL_DISK)
        harness.will("hold_in_memory", MemoryError())
        job = await harness.ended(await harness.accept())
        assert (len(harness.script.of("write")), job.state) == (2, State.DELIVERED)

    run(scenario)


def test_an_image_that_never_found_room_says_so_to_the_operator() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("write", FULL_DISK, always=1000)
        harness.will("hold_in_memory", MemoryError(), always=1000)
        job = await harness.ended(await harness.accept())
        assert job.reason == "output_unreachable"
        assert "spool: OSError 28" in harness.script.of("alert")[-1][2]

    run(scenario)


def test_the_record_of_a_file_waits_for_the_database() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("spooled", *[StorageUnavailable("disk full")] * 5)
        assert (await harness.ended(await harness.accept())).state is State.DELIVERED
        assert len(harness.script.of("write")) == 1

    run(scenario)


@pytest.mark.parametrize("file", [True, False])
def test_a_stored_image_is_delivered_from_its_file_or_fetched_again_if_that_is_lost(*, file: bool) -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        job = harness.stored(State.SPOOLED, file=file)
        await harness.lifecycle.run(job)
        assert len(harness.script.of("write")) == (0 if file else 1)
        assert harness.repository.jobs[job.id].state is State.DELIVERED
        assert harness.script.of("create") == []
        assert len(harness.script.of("started")) == 1

    run(scenario)


# --- delivering the image ------------------------------------------------------------------------------------------


def test_the_charge_waits_for_discords_confirmation_and_then_for_the_database() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("deliver", *[DeliveryDelayed("503")] * 3)
        harness.will("delivered", *[StorageUnavailable("disk full")] * 3)
        job = await harness.ended(await harness.accept())
        assert job.state is State.DELIVERED
        assert harness.script.order("deliver", "delivered") == ["deliver"] * 4 + ["delivered"] * 4
        assert harness.outcomes_counted == ["delivered"]

    run(scenario)


def test_pauses_between_deliveries_grow() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("deliver", *[DeliveryDelayed("503")] * 7)
        await harness.ended(await harness.accept())
        times = harness.script.times("deliver")
        pauses = [later - sooner for sooner, later in itertools.pairwise(times)]
        assert all(2**number / 2 <= pause <= 2**number for number, pause in enumerate(pauses))

    run(scenario)


def test_an_image_that_discord_refuses_for_a_day_is_kept() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("deliver", DeliveryDelayed("503"), always=10_000)
        job = await harness.ended(await harness.accept())
        assert (job.state, job.parked_at is None) == (State.SPOOLED, False)
        last = harness.script.times("deliver")[-1] / HOUR
        assert 24 <= last < 24.1
        [(level, key, line)] = harness.script.of("alert")
        assert (level, key) == (AlertLevel.WARN, "undeliverable")
        assert "503" in line

    run(scenario)


def test_a_delivery_that_ends_a_day_later_to_the_second_is_the_last() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("deliver", DeliveryDelayed("503"))
        harness.script.seconds["deliver"] = 24 * HOUR
        job = await harness.ended(await harness.accept())
        assert len(harness.script.of("deliver")) == 1
        assert job.parked_at == NOON + timedelta(days=1)

    run(scenario)


def test_an_undeliverable_image_is_kept_at_once() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("deliver", Undeliverable("403"))
        job = await harness.ended(await harness.accept())
        assert job.parked_at == NOON
        assert len(harness.script.of("deliver")) == 1

    run(scenario)


def test_a_file_that_cannot_be_removed_after_the_charge_changes_nothing() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("remove", OSError(errno.EIO, "broken"))
        job = await harness.ended(await harness.accept())
        assert job.state is State.DELIVERED
        assert harness.script.of("add_again_reaction") == [(job.id, 501)]
        assert harness.alerts == []

    run(scenario)


@pytest.mark.parametrize("failing", ["write", "deliver"])
def test_a_stop_during_a_retry_leaves_the_paid_image_to_the_next_start(
    failing: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def scenario(harness: UseCaseHarness) -> None:
        failure: JobFailed = OutputUnreachable("reset") if failing == "write" else DeliveryDelayed("503")
        harness.will(failing, failure, always=100)
        accepted = await harness.accept()
        await asyncio.sleep(100)
        harness.recovery.stop_accepting()
        job = await harness.ended(accepted)
        assert job.state is State.GENERATED
        assert (job.parked_at, harness.alerts) == (None, [])
        assert f"job {job.id} goes on after the next start" in [record.getMessage() for record in caplog.records]

    run(scenario)


# --- faults of the program -------------------------------------------------------------------------------------------


def test_a_fault_is_logged_with_its_job_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("prepare", RuntimeError("a bug"))
        job = await harness.ended(await harness.accept())
        assert job.reason == "unforeseen"
        assert harness.alerts == [(AlertLevel.PAGE, "unforeseen")] * 2
        [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert record.getMessage() == f"job {job.id} hit an internal error"
        assert record.exc_info
        assert harness.queue.tickets == 0

    run(scenario)


def test_a_fault_after_the_payment_keeps_the_image() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        harness.will("deliver", RuntimeError("a bug"))
        job = await harness.ended(await harness.accept())
        assert (job.state, job.parked_at) == (State.SPOOLED, NOON)
        assert len(harness.script.of("create")) == 1

    run(scenario)


def test_what_a_job_logs_carries_its_id_and_what_follows_does_not() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        seen: list[str] = []
        shown = harness.repository.sending

        async def sending(job: Job, **facts: object) -> Job:
            seen.append(job_id.get())
            return await shown(job, **facts)  # type: ignore[arg-type]

        harness.repository.sending = sending  # type: ignore[method-assign]
        job = await harness.ended(await harness.accept())
        assert seen == [job.id]
        assert job_id.get() == ""

    run(scenario)
