"""Source images: how they are stored, capped, and read back, and when bytes are sent in place of a URL."""

from __future__ import annotations

import asyncio
import base64
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from blake3 import blake3

from bot.domain.errors import OutputGone, PictureUnusable, SourceExpired, StorageUnavailable
from bot.images.source_images import SourceImages
from bot.images.source_store import SourceStore
from tests.support.event_loop import counted_turns, recorded_threads
from tests.support.factories import NOON, a_job, image_bytes, request
from tests.support.hostile_images import HOSTILE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
    from pathlib import Path

    from bot.domain.models import Job, ThumbnailRequest

DAYS = timedelta(days=30)
CAT, DOG, BIRD = (image_bytes(width=width) for width in (64, 65, 66))


def open_store(folder: Path, *, life: timedelta = DAYS, cap: int = 10**6) -> SourceStore:
    return SourceStore(folder / "sources", life=life, cap=cap)


async def pieces(content: bytes, *, broken: Exception | None = None) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 50):
        yield content[start : start + 50]
    if broken is not None:
        raise broken


def hash_of(content: bytes) -> str:
    return blake3(content).hexdigest()


def files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "sources").iterdir()}


def age(folder: Path, file: str, *, by: timedelta) -> None:
    then = (datetime.now(UTC) - by).timestamp()
    os.utime(folder / "sources" / file, (then, then))


# --- the folder ----------------------------------------------------------------------------------------------------


async def test_the_same_bytes_are_stored_once_under_their_hash(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    found = await asyncio.gather(*(store.add(pieces(CAT)) for _ in range(10)), store.add(pieces(DOG)))
    assert set(found) == {hash_of(CAT), hash_of(DOG)} == files(tmp_path)
    assert (tmp_path / "sources" / hash_of(CAT)).read_bytes() == CAT
    assert (store.has(hash_of(CAT)), store.has(hash_of(BIRD))) == (True, False)


@pytest.mark.parametrize(("kind", "type_"), [("PNG", "png"), ("JPEG", "jpeg"), ("WEBP", "webp")])
async def test_bytes_are_read_back_as_a_data_url_of_their_type(tmp_path: Path, kind: str, type_: str) -> None:
    store, content = open_store(tmp_path), image_bytes(kind)
    address = await store.data_url(await store.add(pieces(content)))
    assert address == f"data:image/{type_};base64,{base64.b64encode(content).decode()}"


async def test_a_file_truncated_by_a_power_loss_counts_as_missing(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    await store.add(pieces(CAT))
    path = tmp_path / "sources" / hash_of(CAT)
    path.write_bytes(CAT[:-10])  # the header is complete
    assert await open_store(tmp_path).data_url(hash_of(CAT)) is None


async def test_a_missing_or_damaged_file_gives_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    await store.add(pieces(CAT))
    assert await store.data_url(hash_of(DOG)) is None
    (tmp_path / "sources" / hash_of(CAT)).write_bytes(CAT[:10])
    assert await store.data_url(hash_of(CAT)) is None


@pytest.mark.parametrize(
    ("content", "broken", "raised"),
    [
        (b"no picture", None, PictureUnusable),
        (b"", None, PictureUnusable),
        (CAT, OutputGone("status 404"), OutputGone),
        (CAT, OSError(28, "disk full"), OSError),
    ],
)
async def test_an_image_that_cannot_be_stored_leaves_nothing_behind(
    tmp_path: Path, content: bytes, broken: Exception | None, raised: type[Exception]
) -> None:
    with pytest.raises(raised):
        await open_store(tmp_path).add(pieces(content, broken=broken))
    assert files(tmp_path) == set()


async def test_a_cancellation_while_storing_leaves_nothing_behind(tmp_path: Path) -> None:
    started = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield CAT
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(open_store(tmp_path).add(endless()))
    await started.wait()
    assert len(files(tmp_path)) == 1
    task.cancel()
    await asyncio.wait([task])
    assert files(tmp_path) == set()


async def test_retention_counts_from_the_last_use(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for content in (CAT, DOG, BIRD):
        age(tmp_path, await store.add(pieces(content)), by=DAYS + timedelta(hours=1))
    await store.data_url(hash_of(DOG))
    await store.add(pieces(BIRD))
    assert await store.sweep(now=datetime.now(UTC)) == 1
    assert files(tmp_path) == {hash_of(DOG), hash_of(BIRD)}
    assert await store.sweep(now=datetime.now(UTC) + DAYS + timedelta(hours=1)) == 2


async def test_over_the_cap_the_least_recently_used_images_are_removed_at_once(tmp_path: Path) -> None:
    store = open_store(tmp_path, cap=len(CAT) + len(DOG) + len(BIRD) - 1)
    for hours, content in ((3, CAT), (2, DOG)):
        age(tmp_path, await store.add(pieces(content)), by=timedelta(hours=hours))
    await store.data_url(hash_of(CAT))
    await store.add(pieces(BIRD))
    assert files(tmp_path) == {hash_of(CAT), hash_of(BIRD)}
    assert await store.sweep(now=datetime.now(UTC)) == 0


async def test_at_the_cap_room_is_made_for_more_than_one_image(tmp_path: Path) -> None:
    images = [image_bytes(width=100 + number) for number in range(12)]
    cap = sum(map(len, images[:10]))
    store = open_store(tmp_path, cap=cap)
    for number, content in enumerate(images[:10]):
        age(tmp_path, await store.add(pieces(content)), by=timedelta(hours=20 - number))
    assert len(files(tmp_path)) == 10
    await store.add(pieces(images[10]))
    left = files(tmp_path)
    assert 0.7 < sum((tmp_path / "sources" / name).stat().st_size for name in left) / cap < 0.9
    await store.add(pieces(images[11]))
    assert files(tmp_path) == left | {hash_of(images[11])}, "the folder was not swept again"


async def test_the_image_that_was_just_added_stays_if_it_fits_into_the_cap_alone(tmp_path: Path) -> None:
    large = image_bytes(width=640, height=360, noisy=True)
    store = open_store(tmp_path, cap=len(large))
    age(tmp_path, await store.add(pieces(CAT)), by=timedelta(hours=1))
    await store.add(pieces(large))
    assert files(tmp_path) == {hash_of(large)}


async def test_an_image_larger_than_the_cap_removes_no_other(tmp_path: Path) -> None:
    large = image_bytes(width=640, height=360, noisy=True)
    store = open_store(tmp_path, cap=len(large) - 1)
    age(tmp_path, await store.add(pieces(CAT)), by=timedelta(hours=1))
    await store.add(pieces(large))
    assert files(tmp_path) == {hash_of(CAT)}


async def test_only_abandoned_partial_files_are_swept(tmp_path: Path) -> None:
    store = open_store(tmp_path, cap=len(CAT))
    for file in ("dead.part", "alive.part"):
        (tmp_path / "sources" / file).write_bytes(CAT)
    age(tmp_path, "dead.part", by=timedelta(hours=2))
    assert await store.sweep(now=datetime.now(UTC)) == 1
    assert files(tmp_path) == {"alive.part"}


@pytest.mark.parametrize(("life", "cap"), [(timedelta(0), 10**6), (DAYS, 0)])
async def test_without_retention_or_space_nothing_is_stored(tmp_path: Path, life: timedelta, cap: int) -> None:
    before = open_store(tmp_path)
    age(tmp_path, await before.add(pieces(CAT)), by=timedelta(seconds=1))
    assert before.enabled
    store = open_store(tmp_path, life=life, cap=cap)
    assert not store.enabled
    await store.sweep(now=datetime.now(UTC))
    assert files(tmp_path) == set()


@pytest.mark.parametrize("name", ["JPEG of tiny comments", "JPEG of fill bytes"])
async def test_the_event_loop_goes_on_while_a_hostile_file_is_examined(tmp_path: Path, name: str) -> None:
    async def one_piece() -> AsyncIterator[bytes]:
        yield content

    store, content = open_store(tmp_path, cap=10**9), HOSTILE[name]()
    async with counted_turns() as turns:
        with pytest.raises(PictureUnusable):
            await store.add(one_piece())
    assert turns.count > 100


async def test_an_image_is_written_examined_and_read_back_in_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = recorded_threads(monkeypatch, "os.write", "bot.images.formats.read_header", "base64.b64encode")
    store, large = open_store(tmp_path, cap=10**9), image_bytes(width=960, height=540, noisy=True)
    found = await store.data_url(await store.add(pieces(large)))
    assert calls == {"os.write": {False}, "bot.images.formats.read_header": {False}, "base64.b64encode": {False}}
    assert found == f"data:image/png;base64,{base64.b64encode(large).decode()}"


# --- the URL or the bytes --------------------------------------------------------------------------------------------


class SimulatedCdn:
    """Discord's CDN, with an image at each of `addresses`."""

    def __init__(self, addresses: Mapping[str, bytes]) -> None:
        self.addresses = addresses
        self.fetched: list[str] = []

    async def fetch(self, address: str, **_: int | None) -> AsyncGenerator[bytes, None]:
        self.fetched.append(address)
        if address not in self.addresses:
            raise OutputGone("status 404")
        yield self.addresses[address]


class SourceRecords:
    """Records the source images that are stored for each job."""

    def __init__(self, *, failing: Exception | None = None) -> None:
        self.failing = failing
        self.found: list[tuple[str, str | None, str | None]] = []

    async def set_sources(self, job: Job, *, image: str | None, support: str | None) -> None:
        if self.failing is not None:
            raise self.failing
        self.found.append((job.id, image, support))


def signed(until: timedelta, path: str = "cat.png") -> str:
    """A Discord URL that expires `until` after noon."""
    return f"https://cdn.discordapp.com/attachments/1/2/{path}?ex={int((NOON + until).timestamp()):x}&is=1&hm=2&"


LIVE, DEAD = signed(timedelta(hours=1)), signed(-timedelta(hours=1))
UNSIGNED = "https://cdn.example/cat.png"


def open_source_images(
    folder: Path, cdn: SimulatedCdn | None = None, records: SourceRecords | None = None, *, life: timedelta = DAYS
) -> tuple[SourceImages, SourceStore]:
    store = open_store(folder, life=life)
    clock: Callable[[], datetime] = lambda: NOON  # noqa: E731 - a fixed clock
    return SourceImages(
        downloader=cdn or SimulatedCdn({}),
        store=store,
        records=records or SourceRecords(),
        clock=clock,
        max_pixels=10**6,
    ), store


def request_for(address: str = LIVE, *, stored: bytes | None = None, **changes: str | None) -> ThumbnailRequest:
    hashed = None if stored is None else hash_of(stored)
    return replace(request(), image_url=address, image_hash=hashed, **changes)  # type: ignore[arg-type] # fields by name


async def test_both_images_are_stored_and_recorded(tmp_path: Path) -> None:
    records, logo = SourceRecords(), signed(timedelta(hours=1), "logo.png")
    source_images, store = open_source_images(tmp_path, SimulatedCdn({LIVE: CAT, logo: DOG}), records)
    job = a_job(image_url=LIVE, support_image_url=logo)
    await source_images.keep(job)
    assert records.found == [(job.id, hash_of(CAT), hash_of(DOG))]
    assert store.has(hash_of(CAT))
    assert store.has(hash_of(DOG))


async def test_a_stored_image_is_not_downloaded_again(tmp_path: Path) -> None:
    cdn, records = SimulatedCdn({LIVE: CAT}), SourceRecords()
    source_images, store = open_source_images(tmp_path, cdn, records)
    await store.add(pieces(CAT))
    await source_images.keep(a_job(image_url=LIVE, image_hash=hash_of(CAT)))
    assert (cdn.fetched, records.found) == ([], [])


async def test_an_image_that_is_no_longer_stored_is_downloaded_again(tmp_path: Path) -> None:
    source_images, store = open_source_images(tmp_path, SimulatedCdn({LIVE: CAT}))
    await source_images.keep(a_job(image_url=LIVE, image_hash=hash_of(CAT)))
    assert store.has(hash_of(CAT))


async def test_a_retention_of_zero_downloads_nothing(tmp_path: Path) -> None:
    cdn = SimulatedCdn({LIVE: CAT})
    source_images, _ = open_source_images(tmp_path, cdn, life=timedelta(0))
    await source_images.keep(a_job(image_url=LIVE))
    assert (cdn.fetched, files(tmp_path)) == ([], set())


@pytest.mark.parametrize("failing", [None, OSError(28, "full"), StorageUnavailable("disk full")])
async def test_a_failure_to_store_never_fails_the_job(tmp_path: Path, failing: Exception | None) -> None:
    cdn = SimulatedCdn({} if failing is None else {LIVE: CAT})
    await open_source_images(tmp_path, cdn, SourceRecords(failing=failing))[0].keep(a_job(image_url=LIVE))


async def test_a_working_url_is_sent_unchanged(tmp_path: Path) -> None:
    source_images, store = open_source_images(tmp_path)
    await store.add(pieces(CAT))
    for requested in (request_for(LIVE), request_for(LIVE, stored=CAT)):
        source_images.check(requested)
        assert await source_images.prepare(requested) == requested


@pytest.mark.parametrize("address", [DEAD, signed(timedelta(minutes=9)), UNSIGNED])
async def test_bytes_replace_a_url_that_may_expire(tmp_path: Path, address: str) -> None:
    source_images, store = open_source_images(tmp_path)
    await store.add(pieces(CAT))
    requested = request_for(address, stored=CAT)
    source_images.check(requested)
    prepared = await source_images.prepare(requested)
    assert prepared == replace(requested, image_base64=await store.data_url(hash_of(CAT)))


async def test_of_two_urls_only_the_expired_one_is_replaced_by_bytes(tmp_path: Path) -> None:
    source_images, store = open_source_images(tmp_path)
    await store.add(pieces(DOG))
    prepared = await source_images.prepare(request_for(LIVE, support_image_url=DEAD, support_hash=hash_of(DOG)))
    assert prepared.image_base64 is None
    assert prepared.support_base64 == await store.data_url(hash_of(DOG))


async def test_a_url_without_an_expiry_is_tried(tmp_path: Path) -> None:
    source_images, _ = open_source_images(tmp_path)
    for requested in (request_for(UNSIGNED), request_for(UNSIGNED, stored=CAT)):
        source_images.check(requested)
        assert await source_images.prepare(requested) == requested


@pytest.mark.parametrize(
    ("requested", "option"),
    [
        (request_for(DEAD), "image"),
        (request_for(DEAD, stored=CAT), "image"),
        (request_for(LIVE, support_image_url=DEAD), "reference"),
        (request_for(LIVE, support_image_url=DEAD, support_hash=hash_of(CAT)), "reference"),
    ],
)
async def test_an_expired_url_without_stored_bytes_is_refused(
    tmp_path: Path, requested: ThumbnailRequest, option: str
) -> None:
    source_images, _ = open_source_images(tmp_path)
    with pytest.raises(SourceExpired) as checked:
        source_images.check(requested)
    with pytest.raises(SourceExpired) as prepared:
        await source_images.prepare(requested)
    assert checked.value.option == prepared.value.option == option


async def test_a_damaged_file_is_refused_when_its_bytes_are_needed(tmp_path: Path) -> None:
    source_images, store = open_source_images(tmp_path)
    await store.add(pieces(CAT))
    (tmp_path / "sources" / hash_of(CAT)).write_bytes(b"damaged")
    for requested, option in (
        (request_for(DEAD, stored=CAT), "image"),
        (request_for(LIVE, support_image_url=DEAD, support_hash=hash_of(CAT)), "reference"),
    ):
        source_images.check(requested)
        with pytest.raises(SourceExpired) as expired:
            await source_images.prepare(requested)
        assert expired.value.option == option
    assert await source_images.prepare(request_for(LIVE, stored=CAT)) == request_for(LIVE, stored=CAT)
