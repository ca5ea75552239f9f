"""/thumbnail-admin: each command answers in private, shows the state after the change, and writes down who made it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from bot.domain.models import Model
from sandbox.discord_server.payloads import CHANNEL_ID, GUILD_ID, ORDINARY_PERMISSIONS
from tests.support.e2e import PHOTO, Live, running

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox import discord_server

MANAGE_GUILD = 1 << 5
ADMIN = 50
AN_ID = "0b5c6a3e-1d2f-4c3b-9a8d-7e6f5a4b3c2d"
REFUSED = "Only people with Manage Server can use this command."

# Every subcommand with options that would work.
COMMANDS: dict[str, dict[str, Any]] = {
    "usage": {},
    "limit": {"whose": "everyone", "day": "1"},
    "grant": {"member": 1, "amount": 5, "reason": "a gift"},
    "block": {"member": 1, "reason": "spam"},
    "unblock": {"member": 1},
    "preset add": {"kind": "persona", "name": "Ann", "id": AN_ID},
    "preset remove": {"kind": "persona", "name": "Ann"},
    "preset list": {},
    "channel add": {"channel": 5},
    "channel remove": {"channel": 5},
    "channel list": {},
    "log": {"channel": 5},
    "defaults": {"spoiler": True},
}


@pytest.fixture
def daily_credits() -> int:
    return 4


@pytest.fixture
async def admin(live: Live) -> Live:
    """The bot, with its commands registered, so that the simulated Discord knows the types of their options."""
    await live.discord.commands_synced()
    live.discord.permissions[ADMIN] = ORDINARY_PERMISSIONS | MANAGE_GUILD
    return live


async def answer(interaction: discord_server.Interaction) -> str:
    await interaction.wait(lambda i: i.message is not None and bool(i.message.content), 10)
    assert interaction.message is not None
    assert interaction.message.ephemeral
    return interaction.message.content


async def run(live: Live, command: str, *, user_id: int = ADMIN, **options: Any) -> str:
    """What /thumbnail-admin answers, which only the admin sees."""
    return await answer(await live.discord.slash(f"thumbnail-admin {command}", options=options, user_id=user_id))


async def refusal(live: Live, *, user_id: int = 1, **origin: Any) -> str:
    """What a member is told instead of getting an image."""
    return await answer(await live.discord.slash("thumbnail", options={"image": PHOTO}, user_id=user_id, **origin))


async def audit(live: Live) -> list[dict[str, Any]]:
    rows = await live.app.storage.database.run("SELECT * FROM audit ORDER BY id")
    return [dict(row) | {"details": json.loads(row["details"])} for row in rows]


# --- who may ---------------------------------------------------------------------------------------------------------


def subcommands(options: list[dict[str, Any]], prefix: str = "") -> list[str]:
    """The names of all subcommands of a registered command."""
    names = []
    for option in options:
        name = f"{prefix}{option['name']}"
        names += subcommands(option["options"], f"{name} ") if option["type"] == 2 else [name]
    return names


async def test_the_command_is_registered_for_managers_of_servers(admin: Live) -> None:
    [command] = [one for one in admin.discord.commands if one["name"] == "thumbnail-admin"]
    assert command["default_member_permissions"] == MANAGE_GUILD
    assert command["contexts"] == [0]
    assert sorted(subcommands(command["options"])) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_member_without_manage_server_changes_nothing(admin: Live, command: str) -> None:
    assert await run(admin, command, user_id=1, **COMMANDS[command]) == REFUSED
    assert await audit(admin) == []


@pytest.mark.parametrize("command", COMMANDS)
async def test_an_admin_is_answered_and_a_change_is_written_down(admin: Live, command: str) -> None:
    await run(admin, "preset add", **COMMANDS["preset add"])
    assert await run(admin, command, **COMMANDS[command]) != REFUSED
    rows = (await audit(admin))[1:]
    expected = [] if command in ("usage", "preset list", "channel list") else [(ADMIN, f"thumbnail-admin {command}")]
    assert [(row["actor"], row["action"]) for row in rows] == expected
    assert all(row["guild_id"] == GUILD_ID and row["target"] == COMMANDS[command].get("member", 0) for row in rows)


@pytest.mark.parametrize("command", COMMANDS)
async def test_in_a_server_that_the_operator_does_not_serve_nothing_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    async with running(tmp_path, monkeypatch, access={"servers": [5]}) as live:
        await live.discord.commands_synced()
        live.discord.permissions[ADMIN] = MANAGE_GUILD
        said = await run(live, command, **COMMANDS[command])
        assert said.startswith("This bot isn't available in this server.")
        assert await audit(live) == []


# --- limits ----------------------------------------------------------------------------------------------------------


async def test_without_options_the_limits_are_shown(admin: Live) -> None:
    assert await run(admin, "limit") == (
        "**Whole server**: no limit per day · no limit per month\n"
        "**Each member**: 4 credits in all servers together (the operator's limit) per day · no limit per month"
    )
    assert await audit(admin) == []


async def test_a_limit_for_everyone_counts_at_once(admin: Live) -> None:
    said = await run(admin, "limit", whose="everyone", day="1", month="20")
    assert "**Each member**: 1 credit per day · 20 credits per month" in said
    await admin.made()
    assert (await refusal(admin)).startswith("You have used 1 of 1 credit in this server today.")


async def test_a_members_limit_comes_before_the_one_for_everyone(admin: Live) -> None:
    await run(admin, "limit", whose="everyone", day="0")
    said = await run(admin, "limit", member=1, day="no limit")
    assert "<@1>: no limit per day · not set per month" in said
    await admin.made()
    assert (await refusal(admin, user_id=2)).startswith("You have used 0 of 0 credits in this server today.")


async def test_a_role_has_its_limit_and_it_can_be_removed(admin: Live) -> None:
    await run(admin, "limit", whose="everyone", day="0")
    said = await run(admin, "limit", role=33, day="2")
    assert "<@&33>: 2 credits per day · not set per month" in said
    interaction = await admin.discord.slash("thumbnail", options={"image": PHOTO}, user_id=1, roles=(33,))
    await interaction.wait(lambda i: i.message is not None and bool(i.message.attachments), 20)
    assert "<@&33>" not in await run(admin, "limit", role=33, day="remove")
    assert "1 of 0 credits" in await refusal(admin, roles=(33,))


async def test_what_is_left_out_stays_as_it_is(admin: Live) -> None:
    await run(admin, "limit", whose="server", day="5")
    said = await run(admin, "limit", whose="server", month="50")
    assert "**Whole server**: 5 credits per day · 50 credits per month" in said


async def test_the_servers_limit_can_be_lowered_and_not_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch, quota={"server_daily": 1}) as live:
        await live.discord.commands_synced()
        live.discord.permissions[ADMIN] = MANAGE_GUILD
        said = await run(live, "limit", whose="server", day="100")
        assert "**Whole server**: 1 credit (the operator's limit binds, not 100 credits) per day" in said
        said = await run(live, "limit", whose="server", day="no limit")
        assert "**Whole server**: 1 credit (the operator's limit binds, not no limit) per day" in said
        await live.made()
        assert (await refusal(live)).startswith("This server has used 1 of 1 credit today.")
        assert "**Whole server**: 0 credits per day" in await run(live, "limit", whose="server", day="0")
        assert "1 credit (the operator's limit) per day" in await run(live, "limit", whose="server", day="remove")


@pytest.mark.parametrize(
    "options", [{"day": "1"}, {"member": 1, "role": 2, "day": "1"}, {"role": 2, "whose": "server"}]
)
async def test_a_limit_needs_exactly_one_target(admin: Live, options: dict[str, Any]) -> None:
    said = await run(admin, "limit", **{"day": "1", **options})
    assert said == "Choose whose limit to set: exactly one of `member`, `role`, and `whose`."
    assert await audit(admin) == []


@pytest.mark.parametrize("amount", ["-1", "many", "1.5", "10000001", "9" * 5000, "²", ""])
async def test_a_limit_that_is_no_amount_is_refused(admin: Live, amount: str) -> None:
    said = await run(admin, "limit", whose="server", day=amount)
    assert said == "A limit is a whole number of credits from 0 to 10,000,000, `no limit`, or `remove`."
    assert await audit(admin) == []


# --- grants and blocks -----------------------------------------------------------------------------------------------


async def test_extra_credits_are_shown_and_what_is_left_can_be_taken_back(admin: Live) -> None:
    said = await run(admin, "grant", member=1, amount=3, reason="a contest")
    assert said == "<@1> now has **3 credits** extra in this server, used when their limit is reached."
    assert "**5 credits**" in await run(admin, "grant", member=1, amount=2, reason="more")
    assert "**0 credits**" in await run(admin, "grant", member=1, amount=-100, reason="enough")
    assert [row["details"] for row in await audit(admin)] == [
        {"amount": 3, "reason": "a contest"},
        {"amount": 2, "reason": "more"},
        {"amount": -5, "reason": "enough"},
    ]


async def test_a_blocked_member_is_refused_with_the_reason_until_unblocked(admin: Live) -> None:
    said = await run(admin, "block", member=1, reason="spam @everyone `", days=2)
    assert said.startswith("Blocked in this server:\n<@1> · ends <t:")
    assert said.endswith(f" · `spam @everyone ˋ` · by <@{ADMIN}>")
    assert (await refusal(admin)).startswith("You can't use the bot in this server. This ends <t:")
    assert await run(admin, "unblock", member=1) == "The block was lifted. Nobody is blocked in this server."
    await admin.made()
    said = await run(admin, "unblock", member=1)
    assert said == "This member wasn't blocked in this server. Nobody is blocked in this server."


async def test_a_block_holds_in_its_server_only(admin: Live) -> None:
    await run(admin, "block", member=1, reason="spam")
    interaction = await admin.discord.slash(
        "thumbnail", options={"image": PHOTO}, user_id=1, guild_id=6, channel_id=CHANNEL_ID + 90
    )
    await interaction.wait(lambda i: i.message is not None and bool(i.message.attachments), 20)


# --- presets, channels, log, defaults --------------------------------------------------------------------------------


async def test_a_preset_is_listed_usable_and_removable(admin: Live) -> None:
    line = f"persona · `Ann` · `{AN_ID}`"
    assert await run(admin, "preset add", kind="persona", name=" Ann ", id=AN_ID.upper()) == line
    assert await run(admin, "preset list") == line
    await admin.made(persona="ann")
    assert admin.api.calls[-1].body["persona"] == AN_ID
    names = await admin.discord.autocomplete(
        "thumbnail-admin preset remove", "name", options={"kind": "persona", "name": "a"}, user_id=ADMIN
    )
    await names.wait(lambda i: i.ack is not None, 10)
    assert names.ack is not None
    assert names.ack["data"]["choices"] == [{"name": "Ann", "value": "Ann"}]
    removed = await run(admin, "preset remove", kind="persona", name="ANN")
    assert removed == "This server has no presets of its own."
    said = await run(admin, "preset remove", kind="persona", name="Ann")
    assert said == "There is no preset with that name in this server."


@pytest.mark.parametrize("identifier", ["ann", AN_ID + "0", AN_ID[:-1] + "g", ""])
async def test_a_malformed_id_is_refused_when_it_is_added(admin: Live, identifier: str) -> None:
    said = await run(admin, "preset add", kind="style", name="Ann", id=identifier)
    assert said == "An id looks like 0b5c6a3e-1d2f-4c3b-9a8d-7e6f5a4b3c2d. Nothing was added."
    assert await audit(admin) == []


async def test_public_results_go_only_to_the_listed_channels(admin: Live) -> None:
    said = await run(admin, "channel add", channel=5)
    assert said == "Public results may go only to these channels and their threads:\n<#5>"
    assert (await refusal(admin)).startswith("Results can't be posted in this channel. Use <#5>, or set `private`.")
    await admin.made(private=True)
    await run(admin, "channel add", channel=CHANNEL_ID)
    await admin.made()
    await run(admin, "channel remove", channel=5)
    assert await run(admin, "channel list") == (
        f"Public results may go only to these channels and their threads:\n<#{CHANNEL_ID}>"
    )
    assert await run(admin, "channel remove", channel=CHANNEL_ID) == "Public results may go to any channel."


async def test_the_log_can_be_switched_on_and_off(admin: Live) -> None:
    said = await run(admin, "log", channel=77)
    assert said == "Each ended request gets one line in <#77>. Make sure that the bot can post there."
    await admin.made()
    await admin.discord.wait(lambda d: any(m.channel_id == 77 for m in d.messages.values()), 10)
    assert await run(admin, "log") == "The log is off."


async def test_the_defaults_of_the_server_are_used_at_once(admin: Live) -> None:
    said = await run(admin, "defaults", model="pkz_4", private="yes", spoiler=True)
    assert said == (
        "When members leave an option out and have chosen nothing with `/settings`, the bot uses:\n"
        "**Model**: PKZ 4\n"
        "**Format**: 16:9 · YouTube (the operator's default)\n"
        "**Private**: yes\n"
        "**Results are spoilers**: yes"
    )
    message = await admin.made()
    assert (message.ephemeral, admin.api.calls[-1].body["model"]) == (True, Model.PKZ_4)
    assert message.attachments[0].filename.startswith("SPOILER_")
    said = await run(admin, "defaults", model="default")
    assert "**Model**: PKZ 4.5 (the operator's default)\n" in said
    assert await run(admin, "defaults") == said


# --- usage -----------------------------------------------------------------------------------------------------------


async def test_usage_says_who_used_what_by_model_and_day(admin: Live) -> None:
    assert await run(admin, "usage") == "Nobody has used the bot in this server in the last 30 days."
    await admin.made(user_id=1)
    await admin.made(user_id=1, model="pkz_4")
    await admin.made(user_id=2)
    await admin.app.use_case.recovery.idle(10)
    today = f"{admin.app.client.services.clock():%m-%d}"
    window = (
        "3 credits (PKZ 4.5 × 2, PKZ 4 × 1)\n<@1>: 2 credits (PKZ 4 × 1, PKZ 4.5 × 1)\n<@2>: 1 credit (PKZ 4.5 × 1)\n"
    )
    with_chart = await admin.discord.slash("thumbnail-admin usage", user_id=ADMIN)
    assert await answer(with_chart) == (
        f"**Last 7 days**: {window}**Last 30 days**: {window}```\nday   images credits\n{today}      3       3\n```"
    )
    assert with_chart.message is not None
    [chart] = with_chart.message.attachments
    assert (chart.filename, (chart.data or b"")[:4]) == ("usage.png", b"\x89PNG")
    elsewhere = await admin.discord.slash(
        "thumbnail-admin usage", user_id=ADMIN, guild_id=6, channel_id=CHANNEL_ID + 90
    )
    assert (await answer(elsewhere)).startswith("Nobody has used the bot")
    assert elsewhere.message is not None
    assert elsewhere.message.attachments == []
