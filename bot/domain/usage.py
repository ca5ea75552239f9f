"""Who used what in one server, for its admins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

    from bot.domain.models import Model


@dataclass(frozen=True, slots=True)
class Usage:
    """Credits used or held in a server: per model for each of the `days` (consecutive, oldest first), and per member,
    the most first. A member whose data was deleted is 0.
    """

    days: Sequence[date]
    by_model: Mapping[Model, Sequence[int]]
    members: Sequence[tuple[int, int]]

    @property
    def total(self) -> int:
        return sum(map(sum, self.by_model.values()))

    @property
    def by_day(self) -> Sequence[int]:
        return [sum(amounts) for amounts in zip(*self.by_model.values(), strict=True)] or [0] * len(self.days)
