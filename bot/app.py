"""The composition root: opens everything in order and closes it in reverse; the only file that names the adapters."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from bot import monitoring, rules
from bot.discord_io import gateway_state, log_channel
from bot.discord_io.client import Client, Services
from bot.discord_io.delivery_methods import DeliveryMethods
from bot.discord_io.gateway_watch import GatewayWatch
from bot.discord_io.identify_limit import IdentifyLimit
from bot.discord_io.log_channel import LogChannels
from bot.discord_io.messenger import Messenger
from bot.discord_io.sharded_client import ShardedClient
from bot.domain.errors import BackupFailed, InvalidConfiguration, StorageUnavailable
from bot.domain.models import AGAIN, Circuit
from bot.domain.server_rules import Preferences, PresetKind
from bot.images import downloads, usage_chart
from bot.images.downloads import ImageDownloader
from bot.images.output_spool import OutputSpool
from bot.images.smaller_copies import SmallerCopies
from bot.images.source_images import SourceImages
from bot.images.source_store import SourceStore
from bot.jobs import use_case
from bot.jobs.administration import Administration
from bot.jobs.admission import Admission
from bot.jobs.choices import Choices
from bot.jobs.circuits import Circuits
from bot.jobs.notices import Notices
from bot.jobs.operations import Operations
from bot.jobs.personal_data import PersonalData
from bot.jobs.ports import Ports
from bot.jobs.queue import RequestQueue
from bot.jobs.refill import Refill
from bot.jobs.results import Results
from bot.ops.alerts import Alerts
from bot.ops.logs import Redactor
from bot.ops.metrics import Metrics
from bot.pikzels.client import Pikzels
from bot.storage import stores
from bot.text import health as text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from bot.config import Settings
    from bot.domain import protocols
    from bot.jobs.use_case import UseCase
    from bot.storage.stores import Stores

log = logging.getLogger(__name__)


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class App:
    """Everything open. `client` is the connection to Discord of the moment; a broken one is replaced."""

    client: Client
    use_case: UseCase
    queue: RequestQueue
    storage: Stores
    source_store: SourceStore
    spool: OutputSpool
    notices: Notices
    gateway_watch: GatewayWatch

    async def ready(self) -> dict[str, str | None]:
        """For each part, why members can't use the bot because of it, or None."""
        return {
            "gateway": text.gateway(gateway_state.read(self.client)),
            "database": text.database(await self.storage.repository.problem()),
            "circuits": text.circuits(self.queue.circuits.open),
        }

    def backup_age(self) -> float:
        """The seconds since the newest backup; NaN without one."""
        age = self.storage.backups.age()
        return math.nan if age is None else age.total_seconds()

    async def remind(self) -> None:
        """Alert the operator again, once a day, to what still lasts."""
        self.notices.remind(circuits=self.queue.circuits.open, unavailable=await self.storage.repository.problem())
        if self.storage.backups.is_overdue:
            self._report_backup("it is overdue")

    async def sweep(self) -> None:
        """Delete what has been kept long enough."""
        if deleted := await self.storage.retention.sweep(now=self.client.services.clock()):
            log.info("%d old jobs deleted", deleted)
        await self.storage.forget_replaced(now=self.client.services.clock())
        await self.storage.personal_data.compact()
        await self.storage.personal_data.erase_copies()

    async def check(self) -> None:
        """Check a large database that the start did not wait for. From damage on, no new request is accepted."""
        database = self.storage.database
        was_known = database.damage is not None
        await database.check()
        if database.damage is not None and not was_known:
            self.notices.storage_unavailable(StorageUnavailable(database.damage, damaged=True))

    async def back_up_now(self) -> dict[str, str | int]:
        """Make a backup for the command line; returns its path and size, or the problem."""
        try:
            made = await self.storage.backups.make()
        except BackupFailed as failed:
            return {"problem": failed.problem}
        return {"path": str(made.path.absolute()), "size": made.size}

    async def back_up(self) -> None:
        """Make the backup that is due, if anything has changed; tells the operator if that fails."""
        try:
            await self.storage.backups.make_if_changed()
        except BackupFailed as failed:
            self._report_backup(failed.problem)
        else:
            self.notices.backup_made()

    def _report_backup(self, problem: str) -> None:
        newest = self.storage.backups.newest()
        self.notices.backup_failed(problem, last=None if newest is None else newest.at)

    async def note_servers(self) -> None:
        """Once a day, delete what is stored for servers that the bot has left. If Discord does not list those that it
        is in, that raises, and nothing is deleted.
        """
        now = self.client.services.clock()
        if await self.storage.retention.is_due(now=now):
            purged = await self.storage.retention.note_servers(await self.client.server_ids(), now=now)
            log.info("rules of %d servers deleted, which the bot has left", purged)

    async def disconnect(self) -> None:
        await asyncio.shield(self.client.close())  # a close that is canceled would end the next one, too

    async def renew(self, *, shards: int = 1) -> Client:
        """Close the client and put a fresh one in its place: discord.py's cannot be started twice. One without shards
        asks Discord first whether there should be some.
        """
        await self.disconnect()
        services, trace = self.client.services, self.client.http.http_trace
        if shards == 1:
            self.client = Client(services, http_trace=trace)
        else:
            self.client = ShardedClient(services, http_trace=trace, shards=shards)
        return self.client


def unwrapped(ports: Ports) -> Ports:
    return ports


@asynccontextmanager
async def opened(
    settings: Settings,
    *,
    clock: Callable[[], datetime] = utc_now,
    seconds: Callable[[], float] = time.monotonic,
    cdn: protocols.ImageDownloader | None = None,
    wrap: Callable[[Ports], Ports] = unwrapped,
) -> AsyncIterator[App]:
    """Open storage, provider and client; on the way out finish what is in progress and close in reverse.

    `seconds` measures how long Discord is disconnected. `cdn` fetches what Discord keeps, instead of a downloader of
    our own; `wrap` may put something around the ports of the use case. Raises `DatabaseUnusable` before anything is
    sent to anyone, and `InvalidConfiguration` for an unusable folder.
    """
    async with AsyncExitStack() as stack:
        folder, spool, source_store = _folders(settings)
        quota = rules.quota(settings)
        metrics = Metrics(quota.prices)
        notices = Notices(await stack.enter_async_context(_alerts(settings, clock)))
        storage = await stack.enter_async_context(
            stores.opened(
                folder,
                spool=spool.folder,
                clock=clock,
                on_unavailable=notices.storage_unavailable,
                retention=rules.retention(settings),
                backup=rules.backup(settings),
                backup_folder=settings.backup.folder,
            )
        )
        if storage.database.restored:
            notices.older_database()
        loopback = settings.pikzels.on_this_machine
        provider = await stack.enter_async_context(_provider(settings, clock))
        downloader = await stack.enter_async_context(ImageDownloader(loopback=loopback))
        if cdn is None:
            cdn = await stack.enter_async_context(ImageDownloader(loopback=loopback))
        current: list[App] = []
        seed = AGAIN if settings.results.seed_reaction else None
        methods = DeliveryMethods(client=lambda: current[0].client, clock=clock)
        messenger = Messenger(methods, clock=clock, seed=seed)
        refill = Refill(storage.spending, clock=clock, tell=messenger.tell if settings.budget.notify_members else None)
        queue = _queue(settings, clock, notices, refill, metrics)
        if await refill.was_empty():
            queue.circuits.restore(Circuit.BALANCE)
        log_channels = LogChannels(
            lambda channel_id, text: log_channel.post(current[0].client, channel_id, text),
            rules=storage.policies.server_rules,
            clock=clock,
        )
        ports = Ports(
            queue=queue,
            repository=storage.repository,
            sources=SourceImages(
                downloader=cdn,
                store=source_store,
                records=storage.history,
                clock=clock,
                max_pixels=settings.pikzels.max_pixels,
            ),
            provider=monitoring.measured(provider, settings, metrics),
            downloader=downloader,
            spool=spool,
            messenger=messenger,
            notices=notices,
            refill=refill,
            metrics=metrics,
            job_log=log_channels,
            clock=clock,
        )
        wrapped = wrap(ports)
        admission = Admission(
            quota=quota,
            access=rules.access(settings),
            policies=storage.policies,
            repository=wrapped.repository,
            clock=clock,
        )
        jobs = use_case.assemble(
            wrapped,
            admission=admission,
            retry_server_errors=settings.pikzels.retry_server_errors,
            restored=storage.database.restored,
        )
        operations = Operations(
            admission=admission,
            queue=queue,
            policies=storage.policies,
            spending=storage.spending,
            values=storage.repository,
            clock=clock,
            newest_backup=storage.backups.newest,
        )
        await operations.restore()
        personal_data = PersonalData(
            store=storage.personal_data,
            repository=storage.repository,
            outcomes=jobs.outcomes,
            tasks=jobs.tasks,
            sources=source_store,
            spool=spool,
            clock=clock,
        )
        await _delete_again(personal_data)
        services = Services(
            admission=admission,
            policies=storage.policies,
            operations=operations,
            operators=settings.operator.users,
            operator_server=settings.operator.server,
            choices=_choices(settings, storage.policies),
            administration=Administration(
                policies=storage.policies, usage=storage.usage, quota=admission.quota, clock=clock
            ),
            lifecycle=jobs.lifecycle,
            outcomes=jobs.outcomes,
            recovery=jobs.recovery,
            results=Results(repository=storage.history, job=storage.repository.job, clock=clock),
            personal_data=personal_data,
            retention=rules.retention(settings),
            find_shared=messenger.find_shared,
            draw_usage=usage_chart.draw,
            fetch_image=partial(downloads.fetch_whole, cdn),
            smaller_copies=SmallerCopies(downloader=cdn, store=source_store, max_pixels=settings.pikzels.max_pixels),
            notices=notices,
            values=storage.repository,
            identify_limit=IdentifyLimit(storage.repository, clock=clock),
            clock=clock,
            add_again_reaction=messenger.add_again_reaction,
            count_rejection=metrics.rejected,
            count_connection=metrics.connected,
            default_model=settings.defaults.model,
            default_format=settings.defaults.format,
            costs=admission.quota.costs,
            max_pixels=settings.pikzels.max_pixels,
        )
        watch = GatewayWatch(lambda: gateway_state.read(current[0].client), notices, clock=clock, seconds=seconds)
        client = Client(services, http_trace=monitoring.trace(settings, metrics))
        app = App(client, jobs, queue, storage, source_store, spool, notices, watch)
        current.append(app)
        stack.push_async_callback(app.disconnect)
        stack.push_async_callback(messenger.close)
        stack.push_async_callback(refill.close)
        stack.push_async_callback(log_channels.close)
        monitoring.start(stack, watch.run(), name="gateway-watch")
        await monitoring.serve_health(stack, settings, metrics, app)
        stack.push_async_callback(jobs.recovery.close, grace=settings.shutdown.grace)
        yield app


async def _delete_again(personal_data: PersonalData) -> None:
    """Before anything goes on: a restored database knows people who have had their data deleted since."""
    try:
        if deleted := await personal_data.delete_again():
            log.warning("the database was restored: the data of %d people was deleted again", deleted)
    except (StorageUnavailable, OSError) as error:  # on a full disk, the bot goes online all the same
        log.error("deletions could not be repeated; the next start tries again: %s", type(error).__name__)  # noqa: TRY400


def _folders(settings: Settings) -> tuple[Path, OutputSpool, SourceStore]:
    storage = settings.storage
    life, cap = timedelta(days=storage.source_days), storage.source_megabytes * 1024 * 1024
    try:
        storage.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        spool = OutputSpool(storage.folder / "spool")
        return storage.folder, spool, SourceStore(storage.folder / "sources", life=life, cap=cap)
    except OSError as error:
        raise InvalidConfiguration("storage.folder", f"cannot be used ({type(error).__name__})") from error


def _alerts(settings: Settings, clock: Callable[[], datetime]) -> Alerts:
    webhook = settings.alerts.webhook
    return Alerts(
        webhook=None if webhook is None else webhook.get_secret_value(),
        clock=clock,
        redact=Redactor(settings.secrets()),
    )


def _queue(
    settings: Settings, clock: Callable[[], datetime], notices: Notices, refill: Refill, metrics: Metrics
) -> RequestQueue:
    def opened(circuit: Circuit, until: datetime | None) -> None:
        notices.circuit_opened(circuit, until, waiting=queue.members_waiting)

    queue = RequestQueue(
        Circuits(clock=clock, on_open=opened, on_close=refill.closed),
        concurrency=settings.pikzels.concurrency,
        limit=settings.queue.length,
        per_member=settings.queue.per_member,
        on_turn=metrics.waited,
    )
    return queue


def _provider(settings: Settings, clock: Callable[[], datetime]) -> Pikzels:
    return Pikzels(
        api_key=settings.pikzels.api_key.get_secret_value(),
        base_url=settings.pikzels.base_url,
        timeout=settings.pikzels.timeout,
        clock=clock,
    )


def _choices(settings: Settings, policies: protocols.PolicyStore) -> Choices:
    defaults = Preferences(settings.defaults.model, settings.defaults.format, private=False)
    presets = {PresetKind.PERSONA: settings.personas, PresetKind.STYLE: settings.styles}
    return Choices(policies=policies, defaults=defaults, presets=presets)
