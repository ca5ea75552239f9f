"""Settings and fixtures that several test folders share."""

import logging
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import settings

from sandbox.pikzels_server.server import StandIn, serve
from tests.support.factories import API_KEY, image_bytes
from tests.support.servers import Servers, simulated_servers

# How long an example takes depends more on the load of the machine than on the code.
settings.register_profile("no-deadline", deadline=None, print_blob=True)
settings.load_profile("no-deadline")


@pytest.fixture
async def api() -> AsyncIterator[StandIn]:
    """A simulated provider that serves a finished image."""
    async with serve(api_key=API_KEY, output=image_bytes()) as server:
        yield server


@pytest.fixture
async def servers() -> AsyncIterator[Servers]:
    async with simulated_servers() as servers:
        yield servers


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    """Restores the levels and handlers that `bot.ops.logs.set_up` changes: its handler would write into the output of
    a later test, or into a stream that is closed by then.
    """
    root = logging.getLogger()
    loggers = [root, *map(logging.getLogger, ("discord", "discord.state", "aiosqlite", "aiohttp", "asyncio"))]
    levels, handlers = [logger.level for logger in loggers], root.handlers[:]
    yield
    root.handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
