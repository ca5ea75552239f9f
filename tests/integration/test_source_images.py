"""The pictures people gave: kept once, capped, brought back as bytes; and when which of them is sent."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from bot.domain.errors import OutputGone, PictureUnusable, SourceExpired, StorageUnavailable
from bot.images.source_images import SourceImages
from bot.images.source_store import SourceStore
from tests.conftest import a_job, a_picture
from tests.support.factories import NOON, request

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
    from pathlib import Path

    from bot.domain.models import Job, ThumbnailRequest

DAYS = timedelta(days=30)
CAT, DOG, BIRD = (a_picture(width=width) for width in (64, 65, 66))


def kept_in(folder: Path, *, life: timedelta = DAYS, cap: int = 10**6) -> SourceStore:
    return SourceStore(folder / "sources", life=life, cap=cap)


async def pieces(content: bytes, *, broken: Exception | None = None) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 50):
        yield content[start : start + 50]
    if broken is not None:
        raise broken


def name(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "sources").iterdir()}


def age(folder: Path, file: str, *, by: timedelta) -> None:
    then = (datetime.now(UTC) - by).timestamp()
    os.utime(folder / "sources" / file, (then, then))


# --- the folder ----------------------------------------------------------------------------------------------------


async def test_the_same_bytes_are_kept_once_under_their_hash(tmp_path: Path) -> None:
    sources = kept_in(tmp_path)
    found = await asyncio.gather(*(sources.add(pieces(CAT)) for _ in range(10)), sources.add(pieces(DOG)))
    assert set(found) == {name(CAT), name(DOG)} == files(tmp_path)
    assert (tmp_path / "sources" / name(CAT)).read_bytes() == CAT
    assert (sources.has(name(CAT)), sources.has(name(BIRD))) == (True, False)


@pytest.mark.parametrize(("kind", "type_"), [("PNG", "png"), ("JPEG", "jpeg"), ("WEBP", "webp")])
async def test_bytes_come_back_as_an_address_of_their_true_type(tmp_path: Path, kind: str, type_: str) -> None:
    sources, content = kept_in(tmp_path), a_picture(kind)
    address = await sources.data_url(await sources.add(pieces(content)))
    assert address == f"data:image/{type_};base64,{base64.b64encode(content).decode()}"


async def test_a_file_that_a_power_cut_left_short_is_as_good_as_gone(tmp_path: Path) -> None:
    sources = kept_in(tmp_path)
    await sources.add(pieces(CAT))
    path = tmp_path / "sources" / name(CAT)
    path.write_bytes(CAT[:-10])  # its header is whole
    assert await kept_in(tmp_path).data_url(name(CAT)) is None


async def test_what_is_gone_or_damaged_comes_back_as_nothing(tmp_path: Path) -> None:
    sources = kept_in(tmp_path)
    await sources.add(pieces(CAT))
    assert await sources.data_url(name(DOG)) is None
    (tmp_path / "sources" / name(CAT)).write_bytes(CAT[:10])
    assert await sources.data_url(name(CAT)) is None


@pytest.mark.parametrize(
    ("content", "broken", "raised"),
    [
        (b"no picture", None, PictureUnusable),
        (b"", None, PictureUnusable),
        (CAT, OutputGone("status 404"), OutputGone),
        (CAT, OSError(28, "disk full"), OSError),
    ],
)
async def test_what_cannot_be_kept_leaves_nothing_behind(
    tmp_path: Path, content: bytes, broken: Exception | None, raised: type[Exception]
) -> None:
    with pytest.raises(raised):
        await kept_in(tmp_path).add(pieces(content, broken=broken))
    assert files(tmp_path) == set()


async def test_a_stop_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield CAT
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(kept_in(tmp_path).add(endless()))
    await begun.wait()
    assert len(files(tmp_path)) == 1
    task.cancel()
    await asyncio.wait([task])
    assert files(tmp_path) == set()


async def test_life_counts_from_the_last_use(tmp_path: Path) -> None:
    sources = kept_in(tmp_path)
    for content in (CAT, DOG, BIRD):
        age(tmp_path, await sources.add(pieces(content)), by=DAYS + timedelta(hours=1))
    await sources.data_url(name(DOG))
    await sources.add(pieces(BIRD))
    assert await sources.sweep(now=datetime.now(UTC)) == 1
    assert files(tmp_path) == {name(DOG), name(BIRD)}
    assert await sources.sweep(now=datetime.now(UTC) + DAYS + timedelta(hours=1)) == 2


async def test_over_the_cap_the_least_recently_used_go_at_once(tmp_path: Path) -> None:
    sources = kept_in(tmp_path, cap=len(CAT) + len(DOG) + len(BIRD) - 1)
    for hours, content in ((3, CAT), (2, DOG)):
        age(tmp_path, await sources.add(pieces(content)), by=timedelta(hours=hours))
    await sources.data_url(name(CAT))
    await sources.add(pieces(BIRD))
    assert files(tmp_path) == {name(CAT), name(BIRD)}
    assert await sources.sweep(now=datetime.now(UTC)) == 0


async def test_what_is_larger_than_the_cap_takes_nothing_else_along(tmp_path: Path) -> None:
    large = a_picture(width=640, height=360, noisy=True)
    sources = kept_in(tmp_path, cap=len(large) - 1)
    age(tmp_path, await sources.add(pieces(CAT)), by=timedelta(hours=1))
    await sources.add(pieces(large))
    assert files(tmp_path) == {name(CAT)}


async def test_half_written_files_of_a_dead_process_are_swept_and_no_others(tmp_path: Path) -> None:
    sources = kept_in(tmp_path, cap=len(CAT))
    for file in ("dead.part", "alive.part"):
        (tmp_path / "sources" / file).write_bytes(CAT)
    age(tmp_path, "dead.part", by=timedelta(hours=2))
    assert await sources.sweep(now=datetime.now(UTC)) == 1
    assert files(tmp_path) == {"alive.part"}


@pytest.mark.parametrize(("life", "cap"), [(timedelta(0), 10**6), (DAYS, 0)])
async def test_without_life_or_room_nothing_is_kept(tmp_path: Path, life: timedelta, cap: int) -> None:
    before = kept_in(tmp_path)
    age(tmp_path, await before.add(pieces(CAT)), by=timedelta(seconds=1))
    assert before.enabled
    sources = kept_in(tmp_path, life=life, cap=cap)
    assert not sources.enabled
    await sources.sweep(now=datetime.now(UTC))
    assert files(tmp_path) == set()


# --- which is sent: the address or the bytes -----------------------------------------------------------------------


class Cdn:
    """Discord's, with a picture at each of `addresses`."""

    def __init__(self, addresses: Mapping[str, bytes]) -> None:
        self.addresses = addresses
        self.fetched: list[str] = []

    async def fetch(self, address: str) -> AsyncGenerator[bytes, None]:
        self.fetched.append(address)
        if address not in self.addresses:
            raise OutputGone("status 404")
        yield self.addresses[address]


class SourceRecords:
    """What was written down of jobs."""

    def __init__(self, *, failing: Exception | None = None) -> None:
        self.failing = failing
        self.found: list[tuple[str, str | None, str | None]] = []

    async def set_sources(self, job: Job, *, image: str | None, support: str | None) -> None:
        if self.failing is not None:
            raise self.failing
        self.found.append((job.id, image, support))


def signed(until: timedelta, path: str = "cat.png") -> str:
    """An address of Discord's that works `until` so long after noon."""
    return f"https://cdn.discordapp.com/attachments/1/2/{path}?ex={int((NOON + until).timestamp()):x}&is=1&hm=2&"


LIVE, DEAD = signed(timedelta(hours=1)), signed(-timedelta(hours=1))
UNSIGNED = "https://cdn.example/cat.png"


def originals(
    folder: Path, cdn: Cdn | None = None, notes: SourceRecords | None = None, *, life: timedelta = DAYS
) -> tuple[SourceImages, SourceStore]:
    sources = kept_in(folder, life=life)
    clock: Callable[[], datetime] = lambda: NOON  # noqa: E731 - a clock that stands
    return SourceImages(
        downloader=cdn or Cdn({}), store=sources, records=notes or SourceRecords(), clock=clock
    ), sources


def asked(address: str = LIVE, *, kept: bytes | None = None, **changes: str | None) -> ThumbnailRequest:
    hashed = None if kept is None else name(kept)
    return replace(request(), image_url=address, image_sha256=hashed, **changes)  # type: ignore[arg-type] # fields by name


async def test_both_pictures_are_kept_and_noted(tmp_path: Path) -> None:
    notes, logo = SourceRecords(), signed(timedelta(hours=1), "logo.png")
    given, sources = originals(tmp_path, Cdn({LIVE: CAT, logo: DOG}), notes)
    job = a_job(image_url=LIVE, support_image_url=logo)
    await given.keep(job)
    assert notes.found == [(job.id, name(CAT), name(DOG))]
    assert sources.has(name(CAT))
    assert sources.has(name(DOG))


async def test_what_is_kept_already_is_not_fetched_again(tmp_path: Path) -> None:
    cdn, notes = Cdn({LIVE: CAT}), SourceRecords()
    given, sources = originals(tmp_path, cdn, notes)
    await sources.add(pieces(CAT))
    await given.keep(a_job(image_url=LIVE, image_sha256=name(CAT)))
    assert (cdn.fetched, notes.found) == ([], [])


async def test_what_is_kept_no_more_is_fetched_and_kept_again(tmp_path: Path) -> None:
    given, sources = originals(tmp_path, Cdn({LIVE: CAT}))
    await given.keep(a_job(image_url=LIVE, image_sha256=name(CAT)))
    assert sources.has(name(CAT))


async def test_a_life_of_zero_fetches_nothing(tmp_path: Path) -> None:
    cdn = Cdn({LIVE: CAT})
    given, _ = originals(tmp_path, cdn, life=timedelta(0))
    await given.keep(a_job(image_url=LIVE))
    assert (cdn.fetched, files(tmp_path)) == ([], set())


@pytest.mark.parametrize("failing", [None, OSError(28, "full"), StorageUnavailable("disk full")])
async def test_keeping_never_costs_the_job_anything(tmp_path: Path, failing: Exception | None) -> None:
    cdn = Cdn({} if failing is None else {LIVE: CAT})
    await originals(tmp_path, cdn, SourceRecords(failing=failing))[0].keep(a_job(image_url=LIVE))


async def test_an_address_that_works_is_sent_as_it_is(tmp_path: Path) -> None:
    given, sources = originals(tmp_path)
    await sources.add(pieces(CAT))
    for wanted in (asked(LIVE), asked(LIVE, kept=CAT)):
        given.check(wanted)
        assert await given.prepare(wanted) == wanted


@pytest.mark.parametrize("address", [DEAD, signed(timedelta(minutes=9)), UNSIGNED])
async def test_bytes_go_in_place_of_an_address_that_may_not_last(tmp_path: Path, address: str) -> None:
    given, sources = originals(tmp_path)
    await sources.add(pieces(CAT))
    wanted = asked(address, kept=CAT)
    given.check(wanted)
    prepared = await given.prepare(wanted)
    assert prepared == replace(wanted, image_base64=await sources.data_url(name(CAT)))


async def test_only_the_dead_one_of_two_goes_as_bytes(tmp_path: Path) -> None:
    given, sources = originals(tmp_path)
    await sources.add(pieces(DOG))
    prepared = await given.prepare(asked(LIVE, support_image_url=DEAD, support_sha256=name(DOG)))
    assert prepared.image_base64 is None
    assert prepared.support_base64 == await sources.data_url(name(DOG))


async def test_an_address_that_says_nothing_of_its_end_is_tried(tmp_path: Path) -> None:
    given, _ = originals(tmp_path)
    for wanted in (asked(UNSIGNED), asked(UNSIGNED, kept=CAT)):
        given.check(wanted)
        assert await given.prepare(wanted) == wanted


@pytest.mark.parametrize(
    ("wanted", "option"),
    [
        (asked(DEAD), "image"),
        (asked(DEAD, kept=CAT), "image"),
        (asked(LIVE, support_image_url=DEAD), "reference"),
        (asked(LIVE, support_image_url=DEAD, support_sha256=name(CAT)), "reference"),
    ],
)
async def test_what_is_neither_kept_nor_there_has_expired(
    tmp_path: Path, wanted: ThumbnailRequest, option: str
) -> None:
    given, _ = originals(tmp_path)
    with pytest.raises(SourceExpired) as checked:
        given.check(wanted)
    with pytest.raises(SourceExpired) as prepared:
        await given.prepare(wanted)
    assert checked.value.option == prepared.value.option == option


async def test_a_damaged_file_has_expired_when_its_bytes_are_needed(tmp_path: Path) -> None:
    given, sources = originals(tmp_path)
    await sources.add(pieces(CAT))
    (tmp_path / "sources" / name(CAT)).write_bytes(b"damaged")
    for wanted, option in (
        (asked(DEAD, kept=CAT), "image"),
        (asked(LIVE, support_image_url=DEAD, support_sha256=name(CAT)), "reference"),
    ):
        given.check(wanted)
        with pytest.raises(SourceExpired) as expired:
            await given.prepare(wanted)
        assert expired.value.option == option
    assert await given.prepare(asked(LIVE, kept=CAT)) == asked(LIVE, kept=CAT)
