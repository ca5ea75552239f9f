"""A stand-in of the Pikzels API on loopback: enforces the contract, paints, misbehaves to order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import uuid4

from aiohttp import web

from sandbox.pikzels_server.calls import KEY_HEADER, Call, Log, call_of
from sandbox.pikzels_server.contract import NotJson, Refusal, body_refusal, invalid, key_refusal, parsed
from sandbox.pikzels_server.rendering.renderer import Fetch, Refused, Studio
from sandbox.pikzels_server.replies import (
    Answer,
    Manner,
    Reply,
    Script,
    deliver,
    json_answer,
    passed,
    refusal_answer,
    reset,
    whole,
)

HOST = "127.0.0.1"
# Two pictures of 10 MB in base64, and the rest of the body.
BODY_MAX = 32_000_000


class StandIn:
    """The server's state, its script, and what a test may ask and tell it."""

    def __init__(self, studio: Studio, *, api_key: str, delay: float) -> None:
        self.base_url = ""
        self._api_key = api_key
        self._delay = delay
        self._studio = studio
        self._creations = Log()
        self._downloads = Log()
        self._script = Script()
        self._output_script = Script()
        self._gate = asyncio.Event()
        self._closing = asyncio.Event()

    @property
    def calls(self) -> list[Call]:
        """Every request to create a thumbnail, refused ones too."""
        return self._creations.calls

    @property
    def downloads(self) -> list[Call]:
        """Every request for an output picture."""
        return self._downloads.calls

    async def called(self, count: int, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - for tests to read well
        """Wait until `count` creations were asked for in all; raises TimeoutError."""
        await self._creations.reached(count, within=timeout)

    async def downloaded(self, count: int, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - for tests to read well
        """Wait until `count` downloads were asked for in all; raises TimeoutError."""
        await self._downloads.reached(count, within=timeout)

    def script(self, *replies: Reply) -> None:
        """Queue what happens to the next calls that keep to the contract."""
        self._script.add(*replies)

    def always(self, reply: Reply) -> None:
        """What happens to every call that finds the queue empty."""
        self._script.always = reply

    def script_output(self, *replies: Reply) -> None:
        """Queue what happens to the next downloads."""
        self._output_script.add(*replies)

    def always_output(self, reply: Reply) -> None:
        """What happens to every download that finds the queue empty."""
        self._output_script.always = reply

    def release(self) -> None:
        """Let every call held so far go on."""
        self._gate.set()
        self._gate = asyncio.Event()

    def close(self) -> None:
        """End whatever hangs, drips, waits or is held."""
        self._closing.set()
        self.release()

    def application(self) -> web.Application:
        app = web.Application(client_max_size=BODY_MAX)
        app.router.add_post("/v2/thumbnail/image", self._create)
        app.router.add_get("/v2/pikzonality/{id}", self._pikzonality)
        app.router.add_get("/output/{name}.png", self._download)
        app.router.add_route("*", "/{path:.*}", self._nowhere)
        return app

    async def _create(self, request: web.Request) -> web.StreamResponse:
        request_id = str(uuid4())
        if self._script.peek().manner is Manner.RESET_BEFORE_REQUEST:
            self._script.take()
            self._creations.add(call_of(request, None, request_id=request_id))
            return reset(request)
        body, refusal = await self._received(request, request_id=request_id)
        if refusal is not None:
            return whole(refusal_answer(refusal, request_id=request_id))
        reply, gate = self._script.take(), self._gate
        answer = await self._answered(body, reply=reply, request_id=request_id, call=len(self.calls))
        if await self._waited(reply, gate, delay=0.0 if reply.refusal or reply.answer else self._delay):
            return reset(request)
        return await deliver(request, answer, reply=reply, closing=self._closing)

    async def _received(self, request: web.Request, *, request_id: str) -> tuple[Any, Refusal | None]:
        """The body, logged, and why it is refused, if it is."""
        try:
            raw = await request.read()
            body, unreadable = parsed(raw), None
        except web.HTTPRequestEntityTooLarge:
            body, unreadable = None, Refusal("IMAGE_TOO_LARGE")
        except NotJson:
            body, unreadable = None, invalid("must be JSON")
        self._creations.add(call_of(request, body, request_id=request_id))
        if refusal := key_refusal(request.headers.get(KEY_HEADER), expected=self._api_key):
            return body, refusal
        if request.content_type != "application/json":
            return body, invalid("Content-Type must be application/json")
        return body, unreadable or body_refusal(body)

    async def _answered(self, body: Mapping[str, str], *, reply: Reply, request_id: str, call: int) -> Answer:
        if reply.refusal is not None:
            answer = refusal_answer(reply.refusal, request_id=request_id)
            return Answer(answer.status, answer.body, answer.headers + reply.headers)
        if not reply.truthful:
            return reply.answer or Answer(200, b"")
        try:
            name = await self._studio.made(body, call=call)
        except Refused as refused:
            return refusal_answer(refused.refusal, request_id=request_id)
        success = {"output": f"{self.base_url}/output/{name}.png", "request_id": request_id, **dict(reply.extra)}
        return json_answer(200, success, request_id=request_id)

    async def _download(self, request: web.Request) -> web.StreamResponse:
        self._downloads.add(call_of(request, None, request_id=str(uuid4())))
        reply, gate = self._output_script.take(), self._gate
        picture = self._studio.picture(request.match_info["name"])
        answer = Answer(404, b"gone") if picture is None else Answer(200, picture, (("Content-Type", "image/png"),))
        if reply.refusal is not None:
            answer = refusal_answer(reply.refusal, request_id=self.downloads[-1].request_id)
        if await self._waited(reply, gate, delay=0.0):
            return reset(request)
        return await deliver(request, reply.answer or answer, reply=reply, closing=self._closing)

    async def _waited(self, reply: Reply, gate: asyncio.Event, *, delay: float) -> bool:
        """Wait as the reply says, else `delay`; True when the stand-in closed meanwhile."""
        if reply.held:
            await gate.wait()
        seconds = delay if reply.delay is None else reply.delay
        return self._closing.is_set() or (seconds > 0 and await passed(seconds, closing=self._closing))

    async def _pikzonality(self, request: web.Request) -> web.StreamResponse:
        refusal = key_refusal(request.headers.get(KEY_HEADER), expected=self._api_key)
        return whole(refusal_answer(refusal or Refusal("NOT_FOUND"), request_id=str(uuid4())))

    async def _nowhere(self, _: web.Request) -> web.StreamResponse:
        return whole(refusal_answer(Refusal("NOT_FOUND"), request_id=str(uuid4())))


@contextlib.asynccontextmanager
async def serve(
    *,
    api_key: str = "pkz_sandbox",
    delay: float = 0.0,
    port: int = 0,
    fetch: Fetch | None = None,
    output: bytes | None = None,
) -> AsyncIterator[StandIn]:
    """Run the stand-in; `fetch` gets a picture by its URL, `output` replaces every painting."""
    api = StandIn(Studio(fetch=fetch, output=output), api_key=api_key, delay=delay)
    runner = web.AppRunner(api.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, port, backlog=4096).start()  # a burst must not wait for the kernel
        api.base_url = f"http://{HOST}:{runner.addresses[0][1]}"
        yield api
    finally:
        api.close()
        await runner.cleanup()
