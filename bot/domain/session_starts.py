"""What Discord says about new sessions: how many connections the bot should have, and how many it may open."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

_RESERVE = 10  # the part of Discord's limit that the bot leaves, as a divisor


@dataclass(frozen=True, slots=True)
class SessionStarts:
    """`remaining` of `total` IDENTIFYs are left until `reset_after` from now, `max_concurrency` at once. The defaults
    are those of Discord for a bot that it has not answered.
    """

    shards: int = 1
    total: int = 1000
    remaining: int = 1000
    reset_after: timedelta = timedelta(0)
    max_concurrency: int = 1

    @classmethod
    def of(cls, shards: int, limit: Mapping[str, Any]) -> Self:
        """From the fields `shards` and `session_start_limit` of Discord's /gateway/bot; raises `LookupError`,
        `TypeError`, `ValueError` if they are not as documented.
        """
        return cls(
            shards=max(1, int(shards)),
            total=int(limit["total"]),
            remaining=int(limit["remaining"]),
            reset_after=timedelta(milliseconds=int(limit["reset_after"])),
            max_concurrency=max(1, int(limit["max_concurrency"])),
        )

    def allow(self, count: int) -> bool:
        """Whether that many leave enough of Discord's limit, which resets the token of a bot that reaches it."""
        return self.remaining - count >= self.total // _RESERVE
