"""A socket in the data folder by which the command line asks a running bot. One line of JSON each way."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    Answer = Callable[[], Awaitable[dict[str, Any]]]

log = logging.getLogger(__name__)

NAME = "control.sock"
_LONGEST = 64 * 1024  # bytes of a line
_FIRST_LINE_SECONDS = 5.0
_CONNECT_SECONDS = 1.0
_LONGEST_ADDRESS = 103  # bytes of a socket's path: 103 on macOS and BSD, 107 on Linux
_DESCRIPTORS = Path("/proc/self/fd")  # of Linux


@asynccontextmanager
async def served(path: Path, answers: dict[str, Answer]) -> AsyncIterator[None]:
    """Answer what `answers` names, until the end of the block; who then waits for an answer gets none. Only the user
    of this process can ask. Where there are no such sockets, nobody is answered.
    """
    async with AsyncExitStack() as stack:
        connections = _Connections(answers)
        try:
            with _address(path) as address:
                server = await asyncio.start_unix_server(connections.accept, address, limit=_LONGEST)
            os.chmod(path, 0o600)  # noqa: PTH101 - it takes microseconds
        except (AttributeError, NotImplementedError, OSError) as error:
            log.warning("no command can ask this bot for a backup (%s)", error)
        else:
            stack.callback(path.unlink, missing_ok=True)
            stack.push_async_callback(connections.close)
            stack.callback(server.close)
            # Who was accepted in this turn of the loop is connected in the next one: Python 3.11 leaves them open if
            # the server closes in between.
            stack.push_async_callback(asyncio.sleep, 0)
        yield


class _Connections:
    """The commands that ask at the moment. asyncio's server does not end them: it forgets them before Python 3.12.1,
    and waits for them since.
    """

    def __init__(self, answers: dict[str, Answer]) -> None:
        self._answers = answers
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:  # accepted before the end, connected after it
            writer.close()
            return
        task = asyncio.create_task(_answer(self._answers, reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: writer.close())  # here, because a task cancelled early never starts

    async def close(self) -> None:
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """What names this socket in the block: a longer path than an address has room for is shortened. Raises
    `FileNotFoundError` if there is no way to do so, or no such folder.
    """
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        yield str(path)
        return
    if not _DESCRIPTORS.exists():
        raise FileNotFoundError(f"the path of the socket has more than {_LONGEST_ADDRESS} bytes: {path}")
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        yield str(_DESCRIPTORS / str(folder) / path.name)
    finally:
        os.close(folder)


async def _answer(answers: dict[str, Answer], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(_FIRST_LINE_SECONDS):
            name = json.loads(await reader.readline())
        answer = await answers[name]() if name in answers else {"problem": "the bot does not know this command"}
        writer.write(json.dumps(answer).encode() + b"\n")
        await writer.drain()
    except (OSError, ValueError, TimeoutError, TypeError) as error:
        log.debug("a command has gone: %s", type(error).__name__)


def is_served(path: Path) -> bool:
    """Whether a running bot listens there."""
    if not hasattr(socket, "AF_UNIX"):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, suppress(OSError):
        connection.settimeout(_CONNECT_SECONDS)
        with _address(path) as address:
            connection.connect(address)
        return True
    return False


def ask(path: Path, name: str) -> dict[str, Any] | None:
    """Ask a running bot and wait for its answer, however long it takes; None if none listens. Raises `OSError`."""
    if not hasattr(socket, "AF_UNIX"):
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            with _address(path) as address:
                connection.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        connection.sendall(json.dumps(name).encode() + b"\n")
        with connection.makefile("rb") as answer:
            line = answer.readline(_LONGEST)
    return dict(json.loads(line)) if line else {"problem": "the bot stopped before it answered"}
