"""A socket in the data folder by which the command line asks a running bot. One line of JSON each way."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Answer = Callable[[], Awaitable[dict[str, Any]]]

log = logging.getLogger(__name__)

NAME = "control.sock"
_LONGEST = 64 * 1024  # bytes of a line
_FIRST_LINE_SECONDS = 5.0


@asynccontextmanager
async def served(path: Path, answers: dict[str, Answer]) -> AsyncIterator[None]:
    """Answer what `answers` names, until the end of the block. Only the user of this process can ask. Where there are
    no such sockets, nobody is answered.
    """
    async with AsyncExitStack() as stack:
        try:
            server = await asyncio.start_unix_server(partial(_serve, answers), path, limit=_LONGEST)
            os.chmod(path, 0o600)  # noqa: PTH101 - it takes microseconds
        except (AttributeError, NotImplementedError, OSError) as error:
            log.warning("no command can ask this bot for a backup (%s)", type(error).__name__)
        else:
            stack.callback(path.unlink, missing_ok=True)
            await stack.enter_async_context(server)
        yield


async def _serve(answers: dict[str, Answer], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(_FIRST_LINE_SECONDS):
            name = json.loads(await reader.readline())
        answer = await answers[name]() if name in answers else {"problem": "the bot does not know this command"}
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
    except (OSError, ValueError, TimeoutError, TypeError) as error:
        log.debug("a command has gone: %s", type(error).__name__)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def ask(path: Path, name: str) -> dict[str, Any] | None:
    """Ask a running bot and wait for its answer, however long it takes; None if none listens. Raises `OSError`."""
    if not hasattr(socket, "AF_UNIX"):
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        connection.sendall(json.dumps(name).encode() + b"\n")
        with connection.makefile("rb") as answer:
            line = answer.readline(_LONGEST)
    return dict(json.loads(line)) if line else {"problem": "the bot stopped before it answered"}
