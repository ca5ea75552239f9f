"""Health over real HTTP, and the command that asks for it."""

from __future__ import annotations

import asyncio
import errno
import json
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import pytest

from bot.__main__ import main
from bot.domain.errors import InvalidConfiguration
from bot.ops import health, ports
from bot.ops.exposition import Exposition
from bot.ops.loop_lag import LoopLag
from bot.ops.metrics import Metrics
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import KEY, running
from tests.support.monitored import monitored
from tests.support.virtual_clock import Loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path


@dataclass(slots=True)
class Answer:
    status: int
    type: str
    text: str


class Lag(LoopLag):
    """A loop that is as late as the test says."""

    def __init__(self, now: float = 0.0) -> None:
        super().__init__()
        self.seconds = now

    @property
    def now(self) -> float:
        return self.seconds


@asynccontextmanager
async def served(parts: Mapping[str, str | None], *, lag: LoopLag | None = None) -> AsyncIterator[str]:
    async def ready() -> Mapping[str, str | None]:
        return parts

    answers = health.Health(Exposition(Metrics()), lag or Lag(), ready)
    async with health.served(answers, host="127.0.0.1", port=0) as port:
        yield f"http://127.0.0.1:{port}"


async def get(url: str) -> Answer:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return Answer(response.status, response.headers["Content-Type"], await response.text())


JSON = "application/json; charset=utf-8"


@pytest.mark.parametrize("path", ["readyz", "health"])
async def test_it_is_ready_while_every_part_is_well_and_says_why_it_is_not(path: str) -> None:
    parts: dict[str, str | None] = {"gateway": None, "database": None}
    async with served(parts) as url:
        assert await get(f"{url}/{path}") == Answer(200, JSON, '{"gateway": "ok", "database": "ok"}')
        parts["database"] = "the disk is full"
        assert await get(f"{url}/{path}") == Answer(503, JSON, '{"gateway": "ok", "database": "the disk is full"}')
        assert (await get(f"{url}/")).status == 404


async def test_it_is_alive_while_its_loop_turns_whatever_others_do() -> None:
    lag = Lag(0.25)
    async with served({"gateway": "closed", "circuits": "empty"}, lag=lag) as url:
        alive = '{"event_loop": "ok", "loop_lag_seconds": 0.25, "loop_lag_max_seconds": 0.25}'
        assert await get(f"{url}/healthz") == Answer(200, JSON, alive)
        lag.seconds = 11
        assert (await get(f"{url}/healthz")).status == 503
        assert "the event loop is blocked" in (await get(f"{url}/healthz")).text


def test_the_lag_of_the_loop_is_the_latest_and_the_highest_of_a_minute() -> None:
    async def measure() -> None:
        loop, lag = cast("Loop", asyncio.get_running_loop()), LoopLag()
        measuring = asyncio.create_task(lag.run())
        await asyncio.sleep(5.5)
        assert (lag.now, lag.highest) == (0, 0)
        loop._now += 3  # the loop was blocked: the measurement that was due after half a second is late
        assert lag.now == pytest.approx(2.5)
        await asyncio.sleep(0.5)
        assert lag.now == pytest.approx(2.5)
        await asyncio.sleep(50)
        assert lag.now == 0
        assert lag.highest == pytest.approx(2.5)
        await asyncio.sleep(15)
        assert lag.highest == 0
        measuring.cancel()
        await asyncio.wait([measuring])

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(measure())


# --- the running bot, and the command that asks it --------------------------------------------------------------------


async def until(url: str, status: int) -> dict[str, Any]:
    """The parts, once the endpoint answers with this status."""
    async with asyncio.timeout(10):
        while (answer := await get(url)).status != status:  # noqa: ASYNC110 - as a monitoring asks
            await asyncio.sleep(0.02)
    parts: dict[str, Any] = json.loads(answer.text)
    return parts


async def test_ready_says_which_part_of_the_running_bot_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with monitored(tmp_path, monkeypatch, connect=False) as bot:
        assert await until(f"{bot.url}/readyz", 503) == {
            "gateway": "there is no session with Discord",
            "database": "ok",
            "circuits": "ok",
        }
        await bot.live.connect()
        assert set((await until(f"{bot.url}/readyz", 200)).values()) == {"ok"}
        bot.live.api.script(Reply.error("INSUFFICIENT_CREDITS"))
        await bot.live.said()
        parts = await until(f"{bot.url}/readyz", 503)
        assert parts == {"gateway": "ok", "database": "ok", "circuits": "the Pikzels balance is empty"}
        assert (await get(f"{bot.url}/healthz")).status == 200, "an empty balance provokes no restart"


async def ask(*arguments: str) -> int:
    return await asyncio.to_thread(main, ["health", *arguments])


async def test_the_command_prints_a_line_for_each_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with monitored(tmp_path, monkeypatch, connect=False) as bot:
        assert await ask() == 0
        event_loop, lag, highest = capsys.readouterr().out.splitlines()
        assert event_loop == "event_loop: ok"
        assert lag.startswith("loop_lag_seconds: 0.")
        assert highest.startswith("loop_lag_max_seconds: 0.")
        assert await ask("--ready") == 1
        shown = ["gateway: there is no session with Discord", "database: ok", "circuits: ok"]
        assert capsys.readouterr().out.splitlines() == shown
        await bot.live.connect()
        await until(f"{bot.url}/readyz", 200)
        monkeypatch.setenv("BOT_HEALTH__HOST", "0.0.0.0")  # noqa: S104 - asks this machine
        assert await ask("--ready") == 0
    assert await ask() == 1
    port = bot.url.rpartition(":")[2]
    said = f"The bot does not answer on 127.0.0.1 port {port} (ConnectionRefusedError).\n"
    assert capsys.readouterr().err.endswith(said)


@pytest.mark.parametrize(
    ("port", "problem"),
    [
        ("", "is not set, so the bot serves no health"),
        ("0", "is 0, so nobody knows where the bot serves its health"),
    ],
)
def test_without_a_port_there_is_nobody_to_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], port: str, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {"DISCORD__TOKEN": "token", "PIKZELS__API_KEY": KEY, "HEALTH__PORT": port}.items():
        monkeypatch.setenv(f"BOT_{name}", value)
    assert main(["health"]) == 78
    assert capsys.readouterr().err == f"Setting health.port {problem}.\n"


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("health.invalid", "whose name cannot be resolved; set it to an address of this machine"),
        ("192.0.2.1", "which is no address of this machine; set it to one, like 127.0.0.1"),
    ],
)
async def test_a_start_names_the_host_that_it_cannot_listen_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, problem: str
) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        async with running(tmp_path, monkeypatch, connect=False, health={"host": host, "port": 8080}):
            pass
    assert caught.value.problems == (("health.host", f"is {host}, {problem}"),)


def test_the_port_is_named_with_whatever_else_is_wrong_with_it() -> None:
    assert ports.described(PermissionError(errno.EACCES, "no"), host="127.0.0.1", port=80) == (
        "health.port",
        "is 80, which cannot be used on 127.0.0.1 (permission denied); set another port",
    )


async def test_something_else_on_the_port_is_not_taken_for_the_bot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    monkeypatch.chdir(tmp_path)
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = str(server.sockets[0].getsockname()[1])
        for name, value in {"DISCORD__TOKEN": "token", "PIKZELS__API_KEY": KEY, "HEALTH__PORT": port}.items():
            monkeypatch.setenv(f"BOT_{name}", value)
        assert await ask() == 1
    assert capsys.readouterr().err == f"What answers on 127.0.0.1 port {port} is not this bot.\n"


def test_the_command_does_not_load_the_library_of_discord() -> None:
    loads = "import sys, bot.cli.health; print({'discord', 'aiohttp', 'PIL'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", loads], check=True, capture_output=True).stdout == b"set()\n"
