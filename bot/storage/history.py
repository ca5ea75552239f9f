"""Looks up results by message or member, and records what becomes of them afterwards."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from bot.domain.models import Postponed, Upload
from bot.storage.job_rows import job_from_row, ms, request_from_json, request_to_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from bot.domain.models import Job
    from bot.storage.database import Database, Transaction

DRAFT_LIFE = timedelta(hours=1)
_DRAFT_IMAGES = 25  # Discord: options of one select, so a form can offer no more
_MOST_DRAFTS = 20  # of a member: a form is submitted within minutes, if at all
_SLICE = 200  # expired drafts deleted in one transaction: it takes a few milliseconds, and nobody waits longer

_HAS_REACTED = "SELECT 1 FROM jobs WHERE reacted_to = ? AND user_id = ? AND state <> 'released'"
_OWN = "SELECT * FROM jobs WHERE user_id = ? AND state = 'delivered' AND deleted_at IS NULL"
_THAT = "(SELECT ended_at, rowid FROM jobs WHERE id = ?)"
_NEWEST = f"{_OWN} ORDER BY ended_at DESC, rowid DESC LIMIT ?"
_OLDER = f"{_OWN} AND (ended_at, rowid) < {_THAT} ORDER BY ended_at DESC, rowid DESC LIMIT ?"
_NEWER = f"{_OWN} AND (ended_at, rowid) > {_THAT} ORDER BY ended_at, rowid LIMIT ?"

# Nothing comes back to a job whose requester's data has been deleted meanwhile.
_STILL = "id = ? AND user_id = ?"

_NEW_DRAFT = "INSERT INTO drafts (id, user_id, images, request, private, made_at) VALUES (?, ?, ?, ?, ?, ?)"
_BEYOND_THE_LIMIT = f"""
    DELETE FROM drafts WHERE rowid IN (
        SELECT rowid FROM drafts WHERE user_id = ? ORDER BY made_at DESC, rowid DESC LIMIT -1 OFFSET {_MOST_DRAFTS}
    )
"""
_EXPIRED = f"""
    DELETE FROM drafts WHERE rowid IN (SELECT rowid FROM drafts WHERE made_at < ? ORDER BY made_at LIMIT {_SLICE})
    RETURNING id
"""


class History:
    """Reads jobs that have ended, and records what became of them; never touches a ledger entry."""

    def __init__(self, database: Database, *, spool: Path) -> None:
        self._database = database
        self._spool = spool

    async def find_by_message(self, message_id: int) -> Job | None:
        """The delivered job whose picture a message carries, or shows because it was shared."""
        sql = "SELECT * FROM jobs WHERE state = 'delivered' AND (message_id = ? OR shared_id = ?)"
        rows = await self._database.run(sql, (message_id, message_id))
        return job_from_row(rows[0], self._spool) if rows else None

    async def count_in_progress(self, message_id: int) -> int:
        """How many jobs started by reactions to a message are in progress."""
        sql = "SELECT COUNT(*) AS open FROM jobs WHERE reacted_to = ? AND ended_at IS NULL AND parked_at IS NULL"
        return int((await self._database.run(sql, (message_id,)))[0]["open"])

    async def has_reacted(self, message_id: int, user_id: int) -> bool:
        """Whether a member's reaction to a message has made a job that was not released."""
        return bool(await self._database.run(_HAS_REACTED, (message_id, user_id)))

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
        return [job_from_row(row, self._spool) for row in await self._database.run(sql, values)]

    async def set_sources(self, job: Job, *, image: str | None, support: str | None) -> None:
        """Record under which hashes the source images of a job are kept; None for one that is not."""
        request = replace(job.request, image_hash=image, support_hash=support)
        await self._database.run(f"UPDATE jobs SET request = ? WHERE {_STILL}", (request_to_json(request), *_key(job)))

    async def sharing(self, job: Job, *, since: datetime | None) -> None:
        """A message that shows a private result to everyone is about to be posted; None: it provably was not."""
        at = None if since is None else ms(since)
        await self._database.run(f"UPDATE jobs SET sharing_at = ? WHERE {_STILL}", (at, *_key(job)))

    async def shared(self, job: Job, *, message_id: int) -> None:
        await self._database.run(f"UPDATE jobs SET shared_id = ? WHERE {_STILL}", (message_id, *_key(job)))

    async def deleted(self, job: Job, *, now: datetime) -> None:
        await self._database.run("UPDATE jobs SET deleted_at = ? WHERE id = ?", (ms(now), job.id))

    # --- drafts: a form outlives a restart, so the images it is about must too ---------------------------------------

    async def save_draft(self, user_id: int, images: Sequence[Upload], *, now: datetime) -> str:
        """Keep the first 25 images of a form until it is submitted; returns the draft's id. A member's oldest drafts
        beyond 20 are deleted, and some of those that are expired.
        """
        shown = json.dumps([asdict(image) for image in images[:_DRAFT_IMAGES]])
        return await self._save(user_id, shown, (None, False), now=now)

    async def _save(self, user_id: int, images: str, postponed: tuple[str | None, bool], *, now: datetime) -> str:
        draft_id = secrets.token_urlsafe(12)
        values = (draft_id, user_id, images, *postponed, ms(now))

        def steps(transaction: Transaction) -> None:
            transaction.run(_NEW_DRAFT, values)
            transaction.run(_BEYOND_THE_LIMIT, (user_id,))
            transaction.run(_EXPIRED, (ms(now - DRAFT_LIFE),))

        await self._database.write(steps)
        return draft_id

    async def delete_expired_drafts(self, *, now: datetime) -> None:
        """Delete drafts that are over an hour old: their forms will not be submitted any more. Others' transactions go
        in between.
        """
        deleted = _SLICE
        while deleted == _SLICE:
            deleted = len(await self._database.run(_EXPIRED, (ms(now - DRAFT_LIFE),)))

    async def save_postponed(self, user_id: int, postponed: Postponed, *, now: datetime) -> str:
        """Keep a request until a smaller copy of its images is wanted; a draft like any other."""
        values = (request_to_json(postponed.request), postponed.private)
        return await self._save(user_id, "[]", values, now=now)

    async def get_postponed(self, draft_id: str, user_id: int, *, now: datetime) -> Postponed | None:
        """A member's own request that waits; None if it is too old."""
        sql = "SELECT request, private FROM drafts WHERE id = ? AND user_id = ? AND made_at >= ? AND request NOT NULL"
        rows = await self._database.run(sql, (draft_id, user_id, ms(now - DRAFT_LIFE)))
        return Postponed(request_from_json(rows[0]["request"]), bool(rows[0]["private"])) if rows else None

    async def get_draft(self, draft_id: str, user_id: int, *, now: datetime) -> list[Upload]:
        """The images of a member's own draft; none if it is too old."""
        sql = "SELECT images FROM drafts WHERE id = ? AND user_id = ? AND made_at >= ?"
        rows = await self._database.run(sql, (draft_id, user_id, ms(now - DRAFT_LIFE)))
        return [Upload(**image) for image in json.loads(rows[0]["images"])] if rows else []


def _key(job: Job) -> tuple[str, int]:
    return job.id, job.requester.user_id
