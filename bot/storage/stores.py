"""Opens everything that is stored beside the pictures: the database, the ledger with its journal, and the history."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot.domain.backups import BackupRules
from bot.domain.errors import InvalidConfiguration
from bot.domain.privacy import RetentionRules
from bot.storage import backups, database, opening
from bot.storage.backups import Backups
from bot.storage.erased_copies import ErasedCopies
from bot.storage.forgotten import Forgotten
from bot.storage.history import History
from bot.storage.journal import DiskReserve, Journal
from bot.storage.journaled_ledger import JournaledLedger
from bot.storage.ledger import Ledger
from bot.storage.personal_data import PersonalData
from bot.storage.policies import Policies
from bot.storage.retention import Retention
from bot.storage.spending import Spending
from bot.storage.usage import UsageRecords

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import datetime
    from pathlib import Path

    from bot.domain.errors import StorageUnavailable
    from bot.storage.database import Database

log = logging.getLogger(__name__)

_DEFAULT_RULES = RetentionRules()
_DEFAULT_BACKUPS = BackupRules()


@dataclass(frozen=True, slots=True)
class Stores:
    """`repository` is the ledger with its journal: what the use case writes to. `ledger` is what SQLite has."""

    database: Database
    ledger: Ledger
    repository: JournaledLedger
    history: History
    policies: Policies
    spending: Spending
    personal_data: PersonalData
    retention: Retention
    usage: UsageRecords
    backups: Backups

    async def forget_replaced(self, *, now: datetime) -> None:
        """Remove the databases that restorations have replaced long ago, and what a broken-off one has left."""
        from bot.storage import restoration  # noqa: PLC0415 - not before the start

        await asyncio.to_thread(restoration.remove_leftovers, self.database.path, now=now)


@asynccontextmanager
async def opened(
    folder: Path,
    *,
    spool: Path,
    clock: Callable[[], datetime],
    on_unavailable: Callable[[StorageUnavailable], None],
    retention: RetentionRules = _DEFAULT_RULES,
    backup: BackupRules = _DEFAULT_BACKUPS,
    backup_folder: Path | None = None,
) -> AsyncIterator[Stores]:
    """Open the database in `folder`, and flush what the last process left in the journal. `spool` is the folder of the
    pictures. Raises `DatabaseUnusable`, and `InvalidConfiguration` if the folder has no room for the journal, or the
    one of the backups cannot be read.
    """
    reserve = DiskReserve(folder / "ballast")
    async with opening.opened(folder / database.FILE, make_room=reserve.free) as store:
        ledger = Ledger(store, spool=spool)
        journal = _journal(folder / "journal", reserve)
        repository = JournaledLedger(ledger, journal, reserve, clock=clock, on_unavailable=on_unavailable)
        if flushed := await repository.replay():
            log.info("%d records flushed from the journal", flushed)
        try:
            policies = Policies(store)
            kept = Backups(
                store,
                folder=backup_folder or folder / backups.FOLDER,
                rules=backup,
                clock=clock,
                settled=repository.require_settled,
            )
            _prepare(kept)
            forgotten = Forgotten(folder / "forgotten")
            yield Stores(
                database=store,
                ledger=ledger,
                repository=repository,
                history=History(store, spool=spool),
                policies=policies,
                spending=Spending(store),
                usage=UsageRecords(store),
                backups=kept,
                personal_data=PersonalData(
                    store,
                    repository=repository,
                    policies=policies,
                    forgotten=forgotten,
                    copies=ErasedCopies(kept, forgotten=forgotten, clock=clock),
                ),
                retention=Retention(store, policies=policies, rules=retention),
            )
        finally:
            await repository.close()


def _prepare(kept: Backups) -> None:
    try:
        kept.prepare()
    except OSError as error:
        raise InvalidConfiguration("backup.folder", f"cannot be used ({type(error).__name__})") from error


def _journal(path: Path, reserve: DiskReserve) -> Journal:
    try:
        with suppress(OSError):
            return Journal(path)
        reserve.free()
        return Journal(path)
    except OSError as error:
        raise InvalidConfiguration("storage.folder", f"has no room ({type(error).__name__})") from error
