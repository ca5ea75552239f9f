"""What is used when an option is left out: the option, else the member's choice, else the server's, else the config."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from bot.domain.models import Format, Model
from bot.domain.server_rules import Change, Preferences, PresetKind, ServerRules
from sandbox import discord_server
from sandbox.discord_server.payloads import GUILD_ID
from tests.support.e2e import PHOTO, Live, png, running

if TYPE_CHECKING:
    from pathlib import Path

LARGE = discord_server.Upload("large.png", 11 * discord_server.MIB, "image/png")
AN_ID = "0b5c6a3e-1d2f-4c3b-9a8d-7e6f5a4b3c2d"
ANOTHER_ID = "1b5c6a3e-1d2f-4c3b-9a8d-7e6f5a4b3c2d"


async def settings(live: Live, *, user_id: int = 1, **options: Any) -> str:
    """What /settings answers, which only the member sees."""
    interaction = await live.discord.slash("settings", options=options, user_id=user_id)
    await interaction.wait(lambda i: i.message is not None, 10)
    assert interaction.message is not None
    assert interaction.message.ephemeral
    return interaction.message.content


async def set_rules(live: Live, **changes: Any) -> None:
    change = Change(99, GUILD_ID, "test", live.app.client.services.clock())
    await live.app.storage.policies.set_rules(change, replace(ServerRules(), **changes))


def sent(live: Live) -> tuple[str, str]:
    body = live.api.calls[-1].body
    return body["model"], body["format"]


async def test_without_choices_the_configuration_decides(live: Live) -> None:
    message = await live.made()
    assert (sent(live), message.ephemeral) == (("pkz_4_5", "16:9"), False)
    assert await settings(live) == (
        "When you leave an option of `/thumbnail` out, the bot uses:\n"
        "**Model**: PKZ 4.5 (the server's default)\n"
        "**Format**: 16:9 · YouTube (the server's default)\n"
        "**Private**: no (the server's default)"
    )


async def test_the_server_comes_before_the_configuration(live: Live) -> None:
    await set_rules(live, defaults=Preferences(Model.PKZ_3, Format.TALL, private=True))
    message = await live.made()
    assert (sent(live), message.ephemeral) == (("pkz_3", "9:16"), True)


async def test_the_member_comes_before_the_server(live: Live) -> None:
    await set_rules(live, defaults=Preferences(Model.PKZ_3, Format.TALL, private=True))
    said = await settings(live, model="pkz_4", format="1:1", private="no")
    assert said.splitlines()[1:] == ["**Model**: PKZ 4", "**Format**: 1:1 · square", "**Private**: no"]
    message = await live.made()
    assert (sent(live), message.ephemeral) == (("pkz_4", "1:1"), False)
    await live.made(user_id=2)
    assert sent(live) == ("pkz_3", "9:16")


async def test_the_option_comes_before_everything(live: Live) -> None:
    await settings(live, model="pkz_4", format="1:1", private="yes")
    message = await live.made(model="pkz_2", format="16:9", private=False)
    assert (sent(live), message.ephemeral) == (("pkz_2", "16:9"), False)


async def test_one_choice_can_be_taken_back_and_all_can_be_reset(live: Live) -> None:
    await settings(live, model="pkz_4", format="1:1", private="yes")
    said = await settings(live, model="default")
    assert said.splitlines()[1:3] == ["**Model**: PKZ 4.5 (the server's default)", "**Format**: 1:1 · square"]
    said = await settings(live, reset=True)
    assert said.count("(the server's default)") == 3
    assert await live.app.storage.database.run("SELECT * FROM member_settings") == []


async def test_a_choice_outlives_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch) as live:
        await settings(live, model="pkz_4")
    async with running(tmp_path, monkeypatch) as live:
        await live.made()
        assert sent(live)[0] == "pkz_4"


async def test_the_form_is_filled_in_with_the_choices_and_follows_the_private_one(live: Live) -> None:
    await settings(live, model="pkz_4", format="1:1", private="yes")
    await live.discord.commands_synced()
    form = await live.discord.context_menu("Make thumbnail", live.discord.say(files=[PHOTO]), user_id=1)
    await form.wait(lambda i: i.modal is not None, 10)
    submitted = await live.discord.submit(form, {}, user_id=1)
    await submitted.wait(lambda i: i.message is not None and bool(i.message.attachments), 20)
    assert submitted.message is not None
    assert (sent(live), submitted.message.ephemeral) == (("pkz_4", "1:1"), True)


async def test_a_smaller_copy_follows_the_private_choice(live: Live) -> None:
    await settings(live, private="yes")
    live.cdn.content["large.png"] = png(11 * discord_server.MIB)
    refused = await live.thumbnail(image=LARGE)
    await refused.wait(lambda i: i.message is not None, 10)
    assert refused.message is not None
    [[button]] = [row["components"] for row in refused.message.components]
    pressed = await live.discord.click(refused.message, button["custom_id"], user_id=1)
    await pressed.wait(lambda i: i.message is not None and bool(i.message.attachments), 30)
    assert pressed.message is not None
    assert pressed.message.ephemeral


# --- presets ---------------------------------------------------------------------------------------------------------


async def add_preset(live: Live, kind: PresetKind, name: str, value: str) -> None:
    change = Change(99, GUILD_ID, "test", live.app.client.services.clock())
    await live.app.storage.policies.add_preset(change, kind, name, value)


@pytest.mark.parametrize("option", ["persona", "style"])
async def test_a_server_knows_its_own_presets_and_the_operators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    sections: dict[str, Any] = {f"{option}s": {"Bob": AN_ID, "Zoe": AN_ID}}
    async with running(tmp_path, monkeypatch, **sections) as live:
        await add_preset(live, PresetKind(option), "bob", ANOTHER_ID)
        await add_preset(live, PresetKind(option), "Ann", ANOTHER_ID)
        await live.discord.commands_synced()
        assert await offered(live, option, "") == ["Ann", "Zoe", "bob"]
        assert await offered(live, option, "O") == ["Zoe", "bob"]
        assert await offered(live, option, "", guild_id=5) == ["Bob", "Zoe"]
        await made_with(live, option, "BOB")
        assert live.api.calls[-1].body[option] == ANOTHER_ID
        await made_with(live, option, "zoe")
        assert live.api.calls[-1].body[option] == AN_ID


async def test_names_are_offered_within_a_tenth_of_a_second(live: Live) -> None:
    for number in range(100):
        await add_preset(live, PresetKind.PERSONA, f"persona {number}", AN_ID)
    await live.discord.commands_synced()
    assert len(await offered(live, "persona", "")) == 25  # the first reads the database
    interaction = await _autocomplete(live, "persona", "9")
    assert interaction.ack_seconds is not None
    assert interaction.ack_seconds < 0.1


async def made_with(live: Live, option: str, value: str) -> None:
    options: dict[str, Any] = {option: value}
    await live.made(**options)


async def offered(live: Live, option: str, typed: str, **origin: Any) -> list[str]:
    interaction = await _autocomplete(live, option, typed, **origin)
    assert interaction.ack is not None
    return [choice["value"] for choice in interaction.ack["data"]["choices"]]


async def _autocomplete(live: Live, option: str, typed: str, **origin: Any) -> discord_server.Interaction:
    interaction = await live.discord.autocomplete("thumbnail", option, options={option: typed}, **origin)
    await interaction.wait(lambda i: i.ack is not None, 10)
    return interaction


# --- spoilers --------------------------------------------------------------------------------------------------------


async def test_a_server_can_hide_its_results_until_somebody_clicks_them(live: Live) -> None:
    await set_rules(live, spoiler=True)
    message = await live.made()
    job = await live.job(message)
    assert message.attachments[0].filename == f"SPOILER_thumbnail-{job.id}.png"
    assert job.requester.spoiler
    await live.discord.react(message, "✉️", user_id=2)
    await live.app.use_case.recovery.idle(10)
    await live.discord.wait(lambda _: bool(live.discord.direct(2)), 10)
    [copy] = live.discord.direct(2)
    assert (copy.attachments[0].data, copy.attachments[0].filename) == (
        message.attachments[0].data,
        message.attachments[0].filename,
    )
    history = await live.discord.slash("history", user_id=1)
    await history.wait(lambda i: i.message is not None and bool(i.message.embeds), 10)
    assert history.message is not None
    assert "SPOILER_" in history.message.embeds[0]["thumbnail"]["url"]


async def test_a_shared_result_stays_hidden(live: Live) -> None:
    await set_rules(live, spoiler=True)
    private = await live.made(private=True)
    await live.job(private)
    [share] = [
        one["custom_id"]
        for row in private.components
        for one in row["components"]
        if one["custom_id"].startswith("job:share:")
    ]
    interaction = await live.discord.click(private, share, user_id=1)
    await interaction.wait(lambda i: bool(i.followups), 10)
    assert interaction.followups[0].attachments[0].filename.startswith("SPOILER_thumbnail-")


async def test_a_result_by_reaction_is_hidden_too(live: Live) -> None:
    first = await live.made()
    await live.job(first)
    await set_rules(live, spoiler=True)
    await live.discord.react(first, "🔁", user_id=2)
    await live.discord.wait(lambda d: sum(bool(m.attachments) for m in d.messages.values()) == 2, 20)
    [_, again] = [m for m in live.discord.messages.values() if m.attachments]
    assert again.attachments[0].filename.startswith("SPOILER_")
