"""Images in the spool are complete or absent, and old ones are removed."""

import asyncio
import os
import stat
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from bot.domain.errors import PictureUnusable
from bot.domain.models import CLAIM_LIFE
from bot.images.output_spool import CAP_BYTES, OutputSpool
from tests.support.event_loop import counted_turns, recorded_threads
from tests.support.factories import NOON, a_job, image_bytes
from tests.support.hostile_images import HOSTILE

JOB = a_job()
NOISE = image_bytes(width=480, height=270, noisy=True)
NOISY = f"{blake3(NOISE).hexdigest()[:16]}.png"  # how its name ends
LARGE = image_bytes(width=960, height=540, noisy=True)


@pytest.fixture
def spool(tmp_path: Path) -> OutputSpool:
    return OutputSpool(tmp_path / "spool")


def names(spool: OutputSpool) -> list[str]:
    return sorted(path.name for path in spool.folder.iterdir())


async def pieces_of(
    content: bytes, *, size: int = 10_000, then: Callable[[], Any] | None = None
) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]
        if then is not None:
            await asyncio.sleep(0)
            then()


async def write_all(spool: OutputSpool, *contents: bytes) -> list[Path]:
    jobs = [replace(JOB, id=f"job{number}") for number in range(len(contents))]
    return [(await spool.write(job, pieces_of(content))).path for job, content in zip(jobs, contents, strict=True)]


def set_age(path: Path, age: timedelta) -> None:
    moment = (NOON - age).timestamp()
    os.utime(path, (moment, moment))


# --- writing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("size", [1, 777, 10**6])
async def test_one_write_yields_content_hash_type_and_size(spool: OutputSpool, kind: str, size: int) -> None:
    content = image_bytes(kind)
    picture = await spool.write(JOB, pieces_of(content, size=size))
    assert picture.path.read_bytes() == content
    assert (picture.type, picture.width, picture.height, picture.size) == (kind, 64, 36, len(content))
    assert names(spool) == [f"k3f9.{blake3(content).hexdigest()[:16]}{picture.suffix}"]


async def test_an_image_larger_than_one_block_is_stored_completely(spool: OutputSpool) -> None:
    picture = await spool.write(JOB, pieces_of(LARGE, size=100_001))
    assert picture.path.read_bytes() == LARGE


async def test_the_final_name_appears_only_when_the_image_is_complete(spool: OutputSpool) -> None:
    seen: set[str] = set()
    await spool.write(JOB, pieces_of(NOISE, then=lambda: seen.update(names(spool))))
    assert seen == {"k3f9.part"}
    assert names(spool) == [f"k3f9.{NOISY}"]


async def test_only_an_image_that_has_to_wait_is_flushed_and_then_its_name_too(
    spool: OutputSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[bool, int, list[str]]] = []
    flush = os.fsync

    def record(descriptor: int) -> None:
        status = os.fstat(descriptor)
        folder = stat.S_ISDIR(status.st_mode)
        flushed.append((folder, 0 if folder else status.st_size, names(spool)))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    picture = await spool.write(JOB, pieces_of(NOISE))
    assert flushed == []
    await spool.flush(picture)
    assert flushed == [(False, len(NOISE), [f"k3f9.{NOISY}"]), (True, 0, [f"k3f9.{NOISY}"])]


async def test_writing_again_replaces_the_old_file(spool: OutputSpool) -> None:
    (spool.folder / "k3f9.part").write_bytes(b"half of an older one")
    await spool.write(JOB, pieces_of(NOISE))
    again = await spool.write(JOB, pieces_of(NOISE))
    assert again.path.read_bytes() == NOISE
    assert names(spool) == [f"k3f9.{NOISY}"]


async def test_an_image_of_an_earlier_process_is_found_by_its_job(spool: OutputSpool) -> None:
    await spool.write(replace(JOB, id="k3f"), pieces_of(image_bytes()))
    picture = await spool.write(JOB, pieces_of(NOISE))
    assert await OutputSpool(spool.folder).find(JOB) == picture
    assert await spool.find(replace(JOB, id="k3f99")) is None


@pytest.mark.parametrize("damage", ["cut off", "zeros", "empty", "half written"])
async def test_what_a_power_cut_has_damaged_is_removed_instead_of_found(spool: OutputSpool, damage: str) -> None:
    content = image_bytes("JPEG", width=480, height=270, noisy=True)
    path = (await spool.write(JOB, pieces_of(content))).path
    whole = {"cut off": content[:-1000], "zeros": content[:20_000] + bytes(8000) + content[28_000:], "empty": b""}
    if damage == "half written":
        path.rename(spool.folder / "k3f9.part")
    else:
        path.write_bytes(whole[damage])
    assert await spool.find(JOB) is None
    assert names(spool) == []


def test_only_the_user_of_the_bot_can_read_the_folder(spool: OutputSpool) -> None:
    assert spool.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", [b"", b"<html>", image_bytes()[:20]])
async def test_an_unusable_image_leaves_nothing_behind(spool: OutputSpool, content: bytes) -> None:
    with pytest.raises(PictureUnusable):
        await spool.write(JOB, pieces_of(content))
    assert names(spool) == []


async def test_an_error_in_the_stream_leaves_nothing_behind(spool: OutputSpool) -> None:
    class Interrupted(Exception):
        pass

    def interrupt() -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        await spool.write(JOB, pieces_of(NOISE, then=interrupt))
    assert names(spool) == []


async def test_a_cancellation_between_pieces_leaves_nothing_behind(spool: OutputSpool) -> None:
    started = asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        yield NOISE[:1000]
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(spool.write(JOB, stalling()))
    await started.wait()
    assert names(spool) == ["k3f9.part"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(spool) == []


class HoldingExecutor(ThreadPoolExecutor):
    """A thread pool that holds its nth task until `proceed` is set."""

    def __init__(self, *, held: int) -> None:
        super().__init__(max_workers=2)
        self.holding = asyncio.Event()
        self.proceed = threading.Event()
        self.jobs: list[Future[Any]] = []
        self._held = held
        self._loop = asyncio.get_running_loop()

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        number = len(self.jobs) + 1

        def run_when_released() -> Any:
            if number == self._held:
                self._loop.call_soon_threadsafe(self.holding.set)
                self.proceed.wait(5)
            return call(*args, **kwargs)

        self.jobs.append(super().submit(run_when_released))
        return self.jobs[-1]


@pytest.mark.parametrize("held", [1, 2], ids=["writing", "finishing"])
async def test_a_cancellation_during_a_write_leaves_nothing_behind(spool: OutputSpool, held: int) -> None:
    threads = HoldingExecutor(held=held)
    asyncio.get_running_loop().set_default_executor(threads)
    task = asyncio.create_task(spool.write(JOB, pieces_of(LARGE, size=600_000)))
    await asyncio.wait_for(threads.holding.wait(), 5)
    task.cancel()
    for _ in range(3):  # it may end at once or wait for its thread; both are correct
        await asyncio.sleep(0)
    threads.proceed.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    threads.shutdown()
    failed = [job.exception() for job in threads.jobs if job.exception()]
    assert (names(spool), failed) == ([], [])


# --- removing -------------------------------------------------------------------------------------------------------


async def test_removing_a_job_removes_exactly_its_files(spool: OutputSpool) -> None:
    await spool.write(replace(JOB, id="job0"), pieces_of(NOISE))
    await spool.write(replace(JOB, id="job00"), pieces_of(NOISE))
    await spool.remove(replace(JOB, id="job0"))
    assert names(spool) == [f"job00.{NOISY}"]
    await spool.remove(replace(JOB, id="job0"))


async def test_a_sweep_removes_old_and_partial_files(spool: OutputSpool) -> None:
    old, young = await write_all(spool, NOISE, NOISE)
    set_age(old, CLAIM_LIFE + timedelta(seconds=1))
    set_age(young, CLAIM_LIFE - timedelta(minutes=1))
    half = spool.folder / "job2.part"
    half.write_bytes(b"half")
    set_age(half, timedelta(hours=3))
    assert await spool.sweep(now=NOON, needed=frozenset()) == 2
    assert names(spool) == [young.name]


async def test_a_sweep_removes_the_oldest_beyond_the_cap(spool: OutputSpool) -> None:
    paths = await write_all(spool, NOISE, NOISE, NOISE)
    for hours, path in enumerate(paths):
        os.truncate(path, CAP_BYTES // 2)  # a sparse file
        set_age(path, timedelta(hours=hours))
    assert await spool.sweep(now=NOON, needed=frozenset()) == 1
    assert names(spool) == [f"job0.{NOISY}", f"job1.{NOISY}"]


async def test_a_sweep_keeps_files_that_jobs_still_need(spool: OutputSpool) -> None:
    old, huge, third = await write_all(spool, NOISE, NOISE, NOISE)
    set_age(old, CLAIM_LIFE * 2)
    os.truncate(huge, CAP_BYTES + 1)  # leaves no room for the third
    set_age(huge, timedelta(0))
    set_age(third, timedelta(hours=1))
    assert await spool.sweep(now=NOON, needed=frozenset({"job0", "job1"})) == 1
    assert names(spool) == [f"job0.{NOISY}", f"job1.{NOISY}"]


async def test_a_sweep_does_not_disturb_the_download_of_a_needed_job(spool: OutputSpool) -> None:
    swept: list[int] = []

    async def swept_midway() -> AsyncIterator[bytes]:
        yield NOISE[:1000]
        swept.append(await spool.sweep(now=NOON, needed=frozenset({JOB.id})))
        yield NOISE[1000:]

    picture = await spool.write(JOB, swept_midway())
    assert (swept, picture.path.read_bytes()) == ([0], NOISE)


async def test_a_sweep_of_an_empty_folder_removes_nothing(spool: OutputSpool) -> None:
    assert await spool.sweep(now=NOON, needed=frozenset()) == 0


# --- a full disk ----------------------------------------------------------------------------------------------------


async def test_an_image_is_held_in_memory_when_the_disk_is_full(spool: OutputSpool) -> None:
    picture = await spool.hold_in_memory(JOB, pieces_of(NOISE))
    assert (picture.content, picture.type, picture.path.exists()) == (NOISE, "PNG", False)


async def test_memory_is_limited_and_freed_by_removal(spool: OutputSpool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.images.output_spool.HELD_BYTES", len(NOISE))
    await spool.hold_in_memory(JOB, pieces_of(NOISE))
    with pytest.raises(MemoryError):
        await spool.hold_in_memory(replace(JOB, id="other"), pieces_of(NOISE))
    await spool.remove(JOB)
    await spool.hold_in_memory(replace(JOB, id="other"), pieces_of(NOISE))


async def test_incoming_images_count_as_memory_and_written_ones_do_not(
    spool: OutputSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.images.output_spool.HELD_BYTES", len(NOISE))
    started, proceed = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield NOISE[:-1]
        started.set()
        await proceed.wait()
        yield NOISE[-1:]

    first = asyncio.create_task(spool.hold_in_memory(JOB, slowly()))
    await started.wait()
    with pytest.raises(MemoryError):
        await spool.hold_in_memory(replace(JOB, id="other"), pieces_of(NOISE))
    proceed.set()
    await first
    await spool.write(JOB, pieces_of(NOISE))
    await spool.hold_in_memory(replace(JOB, id="other"), pieces_of(NOISE))


def test_parent_folders_are_created(tmp_path: Path) -> None:
    assert OutputSpool(tmp_path / "a" / "b").folder.is_dir()


# --- the event loop -------------------------------------------------------------------------------------------------


async def one_piece(content: bytes) -> AsyncIterator[bytes]:
    yield content


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("way", ["write", "hold_in_memory"])
async def test_the_event_loop_goes_on_while_a_hostile_file_is_examined(spool: OutputSpool, way: str, name: str) -> None:
    content = HOSTILE[name]()
    async with counted_turns() as turns:
        with pytest.raises(PictureUnusable):
            await getattr(spool, way)(JOB, one_piece(content))
    assert turns.count > 100


async def test_an_image_is_written_hashed_and_examined_in_threads(
    spool: OutputSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = recorded_threads(monkeypatch, "os.write", "bot.images.formats.check_to_the_end")
    await spool.write(JOB, pieces_of(image_bytes(width=960, height=540, noisy=True)))
    await spool.hold_in_memory(JOB, one_piece(NOISE))
    assert calls == {"os.write": {False}, "bot.images.formats.check_to_the_end": {False}}
