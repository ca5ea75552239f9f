"""A hostile server on a real socket, for the paid call and for the download: every outcome has a type, and a price."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import socket
import struct
import zlib
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bot.domain.errors import (
    AnswerUnusable,
    JobFailed,
    OutcomeUnknown,
    OutputGone,
    OutputUnreachable,
    PictureUnusable,
    ProviderMoved,
    ProviderRefused,
)
from bot.domain.models import Output
from bot.images.downloads import MAX_BYTES, ImageDownloader
from bot.pikzels.client import Pikzels
from tests.support.e2e import KEY, books, png, running
from tests.support.factories import request
from tests.support.fault_injection import seed, size

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from tests.support.e2e import Live

    Play = Callable[[asyncio.StreamWriter], Awaitable[None]]

pytestmark = pytest.mark.faults

MEMORY = 64 * 1024 * 1024
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
PICTURE = png(3000)


# --- the server ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Chaos:
    """Counts what is asked of it, and does with each connection what the next play says, or the usual one."""

    base_url: str = ""
    asked: list[str] = field(default_factory=list)
    plays: list[Play] = field(default_factory=list)
    usual: dict[str, Play] = field(default_factory=dict)  # by method
    open: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def posts(self) -> int:
        return self.asked.count("POST")

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                method = await _received(reader)
                self.asked.append(method)
                await (self.plays.pop(0) if self.plays else self.usual[method])(writer)
                if writer.can_write_eof():
                    writer.write_eof()
                    await reader.read()  # until the other side has had enough
        finally:
            self.open.discard(writer)
            writer.close()


async def _received(reader: asyncio.StreamReader) -> str:
    """Read one request to its end; returns its method."""
    head = await reader.readuntil(b"\r\n\r\n")
    if length := re.search(rb"(?i)\r\ncontent-length: *(\d+)", head):
        await reader.readexactly(int(length[1]))
    return head.partition(b" ")[0].decode()


@asynccontextmanager
async def serve() -> AsyncIterator[Chaos]:
    chaos = Chaos()
    server = await asyncio.start_server(chaos.connected, "127.0.0.1", 0)
    chaos.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield chaos
    finally:
        server.close()
        await server.wait_closed()
        for writer in list(chaos.open):
            writer.transport.abort()
        while chaos.open:  # noqa: ASYNC110 - a test's end may look again and again
            await asyncio.sleep(0)


def reset(writer: asyncio.StreamWriter) -> None:
    """Say RST instead of FIN."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()


def says(data: bytes, *, then_reset: bool = False, pause: float = 0.0) -> Play:
    """Send `data`, and close."""

    async def play(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(pause)  # a reset throws away what the other side has not read
        if then_reset:
            reset(writer)

    return play


def drips(data: bytes, *, every: float) -> Play:
    async def play(writer: asyncio.StreamWriter) -> None:
        for byte in data:
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(every)

    return play


def repeats(start: bytes, block: bytes, *, total: int = 512 * 1024 * 1024, wait: float = 0.0) -> Play:
    """`block` over and over after `start`, until the other side leaves."""

    async def play(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        for _ in range(total // len(block)):
            writer.write(block)
            await writer.drain()
            await asyncio.sleep(wait)

    return play


async def silence(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0)


async def hang(writer: asyncio.StreamWriter) -> None:
    while not writer.is_closing():  # noqa: ASYNC110 - the transport tells nobody
        await asyncio.sleep(0.01)


async def cut(writer: asyncio.StreamWriter) -> None:
    reset(writer)


def answer(
    body: bytes, *, status: str = "200 OK", headers: tuple[str, ...] = (), length: int | str | None = None
) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", *headers]
    if length != "":
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(body: bytes, *, status: str = "200 OK", headers: tuple[str, ...] = ()) -> bytes:
    return answer(body, status=status, headers=("Transfer-Encoding: chunked", *headers), length="")


SUCCESS = json.dumps({"output": "https://pictures.example/x.png", "request_id": "r-1"}).encode()
REFUSAL = json.dumps({"error": {"code": "CONTENT_POLICY", "message": "m"}, "request_id": "r-1"}).encode()


# --- what it costs ---------------------------------------------------------------------------------------------------


def _peak() -> int | None:
    """The largest size this process has had since the last `_forget_peak`, in bytes; None where nobody counts."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text("ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def _forget_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")


@contextmanager
def little_memory() -> Iterator[None]:
    """Fails when the process grows by more than 64 MiB at any moment within."""
    _forget_peak()
    before = _peak()
    yield
    after = _peak()
    if before is not None and after is not None:
        print(f"grew by {(after - before) / 1024 / 1024:.1f} MiB at most")  # noqa: T201 - a measured promise
        assert after - before < MEMORY


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0  # noqa: PTH208 - just how many


@asynccontextmanager
async def no_descriptor_kept() -> AsyncIterator[None]:
    """Fails when more descriptors are open afterwards than before; the kernel has a moment for the last of them."""
    await asyncio.to_thread(socket.getaddrinfo, "127.0.0.1", 80)  # what the loop itself opens once
    before = descriptors()
    yield
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            while descriptors() > before:  # noqa: ASYNC110 - the kernel tells nobody
                await asyncio.sleep(0.01)
    assert descriptors() <= before


# --- the paid call ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def provider(chaos: Chaos, *, timeout: float = 10.0) -> AsyncIterator[Pikzels]:  # noqa: ASYNC109 - its own
    async with Pikzels(api_key=KEY, base_url=chaos.base_url, timeout=timeout) as pikzels:
        yield pikzels


async def called(chaos: Chaos, pikzels: Pikzels, play: Play) -> Output | JobFailed:
    """One paid call; fails unless it was made once and ends with an output or a typed failure."""
    before = chaos.posts
    chaos.plays[:] = [play]
    try:
        outcome: Output | JobFailed = await pikzels.create(request())
    except JobFailed as failure:
        outcome = failure
    if isinstance(outcome, JobFailed):
        assert (outcome.__cause__, outcome.__context__) == (None, None)  # they would carry the key
    assert chaos.posts - before == 1
    return outcome


async def fetched(chaos: Chaos, downloads: ImageDownloader, play: Play) -> int | JobFailed:
    """One download; the number of bytes that came, or how it failed."""
    before = len(chaos.asked)
    chaos.usual["GET"] = play  # aiohttp asks a second time where a connection ends without an answer
    total = 0
    outcome: int | JobFailed
    try:
        async with aclosing(downloads.fetch(f"{chaos.base_url}/output/x.png")) as pieces:
            async for piece in pieces:
                total += len(piece)
                assert total <= MAX_BYTES
        outcome = total
    except JobFailed as failure:
        outcome = failure
    assert 1 <= len(chaos.asked) - before <= 2
    assert chaos.posts == 0
    return outcome


CALL_ANSWERS = {
    "success": answer(SUCCESS, headers=("X-Request-Id: r-1", "Server: edge")),
    "success in chunks": chunked(b"%x\r\n%s\r\n0\r\n\r\n" % (len(SUCCESS), SUCCESS)),
    "refusal": answer(REFUSAL, status="400 Bad Request", headers=("Retry-After: 1",)),
}
DOWNLOAD_ANSWERS = {
    "picture": answer(PICTURE),
    "picture in chunks": chunked(b"%x\r\n%s\r\n0\r\n\r\n" % (len(PICTURE), PICTURE)),
}


def cut_of(whole: bytes, rng: random.Random) -> int:
    """After which byte: any, often the last ones, sometimes none is missing."""
    return rng.choice((rng.randrange(len(whole)), rng.randrange(len(whole)), len(whole) - rng.randrange(8)))


async def test_a_paid_call_cut_after_any_byte_is_made_once_and_has_an_outcome_with_a_type() -> None:
    rng = random.Random(seed("tests/faults/test_chaos.py -k paid_call_cut"))  # noqa: S311 - a test's choices
    outcomes: dict[str, int] = {}
    with little_memory():
        async with no_descriptor_kept(), serve() as chaos, provider(chaos) as pikzels:
            for _ in range(size(200, 2000)):
                name = rng.choice(list(CALL_ANSWERS))
                whole = CALL_ANSWERS[name]
                at, with_reset = cut_of(whole, rng), rng.random() < 0.7
                play = says(whole[:at], then_reset=with_reset, pause=rng.choice((0.0, 0.002)))
                outcome = await called(chaos, pikzels, play)
                outcomes[type(outcome).__name__] = outcomes.get(type(outcome).__name__, 0) + 1
                if at < len(whole):  # half an answer is none, whatever it seems to say
                    assert type(outcome) is OutcomeUnknown, (name, at, with_reset, outcome)
                elif not with_reset:
                    assert isinstance(outcome, ProviderRefused if name == "refusal" else Output), (name, outcome)
    print(outcomes)  # noqa: T201 - what the seed led to


async def test_a_download_cut_after_any_byte_never_passes_for_a_whole_one() -> None:
    rng = random.Random(seed("tests/faults/test_chaos.py -k download_cut"))  # noqa: S311 - a test's choices
    with little_memory():
        async with no_descriptor_kept(), serve() as chaos, ImageDownloader(loopback=True, timeout=10) as downloads:
            for _ in range(size(200, 2000)):
                name = rng.choice(list(DOWNLOAD_ANSWERS))
                whole = DOWNLOAD_ANSWERS[name]
                at, with_reset = cut_of(whole, rng), rng.random() < 0.7
                play = says(whole[:at], then_reset=with_reset, pause=rng.choice((0.0, 0.002)))
                outcome = await fetched(chaos, downloads, play)
                if at < len(whole):
                    assert type(outcome) is OutputUnreachable, (name, at, with_reset, outcome)
                elif not with_reset:
                    assert outcome == len(PICTURE), (name, outcome)


HUGE_HEADER = answer(SUCCESS, headers=("X-Filler: " + "x" * 200_000,))
MANY_HEADERS = answer(SUCCESS, headers=tuple(f"X-{n}: {'y' * 500}" for n in range(2000)))


def bomb() -> bytes:
    """128 MiB in 128 kB, packed without ever holding them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([*(packer.compress(bytes(1024 * 1024)) for _ in range(128)), packer.flush()])


BOMB = bomb()

# What else may come instead of an answer; each with the failure it must be. `None`: an output, or any typed failure.
TWISTED: dict[str, tuple[bytes, type[JobFailed] | None]] = {
    "nothing at all": (b"", OutcomeUnknown),
    "a greeting of another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", OutcomeUnknown),
    "a TLS alert": (b"\x15\x03\x01\x00\x02\x02\x28", OutcomeUnknown),
    "an HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", OutcomeUnknown),
    "a body without a head": (SUCCESS, OutcomeUnknown),
    "a status of letters": (answer(SUCCESS, status="2OO OK"), OutcomeUnknown),
    "a status of two digits": (answer(SUCCESS, status="20 OK"), OutcomeUnknown),
    "a status of four digits": (answer(SUCCESS, status="2000 OK"), OutcomeUnknown),
    "a negative status": (answer(SUCCESS, status="-200 OK"), OutcomeUnknown),
    "status 999": (answer(SUCCESS, status="999 Odd"), OutcomeUnknown),
    "a version of the future": (b"HTTP/9.9 200 OK\r\n\r\n" + SUCCESS, None),
    "NUL bytes": (bytes(4096), OutcomeUnknown),
    "random bytes": (random.Random(1).randbytes(4096), OutcomeUnknown),  # noqa: S311 - the same every time
    "a header of 200 kB": (HUGE_HEADER, OutcomeUnknown),
    "a reason of 200 kB": (answer(SUCCESS, status="200 " + "x" * 200_000), OutcomeUnknown),
    "2,000 headers": (MANY_HEADERS, None),
    "a header with a NUL": (answer(SUCCESS, headers=("X-Odd: a\0b",)), OutcomeUnknown),
    "a header without a name": (answer(SUCCESS, headers=(": nameless",)), OutcomeUnknown),
    "a header that is not text": (answer(SUCCESS).replace(b"json\r\n", b"json\r\nX-Odd: \xff\xfe\r\n"), None),
    "two lengths": (answer(SUCCESS, headers=("Content-Length: 3",)), OutcomeUnknown),
    "a negative length": (answer(SUCCESS, length=-1), OutcomeUnknown),
    "a length of words": (answer(SUCCESS, length="many"), OutcomeUnknown),
    "an absurd length": (answer(SUCCESS, length=10**18), OutcomeUnknown),
    "too short a length": (answer(SUCCESS, length=10), None),
    "a length and chunks": (chunked(SUCCESS, headers=("Content-Length: 5",)), OutcomeUnknown),
    "a chunk size of letters": (chunked(b"zz\r\n" + SUCCESS), OutcomeUnknown),
    "a negative chunk size": (chunked(b"-5\r\n" + SUCCESS), OutcomeUnknown),
    "an enormous chunk size": (chunked(b"f" * 15 + b"\r\n" + SUCCESS), OutcomeUnknown),
    "an endless chunk size": (chunked(b"f" * 100_000 + b"\r\n" + SUCCESS), OutcomeUnknown),
    "a chunk longer than it says": (chunked(b"5\r\n" + SUCCESS + b"\r\n0\r\n\r\n"), OutcomeUnknown),
    "chunks without an end": (chunked(b"%x\r\n%s\r\n" % (len(SUCCESS), SUCCESS)), OutcomeUnknown),
    "chunks that say they are packed": (
        chunked(b"%x\r\n%s\r\n0\r\n\r\n" % (len(SUCCESS), SUCCESS), headers=("Content-Encoding: br",)),
        None,
    ),
    "a bomb": (answer(BOMB, headers=("Content-Encoding: gzip",)), AnswerUnusable),
    "a bomb that hides in the transfer": (
        answer(b"%x\r\n%s\r\n0\r\n\r\n" % (len(BOMB), BOMB), headers=("Transfer-Encoding: gzip, chunked",), length=""),
        AnswerUnusable,
    ),
    "no more than a promise": (answer(b"", status="100 Continue", length=""), OutcomeUnknown),
    "another protocol offered": (
        answer(b"", status="101 Switching Protocols", headers=("Upgrade: tcp", "Connection: upgrade"), length=""),
        OutcomeUnknown,
    ),
    "deep JSON": (answer(b"[" * 200_000), AnswerUnusable),
    "a number of a million digits": (answer(b'{"output": ' + b"1" * 200_000 + b"}"), AnswerUnusable),
    "an answer and a second one": (answer(SUCCESS) + answer(SUCCESS), None),
    **{
        f"a redirect {status}": (
            answer(b"", status=f"{status} Elsewhere", headers=("Location: /v2/thumbnail/image",)),
            ProviderMoved,
        )
        for status in (300, 301, 302, 303, 304, 305, 307, 308, 399)
    },
}


async def test_an_answer_twisted_in_any_way_is_a_typed_outcome_of_one_call() -> None:
    with little_memory():
        async with no_descriptor_kept(), serve() as chaos, provider(chaos, timeout=2) as pikzels:
            got = {name: await called(chaos, pikzels, says(data)) for name, (data, _) in TWISTED.items()}
    wrong = {name: got[name] for name, (_, kind) in TWISTED.items() if not fits(got[name], kind)}
    assert wrong == {}


def fits(outcome: Output | JobFailed, kind: type[JobFailed] | None) -> bool:
    return isinstance(outcome, Output | OutcomeUnknown) if kind is None else type(outcome) is kind


async def test_a_call_that_never_ends_ends_at_its_time_limit_in_little_memory() -> None:
    head = chunked(b"")
    endless: dict[str, tuple[Play, type[JobFailed]]] = {
        "silence": (hang, OutcomeUnknown),
        "a reset at once": (cut, OutcomeUnknown),
        "a farewell at once": (silence, OutcomeUnknown),
        "one byte at a time": (drips(answer(SUCCESS), every=0.05), OutcomeUnknown),
        "promises for ever": (repeats(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, wait=0.001), OutcomeUnknown),
        "headers for ever": (repeats(b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n" * 1000), OutcomeUnknown),
        "one header for ever": (repeats(b"HTTP/1.1 200 OK\r\nX-More: ", b"x" * 65536), OutcomeUnknown),
        "a status for ever": (repeats(b"HTTP/1.1 200 ", b"x" * 65536), OutcomeUnknown),
        "a body for ever": (repeats(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536), AnswerUnusable),
        "chunks for ever": (repeats(head, b"1\r\n \r\n" * 10_000), OutcomeUnknown),
        "chunk extensions for ever": (repeats(head + b"5;", b"x" * 65536), OutcomeUnknown),
        "trailers for ever": (repeats(head + b"0\r\n", b"X-More: and more\r\n" * 1000), OutcomeUnknown),
    }
    with little_memory():
        async with no_descriptor_kept(), serve() as chaos, provider(chaos, timeout=0.7) as pikzels:
            for name, (play, kind) in endless.items():
                async with asyncio.timeout(5):
                    outcome = await called(chaos, pikzels, play)
                assert isinstance(outcome, kind), (name, outcome)


async def test_a_redirected_call_takes_its_key_nowhere() -> None:
    async with serve() as chaos, serve() as elsewhere, provider(chaos) as pikzels:
        elsewhere.usual["POST"] = says(answer(SUCCESS))
        for status in (301, 302, 303, 307, 308):
            headers = (f"Location: {elsewhere.base_url}/v2/thumbnail/image", f"Refresh: 0; url={elsewhere.base_url}")
            outcome = await called(chaos, pikzels, says(answer(b"", status=f"{status} Moved", headers=headers)))
            assert isinstance(outcome, ProviderMoved)
        assert elsewhere.asked == []


# --- the download ----------------------------------------------------------------------------------------------------


async def test_a_download_twisted_in_any_way_is_bytes_or_a_typed_failure_of_one_request() -> None:
    with little_memory():
        async with no_descriptor_kept(), serve() as chaos, ImageDownloader(loopback=True, timeout=2) as downloads:
            for name, (data, _) in TWISTED.items():
                outcome = await fetched(chaos, downloads, says(data))
                assert isinstance(outcome, int | OutputUnreachable | PictureUnusable), (name, outcome)
                if name.startswith(("a bomb", "chunks that say")):
                    assert not isinstance(outcome, int) or outcome <= len(BOMB), name
                if name.startswith("a redirect"):
                    assert isinstance(outcome, OutputUnreachable), name
            for status, kind in ((403, OutputGone), (404, OutputGone), (410, OutputGone), (500, OutputUnreachable)):
                assert type(await fetched(chaos, downloads, says(answer(PICTURE, status=f"{status} No")))) is kind


async def test_a_download_that_never_ends_is_cut_at_its_limits_in_little_memory() -> None:
    head = chunked(b"")
    megabyte = b"x" * (1024 * 1024)
    endless: dict[str, tuple[Play, type[JobFailed]]] = {
        "silence": (hang, OutputUnreachable),
        "a reset at once": (cut, OutputUnreachable),
        "one byte at a time": (drips(answer(PICTURE), every=0.05), OutputUnreachable),
        "headers for ever": (repeats(b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n" * 1000), OutputUnreachable),
        "one header for ever": (repeats(b"HTTP/1.1 200 OK\r\nX-More: ", b"x" * 65536), OutputUnreachable),
        "a body for ever": (repeats(b"HTTP/1.1 200 OK\r\n\r\n", megabyte), PictureUnusable),
        "chunks for ever": (repeats(head, b"100000\r\n" + megabyte + b"\r\n"), PictureUnusable),
        "too long by its own words": (repeats(answer(b"", length=MAX_BYTES + 1), megabyte), PictureUnusable),
        "chunk extensions for ever": (repeats(head + b"5;", b"x" * 65536), OutputUnreachable),
    }
    with little_memory():
        async with (
            no_descriptor_kept(),
            serve() as chaos,
            ImageDownloader(loopback=True, timeout=1) as hurried,
            ImageDownloader(loopback=True, timeout=20) as patient,
        ):
            for name, (play, kind) in endless.items():
                async with asyncio.timeout(20):
                    outcome = await fetched(chaos, patient if kind is PictureUnusable else hurried, play)
                assert type(outcome) is kind, (name, outcome)


# --- through the whole bot -------------------------------------------------------------------------------------------

WHOLE = answer(PICTURE)
SPOILT_CALLS: dict[str, tuple[Play, str]] = {
    "cut in the head": (says(answer(SUCCESS)[:30], then_reset=True), "outcome_unknown"),
    "cut in the body": (says(answer(SUCCESS)[:-5], then_reset=True), "outcome_unknown"),
    "a header of 200 kB": (says(HUGE_HEADER), "outcome_unknown"),
    "garbage for a status": (says(answer(SUCCESS, status="2OO OK")), "outcome_unknown"),
    "chunks that lie": (says(chunked(b"5\r\n" + SUCCESS + b"\r\n0\r\n\r\n")), "outcome_unknown"),
    "a bomb": (says(answer(BOMB, headers=("Content-Encoding: gzip",))), "answer_unusable"),
    "a body for ever": (repeats(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536), "answer_unusable"),
    "silence to the end": (hang, "outcome_unknown"),
    "a redirect": (says(answer(b"", status="307 Moved", headers=("Location: /",))), "provider_moved"),
}
SPOILT_DOWNLOADS: dict[str, tuple[list[Play], str | None]] = {
    "cut, then whole": ([says(WHOLE[:900], then_reset=True), says(WHOLE)], None),
    "a header of 200 kB, then whole": ([says(HUGE_HEADER), says(WHOLE)], None),
    "a bomb twice": ([says(answer(BOMB, headers=("Content-Encoding: gzip",)))] * 2, "picture_unusable"),
    "for ever, twice": ([repeats(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536)] * 2, "picture_unusable"),
    "a page twice": ([says(answer(b"<html>"))] * 2, "picture_unusable"),
}


@asynccontextmanager
async def chaotic(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Live, Chaos]]:
    async with serve() as chaos:
        settings: dict[str, Any] = {"base_url": chaos.base_url, "timeout": 3}
        async with running(folder, monkeypatch, pikzels=settings, quota={"member_daily": 1}) as live:
            yield live, chaos


async def test_through_the_whole_bot_a_spoilt_call_is_made_once_told_and_not_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with little_memory():
        async with no_descriptor_kept(), chaotic(tmp_path, monkeypatch) as (live, chaos):
            for member, (play, kind) in enumerate(SPOILT_CALLS.values(), 1):
                live.app.queue.circuits._calls.clear()
                chaos.plays[:] = [play]
                message = await live.said(user_id=member)
                assert "You were not charged." in message.content
                assert (await live.job(message)).reason == kind
                assert (chaos.posts, await live.left(member)) == (member, 1)
    jobs, entries = books(tmp_path)
    assert len(jobs) == len(SPOILT_CALLS)
    assert sorted(entry["kind"] for entry in entries) == ["hold"] * len(jobs) + ["release"] * len(jobs)


async def test_through_the_whole_bot_a_spoilt_download_costs_no_second_call_and_no_wrong_charge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with little_memory():
        async with no_descriptor_kept(), chaotic(tmp_path, monkeypatch) as (live, chaos):
            output = json.dumps({"output": f"{chaos.base_url}/output/x.png", "request_id": "r"}).encode()
            for member, (plays, kind) in enumerate(SPOILT_DOWNLOADS.values(), 1):
                chaos.plays[:] = [says(answer(output)), *plays]
                message = await (live.said(user_id=member) if kind else live.made(user_id=member))
                job = await live.job(message)
                assert (job.reason, len(message.attachments)) == (kind, 0 if kind else 1)
                assert (chaos.posts, await live.left(member)) == (member, 1 if kind else 0)
                assert chaos.plays == []
    assert list((tmp_path / "spool").iterdir()) == []
