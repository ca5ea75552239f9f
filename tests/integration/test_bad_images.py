"""Pictures that cannot work are found before the paid call, cost nothing, and are told in private."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bot.app import utc_now
from bot.domain.models import require
from sandbox import discord_server
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import Live, running
from tests.support.factories import request, requester

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from bot.domain.models import Job, Status

MODERATOR = discord_server.ORDINARY_PERMISSIONS | discord_server.MANAGE_MESSAGES


def labels(message: discord_server.Message) -> list[str]:
    return [one["label"] for row in message.components for one in row["components"]]


def job_id(message: discord_server.Message) -> str:
    return message.content.rpartition("#")[2].split()[0]


def kept(folder: Path) -> list[str]:
    """The files that the bot keeps of source images."""
    return [path.name for path in (folder / "sources").iterdir()]


# --- what is kept ---------------------------------------------------------------------------------------------------


async def test_a_request_cancelled_in_the_queue_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch, pikzels={"concurrency": 1}) as live:
        live.api.script(Reply.hold())
        first = await live.thumbnail()
        await live.api.called(1)
        waiting = await live.thumbnail(user_id=2)
        await waiting.wait(lambda i: i.message is not None)
        message = require(waiting.message)
        await live.discord.click(message, f"job:cancel:{job_id(message)}", user_id=2)
        await message.wait(lambda m: "Cancelled" in m.content)
        live.api.release()
        await first.wait(lambda i: bool(require(i.message).attachments), 20)
        await live.app.use_case.recovery.idle(10)
        assert len(kept(tmp_path)) == 1


async def test_a_request_can_be_cancelled_as_soon_as_its_message_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, pikzels={"concurrency": 1}) as live:
        live.api.script(Reply.hold())
        await live.thumbnail()
        await live.api.called(1)
        lifecycle = live.app.use_case.lifecycle
        cancelled = list[bool]()

        async def reply(job: Job, _: Status) -> int:
            cancelled.append(lifecycle.cancel(job.id))
            return 1

        job = await lifecycle.accept(request(), requester(2, at=utc_now()), reply)
        live.api.release()
        await live.app.use_case.recovery.idle(10)
        ended = require(await live.app.storage.ledger.job(job.id))
        assert (cancelled, ended.reason, len(live.api.calls)) == ([True], "not_started:cancelled", 1)


async def test_a_request_that_the_allowance_refuses_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, quota={"member_daily": 0}) as live:
        await live.said()
        await live.app.use_case.recovery.idle(10)
        assert (kept(tmp_path), live.cdn.fetched) == ([], [])


async def test_an_image_is_kept_while_the_call_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points, noted = list[str](), asyncio.Event()

    def reach(point: str) -> None:
        points.append(point)
        if point == "sources.keep done":
            noted.set()

    async with running(tmp_path, monkeypatch, reach=reach) as live:
        live.api.script(Reply.hold())
        interaction = await live.thumbnail()
        await live.api.called(1)
        await asyncio.wait_for(noted.wait(), 10)
        assert len(kept(tmp_path)) == 1
        assert points.index("repository.sending done") < points.index("sources.keep")
        live.api.release()
        await interaction.wait(lambda i: bool(require(i.message).attachments), 20)
        assert (await live.job(require(interaction.message))).request.image_sha256 in kept(tmp_path)


# --- the message of a request that ended without an image ------------------------------------------------------------


async def test_an_ended_message_names_its_requester_and_offers_edit_and_delete_for_bad_input(live: Live) -> None:
    live.api.script(Reply.error("CONTENT_POLICY"))
    message = await live.said(user_id=2)
    assert message.content.startswith("<@2> The image service does not allow this image or prompt.")
    assert labels(message) == ["Edit", "Delete"]


async def test_an_ended_message_offers_again_when_the_input_was_not_at_fault(live: Live) -> None:
    live.api.script(Reply.error("GENERATION_FAILED"))
    assert labels(await live.said()) == ["Again", "Edit", "Delete"]


async def test_the_end_of_a_private_request_names_nobody(live: Live) -> None:
    live.api.script(Reply.error("CONTENT_POLICY"))
    assert (await live.said(private=True)).content.startswith("The image service does not allow")


async def test_the_requester_and_moderators_can_delete_an_ended_message(live: Live) -> None:
    live.api.always(Reply.error("GENERATION_FAILED"))
    for user_id, permissions in ((1, discord_server.ORDINARY_PERMISSIONS), (3, MODERATOR)):
        message = await live.said(user_id=1)
        job = await live.job(message)
        refused = await live.discord.click(message, f"job:delete:{job.id}", user_id=2)
        await refused.wait(lambda i: i.message is not None and "can delete it" in i.message.content)
        assert not message.deleted
        await live.discord.click(message, f"job:delete:{job.id}", user_id=user_id, permissions=permissions)
        await message.wait(lambda m: m.deleted)
        assert await live.app.storage.ledger.job(job.id) == job, "nothing else has changed"
    assert await live.left() == 3


async def test_the_end_of_one_request_cannot_be_used_to_delete_another_message(live: Live) -> None:
    live.api.script(Reply.error("GENERATION_FAILED"))
    mine = await live.said(user_id=1)
    theirs = await live.made(user_id=2)
    forged = f"job:delete:{(await live.job(mine)).id}"
    theirs.components[0]["components"][0]["custom_id"] = forged
    clicked = await live.discord.click(theirs, forged, user_id=1)
    await clicked.wait(lambda i: i.message is not None)
    assert "no longer available" in require(clicked.message).content
    assert not theirs.deleted


async def test_a_request_in_progress_cannot_be_deleted(live: Live) -> None:
    live.api.script(Reply.hold())
    interaction = await live.thumbnail()
    await live.api.called(1)
    message = require(interaction.message)
    forged = f"job:delete:{job_id(message)}"
    message.components = [{"type": 1, "components": [{"type": 2, "id": 2, "style": 1, "custom_id": forged}]}]
    clicked = await live.discord.click(message, forged, user_id=1)
    await clicked.wait(lambda i: i.message is not None)
    assert require(clicked.message).content == "This image isn't finished yet."
    live.api.release()
