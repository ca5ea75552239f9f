"""What a person has started is finished within the grace of a stop, and after a kill nothing is handed over or shared
twice.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import discord

from bot.discord_io.delivery_methods import DeliveryMethods
from bot.discord_io.messenger import Messenger
from bot.domain.models import require
from tests.support.e2e import Killed, killed_at, pictures, running
from tests.support.e2e import books as stored_rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

    from sandbox.discord_server import Interaction
    from tests.support.e2e import Live
    from tests.support.servers import Servers


def texts(interaction: Interaction) -> list[str]:
    return [message.content for message in (interaction.message, *interaction.followups) if message]


async def keep_pictures(live: Live, count: int) -> None:
    """Pictures that could be delivered nowhere and wait for /recover."""
    for _ in range(count):
        await live.park()
    assert len(await live.app.storage.repository.parked_jobs(1)) == count


async def handed_over_but_not_noted(folder: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers) -> Interaction:
    """A kept picture that Discord shows, by a program that was killed before it noted that."""
    async with running(folder, monkeypatch, around=servers) as live:
        await keep_pictures(live, 1)
    async with running(folder, monkeypatch, around=servers, reach=killed_at("messenger.hand_over done")) as live:
        claim = await live.discord.slash("recover", user_id=1)
        await claim.wait(lambda i: i.message is not None and bool(i.message.attachments))
        await live.app.use_case.recovery.idle(10)
    [job], _ = stored_rows(folder)
    assert (job["state"], job["claim_token"]) == ("spooled", claim.token)
    return claim


async def test_a_picture_that_was_handed_over_before_a_kill_is_charged_after_it_and_handed_over_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    first = await handed_over_but_not_noted(tmp_path, monkeypatch, servers)
    async with running(tmp_path, monkeypatch, around=servers) as live:
        await live.app.use_case.recovery.idle(10)
        assert await live.left() == 9
        second = await live.discord.slash("recover", user_id=1)
        await second.wait(lambda i: any("nothing to recover" in text for text in texts(i)))
    assert pictures(servers.discord) == [first.message]
    [job], entries = stored_rows(tmp_path)
    assert (job["state"], job["message_id"], job["claim_token"]) == ("delivered", require(first.message).id, None)
    assert [entry["kind"] for entry in entries] == ["hold", "charge"]


async def test_a_second_claim_finishes_the_first_where_it_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killing = False

    def reach(point: str) -> None:
        if killing and point == "messenger.hand_over done":
            raise Killed

    async with running(tmp_path, monkeypatch, reach=reach) as live:
        await keep_pictures(live, 2)
        killing = True
        first = await live.discord.slash("recover", user_id=1)
        await first.wait(lambda i: any("went wrong" in text for text in texts(i)))
        killing = False
        assert pictures(live.discord) == [first.message]
        second = await live.discord.slash("recover", user_id=1)
        said = "Your image is in the answer to your earlier /recover. One more image is waiting. Use /recover again."
        await second.wait(lambda i: said in texts(i))
        await live.app.use_case.recovery.idle(10)
        assert pictures(live.discord) == [first.message]
        third = await live.discord.slash("recover", user_id=1)
        await third.wait(lambda i: i.message is not None and bool(i.message.attachments))
        await live.app.use_case.recovery.idle(10)
        assert require(first.message).filenames != require(third.message).filenames
        assert await live.left() == 8
    _, entries = stored_rows(tmp_path)
    assert [entry["kind"] for entry in entries] == ["hold", "hold", "charge", "charge"]


async def test_recover_says_how_many_more_are_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch) as live:
        await keep_pictures(live, 3)
        for text in (
            "2 more images are waiting. Use /recover again.",
            "One more image is waiting. Use /recover again.",
        ):
            claim = await live.discord.slash("recover", user_id=1)
            await claim.wait(lambda i, text=text: text in texts(i))  # type: ignore[misc]  # bound at once
        await live.discord.slash("recover", user_id=1)
        await live.discord.wait(lambda discord: len(pictures(discord)) == 3)
        await live.app.use_case.recovery.idle(10)
        assert await live.left() == 7


async def test_a_kept_picture_is_charged_only_if_discords_answer_carries_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DeliveryMethods.by_token

    async def dropped(self: DeliveryMethods, *given: object) -> dict[str, object]:
        return {**await real(self, *given), "attachments": []}  # type: ignore[arg-type]  # passed on as they came

    async with running(tmp_path, monkeypatch) as live:
        await keep_pictures(live, 1)
        monkeypatch.setattr(DeliveryMethods, "by_token", dropped)
        claim = await live.discord.slash("recover", user_id=1)
        await claim.wait(lambda i: any("kept" in text for text in texts(i)))
        await live.app.use_case.recovery.idle(10)
        assert len(await live.app.storage.repository.parked_jobs(1)) == 1
        assert await live.left() == 9  # held, not charged
    _, entries = stored_rows(tmp_path)
    assert [entry["kind"] for entry in entries] == ["hold"]


# --- a stop waits for what a person has started ----------------------------------------------------------------------


@asynccontextmanager
async def held(
    monkeypatch: pytest.MonkeyPatch, owner: type, method: str
) -> AsyncIterator[tuple[asyncio.Event, asyncio.Event]]:
    """Hold the calls of a method: yields an event for the first call, and one that lets them go on."""
    called, go_on = asyncio.Event(), asyncio.Event()
    real = getattr(owner, method)

    async def holding(*args: object, **kwargs: object) -> object:
        called.set()
        await go_on.wait()
        return await real(*args, **kwargs)

    monkeypatch.setattr(owner, method, holding)
    yield called, go_on


async def test_a_stop_waits_for_a_picture_that_is_being_handed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as live, held(monkeypatch, Messenger, "hand_over") as (called, go_on):
        await keep_pictures(live, 1)
        claim = await live.discord.slash("recover", user_id=1)
        await called.wait()
        closing = asyncio.create_task(live.app.use_case.recovery.close(grace=5))
        late = await live.discord.slash("recover", user_id=1)
        await late.wait(lambda i: any("restarting" in text for text in texts(i)))
        go_on.set()
        await closing
        assert require(claim.message).attachments
        assert await live.left() == 9


async def test_a_stop_waits_for_a_result_that_is_being_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch) as live:
        message = await live.made(private=True)
        job = await live.job(message)
        async with held(monkeypatch, discord.Webhook, "send") as (called, go_on):
            await live.discord.click(message, f"job:share:{job.id}", user_id=1)
            await called.wait()
            closing = asyncio.create_task(live.app.use_case.recovery.close(grace=5))
            await asyncio.sleep(0)
            go_on.set()
            await closing
        [row] = await live.app.storage.database.run("SELECT shared_id FROM jobs")
        assert row["shared_id"] in live.discord.messages


async def test_a_history_under_way_is_shown_before_the_bot_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as live:
        await live.made()
        await live.app.use_case.recovery.idle(10)
        async with held(monkeypatch, discord.http.HTTPClient, "get_message") as (called, go_on):
            history = await live.discord.slash("history", user_id=1)
            await called.wait()
            closing = asyncio.create_task(live.app.use_case.recovery.close(grace=5))
            await asyncio.sleep(0)
            go_on.set()
            await closing
            assert require(history.message).embeds


# --- sharing -------------------------------------------------------------------------------------------------------


async def test_a_result_that_was_shared_before_a_kill_is_not_shared_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    async with running(tmp_path, monkeypatch, around=servers) as live:
        message = await live.made(private=True)
        job = await live.job(message)
        monkeypatch.setattr(live.app.storage.history, "shared", killed)
        await live.discord.click(message, f"job:share:{job.id}", user_id=1)
        await live.discord.wait(lambda discord: len(pictures(discord)) == 2)
    async with running(tmp_path, monkeypatch, around=servers) as live:
        again = await live.discord.click(message, f"job:share:{job.id}", user_id=1)
        await again.wait(lambda i: any("already shared" in text for text in texts(i)))
        [row] = await live.app.storage.database.run("SELECT shared_id FROM jobs")
        [public] = [one for one in pictures(live.discord) if not one.ephemeral]
        assert row["shared_id"] == public.id


async def killed(*_: object, **__: object) -> None:
    raise Killed


async def test_a_share_that_never_reached_discord_can_be_repeated(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    message = await live.made(private=True)
    job = await live.job(message)
    tried = asyncio.Event()

    async def not_sent(*_: object, **__: object) -> None:
        tried.set()
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(discord.Webhook, "send", not_sent)
        await live.discord.click(message, f"job:share:{job.id}", user_id=1)
        await tried.wait()
        await live.app.use_case.recovery.idle(10)
    live.discord.fail("GET", "/channels/*/messages", status=403, code=50001)
    unclear = await live.discord.click(message, f"job:share:{job.id}", user_id=1)
    await unclear.wait(lambda i: any("may have been shared" in text for text in texts(i)))
    await live.discord.click(message, f"job:share:{job.id}", user_id=1)
    await live.discord.wait(lambda discord: len(pictures(discord)) == 2)
