"""What is held on a person: handed out, and deleted, with their files and with what waits for them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from bot.domain.errors import NotAllowed, NotStarted, NotStartedCause, OutcomeUnknown, TransitionRefused, Undeliverable
from bot.domain.models import State

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from bot.domain.models import Job
    from bot.domain.protocols import JobRepository, PersonalDataStore, SourceFiles, SpoolFiles
    from bot.jobs.outcomes import Outcomes
    from bot.jobs.tasks import JobTasks

log = logging.getLogger(__name__)

_HASHES = ("image_sha256", "support_sha256")


class PersonalData:
    """For the person, and for the operator when Discord asks to forget somebody."""

    def __init__(
        self,
        *,
        store: PersonalDataStore,
        repository: JobRepository,
        outcomes: Outcomes,
        tasks: JobTasks,
        sources: SourceFiles,
        spool: SpoolFiles,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._repository = repository
        self._outcomes = outcomes
        self._tasks = tasks
        self._sources = sources
        self._spool = spool
        self._clock = clock
        self._deleting = asyncio.Lock()

    async def export(self, user_id: int) -> dict[str, Any]:
        """Everything held on a person, ready for JSON; raises `StorageUnavailable`."""
        found = await self._store.export(user_id)
        requests = [row["request"] or {} for row in (*found["jobs"], *found["drafts"])]
        hashes = sorted({request[name] for request in requests for name in _HASHES if request.get(name)})
        stored = [{"hash": name, "stored": self._sources.has(name)} for name in hashes]
        return {"user_id": str(user_id), "exported_at": self._clock().isoformat(), **found, "source_images": stored}

    async def count_waiting(self, user_id: int) -> int:
        """How many images wait for a person, and would be lost with a deletion."""
        return len(await self._repository.parked_jobs(user_id))

    async def delete(self, user_id: int) -> int:
        """Delete everything held on a person, and give up the images that wait for them; returns how many those were.

        Raises `NotAllowed` while a job of theirs is in progress, and `StorageUnavailable`. Where it is interrupted, it
        can be repeated.
        """
        async with self._deleting:
            await self._check_nothing_in_progress(user_id)
            given_up = 0
            for job in await self._repository.parked_jobs(user_id):
                given_up += await self._release(job, Undeliverable.kind)
            await self._erase(user_id)
            await self._store.remember(user_id, now=self._clock())
        log.info("the data of a person was deleted")
        return given_up

    async def delete_again(self) -> int:
        """After a start, before anything is recovered: delete whom a restored copy of the database knows again;
        returns how many. Raises `StorageUnavailable`, `OSError`.
        """
        people = await self._store.to_erase_again()
        for user_id in people:
            for job in await self._repository.open_jobs():
                if job.requester.user_id == user_id:
                    await self._release(job, _restored_reason(job))
            await self._erase(user_id)
        await self._store.erased_again()
        return len(people)

    async def _check_nothing_in_progress(self, user_id: int) -> None:
        """A task may still write what it knows of its job."""
        busy = self._tasks.jobs | self._outcomes.claimed
        jobs = await self._repository.open_jobs()
        jobs += [job for job in [await self._repository.job(job_id) for job_id in busy] if job is not None]
        for job in jobs:
            if job.requester.user_id == user_id and (
                job.id in busy or (job.ended_at is None and job.parked_at is None)
            ):
                raise NotAllowed("in_progress")

    async def _release(self, job: Job, reason: str) -> bool:
        try:
            await self._repository.released(job, reason=reason, request_id=None, now=self._clock())
        except TransitionRefused:
            return False  # it has ended meanwhile
        return True

    async def _erase(self, user_id: int) -> None:
        """The files first: afterwards nothing knows whose they were."""
        files = await self._store.files(user_id)
        await self._sources.remove_all(files.sources)
        await self._spool.remove_all(files.jobs)
        await self._store.erase(user_id)


def _restored_reason(job: Job) -> str:
    if job.state is State.SENDING:
        return OutcomeUnknown.kind
    return NotStarted(NotStartedCause.RESTARTING).reason
