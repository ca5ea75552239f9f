"""Runs the bot until a signal: connects, reconnects, does the housekeeping, and shuts down."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import signal
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import aiohttp
import discord

from bot import app
from bot.domain.errors import IdentifyLimitReached, InvalidConfiguration, ShardsRecommended, StorageUnavailable
from bot.ops import control
from bot.ops.reconnect_log import is_told, observed
from bot.text import operator

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from bot.app import App
    from bot.config import Settings
    from bot.discord_io.client import Client
    from bot.jobs.ports import Ports

log = logging.getLogger(__name__)

_HOUSEKEEPING_SECONDS = 3600.0
_STABLE_SECONDS = 600.0  # a connection that lasted this long was a good one
_HANGING_UP_SECONDS = 5.0
_LONGEST_PAUSE = 300.0  # seconds between two connections
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SIGNALS_OF_WINDOWS = ("SIGTERM", "SIGINT", "SIGBREAK")  # the last is Ctrl-Break, and the end of a console
# What passes by itself: a full disk, a network that is down, Discord out of order. It is told, not traced.
_EXPECTED = (StorageUnavailable, discord.DiscordException, aiohttp.ClientError, OSError)
# Expected now and then: no network, or Discord has trouble.
_NO_CONNECTION = (
    aiohttp.ClientError,
    ConnectionError,
    TimeoutError,
    discord.GatewayNotFound,
    discord.DiscordServerError,
)
# Discord: do not reconnect. Not 4011, too few shards: the next client asks how many there should be.
_FATAL_CLOSES = (4004, 4010, 4012, 4013, 4014)


async def run(settings: Settings, *, wrap: Callable[[Ports], Ports] = app.unwrapped) -> None:
    """Run until SIGTERM or SIGINT; raises `InvalidConfiguration` if Discord refuses the token. `wrap`: see
    `app.opened`.
    """
    stopping = asyncio.Event()
    _listen(stopping.set)
    async with app.opened(settings, wrap=wrap) as running, _answering(running):
        # What exists now lives until the end, so no collection has to look at it: not even a first one, which would
        # delay the start by as much as all of our own imports, to find the few objects that they left behind.
        gc.freeze()
        gc.enable()  # disabled in `bot.cli.run`
        connection = asyncio.create_task(_stay_connected(running, settings.discord.token.get_secret_value()))
        stopped = asyncio.create_task(stopping.wait())
        housekeeping = asyncio.create_task(_keep_house(running))
        backups = asyncio.create_task(_back_up(running))
        try:
            await asyncio.wait((connection, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not connection.done():
                log.info("shutting down: no longer accepting requests")
                await running.use_case.recovery.close(grace=settings.shutdown.grace)
        finally:
            housekeeping.cancel()
            backups.cancel()
            stopped.cancel()
            connection.cancel()  # the connection before the client, so that Discord gets a proper goodbye
            await asyncio.wait((connection, stopped, housekeeping, backups))
        if not connection.cancelled():
            connection.result()


def _answering(running: App) -> AbstractAsyncContextManager[None]:
    """Answer what the command line asks a running bot."""
    return control.served(running.storage.database.path.with_name(control.NAME), {"backup": running.back_up_now})


def _listen(stop: Callable[[], None]) -> None:
    """Call `stop` at the first SIGTERM or SIGINT, even if the kernel has kept it since the start.

    Both are blocked for good, here and in every thread started later: an early one waits, and a second one is ignored.
    A handler of the loop would leave both to the default, which is to die. Windows cannot block them: there a handler
    must do.
    """
    loop = asyncio.get_running_loop()

    def stop_soon() -> None:
        with suppress(RuntimeError):  # the loop is closed: it has ended by itself
            loop.call_soon_threadsafe(stop)

    def wait() -> None:
        signal.sigwait(_SIGNALS)
        stop_soon()

    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        threading.Thread(target=wait, name="signals", daemon=True).start()
        return
    for name in _SIGNALS_OF_WINDOWS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: stop_soon())


async def _keep_house(running: App) -> None:
    """What is due at every start and every hour; for the jobs only later, since a start recovers them itself."""
    while True:
        await _attempt(running.client.services.results.tidy)
        await _attempt(lambda: running.source_store.sweep(now=app.utc_now()))
        await _attempt(running.sweep)
        await _attempt(running.storage.database.checkpoint)
        await _attempt(running.remind)
        await _attempt(running.check)
        await asyncio.sleep(_HOUSEKEEPING_SECONDS)
        await _attempt(running.use_case.recovery.tidy)
        if running.client.application_id is not None and not running.client.is_closed():
            await _attempt(running.client.sync_commands)
            await _attempt(running.note_servers)


async def _back_up(running: App) -> None:
    """Make every backup when it is due."""
    while running.storage.backups.is_scheduled:
        await asyncio.sleep(running.storage.backups.wait().total_seconds())
        await _attempt(running.back_up)


async def _attempt(step: Callable[[], Awaitable[object]]) -> None:
    try:
        await step()
    except _EXPECTED as error:
        log.warning("housekeeping failed (%s); trying again in an hour", type(error).__name__)
    except Exception:
        log.exception("housekeeping failed; trying again later")


async def _stay_connected(running: App, token: str) -> None:
    """Keep a connection to Discord: a client that ends is replaced by a fresh one, with ever longer pauses.

    discord.py's client ends when its first connection fails, when a payload lacks a field, and on fatal close codes.
    """
    failures = 0
    while True:
        began = asyncio.get_running_loop().time()
        try:
            await _connect(running, token, tries=failures + 1)
        except ShardsRecommended as recommended:
            log.info("%s", operator.shards_recommended(recommended.shards))
            await running.renew(shards=recommended.shards)
            continue
        if asyncio.get_running_loop().time() - began > _STABLE_SECONDS:
            failures = 0
        failures += 1
        await _hang_up(running.client)
        await asyncio.sleep(min(_LONGEST_PAUSE, 2.0**failures) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        await running.renew()


async def _hang_up(client: Client) -> None:
    """Leave no connection open that nobody reads: Discord would send interactions there."""
    with suppress(*_NO_CONNECTION):
        async with asyncio.timeout(_HANGING_UP_SECONDS):
            await client.hang_up()


async def _connect(running: App, token: str, *, tries: int) -> None:
    """Run one client to its end. Raises `InvalidConfiguration` for what a fresh one cannot fix, and `ShardsRecommended`
    for what one with so many can. `tries`: in a row.
    """
    try:
        if wait := await running.client.services.identify_limit.wait():
            log.error("%s", operator.identify_limit(wait))
            await asyncio.sleep(wait.total_seconds())
        await running.client.start(token)
    except discord.LoginFailure:
        raise InvalidConfiguration("discord.token", "is refused by Discord") from None
    except (discord.PrivilegedIntentsRequired, discord.ConnectionClosed) as error:
        _raise_if_fatal(error)
        log.warning("the connection to Discord was closed: %s", error)
    except IdentifyLimitReached as reached:
        log.error("%s", operator.identify_limit(reached.wait))  # noqa: TRY400 - told, not traced
    except ShardsRecommended:
        raise
    except _NO_CONNECTION as error:
        if is_told(tries):
            log.warning("%s", operator.client_ended(observed(error)))
    except Exception:
        log.exception("the Discord client ended; starting a fresh one")


def _raise_if_fatal(error: discord.PrivilegedIntentsRequired | discord.ConnectionClosed) -> None:
    if isinstance(error, discord.PrivilegedIntentsRequired) or error.code in _FATAL_CLOSES:
        raise InvalidConfiguration("discord.token", f"belongs to an application Discord refuses ({error})") from None
