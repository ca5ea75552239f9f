"""A stand-in for the Pikzels API on loopback. It enforces the contract, renders images, and fails on request."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from ssl import SSLContext
from typing import Any
from uuid import uuid4

from aiohttp import web

from sandbox.pikzels_server.calls import KEY_HEADER, Call, CallLog, call_from_request
from sandbox.pikzels_server.contract import NotJson, Refusal, check_body, check_key, parse_json, validation_error
from sandbox.pikzels_server.rendering.renderer import Fetch, ImageRejected, Renderer
from sandbox.pikzels_server.replies import (
    Answer,
    Reply,
    Script,
    TransferMode,
    deliver,
    full_response,
    json_answer,
    refusal_answer,
    reset,
    sleep_or_close,
)

HOST = "127.0.0.1"
# Room for two 10 MB images in base64 and the rest of the body.
BODY_MAX = 32_000_000


class StandIn:
    """The server's state and script, and the interface for tests."""

    def __init__(self, renderer: Renderer, *, api_key: str, delay: float) -> None:
        self.base_url = ""
        self._api_key = api_key
        self._delay = delay
        self._renderer = renderer
        self._creations = CallLog()
        self._downloads = CallLog()
        self._script = Script()
        self._output_script = Script()
        self._release_event = asyncio.Event()
        self._closing = asyncio.Event()

    @property
    def calls(self) -> list[Call]:
        """Every request to create a thumbnail, including refused ones."""
        return self._creations.calls

    @property
    def downloads(self) -> list[Call]:
        """Every request for an output image."""
        return self._downloads.calls

    async def called(self, count: int, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - reads well in tests
        """Wait for a total of `count` requests to create a thumbnail; raises TimeoutError."""
        await self._creations.wait_for_count(count, within=timeout)

    async def downloaded(self, count: int, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - reads well in tests
        """Wait for a total of `count` downloads; raises TimeoutError."""
        await self._downloads.wait_for_count(count, within=timeout)

    def script(self, *replies: Reply) -> None:
        """Queue replies to the next valid calls."""
        self._script.add(*replies)

    def always(self, reply: Reply) -> None:
        """Set the reply to valid calls while the queue is empty."""
        self._script.always = reply

    def script_output(self, *replies: Reply) -> None:
        """Queue replies to the next downloads."""
        self._output_script.add(*replies)

    def always_output(self, reply: Reply) -> None:
        """Set the reply to downloads while the queue is empty."""
        self._output_script.always = reply

    def release(self) -> None:
        """Let every held call continue."""
        self._release_event.set()
        self._release_event = asyncio.Event()

    def close(self) -> None:
        """End every reply that hangs, drips, waits or is held."""
        self._closing.set()
        self.release()

    def application(self) -> web.Application:
        app = web.Application(client_max_size=BODY_MAX)
        app.router.add_post("/v2/thumbnail/image", self._create)
        app.router.add_get("/v2/pikzonality/{id}", self._pikzonality)
        app.router.add_get("/output/{name}.png", self._download)
        app.router.add_route("*", "/{path:.*}", self._not_found)
        return app

    async def _create(self, request: web.Request) -> web.StreamResponse:
        request_id = str(uuid4())
        if self._script.peek().mode is TransferMode.RESET_BEFORE_REQUEST:
            self._script.take()
            self._creations.add(call_from_request(request, None, request_id=request_id))
            return reset(request)
        body, refusal = await self._read_body(request, request_id=request_id)
        if refusal is not None:
            return full_response(refusal_answer(refusal, request_id=request_id))
        reply, release = self._script.take(), self._release_event
        answer = await self._make_answer(body, reply=reply, request_id=request_id, call=len(self.calls))
        if await self._wait(reply, release, delay=0.0 if reply.refusal or reply.answer else self._delay):
            return reset(request)
        return await deliver(request, answer, reply=reply, closing=self._closing)

    async def _read_body(self, request: web.Request, *, request_id: str) -> tuple[Any, Refusal | None]:
        """Log the call; return its body and, if the call is invalid, the refusal."""
        try:
            raw = await request.read()
            body, unreadable = parse_json(raw), None
        except web.HTTPRequestEntityTooLarge:
            body, unreadable = None, Refusal("IMAGE_TOO_LARGE")
        except NotJson:
            body, unreadable = None, validation_error("must be JSON")
        self._creations.add(call_from_request(request, body, request_id=request_id))
        if refusal := check_key(request.headers.get(KEY_HEADER), expected=self._api_key):
            return body, refusal
        if request.content_type != "application/json":
            return body, validation_error("Content-Type must be application/json")
        return body, unreadable or check_body(body)

    async def _make_answer(self, body: Mapping[str, str], *, reply: Reply, request_id: str, call: int) -> Answer:
        if reply.refusal is not None:
            answer = refusal_answer(reply.refusal, request_id=request_id)
            return Answer(answer.status, answer.body, answer.headers + reply.headers)
        if not reply.uses_real_answer:
            return reply.answer or Answer(200, b"")
        try:
            name = await self._renderer.render(body, call=call)
        except ImageRejected as refused:
            return refusal_answer(refused.refusal, request_id=request_id)
        success = {"output": f"{self.base_url}/output/{name}.png", "request_id": request_id, **dict(reply.extra)}
        return json_answer(200, success, request_id=request_id)

    async def _download(self, request: web.Request) -> web.StreamResponse:
        self._downloads.add(call_from_request(request, None, request_id=str(uuid4())))
        reply, release = self._output_script.take(), self._release_event
        image = self._renderer.find_image(request.match_info["name"])
        answer = Answer(404, b"gone") if image is None else Answer(200, image, (("Content-Type", "image/png"),))
        if reply.refusal is not None:
            answer = refusal_answer(reply.refusal, request_id=self.downloads[-1].request_id)
        if await self._wait(reply, release, delay=0.0):
            return reset(request)
        return await deliver(request, reply.answer or answer, reply=reply, closing=self._closing)

    async def _wait(self, reply: Reply, release: asyncio.Event, *, delay: float) -> bool:
        """Wait for the reply's delay, or for `delay` if it has none; True if the stand-in closed meanwhile."""
        if reply.held:
            await release.wait()
        seconds = delay if reply.delay is None else reply.delay
        return self._closing.is_set() or (seconds > 0 and await sleep_or_close(seconds, closing=self._closing))

    async def _pikzonality(self, request: web.Request) -> web.StreamResponse:
        refusal = check_key(request.headers.get(KEY_HEADER), expected=self._api_key)
        return full_response(refusal_answer(refusal or Refusal("NOT_FOUND"), request_id=str(uuid4())))

    async def _not_found(self, _: web.Request) -> web.StreamResponse:
        return full_response(refusal_answer(Refusal("NOT_FOUND"), request_id=str(uuid4())))


@contextlib.asynccontextmanager
async def serve(
    *,
    api_key: str = "pkz_sandbox",
    delay: float = 0.0,
    port: int = 0,
    fetch: Fetch | None = None,
    output: bytes | None = None,
    tls: SSLContext | None = None,
) -> AsyncIterator[StandIn]:
    """Run the stand-in. `fetch` downloads an image by its URL; `output` replaces every rendered image; without `tls`
    it speaks plain HTTP.
    """
    api = StandIn(Renderer(fetch=fetch, output=output), api_key=api_key, delay=delay)
    runner = web.AppRunner(api.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        # A burst must not overflow the backlog.
        await web.TCPSite(runner, HOST, port, backlog=4096, ssl_context=tls).start()
        api.base_url = f"{'https' if tls else 'http'}://{HOST}:{runner.addresses[0][1]}"
        yield api
    finally:
        api.close()
        await runner.cleanup()
