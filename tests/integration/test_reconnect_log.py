"""What the log says while Discord cannot be reached: a handful of sentences, however long that lasts."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import aiohttp
import discord.client
import pytest

from bot import supervisor
from bot.domain.health import Connection
from bot.ops import logs
from bot.ops.reconnect_log import ReconnectFilter
from tests.support.discord_clients import becomes
from tests.support.e2e import running
from tests.support.virtual_clock import Loop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bot.app import App


@pytest.fixture(autouse=True)
def _no_filter_stays() -> Iterator[None]:
    yield
    for name in ("discord.client", "discord.shard", "discord.gateway"):
        logging.getLogger(name).filters.clear()


class Impatient:
    """discord.py's pauses between two tries, as short as they can be."""

    def delay(self) -> float:
        return 0.001


async def test_a_connection_that_fails_fifty_times_is_a_handful_of_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(discord.client, "ExponentialBackoff", Impatient)
    async with running(tmp_path, monkeypatch) as live:
        await becomes(live.app.client, Connection.CONNECTED)
        logs.set_up(level="INFO", as_json=False, secrets=[])
        capsys.readouterr()
        live.discord.cut_gateway()
        await live.discord.wait(lambda simulated: simulated.refused_connections >= 50)
        lines = capsys.readouterr().err.splitlines()
        assert 3 <= len(lines) <= 10
        sentence = "WARNING discord.client: Discord cannot be reached (WSServerHandshakeError 503); trying again in 0 s"
        assert [line for line in lines if not line.endswith(sentence)] == []
        resumed = asyncio.create_task(live.app.client.wait_for("resumed", timeout=10))
        live.discord.mend_gateway()
        await resumed
        live.discord.cut_gateway()
        await live.discord.wait(lambda simulated: simulated.refused_connections >= 52)
        assert sentence in capsys.readouterr().err, "a new interruption is told from its beginning"


class Unreachable:
    """A bot whose clients find no network, and stop trying after `tries`."""

    def __init__(self, tries: int) -> None:
        self.left = tries
        services = SimpleNamespace(identify_limit=self)
        self.client = SimpleNamespace(services=services, start=self.start, hang_up=self.renew)

    async def wait(self) -> timedelta:
        return timedelta(0)

    async def start(self, _: str) -> None:
        self.left -= 1
        if not self.left:
            raise asyncio.CancelledError
        raise aiohttp.ClientConnectionError("no route to a host that must not be logged")

    async def renew(self) -> None:
        """Nothing needs to be replaced here."""


def test_a_start_without_a_network_is_a_handful_of_sentences_too(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up(level="INFO", as_json=False, secrets=[])
    with asyncio.Runner(loop_factory=Loop) as runner, pytest.raises(asyncio.CancelledError):
        runner.run(supervisor._stay_connected(cast("App", Unreachable(300)), "token"))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 + 7  # the first ones, and 4, 8, … 256
    said = "the connection to Discord failed (ClientConnectionError); starting a fresh one"
    assert all(line.endswith(said) for line in lines)


def record(message: str, *args: object, error: Exception | None = None) -> logging.LogRecord:
    trace = None if error is None else (type(error), error, None)
    return logging.LogRecord("discord.client", logging.ERROR, "client.py", 1, message, args, trace)


def test_what_a_shard_says_is_shortened_too_and_logins_are_counted() -> None:
    only = ReconnectFilter()
    shown = record("Attempting a reconnect for shard ID %s in %.2fs", 3, 11.6, error=TimeoutError("secret"))
    assert only.filter(shown)
    assert shown.getMessage() == "Discord cannot be reached (TimeoutError); trying again in 12 s"
    assert shown.levelname == "WARNING"
    assert not shown.exc_info
    assert sum(only.filter(record("logging in using static token")) for _ in range(100)) == 3 + 5
    assert only.filter(record("Shard ID %s has successfully RESUMED session %s.", None, "x"))
    assert only.filter(record("logging in using static token"))
    assert only.filter(record("anything else"))
