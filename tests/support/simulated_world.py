"""The world around a bot on virtual time. It tracks every request, injects faults and records violations."""

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

from bot.storage.pseudonyms import member_key
from tests.support.factories import NOON
from tests.support.inline_database import copied

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from bot.domain.errors import JobFailed
    from bot.domain.models import Requester, ThumbnailRequest
    from tests.support.virtual_clock import Loop

HOUR = 3600.0
DAY = 24 * HOUR

# For each fault: the chance that a day has it at all, then the range of its chance on each occasion.
# The order of the entries is the order of the random draws.
RATES: Mapping[str, tuple[float, float, float]] = {
    "reply lost": (0.4, 0.01, 0.3),
    "reply refused": (0.4, 0.01, 0.2),
    "database fails": (0.4, 0.002, 0.03),
    "call fails": (0.6, 0.02, 0.5),
    "calls rejected until a restart": (0.1, 0.005, 0.02),
    "claim for everyone": (0.3, 0.1, 0.5),
    "clock jumps": (0.3, 0.05, 0.5),
    "commit slow": (0.3, 0.01, 0.2),
    "delivery delayed": (0.5, 0.02, 0.5),
    "delivery response lost": (0.4, 0.02, 0.3),
    "download breaks": (0.5, 0.02, 0.5),
    "file lost": (0.2, 0.1, 0.5),
    "journal fails": (0.2, 0.1, 0.5),
    "memory full": (0.3, 0.1, 0.5),
    "message deleted": (0.3, 0.02, 0.2),
    "channel not writable": (0.3, 0.02, 0.2),
    "only a new message": (0.3, 0.02, 0.2),
    "output gone": (0.2, 0.02, 0.1),
    "picture unusable": (0.3, 0.02, 0.2),
    "sent twice": (0.5, 0.02, 0.3),
    "slow": (0.4, 0.02, 0.3),
    "source expired": (0.2, 0.02, 0.1),
    "spool error": (0.3, 0.02, 0.3),
    "spool file lost": (0.3, 0.1, 0.5),
    "delayed for a day": (0.1, 0.01, 0.03),
    "cancelled": (0.4, 0.1, 0.8),
    "image unreadable": (0.2, 0.02, 0.2),
    "internal error": (0.2, 0.01, 0.05),
}
# For each outage: the chance that a day has it at all, its maximum count, and its range of durations in seconds.
OUTAGES: Mapping[str, tuple[float, int, float, float]] = {
    "discord": (0.4, 4, 5, 4 * HOUR),
    "gateway": (0.4, 6, 5, HOUR),
    "maintenance": (0.3, 3, 60, 3 * HOUR),
    "provider failing": (0.3, 3, 10, HOUR),
    "provider unreachable": (0.3, 3, 10, HOUR),
    "source": (0.3, 3, 10, 8 * HOUR),
    "spool full": (0.3, 3, 10, 2 * HOUR),
}
BAD, GOOD = b"no picture", b"a picture"  # what an output URL may serve
_MAX_VIOLATIONS = 10  # for one day; the first ones are the most useful
LONG_OUTAGE = 26 * HOUR  # the bot no longer retries a notice after this, and the provider has deleted any output
_LONG_OUTAGES = {"discord": 0.002, "source": 0.002}


class Event(NamedTuple):
    """One external effect. `number` is the request's number, or 0 for none."""

    at: float
    what: str
    number: int
    detail: str


class Reachability(Enum):
    """What the bot can do with a request's message."""

    EDITABLE = auto()
    NEW_MESSAGE_ONLY = auto()  # edits fail, but a new message works
    UNREACHABLE = auto()
    DELETED = auto()
    DELAYED = auto()  # every attempt fails with a retryable error for more than a day


@dataclass(slots=True, eq=False)
class Submission:
    """One member's request, and every external effect it has had."""

    number: int
    request: ThumbnailRequest
    requester: Requester
    reachability: Reachability
    changes_at: float  # when `reachability` takes effect, in seconds
    calls: list[JobFailed | str] = field(default_factory=list)  # the outcome of each call; the last may be in progress
    generated_at: float | None = None  # when the provider finished the picture
    message: int | None = None  # the public reply
    shown: bool = False  # the picture was visible
    confirmed_at: float | None = None  # when Discord confirmed the picture to the bot
    exempt: bool = False  # the process ended before it could record the confirmation
    charged: bool = False
    released: bool = False
    handed_over: bool = False  # by a claim
    cancelled: bool = False  # while it was queued
    notified: int = 0


class World:
    """The disk, the provider, Discord and the members. They outlive every process of the bot."""

    def __init__(self, seed: int, loop: Loop, *, journal: Path) -> None:
        self.loop = loop
        self.chance = random.Random(seed)  # noqa: S311 - a random scenario, not a secret
        self.raw = _database()
        self.journal = journal
        self.events: list[Event] = []
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.submissions: list[Submission] = []
        self.uncharged: list[Submission] = []  # confirmed, but not charged at the last check
        self.files: dict[str, datetime] = {}  # the spool's files, with the time of each write
        self.skew = 0.0  # seconds by which the bot's clock is ahead
        self.faults_stopped = False
        self.rates = {name: self._rate(*odds) for name, odds in RATES.items()}
        self.down: Counter[str] = Counter()
        self.had_long_outage = False  # an outage lasted longer than the bot retries a notice
        self.database_down_until = self.journal_failed_at = -math.inf
        self.writes_left = 0  # writes that still succeed on a full disk
        for what, odds in OUTAGES.items():
            self._plan_outages(what, *odds)

    # --- faults ------------------------------------------------------------------------------------------------------

    def _rate(self, odds: float, low: float, high: float) -> float:
        return self._between(low, high) if self.chance.random() < odds else 0.0

    def _between(self, low: float, high: float) -> float:
        """Draw a number from a log-uniform distribution."""
        return low * math.pow(high / low, self.chance.random())

    def _plan_outages(self, what: str, odds: float, times: int, low: float, high: float) -> None:
        if self.chance.random() < odds:
            for _ in range(self.chance.randint(1, times)):
                self.loop.call_at(self.chance.uniform(0, DAY), self._begin, what, self._between(low, high))
        if self.chance.random() < _LONG_OUTAGES.get(what, 0):
            self.had_long_outage = True
            self.loop.call_at(self.chance.uniform(0, DAY), self._begin, what, LONG_OUTAGE)

    def maybe_break_database(self) -> None:
        """Start a database outage during a write, when it matters most. During one, the repeated writes of a dozen
        waiting jobs would prolong it for days.
        """
        if self.loop.time() >= self.database_down_until and self.happens("database fails"):
            self._begin(
                self.chance.choice(("database full", "database full", "database unavailable")), self._between(1, 1200)
            )

    def _begin(self, what: str, seconds: float) -> None:
        if self.faults_stopped:
            return
        self.note(f"{what} down")
        self.counts[f"{what} down"] += 1
        self.down[what] += 1
        self.loop.call_later(seconds, self._end, what)
        if what.startswith("database"):
            self.database_down_until = max(self.database_down_until, self.loop.time() + seconds)

    def _end(self, what: str) -> None:
        self.down[what] -= 1

    def is_down(self, what: str) -> bool:
        return self.down[what] > 0 and not self.faults_stopped

    def happens(self, what: str) -> bool:
        """Decide at random whether this fault happens now. Some days do not have it at all."""
        rate = self.rates[what]
        if not rate or self.faults_stopped or self.chance.random() >= rate:
            return False
        self.counts[what] += 1
        return True

    def seconds(self, usual: float) -> float:
        """Draw the duration of something that usually takes `usual` seconds."""
        if self.happens("slow"):
            usual *= 20
        return usual * self.chance.uniform(0.2, 2)

    # --- records -----------------------------------------------------------------------------------------------------

    def clock(self) -> datetime:
        return NOON + timedelta(seconds=self.loop.time() + self.skew)

    def note(self, what: str, submission: Submission | None = None, detail: str = "") -> None:
        self.events.append(Event(self.loop.time(), what, submission.number if submission else 0, detail))

    def report_violation(self, what: str, submission: Submission | None = None) -> None:
        """Record a violation."""
        self.note("VIOLATION", submission, what)
        if len(self.violations) >= _MAX_VIOLATIONS:
            return
        at = timedelta(seconds=round(self.loop.time(), 3))
        self.violations.append(f"{what} (request {submission.number if submission else '-'}, after {at})")

    def by_address(self, address: str) -> Submission:
        return self.submissions[int(address.rpartition("/")[2]) - 1]

    def reachability_of(self, submission: Submission) -> Reachability:
        return submission.reachability if self.loop.time() >= submission.changes_at else Reachability.EDITABLE

    def draw_reachability(self) -> Reachability:
        if self.happens("message deleted"):
            return Reachability.DELETED
        if self.happens("channel not writable"):
            return Reachability.UNREACHABLE
        if self.happens("only a new message"):
            return Reachability.NEW_MESSAGE_ONLY
        return Reachability.DELAYED if self.happens("delayed for a day") else Reachability.EDITABLE


def _database() -> sqlite3.Connection:
    raw = copied(_empty())
    raw.row_factory = sqlite3.Row
    raw.execute("PRAGMA foreign_keys = ON")
    return raw


@cache
def _empty() -> sqlite3.Connection:
    """What every day begins with: making the tables takes longer than copying them."""
    raw = sqlite3.connect(":memory:", isolation_level=None)
    raw.create_function("member_key", 2, member_key, deterministic=True)
    raw.executescript(_schema())
    return raw


def _schema() -> str:
    files = sorted(
        resources.files("bot.storage").joinpath("migrations", "sqlite").iterdir(), key=lambda file: file.name
    )
    scripts = [file.read_text("utf-8") for file in files if file.name.endswith(".sql")]
    return "\n".join(scripts)


class Died(BaseException):
    """The process has crashed. Code that catches this can no longer affect the world."""


class Process:
    """One process of the bot. After it dies, none of its code can affect the world."""

    def __init__(self, world: World, *, crash_after: int) -> None:
        self.world = world
        self.dead = False
        self.over: asyncio.Future[str] = world.loop.create_future()
        self._steps_left = crash_after  # the process crashes when this reaches 0

    def reach(self, point: str) -> None:
        """Mark a step between two effects. The process may crash here."""
        if self.dead:
            raise Died
        self._steps_left -= 1
        if not self._steps_left and not self.world.faults_stopped:
            self.die(point)
            raise Died

    async def wait(self, seconds: float, point: str) -> None:
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
