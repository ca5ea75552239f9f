"""Looking up what was made: by its message, by its member; and what happens to a result after its end."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING

from bot.domain.models import Upload
from bot.storage.job_rows import job_of, ms

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from bot.domain.models import Job
    from bot.storage.database import Database

DRAFT_LIFE = timedelta(hours=1)

_OWN = "SELECT * FROM jobs WHERE user_id = ? AND state = 'delivered' AND deleted_at IS NULL"
_THAT = "(SELECT ended_at, rowid FROM jobs WHERE id = ?)"
_NEWEST = f"{_OWN} ORDER BY ended_at DESC, rowid DESC LIMIT ?"
_OLDER = f"{_OWN} AND (ended_at, rowid) < {_THAT} ORDER BY ended_at DESC, rowid DESC LIMIT ?"
_NEWER = f"{_OWN} AND (ended_at, rowid) > {_THAT} ORDER BY ended_at, rowid LIMIT ?"


class Archive:
    """Reads jobs that have ended, and notes what became of them; never touches an entry."""

    def __init__(self, database: Database, *, spool: Path) -> None:
        self._database = database
        self._spool = spool

    async def of_message(self, message_id: int) -> Job | None:
        """The delivered job whose picture a message carries, or shows after it was shared."""
        sql = "SELECT * FROM jobs WHERE state = 'delivered' AND (message_id = ? OR shared_id = ?)"
        rows = await self._database.run(sql, (message_id, message_id))
        return job_of(rows[0], self._spool) if rows else None

    async def crowd(self, message_id: int) -> int:
        """How many jobs that reactions to a message asked for have not ended."""
        sql = "SELECT COUNT(*) AS open FROM jobs WHERE reacted_to = ? AND ended_at IS NULL AND parked_at IS NULL"
        return int((await self._database.run(sql, (message_id,)))[0]["open"])

    async def newest(self, user_id: int, count: int) -> list[Job]:
        """A member's results, newest first; at most `count`."""
        return await self._jobs(_NEWEST, user_id, count)

    async def older(self, user_id: int, than: str, count: int) -> list[Job]:
        """A member's results before the job `than`, newest first."""
        return await self._jobs(_OLDER, user_id, than, count)

    async def newer(self, user_id: int, than: str, count: int) -> list[Job]:
        """A member's results after the job `than`, newest first."""
        return list(reversed(await self._jobs(_NEWER, user_id, than, count)))

    async def _jobs(self, sql: str, *values: object) -> list[Job]:
        return [job_of(row, self._spool) for row in await self._database.run(sql, values)]

    async def sourced(self, job: Job, *, image: str | None, support: str | None) -> None:
        """What the pictures a job was made from are kept as."""
        sql = "UPDATE jobs SET image_kept = ?, support_kept = ? WHERE id = ?"
        await self._database.run(sql, (image, support, job.id))

    async def shared(self, job: Job, *, message_id: int) -> None:
        await self._database.run("UPDATE jobs SET shared_id = ? WHERE id = ?", (message_id, job.id))

    async def deleted(self, job: Job, *, now: datetime) -> None:
        await self._database.run("UPDATE jobs SET deleted_at = ? WHERE id = ?", (ms(now), job.id))

    # --- drafts: a form outlives a restart, so what it is about must too ---------------------------------------------

    async def draft(self, user_id: int, images: Sequence[Upload], *, now: datetime) -> str:
        """Keep the pictures somebody chose until their form comes back; returns the draft's id."""
        made = secrets.token_urlsafe(12)
        values = (made, user_id, json.dumps([asdict(image) for image in images]), ms(now))

        await self.forget_drafts(now=now)
        await self._database.run("INSERT INTO drafts (id, user_id, images, made_at) VALUES (?, ?, ?, ?)", values)
        return made

    async def forget_drafts(self, *, now: datetime) -> None:
        """A form that has not come back in an hour will not."""
        await self._database.run("DELETE FROM drafts WHERE made_at < ?", (ms(now - DRAFT_LIFE),))

    async def drafted(self, draft_id: str, user_id: int, *, now: datetime) -> list[Upload]:
        """The pictures of a member's own draft; none when it is too old."""
        sql = "SELECT images FROM drafts WHERE id = ? AND user_id = ? AND made_at >= ?"
        rows = await self._database.run(sql, (draft_id, user_id, ms(now - DRAFT_LIFE)))
        return [Upload(**image) for image in json.loads(rows[0]["images"])] if rows else []
