"""Registers the commands at Discord only if they differ from what was last registered for this application."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import TYPE_CHECKING, Any

import discord

if TYPE_CHECKING:
    from discord import app_commands

    from bot.domain.protocols import KeyValueStore

log = logging.getLogger(__name__)

_KEY = "commands-synced"
_KEY_OF_SERVER = "server-commands-synced"


async def sync_commands(
    tree: app_commands.CommandTree[Any],
    *,
    application_id: int | None,
    values: KeyValueStore,
    server: int | None = None,
) -> None:
    """Register the commands of all servers, and those of one `server`; the server of the last time loses its own."""
    payload = [command.to_dict(tree) for command in tree.get_commands()]
    digest = _digest({"application": application_id, "commands": payload})
    if await values.get_value(_KEY) != digest:
        await tree.sync()
        await values.set_value(_KEY, digest)
        log.info("%d commands synced", len(payload))
    await _sync_server(tree, application_id=application_id, values=values, server=server)


async def _sync_server(
    tree: app_commands.CommandTree[Any], *, application_id: int | None, values: KeyValueStore, server: int | None
) -> None:
    before = await values.get_value(_KEY_OF_SERVER) or ""
    old, _, _ = before.partition(":")
    now = ""
    if server is not None:
        payload = [command.to_dict(tree) for command in tree.get_commands(guild=discord.Object(server))]
        now = f"{server}:{_digest({'application': application_id, 'commands': payload})}"
    if now == before:
        return
    if old and old != str(server):
        try:
            await tree.sync(guild=discord.Object(int(old)))  # it has none any more
        except discord.Forbidden:
            log.info("the bot has left the server that had /operator")
    if server is not None:
        await tree.sync(guild=discord.Object(server))
        log.info("the commands of server %d synced", server)
    await values.set_value(_KEY_OF_SERVER, now)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
