"""Living with a result: making it again, sharing it, taking it away, finding it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot.domain.errors import Forbidden, ResultGone
from bot.domain.models import State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from bot.domain.models import Job, Upload
    from bot.domain.protocols import Library

PAGE = 4  # results on one page of a history: each takes a row of buttons, and Discord shows five


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a member's history, newest first; whether there is more on either side of it."""

    jobs: Sequence[Job]
    newer: bool
    older: bool


class Results:
    """Rules about jobs that have ended; who asks is known to Discord, what they may do is decided here."""

    def __init__(
        self, *, library: Library, job: Callable[[str], Awaitable[Job | None]], clock: Callable[[], datetime]
    ) -> None:
        self._library = library
        self._job = job
        self._clock = clock
        self._sharing: set[str] = set()

    async def job(self, job_id: str, user_id: int) -> Job:
        """The job a button or a form of `user_id` is about; raises `ResultGone` when the books do not know it, or when
        it is private to somebody else: the id of a form is what a client sends.
        """
        job = await self._job(job_id)
        if job is None or (job.asker.private and job.shared_id is None and job.asker.user_id != user_id):
            raise ResultGone
        return job

    async def of_message(self, message_id: int) -> Job | None:
        """The job whose result a message carries; None for any other message."""
        return await self._library.of_message(message_id)

    async def crowd(self, message_id: int) -> int:
        """How many pictures are being made right now because of reactions to a message."""
        return await self._library.crowd(message_id)

    async def share(self, job: Job, user_id: int, post: Callable[[], Awaitable[int]]) -> None:
        """Have `post` show a private result to everybody, once; raises `Forbidden`, for a second click
        beside the first too, and what `post` raises, after which it may be shared again.
        """
        if user_id != job.asker.user_id:
            raise Forbidden("share")
        if job.shared_id is not None or job.id in self._sharing:
            raise Forbidden("shared")
        self._sharing.add(job.id)
        try:
            await self._library.shared(job, message_id=await post())
        finally:
            self._sharing.discard(job.id)

    async def delete(
        self, job: Job, user_id: int, remove: Callable[[], Awaitable[None]], *, message_id: int, moderates: bool
    ) -> None:
        """Have `remove` take away the message of a result; raises `Forbidden`, and what `remove` raises. A result that
        was shared stays one for as long as its public message stands.
        """
        if user_id != job.asker.user_id and not moderates:
            raise Forbidden("delete")
        if job.state is not State.DELIVERED:
            raise Forbidden("unfinished")
        await remove()
        if job.shared_id in (None, message_id):
            await self._library.deleted(job, now=self._clock())

    def may_cancel(self, job: Job, user_id: int, *, moderates: bool) -> None:
        """Raises `Forbidden` for anybody but the asker and who may manage messages."""
        if user_id != job.asker.user_id and not moderates:
            raise Forbidden("cancel")

    async def newest(self, user_id: int) -> Page:
        """The first page of a member's history."""
        found = await self._library.newest(user_id, PAGE + 1)
        return Page(found[:PAGE], newer=False, older=len(found) > PAGE)

    async def older(self, user_id: int, than: str) -> Page:
        """The page after the job `than`; the newest one when nothing is left there."""
        found = await self._library.older(user_id, than, PAGE + 1)
        if not found:
            return await self.newest(user_id)
        return Page(found[:PAGE], newer=True, older=len(found) > PAGE)

    async def newer(self, user_id: int, than: str) -> Page:
        """The page before the job `than`."""
        found = await self._library.newer(user_id, than, PAGE + 1)
        if len(found) <= PAGE:
            return await self.newest(user_id)
        return Page(found[-PAGE:], newer=True, older=True)

    async def draft(self, user_id: int, images: Sequence[Upload]) -> str:
        """Remember the pictures a form is about until it comes back; returns the draft's id."""
        return await self._library.draft(user_id, images, now=self._clock())

    async def tidy(self) -> None:
        """Forget what nobody waits for. Call it now and then."""
        await self._library.forget_drafts(now=self._clock())

    async def drafted(self, draft_id: str, user_id: int) -> list[Upload]:
        """The pictures of a member's own draft; raises `ResultGone` when it is too old."""
        images = await self._library.drafted(draft_id, user_id, now=self._clock())
        if not images:
            raise ResultGone
        return images
