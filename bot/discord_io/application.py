"""What Discord says about the bot's own application, and the link that invites the bot."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp
import discord
from discord.http import Route

from bot.http_session import HttpClient

if TYPE_CHECKING:
    from bot.domain.diagnosis import Answer

PERMISSIONS = discord.Permissions(
    view_channel=True,
    send_messages=True,
    send_messages_in_threads=True,
    attach_files=True,
    add_reactions=True,
    read_message_history=True,
)
_INVITE = "https://discord.com/oauth2/authorize?client_id={}&scope=bot+applications.commands&permissions={}"


def invite_link(application_id: int) -> str:
    """Invites the bot with the fewest permissions that it needs."""
    return _INVITE.format(application_id, PERMISSIONS.value)


class OwnApplication(HttpClient):
    """Asks Discord about the application of a token, without logging in. `timeout` is in seconds."""

    def __init__(self, *, token: str, timeout: float) -> None:
        agent = f"DiscordBot (https://github.com/Rapptz/discord.py {discord.__version__})"
        super().__init__(
            headers={"Authorization": f"Bot {token}", "User-Agent": agent},
            timeout=aiohttp.ClientTimeout(total=timeout),
        )

    async def look_up(self) -> tuple[Answer, Answer, Answer]:
        """The bot's user, its application, and what it may open to the gateway."""
        user, application, gateway = await asyncio.gather(
            self.ask(Route.BASE + "/users/@me"),
            self.ask(Route.BASE + "/applications/@me"),
            self.ask(Route.BASE + "/gateway/bot"),
        )
        return user, application, gateway
