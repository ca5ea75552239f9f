"""Serves the stand-in for the Pikzels API until it is interrupted: `python -m sandbox.pikzels_server`."""

import argparse
import asyncio
import contextlib

from sandbox.pikzels_server.contract import CODES
from sandbox.pikzels_server.replies import Reply
from sandbox.pikzels_server.server import serve


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sandbox.pikzels_server", description=__doc__)
    parser.add_argument("--port", type=int, default=8099)
    parser.add_argument("--delay", type=float, default=2.0, help="seconds an image takes")
    parser.add_argument("--key", default="pkz_sandbox", help="the accepted API key")
    parser.add_argument("--always", choices=sorted(CODES), metavar="CODE", help="answer every call with this error")
    return parser.parse_args()


async def _run(arguments: argparse.Namespace) -> None:
    async with serve(api_key=arguments.key, delay=arguments.delay, port=arguments.port) as api:
        if arguments.always:
            api.always(Reply.error(arguments.always))
        print(api.base_url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(_arguments()))
