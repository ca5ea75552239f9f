"""One call to Discord, and what its failure means for the other ways to deliver."""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import TYPE_CHECKING, TypeVar

import aiohttp
import discord

if TYPE_CHECKING:
    from collections.abc import Awaitable

T = TypeVar("T")

_SECONDS = 120.0  # for one try of one method, discord.py's own retries included
_UNKNOWN_MESSAGE = 10008
_TEXT_REFUSED = (50035, 200000, 200001, 240000)  # invalid form, AutoMod, AutoMod on a name, harmful links


class Next(Enum):
    """What the failure of a delivery method means for the others."""

    TRY_NEXT = auto()  # this method will not work
    LATER = auto()  # this method works, but not now
    DELETED = auto()  # somebody deleted the message


class MethodFailed(Exception):
    """One delivery method did not work. Never leaves `bot.discord_io`."""

    def __init__(self, then: Next, observed: str, *, for_its_text: bool = False) -> None:
        super().__init__(observed)
        self.then = then
        self.observed = observed
        self.for_its_text = for_its_text  # the text was refused, not the picture or the channel


def connected(client: discord.Client) -> discord.Client:
    """The client, if it can be used now; raises `MethodFailed`."""
    if client.is_closed() or client.application_id is None:  # between two connections, or not yet logged in
        raise MethodFailed(Next.LATER, "no connection to Discord")
    return client


async def tried(method: str, call: Awaitable[T]) -> T:
    """Await one call to Discord; raises `MethodFailed`, which says what its failure means.

    discord.py lets resets and timeouts of aiohttp through: on Linux it retries neither.
    """
    try:
        async with asyncio.timeout(_SECONDS):
            return await call
    except discord.HTTPException as error:
        observed = f"{method}: {error.status}/{error.code}"
        raise MethodFailed(_meaning(error), observed, for_its_text=error.code in _TEXT_REFUSED) from None
    except (aiohttp.ClientError, discord.DiscordException, OSError, RuntimeError) as error:  # a closed session's too
        raise MethodFailed(Next.LATER, f"{method}: {type(error).__name__}") from None


def _meaning(error: discord.HTTPException) -> Next:
    if error.code == _UNKNOWN_MESSAGE:
        return Next.DELETED
    if error.status >= 500 or error.status == 429:  # noqa: PLR2004 - HTTP's server errors and rate limit
        return Next.LATER
    return Next.TRY_NEXT
