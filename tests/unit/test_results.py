"""What a person may do with a result: repeat, share, delete, and find it."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from bot.domain.errors import (
    ChannelNotWritable,
    DuplicateRequest,
    NotAllowed,
    ResultGone,
)
from bot.domain.models import State, Upload
from bot.jobs.results import PAGE, REACTIONS_AT_ONCE, Page, Results
from tests.support.factories import NOON, a_job

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from bot.domain.models import Job, Postponed

OWNER, STRANGER = 1, 2
MESSAGE, PUBLIC = 101, 202
UPLOAD = Upload("https://cdn.example/cat.png", "cat.png", 5, "image/png")
JOB = replace(a_job(), state=State.DELIVERED, message_id=MESSAGE, ended_at=NOON)
PRIVATE = replace(JOB, requester=replace(JOB.requester, private=True))


class Records:
    """Results in a list, newest first, and what was recorded about them."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.in_progress: Counter[int] = Counter()
        self.postponed: dict[str, tuple[int, Postponed]] = {}
        self.reacted: set[tuple[int, int]] = set()
        self.counts: list[int] = []  # how many results of a history were asked for
        self.recorded: list[tuple[object, ...]] = []
        self.drafts: dict[str, tuple[int, Sequence[Upload]]] = {}

    async def find_by_message(self, message_id: int) -> Job | None:
        return next((job for job in self.jobs if job.message_id == message_id), None)

    async def save_postponed(self, user_id: int, postponed: Postponed, *, now: datetime) -> str:
        self.recorded.append(("postponed", user_id, now))
        self.postponed["p1"] = (user_id, postponed)
        return "p1"

    async def get_postponed(self, draft_id: str, user_id: int, *, now: datetime) -> Postponed | None:
        self.recorded.append(("asked", draft_id, now))
        owner, postponed = self.postponed.get(draft_id, (user_id, None))
        return postponed if owner == user_id else None

    async def has_reacted(self, message_id: int, user_id: int) -> bool:
        return (message_id, user_id) in self.reacted

    async def count_in_progress(self, message_id: int) -> int:
        return self.in_progress[message_id]

    async def newest(self, user_id: int, count: int) -> list[Job]:
        self.counts.append(count)
        return self._of(user_id)[:count]

    async def older(self, user_id: int, than: str, count: int) -> list[Job]:
        self.counts.append(count)
        return [job for job in self._of(user_id) if job.id < than][:count]

    async def newer(self, user_id: int, than: str, count: int) -> list[Job]:
        self.counts.append(count)
        return [job for job in self._of(user_id) if job.id > than][-count:]

    async def sharing(self, job: Job, *, since: datetime | None) -> None:
        self.recorded.append(("sharing", job.id, since))

    async def shared(self, job: Job, *, message_id: int) -> None:
        self.recorded.append(("shared", job.id, message_id))

    async def deleted(self, job: Job, *, now: datetime) -> None:
        self.recorded.append(("deleted", job.id, now))

    async def save_draft(self, user_id: int, images: Sequence[Upload], *, now: datetime) -> str:
        self.recorded.append(("draft", user_id, now))
        self.drafts["d1"] = (user_id, images)
        return "d1"

    async def delete_expired_drafts(self, *, now: datetime) -> None:
        self.recorded.append(("expired", now))

    async def get_draft(self, draft_id: str, user_id: int, *, now: datetime) -> list[Upload]:
        self.recorded.append(("asked", draft_id, now))
        owner, images = self.drafts.get(draft_id, (user_id, ()))
        return list(images) if owner == user_id else []

    def _of(self, user_id: int) -> list[Job]:
        return [job for job in self.jobs if job.requester.user_id == user_id]


class ResultsHarness:
    def __init__(self) -> None:
        self.records = Records()
        self.now = NOON
        self.results = Results(repository=self.records, job=self._job, clock=lambda: self.now)
        self.posted = 0
        self.removed = 0

    async def _job(self, job_id: str) -> Job | None:
        return next((job for job in self.records.jobs if job.id == job_id), None)

    def keep(self, *jobs: Job) -> None:
        self.records.jobs.extend(jobs)

    async def share(
        self, job: Job, user_id: int = OWNER, *, fails: BaseException | None = None, found: int | None = None
    ) -> None:
        async def post() -> int:
            await asyncio.sleep(0)
            if fails is not None:
                raise fails
            self.posted += 1
            return PUBLIC

        async def find(of: Job) -> int | None:
            assert of is job
            return found

        await self.results.share(job, user_id, post, message_id=MESSAGE, find=find)

    async def delete(
        self, job: Job, user_id: int = OWNER, *, message_id: int = MESSAGE, moderator: bool = False
    ) -> None:
        async def remove() -> None:
            self.removed += 1

        await self.results.delete(job, user_id, remove, message_id=message_id, moderator=moderator)


@pytest.fixture
def harness() -> ResultsHarness:
    return ResultsHarness()


def refused(problem: str) -> pytest.RaisesExc[NotAllowed]:
    return pytest.RaisesExc(NotAllowed, check=lambda error: error.problem == problem)


# --- finding one ------------------------------------------------------------------------------------------------------


async def test_a_public_result_may_be_used_by_anyone_from_its_message(harness: ResultsHarness) -> None:
    harness.keep(JOB)
    assert await harness.results.job(JOB.id, STRANGER, message_id=MESSAGE) is JOB
    for elsewhere in (MESSAGE + 1, None):
        with pytest.raises(ResultGone):
            await harness.results.job(JOB.id, STRANGER, message_id=elsewhere)
    assert await harness.results.find_by_message(MESSAGE) is JOB
    assert await harness.results.find_by_message(MESSAGE + 1) is None


async def test_a_private_result_may_be_used_by_its_requester_until_it_is_shared(harness: ResultsHarness) -> None:
    harness.keep(PRIVATE)
    assert await harness.results.job(PRIVATE.id, OWNER, message_id=None) is PRIVATE
    with pytest.raises(ResultGone):
        await harness.results.job(PRIVATE.id, STRANGER, message_id=MESSAGE)
    harness.records.jobs = [replace(PRIVATE, shared_id=PUBLIC)]
    assert (await harness.results.job(PRIVATE.id, STRANGER, message_id=PUBLIC)).id == PRIVATE.id
    with pytest.raises(ResultGone):
        await harness.results.job(PRIVATE.id, STRANGER, message_id=MESSAGE)


async def test_a_result_that_the_database_does_not_have_is_gone(harness: ResultsHarness) -> None:
    with pytest.raises(ResultGone):
        await harness.results.job(JOB.id, OWNER, message_id=MESSAGE)


# --- repeating by reaction --------------------------------------------------------------------------------------------


def start(harness: ResultsHarness, *job_ids: str, message_id: int = MESSAGE, **ended: Any) -> None:
    """Jobs that reactions to a message have started, and how they are."""
    for job_id in job_ids:
        harness.keep(replace(PRIVATE, id=job_id, **{"state": State.SENDING, "ended_at": None, **ended}))
        harness.results.record_reaction(message_id, job_id)


async def test_jobs_in_progress_count_however_long_they_take(harness: ResultsHarness) -> None:
    harness.records.in_progress[MESSAGE] = REACTIONS_AT_ONCE - 1
    await harness.results.check_reaction(MESSAGE, 11)
    harness.records.in_progress[MESSAGE] = REACTIONS_AT_ONCE
    with refused("crowded"):
        await harness.results.check_reaction(MESSAGE, 11)
    await harness.results.check_reaction(MESSAGE + 1, 11)


async def test_jobs_that_failed_within_a_minute_of_their_start_count_and_delivered_ones_do_not(
    harness: ResultsHarness,
) -> None:
    start(harness, "a", "b", state=State.RELEASED, ended_at=NOON)
    start(harness, "c", state=State.DELIVERED, ended_at=NOON)
    start(harness, "d")
    await harness.results.check_reaction(MESSAGE, 14)
    start(harness, "e", state=State.SPOOLED, parked_at=NOON)
    with refused("failing"):
        await harness.results.check_reaction(MESSAGE, 14)
    await harness.results.check_reaction(MESSAGE + 1, 14)
    harness.now += timedelta(seconds=59)
    with refused("failing"):
        await harness.results.check_reaction(MESSAGE, 14)
    harness.now += timedelta(seconds=1)
    await harness.results.check_reaction(MESSAGE, 14)


async def test_jobs_in_progress_and_fresh_failures_count_together(harness: ResultsHarness) -> None:
    start(harness, "a", "b", state=State.RELEASED, ended_at=NOON)
    await harness.results.check_reaction(MESSAGE, 14)
    harness.records.in_progress[MESSAGE] = 1
    with refused("failing"):
        await harness.results.check_reaction(MESSAGE, 14)


async def test_one_reaction_of_one_member_makes_one_image(harness: ResultsHarness) -> None:
    harness.records.reacted = {(MESSAGE, 11)}
    with pytest.raises(DuplicateRequest):
        await harness.results.check_reaction(MESSAGE, 11)
    await harness.results.check_reaction(MESSAGE, 12)
    await harness.results.check_reaction(MESSAGE + 1, 11)


# --- sharing ----------------------------------------------------------------------------------------------------------


async def test_a_result_is_shared_once_and_the_attempt_is_recorded_first(harness: ResultsHarness) -> None:
    await harness.share(PRIVATE)
    assert harness.records.recorded == [("sharing", PRIVATE.id, NOON), ("shared", PRIVATE.id, PUBLIC)]
    with refused("shared"):
        await harness.share(replace(PRIVATE, shared_id=PUBLIC))
    assert harness.posted == 1


async def test_only_its_requester_may_share_a_result(harness: ResultsHarness) -> None:
    with refused("share"):
        await harness.share(PRIVATE, STRANGER)
    assert (harness.posted, harness.records.recorded) == (0, [])


async def test_two_clicks_at_once_share_once_and_a_later_one_is_not_blocked(harness: ResultsHarness) -> None:
    outcomes = await asyncio.gather(harness.share(PRIVATE), harness.share(PRIVATE), return_exceptions=True)
    assert [getattr(outcome, "problem", None) for outcome in outcomes] == [None, "shared"]
    assert harness.posted == 1
    await harness.share(PRIVATE)
    other = replace(PRIVATE, id="q7r2")
    await asyncio.gather(harness.share(PRIVATE), harness.share(other))
    assert harness.posted == 4


async def test_a_refused_share_may_be_repeated(harness: ResultsHarness) -> None:
    with pytest.raises(ChannelNotWritable):
        await harness.share(PRIVATE, fails=ChannelNotWritable())
    assert harness.records.recorded == [("sharing", PRIVATE.id, NOON), ("sharing", PRIVATE.id, None)]
    await harness.share(PRIVATE)


async def test_an_uncertain_share_stays_recorded(harness: ResultsHarness) -> None:
    with pytest.raises(ConnectionError):
        await harness.share(PRIVATE, fails=ConnectionError())
    assert harness.records.recorded == [("sharing", PRIVATE.id, NOON)]


@pytest.mark.parametrize("found", [PUBLIC, None])
async def test_after_an_interrupted_share_its_message_is_looked_for_first(
    harness: ResultsHarness, found: int | None
) -> None:
    interrupted = replace(PRIVATE, sharing_at=NOON)
    if found is None:
        await harness.share(interrupted, found=None)
        assert harness.posted == 1
    else:
        with refused("shared"):
            await harness.share(interrupted, found=found)
        assert (harness.posted, harness.records.recorded) == (0, [("shared", PRIVATE.id, PUBLIC)])


async def test_without_an_interrupted_share_nothing_is_looked_for(harness: ResultsHarness) -> None:
    await harness.share(PRIVATE, found=999)
    assert harness.posted == 1


# --- deleting and cancelling ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("user_id", "moderator"), [(OWNER, False), (STRANGER, True)])
async def test_the_requester_and_moderators_may_delete(
    harness: ResultsHarness, user_id: int, *, moderator: bool
) -> None:
    harness.results.check_cancel(JOB, user_id, moderator=moderator)
    await harness.delete(JOB, user_id, moderator=moderator)
    assert (harness.removed, harness.records.recorded) == (1, [("deleted", JOB.id, NOON)])


async def test_nobody_else_may_delete_or_cancel(harness: ResultsHarness) -> None:
    with refused("delete"):
        await harness.delete(JOB, STRANGER)
    with refused("cancel"):
        harness.results.check_cancel(JOB, STRANGER, moderator=False)
    assert (harness.removed, harness.records.recorded) == (0, [])


async def test_a_job_in_progress_cannot_be_deleted(harness: ResultsHarness) -> None:
    with refused("unfinished"):
        await harness.delete(replace(JOB, state=State.SPOOLED))
    assert harness.removed == 0


@pytest.mark.parametrize(("message_id", "deleted"), [(MESSAGE, False), (PUBLIC, True)])
async def test_a_shared_result_is_deleted_with_its_public_message(
    harness: ResultsHarness, message_id: int, *, deleted: bool
) -> None:
    await harness.delete(replace(PRIVATE, shared_id=PUBLIC), message_id=message_id)
    assert harness.removed == 1
    assert harness.records.recorded == ([("deleted", PRIVATE.id, NOON)] if deleted else [])


# --- history ----------------------------------------------------------------------------------------------------------


def history(harness: ResultsHarness, count: int) -> None:
    """Results 0 to `count` - 1 of member 1, newest first, and one of somebody else."""
    harness.keep(replace(JOB, id="x", requester=replace(JOB.requester, user_id=STRANGER)))
    harness.keep(*[replace(JOB, id=str(number)) for number in reversed(range(count))])


def ids(page: Page) -> str:
    return "".join(job.id for job in page.jobs)


@pytest.mark.parametrize(
    ("count", "shown", "older"), [(0, "", False), (3, "210", False), (PAGE, "3210", False), (PAGE + 1, "4321", True)]
)
async def test_the_first_page_has_the_newest_four(
    harness: ResultsHarness, count: int, shown: str, *, older: bool
) -> None:
    history(harness, count)
    page = await harness.results.newest(OWNER)
    assert harness.records.counts == [PAGE + 1]  # one more says whether there is another page
    assert (ids(page), page.newer, page.older) == (shown, False, older)


@pytest.mark.parametrize(
    ("than", "shown", "newer", "older"),
    [
        ("6", "5432", True, True),
        ("5", "4321", True, True),
        ("4", "3210", True, False),
        ("1", "0", True, False),
        ("0", "9876", False, True),  # nothing is left there
    ],
)
async def test_a_page_further_back(harness: ResultsHarness, than: str, shown: str, *, newer: bool, older: bool) -> None:
    history(harness, 10)
    page = await harness.results.older(OWNER, than)
    assert set(harness.records.counts) == {PAGE + 1}
    assert (ids(page), page.newer, page.older) == (shown, newer, older)


@pytest.mark.parametrize(
    ("than", "shown", "newer"), [("0", "4321", True), ("4", "8765", True), ("5", "9876", False), ("8", "9876", False)]
)
async def test_a_page_further_on(harness: ResultsHarness, than: str, shown: str, *, newer: bool) -> None:
    history(harness, 10)
    page = await harness.results.newer(OWNER, than)
    assert set(harness.records.counts) == {PAGE + 1}
    assert (ids(page), page.newer, page.older) == (shown, newer, True)


# --- drafts -----------------------------------------------------------------------------------------------------------


async def test_the_images_of_a_form_are_given_to_whoever_opened_it(harness: ResultsHarness) -> None:
    draft = await harness.results.save_draft(OWNER, [UPLOAD])
    harness.now += timedelta(minutes=5)
    assert await harness.results.get_draft(draft, OWNER) == [UPLOAD]
    assert harness.records.recorded == [("draft", OWNER, NOON), ("asked", draft, harness.now)]
    for other in ((draft, STRANGER), ("d2", OWNER)):
        with pytest.raises(ResultGone):
            await harness.results.get_draft(*other)


async def test_housekeeping_deletes_expired_drafts(harness: ResultsHarness) -> None:
    await harness.results.tidy()
    assert harness.records.recorded == [("expired", NOON)]
