"""A disk that takes nothing: what has happened is written where its room was laid out before, and nothing waits."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from bot.domain.errors import StorageUnavailable, TransitionRefused
from bot.domain.models import Job, Output, Picture, State
from bot.storage import database
from bot.storage.journal import DiskReserve, Journal, JournalFull
from bot.storage.journaled_ledger import JournaledLedger
from bot.storage.ledger import Ledger
from sandbox import discord_server, pikzels_server
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import KEY, Live, books, png, running
from tests.support.factories import NOON, limit, requester, reservation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from bot.storage.journal import Record

OUTPUT = Output("https://cdn.example/output.png", "req_1")


# --- the file -----------------------------------------------------------------------------------------------------


def test_records_outlive_the_process_in_their_order(tmp_path: Path) -> None:
    records: list[Record] = [
        {"job": "k3f9", "step": "told", "at": 1.5},
        {"job": "ü", "step": "generated", "url": "https://x/?a=\n"},
    ]
    journal = Journal(tmp_path / "journal")
    for record in records:
        journal.append(record)
    assert Journal(tmp_path / "journal").records() == records


def test_an_append_takes_no_room_that_was_not_there(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", size=4096)
    before = (tmp_path / "journal").stat()
    journal.append({"job": "k3f9"})
    after = (tmp_path / "journal").stat()
    assert (after.st_size, after.st_blocks) == (before.st_size, before.st_blocks) == (4096, before.st_blocks)


@pytest.mark.parametrize("cut", range(1, 25))
def test_a_record_half_written_at_the_end_is_none(tmp_path: Path, cut: int) -> None:
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


def test_a_journal_full_to_the_last_byte_can_be_read_again(tmp_path: Path) -> None:
    size = len(b"00000000 " + b'{"n": 1}' + b"\n")
    Journal(tmp_path / "journal", size=size).append({"n": 1})
    again = Journal(tmp_path / "journal", size=size)
    assert again.records() == [{"n": 1}]
    with pytest.raises(JournalFull):
        again.append({"n": 2})


def test_a_full_journal_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", size=100)
    journal.append({"n": 1})
    with pytest.raises(JournalFull):
        journal.append({"text": "x" * 100})
    assert journal.records() == [{"n": 1}]
    journal.clear()
    assert (journal.records(), Journal(tmp_path / "journal", size=100).records()) == ([], [])


def test_a_ballast_is_allocated_where_there_is_room_and_thrown_off_at_once(tmp_path: Path) -> None:
    ballast = DiskReserve(tmp_path / "ballast", size=65536)
    assert (ballast.allocate(), ballast.allocate(), ballast.is_allocated) == (True, True, True)
    assert (tmp_path / "ballast").stat().st_blocks * 512 >= 65536
    ballast.free()
    ballast.free()
    assert not ballast.is_allocated


def test_a_ballast_there_is_no_room_for_leaves_nothing_behind(tmp_path: Path) -> None:
    ballast = DiskReserve(tmp_path / "ballast", size=2**60)
    assert (ballast.allocate(), list(tmp_path.iterdir())) == (False, [])


# --- the books ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Desk:
    books: JournaledLedger
    ledger: Ledger
    database: database.Database
    heard: list[StorageUnavailable]
    now: list[timedelta]

    async def fill(self) -> None:
        await self.database._connection.execute_fetchall("PRAGMA query_only = ON")  # no write succeeds any more

    async def clear(self) -> None:
        await self.database._connection.execute_fetchall("PRAGMA query_only = OFF")

    async def caught_up(self) -> None:
        assert self.books._flush_task is not None
        await asyncio.wait_for(self.books._flush_task, 10)

    async def sent(self) -> Job:
        job = await self.books.reserve(reservation(requester(), limits=[limit()]))
        job = await self.books.acked(job, message_id=10)
        return await self.books.sending(job, now=NOON)


@asynccontextmanager
async def desk(folder: Path) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(database.opened(folder / "bot.sqlite3"))
        ledger, heard, now = Ledger(store, spool=folder), list[StorageUnavailable](), [timedelta()]
        journaled = JournaledLedger(
            ledger,
            Journal(folder / "journal"),
            DiskReserve(folder / "ballast"),
            clock=lambda: NOON + now[0],
            on_unavailable=heard.append,
        )
        await journaled.replay()
        stack.push_async_callback(journaled.close)
        yield Desk(journaled, ledger, store, heard, now)


def a_picture_in(folder: Path) -> Picture:
    return Picture(folder / "k3f9.png", "PNG", 1280, 720, 1000, "0" * 64)


async def go_through(desk: Desk, job: Job, folder: Path) -> Job:
    job = await desk.books.generated(job, OUTPUT, now=NOON)
    job = await desk.books.spooled(job, a_picture_in(folder))
    return await desk.books.delivered(job, message_id=11, now=NOON)


def ending(job: Job | None) -> object:
    assert job is not None
    return job.state, job.output, job.picture, job.message_id, job.ended_at


async def test_a_job_goes_on_while_the_database_takes_nothing_and_the_books_catch_up(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        job = await here.sent()
        await here.fill()
        believed = await go_through(here, job, tmp_path)
        assert ending(believed) == ending(await here.books.job(job.id))
        stored = await here.ledger.job(job.id)
        assert stored is not None
        assert stored.state is State.SENDING
        assert (await here.books.open_jobs(), len(here.heard)) == ([], 1)
        await here.clear()
        await here.caught_up()
        assert ending(await here.ledger.job(job.id)) == ending(believed)
        assert Journal(tmp_path / "journal").records() == []


async def test_what_the_journal_holds_is_carried_over_by_the_next_start(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        job = await here.sent()
        await here.fill()
        believed = await go_through(here, job, tmp_path)
        await here.books.close()
    async with desk(tmp_path) as here:
        assert ending(await here.ledger.job(job.id)) == ending(believed)
        [allowance] = await here.books.allowances([limit()])
        assert (allowance.used, here.books._pending) == (1, [])


async def test_a_journal_carried_over_in_part_is_carried_over_again_without_a_second_charge(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        job = await here.sent()
        await here.fill()
        await go_through(here, job, tmp_path)
        await here.books.close()
        owed, here.books._pending = here.books._pending, []
        await here.clear()
        for record in owed:
            await here.books._flush_record(record)
    async with desk(tmp_path) as here:
        rows = await here.database.run("SELECT kind FROM entries ORDER BY id")
        assert [row["kind"] for row in rows] == ["hold", "charge"]


async def test_a_release_is_believed_too_and_what_is_left_comes_back(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        job = await here.sent()
        await here.fill()
        ended = await here.books.released(job, reason="outcome_unknown", request_id="req_2", now=NOON)
        assert (ended.state, ended.reason, await here.books.unnotified_jobs()) == (
            State.RELEASED,
            "outcome_unknown",
            [],
        )
        await here.books.notified(ended, now=NOON)
        await here.clear()
        await here.caught_up()
        [allowance] = await here.books.allowances([limit()])
        assert (allowance.used, await here.ledger.unnotified_jobs()) == (0, [])


async def test_a_parked_picture_waits_though_only_the_journal_knows(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        job = await here.books.generated(await here.sent(), OUTPUT, now=NOON)
        job = await here.books.spooled(job, a_picture_in(tmp_path))
        await here.fill()
        await here.books.parked(job, now=NOON)
        await here.clear()
        await here.caught_up()
        assert [parked.id for parked in await here.books.parked_jobs(1)] == [job.id]


async def test_nothing_new_is_taken_until_the_disk_has_room_for_the_ballast_again(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        await here.fill()
        with pytest.raises(StorageUnavailable):
            await here.sent()
        assert not (tmp_path / "ballast").exists()
        await here.clear()
        with pytest.raises(StorageUnavailable, match="disk is full"):
            await here.sent()  # looked at only now and then
        here.now[0] += timedelta(seconds=31)
        (tmp_path / "ballast").mkdir()  # in the way: as good as no room
        here.books._reserve = replace_path(here.books._reserve, tmp_path / "gone" / "ballast")
        with pytest.raises(StorageUnavailable, match="disk is full"):
            await here.sent()
        (tmp_path / "gone").mkdir()
        here.now[0] += timedelta(seconds=31)
        await here.sent()


def replace_path(_: DiskReserve, path: Path) -> DiskReserve:
    return DiskReserve(path)


async def test_a_journal_that_is_no_use_either_leaves_the_step_to_be_tried_again(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        job = await here.sent()
        await here.fill()
        (tmp_path / "journal").unlink()
        with pytest.raises(StorageUnavailable, match="the journal too"):
            await here.books.generated(job, OUTPUT, now=NOON)
        await here.clear()
        assert (await here.books.generated(job, OUTPUT, now=NOON)).state is State.GENERATED


async def test_what_is_being_written_down_is_not_lost_with_its_writer(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        jobs = [await here.sent(), await here.sent()]
        await here.fill()
        writing = asyncio.create_task(here.books.generated(jobs[0], OUTPUT, now=NOON))
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
        open_ = {job.id: job.state for job in await here.books.open_jobs()}
        assert open_ == {jobs[0].id: State.GENERATED, jobs[1].id: State.SENDING}
        await here.books.generated(jobs[1], OUTPUT, now=NOON)
        assert [one["job"] for one in Journal(tmp_path / "journal").records()] == [job.id for job in jobs]
        await here.clear()
        await here.caught_up()
        assert {job.state for job in await here.ledger.open_jobs()} == {State.GENERATED}


async def test_the_journal_takes_no_step_that_does_not_follow(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        job = await here.sent()
        await here.fill()
        delivered = await go_through(here, job, tmp_path)
        with pytest.raises(TransitionRefused):
            await here.books.released(delivered, reason="unforeseen", request_id=None, now=NOON)
        with pytest.raises(TransitionRefused):
            await here.books.delivered(job, message_id=12, now=NOON)
        await here.clear()
        await here.caught_up()
        assert ending(await here.ledger.job(job.id)) == ending(delivered)


async def test_a_start_that_cannot_carry_over_yet_goes_on_as_the_last_process_believed(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        job = await here.sent()
        await here.fill()
        believed = await go_through(here, job, tmp_path)
    async with database.opened(tmp_path / "bot.sqlite3") as store:
        await store._connection.execute_fetchall("PRAGMA query_only = ON")
        heard: list[StorageUnavailable] = []
        journaled = JournaledLedger(
            Ledger(store, spool=tmp_path),
            Journal(tmp_path / "journal"),
            DiskReserve(tmp_path / "ballast"),
            clock=lambda: NOON,
            on_unavailable=heard.append,
        )
        assert (await journaled.replay(), len(heard), (tmp_path / "ballast").exists()) == (3, 1, False)
        assert ending(await journaled.job(job.id)) == ending(believed)
        with pytest.raises(StorageUnavailable):
            await journaled.reserve(reservation(requester()))
        await store._connection.execute_fetchall("PRAGMA query_only = OFF")
        await journaled.close()
        assert ending(await Ledger(store, spool=tmp_path).job(job.id)) == ending(believed)


async def test_facts_wait_in_memory_while_the_disk_takes_nothing(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        await here.fill()
        await here.books.set_value("identified", "[1]")
        assert (await here.books.get_value("identified"), await here.ledger.get_value("identified")) == ("[1]", None)
        await here.clear()
        await here.books.set_value("identified", "[1, 2]")
        assert await here.ledger.get_value("identified") == "[1, 2]"


class Flaky:
    """A ledger that cannot be read once, in a way nobody foresaw."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._well = False

    async def job(self, job_id: str) -> Job | None:
        if not self._well:
            self._well = True
            raise sqlite3.DatabaseError
        return await self._ledger.job(job_id)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)


async def test_an_odd_fault_does_not_end_the_carrying_over(tmp_path: Path) -> None:
    async with desk(tmp_path) as here:
        job = await here.sent()
        here.books._ledger = Flaky(here.ledger)  # type: ignore[assignment] # as good as one
        await here.fill()
        await here.books.generated(job, OUTPUT, now=NOON)
        await here.clear()
        await here.caught_up()
        assert [one.state for one in await here.ledger.open_jobs()] == [State.GENERATED]


# --- the whole bot ------------------------------------------------------------------------------------------------


async def test_a_picture_is_delivered_while_the_disk_takes_nothing_and_charged_when_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with discord_server.serve(keep_files=True) as discord, pikzels_server.serve(api_key=KEY, output=png()) as api:
        async with running(tmp_path, monkeypatch, around=(discord, api)) as live:
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
        [job], entries = books(tmp_path)
        assert (job["state"], [entry["kind"] for entry in entries]) == ("sending", ["hold"])
        async with running(tmp_path, monkeypatch, around=(discord, api)) as live:
            await live.app.use_case.recovery.idle(10)
            assert await live.left() == 9
    [job], entries = books(tmp_path)
    assert (job["state"], [entry["kind"] for entry in entries]) == ("delivered", ["hold", "charge"])
    assert len(api.calls) == 1


async def test_a_spool_that_takes_nothing_keeps_no_picture_from_its_asker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as live:
        (tmp_path / "spool").rmdir()
        job = await live.job(await live.made())
        assert (job.state, job.picture, await live.left()) == (State.DELIVERED, None, 9)


async def test_a_picture_in_memory_that_nobody_can_be_given_waits_on_the_disk(
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
        [kept] = await live.app.storage.ledger.parked_jobs(1)
        assert kept.picture is not None
        assert kept.picture.path.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system may be mounted here")
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
        asked = [await live.thumbnail(user_id=user) for user in range(1, 6)]
        await live.api.called(5)
        fill_up(small_disk)
        live.api.release()
        for interaction in asked:
            await interaction.wait(lambda i: i.message is not None and bool(i.message.attachments), 30)
        assert not (small_disk / "data" / "ballast").exists()
        refused = await live.said(user_id=9)
        assert "accept requests" in refused.content
        (small_disk / "filler").unlink()
        await live.app.use_case.recovery.idle(30)
        assert [await live.left(user) for user in range(1, 6)] == [9] * 5
    jobs, entries = books(small_disk / "data")
    assert [job["state"] for job in jobs] == ["delivered"] * 5
    assert sorted(entry["kind"] for entry in entries) == ["charge"] * 5 + ["hold"] * 5


async def test_a_start_on_a_full_disk_brings_the_bot_online(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with discord_server.serve(keep_files=True) as discord, pikzels_server.serve(api_key=KEY, output=png()) as api:
        async with running(small_disk / "data", monkeypatch, around=(discord, api)) as live:
            await live.made()
        fill_up(small_disk)
        async with running(small_disk / "data", monkeypatch, around=(discord, api)) as live:
            assert "today: 1 of 10" in (await said_privately(live, "quota")).content


async def said_privately(live: Live, command: str) -> discord_server.Message:
    asked = await live.discord.slash(command, user_id=1)
    await asked.wait(lambda i: i.message is not None, 10)
    assert asked.message is not None
    return asked.message
