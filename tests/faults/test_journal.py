"""A full disk: changes are written to a preallocated journal, and no job has to wait."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import sqlite3
import subprocess
import threading
from contextlib import closing
from datetime import timedelta
from importlib import resources
from typing import TYPE_CHECKING, Any

import pytest

from bot.domain.errors import StorageUnavailable, TransitionRefused
from bot.domain.models import Job, Output, State
from bot.storage import opening
from bot.storage.journal import JOURNAL_BYTES, DiskReserve, Journal, JournalFull
from bot.storage.journaled_ledger import JournaledLedger
from bot.storage.ledger import Ledger
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import Live, running
from tests.support.e2e import books as stored_rows
from tests.support.factories import NOON, limit, requester, reservation
from tests.support.journaled import OUTPUT, deliver, journaled_setup, outcome, picture_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from bot.storage.journal import Record
    from sandbox import discord_server
    from tests.support.servers import Servers


# --- the file -----------------------------------------------------------------------------------------------------


def test_records_survive_a_restart_in_order(tmp_path: Path) -> None:
    records: list[Record] = [
        {"job": "k3f9", "step": "told", "at": 1.5},
        {"job": "ü", "step": "generated", "url": "https://x/?a=\n"},
    ]
    journal = Journal(tmp_path / "journal")
    for record in records:
        journal.append(record)
    assert Journal(tmp_path / "journal").records() == records


def test_a_record_with_half_a_character_can_be_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", size=4096)
    journal.append({"url": "https://x/\ud83d"})
    assert Journal(tmp_path / "journal", size=4096).records() == [{"url": "https://x/\ud83d"}]


def test_a_journal_of_an_earlier_version_can_be_read(tmp_path: Path) -> None:
    line = b'0af73c42 {"n": 1}\n'
    (tmp_path / "journal").write_bytes(line.ljust(4096, b"\0"))
    journal = Journal(tmp_path / "journal", size=4096)
    assert journal.records() == [{"n": 1}]
    journal.append({"n": 1})
    assert (tmp_path / "journal").read_bytes() == (line + line).ljust(4096, b"\0"), (
        "and the earlier version can read it"
    )


def test_an_append_allocates_no_new_space(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", size=4096)
    before = (tmp_path / "journal").stat()
    journal.append({"job": "k3f9"})
    after = (tmp_path / "journal").stat()
    assert (after.st_size, after.st_blocks) == (before.st_size, before.st_blocks) == (4096, before.st_blocks)


@pytest.mark.parametrize("cut", range(1, 25))
def test_a_partial_record_at_the_end_is_ignored(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal"
    journal = Journal(path, size=4096)
    journal.append({"n": 1})
    whole = path.read_bytes().rstrip(b"\0")
    journal.append({"n": 2})
    content = path.read_bytes().rstrip(b"\0")
    path.write_bytes(content[: min(len(whole) + cut, len(content) - 2)].ljust(4096, b"\0"))
    again = Journal(path, size=4096)
    assert again.records() == [{"n": 1}]
    again.append({"n": 3})
    assert Journal(path, size=4096).records() == [{"n": 1}, {"n": 3}]


def test_a_journal_that_is_full_to_the_last_byte_can_be_read(tmp_path: Path) -> None:
    size = len(b"00000000 " + b'{"n": 1}' + b"\n")
    Journal(tmp_path / "journal", size=size).append({"n": 1})
    again = Journal(tmp_path / "journal", size=size)
    assert again.records() == [{"n": 1}]
    with pytest.raises(JournalFull):
        again.append({"n": 2})


def test_a_full_journal_raises_an_error_and_keeps_its_records(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", size=100)
    journal.append({"n": 1})
    with pytest.raises(JournalFull):
        journal.append({"text": "x" * 100})
    assert journal.records() == [{"n": 1}]
    journal.clear()
    assert (journal.records(), Journal(tmp_path / "journal", size=100).records()) == ([], [])


def test_every_record_is_flushed_to_the_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.pread(descriptor, 4096, 0)))
    journal = Journal(tmp_path / "journal", size=4096)
    assert flushed == [bytes(4096)]
    journal.append({"n": 1})
    assert flushed[1:] == [(tmp_path / "journal").read_bytes()]
    journal.clear()
    assert flushed[2:] == [bytes(4096)]


def test_a_journal_that_fits_only_in_part_is_refused(tmp_path: Path) -> None:
    """A raw write to an almost full disk writes less than it was given, and reports no error."""
    resource = pytest.importorskip("resource")  # not on Windows
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            Journal(tmp_path / "journal")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert Journal(tmp_path / "journal").records() == []


def test_a_disk_reserve_is_allocated_if_there_is_space_and_freed_at_once(tmp_path: Path) -> None:
    reserve = DiskReserve(tmp_path / "ballast", size=65536)
    assert (reserve.allocate(), reserve.allocate(), reserve.is_allocated) == (True, True, True)
    assert (tmp_path / "ballast").stat().st_blocks * 512 >= 65536
    assert (tmp_path / "ballast").stat().st_size == 65536
    reserve.free()
    reserve.free()
    assert not reserve.is_allocated


def test_a_disk_reserve_that_does_not_fit_leaves_nothing_behind(tmp_path: Path) -> None:
    reserve = DiskReserve(tmp_path / "ballast", size=2**60)
    assert (reserve.allocate(), list(tmp_path.iterdir())) == (False, [])


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS])
def test_a_disk_reserve_is_written_where_it_cannot_be_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def unsupported(*_: int) -> None:
        raise OSError(code, "not on this file system")

    flushed: list[int] = []
    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_size))
    assert DiskReserve(tmp_path / "ballast", size=5_000_000).allocate()
    assert flushed == [5_000_000], "before that, the room is only promised"
    state = (tmp_path / "ballast").stat()
    assert state.st_size == 5_000_000
    assert state.st_blocks * 512 >= 5_000_000


def test_a_disk_reserve_that_cannot_be_written_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert (DiskReserve(tmp_path / "ballast").allocate(), list(tmp_path.iterdir())) == (False, [])


# --- the journaled ledger --------------------------------------------------------------------------------------------


async def test_a_job_continues_while_the_database_cannot_write_and_is_flushed_later(tmp_path: Path) -> None:
    async with journaled_setup(tmp_path) as setup:
        job = await setup.sent_job()
        await setup.fill()
        expected = await deliver(setup, job, tmp_path)
        assert outcome(expected) == outcome(await setup.repository.job(job.id))
        stored = await setup.ledger.job(job.id)
        assert stored is not None
        assert stored.state is State.SENDING
        assert (await setup.repository.open_jobs(), len(setup.unavailable)) == ([], 1)
        await setup.clear()
        await setup.wait_until_flushed()
        assert outcome(await setup.ledger.job(job.id)) == outcome(expected)
        assert Journal(tmp_path / "journal").records() == []


async def test_the_next_startup_replays_the_journal(tmp_path: Path) -> None:
    async with journaled_setup(tmp_path) as setup:
        job = await setup.sent_job()
        await setup.fill()
        expected = await deliver(setup, job, tmp_path)
        await setup.repository.close()
    async with journaled_setup(tmp_path) as setup:
        assert outcome(await setup.ledger.job(job.id)) == outcome(expected)
        [allowance] = await setup.repository.allowances([limit()])
        assert (allowance.used, setup.repository._pending) == (1, [])


async def test_a_partly_flushed_journal_is_replayed_without_a_second_charge(tmp_path: Path) -> None:
    async with journaled_setup(tmp_path) as setup:
        job = await setup.sent_job()
        await setup.fill()
        await deliver(setup, job, tmp_path)
        await setup.repository.close()
        pending, setup.repository._pending = setup.repository._pending, []
        await setup.clear()
        for record in pending:
            await setup.repository._flush_record(record)
    async with journaled_setup(tmp_path) as setup:
        rows = await setup.database.run("SELECT kind FROM entries ORDER BY id")
        assert [row["kind"] for row in rows] == ["hold", "charge"]


async def test_a_journaled_release_takes_effect_and_returns_the_hold(tmp_path: Path) -> None:
    async with journaled_setup(tmp_path) as setup:
        job = await setup.sent_job()
        await setup.fill()
        ended = await setup.repository.released(job, reason="outcome_unknown", request_id="req_2", now=NOON)
        assert (ended.state, ended.reason) == (State.RELEASED, "outcome_unknown")
        assert await setup.repository.unnotified_jobs() == [ended]
        await setup.repository.notified(ended, now=NOON)
        assert await setup.repository.unnotified_jobs() == []
        await setup.clear()
        await setup.wait_until_flushed()
        [allowance] = await setup.repository.allowances([limit()])
        assert (allowance.used, await setup.ledger.unnotified_jobs()) == (0, [])


async def test_an_image_parked_in_the_journal_only_can_be_recovered(tmp_path: Path) -> None:
    async with journaled_setup(tmp_path) as setup:
        job = await setup.repository.generated(await setup.sent_job(), OUTPUT, now=NOON)
        job = await setup.repository.spooled(job, picture_in(tmp_path))
        await setup.fill()
        parked = await setup.repository.parked(job, now=NOON)
        assert await setup.repository.parked_jobs(1) == [parked]
        assert await setup.repository.parked_jobs(2) == []
        await setup.clear()
        await setup.wait_until_flushed()
        assert [parked.id for parked in await setup.repository.parked_jobs(1)] == [job.id]


async def test_no_request_is_accepted_until_the_disk_reserve_fits_again(tmp_path: Path) -> None:
    async with journaled_setup(tmp_path) as setup:
        await setup.fill()
        with pytest.raises(StorageUnavailable):
            await setup.sent_job()
        assert not (tmp_path / "ballast").exists()
        await setup.clear()
        with pytest.raises(StorageUnavailable, match="disk is full"):
            await setup.sent_job()  # the disk is checked only at intervals
        setup.offset[0] += timedelta(seconds=31)
        (tmp_path / "ballast").mkdir()  # blocks the path, which has the same effect as a full disk
        setup.repository._reserve = replace_path(setup.repository._reserve, tmp_path / "gone" / "ballast")
        with pytest.raises(StorageUnavailable, match="disk is full"):
            await setup.sent_job()
        (tmp_path / "gone").mkdir()
        setup.offset[0] += timedelta(seconds=31)
        await setup.sent_job()


def replace_path(_: DiskReserve, path: Path) -> DiskReserve:
    return DiskReserve(path)


async def test_when_the_journal_fails_too_the_step_can_be_retried(tmp_path: Path) -> None:
    async with journaled_setup(tmp_path) as setup:
        job = await setup.sent_job()
        await setup.fill()
        (tmp_path / "journal").unlink()
        with pytest.raises(StorageUnavailable, match="the journal too"):
            await setup.repository.generated(job, OUTPUT, now=NOON)
        assert setup.unavailable[-1].problem.startswith("the journal too"), "the operator is told of this as well"
        await setup.clear()
        assert (await setup.repository.generated(job, OUTPUT, now=NOON)).state is State.GENERATED


async def test_a_write_in_progress_is_not_lost_when_its_caller_is_cancelled(tmp_path: Path) -> None:
    async with journaled_setup(tmp_path) as setup:
        jobs = [await setup.sent_job(), await setup.sent_job()]
        await setup.fill()
        writing = asyncio.create_task(setup.repository.generated(jobs[0], OUTPUT, now=NOON))
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
        open_ = {job.id: job.state for job in await setup.repository.open_jobs()}
        assert open_ == {jobs[0].id: State.GENERATED, jobs[1].id: State.SENDING}
        await setup.repository.generated(jobs[1], OUTPUT, now=NOON)
        assert [one["job"] for one in Journal(tmp_path / "journal").records()] == [job.id for job in jobs]
        await setup.clear()
        await setup.wait_until_flushed()
        assert {job.state for job in await setup.ledger.open_jobs()} == {State.GENERATED}


async def test_the_journal_refuses_invalid_transitions(tmp_path: Path) -> None:
    async with journaled_setup(tmp_path) as setup:
        job = await setup.sent_job()
        await setup.fill()
        delivered = await deliver(setup, job, tmp_path)
        with pytest.raises(TransitionRefused):
            await setup.repository.released(delivered, reason="unforeseen", request_id=None, now=NOON)
        with pytest.raises(TransitionRefused):
            await setup.repository.delivered(job, message_id=12, now=NOON)
        await setup.clear()
        await setup.wait_until_flushed()
        assert outcome(await setup.ledger.job(job.id)) == outcome(delivered)


async def test_a_startup_that_cannot_flush_yet_continues_from_the_journal(tmp_path: Path) -> None:
    async with journaled_setup(tmp_path) as setup:
        job = await setup.sent_job()
        await setup.fill()
        expected = await deliver(setup, job, tmp_path)
    async with opening.opened(tmp_path / "bot.sqlite3") as store:
        await store._connection.execute_fetchall("PRAGMA query_only = ON")
        unavailable: list[StorageUnavailable] = []
        journaled = JournaledLedger(
            Ledger(store, spool=tmp_path),
            Journal(tmp_path / "journal"),
            DiskReserve(tmp_path / "ballast"),
            clock=lambda: NOON,
            on_unavailable=unavailable.append,
        )
        assert (await journaled.replay(), len(unavailable), (tmp_path / "ballast").exists()) == (3, 1, False)
        assert outcome(await journaled.job(job.id)) == outcome(expected)
        with pytest.raises(StorageUnavailable):
            await journaled.reserve(reservation(requester()))
        await store._connection.execute_fetchall("PRAGMA query_only = OFF")
        await journaled.close()
        assert outcome(await Ledger(store, spool=tmp_path).job(job.id)) == outcome(expected)


@pytest.mark.parametrize("notified", [False, True])
async def test_a_startup_that_cannot_flush_knows_whose_release_was_not_told(tmp_path: Path, *, notified: bool) -> None:
    async with journaled_setup(tmp_path) as setup:
        stored = await setup.repository.released(await setup.sent_job(), reason="first", request_id=None, now=NOON)
        job = await setup.sent_job()
        await setup.fill()
        later = NOON + timedelta(seconds=1)
        journaled = await setup.repository.released(job, reason="second", request_id=None, now=later)
        if notified:
            await setup.repository.notified(journaled, now=later)
    async with opening.opened(tmp_path / "bot.sqlite3") as store:
        await store._connection.execute_fetchall("PRAGMA query_only = ON")
        ledger, journal = Ledger(store, spool=tmp_path), Journal(tmp_path / "journal")
        reserve = DiskReserve(tmp_path / "ballast")
        repository = JournaledLedger(ledger, journal, reserve, clock=lambda: NOON, on_unavailable=lambda _: None)
        await repository.replay()
        unnotified = await repository.unnotified_jobs()
        assert [job.id for job in unnotified] == [stored.id, *([] if notified else [journaled.id])]
        assert unnotified[-1].requester.token == "interaction-token"
        await repository.close()


async def test_a_release_that_was_told_is_not_told_again_while_the_journal_is_flushed(tmp_path: Path) -> None:
    async with journaled_setup(tmp_path) as setup:
        job = await setup.sent_job()
        await setup.fill()
        ended = await setup.repository.released(job, reason="outcome_unknown", request_id=None, now=NOON)
        await setup.repository.notified(ended, now=NOON)
        setup.repository._pending.clear()  # flushed, but the journal is not cleared yet
        assert await setup.repository.unnotified_jobs() == []
        await setup.clear()


async def test_values_are_held_in_memory_while_the_disk_is_full(tmp_path: Path) -> None:
    async with journaled_setup(tmp_path) as setup:
        await setup.fill()
        await setup.repository.set_value("identified", "[1]")
        assert (await setup.repository.get_value("identified"), await setup.ledger.get_value("identified")) == (
            "[1]",
            None,
        )
        await setup.clear()
        await setup.repository.set_value("identified", "[1, 2]")
        assert await setup.ledger.get_value("identified") == "[1, 2]"


class FlakyLedger:
    """A ledger whose first read fails with an unexpected error."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._has_failed = False

    async def job(self, job_id: str) -> Job | None:
        if not self._has_failed:
            self._has_failed = True
            raise sqlite3.DatabaseError
        return await self._ledger.job(job_id)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)


async def test_an_unexpected_error_does_not_stop_the_flush(tmp_path: Path) -> None:
    async with journaled_setup(tmp_path) as setup:
        job = await setup.sent_job()
        setup.repository._ledger = FlakyLedger(setup.ledger)  # type: ignore[assignment] # behaves like one
        await setup.fill()
        await setup.repository.generated(job, OUTPUT, now=NOON)
        await setup.clear()
        await setup.wait_until_flushed()
        assert [one.state for one in await setup.ledger.open_jobs()] == [State.GENERATED]


class UnreadableLedger(FlakyLedger):
    """A ledger that accepts new jobs, but in which no record can be flushed."""

    async def job(self, job_id: str) -> Job | None:
        raise StorageUnavailable(job_id)


async def test_no_request_is_accepted_while_records_are_pending(tmp_path: Path) -> None:
    async with journaled_setup(tmp_path) as setup:
        job = await setup.sent_job()
        setup.repository._ledger = UnreadableLedger(setup.ledger)  # type: ignore[assignment] # behaves like one
        await setup.fill()
        await setup.repository.generated(job, OUTPUT, now=NOON)
        await setup.clear()
        assert setup.repository._reserve.allocate(), "the disk has room again"
        with pytest.raises(StorageUnavailable, match="disk is full"):
            await setup.sent_job()
        setup.repository._ledger = setup.ledger
        await setup.wait_until_flushed()
        await setup.sent_job()


class GatedJournal(Journal):
    """A journal whose next append waits, and which remembers what was pending whenever it was cleared."""

    def __init__(self, path: Path, pending: list[Record]) -> None:
        super().__init__(path)
        self.gate, self.waiting = threading.Event(), threading.Event()
        self._of_repository = pending
        self.pending_when_cleared: list[list[Record]] = []

    def append(self, record: Record) -> None:
        self.waiting.set()
        assert self.gate.wait(10)
        super().append(record)

    def clear(self) -> None:
        self.pending_when_cleared.append(list(self._of_repository))
        super().clear()


class ObservedLedger(FlakyLedger):
    """A ledger that says when it has recorded an output."""

    def __init__(self, ledger: Ledger, recorded: asyncio.Event) -> None:
        super().__init__(ledger)
        self._has_failed = True
        self._recorded = recorded

    async def generated(self, job: Job, output: Output, *, now: datetime) -> Job:
        job = await self._ledger.generated(job, output, now=now)
        self._recorded.set()
        return job


async def test_the_journal_is_not_cleared_while_it_has_a_record_that_is_pending(tmp_path: Path) -> None:
    async with journaled_setup(tmp_path) as setup:
        jobs = [await setup.sent_job(), await setup.sent_job()]
        await setup.fill()
        await setup.repository.generated(jobs[0], OUTPUT, now=NOON)
        journal = GatedJournal(tmp_path / "journal", setup.repository._pending)
        setup.repository._journal = journal
        late = asyncio.create_task(setup.repository.generated(jobs[1], OUTPUT, now=NOON))
        assert await asyncio.to_thread(journal.waiting.wait, 10)
        flushed = asyncio.Event()
        setup.repository._ledger = ObservedLedger(setup.ledger, flushed)  # type: ignore[assignment] # behaves like one
        await setup.clear()
        await asyncio.wait_for(flushed.wait(), 10)  # the first record, while the second is being written
        journal.gate.set()
        await late
        await setup.wait_until_flushed()
        assert journal.pending_when_cleared == [[]]
        assert {job.state for job in await setup.ledger.open_jobs()} == {State.GENERATED}


# --- the whole bot ------------------------------------------------------------------------------------------------


async def test_an_image_is_delivered_while_the_disk_is_full_and_charged_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    api = servers.api
    async with running(tmp_path, monkeypatch, around=servers) as live:
        api.script(Reply.hold())
        interaction = await live.thumbnail()
        await api.called(1)
        connection = live.app.storage.database._connection
        await connection.execute_fetchall("PRAGMA query_only = ON")
        refused = await live.said(user_id=2)
        assert (refused.ephemeral, "accept requests" in refused.content) == (True, True)
        api.release()
        await interaction.wait(lambda i: i.message is not None and bool(i.message.attachments), 20)
        await live.app.use_case.recovery.idle(10)
        await live.app.use_case.recovery.close(grace=1)
    [job], entries = stored_rows(tmp_path)
    assert (job["state"], [entry["kind"] for entry in entries]) == ("sending", ["hold"])
    async with running(tmp_path, monkeypatch, around=servers) as live:
        await live.app.use_case.recovery.idle(10)
        assert await live.left() == 9
    [job], entries = stored_rows(tmp_path)
    assert (job["state"], [entry["kind"] for entry in entries]) == ("delivered", ["hold", "charge"])
    assert len(api.calls) == 1


async def test_an_unwritable_spool_does_not_prevent_delivery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch) as live:
        (tmp_path / "spool").rmdir()
        job = await live.job(await live.made())
        assert (job.state, job.picture, await live.left()) == (State.DELIVERED, None, 9)


async def test_an_undeliverable_image_in_memory_is_saved_to_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as live:
        live.discord.fail("PATCH", "*", status=403, code=50001, times=1000)
        live.discord.fail("POST", "/channels/*", status=403, code=50001, times=1000)
        live.api.script(Reply.hold())
        await live.thumbnail()
        await live.api.called(1)
        (tmp_path / "spool").rmdir()
        live.api.release()
        await live.discord.wait(lambda server: any(one.path == "/users/@me/channels" for one in server.requests), 10)
        (tmp_path / "spool").mkdir()
        await live.app.use_case.recovery.idle(20)
        [parked] = await live.app.storage.ledger.parked_jobs(1)
        assert parked.picture is not None
        assert parked.picture.path.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a file system is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill_up(folder: Path) -> None:
    with (folder / "filler").open("wb", 0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            os.fsync(file.fileno())


async def test_a_disk_that_is_really_full_loses_nothing(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(small_disk / "data", monkeypatch, pikzels={"concurrency": 8}) as live:
        live.api.script(*[Reply.hold()] * 5)
        interactions = [await live.thumbnail(user_id=user) for user in range(1, 6)]
        await live.api.called(5)
        fill_up(small_disk)
        live.api.release()
        for interaction in interactions:
            await interaction.wait(lambda i: i.message is not None and bool(i.message.attachments), 30)
        assert not (small_disk / "data" / "ballast").exists()
        refused = await live.said(user_id=9)
        assert "accept requests" in refused.content
        (small_disk / "filler").unlink()
        await live.app.use_case.recovery.idle(30)
        assert [await live.left(user) for user in range(1, 6)] == [9] * 5
    jobs, entries = stored_rows(small_disk / "data")
    assert [job["state"] for job in jobs] == ["delivered"] * 5
    assert sorted(entry["kind"] for entry in entries) == ["charge"] * 5 + ["hold"] * 5


async def test_the_bot_goes_online_with_a_full_disk(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    async with running(small_disk / "data", monkeypatch, around=servers) as live:
        await live.made()
    fill_up(small_disk)
    async with running(small_disk / "data", monkeypatch, around=servers) as live:
        assert "today: 1 of 10" in (await private_answer(live, "quota")).content


async def test_the_bot_goes_online_with_a_full_disk_after_a_kill(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    alive, killed = small_disk / "alive", small_disk / "killed"
    async with running(alive, monkeypatch, around=servers) as live:
        await live.made()
        for number in range(100):  # so that the checkpoint of the log needs room
            await live.app.storage.ledger.set_value(f"fact {number}", "x" * 4096)
        shutil.copytree(alive, killed)  # what a kill would leave
    shutil.rmtree(alive)
    fill_up(small_disk)
    async with running(killed, monkeypatch, around=servers) as live:
        assert "today: 1 of 10" in (await private_answer(live, "quota")).content
        counted = await live.app.storage.ledger.get_value("identified")
        assert counted is not None
        assert len(json.loads(counted)) == 2, "the next start must know of this one, however full the disk is"


async def test_a_release_in_the_journal_is_told_by_a_startup_with_a_full_disk(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    data = small_disk / "data"
    async with running(data, monkeypatch, around=servers, shutdown={"grace": 0.1}) as live:
        servers.api.script(Reply.hang())
        interaction = await live.thumbnail()
        await servers.api.called(1)
        await live.app.storage.database._connection.execute_fetchall("PRAGMA query_only = ON")
        [job] = await live.app.storage.repository.open_jobs()
        now = live.app.client.services.clock()
        await live.app.storage.repository.released(job, reason="outcome_unknown", request_id=None, now=now)
    (data / "ballast").unlink(missing_ok=True)
    fill_up(small_disk)
    async with running(data, monkeypatch, around=servers) as live:
        await interaction.wait(lambda i: i.message is not None and "not charged" in i.message.content, 10)
        stored = await live.app.storage.ledger.job(job.id)
        assert stored is not None
        assert stored.state is State.SENDING, "the database knows nothing of it yet"


async def test_an_older_database_is_migrated_with_the_room_of_the_reserve_if_there_is_no_other(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = resources.files("bot.storage").joinpath("migrations", "sqlite", "0001_jobs_and_entries.sql").read_text()
    (small_disk / "data").mkdir()
    with closing(sqlite3.connect(small_disk / "data" / "pikzels-bot.sqlite3")) as connection:
        connection.executescript(f"{script}\nPRAGMA user_version = 1;")
    Journal(small_disk / "data" / "journal")
    assert DiskReserve(small_disk / "data" / "ballast").allocate()
    fill_up(small_disk)
    async with running(small_disk / "data", monkeypatch) as live:
        assert "today: 0 of 10" in (await private_answer(live, "quota")).content


async def test_a_journal_that_was_never_allocated_gets_the_room_of_the_reserve(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    async with running(small_disk / "data", monkeypatch, around=servers):
        pass
    (small_disk / "data" / "journal").write_bytes(b"")  # killed while it was allocated
    fill_up(small_disk)
    async with running(small_disk / "data", monkeypatch, around=servers) as live:
        assert "today: 0 of 10" in (await private_answer(live, "quota")).content
    assert (small_disk / "data" / "journal").stat().st_size == JOURNAL_BYTES


async def private_answer(live: Live, command: str) -> discord_server.Message:
    interaction = await live.discord.slash(command, user_id=1)
    await interaction.wait(lambda i: i.message is not None, 10)
    assert interaction.message is not None
    return interaction.message
