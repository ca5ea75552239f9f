"""What Discord says about new sessions: how many connections the bot should have, and how many it may open."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from discord.http import HTTPClient


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


async def ask(http: HTTPClient) -> SessionStarts:
    """What Discord recommends and allows now. Raises what discord.py raises."""
    shards, _, limit = await http.get_bot_gateway()
    return SessionStarts(
        shards=max(1, shards),
        total=limit["total"],
        remaining=limit["remaining"],
        reset_after=timedelta(milliseconds=limit["reset_after"]),
        max_concurrency=max(1, limit["max_concurrency"]),
    )
