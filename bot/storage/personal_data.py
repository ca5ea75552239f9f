"""Exports what is held on a person, and deletes it, as `personal_tables` says."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING, Any

from bot.domain.errors import NotAllowed, StorageUnavailable
from bot.domain.privacy import PersonFiles
from bot.domain.server_rules import LimitKind
from bot.storage.job_rows import time_of
from bot.storage.personal_tables import TABLES
from bot.storage.pseudonyms import member_key

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from bot.storage.database import Database, Row, Transaction
    from bot.storage.erased_copies import ErasedCopies
    from bot.storage.forgotten import Forgotten
    from bot.storage.journaled_ledger import JournaledLedger
    from bot.storage.personal_tables import Rows, Table
    from bot.storage.policies import Policies

_SLICE = 500  # rows changed in one transaction: others' go in between
_READ = 2000
_COMPACT_AT_ONCE = 64 * 1024 * 1024  # bytes: compacting a larger database holds up requests for longer than a second
_COPIES_AT_ONCE = 256 * 1024 * 1024  # bytes of backups; what is more takes more seconds than a person waits
_SHORTEST_ID = 15  # digits: anything shorter is too young for a snowflake, and may be some other number in a text
_ANOTHER = "another person"

_IN_PROGRESS = "SELECT 1 FROM jobs WHERE ended_at IS NULL AND +user_id = ?"
_HASHES = "json_extract(request, '$.image_sha256'), json_extract(request, '$.support_sha256')"
_OWN_FILES = f"""
    SELECT id, {_HASHES} FROM jobs WHERE user_id = :user_id
    UNION ALL SELECT NULL, {_HASHES} FROM drafts WHERE user_id = :user_id AND request NOT NULL
"""
_OTHER_JOBS = f"SELECT rowid, {_HASHES} FROM jobs WHERE rowid > ? AND user_id <> ? ORDER BY rowid LIMIT {_READ}"
_OTHER_DRAFTS = f"SELECT {_HASHES} FROM drafts WHERE user_id <> ? AND request NOT NULL"
_SIZE = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
_APPLIED = "SELECT CAST(value AS INTEGER) FROM facts WHERE name = 'forgotten'"
_ERASED = "INSERT OR REPLACE INTO facts (name, value) VALUES ('erased', '1')"  # until the gaps are, too
_IS_ERASED = "SELECT 1 FROM facts WHERE name = 'erased'"
_COMPACTED = "DELETE FROM facts WHERE name = 'erased'"
_APPLY = "INSERT OR REPLACE INTO facts (name, value) VALUES ('forgotten', ?)"


class PersonalData:
    """A `PersonalDataStore`. The database knows the number of the last deletion that it has seen; `forgotten` knows
    them all, so a restored copy can tell which are missing in it.
    """

    def __init__(
        self,
        database: Database,
        *,
        repository: JournaledLedger,
        policies: Policies,
        forgotten: Forgotten,
        copies: ErasedCopies | None = None,
    ) -> None:
        self._copies = copies
        self._database = database
        self._repository = repository
        self._policies = policies
        self._forgotten = forgotten

    async def export(self, user_id: int) -> dict[str, Any]:
        """Everything that the database holds on a person, table by table, ready for JSON."""
        tables = {name: table for name, table in TABLES.items() if table.rows}

        def steps(transaction: Transaction) -> dict[str, list[Row]]:
            values = self._values(user_id)
            return {name: transaction.run(_selection(name, table), values) for name, table in tables.items()}

        found = await self._database.write(steps)
        return await asyncio.to_thread(
            lambda: {name: [_shown(row, tables[name], user_id) for row in rows] for name, rows in found.items()}
        )

    async def files(self, user_id: int) -> PersonFiles:
        """Which files are only this person's."""
        rows = await self._database.run(_OWN_FILES, {"user_id": user_id})
        sources = {name for row in rows for name in row[1:] if name is not None}
        after = 0
        while sources:
            others = await self._database.run(_OTHER_JOBS, (after, user_id))
            sources.difference_update(*(row[1:] for row in others))
            if len(others) < _READ:
                break
            after = others[-1][0]
        sources.difference_update(*await self._database.run(_OTHER_DRAFTS, (user_id,)))
        return PersonFiles(frozenset(sources), frozenset(row[0] for row in rows if row[0] is not None))

    async def erase(self, user_id: int) -> None:
        """Erase the person from every table. Raises `NotAllowed` if a job of theirs is in progress, and
        `StorageUnavailable`, also while the journal has what the database has not.
        """
        if user_id <= 0:
            raise ValueError(user_id)  # it stands for nobody
        await self._repository.require_settled()
        while await self._database.write(partial(self._erase_some, user_id=user_id)):
            pass
        self._policies.forget_cached()

    def _erase_some(self, transaction: Transaction, *, user_id: int) -> bool:
        """Erase a slice; returns whether there is more."""
        if transaction.run(_IN_PROGRESS, (user_id,)):
            raise NotAllowed("in_progress")
        return erase_slice(transaction, self._values(user_id))

    async def remember(self, user_id: int, *, now: datetime) -> None:
        """Write down that the person was erased, so that a restored backup does it again. Then what was erased is
        gone from the disk; from the gaps of a large database only after the next `compact`, and from large backups
        after the next `erase_copies`. Raises `StorageUnavailable`.
        """
        try:
            number = 1 + max(await self._applied(), await asyncio.to_thread(self._forgotten.last))
            await self._database.run(_APPLY, (str(number),))
            await asyncio.to_thread(self._forgotten.add, number, user_id, at=now)
        except OSError as error:
            raise StorageUnavailable(f"the list of deletions ({type(error).__name__})") from error
        await self._database.checkpoint()
        if (await self._database.run(_SIZE))[0][0] <= _COMPACT_AT_ONCE:
            await self.compact()
        if self._copies is not None and self._copies.size <= _COPIES_AT_ONCE:
            await self._copies.erase()

    async def to_erase_again(self) -> list[int]:
        """Who was erased after this copy of the database was made; raises `OSError`."""
        applied = await self._applied()
        if await asyncio.to_thread(self._forgotten.last) <= applied:
            return []
        known = await self._database.write(people_in)
        return await asyncio.to_thread(self._forgotten.whose, sorted(known), after=applied)

    async def erased_again(self) -> None:
        """Everybody of `to_erase_again` has been erased."""
        number = await asyncio.to_thread(self._forgotten.last)
        if number > await self._applied():
            await self._database.run(_APPLY, (str(number),))
        await self.compact()

    async def compact(self) -> None:
        """Close the gaps in which SQLite may have left copies of what was erased. Raises `StorageUnavailable`."""
        if await self._database.run(_IS_ERASED):
            await self._database.compact()
            await self._database.run(_COMPACTED)

    async def erase_copies(self) -> None:
        """Erase in every backup who was erased after it was made. Raises `StorageUnavailable`."""
        if self._copies is not None:
            await self._copies.erase()

    async def _applied(self) -> int:
        return await self._database.write(last_applied)

    def _values(self, user_id: int) -> dict[str, Any]:
        return values_of(user_id, salt=self._database.salt)


def last_applied(transaction: Transaction) -> int:
    """The number of the last deletion that a database has seen."""
    rows = transaction.run(_APPLIED)
    return int(rows[0][0]) if rows else 0


def apply(transaction: Transaction, number: int) -> None:
    """The deletions up to that number have been repeated."""
    transaction.run(_APPLY, (str(number),))


def people_in(transaction: Transaction) -> set[int]:
    """Everybody whom a database knows."""
    columns = [(name, column) for name, table in TABLES.items() for column in table.people.split()]
    return {row[0] for name, column in columns for row in transaction.run(f"SELECT DISTINCT {column} FROM {name}")}


def values_of(user_id: int, *, salt: str) -> dict[str, Any]:
    """The person as the conditions of `personal_tables` name them."""
    text = str(user_id)
    return {
        "user_id": user_id,
        "member": member_key(salt, user_id),
        "text": text if len(text) >= _SHORTEST_ID else None,
    }


def erase_slice(transaction: Transaction, values: Mapping[str, Any]) -> bool:
    """Erase some rows of a person; returns whether there are more."""
    for name, table in TABLES.items():
        for rows in table.rows:
            done = _erase(transaction, name, rows, values, sliced=table.has_rowid) if rows.change != {} else 0
            if done:
                transaction.run(_ERASED)
            if done >= _SLICE:
                return True
    return False


def _selection(name: str, table: Table) -> str:
    return f"SELECT * FROM {name} WHERE {' OR '.join(f'({rows.where})' for rows in table.rows)}"


def _erase(transaction: Transaction, name: str, rows: Rows, values: Mapping[str, Any], *, sliced: bool) -> int:
    """Erase what is there, or a slice of it; returns how many rows that were."""
    where = f"rowid IN (SELECT rowid FROM {name} WHERE {rows.where} LIMIT {_SLICE})" if sliced else rows.where
    if rows.change is None:
        sql = f"DELETE FROM {name} WHERE {where} RETURNING 1"
    else:
        changes = ", ".join(f"{column} = {value}" for column, value in rows.change.items())
        sql = f"UPDATE {name} SET {changes} WHERE {where} RETURNING 1"
    return len(transaction.run(sql, values))


def _shown(row: Row, table: Table, user_id: int) -> dict[str, Any]:
    """A row without secrets and without other people; times as ISO 8601, and ids as text."""
    shown = dict[str, Any]()
    for column, value in zip(row.keys(), tuple(row), strict=True):
        if value is None:
            shown[column] = None
        elif column in table.people.split():
            shown[column] = _shown_person(value, user_id)
        elif column in table.times.split():
            shown[column] = time_of(value).isoformat()
        elif column in table.json.split():
            shown[column] = _without_others(json.loads(value), user_id)
        elif column in table.secrets.split():
            shown[column] = "present, and secret"
        else:
            shown[column] = str(value) if column in table.ids.split() else value
    return shown


def _without_others(value: Any, user_id: int) -> Any:
    """What a record of a change says of the member whom a limit is for."""
    is_of_member = isinstance(value, dict) and value.get("kind") == LimitKind.MEMBER
    return value | {"subject": _shown_person(value.get("subject"), user_id)} if is_of_member else value


def _shown_person(found: int | None, user_id: int) -> str | None:
    return str(user_id) if found == user_id else _ANOTHER if found else None
