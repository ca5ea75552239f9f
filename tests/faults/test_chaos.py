"""A hostile server on a real socket, for the paid call and the download: every outcome has a type and a price."""

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
from tests.support.e2e import KEY, png, running
from tests.support.e2e import books as stored_rows
from tests.support.factories import request
from tests.support.fault_injection import seed, size

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from tests.support.e2e import Live

    Response = Callable[[asyncio.StreamWriter], Awaitable[None]]

pytestmark = pytest.mark.faults

MEMORY = 64 * 1024 * 1024
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
PICTURE = png(3000)


# --- the server ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class HostileServer:
    """Records every request, and handles each connection with the next response, or else with the default one."""

    base_url: str = ""
    methods: list[str] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)
    defaults: dict[str, Response] = field(default_factory=dict)  # by method
    open: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def posts(self) -> int:
        return self.methods.count("POST")

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                method = await _received(reader)
                self.methods.append(method)
                await (self.responses.pop(0) if self.responses else self.defaults[method])(writer)
                if writer.can_write_eof():
                    writer.write_eof()
                    await reader.read()  # until the client closes the connection
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
async def serve() -> AsyncIterator[HostileServer]:
    hostile = HostileServer()
    server = await asyncio.start_server(hostile.connected, "127.0.0.1", 0)
    hostile.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield hostile
    finally:
        server.close()
        for writer in list(hostile.open):
            writer.transport.abort()
        await server.wait_closed()  # since Python 3.12, it waits for the connections, too
        while hostile.open:  # noqa: ASYNC110 - polling is fine in a teardown
            await asyncio.sleep(0)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close the connection with RST in place of FIN."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()


def sends(data: bytes, *, then_reset: bool = False, pause: float = 0.0) -> Response:
    """Send `data`, and close."""

    async def respond(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(pause)  # a reset discards what the client has not read yet
        if then_reset:
            reset(writer)

    return respond


def drips(data: bytes, *, every: float) -> Response:
    async def respond(writer: asyncio.StreamWriter) -> None:
        for byte in data:
            writer.write(bytes((byte,)))
            await writer.drain()
            await asyncio.sleep(every)

    return respond


def repeats(start: bytes, block: bytes, *, total: int = 512 * 1024 * 1024, wait: float = 0.0) -> Response:
    """Send `start`, and then `block` repeatedly until the client disconnects."""

    async def respond(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        for _ in range(total // len(block)):
            writer.write(block)
            await writer.drain()
            await asyncio.sleep(wait)

    return respond


async def close_at_once(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0)


async def hang(writer: asyncio.StreamWriter) -> None:
    while not writer.is_closing():  # noqa: ASYNC110 - the transport sends no notification
        await asyncio.sleep(0.01)


async def reset_at_once(writer: asyncio.StreamWriter) -> None:
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


# --- memory and descriptors ------------------------------------------------------------------------------------------


def _peak() -> int | None:
    """The peak memory of this process since `_reset_peak`, in bytes; None if the platform does not report it."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text("ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def _reset_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")


@contextmanager
def limited_memory() -> Iterator[None]:
    """Fails if the process grows by more than 64 MiB at any moment inside the block."""
    _reset_peak()
    before = _peak()
    yield
    after = _peak()
    if before is not None and after is not None:
        print(f"grew by {(after - before) / 1024 / 1024:.1f} MiB at most")  # noqa: T201 - prints the measurement
        assert after - before < MEMORY


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0  # noqa: PTH208 - only the count matters


@asynccontextmanager
async def no_descriptor_leak() -> AsyncIterator[None]:
    """Fails if more descriptors are open after the block than before; the kernel gets a moment to close the last."""
    await asyncio.to_thread(socket.getaddrinfo, "127.0.0.1", 80)  # opens what the event loop itself needs
    before = descriptors()
    yield
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            while descriptors() > before:  # noqa: ASYNC110 - the kernel sends no notification
                await asyncio.sleep(0.01)
    assert descriptors() <= before


# --- the paid call ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def provider(hostile: HostileServer, *, timeout: float = 10.0) -> AsyncIterator[Pikzels]:  # noqa: ASYNC109 - the client's own timeout
    async with Pikzels(api_key=KEY, base_url=hostile.base_url, timeout=timeout) as pikzels:
        yield pikzels


async def called(hostile: HostileServer, pikzels: Pikzels, respond: Response) -> Output | JobFailed:
    """Make one paid call; fail unless it was sent once and ends with an output or a typed failure."""
    before = hostile.posts
    hostile.responses[:] = [respond]
    try:
        outcome: Output | JobFailed = await pikzels.create(request())
    except JobFailed as failure:
        outcome = failure
    if isinstance(outcome, JobFailed):
        assert (outcome.__cause__, outcome.__context__) == (None, None)  # these would contain the key
    assert hostile.posts - before == 1
    return outcome


async def fetched(hostile: HostileServer, downloads: ImageDownloader, respond: Response) -> int | JobFailed:
    """Download once; return the number of bytes, or the failure."""
    before = len(hostile.methods)
    hostile.defaults["GET"] = respond  # aiohttp sends the request again if a connection ends without an answer
    total = 0
    outcome: int | JobFailed
    try:
        async with aclosing(downloads.fetch(f"{hostile.base_url}/output/x.png")) as pieces:
            async for piece in pieces:
                total += len(piece)
                assert total <= MAX_BYTES
        outcome = total
    except JobFailed as failure:
        outcome = failure
    assert 1 <= len(hostile.methods) - before <= 2
    assert hostile.posts == 0
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


def random_cut(whole: bytes, rng: random.Random) -> int:
    """A random length to cut the answer to: any, often close to the end, and sometimes the whole length."""
    return rng.choice((rng.randrange(len(whole)), rng.randrange(len(whole)), len(whole) - rng.randrange(8)))


def random_cuts(answers: Mapping[str, bytes], rng: random.Random) -> Iterator[tuple[str, bool, bool, Response]]:
    """Cut answers at random; yield the name, whether nothing is missing, whether a reset follows, and the response."""
    for _ in range(size(200, 2000)):
        name = rng.choice(list(answers))
        whole = answers[name]
        at, with_reset = random_cut(whole, rng), rng.random() < 0.7
        yield (
            name,
            at == len(whole),
            with_reset,
            sends(whole[:at], then_reset=with_reset, pause=rng.choice((0.0, 0.002))),
        )


async def test_a_paid_call_cut_after_any_byte_is_made_once_and_has_a_typed_outcome() -> None:
    rng = random.Random(seed("tests/faults/test_chaos.py -k paid_call_cut"))  # noqa: S311 - test data, not a secret
    outcomes: dict[str, int] = {}
    with limited_memory():
        async with no_descriptor_leak(), serve() as hostile, provider(hostile) as pikzels:
            for name, complete, with_reset, respond in random_cuts(CALL_ANSWERS, rng):
                outcome = await called(hostile, pikzels, respond)
                outcomes[type(outcome).__name__] = outcomes.get(type(outcome).__name__, 0) + 1
                if not complete:  # a partial answer counts as none, whatever it contains
                    assert type(outcome) is OutcomeUnknown, (name, with_reset, outcome)
                elif not with_reset:
                    assert isinstance(outcome, ProviderRefused if name == "refusal" else Output), (name, outcome)
    print(outcomes)  # noqa: T201 - prints the outcomes


async def test_a_download_cut_after_any_byte_never_counts_as_complete() -> None:
    rng = random.Random(seed("tests/faults/test_chaos.py -k download_cut"))  # noqa: S311 - test data, not a secret
    with limited_memory():
        async with no_descriptor_leak(), serve() as hostile, ImageDownloader(loopback=True, timeout=10) as downloads:
            for name, complete, with_reset, respond in random_cuts(DOWNLOAD_ANSWERS, rng):
                outcome = await fetched(hostile, downloads, respond)
                if not complete:
                    assert type(outcome) is OutputUnreachable, (name, with_reset, outcome)
                elif not with_reset:
                    assert outcome == len(PICTURE), (name, outcome)


HUGE_HEADER = answer(SUCCESS, headers=("X-Filler: " + "x" * 200_000,))
MANY_HEADERS = answer(SUCCESS, headers=tuple(f"X-{n}: {'y' * 500}" for n in range(2000)))


def bomb() -> bytes:
    """Compress 128 MiB to 128 kB without holding all of it in memory."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([*(packer.compress(bytes(1024 * 1024)) for _ in range(128)), packer.flush()])


BOMB = bomb()

# Malformed answers, each with the failure that must result. `None` means an output or an unknown outcome.
MALFORMED: dict[str, tuple[bytes, type[JobFailed] | None]] = {
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
    "random bytes": (random.Random(1).randbytes(4096), OutcomeUnknown),  # noqa: S311 - the same on every run
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
    "only 100 Continue": (answer(b"", status="100 Continue", length=""), OutcomeUnknown),
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


async def test_every_malformed_answer_gives_a_typed_outcome_of_one_call() -> None:
    with limited_memory():
        async with no_descriptor_leak(), serve() as hostile, provider(hostile, timeout=2) as pikzels:
            outcomes = {name: await called(hostile, pikzels, sends(data)) for name, (data, _) in MALFORMED.items()}
    unexpected = {name: outcomes[name] for name, (_, kind) in MALFORMED.items() if not matches(outcomes[name], kind)}
    assert unexpected == {}


def matches(outcome: Output | JobFailed, kind: type[JobFailed] | None) -> bool:
    return isinstance(outcome, Output | OutcomeUnknown) if kind is None else type(outcome) is kind


async def test_an_endless_call_stops_at_its_time_limit_in_limited_memory() -> None:
    head = chunked(b"")
    endless: dict[str, tuple[Response, type[JobFailed]]] = {
        "silence": (hang, OutcomeUnknown),
        "a reset at once": (reset_at_once, OutcomeUnknown),
        "a close at once": (close_at_once, OutcomeUnknown),
        "one byte at a time": (drips(answer(SUCCESS), every=0.05), OutcomeUnknown),
        "100 Continue forever": (repeats(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100, wait=0.001), OutcomeUnknown),
        "headers forever": (repeats(b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n" * 1000), OutcomeUnknown),
        "one header forever": (repeats(b"HTTP/1.1 200 OK\r\nX-More: ", b"x" * 65536), OutcomeUnknown),
        "a status forever": (repeats(b"HTTP/1.1 200 ", b"x" * 65536), OutcomeUnknown),
        "a body forever": (repeats(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536), AnswerUnusable),
        "chunks forever": (repeats(head, b"1\r\n \r\n" * 10_000), OutcomeUnknown),
        "chunk extensions forever": (repeats(head + b"5;", b"x" * 65536), OutcomeUnknown),
        "trailers forever": (repeats(head + b"0\r\n", b"X-More: and more\r\n" * 1000), OutcomeUnknown),
    }
    with limited_memory():
        async with no_descriptor_leak(), serve() as hostile, provider(hostile, timeout=0.7) as pikzels:
            for name, (respond, kind) in endless.items():
                async with asyncio.timeout(5):
                    outcome = await called(hostile, pikzels, respond)
                assert isinstance(outcome, kind), (name, outcome)


async def test_a_redirected_call_does_not_leak_its_key() -> None:
    async with serve() as hostile, serve() as elsewhere, provider(hostile) as pikzels:
        elsewhere.defaults["POST"] = sends(answer(SUCCESS))
        for status in (301, 302, 303, 307, 308):
            headers = (f"Location: {elsewhere.base_url}/v2/thumbnail/image", f"Refresh: 0; url={elsewhere.base_url}")
            outcome = await called(hostile, pikzels, sends(answer(b"", status=f"{status} Moved", headers=headers)))
            assert isinstance(outcome, ProviderMoved)
        assert elsewhere.methods == []


# --- the download ----------------------------------------------------------------------------------------------------


async def test_every_malformed_download_gives_bytes_or_a_typed_failure() -> None:
    with limited_memory():
        async with no_descriptor_leak(), serve() as hostile, ImageDownloader(loopback=True, timeout=2) as downloads:
            for name, (data, _) in MALFORMED.items():
                outcome = await fetched(hostile, downloads, sends(data))
                assert isinstance(outcome, int | OutputUnreachable | PictureUnusable), (name, outcome)
                if name.startswith(("a bomb", "chunks that say")):
                    assert not isinstance(outcome, int) or outcome <= len(BOMB), name
                if name.startswith("a redirect"):
                    assert isinstance(outcome, OutputUnreachable), name
            for status, kind in ((403, OutputGone), (404, OutputGone), (410, OutputGone), (500, OutputUnreachable)):
                assert type(await fetched(hostile, downloads, sends(answer(PICTURE, status=f"{status} No")))) is kind


async def test_an_endless_download_stops_at_its_limits_in_limited_memory() -> None:
    head = chunked(b"")
    megabyte = b"x" * (1024 * 1024)
    endless: dict[str, tuple[Response, type[JobFailed]]] = {
        "silence": (hang, OutputUnreachable),
        "a reset at once": (reset_at_once, OutputUnreachable),
        "one byte at a time": (drips(answer(PICTURE), every=0.05), OutputUnreachable),
        "headers forever": (repeats(b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n" * 1000), OutputUnreachable),
        "one header forever": (repeats(b"HTTP/1.1 200 OK\r\nX-More: ", b"x" * 65536), OutputUnreachable),
        "a body forever": (repeats(b"HTTP/1.1 200 OK\r\n\r\n", megabyte), PictureUnusable),
        "chunks forever": (repeats(head, b"100000\r\n" + megabyte + b"\r\n"), PictureUnusable),
        "too long by its own header": (repeats(answer(b"", length=MAX_BYTES + 1), megabyte), PictureUnusable),
        "chunk extensions forever": (repeats(head + b"5;", b"x" * 65536), OutputUnreachable),
    }
    with limited_memory():
        async with (
            no_descriptor_leak(),
            serve() as hostile,
            ImageDownloader(loopback=True, timeout=1) as short_timeout,
            ImageDownloader(loopback=True, timeout=20) as long_timeout,
        ):
            for name, (respond, kind) in endless.items():
                async with asyncio.timeout(20):
                    outcome = await fetched(
                        hostile, long_timeout if kind is PictureUnusable else short_timeout, respond
                    )
                assert type(outcome) is kind, (name, outcome)


# --- through the whole bot -------------------------------------------------------------------------------------------

WHOLE = answer(PICTURE)
BROKEN_CALLS: dict[str, tuple[Response, str]] = {
    "cut in the head": (sends(answer(SUCCESS)[:30], then_reset=True), "outcome_unknown"),
    "cut in the body": (sends(answer(SUCCESS)[:-5], then_reset=True), "outcome_unknown"),
    "a header of 200 kB": (sends(HUGE_HEADER), "outcome_unknown"),
    "garbage for a status": (sends(answer(SUCCESS, status="2OO OK")), "outcome_unknown"),
    "chunks with a wrong length": (sends(chunked(b"5\r\n" + SUCCESS + b"\r\n0\r\n\r\n")), "outcome_unknown"),
    "a bomb": (sends(answer(BOMB, headers=("Content-Encoding: gzip",))), "answer_unusable"),
    "a body forever": (repeats(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536), "answer_unusable"),
    "silence to the end": (hang, "outcome_unknown"),
    "a redirect": (sends(answer(b"", status="307 Moved", headers=("Location: /",))), "provider_moved"),
}
BROKEN_DOWNLOADS: dict[str, tuple[list[Response], str | None]] = {
    "cut, then whole": ([sends(WHOLE[:900], then_reset=True), sends(WHOLE)], None),
    "a header of 200 kB, then whole": ([sends(HUGE_HEADER), sends(WHOLE)], None),
    "a bomb twice": ([sends(answer(BOMB, headers=("Content-Encoding: gzip",)))] * 2, "picture_unusable"),
    "an endless body, twice": ([repeats(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536)] * 2, "picture_unusable"),
    "a page twice": ([sends(answer(b"<html>"))] * 2, "picture_unusable"),
}


@asynccontextmanager
async def bot_with_hostile_provider(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Live, HostileServer]]:
    async with serve() as hostile:
        settings: dict[str, Any] = {"base_url": hostile.base_url, "timeout": 3}
        async with running(folder, monkeypatch, pikzels=settings, quota={"member_daily": 1}) as live:
            yield live, hostile


async def test_through_the_whole_bot_a_broken_call_is_made_once_told_and_not_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with limited_memory():
        async with no_descriptor_leak(), bot_with_hostile_provider(tmp_path, monkeypatch) as (live, hostile):
            for member, (respond, kind) in enumerate(BROKEN_CALLS.values(), 1):
                live.app.queue.circuits._calls.clear()
                hostile.responses[:] = [respond]
                message = await live.said(user_id=member)
                assert "You were not charged." in message.content
                assert (await live.job(message)).reason == kind
                assert (hostile.posts, await live.left(member)) == (member, 1)
    jobs, entries = stored_rows(tmp_path)
    assert len(jobs) == len(BROKEN_CALLS)
    assert sorted(entry["kind"] for entry in entries) == ["hold"] * len(jobs) + ["release"] * len(jobs)


async def test_through_the_whole_bot_a_broken_download_causes_no_second_call_and_no_wrong_charge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with limited_memory():
        async with no_descriptor_leak(), bot_with_hostile_provider(tmp_path, monkeypatch) as (live, hostile):
            output = json.dumps({"output": f"{hostile.base_url}/output/x.png", "request_id": "r"}).encode()
            for member, (responses, kind) in enumerate(BROKEN_DOWNLOADS.values(), 1):
                hostile.responses[:] = [sends(answer(output)), *responses]
                message = await (live.said(user_id=member) if kind else live.made(user_id=member))
                job = await live.job(message)
                assert (job.reason, len(message.attachments)) == (kind, 0 if kind else 1)
                assert (hostile.posts, await live.left(member)) == (member, 1 if kind else 0)
                assert hostile.responses == []
    assert list((tmp_path / "spool").iterdir()) == []
