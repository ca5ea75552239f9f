"""Scripted replies, which replace the stand-in's real answer to a call."""

import asyncio
import gzip
import json
import socket
import struct
from collections import deque
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Literal

from aiohttp import web

from sandbox.pikzels_server.contract import CODES, Problem, Refusal

MEBIBYTE = 1024 * 1024
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

When = Literal["before_request", "after_request", "mid_body"]


class TransferMode(Enum):
    """How the bytes of an answer are sent, or fail to be sent."""

    NORMAL = "normal"
    DRIP = "drip"
    TRUNCATED = "truncated"
    ENDLESS = "endless"
    HANG = "hang"
    RESET_BEFORE_REQUEST = "before_request"
    RESET_AFTER_REQUEST = "after_request"
    RESET_MID_BODY = "mid_body"


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP response, not yet sent."""

    status: int
    body: bytes = field(repr=False)
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The reply to one call. Without `answer` or `refusal`, the call receives its real answer."""

    mode: TransferMode = TransferMode.NORMAL
    answer: Answer | None = None
    refusal: Refusal | None = None
    headers: tuple[tuple[str, str], ...] = ()
    extra: tuple[tuple[str, object], ...] = ()
    delay: float | None = None
    held: bool = False
    every: float = 0.0
    limit: int = 0

    @property
    def uses_real_answer(self) -> bool:
        """Whether this reply needs the call's real answer."""
        silent = (TransferMode.HANG, TransferMode.RESET_BEFORE_REQUEST, TransferMode.RESET_AFTER_REQUEST)
        return self.answer is None and self.refusal is None and self.mode not in silent

    def after(self, delay: float) -> "Reply":
        """The same reply, delayed by `delay` seconds."""
        return replace(self, delay=delay)

    @staticmethod
    def ok(*, delay: float | None = None, extra: dict[str, object] | None = None) -> "Reply":
        """The real answer, with `extra` fields merged into its JSON object."""
        return Reply(delay=delay, extra=tuple((extra or {}).items()))

    @staticmethod
    def hold() -> "Reply":
        """The real answer, held back until the stand-in's `release` is called."""
        return Reply(held=True)

    @staticmethod
    def error(code: str, *, details: tuple[Problem, ...] = (), retry_after: str | None = None) -> "Reply":
        if code not in CODES:
            raise ValueError(code)
        headers = () if retry_after is None else (("Retry-After", retry_after),)
        return Reply(refusal=Refusal(code, details), headers=headers)

    @staticmethod
    def raw(status: int, body: bytes | str = b"", headers: dict[str, str] | None = None) -> "Reply":
        """Exactly this status, body and headers."""
        content = body.encode() if isinstance(body, str) else body
        return Reply(answer=Answer(status, content, tuple((headers or {}).items())))

    @staticmethod
    def html(status: int = 502) -> "Reply":
        page = "<!doctype html><title>Bad gateway</title><h1>Bad gateway</h1>"
        return Reply.raw(status, page, {"Content-Type": "text/html; charset=utf-8"})

    @staticmethod
    def redirect(location: str, *, status: int = 307) -> "Reply":
        return Reply.raw(status, b"", {"Location": location})

    @staticmethod
    def gzip_bomb(*, size: int = 64 * MEBIBYTE, content_type: str = "image/png") -> "Reply":
        """A small body that decompresses to `size` bytes."""
        headers = {"Content-Encoding": "gzip", "Content-Type": content_type}
        return Reply.raw(200, gzip.compress(bytes(size), compresslevel=9, mtime=0), headers)

    @staticmethod
    def endless(*, limit: int = 256 * MEBIBYTE, content_type: str = "image/png") -> "Reply":
        """A body without a length that continues until the caller disconnects, for at most `limit` bytes."""
        start = Answer(200, PNG_SIGNATURE, (("Content-Type", content_type),))
        return Reply(mode=TransferMode.ENDLESS, answer=start, limit=limit)

    @staticmethod
    def drip(*, every: float = 0.01, limit: int = 1000) -> "Reply":
        """The real answer, with its first `limit` bytes sent one at a time, `every` seconds apart."""
        return Reply(mode=TransferMode.DRIP, every=every, limit=limit)

    @staticmethod
    def truncated() -> "Reply":
        """Half of the real answer, with the Content-Length of all of it, then a clean close."""
        return Reply(mode=TransferMode.TRUNCATED)

    @staticmethod
    def reset(when: When = "after_request") -> "Reply":
        """A TCP reset instead of the answer, or in the middle of it."""
        return Reply(mode=TransferMode(when))

    @staticmethod
    def hang() -> "Reply":
        """No answer until the stand-in closes."""
        return Reply(mode=TransferMode.HANG)


class Script:
    """The queued replies, in order, and the reply to every later call."""

    def __init__(self) -> None:
        self.always = Reply()
        self._queue: deque[Reply] = deque()

    def add(self, *replies: Reply) -> None:
        self._queue.extend(replies)

    def peek(self) -> Reply:
        return self._queue[0] if self._queue else self.always

    def take(self) -> Reply:
        return self._queue.popleft() if self._queue else self.always


def json_answer(status: int, value: object, *, request_id: str) -> Answer:
    headers = (("Content-Type", "application/json; charset=utf-8"), ("X-Request-Id", request_id))
    return Answer(status, json.dumps(value).encode(), headers)


def refusal_answer(refusal: Refusal, *, request_id: str) -> Answer:
    return json_answer(refusal.status, refusal.envelope(request_id), request_id=request_id)


async def deliver(request: web.Request, answer: Answer, *, reply: Reply, closing: asyncio.Event) -> web.StreamResponse:
    """Send `answer` in the transfer mode of `reply`; `closing` ends a long transfer early."""
    match reply.mode:
        case TransferMode.NORMAL:
            return full_response(answer)
        case TransferMode.DRIP:
            return await _send_dripping(request, answer, reply=reply, closing=closing)
        case TransferMode.TRUNCATED:
            return await _send_half(request, answer)
        case TransferMode.ENDLESS:
            return await _send_endless(request, answer, limit=reply.limit)
        case TransferMode.RESET_MID_BODY:
            await _send_half(request, answer)
            # A reset discards bytes that the caller has not read, and nothing signals when it has read them.
            await sleep_or_close(0.05, closing=closing)
        case TransferMode.HANG:
            await closing.wait()
    return reset(request)


def reset(request: web.Request) -> web.Response:
    """Abort the connection with a TCP reset. The returned response is never sent."""
    if (transport := request.transport) is not None:
        # Without this option, closing would send FIN and end the connection cleanly.
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    return web.Response()


def full_response(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, body=answer.body, headers=dict(answer.headers))


async def _start_response(request: web.Request, answer: Answer, *, length: int | None) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=dict(answer.headers))
    response.content_length = length
    response.force_close()
    await response.prepare(request)
    return response


async def _send_half(request: web.Request, answer: Answer) -> web.StreamResponse:
    response = await _start_response(request, answer, length=len(answer.body))
    await response.write(answer.body[: len(answer.body) // 2])
    return response


async def _send_dripping(
    request: web.Request, answer: Answer, *, reply: Reply, closing: asyncio.Event
) -> web.StreamResponse:
    response = await _start_response(request, answer, length=len(answer.body))
    for byte in answer.body[: reply.limit]:
        await response.write(bytes((byte,)))
        if await sleep_or_close(reply.every, closing=closing):
            return reset(request)
    await response.write(answer.body[reply.limit :])
    return response


async def _send_endless(request: web.Request, answer: Answer, *, limit: int) -> web.StreamResponse:
    response = await _start_response(request, answer, length=None)
    await response.write(answer.body)
    block = bytes(64 * 1024)
    try:
        for _ in range(limit // len(block)):
            await response.write(block)
    except ConnectionError:
        return web.Response()
    return response


async def sleep_or_close(delay: float, *, closing: asyncio.Event) -> bool:
    """Sleep for `delay` seconds; return True early if the stand-in closes meanwhile."""
    try:
        async with asyncio.timeout(delay):
            return await closing.wait()
    except TimeoutError:
        return False
