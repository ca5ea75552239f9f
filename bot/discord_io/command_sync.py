"""Registers the commands at Discord only if they differ from what was last registered for this application."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from discord import app_commands

    from bot.domain.protocols import KeyValueStore

log = logging.getLogger(__name__)

_KEY = "commands-synced"


async def sync_commands(
    tree: app_commands.CommandTree[Any], *, application_id: int | None, values: KeyValueStore
) -> None:
    payload = [command.to_dict(tree) for command in tree.get_commands()]
    digest = _digest({"application": application_id, "commands": payload})
    if await values.get_value(_KEY) == digest:
        return
    await tree.sync()
    await values.set_value(_KEY, digest)
    log.info("%d commands synced", len(payload))


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
