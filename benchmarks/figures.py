"""The figures of the table: the bot's, those of what it is compared with, their ratio, and what got worse."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

NOTICEABLE = 1.1  # times the worst ratio on record


@dataclass(frozen=True, slots=True)
class Goal:
    """The highest that a ratio may be, or the highest figure of the bot itself in the unit of its row."""

    ratio: float | None = None
    figure: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What is measured. `title` may name the numbers of a `Scale`."""

    title: str
    unit: str
    goal: Goal


@dataclass(frozen=True, slots=True)
class Scale:
    """How much was measured. Only figures of the same scale can be compared."""

    alone: int = 30
    jobs: int = 500
    at_once: int = 200
    burst: int = 1000
    entries: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Figure:
    """The median of the bot, that of what it is compared with, and the median, lowest and highest of their ratios."""

    bot: float
    base: float
    ratio: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        return f"{self.ratio:.2f} ({self.lowest:.2f} to {self.highest:.2f})"


# The order is that of the table.
ROWS: Mapping[str, Row] = {
    "cpu at once": Row("CPU a job, {at_once:,} at once", "ms", Goal(ratio=1.3)),
    "cpu alone": Row("CPU a job, one at a time", "ms", Goal()),
    "overhead alone": Row("overhead of a job alone, p50", "ms", Goal(ratio=1.6)),
    "answer alone": Row("first answer alone, p50", "ms", Goal()),
    "answer at once": Row("first answer, p99, {at_once:,} at once", "ms", Goal(ratio=0.3)),
    "peak at once": Row("peak memory, {at_once:,} at once", "MB", Goal(figure=150.0)),
    "peak in a burst": Row("peak memory, burst of {burst:,}", "MB", Goal(figure=200.0)),
    "idle": Row("idle memory", "MB", Goal(figure=55.0)),
    "start": Row("start until connected", "s", Goal(figure=0.4)),
    "check": Row("allowance check, {entries:,} entries / none", "ms", Goal(ratio=1.5)),
}


def figure(pairs: Sequence[tuple[float, float]]) -> Figure:
    """The figure of what both showed, round by round."""
    ratios = [bot / base for bot, base in pairs]
    bots, bases = zip(*pairs, strict=True)
    return Figure(median(bots), median(bases), median(ratios), min(ratios), max(ratios))


def worse(now: Mapping[str, Figure], before: Mapping[str, Figure], scale: Scale) -> Iterator[str]:
    """Yield a sentence for each figure that is worse than before: outside of the spread of both, and noticeably."""
    for key in ROWS:
        if key not in now or key not in before:
            continue
        new, old = now[key], before[key]
        if new.lowest > old.highest and new.ratio > NOTICEABLE * old.highest:
            yield f"{title(key, scale)} got worse: {new}, and it was {old}."


def missed(now: Mapping[str, Figure]) -> list[str]:
    """The rows that do not reach their goal."""
    return [key for key, found in now.items() if not reached(ROWS[key].goal, found)]


def reached(goal: Goal, found: Figure) -> bool:
    if goal.ratio is not None:
        return found.ratio <= goal.ratio
    return goal.figure is None or found.bot <= goal.figure


def title(key: str, scale: Scale) -> str:
    row = ROWS[key].title.format(at_once=scale.at_once, burst=scale.burst, entries=scale.entries)
    return row[0].upper() + row[1:]


def wanted(goal: Goal, unit: str) -> str:
    """The goal as the table shows it."""
    if goal.ratio is not None:
        return f"≤ {goal.ratio:g}"
    return "" if goal.figure is None else f"≤ {goal.figure:g} {unit}"
