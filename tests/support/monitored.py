"""The running bot with an endpoint for its monitoring."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from tests.support.e2e import KEY, Live, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest


@dataclass(slots=True)
class Monitored:
    live: Live
    url: str

    async def metrics(self) -> dict[str, float]:
        """The samples, by name and labels."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as response:
            assert (response.status, response.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
            return samples(await response.text())

    async def metrics_once(self, name: str, value: float) -> dict[str, float]:
        """The samples, once one of them has this value."""
        async with asyncio.timeout(10):
            while (found := await self.metrics())[name] != value:  # noqa: ASYNC110 - as Prometheus does
                await asyncio.sleep(0.02)
        return found


@asynccontextmanager
async def monitored(folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> AsyncIterator[Monitored]:
    """The bot with an endpoint, in the simulated Discord; its settings are in the environment for `health`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {"DISCORD__TOKEN": "token", "PIKZELS__API_KEY": KEY, "HEALTH__PORT": str(port)}
    for name, value in environment.items():
        monkeypatch.setenv(f"BOT_{name}", value)
    monkeypatch.chdir(folder)
    async with running(folder, monkeypatch, health={"port": port}, **options) as live:
        yield Monitored(live, f"http://127.0.0.1:{port}")


def samples(text: str) -> dict[str, float]:
    """The samples of an exposition, by name and labels."""
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}
