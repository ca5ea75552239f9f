from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain.errors import DuplicateRequest, QuotaExceeded, TransitionRefused
from bot.domain.models import Allowance, Claim, Format, Job, Limit, Model, Output, Picture, Scope, State, Weight
from bot.domain.quota import day
from bot.storage import opening
from bot.storage.history import _HAS_REACTED, History
from bot.storage.job_rows import ms, time_of
from bot.storage.ledger import Ledger
from tests.support.factories import NOON, limit, request, requester, reservation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Ledger]:
    async with opening.opened(folder / "bot.sqlite3") as opened_database:
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
    return Picture(folder / "x.png", "PNG", 1280, 720, 1000)


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


async def test_a_job_that_need_not_wait_has_its_message_recorded_when_its_call_is_about_to_be_made(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as ledger:
        reserved = await reserve(ledger)
        sent = await ledger.sending(replace(reserved, message_id=99), now=NOON)
        assert (sent.state, sent.message_id, sent.sent_at) == (State.SENDING, 99, NOON)
        assert await ledger.job(reserved.id) == sent
        waiting = await ledger.acked(await reserve(ledger, 2), message_id=98)
        assert (await ledger.sending(waiting, now=NOON)).message_id == 98


async def test_a_transition_out_of_order_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        job = await reserve(ledger)
        with pytest.raises(TransitionRefused):
            await ledger.generated(job, Output("https://cdn.example/o.png", None), now=NOON)
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
    assert abs(time_of(ms(at)) - at) <= timedelta(microseconds=500)


def test_no_millisecond_is_lost_when_a_time_is_stored_again() -> None:
    times = [ms(NOON) + number for number in range(2000)]
    assert [ms(time_of(at)) for at in times] == times


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
    assert (type(stored.request.model), type(stored.request.format)) == (Model, Format)


async def test_the_weight_of_a_request_is_read_back_as_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        job = await ledger.reserve(reservation(requester(), what=replace(request(), image_weight=Weight.HIGH)))
    assert job.request.image_weight is Weight.HIGH


# --- reactions ----------------------------------------------------------------------------------------------------


async def react(ledger: Ledger, user_id: int, message_id: int = 5) -> Job:
    by = replace(requester(user_id), interaction_id=None, reacted_to=message_id)
    return await ledger.reserve(reservation(by, limits=[limit(user_id=user_id)]))


async def test_the_message_of_a_reaction_is_read_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        job = await react(ledger, 1)
    assert job.requester == replace(requester(), interaction_id=None, reacted_to=5)


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
        job = await ledger.spooled(job, Picture(tmp_path / "a.png", "PNG", 1, 1, 1))
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


# --- what exactly is stored ---------------------------------------------------------------------------------------


def later(seconds: int) -> datetime:
    return NOON + timedelta(seconds=seconds)


async def row_of(ledger: Ledger, job: Job) -> dict[str, object]:
    return dict((await ledger._database.run("SELECT * FROM jobs WHERE id = ?", (job.id,)))[0])


def gone(request_id: str) -> dict[str, Any]:
    """What an ended job has of its picture: nothing but the id of the call."""
    return {"output": Output("", request_id), "picture": None}


async def test_every_step_is_read_back_with_its_time_and_all_it_brought(tmp_path: Path) -> None:
    by = replace(requester(3, interaction_id=44), private=True, locale="de", asked_at=later(-1), guild_id=None)
    output, claim = Output("https://cdn.example/out.png", "req-1"), Claim(3, "claim-token", 5000, later(5))
    async with opened(tmp_path) as ledger:
        job = await ledger.reserve(reservation(by, cost=2))
        assert job == Job(job.id, State.RESERVED, request(), by, cost=2, created_at=NOON)
        acked = await ledger.acked(job, message_id=99)
        assert acked == replace(job, state=State.ACKED, message_id=99)
        sent = await ledger.sending(acked, now=later(1))
        assert sent == replace(acked, state=State.SENDING, sent_at=later(1))
        generated = await ledger.generated(sent, output, now=later(2))
        assert generated == replace(sent, state=State.GENERATED, output=output, generated_at=later(2))
        kept = await ledger.spooled(generated, picture(tmp_path))
        assert kept == replace(generated, state=State.SPOOLED, picture=picture(tmp_path))
        parked = await ledger.parked(kept, now=later(3))
        assert parked == replace(kept, parked_at=later(3))
        claimed = await ledger.claiming(parked, claim)
        assert claimed == replace(parked, claim=claim)
        assert await ledger.open_jobs() == await ledger.parked_jobs(3) == [claimed]
        done = await ledger.delivered(claimed, message_id=100, now=later(6))
        expected = replace(parked, state=State.DELIVERED, message_id=100, ended_at=later(6), **gone("req-1"))
        assert done == await ledger.job(job.id) == replace(expected, requester=replace(by, token=""))
        assert (await row_of(ledger, job))["notified_at"] == ms(later(6)), "the image speaks for itself"


async def test_a_claim_that_certainly_failed_is_forgotten(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        job, other = [
            await ledger.parked(await spooled(ledger, await reserve(ledger), tmp_path), now=NOON) for _ in "ab"
        ]
        with pytest.raises(TransitionRefused) as refused:
            await ledger.claiming(await reserve(ledger), Claim(1, "t", 1, NOON))
        assert refused.value.expected == "spooled"
        await ledger.claiming(job, Claim(1, "claim-token", 5000, NOON))
        assert await ledger.job(other.id) == other
        assert await ledger.claiming(job, None) == job
        row = await row_of(ledger, job)
        assert (row["claim_token"], row["claim_limit"], row["claimed_at"]) == (None, None, None)


async def test_a_release_is_told_later_and_then_no_token_is_left(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        job = await ledger.parked(await spooled(ledger, await reserve(ledger), tmp_path), now=NOON)
        job = await ledger.claiming(job, Claim(1, "claim-token", 5000, NOON))
        ended = await ledger.released(job, reason="x", request_id=None, now=later(1))
        assert ended == replace(job, state=State.RELEASED, reason="x", ended_at=later(1), **gone("req-1"))
        assert await ledger.unnotified_jobs() == [ended]
        open_job = await reserve(ledger)
        await ledger.notified(open_job, now=later(2))
        assert await ledger.job(open_job.id) == open_job, "nothing is told of a job that has not ended"
        await ledger.notified(ended, now=later(2))
        row = await row_of(ledger, ended)
    assert (row["notified_at"], row["token"], row["claim_token"]) == (ms(later(2)), None, None)


@pytest.mark.parametrize(
    ("known", "given", "kept"),
    [
        ((), "req-9", "req-9"),
        ((), None, None),
        ((None,), "req-9", "req-9"),
        (("req-1",), "req-9", "req-1"),
        (("req-1",), None, "req-1"),
    ],
    ids=str,
)
async def test_a_release_adds_the_id_of_the_failed_call_unless_one_is_known(
    tmp_path: Path, known: tuple[str | None, ...], given: str | None, kept: str | None
) -> None:
    async with opened(tmp_path) as ledger:
        job = await ledger.sending(await ledger.acked(await reserve(ledger), message_id=9), now=NOON)
        for request_id in known:
            job = await ledger.generated(job, Output("https://cdn.example/out.png", request_id), now=NOON)
        await ledger.released(job, reason="x", request_id=given, now=NOON)
        assert (await row_of(ledger, job))["request_id"] == kept


async def test_a_hold_and_what_settles_it_say_whose_it_is_and_when(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        jobs = [await ledger.reserve(reservation(requester(user_id, at=later(-9)), cost=3)) for user_id in (1, 2)]
        await ledger.delivered(await spooled(ledger, jobs[0], tmp_path), message_id=1, now=later(1))
        await ledger.released(jobs[1], reason="x", request_id=None, now=later(2))
        rows = await ledger._database.run("SELECT * FROM entries ORDER BY id")
    common: dict[str, Any] = {"guild_id": 7, "counted_at": ms(later(-9)), "counted_on": 20261122}
    assert len({row["member"] for row in rows}) == 2
    assert all(row["member"] not in (0, 1, 2) for row in rows), "a pseudonym"
    common |= {"extra": 0, "price": 0, "mark": None}
    first, second = common | {"job_id": jobs[0].id, "user_id": 1}, common | {"job_id": jobs[1].id, "user_id": 2}
    assert [{name: row[name] for name in row.keys() if name != "member"} for row in rows] == [  # noqa: SIM118 - a Row
        first | {"id": 1, "kind": "hold", "held": 3, "spent": 0, "at": ms(NOON)},
        second | {"id": 2, "kind": "hold", "held": 3, "spent": 0, "at": ms(NOON)},
        first | {"id": 3, "kind": "charge", "held": -3, "spent": 3, "at": ms(later(1))},
        second | {"id": 4, "kind": "release", "held": -3, "spent": 0, "at": ms(later(2))},
    ]


async def test_a_refused_step_names_the_job_and_the_states_that_would_allow_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        job = await reserve(ledger)
        with pytest.raises(TransitionRefused) as refused:
            await ledger.delivered(job, message_id=1, now=NOON)
        assert (refused.value.job_id, refused.value.expected) == (job.id, "generated/spooled")
        assert await ledger.job(job.id) == job


async def test_a_guild_has_an_allowance_of_its_own(tmp_path: Path) -> None:
    guild = Limit(Scope.GUILD, 7, 3, day(NOON))
    async with opened(tmp_path) as ledger:
        for user_id in (1, 2):
            await reserve(ledger, user_id, limits=[limit(user_id=user_id), guild])
        await reserve(ledger, 3, limits=[limit(user_id=3), guild])
        with pytest.raises(QuotaExceeded) as refused:
            await reserve(ledger, 4, limits=[limit(user_id=4), guild])
        assert refused.value.allowance == Allowance(guild, 3)
        used = await ledger.allowances([guild, limit(), limit(user_id=4), replace(guild, subject=8)])
        assert [one.used for one in used] == [3, 1, 0, 0]


async def test_parked_jobs_are_the_members_own_oldest_first(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        jobs = [await spooled(ledger, await reserve(ledger), tmp_path) for _ in range(3)]
        foreign = await spooled(ledger, await reserve(ledger, 2), tmp_path)
        for job, seconds in ((jobs[0], 3), (jobs[1], 1), (jobs[2], 2), (foreign, 0)):
            await ledger.parked(job, now=later(seconds))
        assert [job.id for job in await ledger.parked_jobs(1)] == [jobs[1].id, jobs[2].id, jobs[0].id]
        await ledger.delivered(jobs[2], message_id=1, now=NOON)
        assert [job.id for job in await ledger.parked_jobs(1)] == [jobs[1].id, jobs[0].id]
        assert [job.id for job in await ledger.parked_jobs(2)] == [foreign.id]


async def test_open_jobs_are_ordered_by_their_time_and_unnotified_ones_by_their_end(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        made = [await ledger.reserve(reservation(requester(), now=later(seconds))) for seconds in (2, 1, 2)]
        assert await ledger.open_jobs() == [made[1], made[0], made[2]]
        for job, seconds in zip(made, (5, 6, 4), strict=True):
            await ledger.released(job, reason="x", request_id=None, now=later(seconds))
        assert [job.id for job in await ledger.unnotified_jobs()] == [made[2].id, made[0].id, made[1].id]
        assert await ledger.open_jobs() == []


async def test_a_value_is_replaced_and_others_are_not(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        await ledger.set_value("one", "1")
        await ledger.set_value("two", "2")
        await ledger.set_value("one", "3")
        assert [await ledger.get_value(name) for name in ("one", "two", "three")] == ["3", "2", None]


async def test_an_unknown_job_is_none(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        await reserve(ledger)
        assert await ledger.job("none") is None


async def test_ids_are_made_of_letters_that_cannot_be_confused(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        ids = [(await reserve(ledger, limits=[])).id for _ in range(50)]
    assert {len(one) for one in ids} <= {4, 5}
    assert not set("".join(ids)) - set("23456789abcdefghjkmnpqrstuvwxyz")


async def test_when_every_id_is_taken_the_request_fails_and_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.storage.ledger._ALPHABET", "k")
    async with opened(tmp_path) as ledger:
        for _ in range(5):
            await reserve(ledger)
        with pytest.raises(sqlite3.IntegrityError, match=r"^no free job id$"):
            await reserve(ledger, limits=[])
        assert await used(ledger) == 5


async def test_a_job_that_the_schema_forbids_is_refused_as_what_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path) as ledger:
        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            await ledger.reserve(reservation(requester(), parent_id="gone"))
        with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
            await reserve(ledger, cost=-1)
        assert await ledger.open_jobs() == []
