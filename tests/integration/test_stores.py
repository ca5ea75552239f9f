"""Opening everything that is stored beside the images."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from bot.domain.errors import InvalidConfiguration, StorageUnavailable
from bot.domain.models import State
from bot.storage import stores
from bot.storage.journal import DiskReserve, Journal
from tests.support.factories import NOON, requester, reservation
from tests.support.journaled import OUTPUT

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path


def opened(folder: Path) -> AbstractAsyncContextManager[stores.Stores]:
    return stores.opened(
        folder, spool=folder / "spool", clock=lambda: NOON, on_unavailable=list[StorageUnavailable]().append
    )


async def test_what_the_last_process_left_in_the_journal_is_flushed_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with opened(tmp_path) as found:
        job = await found.repository.reserve(reservation(requester()))
        job = await found.repository.sending(await found.repository.acked(job, message_id=1), now=NOON)
        await found.database._connection.execute_fetchall("PRAGMA query_only = ON")
        await found.repository.generated(job, OUTPUT, now=NOON)
        assert await found.ledger.job(job.id) == job
    assert "flushed" not in caplog.text
    async with opened(tmp_path) as found:
        stored = await found.ledger.job(job.id)
        assert stored is not None
        assert (stored.state, stored.output) == (State.GENERATED, OUTPUT)
        assert await found.history.newest(1, 9) == []
    assert "1 records flushed from the journal" in caplog.text
    assert {path.name for path in tmp_path.iterdir()} >= {"pikzels-bot.sqlite3", "journal", "ballast"}


class BlockingReserve(DiskReserve):
    """A reserve that takes the room of a folder until it is freed."""

    def free(self) -> None:
        super().free()
        (self._path.parent / "folder").mkdir()


def test_a_journal_that_finds_no_room_gets_that_of_the_reserve(tmp_path: Path) -> None:
    reserve = BlockingReserve(tmp_path / "ballast", size=1)
    assert reserve.allocate()
    journal = stores._journal(tmp_path / "folder" / "journal", reserve)
    assert (journal.records(), reserve.is_allocated) == ([], False)
    assert Journal(tmp_path / "folder" / "journal").records() == []


def test_a_journal_that_finds_room_leaves_the_reserve_alone(tmp_path: Path) -> None:
    reserve = DiskReserve(tmp_path / "ballast", size=1)
    assert reserve.allocate()
    assert stores._journal(tmp_path / "journal", reserve).records() == []
    assert reserve.is_allocated


async def test_a_folder_without_room_for_the_journal_is_an_invalid_setting(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    with pytest.raises(InvalidConfiguration) as refused:
        async with opened(tmp_path):
            pass
    assert (refused.value.setting, refused.value.problem) == ("storage.folder", "has no room (IsADirectoryError)")
    (tmp_path / "journal").rmdir()
    async with opened(tmp_path) as found:
        assert await found.repository.open_jobs() == []
