"""One bot process with real files. A file records every external effect and survives when the process is killed."""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import signal
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NoReturn

from bot.domain import image_problems
from bot.domain.errors import (
    DeliveryDelayed,
    MessageDeleted,
    OutcomeUnknown,
    OutputUnreachable,
    ProviderRefused,
    ProviderUnreachable,
    Undeliverable,
)
from bot.domain.models import DEFAULT_UPLOAD_LIMIT, AlertLevel, Claim, Model, Output
from bot.images.output_spool import OutputSpool
from bot.jobs import use_case
from bot.jobs.circuits import Circuits
from bot.jobs.notices import Notices
from bot.jobs.ports import Ports
from bot.jobs.queue import RequestQueue
from bot.storage import opening
from bot.storage.journal import DiskReserve, Journal
from bot.storage.journaled_ledger import JournaledLedger
from bot.storage.ledger import Ledger
from bot.text import failures
from sandbox.failpoints import wrapped
from tests.support.admissions import NoJobLog, admission, daily, no_refill
from tests.support.factories import request, requester

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from bot.domain.errors import InvalidOption, JobFailed
    from bot.domain.models import Job, Picture, Status, ThumbnailRequest
    from bot.jobs.use_case import UseCase

SPEEDUP = 5000  # seconds on the bot's clock per real second
MEMBER = 1
JOBS = 3
KINDS = (
    "delivered",
    "delivered",
    "delivered",
    "refused",
    "outcome unknown",
    "unreachable once",
    "rate limited once",
    "reply lost",
    "reply refused",
    "download breaks once",
    "unusable",
    "delayed once",
    "delivery response lost once",
    "notified late",
    "channel not writable",
    "message deleted",
    "bad image",
)
SHOWABLE = frozenset(KINDS) - {
    "refused",
    "outcome unknown",
    "reply lost",
    "reply refused",
    "unusable",
    "notified late",
    "bad image",
}
UNREACHABLE = ("channel not writable", "message deleted")  # the bot cannot post a final notice there
_FAILING = {
    "refused": ProviderRefused("GENERATION_REJECTED", 400),
    "notified late": ProviderRefused("CONTENT_POLICY", 400),
    "outcome unknown": OutcomeUnknown("reset"),
}
_FAILING_ONCE = {
    "unreachable once": ProviderUnreachable(),
    "rate limited once": ProviderRefused("TOO_MANY_REQUESTS", 429, retry_after=timedelta(seconds=1)),
}


class FastSelector(selectors.SelectSelector):
    """Divides every wait by `SPEEDUP`, with microsecond precision."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(None if timeout is None else timeout / SPEEDUP)


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose clock runs `SPEEDUP` times as fast as real time."""

    def __init__(self) -> None:
        super().__init__(FastSelector())

    def time(self) -> float:
        return super().time() * SPEEDUP


class Effects:
    """Records each external effect as one line of a file. The lines survive when the process is killed."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.done = effects_in(path)

    def add(self, number: int, what: str) -> None:
        os.write(self._file, f"{json.dumps([number, what])}\n".encode())
        self.done[number].append(what)

    def count(self, number: int, what: str) -> int:
        return self.done[number].count(what)


def effects_in(path: Path) -> defaultdict[int, list[str]]:
    """Read the recorded effects, grouped by request number."""
    done: defaultdict[int, list[str]] = defaultdict(list)
    for line in path.read_text().splitlines():
        number, what = json.loads(line)
        done[number].append(what)
    return done


@dataclass(frozen=True, slots=True)
class Scenario:
    """What one process does. It kills itself at step `crash_after`; 0 means never."""

    folder: Path
    kinds: tuple[str, ...]
    request_count: int
    crash_after: int
    picture: bytes


class CrashCounter:
    """Counts steps and kills the process at a given one."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def __call__(self, _: str) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class SimulatedServices:
    """Acts as the provider, the download server and Discord. The kind of each request decides what happens."""

    def __init__(self, scenario: Scenario, step: CrashCounter, chance: random.Random) -> None:
        self._scenario = scenario
        self._step = step
        self._chance = chance
        self.effects = Effects(scenario.folder / "effects")

    def kind(self, number: int) -> str:
        return self._scenario.kinds[number]

    async def _do(self, number: int, what: str) -> None:
        """Record an effect. The process may crash before it, after it, or while it waits for the response."""
        await asyncio.sleep(self._chance.random())
        self._step(what)
        self.effects.add(number, what)
        self._step(what)
        await asyncio.sleep(self._chance.random())

    # --- the provider ------------------------------------------------------------------------------------------------

    async def create(self, request: ThumbnailRequest) -> Output:
        number = _number(request.image_url)
        kind = self.kind(number)
        failure = _FAILING.get(kind)
        if kind in _FAILING_ONCE and not self.effects.count(number, f"failed: {kind}"):
            failure = _FAILING_ONCE[kind]
        if not isinstance(failure, ProviderUnreachable):
            await self._do(number, "called")
        if failure is not None:
            await self._fail(number, failure)
        await self._do(number, "generated")
        return Output(f"https://out.example/{number}", f"req-{number}")

    async def _fail(self, number: int, failure: JobFailed) -> NoReturn:
        await self._do(number, f"failed: {self.kind(number)}")
        raise failure

    async def fetch(self, address: str, **_: int | None) -> AsyncGenerator[bytes, None]:
        number = _number(address)
        yield self._scenario.picture[:100]
        await self._do(number, "fetched")
        if self.kind(number) == "download breaks once" and self.effects.count(number, "fetched") == 1:
            raise OutputUnreachable("connection closed")
        yield b"" if self.kind(number) == "unusable" else self._scenario.picture[100:]

    # --- Discord -----------------------------------------------------------------------------------------------------

    async def reply(self, job: Job, _: Status) -> int:
        number = _number(job.request.image_url)
        if self.kind(number) == "reply refused":
            raise ConnectionError("Discord")
        await self._do(number, "replied")
        if self.kind(number) == "reply lost":
            raise ConnectionError("Discord's response")
        return number

    async def deliver(self, job: Job, picture: Picture) -> int:
        number = _number(job.request.image_url)
        if picture.path.read_bytes() != self._scenario.picture:
            raise AssertionError("this is not the generated picture")
        match self.kind(number):
            case "channel not writable":
                raise Undeliverable("403")
            case "message deleted":
                raise MessageDeleted("10008")
            case "delayed once" if not self.effects.count(number, "delayed"):
                await self._do(number, "delayed")
                raise DeliveryDelayed("503")
        await self._do(number, "shown")
        if self.kind(number) == "delivery response lost once" and self.effects.count(number, "shown") == 1:
            raise DeliveryDelayed("lost")
        return number

    async def hand_over(self, job: Job, _: Picture) -> int:
        number = _number(job.request.image_url)
        await self._do(number, "shown")
        return 10**6 + number

    async def notify(self, job: Job) -> None:
        text = failures.outcome(job)
        number = _number(job.request.image_url)
        if self.kind(number) == "notified late" and not self.effects.count(number, "notified late"):
            await self._do(number, "notified late")
            raise DeliveryDelayed("503")
        if self.kind(number) in UNREACHABLE:
            raise Undeliverable("403")
        await self._do(number, "notified: not charged" if "You were not charged." in text else "notified")

    async def show_progress(self, job: Job, status: Status) -> None:
        """Do nothing. These tests do not check progress."""

    async def add_again_reaction(self, job: Job, message_id: int) -> None:
        await self._do(_number(job.request.image_url), f"reaction added to {message_id}")


class Alerts:
    def send(self, level: AlertLevel, key: str, text: str) -> None:
        """Do nothing. These tests do not check alerts."""

    def repeat(self, level: AlertLevel, key: str, text: str) -> None:
        """Do nothing. These tests do not check alerts."""

    def end(self, level: AlertLevel, key: str, text: str) -> None:
        """Do nothing. These tests do not check alerts."""


class Metrics:
    def held(self, job: Job) -> None:
        """Do nothing. These tests do not check metrics."""

    def started(self) -> None:
        """Do nothing. These tests do not check metrics."""

    def ended(self, outcome: str, job: Job) -> None:
        """Do nothing. These tests do not check metrics."""


class SourceImages:
    """Source images that are always available, unless they are bad."""

    def __init__(self, services: SimulatedServices) -> None:
        self._services = services

    def check(self, request: ThumbnailRequest) -> None:
        """Accept every image."""

    async def look(self, request: ThumbnailRequest) -> InvalidOption | None:
        bad = self._services.kind(_number(request.image_url)) == "bad image"
        return image_problems.unreadable("image") if bad else None

    async def prepare(self, request: ThumbnailRequest) -> ThumbnailRequest:
        return request

    async def keep(self, job: Job) -> None:
        """Do nothing. No test regenerates a job."""


def _number(address: str) -> int:
    return int(address.rpartition("/")[2])


def _now() -> datetime:
    return datetime.now(UTC)


async def run_process(scenario: Scenario, chance: random.Random) -> None:
    """Recover, send the requests, wait until the bot is idle, then claim any saved pictures."""
    step = CrashCounter(scenario.crash_after)
    services = SimulatedServices(scenario, step, chance)
    async with opening.opened(scenario.folder / "bot.sqlite3") as store:
        ledger = Ledger(store, spool=scenario.folder / "spool")
        journal = Journal(scenario.folder / "journal", size=4096)
        reserve = DiskReserve(scenario.folder / "reserve", size=4096)
        repository = JournaledLedger(ledger, journal, reserve, clock=_now, on_unavailable=lambda _: None)
        await repository.replay()
        ports = Ports(
            queue=RequestQueue(Circuits(clock=_now), concurrency=2, limit=10, per_member=10),
            repository=repository,
            sources=SourceImages(services),
            provider=services,
            downloader=services,
            spool=OutputSpool(scenario.folder / "spool"),
            messenger=services,
            notices=Notices(Alerts()),
            refill=no_refill(_now),
            metrics=Metrics(),
            job_log=NoJobLog(),
            clock=_now,
        )
        rules = admission(daily(100, dict.fromkeys(Model, 2)), repository, _now)
        bot = use_case.assemble(wrapped(ports, step), admission=rules)
        await bot.recovery.recover()
        await asyncio.gather(*(_send_request(bot, services, number) for number in range(scenario.request_count)))
        await bot.recovery.idle(SPEEDUP * 10)
        while (await bot.outcomes.claim(Claim(MEMBER, "token", DEFAULT_UPLOAD_LIMIT, _now()))).handed_over:
            pass
        await bot.recovery.close(grace=1.0)
        await repository.close()


async def _send_request(bot: UseCase, services: SimulatedServices, number: int) -> None:
    thumbnail = replace(request(), image_url=f"https://cdn.example/{number}")
    with suppress(ConnectionError):
        await bot.lifecycle.accept(
            thumbnail, requester(MEMBER, interaction_id=10**18 + number, at=_now()), services.reply
        )
