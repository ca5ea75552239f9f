"""Fixtures that several integration tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.discord_clients import simulated_discord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandbox import discord_server


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[discord_server.DiscordServer]:
    async with simulated_discord(monkeypatch, keep_files=True) as server:
        yield server
