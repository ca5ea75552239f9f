"""What the members of one server have used, day by day. Pure: the rows come from outside."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import date

    from bot.domain.models import Model

_Key = TypeVar("_Key")

MOST_SHOWN = 10  # members in a picture


@dataclass(frozen=True, slots=True)
class Used:
    """The images that one member has made on one day with one model, those in progress included. `user_id` is 0 if the
    person's data has been deleted.
    """

    day: date
    user_id: int
    model: Model
    images: int
    credits: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used in one server in the days up to `today`, by the calendar of the limits."""

    today: date
    rows: Sequence[Used]

    def last(self, days: int) -> Usage:
        """The same of the last so many days, today included."""
        since = self.today - timedelta(days=days - 1)
        return Usage(self.today, [row for row in self.rows if row.day >= since])

    @property
    def images(self) -> int:
        return sum(row.images for row in self.rows)

    @property
    def credits(self) -> int:
        return sum(row.credits for row in self.rows)

    def by_day(self) -> list[tuple[date, Usage]]:
        """The days with any use, the newest first."""
        return sorted(self._split(lambda row: row.day), key=lambda one: one[0], reverse=True)

    def by_member(self) -> list[tuple[int, Usage]]:
        """The members, whoever has used most credits first."""
        return sorted(self._split(lambda row: row.user_id), key=lambda one: (-one[1].credits, -one[1].images, one[0]))

    def by_model(self) -> list[tuple[Model, int]]:
        """The models and the number of their images, the most used first."""
        images: Counter[Model] = Counter()
        for row in self.rows:
            images[row.model] += row.images
        return sorted(images.items(), key=lambda one: (-one[1], one[0]))

    def _split(self, key: Callable[[Used], _Key]) -> list[tuple[_Key, Usage]]:
        parts: dict[_Key, list[Used]] = {}
        for row in self.rows:
            parts.setdefault(key(row), []).append(row)
        return [(name, Usage(self.today, rows)) for name, rows in parts.items()]
