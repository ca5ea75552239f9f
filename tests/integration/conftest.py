"""Fixtures that several integration tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.discord_clients import simulated_discord
from tests.support.e2e import Live, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sandbox import discord_server


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[discord_server.DiscordServer]:
    async with simulated_discord(monkeypatch, keep_files=True) as server:
        yield server


@pytest.fixture
def daily_credits() -> int:
    """The daily allowance of each member in `live`; a test file may override it."""
    return 3


@pytest.fixture
async def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, daily_credits: int) -> AsyncIterator[Live]:
    """The bot with its own simulated servers."""
    async with running(tmp_path, monkeypatch, quota={"member_daily": daily_credits}) as live:
        yield live
