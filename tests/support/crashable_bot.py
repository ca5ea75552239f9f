"""The life of one bot with real files and a world outside that is a file of effects: whatever is killed, they stay."""

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

from bot.domain.errors import (
    DeliveryDelayed,
    MessageDeleted,
    OutcomeUnknown,
    OutputUnreachable,
    ProviderRefused,
    ProviderUnreachable,
    Undeliverable,
)
from bot.domain.models import AlertLevel, Model, Output
from bot.domain.quota import QuotaRules
from bot.images.output_spool import OutputSpool
from bot.jobs import use_case
from bot.jobs.circuits import Circuits
from bot.jobs.notices import Notices
from bot.jobs.ports import Ports
from bot.jobs.queue import RequestQueue
from bot.storage import database
from bot.storage.journal import DiskReserve, Journal
from bot.storage.journaled_ledger import JournaledLedger
from bot.storage.ledger import Ledger
from bot.text import failures
from sandbox.failpoints import wrapped
from tests.support.factories import request, requester

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from bot.domain.errors import JobFailed
    from bot.domain.models import Job, Picture, Status, ThumbnailRequest
    from bot.jobs.use_case import UseCase

HASTE = 5000  # seconds of the bot in one of ours
MEMBER = 1
JOBS = 3
KINDS = (
    "delivered",
    "delivered",
    "delivered",
    "refused",
    "outcome unknown",
    "unreachable once",
    "slowed down once",
    "answer lost",
    "answer refused",
    "download breaks once",
    "unusable",
    "delayed once",
    "delivery's answer lost once",
    "told late",
    "every way closed",
    "message gone",
)
SHOWABLE = frozenset(KINDS) - {"refused", "outcome unknown", "answer lost", "answer refused", "unusable", "told late"}
UNREACHABLE = ("every way closed", "message gone")  # no words of an end are taken there
_FAILING = {
    "refused": ProviderRefused("GENERATION_REJECTED", 400),
    "told late": ProviderRefused("CONTENT_POLICY", 400),
    "outcome unknown": OutcomeUnknown("reset"),
}
_FAILING_ONCE = {
    "unreachable once": ProviderUnreachable(),
    "slowed down once": ProviderRefused("TOO_MANY_REQUESTS", 429, retry_after=timedelta(seconds=1)),
}


class Hasty(selectors.SelectSelector):
    """Waits a small part of what it is asked to, to the microsecond."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(None if timeout is None else timeout / HASTE)


class Loop(asyncio.SelectorEventLoop):
    """Its clock runs as fast as its waiting."""

    def __init__(self) -> None:
        super().__init__(Hasty())

    def time(self) -> float:
        return super().time() * HASTE


class Effects:
    """Everything that was done outside, one line each; lines of a killed process stay."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.done = effects_in(path)

    def add(self, number: int, what: str) -> None:
        os.write(self._file, f"{json.dumps([number, what])}\n".encode())
        self.done[number].append(what)

    def count(self, number: int, what: str) -> int:
        return self.done[number].count(what)


def effects_in(path: Path) -> defaultdict[int, list[str]]:
    """What was done, by request."""
    done: defaultdict[int, list[str]] = defaultdict(list)
    for line in path.read_text().splitlines():
        number, what = json.loads(line)
        done[number].append(what)
    return done


@dataclass(frozen=True, slots=True)
class Order:
    """One life: where, the kinds of the requests, how many it is asked for, and the step it kills itself at, or 0."""

    folder: Path
    kinds: tuple[str, ...]
    asks: int
    fuse: int
    picture: bytes


class Fuse:
    """Counts steps, and ends the process at one of them."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def __call__(self, _: str) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class Outside:
    """Provider, source, delivery and operator in one: each does what the kind of its request says."""

    def __init__(self, order: Order, step: Fuse, chance: random.Random) -> None:
        self._order = order
        self._step = step
        self._chance = chance
        self.effects = Effects(order.folder / "effects")

    def _kind(self, number: int) -> str:
        return self._order.kinds[number]

    async def _do(self, number: int, what: str) -> None:
        """An effect; the process may die before it, after it, and while it waits for the answer."""
        await asyncio.sleep(self._chance.random())
        self._step(what)
        self.effects.add(number, what)
        self._step(what)
        await asyncio.sleep(self._chance.random())

    # --- the provider ------------------------------------------------------------------------------------------------

    async def create(self, asked: ThumbnailRequest) -> Output:
        number = _number(asked.image_url)
        kind = self._kind(number)
        failure = _FAILING.get(kind)
        if kind in _FAILING_ONCE and not self.effects.count(number, f"failed: {kind}"):
            failure = _FAILING_ONCE[kind]
        if not isinstance(failure, ProviderUnreachable):
            await self._do(number, "called")
        if failure is not None:
            await self._fail(number, failure)
        await self._do(number, "made")
        return Output(f"https://out.example/{number}", f"req-{number}")

    async def _fail(self, number: int, failure: JobFailed) -> NoReturn:
        await self._do(number, f"failed: {self._kind(number)}")
        raise failure

    async def fetch(self, address: str) -> AsyncGenerator[bytes, None]:
        number = _number(address)
        yield self._order.picture[:100]
        await self._do(number, "fetched")
        if self._kind(number) == "download breaks once" and self.effects.count(number, "fetched") == 1:
            raise OutputUnreachable("broke off")
        yield b"" if self._kind(number) == "unusable" else self._order.picture[100:]

    # --- Discord -----------------------------------------------------------------------------------------------------

    async def answer(self, job: Job, _: Status) -> int:
        number = _number(job.request.image_url)
        if self._kind(number) == "answer refused":
            raise ConnectionError("Discord")
        await self._do(number, "answered")
        if self._kind(number) == "answer lost":
            raise ConnectionError("Discord's answer")
        return number

    async def deliver(self, job: Job, picture: Picture) -> int:
        number = _number(job.request.image_url)
        if picture.path.read_bytes() != self._order.picture:
            raise AssertionError("not the picture that was made")
        match self._kind(number):
            case "every way closed":
                raise Undeliverable("403")
            case "message gone":
                raise MessageDeleted("10008")
            case "delayed once" if not self.effects.count(number, "delayed"):
                await self._do(number, "delayed")
                raise DeliveryDelayed("503")
        await self._do(number, "shown")
        if self._kind(number) == "delivery's answer lost once" and self.effects.count(number, "shown") == 1:
            raise DeliveryDelayed("lost")
        return number

    async def hand_over(self, job: Job, _: Picture) -> int:
        number = _number(job.request.image_url)
        await self._do(number, "shown")
        return 10**6 + number

    async def notify(self, job: Job) -> None:
        text = failures.outcome(job)
        number = _number(job.request.image_url)
        if self._kind(number) == "told late" and not self.effects.count(number, "told late"):
            await self._do(number, "told late")
            raise DeliveryDelayed("503")
        if self._kind(number) in UNREACHABLE:
            raise Undeliverable("403")
        await self._do(number, "told free" if "You were not charged." in text else "told")

    async def show_progress(self, job: Job, status: Status) -> None:
        """Nobody looks."""

    async def add_again_reaction(self, job: Job, message_id: int) -> None:
        await self._do(_number(job.request.image_url), f"invited on {message_id}")


class Alerts:
    def send(self, level: AlertLevel, key: str, text: str) -> None:
        """Nobody listens."""


class Metrics:
    def started(self) -> None:
        """Nobody reads them."""

    def ended(self, outcome: str) -> None:
        """Nobody reads them."""


class SourceImages:
    """The pictures jobs are made from lie where they are."""

    def check(self, asked: ThumbnailRequest) -> None:
        """They are there."""

    async def prepare(self, asked: ThumbnailRequest) -> ThumbnailRequest:
        return asked

    async def keep(self, job: Job) -> None:
        """Nobody makes another."""


def _number(address: str) -> int:
    return int(address.rpartition("/")[2])


def _now() -> datetime:
    return datetime.now(UTC)


async def live(order: Order, chance: random.Random) -> None:
    """One life: recover, ask if so ordered, come to rest, hand over what is kept."""
    step = Fuse(order.fuse)
    outside = Outside(order, step, chance)
    async with database.opened(order.folder / "bot.sqlite3") as store:
        ledger = Ledger(store, spool=order.folder / "spool")
        journal = Journal(order.folder / "journal", size=4096)
        reserve = DiskReserve(order.folder / "ballast", size=4096)
        repository = JournaledLedger(ledger, journal, reserve, clock=_now, on_unavailable=lambda _: None)
        await repository.replay()
        ports = Ports(
            queue=RequestQueue(Circuits(clock=_now), concurrency=2, limit=10, per_member=10),
            repository=repository,
            sources=SourceImages(),
            provider=outside,
            downloader=outside,
            spool=OutputSpool(order.folder / "spool"),
            messenger=outside,
            notices=Notices(Alerts()),
            metrics=Metrics(),
            clock=_now,
        )
        bot = use_case.assemble(wrapped(ports, step), rules=QuotaRules(100, dict.fromkeys(Model, 2)))
        await bot.recovery.recover()
        await asyncio.gather(*(_ask(bot, outside, number) for number in range(order.asks)))
        await bot.recovery.idle(HASTE * 10)
        await bot.outcomes.claim(MEMBER, outside.hand_over)
        await bot.recovery.close(grace=1.0)
        await repository.close()


async def _ask(bot: UseCase, outside: Outside, number: int) -> None:
    what = replace(request(), image_url=f"https://cdn.example/{number}")
    with suppress(ConnectionError):
        await bot.lifecycle.accept(what, requester(MEMBER, interaction_id=10**18 + number, at=_now()), outside.answer)
