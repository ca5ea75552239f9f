"""The image service of the benchmarks: the provider, and the CDN with the images that members attach.

It runs in a process of its own. It prints the addresses of both on the first line, and answers the lines `calls` (how
many there were) and `delay 0.5` (seconds that a call takes from now on).
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop
from aiohttp import web

from sandbox import pikzels_server
from sandbox.pikzels_server.replies import Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_HOST = "127.0.0.1"


async def _run(image: bytes, certificate: Path) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    async with pikzels_server.serve(output=image, tls=tls) as api, _cdn(image, tls) as cdn:
        print(api.base_url, cdn, flush=True)
        while words := (await asyncio.to_thread(sys.stdin.readline)).split():
            if words[0] == "delay":
                api.always(Reply(delay=float(words[1])))
            print(len(api.calls), flush=True)


@asynccontextmanager
async def _cdn(image: bytes, tls: ssl.SSLContext) -> AsyncIterator[str]:
    """Every path has a file of its own: the image, with the path behind its end. A part may be asked for."""

    async def attachment(request: web.Request) -> web.Response:
        content = image + request.path.encode()
        part = request.http_range
        headers = {"Content-Type": "image/png", "Accept-Ranges": "bytes"}
        if part.stop is None and part.start is None:
            return web.Response(body=content, headers=headers)
        shown = content[part]
        start = part.start or 0
        headers["Content-Range"] = f"bytes {start}-{start + len(shown) - 1}/{len(content)}"
        return web.Response(status=206, body=shown, headers=headers)

    app = web.Application()
    app.router.add_get("/attachments/{path:.*}", attachment)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, _HOST, 0, backlog=4096, ssl_context=tls).start()
        yield f"https://{_HOST}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(_run(Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])))
