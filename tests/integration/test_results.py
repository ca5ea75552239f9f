"""Results over real sockets: buttons, reactions, forms, sharing, and recovery."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandbox import discord_server
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import Live, running
from tests.support.factories import image_bytes

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from bot.domain.models import Job
    from tests.support.servers import Servers

MODERATOR = discord_server.ORDINARY_PERMISSIONS | discord_server.MANAGE_MESSAGES


def button(action: str, job: Job) -> str:
    return f"job:{action}:{job.id}"


def labels(message: discord_server.Message) -> list[str]:
    return [one["label"] for row in message.components for one in row["components"]]


async def press(
    live: Live, action: str, message: discord_server.Message, job: Job, *, user_id: int = 1
) -> discord_server.Message:
    """Press a button and wait for its first response."""
    pressed = await live.discord.click(message, button(action, job), user_id=user_id)
    await pressed.wait(lambda i: i.message is not None and i.message is not message, 10)
    assert pressed.message is not None
    return pressed.message


async def other_result(live: Live, known: set[int]) -> discord_server.Message:
    """Wait for a message with an image whose id is not in `known`."""

    def found(discord: discord_server.DiscordServer) -> list[discord_server.Message]:
        return [one for one in discord.messages.values() if one.attachments and one.id not in known]

    await live.discord.wait(lambda discord: bool(found(discord)), 20)
    return found(live.discord)[0]


# --- buttons ------------------------------------------------------------------------------------------------------


async def test_again_creates_a_result_for_whoever_presses_it(live: Live) -> None:
    first = await live.made(prompt="a cat")
    assert labels(first) == ["Again", "Edit", "Info", "Delete"]
    job = await live.job(first)
    answer = await press(live, "again", first, job, user_id=2)
    second = await other_result(live, {first.id})
    assert second.id == answer.id
    made = await live.job(second)
    assert (made.parent_id, made.requester.user_id, made.request.prompt) == (job.id, 2, "a cat")
    assert (await live.left(1), await live.left(2)) == (2, 2)


async def test_buttons_work_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers) -> None:
    async with running(tmp_path, monkeypatch, around=servers) as live:
        first = await live.made()
        job = await live.job(first)
    async with running(tmp_path, monkeypatch, around=servers) as live:
        response = await press(live, "info", first, job)
        assert response.ephemeral
        assert f"#{job.id}" in response.content
        await press(live, "again", first, job)
        assert (await live.job(await other_result(live, {first.id}))).parent_id == job.id


async def test_only_the_requester_and_moderators_can_delete(live: Live) -> None:
    first = await live.made()
    job = await live.job(first)
    refused = await press(live, "delete", first, job, user_id=2)
    assert (refused.ephemeral, first.deleted) == (True, False)
    assert "can delete it" in refused.content
    await live.discord.click(first, button("delete", job), user_id=2, permissions=MODERATOR)
    await live.discord.wait(lambda _: first.deleted, 10)
    assert await live.left() == 2


async def test_cancel_removes_a_request_from_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch, pikzels={"concurrency": 1}) as live:
        live.api.script(Reply.hold())
        running_one = await live.thumbnail()
        await live.api.called(1)
        waiting = await live.thumbnail(user_id=2)
        await waiting.wait(lambda i: i.message is not None, 10)
        assert waiting.message is not None
        assert labels(waiting.message) == ["Cancel"]
        job_id = waiting.message.content.split("#")[1].split()[0]
        stranger = await live.discord.click(waiting.message, f"job:cancel:{job_id}", user_id=3)
        await stranger.wait(lambda i: i.message is not None and i.message.ephemeral, 10)
        await live.discord.click(waiting.message, f"job:cancel:{job_id}", user_id=2)
        await waiting.wait(lambda i: i.message is not None and "Cancelled" in i.message.content, 10)
        assert "You were not charged." in waiting.message.content
        live.api.release()
        await running_one.wait(lambda i: i.message is not None and bool(i.message.attachments), 10)
        assert (await live.left(2), len(live.api.calls)) == (10, 1)


# --- private ------------------------------------------------------------------------------------------------------


async def test_a_private_result_is_visible_only_to_its_requester_and_shared_once(live: Live) -> None:
    first = await live.made(private=True)
    assert first.ephemeral
    assert labels(first) == ["Again", "Edit", "Info", "Share", "Delete"]
    job = await live.job(first)
    clicks = [await live.discord.click(first, button("share", job), user_id=1) for _ in range(2)]
    await clicks[1].wait(lambda i: i.message is not None and "already shared this image" in i.message.content, 10)
    shared = await other_result(live, {first.id})
    assert (shared.ephemeral, shared.attachments[0].data) == (False, first.attachments[0].data)
    await live.app.use_case.recovery.idle(10)
    assert sum(1 for one in live.discord.messages.values() if one.attachments and not one.ephemeral) == 1
    refused = await press(live, "again", shared, job, user_id=2)
    assert not refused.ephemeral
    assert await live.left(1) == 2


async def test_a_private_result_with_an_expired_token_is_sent_as_a_direct_message(
    live: Live,
) -> None:
    live.api.script(Reply.hold())
    live.discord.fail(
        "PATCH", "/channels/*", status=403, code=50001, times=10
    )  # a later edit might succeed, but this one fails
    interaction = await live.thumbnail(private=True)
    await live.api.called(1)
    live.discord.expire_token(interaction)
    live.api.release()
    message = await other_result(live, set())
    assert message.guild_id is None
    await live.app.use_case.recovery.idle(10)
    assert (await live.left(), [one for one in live.discord.messages.values() if not one.ephemeral]) == (2, [message])


async def test_a_private_failure_with_an_expired_token_is_told_by_direct_message(live: Live) -> None:
    live.api.script(Reply.hold())
    live.api.script_output(*[Reply.raw(200, b"no picture")] * 5)
    interaction = await live.thumbnail(private=True)
    await live.api.called(1)
    live.discord.expire_token(interaction)
    live.api.release()
    await live.discord.wait(lambda discord: any("not charged" in one.content for one in discord.messages.values()), 10)
    await live.app.use_case.recovery.idle(10)
    [response] = [one for one in live.discord.messages.values() if "not charged" in one.content]
    assert (response.guild_id, await live.left()) == (None, 3)


async def test_a_recovered_result_can_be_shared(live: Live) -> None:
    await live.park()
    claim = await live.discord.slash("recover", user_id=1)
    await claim.wait(lambda i: i.message is not None and bool(i.message.attachments), 10)
    assert claim.message is not None
    assert "Share" in labels(claim.message)
    await live.discord.click(claim.message, button("share", await live.job(claim.message)), user_id=1)
    shared = await other_result(live, {claim.message.id})
    assert not shared.ephemeral


async def test_a_result_that_is_recovered_and_shared_in_another_channel_invites_to_repeat_it(live: Live) -> None:
    await live.park()
    claim = await live.discord.slash("recover", user_id=1, channel_id=discord_server.CHANNEL_ID + 100)
    await claim.wait(lambda i: i.message is not None and bool(i.message.attachments), 10)
    assert claim.message is not None
    await live.discord.click(claim.message, button("share", await live.job(claim.message)), user_id=1)
    shared = await other_result(live, {claim.message.id})
    await live.discord.wait(lambda _: shared.reactions.get("🔁") == {discord_server.APPLICATION_ID}, 10)


async def test_a_private_failure_waits_for_discord_and_is_told_in_place(live: Live) -> None:
    live.api.script(Reply.error("GENERATION_REJECTED"))
    live.discord.fail("PATCH", "/webhooks/*", reset=True, times=2)
    answer = await live.said(private=True)
    await live.app.use_case.recovery.idle(20)
    assert (answer.ephemeral, len(live.discord.messages)) == (True, 1)


async def test_deleting_a_private_result_keeps_the_shared_copy(live: Live) -> None:
    private = await live.made(private=True)
    job = await live.job(private)
    await live.discord.click(private, button("share", job), user_id=1)
    shared = await other_result(live, {private.id})
    await live.app.use_case.recovery.idle(10)
    await live.discord.wait(lambda _: "Share" not in labels(private), 10)
    await live.discord.click(private, button("delete", job), user_id=1)
    await live.discord.wait(lambda _: private.deleted, 10)
    assert not shared.deleted
    assert await live.app.client.services.results.find_by_message(shared.id) is not None
    assert len((await live.app.client.services.results.newest(1)).jobs) == 1


async def test_a_form_forged_by_another_member_cannot_use_a_private_result(live: Live) -> None:
    mine, theirs = await live.made(user_id=1, private=True), await live.made(user_id=2)
    job, other = await live.job(mine), await live.job(theirs)
    clicked = await live.discord.click(theirs, button("edit", other), user_id=2)
    await clicked.acked.wait()
    assert clicked.modal is not None
    clicked.modal["custom_id"] = f"form:edit:{job.id}"
    forged = await live.discord.submit(clicked, {"prompt": "mine now"})
    await forged.wait(lambda i: i.message is not None, 10)
    assert forged.message is not None
    assert (forged.message.ephemeral, "no longer available" in forged.message.content) == (True, True)
    assert len(live.api.calls) == 2


async def test_an_image_over_the_limit_is_recovered_smaller_and_a_damaged_one_does_not_block_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = image_bytes(width=2300, height=2300, noisy=True)
    assert len(large) > 10 * 1024 * 1024
    async with running(tmp_path, monkeypatch, output=large) as live:
        for _ in range(2):
            await live.park()
        first, _ = await live.app.storage.repository.parked_jobs(1)
        assert first.picture is not None
        first.picture.path.write_bytes(b"damaged since")
        claim = await live.discord.slash("recover", user_id=1)
        await claim.wait(lambda i: any(one.attachments for one in [i.message, *i.followups] if one), 30)
        await claim.wait(lambda i: any("It is kept: try /recover again." in one.content for one in i.followups), 30)
        [carrier] = [one for one in [claim.message, *claim.followups] if one and one.attachments]
        assert carrier.attachments[0].size <= 10 * 1024 * 1024
        assert [job.id for job in await live.app.storage.repository.parked_jobs(1)] == [first.id]
        assert await live.left() == 8


# --- reactions ----------------------------------------------------------------------------------------------------


async def test_a_reaction_creates_a_reply_charged_to_the_member_who_reacted(live: Live) -> None:
    first = await live.made(prompt="a cat")
    job = await live.job(first)
    await live.discord.wait(lambda _: "🔁" in first.reactions, 10)
    await live.discord.react(first, "🔁", user_id=2)
    second = await other_result(live, {first.id})
    made = await live.job(second)
    assert (made.parent_id, made.requester.user_id, second.replied_to) == (job.id, 2, first)
    assert (await live.left(1), await live.left(2), len(live.api.calls)) == (2, 2, 2)


async def test_repeating_a_reaction_costs_nothing(live: Live) -> None:
    first = await live.made()
    for _ in range(3):
        await live.discord.react(first, "🔁", user_id=2)
        await live.discord.unreact(first, "🔁", user_id=2)
    await other_result(live, {first.id})
    await live.discord.react(first, "🔁", user_id=2)
    await live.discord.react(first, "🔁", user_id=7, bot=True)
    stranger = live.discord.say("not a result")
    await live.discord.react(stranger, "🔁", user_id=2)
    await live.made(user_id=5)
    await live.app.use_case.recovery.idle(10)
    assert (await live.left(2), len(live.api.calls)) == (2, 3)
