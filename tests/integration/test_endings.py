"""Every request has an ending that its requester sees, however late, and nothing delivered is lost by what follows."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

import pytest

from bot.domain.models import Generating, State, require
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import books as stored_rows
from tests.support.e2e import killed_at, pictures, running

if TYPE_CHECKING:
    from pathlib import Path

    from bot.discord_io.messenger import Messenger
    from sandbox.discord_server import DiscordServer, Interaction
    from tests.support.e2e import Live
    from tests.support.servers import Servers


@dataclass(slots=True)
class Clock:
    """A clock that can be set ahead."""

    hours: float = 0.0

    def __call__(self) -> datetime:
        return datetime.now(UTC) + timedelta(hours=self.hours)


def content(interaction: Interaction) -> str:
    return require(interaction.message).content


def chatter(discord: DiscordServer, count: int) -> None:
    for number in range(count):
        discord.say(str(number), user_id=77)


async def nothing(*_: object, **__: object) -> None:
    pass


async def answered_but_not_noted(folder: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers) -> Interaction:
    """A request whose reply Discord took, by a program that was killed before it had stored that."""
    async with running(folder, monkeypatch, around=servers, reach=killed_at("repository.sending")) as live:
        monkeypatch.setattr(live.app.use_case.outcomes, "release", nothing)
        interaction = await live.thumbnail()
        await interaction.wait(lambda i: i.message is not None)
    return interaction


async def generated_but_not_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers) -> Interaction:
    """A request whose picture is ready at the provider, by a program that was stopped before it could fetch it."""
    servers.api.always_output(Reply.raw(503))
    async with running(folder, monkeypatch, around=servers) as live:
        interaction = await live.thumbnail()
        await live.api.downloaded(1)
    servers.api.always_output(Reply.ok())
    return interaction


# --- the message of a request that nobody noted --------------------------------------------------------------------


async def test_an_unnoted_reply_is_found_behind_a_busy_hour_and_shows_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    chatter(servers.discord, 60)
    interaction = await answered_but_not_noted(tmp_path, monkeypatch, servers)
    chatter(servers.discord, 260)
    async with running(tmp_path, monkeypatch, around=servers, clock=Clock(1)) as live:
        await live.app.use_case.recovery.idle(10)
    assert "The bot restarted before this request started" in content(interaction)
    assert servers.discord.direct(1) == []


async def test_when_its_unnoted_reply_cannot_be_found_the_requester_hears_the_end_directly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    await answered_but_not_noted(tmp_path, monkeypatch, servers)
    servers.discord.fail("GET", "/channels/*/messages", status=403, code=50001, times=100)
    async with running(tmp_path, monkeypatch, around=servers, clock=Clock(1)) as live:
        await live.app.use_case.recovery.idle(10)
    [told] = servers.discord.direct(1)
    assert "The bot restarted before this request started. Try again. You were not charged." in told.content
    [job], _ = stored_rows(tmp_path)
    assert job["notified_at"] is not None


async def test_a_message_that_only_quotes_the_id_in_a_prompt_is_not_taken_for_the_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    interaction = await answered_but_not_noted(tmp_path, monkeypatch, servers)
    job_id = content(interaction).partition("#")[2].split()[0]
    servers.discord.delete_message(require(interaction.message).id)
    async with running(tmp_path, monkeypatch, around=servers) as live:
        quoting = await live.made(user_id=2, prompt=f"about #{job_id} and #{job_id}x")
        await live.app.use_case.recovery.idle(10)
        shown = quoting.content
    [job, _], _ = stored_rows(tmp_path)
    assert job["notified_at"] is not None
    assert quoting.content == shown
    assert quoting.attachments


async def test_in_a_channel_the_bot_cannot_see_the_end_is_told_by_direct_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    async with running(tmp_path, monkeypatch, clock=clock) as live:
        live.api.script(Reply.error("CONTENT_POLICY").after(0.3))
        interaction = await live.thumbnail()
        await live.api.called(1)
        clock.hours = 0.5  # the token is dead
        live.discord.fail("*", "/channels/*/messages*", status=403, code=50001)
        await live.discord.wait(lambda discord: bool(discord.direct(1)))
        [told] = live.discord.direct(1)
        await live.app.use_case.recovery.idle(10)
        assert "does not allow this image or prompt" in told.content
        assert "You were not charged." in told.content
        assert f"<#{interaction.origin.channel_id}>" in told.content
        assert told.components == []


# --- a picture that is late ----------------------------------------------------------------------------------------


LATE = "Your image is ready, but downloading it is taking longer than usual. You won't be charged unless it arrives."


async def test_a_picture_that_cannot_be_fetched_is_announced_as_late_with_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.jobs.progress.PAUSE", 0.1)
    monkeypatch.setattr("bot.jobs.progress.LATE", timedelta(seconds=0.3))
    async with running(tmp_path, monkeypatch) as live:
        live.api.script_output(*[Reply.reset()] * 3)
        interaction = await live.thumbnail()
        await interaction.wait(lambda i: i.message is not None and LATE in i.message.content)
        await interaction.wait(lambda i: "Next try <t:" in content(i))
        await interaction.wait(lambda i: bool(require(i.message).attachments), 20)
        assert await live.left() == 9
        assert LATE not in content(interaction)


async def test_after_a_restart_a_late_picture_is_announced_by_the_bot_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    monkeypatch.setattr("bot.jobs.progress.PAUSE", 0.1)
    interaction = await generated_but_not_fetched(tmp_path, monkeypatch, servers)
    servers.api.always_output(Reply.raw(503))
    async with running(tmp_path, monkeypatch, around=servers, clock=Clock(0.5)):  # the token is dead
        await interaction.wait(lambda i: LATE in content(i))


@pytest.mark.parametrize("hours", [0, 0.5], ids=["by token", "by the bot"])
async def test_a_picture_that_discord_has_already_is_not_announced_as_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers, *, hours: float
) -> None:
    monkeypatch.setattr("bot.jobs.progress.PAUSE", 0.1)
    monkeypatch.setattr("bot.jobs.progress.LATE", timedelta(0))
    async with running(tmp_path, monkeypatch, around=servers, reach=killed_at("repository.delivered")) as live:
        monkeypatch.setattr(live.app.use_case.outcomes, "internal_error", nothing)
        interaction = await live.thumbnail()
        await interaction.wait(lambda i: i.message is not None and bool(i.message.attachments))
    [lost] = (tmp_path / "spool").iterdir()
    lost.unlink()
    servers.api.script_output(*[Reply.reset()] * 3)
    before = len(servers.api.downloads)
    async with running(tmp_path, monkeypatch, around=servers, clock=Clock(hours)) as live:
        await live.app.use_case.recovery.idle(30)
        assert [
            edit.content for edit in require(interaction.message).history if "longer than usual" in edit.content
        ] == []
        assert await live.left() == 9
    assert len(servers.api.downloads) - before == 4


async def test_a_picture_that_arrives_in_time_is_never_announced_as_late(live: Live) -> None:
    message = await live.made()
    assert [edit.content for edit in message.history if "longer than usual" in edit.content] == []


async def test_a_late_progress_edit_takes_no_delivered_picture_away(live: Live) -> None:
    message = await live.made()
    job = await live.job(message)
    await messenger(live).show_progress(job, Generating(datetime.now(UTC)))
    assert "Generating" in message.content
    assert len(message.attachments) == 1


def messenger(live: Live) -> Messenger:
    return cast("Messenger", live.app.use_case.lifecycle._ports.messenger)


async def test_a_delivery_waits_for_the_progress_edit_that_is_in_flight(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    begun, answered = asyncio.Event(), asyncio.Event()
    message = await live.made()
    job = await live.job(message)
    real = messenger(live)._port  # type: ignore[attr-defined]  # behind the failpoints
    edit = real._methods.by_bot

    async def slow(job: object, shown: object) -> object:
        progress = "Generating" in shown.text  # type: ignore[attr-defined]
        if progress:
            begun.set()
            await answered.wait()
        order.append("progress" if progress else "end")
        return await edit(job, shown)

    monkeypatch.setattr(real._methods, "by_bot", slow)
    showing = asyncio.create_task(real.show_progress(job, Generating(datetime.now(UTC))))
    await begun.wait()
    showing.cancel()  # as at the end of the call
    with suppress(asyncio.CancelledError):
        await showing
    ending = asyncio.create_task(real.notify(job))
    await asyncio.sleep(0)
    answered.set()
    await ending
    assert order == ["progress", "end"]


# --- what is paid for is kept --------------------------------------------------------------------------------------


async def test_a_picture_on_disk_that_discord_refuses_for_a_day_is_kept_for_its_requester(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    async with running(tmp_path, monkeypatch, around=servers, shutdown={"grace": 0.1}) as live:
        live.api.script(Reply.hold())
        asked = await live.thumbnail()
        await live.api.called(1)
        servers.discord.fail("PATCH", f"/webhooks/*/{asked.token}/*", status=503, times=1000)
        servers.discord.fail("PATCH", "/channels/*", status=503, times=1000)
        live.api.release()
        await live.api.downloaded(1)
        await live.discord.wait(lambda discord: any(seen.method == "PATCH" for seen in discord.requests))
    async with running(tmp_path, monkeypatch, around=servers, clock=Clock(25), shutdown={"grace": 0.1}) as live:
        await live.discord.wait(lambda _: bool(list((tmp_path / "spool").iterdir())))
        async with asyncio.timeout(20):
            while not await live.app.storage.repository.parked_jobs(1):  # noqa: ASYNC110 - a row sends no signal
                await asyncio.sleep(0.05)
    async with running(tmp_path, monkeypatch, around=servers) as live:
        claim = await live.discord.slash("recover", user_id=1)
        await claim.wait(lambda i: any(message.attachments for message in (i.message, *i.followups) if message))
        await live.app.use_case.recovery.idle(10)
    [job], entries = stored_rows(tmp_path)
    assert job["state"] == "delivered"
    assert [entry["kind"] for entry in entries] == ["hold", "charge"]


async def test_a_fault_that_recurs_is_ended_once_the_provider_keeps_the_output_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()

    def fail(point: str) -> None:
        if point == "downloader.fetch":
            raise ZeroDivisionError

    async with running(tmp_path, monkeypatch, clock=clock, reach=fail) as live:
        interaction = await live.thumbnail()
        await live.api.called(1)
        await live.app.use_case.recovery.idle(10)
        assert "Generating" in content(interaction)
        clock.hours = 25
        await live.app.use_case.recovery.tidy()
        await live.app.use_case.recovery.idle(10)
        assert content(interaction).startswith("<@1> Something went wrong inside the bot; its operator has been told.")
        [job] = [await live.app.storage.repository.job(content(interaction).rpartition("#")[2])]
        assert require(job).state is State.RELEASED


# --- not twice -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("private", [False, True])
async def test_a_new_message_that_was_posted_before_a_kill_is_not_posted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers, *, private: bool
) -> None:
    discord = servers.discord
    discord.fail("PATCH", "*", status=403, code=50001, times=1000)
    async with running(tmp_path, monkeypatch, around=servers, reach=killed_at("repository.delivered")) as live:
        monkeypatch.setattr(live.app.use_case.outcomes, "internal_error", nothing)
        await live.thumbnail(private=private)
        await live.discord.wait(lambda discord: bool(pictures(discord)))
    discord.forget_nonces()
    async with running(tmp_path, monkeypatch, around=servers) as live:
        await live.app.use_case.recovery.idle(10)
        assert await live.left() == 9
    [shown] = pictures(discord)
    [job], entries = stored_rows(tmp_path)
    assert (job["state"], job["message_id"]) == ("delivered", shown.id)
    assert [entry["kind"] for entry in entries] == ["hold", "charge"]


# --- start ---------------------------------------------------------------------------------------------------------


async def test_commands_that_discord_refuses_keep_no_paid_picture_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    interaction = await generated_but_not_fetched(tmp_path, monkeypatch, servers)
    monkeypatch.setattr("bot.discord_io.command_sync._KEY", "another version")
    servers.discord.fail("PUT", "/applications/*/commands", status=403, code=50001)
    async with running(tmp_path, monkeypatch, around=servers) as live:
        await interaction.wait(lambda i: bool(require(i.message).attachments), 20)
        assert await live.left() == 9
        assert "operator: Discord did not register the commands (403/50001)" in caplog.text
        before = len(servers.discord.commands)
        await live.app.client.sync_commands()  # the next hour
        assert len(servers.discord.commands) == before


async def test_housekeeping_before_the_first_connection_recovers_by_the_rules_of_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    interaction = await generated_but_not_fetched(tmp_path, monkeypatch, servers)
    caplog.set_level(logging.INFO, "bot.jobs.recovery")
    async with running(tmp_path, monkeypatch, around=servers, connect=False) as live:
        await live.app.use_case.recovery.tidy()
        await live.app.use_case.recovery.tidy()
        await live.app.use_case.recovery.recover()
        assert caplog.text.count("recovered: 1 jobs go on") == 1
        await live.api.downloaded(2)
        await live.connect()
        await interaction.wait(lambda i: bool(require(i.message).attachments), 20)
        assert await live.left() == 9
