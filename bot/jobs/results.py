"""Rules for living with a result: repeating, sharing, deleting and finding it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from bot.domain.errors import DuplicateRequest, NotAllowed, RequestRejected, ResultGone
from bot.domain.models import State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from datetime import datetime

    from bot.domain.models import Job, Postponed, Upload
    from bot.domain.protocols import ResultRepository

PAGE = 4  # results on one page of a history: each takes a row of buttons, and Discord shows five
REACTIONS_AT_ONCE = 3  # jobs that reactions to one message may cause at the same time, fresh failures included
_FRESH = timedelta(minutes=1)
_PRESSED = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a member's history, newest first, and whether there is more on either side of it."""

    jobs: Sequence[Job]
    newer: bool
    older: bool


class _Repeat(NamedTuple):
    """A job that a reaction started."""

    message_id: int
    job_id: str
    at: datetime


class Results:
    """Decides what a person may do with a job that has ended; Discord vouches for who the person is."""

    def __init__(
        self,
        *,
        repository: ResultRepository,
        job: Callable[[str], Awaitable[Job | None]],
        clock: Callable[[], datetime],
    ) -> None:
        self._repository = repository
        self._job = job
        self._clock = clock
        self._sharing: set[str] = set()
        self._shrunk: dict[str, datetime] = {}  # the buttons used within the hour
        self._repeats: list[_Repeat] = []  # those of the last minute that may have failed

    async def job(self, job_id: str, user_id: int, *, message_id: int | None) -> Job:
        """The job that a button or a form is about, which `user_id` uses on the message `message_id`.

        The job id is whatever the client sends, so it proves nothing. A member reaches their own jobs from anywhere,
        and every other job only from the message that shows it to them: a message is in one channel of one server, and
        Discord vouches for it. Raises `ResultGone` for any other job.
        """
        job = await self._job(job_id)
        if job is None or not (job.requester.user_id == user_id or message_id in _public_messages(job)):
            raise ResultGone
        return job

    async def find_by_message(self, message_id: int) -> Job | None:
        """The job whose result a message carries; None for any other message."""
        return await self._repository.find_by_message(message_id)

    # --- repeating by reaction -------------------------------------------------------------------------------------

    async def check_reaction(self, message_id: int, user_id: int) -> None:
        """Raises `DuplicateRequest` for someone whose reaction to a message has made a job already, and `NotAllowed` if
        enough such jobs are in progress. Those that failed within a minute of their start count too: if the provider
        refuses at once, each of fifty people would get a public message that says so.
        """
        if await self._repository.has_reacted(message_id, user_id):
            raise DuplicateRequest
        in_progress = await self._repository.count_in_progress(message_id)
        if in_progress >= REACTIONS_AT_ONCE:
            raise NotAllowed("crowded")
        # Counted second, so that a job which fails meanwhile is counted twice and never missed.
        if in_progress + await self._count_just_failed(message_id) >= REACTIONS_AT_ONCE:
            raise NotAllowed("failing")

    def record_reaction(self, message_id: int, job_id: str) -> None:
        """A reaction to a message has started a job, and its reply has been posted."""
        self._repeats.append(_Repeat(message_id, job_id, self._clock()))

    async def _count_just_failed(self, message_id: int) -> int:
        now = self._clock()
        self._repeats = [repeat for repeat in self._repeats if repeat.at > now - _FRESH]
        count = 0
        for repeat in [repeat for repeat in self._repeats if repeat.message_id == message_id]:
            job = await self._job(repeat.job_id)
            if job is None or job.state is State.DELIVERED:
                self._repeats.remove(repeat)
            elif job.state is State.RELEASED or job.parked_at is not None:
                count += 1
        return count

    # --- sharing and deleting --------------------------------------------------------------------------------------

    async def share(
        self,
        job: Job,
        user_id: int,
        post: Callable[[], Awaitable[int]],
        *,
        message_id: int | None,
        find: Callable[[Job], Awaitable[int | None]],
    ) -> int:
        """Have `post` show the private result on a message to everyone, once, also if it is interrupted: then `find`
        looks for the message of the earlier attempt. Returns the id of the new message.

        Raises `NotAllowed`, also for a second click at the same time, `ResultGone` if the message is not the job's, and
        what `post` raises; after a `RequestRejected` nothing was posted.
        """
        _check_carrier(job, message_id)
        if user_id != job.requester.user_id:
            raise NotAllowed("share")
        if job.shared_id is not None or job.id in self._sharing:
            raise NotAllowed("shared")
        self._sharing.add(job.id)
        try:
            if job.sharing_at is not None and (posted := await find(job)) is not None:
                await self._repository.shared(job, message_id=posted)
                raise NotAllowed("shared")
            return await self._share(job, post)
        finally:
            self._sharing.discard(job.id)

    async def _share(self, job: Job, post: Callable[[], Awaitable[int]]) -> int:
        await self._repository.sharing(job, since=self._clock())
        try:
            message_id = await post()
        except RequestRejected:
            await self._repository.sharing(job, since=None)
            raise
        await self._repository.shared(job, message_id=message_id)
        return message_id

    async def delete(
        self, job: Job, user_id: int, remove: Callable[[], Awaitable[None]], *, message_id: int | None, moderator: bool
    ) -> None:
        """Have `remove` delete the message of a result, or of a job that was released. A result that was shared remains
        one while its public message exists. Raises `NotAllowed`, `ResultGone` if the message is not the job's, and what
        `remove` raises.
        """
        _check_carrier(job, message_id)
        if user_id != job.requester.user_id and not moderator:
            raise NotAllowed("delete")
        if job.state is State.RELEASED:
            await remove()  # that the job has ended stays in the ledger, and there is no result to forget
            return
        if job.state is not State.DELIVERED:
            raise NotAllowed("unfinished")
        await remove()
        if job.shared_id in (None, message_id):
            await self._repository.deleted(job, now=self._clock())

    def check_cancel(self, job: Job, user_id: int, *, moderator: bool) -> None:
        """Raises `NotAllowed` for anyone but the requester and moderators."""
        if user_id != job.requester.user_id and not moderator:
            raise NotAllowed("cancel")

    # --- history ---------------------------------------------------------------------------------------------------

    async def newest(self, user_id: int) -> Page:
        """The first page of a member's history."""
        found = await self._repository.newest(user_id, PAGE + 1)
        return Page(found[:PAGE], newer=False, older=len(found) > PAGE)

    async def older(self, user_id: int, than: str) -> Page:
        """The page after the job `than`; the newest one if nothing is left there."""
        found = await self._repository.older(user_id, than, PAGE + 1)
        if not found:
            return await self.newest(user_id)
        return Page(found[:PAGE], newer=True, older=len(found) > PAGE)

    async def newer(self, user_id: int, than: str) -> Page:
        """The page before the job `than`."""
        found = await self._repository.newer(user_id, than, PAGE + 1)
        if len(found) <= PAGE:
            return await self.newest(user_id)
        return Page(found[-PAGE:], newer=True, older=True)

    # --- drafts ----------------------------------------------------------------------------------------------------

    async def save_draft(self, user_id: int, images: Sequence[Upload]) -> str:
        """Remember the images of a form until it is submitted; returns the draft's id."""
        return await self._repository.save_draft(user_id, images, now=self._clock())

    async def get_draft(self, draft_id: str, user_id: int) -> list[Upload]:
        """The images of a member's own draft; raises `ResultGone` if it is too old."""
        images = await self._repository.get_draft(draft_id, user_id, now=self._clock())
        if not images:
            raise ResultGone
        return images

    # --- smaller copies --------------------------------------------------------------------------------------------

    async def postpone(self, user_id: int, postponed: Postponed) -> str:
        """Remember a request whose images are too large until smaller copies are wanted; returns the draft's id."""
        return await self._repository.save_postponed(user_id, postponed, now=self._clock())

    async def postponed(self, draft_id: str, user_id: int) -> Postponed:
        """A member's own request that waits; raises `ResultGone` if it is too old."""
        found = await self._repository.get_postponed(draft_id, user_id, now=self._clock())
        if found is None:
            raise ResultGone
        return found

    @contextmanager
    def shrinking(self, what: str) -> Iterator[None]:
        """Use the button `what` in this block, once: raises `NotAllowed` for a press at the same time, and for one
        within the hour after a block that worked.
        """
        now = self._clock()
        self._shrunk = {known: at for known, at in self._shrunk.items() if at > now - _PRESSED}
        if what in self._shrunk:
            raise NotAllowed("shrunk")
        self._shrunk[what] = now
        try:
            yield
        except BaseException:
            self._shrunk.pop(what, None)
            raise

    async def tidy(self) -> None:
        """Delete expired drafts. Call it now and then."""
        await self._repository.delete_expired_drafts(now=self._clock())


def _public_messages(job: Job) -> tuple[int, ...]:
    """The messages that show a job to other people."""
    known = (job.shared_id,) if job.requester.private else (job.message_id, job.shared_id)
    return tuple(message_id for message_id in known if message_id is not None)


def _check_carrier(job: Job, message_id: int | None) -> None:
    """Raises `ResultGone` unless a message is the job's own: what is deleted or shared is the message."""
    if message_id is None or message_id not in (job.message_id, job.shared_id):
        raise ResultGone
