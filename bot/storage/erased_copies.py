"""Erases in every backup whose data has been deleted since it was made, as a start from that backup would."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
from functools import partial
from typing import TYPE_CHECKING

from bot.domain.errors import NotStarted, NotStartedCause, OutcomeUnknown, StorageUnavailable
from bot.domain.models import State
from bot.storage import files, integrity, personal_data
from bot.storage.database import Transaction
from bot.storage.job_rows import ms
from bot.storage.ledger import RELEASE
from bot.storage.schema import newest_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime
    from pathlib import Path

    from bot.storage.backups import Backups
    from bot.storage.forgotten import Forgotten

log = logging.getLogger(__name__)

_BEFORE = ".erasing" + files.PART  # a copy that still knows the person
_SALT = "SELECT salt FROM pseudonyms"
_RELEASE_OPEN = f"""
    UPDATE jobs SET state = 'released', ended_at = :now, reason = IIF(state = '{State.SENDING}', :unknown, :restarting)
    WHERE user_id = :user_id AND ended_at IS NULL RETURNING id
"""


class _Unerasable(Exception):
    """A copy of another schema, or one that is not right."""


class ErasedCopies:
    """The backups, and the databases that restorations have replaced."""

    def __init__(self, backups: Backups, *, forgotten: Forgotten, clock: Callable[[], datetime]) -> None:
        self._backups = backups
        self._forgotten = forgotten
        self._clock = clock
        self._done = 0  # the number of the last deletion after which every copy was looked at

    @property
    def size(self) -> int:
        """The bytes of all backups."""
        return self._backups.size

    async def erase(self) -> None:
        """Write every copy anew that knows somebody whom it should not know. One in which that is impossible is
        deleted. Raises `StorageUnavailable`.
        """
        try:
            number = await asyncio.to_thread(self._forgotten.last)
            if number == self._done:
                return
            async with self._backups.unchanging() as backups:
                for path in [backup.path for backup in backups]:
                    await self._erase_in(path, number, instead=path.unlink)
                for path in sorted(self._backups.database.parent.glob(f"replaced-*/{self._backups.database.name}")):
                    await self._erase_in(path, number, instead=partial(shutil.rmtree, path.parent))
            self._done = number
        except (OSError, sqlite3.Error) as error:
            raise StorageUnavailable(f"the backups ({error})") from error

    async def _erase_in(self, path: Path, number: int, *, instead: Callable[[], None]) -> None:
        try:
            people = await integrity.in_thread(path, partial(self._to_erase, number=number))
            if people:
                await self._write_anew(path, people, number)
                log.info("the data of %d people was deleted in %s", len(people), path.name)
        except (_Unerasable, sqlite3.DatabaseError) as error:
            if isinstance(error, sqlite3.OperationalError):
                raise  # such as a full disk: the next time
            log.warning("%s was deleted: the data of people whom it knows could not be", path.name)
            await asyncio.to_thread(instead)

    def _to_erase(self, connection: sqlite3.Connection, *, number: int) -> Collection[int]:
        """Whom a copy should not know."""
        copy = Transaction(connection)
        [[schema]] = copy.run("PRAGMA user_version")
        applied = personal_data.last_applied(copy)
        if applied >= number:
            return []
        if schema != newest_schema():
            raise _Unerasable
        return self._forgotten.whose(sorted(personal_data.people_in(copy)), after=applied)

    async def _write_anew(self, path: Path, people: Collection[int], number: int) -> None:
        from bot.storage import verification  # noqa: PLC0415 - not before the start

        before, part = (path.with_name(path.name + ending) for ending in (_BEFORE, files.PART))
        try:
            for file in (before, part):
                await asyncio.to_thread(files.create, file)
            await integrity.in_thread(path, partial(integrity.copy, target=before))
            erase = partial(_erase, people=people, number=number, now=self._clock())
            await integrity.in_thread(before, erase, connect=_changing)
            await integrity.in_thread(before, partial(integrity.copy, target=part))
            if (await integrity.in_thread(part, verification.examine)).problem is not None:
                raise _Unerasable
            await asyncio.to_thread(files.publish, part, path)
        finally:
            for file in (before, part):
                file.unlink(missing_ok=True)


def _changing(path: Path) -> sqlite3.Connection:
    """A connection to a file that is thrown away unless everything goes well."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = MEMORY")
    connection.execute("PRAGMA synchronous = OFF")
    return connection


def _erase(connection: sqlite3.Connection, *, people: Collection[int], number: int, now: datetime) -> None:
    copy = Transaction(connection)
    [[salt]] = copy.run(_SALT)
    copy.run("BEGIN")
    for user_id in people:
        _release_open(copy, user_id, now)
        while personal_data.erase_slice(copy, personal_data.values_of(user_id, salt=salt)):
            pass
    personal_data.apply(copy, number)
    copy.run("COMMIT")


def _release_open(copy: Transaction, user_id: int, now: datetime) -> None:
    """An open job of the person would otherwise go on without one."""
    values = {
        "user_id": user_id,
        "now": ms(now),
        "unknown": OutcomeUnknown.kind,
        "restarting": NotStarted(NotStartedCause.RESTARTING).reason,
    }
    for [job_id] in copy.run(_RELEASE_OPEN, values):
        copy.run(RELEASE, (job_id,))
