"""The composition root: opens everything in order and closes it in reverse; names the concrete classes."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import signal
import threading
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import discord

from bot.discord_io.client import Client, Identifies, Services
from bot.discord_io.messenger import Messenger
from bot.domain import quota
from bot.domain.errors import ConfigurationWrong, IdentifiesSpent
from bot.domain.models import AGAIN, Circuit, Loudness, Model
from bot.images.downloads import Downloads
from bot.images.output_spool import Spool
from bot.images.source_images import Originals
from bot.images.source_store import Sources
from bot.jobs.lifecycle import Thumbnails
from bot.jobs.outcomes import nowhere
from bot.jobs.queue import Gate
from bot.jobs.results import Results
from bot.ops import metrics
from bot.ops.alerts import Alerts
from bot.ops.logs import Redactor
from bot.pikzels.client import Pikzels
from bot.storage import database
from bot.storage.history import Archive
from bot.storage.journal import Ballast, Journal
from bot.storage.journaled_ledger import JournaledBooks
from bot.storage.ledger import Ledger
from bot.text import words

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from bot.config import Settings
    from bot.domain.errors import BooksUnavailable
    from bot.domain.protocols import Source
    from bot.storage.database import Database

log = logging.getLogger(__name__)

_TIDY_SECONDS = 3600.0
_STABLE_SECONDS = 600.0  # a connection that lasted so long was a good one
_LONGEST_PAUSE = 300.0  # seconds between two connections
_STOPS = (signal.SIGTERM, signal.SIGINT)
_FATAL_CLOSES = (4004, 4010, 4011, 4012, 4013, 4014)  # Discord: do not reconnect


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class App:
    """Everything open. `client` is the connection to Discord of the moment; a broken one is replaced."""

    client: Client
    thumbnails: Thumbnails
    gate: Gate
    ledger: Ledger
    books: JournaledBooks
    database: Database
    sources: Sources

    async def disconnect(self) -> None:
        await self.client.close()

    async def renew(self) -> Client:
        """Close the client and put a fresh one in its place: discord.py's cannot be started twice."""
        await self.disconnect()
        self.client = Client(self.client.services)
        return self.client


@asynccontextmanager
async def opened(
    settings: Settings,
    *,
    clock: Callable[[], datetime] = utc_now,
    reach: Callable[[str], None] = nowhere,
    cdn: Source | None = None,
) -> AsyncIterator[App]:
    """Open storage, provider and client; on the way out finish what is under way and close in reverse. `cdn` fetches
    what Discord keeps, in place of its own servers.

    Raises `DatabaseTrouble` before anything is sent to anyone, `ConfigurationWrong` for a folder that cannot be used.
    """
    async with AsyncExitStack() as stack:
        folder = settings.storage.folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            spool = Spool(folder / "spool")
        except OSError as error:
            raise ConfigurationWrong("storage.folder", f"cannot be used ({type(error).__name__})") from error
        store = await stack.enter_async_context(database.opened(folder / "pikzels-bot.sqlite3"))
        ledger = Ledger(store, spool=spool.folder)
        counters = metrics.Metrics()
        alerts = await stack.enter_async_context(_alerts(settings, clock))
        books = await _books(stack, ledger, folder, clock, alerts)
        if store.restored:
            alerts.tell(Loudness.PAGE, "restored", words.RESTORED)
        gate = _gate(settings, clock, alerts)
        provider = await stack.enter_async_context(_provider(settings, clock))
        downloads = await stack.enter_async_context(Downloads(loopback=settings.pikzels.on_this_machine))
        current: list[App] = []
        seed = AGAIN if settings.results.seed_reaction else None
        messenger = Messenger(client=lambda: current[0].client, clock=clock, seed=seed)
        archive = Archive(store, spool=spool.folder)
        sources = _sources(settings, folder / "sources")
        if cdn is None:
            cdn = await stack.enter_async_context(Downloads(loopback=settings.pikzels.on_this_machine))
        originals = Originals(source=cdn, kept=sources, notes=archive, clock=clock)
        rules = quota.Rules(settings.quota.member_daily, _costs(settings))
        thumbnails = Thumbnails(
            admission=gate,
            books=books,
            originals=originals,
            provider=provider,
            source=downloads,
            store=spool,
            delivery=messenger,
            operator=alerts,
            counters=counters,
            rules=rules,
            clock=clock,
            retry_server_errors=settings.pikzels.retry_server_errors,
            restored=store.restored,
            reach=reach,
        )
        services = Services(
            thumbnails=thumbnails,
            results=Results(library=archive, job=books.job, clock=clock),
            fetched=partial(_whole, cdn),
            facts=books,
            identifies=Identifies(books, clock=clock),
            clock=clock,
            attachment=messenger.attachment,
            refused=counters.refused,
            default_model=settings.defaults.model,
            default_format=settings.defaults.format,
            costs=rules.costs,
            personas=settings.personas,
            styles=settings.styles,
        )
        counters.watch("pikzels_queue_waiting", "Requests waiting for a provider call", lambda: gate.waiting)
        counters.watch("pikzels_calls_running", "Provider calls under way", lambda: gate.running)
        counters.watch("pikzels_circuits_open", "Circuits that refuse requests", lambda: len(gate.open_circuits))
        app = App(Client(services), thumbnails, gate, ledger, books, store, sources)
        current.append(app)
        stack.push_async_callback(app.disconnect)
        await _serve_health(stack, settings, counters, app)
        stack.push_async_callback(thumbnails.close, grace=settings.shutdown.grace)
        yield app


async def run(settings: Settings, *, reach: Callable[[str], None] = nowhere) -> None:
    """Run until SIGTERM or SIGINT; raises `ConfigurationWrong` when Discord refuses the token."""
    stopping = asyncio.Event()
    _listen(stopping.set)
    async with opened(settings, reach=reach) as app:
        gc.collect()
        gc.freeze()  # what stands now stands until the end: not to be looked through again and again
        connection = asyncio.create_task(_stay_connected(app, settings.discord.token.get_secret_value()))
        stopped = asyncio.create_task(stopping.wait())
        tidying = asyncio.create_task(_keep_tidy(app))
        try:
            await asyncio.wait((connection, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not connection.done():
                log.info("stopping: nothing new is taken")
                await app.thumbnails.close(grace=settings.shutdown.grace)
        finally:
            tidying.cancel()
            stopped.cancel()
            connection.cancel()  # first the connection, then the client: Discord hears a proper goodbye
            await asyncio.wait((connection, stopped, tidying))
        if not connection.cancelled():
            connection.result()


def _listen(stop: Callable[[], None]) -> None:
    """Call `stop` at the first signal to stop, be it one the kernel has kept since the start.

    They are blocked for good, here and in every thread begun after this: one that comes early waits, one that comes
    twice breaks nothing off. A handler of the loop would leave both to the default, which is to die.
    """
    loop = asyncio.get_running_loop()

    def wait() -> None:
        signal.sigwait(_STOPS)
        with suppress(RuntimeError):  # the loop is closed: it has ended by itself
            loop.call_soon_threadsafe(stop)

    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    threading.Thread(target=wait, name="signals", daemon=True).start()


async def _keep_tidy(app: App) -> None:
    """What is due at every start and every hour; with the jobs only later, since a start looks after them by itself."""
    while True:
        await _tidied(app.client.services.results.tidy)
        await _tidied(lambda: app.sources.sweep(now=utc_now()))
        await _tidied(app.database.checkpoint)
        await asyncio.sleep(_TIDY_SECONDS)
        await _tidied(app.thumbnails.tidy)


async def _tidied(step: Callable[[], Awaitable[object]]) -> None:
    try:
        await step()
    except Exception:
        log.exception("tidying up failed; the next time in an hour")


async def _stay_connected(app: App, token: str) -> None:
    """Keep a connection to Discord: a client that ends by itself is replaced by a fresh one, ever more slowly.

    discord.py's client ends when its first connection fails, when a payload lacks a field, and on fatal close codes.
    """
    failures = 0
    while True:
        began = asyncio.get_running_loop().time()
        try:
            await asyncio.sleep((await app.client.services.identifies.wait()).total_seconds())
            await app.client.start(token)
        except discord.LoginFailure:
            raise ConfigurationWrong("discord.token", "is refused by Discord") from None
        except (discord.PrivilegedIntentsRequired, discord.ConnectionClosed) as error:
            _refuse_fatal(error)
            log.warning("the connection to Discord was closed: %s", error)
        except IdentifiesSpent as spent:
            log.error("too many new connections to Discord; the next in %s", spent.wait)  # noqa: TRY400 - told, not traced
        except Exception:
            log.exception("the client of Discord ended; a fresh one follows")
        if asyncio.get_running_loop().time() - began > _STABLE_SECONDS:
            failures = 0
        failures += 1
        await asyncio.sleep(min(_LONGEST_PAUSE, 2.0**failures) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        await app.renew()


def _refuse_fatal(error: discord.PrivilegedIntentsRequired | discord.ConnectionClosed) -> None:
    """Raises `ConfigurationWrong` for what a fresh connection cannot mend."""
    if isinstance(error, discord.PrivilegedIntentsRequired) or error.code in _FATAL_CLOSES:
        raise ConfigurationWrong("discord.token", f"belongs to an application Discord refuses ({error})") from None


def _alerts(settings: Settings, clock: Callable[[], datetime]) -> Alerts:
    webhook = settings.alerts.webhook
    return Alerts(
        webhook=None if webhook is None else webhook.get_secret_value(),
        clock=clock,
        redact=Redactor(settings.secrets()),
    )


async def _books(
    stack: AsyncExitStack, ledger: Ledger, folder: Path, clock: Callable[[], datetime], alerts: Alerts
) -> JournaledBooks:
    """The ledger with its journal, which the last process may have left something in."""

    def on_unavailable(unavailable: BooksUnavailable) -> None:
        alerts.tell(Loudness.PAGE, "books", words.books_unavailable(unavailable))

    try:
        journal = Journal(folder / "journal")
    except OSError as error:
        raise ConfigurationWrong("storage.folder", f"has no room ({type(error).__name__})") from error
    books = JournaledBooks(ledger, journal, Ballast(folder / "ballast"), clock=clock, on_unavailable=on_unavailable)
    if carried := await books.replay():
        log.info("%d records carried over from the journal", carried)
    stack.push_async_callback(books.close)
    return books


def _sources(settings: Settings, folder: Path) -> Sources:
    storage = settings.storage
    life, cap = timedelta(days=storage.source_days), storage.source_megabytes * 1024 * 1024
    try:
        return Sources(folder, life=life, cap=cap)
    except OSError as error:
        raise ConfigurationWrong("storage.folder", f"cannot be used ({type(error).__name__})") from error


async def _whole(source: Source, address: str) -> bytes:
    async with aclosing(source.fetch(address)) as pieces:
        return b"".join([piece async for piece in pieces])


def _gate(settings: Settings, clock: Callable[[], datetime], alerts: Alerts) -> Gate:
    def on_open(circuit: Circuit, until: datetime | None) -> None:
        passing = circuit in (Circuit.MAINTENANCE, Circuit.FAILURES)  # it may well end by itself
        loudness = Loudness.WARN if passing else Loudness.PAGE
        alerts.tell(loudness, f"circuit:{circuit}", words.opened(circuit, until))

    return Gate(
        concurrency=settings.pikzels.concurrency,
        length=settings.queue.length,
        per_member=settings.queue.per_member,
        clock=clock,
        on_open=on_open,
    )


def _provider(settings: Settings, clock: Callable[[], datetime]) -> Pikzels:
    return Pikzels(
        api_key=settings.pikzels.api_key.get_secret_value(),
        base_url=settings.pikzels.base_url,
        timeout=settings.pikzels.timeout,
        clock=clock,
    )


def _costs(settings: Settings) -> dict[Model, int]:
    return {model: getattr(settings.quota.costs, model.value) for model in Model}


async def _serve_health(stack: AsyncExitStack, settings: Settings, counters: metrics.Metrics, app: App) -> None:
    if settings.health.port is None:
        return

    def healthy() -> dict[str, bool]:
        return {
            "discord": app.client.is_ready() and not app.client.is_closed(),
            "provider": not app.gate.open_circuits,
        }

    try:
        port = await stack.enter_async_context(
            metrics.served(counters, host=settings.health.host, port=settings.health.port, healthy=healthy)
        )
    except OSError as error:
        raise ConfigurationWrong("health.port", f"cannot be listened on ({type(error).__name__})") from error
    log.info("health and metrics on http://%s:%d", settings.health.host, port)
