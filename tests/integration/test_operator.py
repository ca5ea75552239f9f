"""The operator: /operator, the budget, and an empty balance from the first refusal to the refill."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from bot import __version__
from bot.domain.models import require
from sandbox import discord_server
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import books as stored_rows
from tests.support.e2e import running

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.support.e2e import Live
    from tests.support.servers import Servers

OPERATOR = 77
HERE = {"users": [OPERATOR], "server": discord_server.GUILD_ID}
EMPTY = Reply.error("INSUFFICIENT_CREDITS")


def operated(folder: Path, monkeypatch: pytest.MonkeyPatch, **sections: Any) -> AbstractAsyncContextManager[Live]:
    return running(folder, monkeypatch, **{"operator": HERE, **sections})


async def answer(live: Live, command: str, *, user_id: int = OPERATOR, **options: Any) -> str:
    """What only the person sees."""
    interaction = await live.discord.slash(f"operator {command}", options=options, user_id=user_id)
    await interaction.wait(lambda i: i.message is not None)
    message = require(interaction.message)
    assert message.ephemeral
    return message.content


async def refused(live: Live, user_id: int = 1, **options: Any) -> str:
    """Why /thumbnail is not accepted."""
    interaction = await live.thumbnail(user_id=user_id, **options)
    await interaction.wait(lambda i: i.message is not None)
    message = require(interaction.message)
    assert message.ephemeral, message.content
    return message.content


def alerts(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [record.getMessage() for record in caplog.records]
    return [line.removeprefix("operator: ") for line in lines if line.startswith("operator: ")]


# --- the command -----------------------------------------------------------------------------------------------------


async def test_the_command_exists_in_the_operators_server_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    commands = servers.discord._state.commands
    async with operated(tmp_path, monkeypatch, around=servers):
        assert [command["name"] for command in commands.for_guild(discord_server.GUILD_ID)] == ["operator"]
        assert "operator" not in [command["name"] for command in commands.for_guild(None)]
    async with operated(tmp_path, monkeypatch, around=servers, operator={"users": [OPERATOR], "server": 4242}):
        assert commands.for_guild(discord_server.GUILD_ID) == []
        assert [command["name"] for command in commands.for_guild(4242)] == ["operator"]
    async with running(tmp_path, monkeypatch, around=servers):
        assert commands.for_guild(4242) == []


@pytest.mark.parametrize("command", ["status", "pause", "resume", "spend", "unknown", "block", "unblock", "forget"])
async def test_nobody_else_can_use_it_whatever_their_permissions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    options = {
        "pause": {"reason": "mine"},
        "block": {"id": "123456789012345678", "kind": "member", "reason": "x"},
        "unblock": {"id": "123456789012345678", "kind": "member"},
        "forget": {"user": "123456789012345678"},
    }
    async with operated(tmp_path, monkeypatch) as live:
        said = await answer(live, command, user_id=1, **options.get(command, {}))
        assert said == "Only the operator of this bot can do that."
        await live.made()


async def test_a_pause_lasts_over_a_restart_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    async with operated(tmp_path, monkeypatch, around=servers) as live:
        said = await answer(live, "pause", reason="moving to `another` @everyone account")
        assert "Members read: `moving to ˋanotherˋ @everyone account`" in said
    async with operated(tmp_path, monkeypatch, around=servers) as live:
        text = await refused(live)
        assert text == "The bot is paused: `moving to ˋanotherˋ @everyone account` You were not charged."
        assert (await answer(live, "status")).startswith("**Paused**: `moving to")
        assert await answer(live, "resume") == "Accepting requests."
        await live.made()
    async with operated(tmp_path, monkeypatch, around=servers) as live:
        assert (await answer(live, "status")).startswith("**Accepting requests**")
        rows = await live.app.storage.database.run("SELECT actor, action, details FROM audit ORDER BY id")
    assert [(row["actor"], row["action"]) for row in rows] == [
        (OPERATOR, "operator pause"),
        (OPERATOR, "operator resume"),
    ]


async def test_the_status_names_the_version_and_the_last_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with operated(tmp_path, monkeypatch) as live:
        assert (await answer(live, "status")).endswith(f"**Last backup**: none yet\n**Version**: {__version__}")
        made = await live.app.storage.backups.make()
        size = f"{made.size / 1024**2:.1f} MB"
        assert f"**Last backup**: <t:{int(made.at.timestamp())}:R> ({size})" in await answer(live, "status")


async def test_what_was_spent_is_listed_by_server_and_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with operated(tmp_path, monkeypatch, budget={"daily_dollars": 2}) as live:
        await live.made(user_id=1, model="pkz_4")
        await live.made(user_id=1)
        await live.made(user_id=2)
        live.api.script(Reply.error("GENERATION_REJECTED"))
        await live.said(user_id=3)
        await live.app.use_case.recovery.idle(10)
        for period in ("today", "month"):
            said = await answer(live, "spend", period=period)
            assert f"- server `{discord_server.GUILD_ID}`: $0.62, 3 credits" in said
            assert "<@3>" not in said, "whoever got nothing is not listed"
            assert said.index("- <@1>: $0.49, 2 credits") < said.index("- <@2>: $0.13, 1 credit")
        assert "Spent today**: $0.62 of $2.00" in await answer(live, "status")


async def test_an_unknown_outcome_counts_as_paid_until_the_operator_knows_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with operated(tmp_path, monkeypatch) as live:
        assert await answer(live, "unknown") == "There is nothing to reconcile."
        jobs = []
        for _ in range(2):
            live.api.script(Reply.reset())
            jobs.append(await live.job(await live.said()))
        first, second = (job.id for job in jobs)
        listed = await answer(live, "unknown")
        assert f"- `#{first}` · sent <t:" in listed
        assert f"- `#{second}`" in listed
        assert "Spent today**: $0.26" in await answer(live, "status")
        said = await answer(live, "unknown", job=f"#{first}", outcome="free")
        assert said.startswith(f"`#{first}` is recorded as free.")
        assert second in said
        assert f"`#{first}` · sent" not in said
        assert "Spent today**: $0.13" in await answer(live, "status")
        assert (await answer(live, "unknown", job=first, outcome="free")).startswith(f"`{first}` is not a job to")
        assert "nothing to reconcile" in await answer(live, "unknown", job=second, outcome="paid")
        assert "Spent today**: $0.13" in await answer(live, "status")
        assert f"server `{discord_server.GUILD_ID}`: $0.13, 0 credits" in await answer(live, "spend")
        made = await live.job(await live.made())
        assert "is not a job to reconcile" in await answer(live, "unknown", job=made.id, outcome="free")


async def test_a_person_and_a_server_can_be_blocked_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    person, server = "100000000000000007", str(discord_server.GUILD_ID)
    async with operated(tmp_path, monkeypatch) as live:
        said = await answer(live, "block", id=f"<@{person}>", kind="member", reason="spam", days=2)
        assert said.startswith(f"<@{person}> is blocked.\n**Blocked everywhere**\n- <@{person}>: `spam`, until <t:")
        text = await refused(live, user_id=int(person))
        assert text.startswith("You can't use the bot. This ends <t:")
        assert text.endswith("Reason: `spam` You were not charged.")
        await live.made()
        assert "Server" in await answer(live, "block", id=server.rjust(15, "0"), kind="server", reason="a test")
        assert "This server can't use the bot." in await refused(live)
        assert "is no longer blocked" in await answer(live, "unblock", id=server.rjust(15, "0"), kind="server")
        await live.made()
        assert "was not blocked" in await answer(live, "unblock", id="100000000000000008", kind="member")
        assert "isn't an id of Discord" in await answer(live, "block", id="somebody-i-know", kind="member", reason="x")


async def test_a_person_can_be_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    person = 100_000_000_000_000_007
    async with operated(tmp_path, monkeypatch) as live:
        message = await live.made(user_id=person, prompt="mine alone")
        await live.job(message)
        interaction = await live.discord.slash("operator forget", options={"user": str(person)}, user_id=OPERATOR)
        await interaction.wait(lambda i: i.message is not None and "is deleted." in i.message.content)
        assert require(interaction.message).ephemeral
        rows = await live.app.storage.database.run("SELECT user_id, request FROM jobs")
        assert [row["user_id"] for row in rows] == [0]
        assert "mine alone" not in rows[0]["request"]
        assert await live.left(person) == 9, "what was used stays used"


# --- the budget ------------------------------------------------------------------------------------------------------


async def test_the_operator_is_warned_at_80_percent_and_requests_are_refused_at_100(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with operated(tmp_path, monkeypatch, budget={"daily_dollars": 0.65}) as live:
        for _ in range(3):
            await live.made()
        await live.app.use_case.recovery.idle(10)
        assert alerts(caplog) == []
        for _ in range(2):
            await live.made()
        for user_id in (1, 2):
            text = await refused(live, user_id=user_id)
            assert text.startswith("The bot's budget for today is used up. Resets <t:")
            assert text.endswith("You were not charged.")
        soon, full = alerts(caplog)
        assert soon.startswith("the budget for today is 80 % used ($0.52 of $0.65); at 100 % requests are refused")
        assert full.startswith("the budget for today is 100 % used ($0.65 of $0.65); requests are refused, resets")
    jobs, _ = stored_rows(tmp_path)
    assert len(jobs) == 5


async def test_a_released_request_gives_its_money_back_unless_it_may_have_been_paid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with operated(tmp_path, monkeypatch, budget={"daily_dollars": 0.26}) as live:
        live.api.script(Reply.error("GENERATION_REJECTED"))
        await live.said()
        assert "Spent today**: $0.00" in await answer(live, "status")
        live.api.script(Reply.reset())
        await live.said()
        await live.made()
        assert "budget for today is used up" in await refused(live)


# --- an empty balance ------------------------------------------------------------------------------------------------


async def test_an_empty_balance_with_ten_people_waiting_and_a_refill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with operated(tmp_path, monkeypatch, pikzels={"concurrency": 1}) as live:
        live.api.script(replace(EMPTY, held=True))
        asked = [await live.thumbnail(user_id=101)]
        await live.api.called(1)
        for user_id in range(102, 111):
            asked.append(await live.thumbnail(user_id=user_id))
            await asked[-1].wait(lambda i: i.message is not None)
        live.api.release()
        for interaction in asked:
            await interaction.wait(lambda i: "run out of image credits" in require(i.message).content)
            assert "You were not charged." in require(interaction.message).content
        late = await refused(live, user_id=111)
        assert late.startswith("The bot has run out of image credits; its operator has been told. Try again <t:")
        await live.app.use_case.recovery.idle(10)
        [line] = alerts(caplog)
        assert line.startswith("the Pikzels balance is empty; new requests are rejected, next trial ")
        assert line.endswith("; 9 people were waiting and told")
        assert "**Requests are refused**: the balance is empty" in await answer(live, "status")
        assert len(live.api.calls) == 1
        said = await answer(live, "resume")
        assert said == "Accepting requests; no longer assumed: the balance is empty."
        people = range(101, 112)
        await live.discord.wait(lambda discord: all(discord.direct(user_id) for user_id in people))
        told = [[message.content for message in live.discord.direct(user_id)] for user_id in people]
        where = f"<#{asked[0].origin.channel_id}>"
        assert told == [[f"The bot has image credits again. You can try again in {where}."]] * 11
        await live.made(user_id=101)
    _, entries = stored_rows(tmp_path)
    assert sum(entry["held"] for entry in entries) == 0
    assert sum(entry["spent"] for entry in entries) == 1


async def test_after_a_restart_the_first_image_tells_those_who_were_refused_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    async with operated(tmp_path, monkeypatch, around=servers) as live:
        live.api.script(EMPTY)
        await live.thumbnail(user_id=5)
        await live.api.called(1)
        await live.app.use_case.recovery.idle(10)
    async with operated(tmp_path, monkeypatch, around=servers) as live:
        assert "the balance is empty" in await answer(live, "status")
        await live.made(user_id=6)
        await live.discord.wait(lambda discord: bool(discord.direct(5)))
        assert len(live.discord.direct(5)) == 1


async def test_with_the_setting_off_nobody_is_told_of_a_refill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with operated(tmp_path, monkeypatch, budget={"notify_members": False}) as live:
        live.api.script(EMPTY)
        await live.thumbnail(user_id=5)
        await live.api.called(1)
        await live.app.use_case.recovery.idle(10)
        await answer(live, "resume")
        await live.made(user_id=6)
        assert live.discord.direct(5) == []
        assert await live.app.storage.database.run("SELECT * FROM waiting_for_balance") == []


# --- where and for whom ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["thumbnail", "quota", "history"])
async def test_in_a_server_that_is_not_offered_the_bot_says_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    async with running(tmp_path, monkeypatch, access={"servers": [4242]}) as live:
        options = {"image": discord_server.Upload("a.png", 1000, "image/png")} if command == "thumbnail" else {}
        interaction = await live.discord.slash(command, options=options, user_id=1)
        await interaction.wait(lambda i: i.message is not None)
        message = require(interaction.message)
        assert message.content == "This bot isn't available in this server. You were not charged."
        assert message.ephemeral
    jobs, _ = stored_rows(tmp_path)
    assert jobs == []


async def test_a_reaction_in_a_server_that_is_no_longer_offered_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    async with running(tmp_path, monkeypatch, around=servers) as live:
        first = await live.made()
        await live.job(first)
    async with running(tmp_path, monkeypatch, around=servers, access={"servers": [4242]}) as live:
        await live.discord.react(first, "🔁", user_id=2)
        await live.discord.wait(lambda discord: bool(discord.direct(2)))
        assert "This bot isn't available in this server." in live.discord.direct(2)[0].content
        assert len(live.api.calls) == 1
