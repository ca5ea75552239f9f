"""The first response to an interaction: the only place that sends one.

Discord waits three seconds for it and keeps the first that arrives, so one that the network has lost is sent again.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import aiohttp
import discord

from bot.domain.errors import BotError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from bot.discord_io.client import Client

    Interaction = discord.Interaction[Client]

T = TypeVar("T")

DISCORD_WAITS = 3.0  # seconds, by Discord's clock
_LEAST_SECONDS = 1.5  # for a try that begins late, or seems to because our clock is ahead: it may have arrived in time
_LOOK_SECONDS = 3.0  # for finding a response that has arrived
_SHARE = 2 / 3  # of the time, for one try: one that hangs leaves time for another
_PAUSE_SECONDS = 0.2

_UNKNOWN_INTERACTION = 10062  # Discord has already told the member that the bot did not respond
_ALREADY_ANSWERED = 40060
_ANSWERED = "answered"  # in the extras of an interaction; discord.py does not know of a response whose answer was lost

# What the network does, and an overloaded Discord. discord.py lets resets and timeouts of aiohttp through.
NETWORK = (aiohttp.ClientError, ConnectionError, TimeoutError, discord.DiscordServerError)


class NotAnswered(BotError):
    """The first response has not reached Discord, as far as the bot knows; nothing more can be said to the member."""


async def respond(interaction: Interaction, text: str, *, view: discord.ui.View | None = None, ephemeral: bool) -> int:
    """Respond with a message; returns its id. Raises `NotAnswered`."""
    shown = discord.utils.MISSING if view is None else view
    send = partial(interaction.response.send_message, text, view=shown, ephemeral=ephemeral)
    response = await _first(interaction, send)
    if response is not None and response.message_id is not None:
        return response.message_id
    return await _find(interaction, text)


async def defer(interaction: Interaction, *, ephemeral: bool = False, thinking: bool = False) -> None:
    """Respond with the promise of more: for a button, without a message of its own unless it is `thinking`. Raises
    `NotAnswered`.
    """
    await _first(interaction, partial(interaction.response.defer, ephemeral=ephemeral, thinking=thinking))


async def send_modal(interaction: Interaction, modal: discord.ui.Modal) -> None:
    """Respond with a form; raises `NotAnswered`."""
    await _first(interaction, partial(interaction.response.send_modal, modal))


async def tell(interaction: Interaction, text: str, *, view: discord.ui.View | None = None) -> None:
    """Tell the member something privately, as the first response or after it."""
    if interaction.response.is_done() or _ANSWERED in interaction.extras:
        shown = discord.utils.MISSING if view is None else view
        await interaction.followup.send(text, view=shown, ephemeral=True)
    else:
        await respond(interaction, text, view=view, ephemeral=True)


async def persistently(call: Callable[[], Awaitable[T]], *, seconds: float) -> T:
    """Await `call`, and again while the network fails or does not answer; no try begins after `seconds`, except the
    first. Raises `NotAnswered`. Only for calls that have no further effect when they are repeated.
    """
    now = asyncio.get_running_loop().time
    until = now() + seconds
    while True:
        try:
            async with asyncio.timeout(max(min(seconds * _SHARE, until - now()), _LEAST_SECONDS)):
                return await call()
        except (*NETWORK, RuntimeError) as error:  # the latter is that of a closed session
            if now() + _PAUSE_SECONDS >= until or isinstance(error, RuntimeError):
                raise NotAnswered(type(error).__name__) from None
        await asyncio.sleep(_PAUSE_SECONDS)


async def _first(interaction: Interaction, send: Callable[[], Awaitable[T]]) -> T | None:
    """Send the first response; None if it had arrived in an earlier try, whose answer was lost."""
    age = (interaction.client.services.clock() - interaction.created_at).total_seconds()
    try:
        response = await persistently(send, seconds=DISCORD_WAITS - max(age, 0))
    except discord.HTTPException as error:
        if error.code == _UNKNOWN_INTERACTION:
            raise NotAnswered("Discord has stopped waiting") from None
        if error.code != _ALREADY_ANSWERED:
            raise
        response = None
    interaction.extras[_ANSWERED] = True
    return response


async def _find(interaction: Interaction, text: str) -> int:
    """The id of the message that was sent in response, if it is ours: another process with the same token may have
    responded first.
    """
    try:
        message = await persistently(interaction.original_response, seconds=_LOOK_SECONDS)
    except discord.HTTPException as error:
        raise NotAnswered(f"{error.status}/{error.code}") from None
    if message.content != text.strip():
        raise NotAnswered("something else has responded")
    return message.id
