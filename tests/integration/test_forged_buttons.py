"""A client can send any button id and any form id on any message: it must not reach what its member may not use."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sandbox import discord_server
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import PHOTO, Live, running

if TYPE_CHECKING:
    from pathlib import Path

    from bot.domain.models import Job

REQUESTER, OTHER, SOMEONE_ELSE = 1, 2, 3
OTHER_CHANNEL, OTHER_SERVER, ITS_CHANNEL = 1_100_000_000_000_000_076, 222, 1_100_000_000_000_000_078
PLACES = {
    "another message": (discord_server.GUILD_ID, discord_server.CHANNEL_ID),
    "another channel": (discord_server.GUILD_ID, OTHER_CHANNEL),
    "another server": (OTHER_SERVER, ITS_CHANNEL),
}
PEOPLE = {
    "the requester": (REQUESTER, discord_server.ORDINARY_PERMISSIONS),
    "another member": (OTHER, discord_server.ORDINARY_PERMISSIONS),
    "a moderator": (OTHER, discord_server.ORDINARY_PERMISSIONS | discord_server.MANAGE_MESSAGES),
}
ACTIONS = ("again", "edit", "form", "info", "share", "cancel", "delete")
ALLOWED = {
    "again": "accepted",
    "edit": "form",
    "form": "accepted",
    "info": "info",
    "share": "done",  # of a private result
    "cancel": "done",  # of a request in the queue
    "delete": "done",
}
ON_ITS_MESSAGE = {
    "the requester": ALLOWED,
    "another member": ALLOWED | {"share": "gone", "cancel": "refused", "delete": "refused"},
    "a moderator": ALLOWED | {"share": "gone"},
}
ELSEWHERE = {
    "the requester": ALLOWED | {"share": "gone", "delete": "gone"},  # both are about the message they stand on
    "another member": dict.fromkeys(ACTIONS, "gone"),
    "a moderator": dict.fromkeys(ACTIONS, "gone"),
}


@pytest.mark.parametrize("place", ["its message", *PLACES])
@pytest.mark.parametrize("who", PEOPLE)
async def test_a_result_can_be_used_from_its_message_and_by_its_requester_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str, place: str
) -> None:
    quota, one_call = {"member_daily": 100}, {"concurrency": 1}
    async with running(tmp_path, monkeypatch, quota=quota, pikzels=one_call) as live:
        scene = Scene(live, who)
        public, private = await live.made(user_id=REQUESTER), await live.made(user_id=REQUESTER, private=True)
        elsewhere = None if place == "its message" else await result_in(live, *PLACES[place])
        found = {
            "again": await scene.press("again", public, on=elsewhere),
            "edit": await scene.press("edit", public, on=elsewhere),
            "form": await scene.submit(public, on=elsewhere),
            "info": await scene.press("info", public, on=elsewhere),
            "share": await scene.press("share", private, on=elsewhere),
        }
        await live.app.use_case.recovery.idle(10)
        found["cancel"] = await scene.press("cancel", await queued(live), on=elsewhere)
        found["delete"] = await scene.press("delete", public, on=elsewhere)
        live.api.always(Reply.ok())  # one that was not cancelled has yet to call
        live.api.release()
        await live.app.use_case.recovery.idle(10)
    assert found == (ON_ITS_MESSAGE if elsewhere is None else ELSEWHERE)[who]
    assert public.deleted == (found["delete"] == "done")
    assert elsewhere is None or not elsewhere.deleted


class Scene:
    """One person who uses results."""

    def __init__(self, live: Live, who: str) -> None:
        self.live = live
        self.user_id, self.permissions = PEOPLE[who]

    async def press(self, action: str, result: discord_server.Message, *, on: discord_server.Message | None) -> str:
        """Press a button of `result`, forged onto the message `on`."""
        job_id = job_id_of(result)
        return await outcome(await self._click(on or result, f"job:{action}:{job_id}"))

    async def submit(self, result: discord_server.Message, *, on: discord_server.Message | None) -> str:
        """Submit the form that edits `result`, forged into the one that was opened on the message `on`."""
        shown = on or result
        opened = await self._click(shown, f"job:edit:{job_id_of(shown)}")
        await opened.wait(lambda i: i.modal is not None, 10)
        assert opened.modal is not None
        opened.modal["custom_id"] = f"form:edit:{job_id_of(result)}"
        return await outcome(await self.live.discord.submit(opened, {"prompt": "mine now"}))

    async def _click(self, message: discord_server.Message, custom_id: str) -> discord_server.Interaction:
        message.components[0]["components"][0]["custom_id"] = custom_id
        return await self.live.discord.click(message, custom_id, user_id=self.user_id, permissions=self.permissions)


async def outcome(interaction: discord_server.Interaction) -> str:
    """What came of a click or a form."""
    await asyncio.wait_for(interaction.acked.wait(), 10)
    if interaction.modal is not None:
        return "form"
    assert interaction.ack is not None
    if interaction.ack["type"] == 6:  # the deferral of an update: what follows has no message of its own
        return "done"
    assert interaction.message is not None
    if not interaction.message.ephemeral:
        return "accepted"
    for text, name in (
        ("That result is no longer available.", "gone"),
        ("**Job**", "info"),
        ("Only the person", "refused"),
    ):
        if interaction.message.content.startswith(text):
            return name
    return interaction.message.content


def job_id_of(message: discord_server.Message) -> str:
    return message.content.partition("#")[2].split()[0]


async def result_in(live: Live, guild_id: int, channel_id: int) -> discord_server.Message:
    """A result that somebody else has requested."""
    interaction = await live.discord.slash(
        "thumbnail", options={"image": PHOTO}, user_id=SOMEONE_ELSE, guild_id=guild_id, channel_id=channel_id
    )
    await interaction.wait(lambda i: i.message is not None and bool(i.message.attachments), 10)
    assert interaction.message is not None
    return interaction.message


async def queued(live: Live) -> discord_server.Message:
    """A request that waits behind another one."""
    called = len(live.api.calls)
    live.api.always(Reply.hold())
    await live.thumbnail(user_id=SOMEONE_ELSE)
    await live.api.called(called + 1)
    waiting = await live.thumbnail(user_id=REQUESTER)
    await waiting.wait(lambda i: i.message is not None, 10)
    assert waiting.message is not None
    assert waiting.message.content.startswith("Queued")
    return waiting.message


async def test_a_form_without_a_message_reaches_only_the_results_of_its_member(live: Live) -> None:
    """Discord names the message that a form was opened from, but not for a form that a command opened."""
    result = await live.made(user_id=REQUESTER)
    await live.discord.commands_synced()
    for user_id, expected in ((REQUESTER, "accepted"), (OTHER, "gone")):
        opened = await live.discord.context_menu("Make thumbnail", live.discord.say(files=[PHOTO]), user_id=user_id)
        await opened.wait(lambda i: i.modal is not None, 10)
        assert opened.modal is not None
        opened.modal["custom_id"] = f"form:edit:{job_id_of(result)}"
        assert await outcome(await live.discord.submit(opened, {"prompt": "mine now"})) == expected


async def test_a_form_without_a_message_keeps_a_private_result_private(live: Live) -> None:
    private = await live.made(user_id=REQUESTER, private=True)
    await live.discord.commands_synced()
    opened = await live.discord.context_menu("Make thumbnail", live.discord.say(files=[PHOTO]), user_id=REQUESTER)
    await opened.wait(lambda i: i.modal is not None, 10)
    assert opened.modal is not None
    opened.modal["custom_id"] = f"form:edit:{job_id_of(private)}"
    submitted = await live.discord.submit(opened, {"prompt": "a dog"})
    await submitted.wait(lambda i: i.message is not None and bool(i.message.attachments), 10)
    assert submitted.message is not None
    assert submitted.message.ephemeral


async def test_a_history_button_on_a_public_message_leaves_the_message_alone(live: Live) -> None:
    result = await live.made()
    job: Job = await live.job(result)
    forged = f"history:older:{job.id}"
    result.components[0]["components"][0]["custom_id"] = forged
    before = (result.content, result.filenames)
    clicked = await live.discord.click(result, forged, user_id=2)
    await clicked.wait(lambda i: i.message is not None or bool(i.followups), 10)
    assert clicked.message is not None
    assert clicked.message.ephemeral
    assert clicked.message.content.startswith("That result is no longer available.")
    assert (result.content, result.filenames) == before
