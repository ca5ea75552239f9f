"""The world around a bot on virtual time: what it knows of every request, how it fails, and what it never forgives."""

from __future__ import annotations

import asyncio
import math
import random
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, auto
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple

from tests.support.factories import NOON

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from bot.domain.errors import JobFailed
    from bot.domain.models import Requester, ThumbnailRequest
    from tests.support.virtual_clock import Loop

HOUR = 3600.0
DAY = 24 * HOUR

# For each way to fail: how likely a day has it at all, and between what chances of each occasion it lies then.
RATES: Mapping[str, tuple[float, float, float]] = {
    "answer lost": (0.4, 0.01, 0.3),
    "answer refused": (0.4, 0.01, 0.2),
    "books fail": (0.4, 0.002, 0.03),
    "call fails": (0.6, 0.02, 0.5),
    "calls off until a restart": (0.1, 0.005, 0.02),
    "claim for everyone": (0.3, 0.1, 0.5),
    "clock jumps": (0.3, 0.05, 0.5),
    "commit slow": (0.3, 0.01, 0.2),
    "delivery delayed": (0.5, 0.02, 0.5),
    "delivery's answer lost": (0.4, 0.02, 0.3),
    "download breaks": (0.5, 0.02, 0.5),
    "file lost": (0.2, 0.1, 0.5),
    "journal fails": (0.2, 0.1, 0.5),
    "memory full": (0.3, 0.1, 0.5),
    "message deleted": (0.3, 0.02, 0.2),
    "no way of delivery": (0.3, 0.02, 0.2),
    "only a new message": (0.3, 0.02, 0.2),
    "output gone": (0.2, 0.02, 0.1),
    "picture unusable": (0.3, 0.02, 0.2),
    "sent twice": (0.5, 0.02, 0.3),
    "slow": (0.4, 0.02, 0.3),
    "source expired": (0.2, 0.02, 0.1),
    "spool error": (0.3, 0.02, 0.3),
    "stuck for a day": (0.1, 0.01, 0.03),
    "taken back": (0.4, 0.1, 0.8),
    "unforeseen": (0.2, 0.01, 0.05),
}
# For each thing that can be down: how likely a day has it at all, at most how often, and how long in seconds.
OUTAGES: Mapping[str, tuple[float, int, float, float]] = {
    "discord": (0.4, 4, 5, 4 * HOUR),
    "gateway": (0.4, 6, 5, HOUR),
    "maintenance": (0.3, 3, 60, 3 * HOUR),
    "provider failing": (0.3, 3, 10, HOUR),
    "provider unreachable": (0.3, 3, 10, HOUR),
    "source": (0.3, 3, 10, 8 * HOUR),
    "spool full": (0.3, 3, 10, 2 * HOUR),
}
BAD, GOOD = b"no picture", b"a picture"  # what an output's address may give
_SHOWN = 10  # broken promises of a day: the first tell most
LONG_OUTAGE = 26 * HOUR  # longer than anyone is told, and than any output is kept
_LONG_ONES = {"discord": 0.002, "source": 0.002}


class Event(NamedTuple):
    """One effect on the outside; `number` is the request's, 0 for none."""

    at: float
    what: str
    number: int
    detail: str


class Way(Enum):
    """How a request's message can be reached."""

    OPEN = auto()
    ANEW = auto()  # no edit works: a new message does
    CLOSED = auto()
    DELETED = auto()
    STUCK = auto()  # always later, for more than a day


@dataclass(slots=True, eq=False)
class Asked:
    """One request of a member, and everything the outside has seen of it."""

    number: int
    request: ThumbnailRequest
    requester: Requester
    way: Way
    closes_at: float  # seconds from which on `way` holds
    calls: list[JobFailed | str] = field(default_factory=list)  # how each ended, as far as it did
    made_at: float | None = None  # when the provider had the picture
    message: int | None = None  # the public answer
    shown: bool = False  # the picture was to be seen
    confirmed_at: float | None = None  # the bot was told so
    excused: bool = False  # the bot ended before it could write that down
    charged: bool = False
    released: bool = False
    handed_over: bool = False  # by a claim
    taken_back: bool = False  # while it waited in line
    told: int = 0


class World:
    """Survives every life of the bot: the disk, the provider, Discord and the members."""

    def __init__(self, seed: int, loop: Loop, *, journal: Path) -> None:
        self.loop = loop
        self.chance = random.Random(seed)  # noqa: S311 - a course of events, not a secret
        self.raw = _database()
        self.journal = journal
        self.events: list[Event] = []
        self.counts: Counter[str] = Counter()
        self.broken: list[str] = []
        self.asked: list[Asked] = []
        self.unsettled: list[Asked] = []  # confirmed, and not charged when last looked at
        self.files: dict[str, datetime] = {}  # the spool: when each was written
        self.skew = 0.0  # seconds our clock is ahead
        self.calm = False
        self.rates = {name: self._rate(*odds) for name, odds in RATES.items()}
        self.down: Counter[str] = Counter()
        self.lasting = False  # something was down for longer than anyone is told
        self.books_down_until = self.journal_failed_at = -math.inf
        self.room = 0  # writes that a full disk takes nevertheless
        for what, odds in OUTAGES.items():
            self._plan_outages(what, *odds)

    # --- faults ------------------------------------------------------------------------------------------------------

    def _rate(self, odds: float, low: float, high: float) -> float:
        return self._between(low, high) if self.chance.random() < odds else 0.0

    def _between(self, low: float, high: float) -> float:
        """Somewhere between, every order of magnitude as likely."""
        return low * math.pow(high / low, self.chance.random())

    def _plan_outages(self, what: str, odds: float, times: int, low: float, high: float) -> None:
        if self.chance.random() < odds:
            for _ in range(self.chance.randint(1, times)):
                self.loop.call_at(self.chance.uniform(0, DAY), self._begin, what, self._between(low, high))
        if self.chance.random() < _LONG_ONES.get(what, 0):
            self.lasting = True
            self.loop.call_at(self.chance.uniform(0, DAY), self._begin, what, LONG_OUTAGE)

    def maybe_lose_books(self) -> None:
        """While they are written to: that is when it matters."""
        if self.happens("books fail"):
            self._begin(self.chance.choice(("books full", "books full", "books gone")), self._between(1, 1200))

    def _begin(self, what: str, seconds: float) -> None:
        if self.calm:
            return
        self.note(f"{what} down")
        self.counts[f"{what} down"] += 1
        self.down[what] += 1
        self.loop.call_later(seconds, self._end, what)
        if what.startswith("books"):
            self.books_down_until = max(self.books_down_until, self.loop.time() + seconds)

    def _end(self, what: str) -> None:
        self.down[what] -= 1

    def is_down(self, what: str) -> bool:
        return self.down[what] > 0 and not self.calm

    def happens(self, what: str) -> bool:
        """Whether this way to fail, which the day may not have at all, is met on this occasion."""
        rate = self.rates[what]
        if not rate or self.calm or self.chance.random() >= rate:
            return False
        self.counts[what] += 1
        return True

    def seconds(self, usual: float) -> float:
        """How long something takes that usually takes so long."""
        if self.happens("slow"):
            usual *= 20
        return usual * self.chance.uniform(0.2, 2)

    # --- what is known -----------------------------------------------------------------------------------------------

    def clock(self) -> datetime:
        return NOON + timedelta(seconds=self.loop.time() + self.skew)

    def note(self, what: str, asked: Asked | None = None, detail: str = "") -> None:
        self.events.append(Event(self.loop.time(), what, asked.number if asked else 0, detail))

    def forbidden(self, what: str, asked: Asked | None = None) -> None:
        """A promise was broken."""
        self.note("BROKEN", asked, what)
        if len(self.broken) >= _SHOWN:
            return
        at = timedelta(seconds=round(self.loop.time(), 3))
        self.broken.append(f"{what} (request {asked.number if asked else '-'}, after {at})")

    def by_address(self, address: str) -> Asked:
        return self.asked[int(address.rpartition("/")[2]) - 1]

    def way_of(self, asked: Asked) -> Way:
        return asked.way if self.loop.time() >= asked.closes_at else Way.OPEN

    def drawn_way(self) -> Way:
        if self.happens("message deleted"):
            return Way.DELETED
        if self.happens("no way of delivery"):
            return Way.CLOSED
        if self.happens("only a new message"):
            return Way.ANEW
        return Way.STUCK if self.happens("stuck for a day") else Way.OPEN


def _database() -> sqlite3.Connection:
    raw = sqlite3.connect(":memory:", isolation_level=None)
    raw.row_factory = sqlite3.Row
    raw.executescript(_schema())
    return raw


@cache
def _schema() -> str:
    files = sorted(
        resources.files("bot.storage").joinpath("migrations", "sqlite").iterdir(), key=lambda file: file.name
    )
    scripts = [file.read_text("utf-8") for file in files if file.name.endswith(".sql")]
    return "\n".join(["PRAGMA foreign_keys = ON;", *scripts])


class Died(BaseException):
    """The process is gone. Nothing that catches this has any effect any more."""


class Life:
    """One process: when it is dead, nothing of it reaches the outside."""

    def __init__(self, world: World, *, fuse: int) -> None:
        self.world = world
        self.dead = False
        self.over: asyncio.Future[str] = world.loop.create_future()
        self._fuse = fuse  # so many steps from now it dies

    def reach(self, point: str) -> None:
        """One step between two effects; here the process may end."""
        if self.dead:
            raise Died
        self._fuse -= 1
        if not self._fuse and not self.world.calm:
            self.die(point)
            raise Died

    async def take(self, seconds: float, point: str) -> None:
        await asyncio.sleep(seconds)
        self.reach(point)

    def die(self, where: str) -> None:
        if not self.dead:
            self.dead = True
            self.world.note("dies", None, where)
            self.world.counts["crashes"] += 1
            self.end("died")

    def end(self, how: str) -> None:
        if not self.over.done():
            self.over.set_result(how)
