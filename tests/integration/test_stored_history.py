"""What the database keeps about results and forms, read and written without a bot."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from bot.domain.models import Output, Picture, Upload
from bot.storage import opening
from bot.storage.history import DRAFT_LIFE, History
from bot.storage.job_rows import ms
from bot.storage.ledger import Ledger
from tests.support.factories import NOON, request, requester, reservation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime
    from pathlib import Path

    from bot.domain.models import Job
    from bot.storage.database import Database

IMAGES = [
    Upload("https://cdn.example/cat.png?ex=1", "cat.png", 1000, "image/png"),
    Upload("https://cdn.example/dog.webp", "dog.webp", None, None),
]


@dataclass(slots=True)
class Setup:
    database: Database
    ledger: Ledger
    history: History
    spool: Path

    async def result(self, user_id: int = 1, *, message_id: int = 10, at: datetime = NOON) -> Job:
        """A delivered job."""
        job = await self.ledger.reserve(reservation(requester(user_id)))
        job = await self.ledger.sending(await self.ledger.acked(job, message_id=1), now=NOON)
        job = await self.ledger.generated(job, Output("https://cdn.example/out.png", "req-1"), now=NOON)
        job = await self.ledger.spooled(job, Picture(self.spool / f"{job.id}.png", "PNG", 1280, 720, 1000))
        return await self.ledger.delivered(job, message_id=message_id, now=at)

    async def stored(self, job: Job, column: str) -> Any:
        return (await self.database.run(f"SELECT {column} FROM jobs WHERE id = ?", (job.id,)))[0][0]


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    spool = tmp_path / "spool"
    async with opening.opened(tmp_path / "bot.sqlite3") as opened:
        yield Setup(opened, Ledger(opened, spool=spool), History(opened, spool=spool), spool)


# --- results ---------------------------------------------------------------------------------------------------------


async def test_a_result_is_found_by_its_message(setup: Setup) -> None:
    first, second = await setup.result(message_id=10), await setup.result(message_id=20)
    assert await setup.history.find_by_message(10) == first
    assert await setup.history.find_by_message(20) == second
    assert await setup.history.find_by_message(30) is None


async def test_a_shared_result_is_found_by_both_messages_and_says_so(setup: Setup) -> None:
    await setup.result(message_id=20)
    private = await setup.result(message_id=10)
    await setup.history.shared(private, message_id=11)
    for message_id in (10, 11):
        found = await setup.history.find_by_message(message_id)
        assert found == replace(private, shared_id=11)
    unshared = await setup.history.find_by_message(20)
    assert unshared is not None
    assert unshared.shared_id is None


async def test_a_message_about_a_release_carries_no_result(setup: Setup) -> None:
    job = await setup.ledger.acked(await setup.ledger.reserve(reservation(requester())), message_id=10)
    await setup.ledger.released(job, reason="x", request_id=None, now=NOON)
    assert await setup.history.find_by_message(10) is None


async def test_results_are_listed_newest_first_on_either_side_of_one(setup: Setup) -> None:
    history = setup.history
    ended = [NOON + timedelta(seconds=n // 2) for n in range(6)]  # two end in the same millisecond
    jobs = [await setup.result(at=at) for at in ended]
    await setup.result(2)
    assert await history.newest(1, 4) == [jobs[5], jobs[4], jobs[3], jobs[2]]
    assert await history.older(1, jobs[4].id, 3) == [jobs[3], jobs[2], jobs[1]]
    assert await history.newer(1, jobs[1].id, 3) == [jobs[4], jobs[3], jobs[2]]
    assert await history.older(1, jobs[0].id, 3) == await history.newer(1, jobs[5].id, 3) == []


async def test_a_deleted_result_leaves_the_list_alone(setup: Setup) -> None:
    gone, kept = await setup.result(), await setup.result()
    await setup.history.deleted(gone, now=NOON + timedelta(seconds=1))
    assert await setup.history.newest(1, 9) == [kept]
    assert await setup.stored(gone, "deleted_at") == ms(NOON) + 1000
    assert await setup.stored(kept, "deleted_at") is None


async def test_that_a_result_is_being_shared_is_recorded_until_it_provably_was_not(setup: Setup) -> None:
    job, other = await setup.result(), await setup.result()
    since = NOON + timedelta(seconds=5)
    await setup.history.sharing(job, since=since)
    assert await setup.ledger.job(job.id) == replace(job, sharing_at=since)
    assert await setup.ledger.job(other.id) == other
    await setup.history.sharing(job, since=None)
    assert await setup.ledger.job(job.id) == job


async def test_the_kept_source_images_of_a_job_are_recorded_and_forgotten_one_by_one(setup: Setup) -> None:
    job, other = await setup.result(), await setup.result()
    for image, support in (("aa", "bb"), (None, "bb"), ("aa", None), (None, None)):
        await setup.history.set_sources(job, image=image, support=support)
        expected = replace(request(), image_hash=image, support_hash=support)
        assert await setup.ledger.job(job.id) == replace(job, request=expected)
    assert await setup.ledger.job(other.id) == other


# --- drafts ----------------------------------------------------------------------------------------------------------


async def test_a_draft_is_given_to_its_own_member_alone(setup: Setup) -> None:
    draft_id = await setup.history.save_draft(1, IMAGES, now=NOON)
    assert await setup.history.get_draft(draft_id, 1, now=NOON) == IMAGES
    assert await setup.history.get_draft(draft_id, 2, now=NOON) == []
    assert await setup.history.get_draft("another", 1, now=NOON) == []


async def test_the_id_of_a_draft_cannot_be_guessed_and_fits_into_that_of_a_button(setup: Setup) -> None:
    ids = {await setup.history.save_draft(1, IMAGES, now=NOON) for _ in range(10)}
    assert [len(one) for one in ids] == [16] * 10, "96 random bits"


@pytest.mark.parametrize("age", [DRAFT_LIFE, DRAFT_LIFE + timedelta(milliseconds=1)])
async def test_a_draft_can_be_submitted_for_exactly_an_hour(setup: Setup, age: timedelta) -> None:
    draft_id = await setup.history.save_draft(1, IMAGES, now=NOON)
    in_time = age == DRAFT_LIFE
    assert await setup.history.get_draft(draft_id, 1, now=NOON + age) == (IMAGES if in_time else [])
    await setup.history.delete_expired_drafts(now=NOON + age)
    assert len(await setup.database.run("SELECT 1 FROM drafts")) == in_time


async def test_a_new_draft_deletes_expired_ones_and_no_other(setup: Setup) -> None:
    expired = await setup.history.save_draft(2, IMAGES, now=NOON)
    current = await setup.history.save_draft(2, IMAGES, now=NOON + timedelta(seconds=1))
    later = NOON + DRAFT_LIFE + timedelta(milliseconds=1)
    new = await setup.history.save_draft(1, IMAGES, now=later)
    assert [row["id"] for row in await setup.database.run("SELECT id FROM drafts ORDER BY made_at")] == [current, new]
    assert expired not in (current, new)
