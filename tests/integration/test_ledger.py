from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain.errors import DuplicateRequest, QuotaExceeded, TransitionRefused
from bot.domain.models import Job, Limit, Model, Output, Picture, State
from bot.domain.quota import day
from bot.storage import database
from bot.storage.history import _HAS_REACTED, History
from bot.storage.job_rows import _time, ms
from bot.storage.ledger import Ledger
from tests.support.factories import NOON, limit, request, requester, reservation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Ledger]:
    async with database.opened(folder / "bot.sqlite3") as opened_database:
        yield Ledger(opened_database, spool=folder)


async def reserve(
    ledger: Ledger,
    user_id: int = 1,
    *,
    limits: Sequence[Limit] | None = None,
    cost: int = 1,
    interaction_id: int | None = None,
) -> Job:
    by = requester(user_id, interaction_id=interaction_id)
    return await ledger.reserve(reservation(by, cost=cost, limits=[limit()] if limits is None else limits))


def picture(folder: Path) -> Picture:
    return Picture(folder / "x.png", "PNG", 1280, 720, 1000, "ab")


async def spooled(ledger: Ledger, job: Job, folder: Path) -> Job:
    job = await ledger.acked(job, message_id=99)
    job = await ledger.sending(job, now=NOON)
    job = await ledger.generated(job, Output("https://cdn.example/out.png", "req-1"), now=NOON)
    return await ledger.spooled(job, picture(folder))


async def used(ledger: Ledger) -> int:
    return (await ledger.allowances([limit()]))[0].used


async def test_of_500_simultaneous_requests_an_allowance_of_5_admits_exactly_5(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        outcomes = await asyncio.gather(*(reserve(ledger) for _ in range(500)), return_exceptions=True)
        assert await used(ledger) == 5
    jobs = [outcome for outcome in outcomes if isinstance(outcome, Job)]
    assert len(jobs) == len({job.id for job in jobs}) == 5
    assert sum(isinstance(outcome, QuotaExceeded) for outcome in outcomes) == 495


async def test_a_job_is_read_back_as_it_was_stored(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        job = await spooled(ledger, await reserve(ledger), tmp_path)
        stored = await ledger.job(job.id)
    assert stored == job
    assert job.picture == picture(tmp_path)
    assert job.output == Output("https://cdn.example/out.png", "req-1")


async def test_delivery_turns_the_hold_into_one_charge(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        job = await spooled(ledger, await reserve(ledger, cost=3), tmp_path)
        assert await used(ledger) == 3
        done = await ledger.delivered(job, message_id=100, now=NOON)
        assert await used(ledger) == 3
        with pytest.raises(TransitionRefused):
            await ledger.delivered(job, message_id=100, now=NOON)
        with pytest.raises(TransitionRefused):
            await ledger.released(job, reason="late", request_id=None, now=NOON)
        assert await used(ledger) == 3
    assert (done.state, done.message_id, done.requester.token) == (State.DELIVERED, 100, "")


@pytest.mark.parametrize("steps", range(5))
async def test_a_release_returns_the_hold_in_every_open_state(tmp_path: Path, steps: int) -> None:
    async with opened(tmp_path) as ledger:
        job = await reserve(ledger)
        if steps > 0:
            job = await ledger.acked(job, message_id=99)
        if steps > 1:
            job = await ledger.sending(job, now=NOON)
        if steps > 2:
            job = await ledger.generated(job, Output("https://cdn.example/o.png", None), now=NOON)
        if steps > 3:
            job = await ledger.spooled(job, picture(tmp_path))
        ended = await ledger.released(job, reason="unforeseen", request_id="req-9", now=NOON)
        assert await used(ledger) == 0
        with pytest.raises(TransitionRefused):
            await ledger.released(job, reason="again", request_id=None, now=NOON)
        assert await used(ledger) == 0
    assert (ended.state, ended.reason) == (State.RELEASED, "unforeseen")


async def test_a_transition_out_of_order_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        job = await reserve(ledger)
        with pytest.raises(TransitionRefused):
            await ledger.sending(job, now=NOON)
        job = await ledger.acked(job, message_id=1)
        job = await ledger.sending(job, now=NOON)
        with pytest.raises(TransitionRefused):
            await ledger.sending(job, now=NOON)


async def test_the_same_interaction_is_accepted_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        await reserve(ledger, interaction_id=123)
        with pytest.raises(DuplicateRequest):
            await reserve(ledger, interaction_id=123)
        assert await used(ledger) == 1


async def test_a_duplicate_interaction_is_recognized_even_without_credits_left(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        await reserve(ledger, cost=5, interaction_id=123)
        with pytest.raises(DuplicateRequest):
            await reserve(ledger, cost=5, interaction_id=123)


async def test_a_release_with_an_outdated_job_keeps_the_stored_message_id(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        before = await reserve(ledger)
        await ledger.acked(before, message_id=99)
        ended = await ledger.released(before, reason="x", request_id=None, now=NOON)
    assert ended.message_id == 99


async def test_the_refusal_carries_the_binding_allowance(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        await reserve(ledger, cost=4)
        with pytest.raises(QuotaExceeded) as refused:
            await reserve(ledger, cost=2)
        await reserve(ledger, cost=1)
    assert (refused.value.allowance.used, refused.value.allowance.left, refused.value.cost) == (4, 1, 2)


async def test_every_limit_must_have_room(tmp_path: Path) -> None:
    wide, narrow = limit(10), limit(2, window=day(NOON))
    async with opened(tmp_path) as ledger:
        for _ in range(2):
            await reserve(ledger, limits=[wide, narrow])
        with pytest.raises(QuotaExceeded) as refused:
            await reserve(ledger, limits=[wide, narrow])
    assert refused.value.allowance.limit == narrow


async def test_members_do_not_share_an_allowance(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        await reserve(ledger, user_id=1, limits=[limit(1, user_id=1)])
        await reserve(ledger, user_id=2, limits=[limit(1, user_id=2)])


async def test_a_job_requested_before_midnight_and_released_after_it_counts_in_neither_day(tmp_path: Path) -> None:
    evening = NOON.replace(hour=23, minute=59)
    tomorrow = limit(window=day(evening + timedelta(hours=1)))
    async with opened(tmp_path) as ledger:
        job = await ledger.reserve(reservation(requester(at=evening), limits=[limit()], now=evening))
        await ledger.released(job, reason="x", request_id=None, now=evening + timedelta(hours=1))
        assert [one.used for one in await ledger.allowances([limit(), tomorrow])] == [0, 0]


async def test_midnight_belongs_to_the_day_that_begins(tmp_path: Path) -> None:
    today, tomorrow = day(NOON), day(NOON + timedelta(days=1))
    async with opened(tmp_path) as ledger:
        for at in (today.start, today.end - timedelta(milliseconds=1), today.end):
            await ledger.reserve(reservation(requester(at=at), now=at))
        allowances = await ledger.allowances([limit(window=today), limit(window=tomorrow)])
        assert [one.used for one in allowances] == [2, 1]
        await ledger.reserve(reservation(requester(at=tomorrow.start), limits=[limit(2, window=tomorrow)]))
        with pytest.raises(QuotaExceeded):
            await ledger.reserve(reservation(requester(at=tomorrow.start), limits=[limit(2, window=tomorrow)]))


@given(st.integers(0, 4 * 10**15))
def test_a_time_is_stored_as_the_nearest_millisecond(microseconds: int) -> None:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    assert abs(_time(ms(at)) - at) <= timedelta(microseconds=500)


def test_no_millisecond_is_lost_when_a_time_is_stored_again() -> None:
    times = [ms(NOON) + number for number in range(2000)]
    assert [ms(_time(at)) for at in times] == times


async def test_open_and_unnotified_jobs_are_found_oldest_first(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        jobs = [await reserve(ledger) for _ in range(4)]
        await ledger.released(jobs[1], reason="a", request_id=None, now=NOON)
        notified = await ledger.released(jobs[2], reason="b", request_id=None, now=NOON)
        await ledger.notified(notified, now=NOON)
        assert [job.id for job in await ledger.open_jobs()] == [jobs[0].id, jobs[3].id]
        [unnotified] = await ledger.unnotified_jobs()
    assert (unnotified.id, unnotified.requester.token) == (
        jobs[1].id,
        "interaction-token",
    )  # needed until the member is notified
    assert notified.reason == "b"


async def test_a_job_id_is_never_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.storage.ledger._ALPHABET", "k")
    async with opened(tmp_path) as ledger:
        ids = [(await reserve(ledger)).id for _ in range(3)]
    assert ids == ["kkkk", "kkkkk", "kkkkkk"]


async def test_every_option_survives_the_database(tmp_path: Path) -> None:
    full = replace(
        request(Model.PKZ_4_5),
        support_image_url="https://cdn.example/second.png",
        persona="0b5c6a3e-1d2f-4c3b-9a8d-7e6f5a4b3c2d",
        style="1b5c6a3e-1d2f-4c3b-9a8d-7e6f5a4b3c2d",
    )
    async with opened(tmp_path) as ledger:
        job = await ledger.reserve(reservation(requester(), what=full))
        stored = await ledger.job(job.id)
    assert stored is not None
    assert stored.request == full


# --- reactions ----------------------------------------------------------------------------------------------------


async def react(ledger: Ledger, user_id: int, message_id: int = 5) -> Job:
    by = replace(requester(user_id), interaction_id=None, reacted_to=message_id)
    return await ledger.reserve(reservation(by, limits=[limit(user_id=user_id)]))


async def test_repeated_reactions_of_a_member_to_a_message_create_one_job(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        outcomes = await asyncio.gather(*(react(ledger, 1) for _ in range(20)), return_exceptions=True)
        assert sorted(type(one).__name__ for one in outcomes) == ["DuplicateRequest"] * 19 + ["Job"]
        await react(ledger, 1, message_id=6)
        await react(ledger, 2)


async def test_a_repeated_reaction_is_a_duplicate_even_without_credits_left(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        for message_id in range(5):
            await react(ledger, 1, message_id)
        with pytest.raises(DuplicateRequest):
            await react(ledger, 1, 0)
        with pytest.raises(QuotaExceeded):
            await react(ledger, 1, 99)


async def test_a_reaction_can_be_repeated_after_its_job_was_released(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        first = await react(ledger, 1)
        await ledger.released(first, reason="x", request_id=None, now=NOON)
        second = await react(ledger, 1)
        assert second.id != first.id
        with pytest.raises(DuplicateRequest):
            await react(ledger, 1)


async def test_a_reaction_repeated_after_a_release_without_credits_left_is_told_so(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        first = await react(ledger, 1)
        await ledger.released(first, reason="x", request_id=None, now=NOON)
        await reserve(ledger, cost=5)
        with pytest.raises(QuotaExceeded):
            await react(ledger, 1)


async def test_a_repeated_job_stores_its_parent(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        first = await reserve(ledger)
        second = await ledger.reserve(reservation(requester(2), parent_id=first.id))
        stored = await ledger.job(second.id)
        assert stored is not None
        assert (stored.parent_id, first.parent_id) == (first.id, None)


async def test_released_and_parked_jobs_do_not_count_as_in_progress(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        history = History(ledger._database, spool=tmp_path)
        jobs = [await react(ledger, user_id) for user_id in range(1, 4)]
        assert (await history.count_in_progress(5), await history.count_in_progress(6)) == (3, 0)
        await ledger.released(jobs[0], reason="x", request_id=None, now=NOON)
        job = await ledger.sending(await ledger.acked(jobs[1], message_id=9), now=NOON)
        job = await ledger.generated(job, Output("https://x", None), now=NOON)
        job = await ledger.spooled(job, Picture(tmp_path / "a.png", "PNG", 1, 1, 1, "0"))
        await ledger.parked(job, now=NOON)
        assert await history.count_in_progress(5) == 1


async def test_a_reaction_counts_for_its_member_and_message_until_its_job_is_released(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        history = History(ledger._database, spool=tmp_path)
        job = await react(ledger, 1)
        assert [await history.has_reacted(5, 1), await history.has_reacted(5, 2), await history.has_reacted(6, 1)] == [
            True,
            False,
            False,
        ]
        plan = await ledger._database.run("EXPLAIN QUERY PLAN " + _HAS_REACTED, (5, 1))
        assert "jobs_one_reaction" in str(plan[0]["detail"])
        await ledger.released(job, reason="x", request_id=None, now=NOON)
        assert not await history.has_reacted(5, 1)
