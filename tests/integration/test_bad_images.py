"""Pictures that cannot work are found before the paid call, cost nothing, and are told in private."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bot.domain.models import require
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import running

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from sandbox import discord_server


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
