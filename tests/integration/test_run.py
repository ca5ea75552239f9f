"""The bot as a process that is started, stopped, and killed; the tests read the ledger from its database file."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bot.domain.models import require
from bot.ops import control
from bot.storage import verification
from sandbox import discord_server, pikzels_server
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import KEY, PHOTO, png
from tests.support.e2e import books as stored_rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass(slots=True)
class BotHost:
    """A simulated Discord and provider that outlive the bot, and the bot's data folder."""

    discord: discord_server.DiscordServer
    api: pikzels_server.StandIn
    folder: Path
    program: tuple[str, ...] = ("-m", "sandbox.launch")
    children: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def start(self, **settings: str) -> asyncio.subprocess.Process:
        """Start the bot and wait until it is connected."""
        child = await self.launch(**settings)
        await self.discord.ready(30)
        return child

    async def launch(self, **settings: str) -> asyncio.subprocess.Process:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("BOT_")},
            **self.discord.environment(),
            "BOT_DISCORD__TOKEN": "token",
            "BOT_PIKZELS__API_KEY": KEY,
            "BOT_PIKZELS__BASE_URL": self.api.base_url,
            "BOT_STORAGE__FOLDER": str(self.folder / "data"),
            **{f"BOT_{name}": value for name, value in settings.items()},
        }
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *self.program,
            "run",
            env=environment,
            stderr=asyncio.subprocess.PIPE,
        )
        self.children.append(child)
        return child

    async def kill(self, child: asyncio.subprocess.Process) -> None:
        """Send SIGKILL, and wait until Discord notices the disconnect."""
        child.kill()
        await child.wait()
        await self.discord.gone(10)

    async def thumbnail(self, **options: Any) -> discord_server.Interaction:
        return await self.discord.slash("thumbnail", options={"image": PHOTO, **options}, user_id=1)

    def stored_rows(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The jobs and the ledger entries in the database file."""
        return stored_rows(self.folder / "data")

    def entries(self) -> list[tuple[str, int, int]]:
        return [(entry["kind"], entry["held"], entry["spent"]) for entry in self.stored_rows()[1]]


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[BotHost]:
    async with discord_server.serve() as discord, pikzels_server.serve(api_key=KEY, output=png()) as api:
        host = BotHost(discord, api, tmp_path)
        yield host
        for child in host.children:
            if child.returncode is None:
                child.kill()
            await child.communicate()


async def stop(child: asyncio.subprocess.Process, name: signal.Signals = signal.SIGTERM) -> str:
    """Send the child a stop signal; return its log. Fails unless the exit code is 0."""
    child.send_signal(name)
    return await wait_for_exit(child, 0)


async def wait_for_exit(child: asyncio.subprocess.Process, code: int) -> str:
    _, errors = await asyncio.wait_for(child.communicate(), 30)
    assert child.returncode == code, errors.decode()
    return errors.decode()


def has_image(interaction: discord_server.Interaction) -> bool:
    return interaction.message is not None and bool(interaction.message.attachments)


def shows(text: str) -> Any:
    return lambda interaction: interaction.message is not None and text in interaction.message.content


HOLD, CHARGE, RELEASE = ("hold", 1, 0), ("charge", -1, 1), ("release", -1, 0)


async def test_after_a_kill_during_the_call_it_never_calls_again_and_charges_nobody(host: BotHost) -> None:
    host.api.script(Reply.hold())
    child = await host.start()
    interaction = await host.thumbnail()
    await host.api.called(1)
    await host.kill(child)
    again = await host.start()
    await interaction.wait(shows("lost contact with the image service. Try again. You were not charged."), 10)
    log = await stop(again)
    [job] = host.stored_rows()[0]
    assert (len(host.api.calls), job["state"], job["reason"]) == (1, "released", "outcome_unknown")
    assert host.entries() == [HOLD, RELEASE]
    assert f"job {job['id']}: outcome_unknown" in log


async def test_after_a_kill_during_the_download_it_delivers_after_the_restart(host: BotHost) -> None:
    host.api.script_output(Reply.hold())
    child = await host.start()
    interaction = await host.thumbnail()
    await host.api.downloaded(1)
    await host.kill(child)
    again = await host.start()
    await interaction.wait(has_image, 10)
    await stop(again)
    assert len(host.api.calls) == 1
    assert host.entries() == [HOLD, CHARGE]
    assert list((host.folder / "data" / "spool").iterdir()) == []


async def test_after_a_kill_during_the_upload_it_delivers_after_the_restart(host: BotHost) -> None:
    host.discord.fail("PATCH", "*", reset=True, times=2)
    child = await host.start()
    interaction = await host.thumbnail()
    await host.discord.wait(lambda d: sum(seen.method == "PATCH" for seen in d.requests) == 2, 10)
    await host.kill(child)
    assert [path.suffix for path in (host.folder / "data" / "spool").iterdir()] == [".png"]
    again = await host.start()
    await interaction.wait(has_image, 10)
    await stop(again)
    assert (len(host.api.calls), len(host.api.downloads)) == (1, 1)
    assert host.entries() == [HOLD, CHARGE]


async def test_after_a_kill_following_the_upload_it_charges_once_and_shows_one_image(host: BotHost) -> None:
    host.discord.fail("PATCH", "*", reset=True, after=True, times=2)
    child = await host.start()
    interaction = await host.thumbnail()
    await host.discord.wait(lambda d: sum(seen.method == "PATCH" for seen in d.requests) == 2, 10)
    await host.kill(child)
    again = await host.start()
    await host.discord.wait(lambda d: sum(seen.method == "PATCH" for seen in d.requests) == 3, 10)
    await stop(again)
    assert has_image(interaction)
    assert len(host.discord.messages) == 1
    assert host.entries() == [HOLD, CHARGE]


async def test_after_a_kill_a_waiting_request_is_released_and_told_after_the_restart(host: BotHost) -> None:
    host.api.script(Reply.hold())
    child = await host.start(PIKZELS__CONCURRENCY="1")
    await host.thumbnail()
    await host.api.called(1)
    waiting = await host.thumbnail()
    await waiting.wait(shows("Queued"), 10)
    # the message is shown; kill the bot only after it has stored the message id
    await host.discord.slash("quota", user_id=1)
    await asyncio.wait_for(host.discord.interactions[max(host.discord.interactions)].acked.wait(), 10)
    await host.kill(child)
    again = await host.start()
    await waiting.wait(shows("The bot restarted before this request started. Try again."), 10)
    await stop(again)
    assert len(host.api.calls) == 1
    assert sorted(host.entries()) == sorted([HOLD, HOLD, RELEASE, RELEASE])


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_signal_finishes_paid_requests_and_refuses_the_rest(host: BotHost, name: signal.Signals) -> None:
    host.api.script(Reply.hold())
    child = await host.start(PIKZELS__CONCURRENCY="1")
    running = await host.thumbnail()
    await host.api.called(1)
    waiting = await host.thumbnail()
    await waiting.wait(shows("Queued"), 10)
    child.send_signal(name)
    await waiting.wait(shows("The bot restarted before this request started."), 10)
    late = await host.thumbnail()
    await late.wait(shows("The bot is restarting. Try again in a minute. You were not charged."), 10)
    host.api.release()
    await running.wait(has_image, 10)
    await wait_for_exit(child, 0)
    assert sorted(host.entries()) == sorted([HOLD, HOLD, CHARGE, RELEASE])


async def test_a_stop_signal_ends_the_bot_in_time_even_when_the_provider_never_answers(host: BotHost) -> None:
    host.api.script(Reply.hang())
    child = await host.start(SHUTDOWN__GRACE="0.5")
    interaction = await host.thumbnail()
    await host.api.called(1)
    await stop(child)
    assert shows("lost contact")(interaction)
    assert host.entries() == [HOLD, RELEASE]


async def test_an_invalid_setting_stops_startup_with_one_sentence(host: BotHost) -> None:
    child = await host.launch(PIKZELS__CONCURRENCY="many")
    log = await wait_for_exit(child, 78)
    assert log.startswith("Setting pikzels.concurrency ")
    assert log.count("\n") == 1
    assert not (host.folder / "data").exists()
    assert host.discord.identifies == 0


async def test_a_missing_token_is_named(host: BotHost) -> None:
    log = await wait_for_exit(await host.launch(DISCORD__TOKEN=""), 78)
    assert log == "Setting discord.token is missing; set it in config.toml or as BOT_DISCORD__TOKEN.\n"


async def test_a_second_instance_on_the_same_folder_exits_before_it_connects(host: BotHost) -> None:
    await host.start()
    log = await wait_for_exit(await host.launch(), 74)
    assert log.endswith("The database is in use by another instance.\n")
    assert host.discord.identifies == 1


async def test_a_command_gets_a_backup_from_the_running_bot_until_it_stops(host: BotHost) -> None:
    child = await host.start()
    socket = host.folder / "data" / control.NAME
    answer = require(await asyncio.to_thread(control.ask, socket, "backup"))
    assert verification.examined(Path(answer["path"])).problem is None
    await stop(child)
    assert not socket.exists()
    assert await asyncio.to_thread(control.ask, socket, "backup") is None


async def test_a_refused_token_stops_startup_with_one_sentence(tmp_path: Path) -> None:
    async with discord_server.serve(token="another") as discord, pikzels_server.serve(api_key=KEY) as api:
        child = await BotHost(discord, api, tmp_path).launch()
        log = await wait_for_exit(child, 78)
    assert log.endswith("Setting discord.token is refused by Discord.\n")


async def test_a_client_that_fails_to_connect_is_replaced(host: BotHost) -> None:
    host.discord.fail("GET", "/users/@me", status=503, times=2)
    child = await host.start()
    interaction = await host.thumbnail()
    await interaction.wait(has_image, 10)
    log = await stop(child)
    assert log.count("(DiscordServerError 503); starting a fresh one") == 2
    assert "Traceback" not in log
    assert host.discord.identifies == 1


async def test_every_new_session_is_counted_across_restarts(host: BotHost) -> None:
    for _ in range(2):
        await stop(await host.start())
    with closing(sqlite3.connect(host.folder / "data" / "pikzels-bot.sqlite3")) as connection:
        [(counted,)] = connection.execute("SELECT value FROM facts WHERE name = 'identified'")
    assert len(json.loads(counted)) == host.discord.identifies == 2


@asynccontextmanager
async def occupied_port() -> AsyncIterator[int]:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_health_port_in_use_is_named(host: BotHost) -> None:
    async with occupied_port() as port:
        log = await wait_for_exit(await host.launch(HEALTH__PORT=str(port)), 78)
    problem = "which is in use by another program on 127.0.0.1; end that program, or set another port"
    assert log.endswith(f"Setting health.port is {port}, {problem}.\n")


async def test_commands_are_synced_only_when_they_change(host: BotHost) -> None:
    await stop(await host.start())
    await stop(await host.start())
    puts = [seen for seen in host.discord.requests if seen.method == "PUT"]
    assert len(puts) == 1
    await stop(await host.start(QUOTA__COSTS__PKZ_4="3"))  # the costs appear in the choices for `model`
    puts = [seen for seen in host.discord.requests if seen.method == "PUT"]
    assert len(puts) == 2


# --- what is loaded -------------------------------------------------------------------------------------------------

RARELY_NEEDED = {
    "PIL",  # only when an image is made smaller
    "prometheus_client",  # only with [health] port
    "aiohttp.web",
    "tqdm",  # only for commands that take long
    "matplotlib",  # only for the picture of /thumbnail-admin usage
    "sandbox.discord_server",  # or the figures of `benchmarks` would include it
    "email.mime",
}


@pytest.fixture
def _imports_are_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")


def imported(log: str) -> set[str]:
    """The modules that the interpreter has logged, and the packages that they are in."""
    names = [line.rpartition("|")[2].strip() for line in log.splitlines() if line.startswith("import time:")]
    return {name.rsplit(".", depth)[0] for name in names for depth in range(name.count(".") + 1)}


@pytest.mark.usefixtures("_imports_are_logged")
async def test_a_start_and_a_first_job_load_nothing_that_they_do_not_need(host: BotHost) -> None:
    child = await host.start()
    interaction = await host.thumbnail()
    await interaction.wait(has_image, 10)
    loaded = imported(await stop(child))
    assert {"bot.app", "discord", "aiohttp"} <= loaded
    assert not RARELY_NEEDED & loaded


@pytest.mark.usefixtures("_imports_are_logged")
async def test_what_the_health_endpoint_needs_is_loaded_with_a_port(host: BotHost) -> None:
    child = await host.start(HEALTH__PORT="0")
    assert {"prometheus_client", "aiohttp.web"} <= imported(await stop(child))


LOGS_COLLECTIONS = """
import gc, sys
from sandbox.launch import launch

gc.set_debug(gc.DEBUG_STATS)
sys.exit(launch(sys.argv[1:]))
"""


async def test_garbage_is_collected_once_the_start_is_over_and_not_before(host: BotHost) -> None:
    host.program = ("-c", LOGS_COLLECTIONS)
    child = await host.start()
    interaction = await host.thumbnail()
    await interaction.wait(has_image, 10)
    before, _, after = (await stop(child)).partition("logging in")
    assert after.count("gc: collecting generation 0") > 1
    assert "gc: collecting" not in before
