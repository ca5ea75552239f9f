"""The program as a process: started, stopped, killed; the books are read from the file it leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from sandbox import discord_server, pikzels_server
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import KEY, PHOTO, books, png

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@dataclass(slots=True)
class House:
    """A Discord and a Pikzels that outlive the bot, and a folder it keeps its things in."""

    discord: discord_server.DiscordServer
    api: pikzels_server.StandIn
    folder: Path
    children: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def start(self, **settings: str) -> asyncio.subprocess.Process:
        """Start the bot and wait until it listens."""
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
            "-m",
            "sandbox.discord_server",
            "run",
            env=environment,
            stderr=asyncio.subprocess.PIPE,
        )
        self.children.append(child)
        return child

    async def kill(self, child: asyncio.subprocess.Process) -> None:
        """kill -9, and wait until Discord has noticed."""
        child.kill()
        await child.wait()
        await self.discord.gone(10)

    async def thumbnail(self, **options: Any) -> discord_server.Interaction:
        return await self.discord.slash("thumbnail", options={"image": PHOTO, **options}, user_id=1)

    def books(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        return books(self.folder / "data")

    def entries(self) -> list[tuple[str, int, int]]:
        return [(entry["kind"], entry["held"], entry["spent"]) for entry in self.books()[1]]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with discord_server.serve() as discord, pikzels_server.serve(api_key=KEY, output=png()) as api:
        standing = House(discord, api, tmp_path)
        yield standing
        for child in standing.children:
            if child.returncode is None:
                child.kill()
            await child.communicate()


async def stopped(child: asyncio.subprocess.Process, name: signal.Signals = signal.SIGTERM) -> str:
    """Ask the child to stop; returns its log. Fails when it does not leave with 0."""
    child.send_signal(name)
    return await left(child, 0)


async def left(child: asyncio.subprocess.Process, code: int) -> str:
    _, errors = await asyncio.wait_for(child.communicate(), 30)
    assert child.returncode == code, errors.decode()
    return errors.decode()


def has_picture(interaction: discord_server.Interaction) -> bool:
    return interaction.message is not None and bool(interaction.message.attachments)


def says(text: str) -> Any:
    return lambda interaction: interaction.message is not None and text in interaction.message.content


HELD, CHARGED, RELEASED = ("hold", 1, 0), ("charge", -1, 1), ("release", -1, 0)


async def test_killed_while_the_provider_answers_it_never_asks_again_and_charges_nobody(house: House) -> None:
    house.api.script(Reply.hold())
    child = await house.start()
    interaction = await house.thumbnail()
    await house.api.called(1)
    await house.kill(child)
    again = await house.start()
    await interaction.wait(says("lost contact with the image service. Try again. You were not charged."), 10)
    log = await stopped(again)
    [job] = house.books()[0]
    assert (len(house.api.calls), job["state"], job["reason"]) == (1, "released", "outcome_unknown")
    assert house.entries() == [HELD, RELEASED]
    assert f"job {job['id']}: outcome_unknown" in log


async def test_killed_while_it_fetches_the_picture_it_delivers_after_the_restart(house: House) -> None:
    house.api.script_output(Reply.hold())
    child = await house.start()
    interaction = await house.thumbnail()
    await house.api.downloaded(1)
    await house.kill(child)
    again = await house.start()
    await interaction.wait(has_picture, 10)
    await stopped(again)
    assert len(house.api.calls) == 1
    assert house.entries() == [HELD, CHARGED]
    assert list((house.folder / "data" / "spool").iterdir()) == []


async def test_killed_while_it_uploads_the_picture_it_delivers_after_the_restart(house: House) -> None:
    house.discord.fail("PATCH", "*", reset=True, times=2)
    child = await house.start()
    interaction = await house.thumbnail()
    await house.discord.wait(lambda d: sum(seen.method == "PATCH" for seen in d.requests) == 2, 10)
    await house.kill(child)
    assert [path.suffix for path in (house.folder / "data" / "spool").iterdir()] == [".png"]
    again = await house.start()
    await interaction.wait(has_picture, 10)
    await stopped(again)
    assert (len(house.api.calls), len(house.api.downloads)) == (1, 1)
    assert house.entries() == [HELD, CHARGED]


async def test_killed_after_discord_took_the_picture_it_charges_once_and_shows_one(house: House) -> None:
    house.discord.fail("PATCH", "*", reset=True, after=True, times=2)
    child = await house.start()
    interaction = await house.thumbnail()
    await house.discord.wait(lambda d: sum(seen.method == "PATCH" for seen in d.requests) == 2, 10)
    await house.kill(child)
    again = await house.start()
    await house.discord.wait(lambda d: sum(seen.method == "PATCH" for seen in d.requests) == 3, 10)
    await stopped(again)
    assert has_picture(interaction)
    assert len(house.discord.messages) == 1
    assert house.entries() == [HELD, CHARGED]


async def test_killed_while_a_request_waits_in_line_it_says_so_after_the_restart(house: House) -> None:
    house.api.script(Reply.hold())
    child = await house.start(PIKZELS__CONCURRENCY="1")
    await house.thumbnail()
    await house.api.called(1)
    waiting = await house.thumbnail()
    await waiting.wait(says("Queued"), 10)
    # the message is there; the kill comes once the bot has written down which one it is
    await house.discord.slash("quota", user_id=1)
    await asyncio.wait_for(house.discord.interactions[max(house.discord.interactions)].acked.wait(), 10)
    await house.kill(child)
    again = await house.start()
    await waiting.wait(says("The bot restarted before this request started. Try again."), 10)
    await stopped(again)
    assert len(house.api.calls) == 1
    assert sorted(house.entries()) == sorted([HELD, HELD, RELEASED, RELEASED])


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
async def test_asked_to_stop_it_finishes_what_is_paid_for_and_refuses_the_rest(
    house: House, name: signal.Signals
) -> None:
    house.api.script(Reply.hold())
    child = await house.start(PIKZELS__CONCURRENCY="1")
    running = await house.thumbnail()
    await house.api.called(1)
    waiting = await house.thumbnail()
    await waiting.wait(says("Queued"), 10)
    child.send_signal(name)
    await waiting.wait(says("The bot restarted before this request started."), 10)
    late = await house.thumbnail()
    await late.wait(says("The bot is restarting. Try again in a minute. You were not charged."), 10)
    house.api.release()
    await running.wait(has_picture, 10)
    await left(child, 0)
    assert sorted(house.entries()) == sorted([HELD, HELD, CHARGED, RELEASED])


async def test_asked_to_stop_it_leaves_in_time_even_when_the_provider_never_answers(house: House) -> None:
    house.api.script(Reply.hang())
    child = await house.start(SHUTDOWN__GRACE="0.5")
    interaction = await house.thumbnail()
    await house.api.called(1)
    await stopped(child)
    assert says("lost contact")(interaction)
    assert house.entries() == [HELD, RELEASED]


async def test_a_wrong_setting_is_one_sentence_and_nothing_is_opened(house: House) -> None:
    child = await house.launch(PIKZELS__CONCURRENCY="many")
    said = await left(child, 78)
    assert said.startswith("Setting pikzels.concurrency ")
    assert said.count("\n") == 1
    assert not (house.folder / "data").exists()
    assert house.discord.identifies == 0


async def test_a_missing_token_is_named(house: House) -> None:
    said = await left(await house.launch(DISCORD__TOKEN=""), 78)
    assert said == "Setting discord.token is missing; set it in config.toml or as BOT_DISCORD__TOKEN.\n"


async def test_a_second_instance_on_the_same_folder_leaves_before_it_meets_discord(house: House) -> None:
    await house.start()
    said = await left(await house.launch(), 74)
    assert said.endswith("The database is in use by another instance.\n")
    assert house.discord.identifies == 1


async def test_a_token_that_discord_refuses_ends_with_one_sentence(tmp_path: Path) -> None:
    async with discord_server.serve(token="another") as discord, pikzels_server.serve(api_key=KEY) as api:
        child = await House(discord, api, tmp_path).launch()
        said = await left(child, 78)
    assert said.endswith("Setting discord.token is refused by Discord.\n")


async def test_a_client_that_fails_to_connect_is_replaced_by_a_fresh_one(house: House) -> None:
    house.discord.fail("GET", "/users/@me", status=503, times=2)
    child = await house.start()
    interaction = await house.thumbnail()
    await interaction.wait(has_picture, 10)
    log = await stopped(child)
    assert log.count("starting a fresh one") == 2
    assert house.discord.identifies == 1


@asynccontextmanager
async def port_taken() -> AsyncIterator[int]:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_a_health_port_that_is_taken_is_named(house: House) -> None:
    async with port_taken() as port:
        said = await left(await house.launch(HEALTH__PORT=str(port)), 78)
    assert said.endswith("Setting health.port cannot be used (OSError).\n")


async def test_commands_are_synced_when_they_changed_and_only_then(house: House) -> None:
    await stopped(await house.start())
    await stopped(await house.start())
    puts = [seen for seen in house.discord.requests if seen.method == "PUT"]
    assert len(puts) == 1
    await stopped(await house.start(QUOTA__COSTS__PKZ_4="3"))  # shown in the choice of models
    puts = [seen for seen in house.discord.requests if seen.method == "PUT"]
    assert len(puts) == 2
