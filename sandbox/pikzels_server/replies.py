"""Scripted replies: what the stand-in does with a call instead of simply answering it."""

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


class Manner(Enum):
    """How the bytes of an answer leave, or fail to."""

    WHOLE = "whole"
    DRIP = "drip"
    TRUNCATED = "truncated"
    ENDLESS = "endless"
    HANG = "hang"
    RESET_BEFORE_REQUEST = "before_request"
    RESET_AFTER_REQUEST = "after_request"
    RESET_MID_BODY = "mid_body"


@dataclass(frozen=True, slots=True)
class Answer:
    """A response before it is sent."""

    status: int
    body: bytes = field(repr=False)
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What to do with one call; without `answer` or `refusal` the true answer is given."""

    manner: Manner = Manner.WHOLE
    answer: Answer | None = None
    refusal: Refusal | None = None
    headers: tuple[tuple[str, str], ...] = ()
    extra: tuple[tuple[str, object], ...] = ()
    delay: float | None = None
    held: bool = False
    every: float = 0.0
    limit: int = 0

    @property
    def truthful(self) -> bool:
        """Whether the true answer has to be worked out for this reply."""
        silent = (Manner.HANG, Manner.RESET_BEFORE_REQUEST, Manner.RESET_AFTER_REQUEST)
        return self.answer is None and self.refusal is None and self.manner not in silent

    def after(self, delay: float) -> "Reply":
        """The same reply, `delay` seconds later."""
        return replace(self, delay=delay)

    @staticmethod
    def ok(*, delay: float | None = None, extra: dict[str, object] | None = None) -> "Reply":
        """The true answer, with `extra` fields merged into its JSON object."""
        return Reply(delay=delay, extra=tuple((extra or {}).items()))

    @staticmethod
    def hold() -> "Reply":
        """The true answer, once the stand-in's `release` is called."""
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
        """A small body that unpacks to `size` bytes."""
        headers = {"Content-Encoding": "gzip", "Content-Type": content_type}
        return Reply.raw(200, gzip.compress(bytes(size), compresslevel=9, mtime=0), headers)

    @staticmethod
    def endless(*, limit: int = 256 * MEBIBYTE, content_type: str = "image/png") -> "Reply":
        """A body without a length that goes on until the caller leaves, or `limit` bytes."""
        start = Answer(200, PNG_SIGNATURE, (("Content-Type", content_type),))
        return Reply(manner=Manner.ENDLESS, answer=start, limit=limit)

    @staticmethod
    def drip(*, every: float = 0.01, limit: int = 1000) -> "Reply":
        """The true answer, its first `limit` bytes one at a time, `every` seconds apart."""
        return Reply(manner=Manner.DRIP, every=every, limit=limit)

    @staticmethod
    def truncated() -> "Reply":
        """Half of the true answer under the whole answer's Content-Length, then a clean close."""
        return Reply(manner=Manner.TRUNCATED)

    @staticmethod
    def reset(when: When = "after_request") -> "Reply":
        """A TCP reset instead of the answer, or in the middle of it."""
        return Reply(manner=Manner(when))

    @staticmethod
    def hang() -> "Reply":
        """Silence until the stand-in closes."""
        return Reply(manner=Manner.HANG)


class Script:
    """The replies to come, in order, and the one for every call after them."""

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
    """Send `answer` in the manner of `reply`; `closing` ends whatever would go on for long."""
    match reply.manner:
        case Manner.WHOLE:
            return whole(answer)
        case Manner.DRIP:
            return await _drip(request, answer, reply=reply, closing=closing)
        case Manner.TRUNCATED:
            return await _half(request, answer)
        case Manner.ENDLESS:
            return await _endless(request, answer, limit=reply.limit)
        case Manner.RESET_MID_BODY:
            await _half(request, answer)
            # A reset discards what the caller has not read yet, and no signal tells when it has.
            await passed(0.05, closing=closing)
        case Manner.HANG:
            await closing.wait()
    return reset(request)


def reset(request: web.Request) -> web.Response:
    """Cut the connection with a TCP reset; the response returned goes nowhere."""
    if (transport := request.transport) is not None:
        # Without this option closing would say FIN, an orderly goodbye.
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    return web.Response()


def whole(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, body=answer.body, headers=dict(answer.headers))


async def _begin(request: web.Request, answer: Answer, *, length: int | None) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=dict(answer.headers))
    response.content_length = length
    response.force_close()
    await response.prepare(request)
    return response


async def _half(request: web.Request, answer: Answer) -> web.StreamResponse:
    response = await _begin(request, answer, length=len(answer.body))
    await response.write(answer.body[: len(answer.body) // 2])
    return response


async def _drip(request: web.Request, answer: Answer, *, reply: Reply, closing: asyncio.Event) -> web.StreamResponse:
    response = await _begin(request, answer, length=len(answer.body))
    for byte in answer.body[: reply.limit]:
        await response.write(bytes((byte,)))
        if await passed(reply.every, closing=closing):
            return reset(request)
    await response.write(answer.body[reply.limit :])
    return response


async def _endless(request: web.Request, answer: Answer, *, limit: int) -> web.StreamResponse:
    response = await _begin(request, answer, length=None)
    await response.write(answer.body)
    block = bytes(64 * 1024)
    try:
        for _ in range(limit // len(block)):
            await response.write(block)
    except ConnectionError:
        return web.Response()
    return response


async def passed(delay: float, *, closing: asyncio.Event) -> bool:
    """Wait `delay` seconds; True at once when the stand-in closes meanwhile."""
    try:
        async with asyncio.timeout(delay):
            return await closing.wait()
    except TimeoutError:
        return False
