"""A ledger whose database refuses writes: what it remembers, what it flushes, and what it says meanwhile."""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from bot.domain.errors import StorageUnavailable, TransitionRefused
from bot.domain.models import Claim, Job, Output, State
from bot.storage.job_rows import ms
from bot.storage.journal import DiskReserve, Journal
from bot.storage.journaled_ledger import JournaledLedger
from tests.support.factories import NOON, a_job, limit, requester, reservation
from tests.support.journaled import OUTPUT, JournaledSetup, deliver, journaled_setup, picture_in
from tests.support.virtual_clock import Loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime
    from pathlib import Path

    from bot.storage.ledger import Ledger

LEFT: dict[str, Any] = {"output": Output("", OUTPUT.request_id), "picture": None}  # of a job after its end

READ_ONLY = "attempt to write a readonly database"


def later(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[JournaledSetup]:
    async with journaled_setup(tmp_path) as setup:
        yield setup


async def row_of(setup: JournaledSetup, job: Job) -> dict[str, Any]:
    return dict((await setup.database.run("SELECT * FROM jobs WHERE id = ?", (job.id,)))[0])


async def flush(setup: JournaledSetup) -> None:
    await setup.clear()
    await setup.wait_until_flushed()


# --- every step, in the database or in the journal -------------------------------------------------------------------


@pytest.mark.parametrize("full", [False, True], ids=["database", "journal"])
async def test_a_delivery_leaves_the_same_job_whichever_way_it_was_recorded(
    tmp_path: Path, setup: JournaledSetup, *, full: bool
) -> None:
    sent, repository = await setup.sent_job(), setup.repository
    if full:
        await setup.fill()
    assert (sent.state, sent.message_id, sent.sent_at) == (State.SENDING, 10, NOON)
    generated = await repository.generated(sent, OUTPUT, now=later(1))
    assert generated == replace(sent, state=State.GENERATED, output=OUTPUT, generated_at=later(1))
    spooled = await repository.spooled(generated, picture_in(tmp_path))
    assert spooled == replace(generated, state=State.SPOOLED, picture=picture_in(tmp_path))
    parked = await repository.parked(spooled, now=later(2))
    assert parked == replace(spooled, parked_at=later(2))
    assert await repository.job(sent.id) == parked
    assert await repository.open_jobs() == [parked]
    assert await repository.parked_jobs(1) == [parked]
    delivered = await repository.delivered(parked, message_id=11, now=later(3))
    expected = replace(parked, state=State.DELIVERED, message_id=11, ended_at=later(3), **LEFT)
    assert replace(delivered, requester=sent.requester) == expected
    assert await repository.open_jobs() == await repository.parked_jobs(1) == []
    if full:
        await flush(setup)
    stored = await setup.ledger.job(sent.id)
    assert stored == replace(expected, requester=replace(sent.requester, token=""))
    assert await repository.job(sent.id) == stored, "after the flush, only the database is asked"
    assert (await row_of(setup, sent))["notified_at"] == ms(later(3))


@pytest.mark.parametrize("full", [False, True], ids=["database", "journal"])
async def test_a_release_leaves_the_same_job_whichever_way_it_was_recorded(
    setup: JournaledSetup, *, full: bool
) -> None:
    sent, repository = await setup.sent_job(), setup.repository
    if full:
        await setup.fill()
    released = await repository.released(sent, reason="outcome_unknown", request_id="req_2", now=later(1))
    assert released == replace(sent, state=State.RELEASED, reason="outcome_unknown", ended_at=later(1))
    assert await repository.unnotified_jobs() == [released]
    await repository.notified(released, now=later(2))
    assert await repository.unnotified_jobs() == await repository.open_jobs() == []
    if full:
        await flush(setup)
    row = await row_of(setup, sent)
    assert (row["state"], row["reason"], row["request_id"]) == ("released", "outcome_unknown", "req_2")
    assert (row["ended_at"], row["notified_at"], row["token"]) == (ms(later(1)), ms(later(2)), None)
    assert await repository.unnotified_jobs() == []


@pytest.mark.parametrize("full", [False, True], ids=["database", "journal"])
async def test_a_release_records_the_message_that_nothing_has_recorded_before(
    setup: JournaledSetup, *, full: bool
) -> None:
    reserved = await setup.repository.reserve(reservation(requester(), limits=[limit()]))
    if full:
        await setup.fill()
    shown = replace(reserved, message_id=10)
    released = await setup.repository.released(shown, reason="not_started", request_id=None, now=later(1))
    assert (released.state, released.message_id) == (State.RELEASED, 10)
    if full:
        await flush(setup)
    assert (await row_of(setup, reserved))["message_id"] == 10


async def test_a_parked_job_that_was_delivered_meanwhile_can_not_be_claimed_again(
    tmp_path: Path, setup: JournaledSetup
) -> None:
    jobs = []
    for _ in range(2):
        job = await setup.repository.generated(await setup.sent_job(), OUTPUT, now=NOON)
        jobs.append(await setup.repository.parked(await setup.repository.spooled(job, picture_in(tmp_path)), now=NOON))
    await setup.fill()
    await setup.repository.delivered(jobs[0], message_id=11, now=NOON)
    assert await setup.repository.parked_jobs(1) == [jobs[1]]
    assert [job.id for job in await setup.ledger.parked_jobs(1)] == [job.id for job in jobs]


async def test_a_refusal_by_the_journal_names_the_states_that_would_allow_the_step(
    tmp_path: Path, setup: JournaledSetup
) -> None:
    job = await setup.sent_job()
    await setup.fill()
    await deliver(setup, job, tmp_path)
    with pytest.raises(TransitionRefused) as refused:
        await setup.repository.delivered(job, message_id=12, now=NOON)
    assert (refused.value.job_id, refused.value.expected) == (job.id, "generated/spooled")
    assert [record["step"] for record in setup.repository._pending] == ["generated", "spooled", "delivered"]


async def test_a_step_of_an_outdated_job_goes_on_from_what_the_journal_says(
    tmp_path: Path, setup: JournaledSetup
) -> None:
    sent = await setup.sent_job()
    await setup.fill()
    generated = await setup.repository.generated(sent, OUTPUT, now=NOON)
    spooled = await setup.repository.spooled(sent, picture_in(tmp_path))
    assert spooled == replace(generated, state=State.SPOOLED, picture=picture_in(tmp_path))
    released = await setup.repository.released(sent, reason="x", request_id=None, now=NOON)
    assert released == replace(spooled, state=State.RELEASED, reason="x", ended_at=NOON, **LEFT)


async def test_a_claim_is_stored_if_the_database_takes_it_and_otherwise_remembered(
    tmp_path: Path, setup: JournaledSetup
) -> None:
    job = await setup.repository.generated(await setup.sent_job(), OUTPUT, now=NOON)
    job = await setup.repository.parked(await setup.repository.spooled(job, picture_in(tmp_path)), now=NOON)
    claims = [Claim(1, f"claim-{number}", 5000, later(number)) for number in range(3)]
    assert await setup.repository.claiming(job, claims[0]) == replace(job, claim=claims[0])
    assert await setup.ledger.job(job.id) == replace(job, claim=claims[0])
    await setup.fill()
    assert await setup.repository.claiming(job, claims[1]) == replace(job, claim=claims[1])
    await setup.clear()
    setup.repository._unsynced_jobs[job.id] = job
    assert await setup.repository.claiming(job, claims[2]) == replace(job, claim=claims[2])
    assert await setup.ledger.job(job.id) == replace(job, claim=claims[0]), "records of it are still pending"


# --- what is told ----------------------------------------------------------------------------------------------------


async def test_every_write_that_the_database_refuses_is_told_and_frees_the_reserve(
    tmp_path: Path, setup: JournaledSetup
) -> None:
    job = await setup.sent_job()
    assert (tmp_path / "ballast").exists()
    assert setup.unavailable == []
    await setup.fill()
    await setup.repository.generated(job, OUTPUT, now=NOON)
    assert not (tmp_path / "ballast").exists()
    assert [one.problem for one in setup.unavailable] == [READ_ONLY]
    with pytest.raises(StorageUnavailable) as refused:
        await setup.sent_job()
    assert setup.unavailable[1:] == [refused.value]
    assert refused.value.problem == "the disk is full"


async def test_a_reservation_that_the_database_refuses_is_told_as_it_is_and_frees_the_reserve(
    tmp_path: Path, setup: JournaledSetup
) -> None:
    await setup.fill()
    with pytest.raises(StorageUnavailable) as refused:
        await setup.sent_job()
    assert setup.unavailable == [refused.value]
    assert (refused.value.problem, (tmp_path / "ballast").exists()) == (READ_ONLY, False)


async def test_a_journal_that_fails_too_is_named_by_its_error(tmp_path: Path, setup: JournaledSetup) -> None:
    job = await setup.sent_job()
    await setup.fill()
    (tmp_path / "journal").unlink()
    with pytest.raises(StorageUnavailable) as refused:
        await setup.repository.generated(job, OUTPUT, now=NOON)
    assert refused.value.problem == "the journal too (FileNotFoundError)"
    assert setup.unavailable[1:] == [refused.value]
    assert isinstance(refused.value.__cause__, FileNotFoundError)
    assert await setup.repository.job(job.id) == job, "what was not recorded has not happened"


async def test_the_disk_is_looked_at_every_thirty_seconds_until_the_reserve_fits(
    tmp_path: Path, setup: JournaledSetup
) -> None:
    await setup.fill()
    setup.offset[0] = timedelta(hours=1)
    with pytest.raises(StorageUnavailable):
        await setup.sent_job()
    await setup.clear()
    for seconds, full in ((29.9, True), (30, True), (59.9, False), (60, False)):
        setup.offset[0] = timedelta(hours=1, seconds=seconds)
        block = tmp_path / "ballast.blocked"
        setup.repository._reserve = DiskReserve((block if full else tmp_path) / "ballast")
        problem = await setup.repository.problem()
        assert (problem is None) == (seconds == 60), seconds
    assert (tmp_path / "ballast").exists()


async def test_the_disk_is_looked_at_at_once_when_the_reserve_has_disappeared(
    tmp_path: Path, setup: JournaledSetup
) -> None:
    (tmp_path / "ballast").unlink()
    assert await setup.repository.problem() is None
    assert (tmp_path / "ballast").exists()


# --- a start ---------------------------------------------------------------------------------------------------------


class RoomInTheReserve:
    """A ledger that finds no room for a write until the reserve is freed."""

    def __init__(self, ledger: Ledger, reserve: DiskReserve) -> None:
        self._ledger = ledger
        self._reserve = reserve

    async def generated(self, job: Job, output: Output, *, now: datetime) -> Job:
        self._look()
        return await self._ledger.generated(job, output, now=now)

    async def set_value(self, name: str, value: str) -> None:
        self._look()
        await self._ledger.set_value(name, value)

    def _look(self) -> None:
        if self._reserve.is_allocated:
            raise StorageUnavailable("no room")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)


def restarted(setup: JournaledSetup, folder: Path, *, ledger: Any = None) -> JournaledLedger:
    return JournaledLedger(
        ledger or setup.ledger,
        Journal(folder / "journal"),
        DiskReserve(folder / "ballast"),
        clock=lambda: NOON,
        on_unavailable=setup.unavailable.append,
    )


async def left_in_the_journal(setup: JournaledSetup) -> Job:
    """A job whose output is recorded in the journal alone, with the reserve in its place, as after a kill."""
    job = await setup.sent_job()
    await setup.fill()
    job = await setup.repository.generated(job, OUTPUT, now=later(1))
    await setup.repository.close()
    await setup.clear()
    setup.repository._pending.clear()
    setup.unavailable.clear()
    assert setup.repository._reserve.allocate()
    return job


async def test_a_start_without_room_flushes_with_that_of_the_reserve_and_then_restores_it(
    tmp_path: Path, setup: JournaledSetup
) -> None:
    job = await left_in_the_journal(setup)
    ledger = RoomInTheReserve(setup.ledger, DiskReserve(tmp_path / "ballast"))
    repository = restarted(setup, tmp_path, ledger=ledger)
    assert (await repository.replay(), setup.unavailable) == (1, [])
    assert await setup.ledger.job(job.id) == job
    assert Journal(tmp_path / "journal").records() == []
    assert (tmp_path / "ballast").exists()
    assert await repository.problem() is None


async def test_a_start_that_finds_no_room_at_all_says_so_once_and_flushes_later_by_itself(
    tmp_path: Path, setup: JournaledSetup
) -> None:
    job = await left_in_the_journal(setup)
    await setup.fill()
    repository = restarted(setup, tmp_path)
    assert await repository.replay() == 1
    assert [one.problem for one in setup.unavailable] == [READ_ONLY]
    assert await repository.job(job.id) == job
    await setup.clear()
    assert repository._flush_task is not None
    await asyncio.wait_for(repository._flush_task, 10)
    assert await setup.ledger.job(job.id) == job


@pytest.mark.parametrize("full", [False, True])
async def test_a_record_of_a_job_that_the_database_does_not_have_holds_up_no_other(
    tmp_path: Path, setup: JournaledSetup, caplog: pytest.LogCaptureFixture, *, full: bool
) -> None:
    unknown = replace(await left_in_the_journal(setup), id="gone")
    journal = Journal(tmp_path / "journal")
    [record] = journal.records()
    journal.clear()
    journal.append(record | {"job": unknown.id})
    journal.append(record)
    repository = restarted(setup, tmp_path)
    if full:
        await setup.fill()
    assert await repository.replay() == 2
    assert await repository.job("gone") is None
    await setup.clear()
    await repository.close()
    stored = await setup.ledger.job(record["job"])
    assert stored is not None
    assert stored.state is State.GENERATED
    assert Journal(tmp_path / "journal").records() == []
    errors = [line.getMessage() for line in caplog.records if line.levelno == logging.ERROR]
    assert set(errors) == {"the journal names job gone, which the database does not have"}


# --- a stop ----------------------------------------------------------------------------------------------------------


async def test_a_stop_flushes_at_once_what_the_database_takes_again(setup: JournaledSetup) -> None:
    job = await setup.sent_job()
    await setup.fill()
    job = await setup.repository.generated(job, OUTPUT, now=NOON)
    await setup.clear()
    await setup.repository.close()
    assert await setup.ledger.job(job.id) == job
    assert setup.repository._flush_task is not None
    assert setup.repository._flush_task.done()


async def test_a_stop_waits_for_the_writes_that_were_begun(setup: JournaledSetup) -> None:
    job = await setup.sent_job()
    await setup.fill()
    writing = asyncio.create_task(setup.repository.generated(job, OUTPUT, now=NOON))
    await asyncio.sleep(0)
    await setup.repository.close()
    assert writing.done()
    assert [record["step"] for record in setup.repository._journal.records()] == ["generated"]
    assert setup.repository._writing == set()


# --- the flush -------------------------------------------------------------------------------------------------------


subject: ContextVar[str] = ContextVar("subject", default="")


class UnwritableLedger:
    """A ledger that refuses everything, and notes when and in whose context a flush asked it."""

    spool = None

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.contexts: set[str] = set()

    async def generated(self, *_: Any, **__: Any) -> Job:
        raise StorageUnavailable("full")

    async def job(self, _: str) -> Job | None:
        self.asked.append(asyncio.get_running_loop().time())
        self.contexts.add(subject.get())
        raise StorageUnavailable("full")


def test_a_flush_is_tried_again_after_pauses_of_up_to_five_seconds_and_belongs_to_no_job(tmp_path: Path) -> None:
    async def run() -> UnwritableLedger:
        subject.set("the first job")
        ledger, reserve = UnwritableLedger(), DiskReserve(tmp_path / "ballast", size=1)
        repository = JournaledLedger(
            ledger,  # type: ignore[arg-type] # behaves like one
            Journal(tmp_path / "journal"),
            reserve,
            clock=lambda: NOON,
            on_unavailable=lambda _: None,
        )
        await repository.generated(replace(a_job(), state=State.SENDING), OUTPUT, now=NOON)
        await asyncio.sleep(25)
        assert repository._flush_task is not None
        repository._flush_task.cancel()
        return ledger

    loop = Loop()
    try:
        ledger = loop.run_until_complete(run())
    finally:
        loop.close()
    pauses = [round(after - before, 3) for before, after in pairwise(ledger.asked)]
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 5]
    assert ledger.contexts == {""}


async def test_a_job_that_went_on_while_its_records_were_flushed_is_read_from_the_database_alone(
    setup: JournaledSetup,
) -> None:
    job = await setup.sent_job()
    await setup.fill()
    released = await setup.repository.released(job, reason="x", request_id=None, now=NOON)
    await setup.repository.notified(released, now=NOON)
    await flush(setup)
    assert (setup.repository._unsynced_jobs, setup.repository._notified) == ({}, set())


class StubbornJournal(Journal):
    """A journal that cannot be erased the first time."""

    failed: bool = False

    def clear(self) -> None:
        if not self.failed:
            self.failed = True
            raise OSError
        super().clear()


async def test_a_journal_that_cannot_be_erased_is_tried_again(tmp_path: Path, setup: JournaledSetup) -> None:
    journal = setup.repository._journal = StubbornJournal(tmp_path / "journal")
    job = await setup.sent_job()
    await setup.fill()
    await setup.repository.generated(job, OUTPUT, now=NOON)
    await flush(setup)
    assert (journal.failed, journal.records(), setup.repository._unsynced_jobs) == (True, [], {})


async def test_a_stop_with_a_journal_that_cannot_be_erased_leaves_it_to_the_next_start(
    tmp_path: Path, setup: JournaledSetup
) -> None:
    setup.repository._journal = StubbornJournal(tmp_path / "journal")
    job = await setup.sent_job()
    await setup.fill()
    job = await setup.repository.generated(job, OUTPUT, now=NOON)
    await setup.clear()
    await setup.repository.close()
    assert await setup.ledger.job(job.id) == job
    assert len(Journal(tmp_path / "journal").records()) == 1


async def test_a_record_that_was_flushed_before_changes_nothing_and_is_logged(
    tmp_path: Path, setup: JournaledSetup, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bot")
    job = await left_in_the_journal(setup)
    first, second = await setup.sent_job(), restarted(setup, tmp_path)
    [record] = second._journal.records()
    second._journal.append({**record, "job": first.id})
    await setup.ledger.generated(job, OUTPUT, now=later(1))
    assert await second.replay() == 2
    assert caplog.messages == [f"job {job.id}: generated was flushed before: {TransitionRefused(job.id, 'sending')}"]
    assert await setup.ledger.job(job.id) == job
    stored = await setup.ledger.job(first.id)
    assert stored is not None
    assert stored.state is State.GENERATED


class BrokenOnceLedger:
    """A ledger whose first read ends with an unexpected error."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._has_failed = False

    async def job(self, job_id: str) -> Job | None:
        if not self._has_failed:
            self._has_failed = True
            raise ZeroDivisionError
        return await self._ledger.job(job_id)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)


async def test_an_unexpected_error_of_a_flush_is_logged_with_its_traceback(
    setup: JournaledSetup, caplog: pytest.LogCaptureFixture
) -> None:
    job = await setup.sent_job()
    await setup.fill()
    setup.repository._ledger = BrokenOnceLedger(setup.ledger)  # type: ignore[assignment] # behaves like one
    await setup.repository.generated(job, OUTPUT, now=NOON)
    await flush(setup)
    [line] = caplog.records
    assert line.getMessage() == "the pending records could not be flushed; trying again"
    assert line.exc_info is not None
    assert line.exc_info[0] is ZeroDivisionError


# --- values ----------------------------------------------------------------------------------------------------------


async def test_a_value_that_finds_no_room_is_written_with_that_of_the_reserve(
    tmp_path: Path, setup: JournaledSetup
) -> None:
    setup.repository._ledger = RoomInTheReserve(setup.ledger, setup.repository._reserve)  # type: ignore[assignment] # behaves like one
    await setup.repository.set_value("name", "1")
    assert [one.problem for one in setup.unavailable] == ["no room"]
    assert not (tmp_path / "ballast").exists()
    await setup.ledger.set_value("name", "2")
    assert await setup.repository.get_value("name") == "2", "memory holds nothing that the database has accepted"


async def test_a_value_that_cannot_be_written_is_tried_twice_and_read_from_memory(setup: JournaledSetup) -> None:
    await setup.repository.set_value("other", "0")
    await setup.repository.set_value("name", "1")
    await setup.fill()
    await setup.repository.set_value("name", "2")
    assert [one.problem for one in setup.unavailable] == [READ_ONLY] * 2
    assert [await setup.repository.get_value(name) for name in ("name", "other", "none")] == ["2", "0", None]
    assert await setup.ledger.get_value("name") == "1"


class SlowLedger(RoomInTheReserve):
    """A ledger whose first value is accepted late, and which accepts no other."""

    def __init__(self, ledger: Ledger, reserve: DiskReserve) -> None:
        super().__init__(ledger, reserve)
        self.entered, self.gate = asyncio.Event(), asyncio.Event()

    async def set_value(self, name: str, value: str) -> None:
        if self.entered.is_set():
            raise StorageUnavailable("no room")
        self.entered.set()
        await self.gate.wait()
        await self._ledger.set_value(name, value)


async def test_an_older_value_that_is_accepted_late_does_not_replace_a_newer_one(setup: JournaledSetup) -> None:
    slow = SlowLedger(setup.ledger, setup.repository._reserve)
    setup.repository._ledger = slow  # type: ignore[assignment] # behaves like one
    older = asyncio.create_task(setup.repository.set_value("name", "older"))
    await asyncio.sleep(0)
    assert slow.entered.is_set()
    await setup.repository.set_value("name", "newer")
    slow.gate.set()
    await older
    assert await setup.repository.get_value("name") == "newer"


async def test_allowances_include_what_was_reserved(setup: JournaledSetup) -> None:
    job = await setup.repository.reserve(reservation(requester(), cost=2, limits=[limit()]))
    assert [one.used for one in await setup.repository.allowances([limit()])] == [2]
    await setup.repository.released(job, reason="x", request_id=None, now=NOON)
    assert [one.used for one in await setup.repository.allowances([limit()])] == [0]
