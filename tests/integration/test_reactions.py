"""Reactions on results over real sockets: repeat, copy, and delete, also repeated and after a restart."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from yarl import URL

from bot.images import inspection
from cogs import hints, reactions
from cogs.reactions import Reactions
from sandbox import discord_server, pikzels_server
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import KEY, PHOTO, Live, given, png, running
from tests.support.e2e import books as stored_rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from bot.domain.models import Picture
    from tests.support.servers import Servers

AGAIN, COPY, DELETE = "🔁", "✉️", "❌"
LOGO = discord_server.Upload("logo.png", 100_000, "image/png")
NOBODY = 999_999  # uses only /quota, to know when earlier events were handled
ROLE, ELSEWHERE, ITS_CHANNEL = 55, 1_100_000_000_000_000_077, 1_100_000_000_000_000_078
POSTS = f"/channels/{discord_server.CHANNEL_ID}/messages"


@pytest.fixture
async def concurrent_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Live]:
    """A bot with enough concurrency for many requests at once."""
    async with running(tmp_path, monkeypatch, quota={"member_daily": 3}, pikzels={"concurrency": 100}) as started:
        yield started


def in_two_days() -> datetime:
    return datetime.now(UTC) + timedelta(days=2)


async def settle(live: Live) -> None:
    """Wait until every event sent so far is handled. The answer to an interaction proves that all were received."""
    interaction = await live.discord.slash("quota", user_id=NOBODY)
    await interaction.wait(lambda i: i.message is not None, 10)
    await wait_for_handlers()
    await live.app.use_case.recovery.idle(10)


async def wait_for_handlers() -> None:
    events = [task for task in asyncio.all_tasks() if task.get_name() == "discord.py: on_raw_reaction_add"]
    if events:
        done, unfinished = await asyncio.wait(events, timeout=30)
        assert not unfinished
        assert done


async def react(live: Live, message: discord_server.Message, emoji: str, *people: int) -> None:
    """Let people react at the same moment; wait until every reaction is handled."""
    await asyncio.gather(*(live.discord.react(message, emoji, user_id=user_id) for user_id in people))
    await settle(live)


def public(live: Live) -> list[discord_server.Message]:
    """The public messages in server channels."""
    found = live.discord.messages.values()
    return [one for one in found if one.guild_id is not None and not one.ephemeral and not one.deleted]


def public_results(live: Live) -> list[discord_server.Message]:
    return [one for one in public(live) if one.attachments]


def direct_messages(live: Live, *people: int) -> list[str]:
    return [one.content for user_id in people for one in live.discord.direct(user_id)]


async def credits_used(live: Live, people: Iterable[int]) -> int:
    """How many of their three daily credits `people` have spent or held."""
    return sum([3 - await live.left(user_id) for user_id in people])


async def finished_result(live: Live, **options: Any) -> discord_server.Message:
    message = await live.made(**options)
    await live.app.use_case.recovery.idle(10)
    return message


def source_image(address: str) -> bytes:
    return given(URL(address).path.split("/")[-2])


def decode_data_url(data_url: str) -> bytes:
    kind, _, encoded = data_url.partition(",")
    assert kind == "data:image/png;base64"
    return base64.b64decode(encoded)


def nothing_logged(caplog: pytest.LogCaptureFixture) -> bool:
    return not [record for record in caplog.records if record.levelno >= logging.WARNING]


# --- repeat: after restarts, from stored images -----------------------------------------------------------------------


async def test_an_old_result_can_be_repeated_after_two_restarts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    async with running(tmp_path, monkeypatch, around=servers) as live:
        first = await finished_result(live, prompt="a cat", model="pkz_3", format="9:16")
        job = await live.job(first)
    async with running(tmp_path, monkeypatch, around=servers):
        pass
    async with running(tmp_path, monkeypatch, around=servers) as live:
        await react(live, first, AGAIN, 2)
        [second] = [one for one in public_results(live) if one is not first]
        made = await live.job(second)
    old, new = live.api.calls
    assert (made.parent_id, made.requester.user_id, second.replied_to) == (job.id, 2, first)
    assert old.body == new.body
    jobs, entries = stored_rows(tmp_path)
    assert [(row["parent_id"], row["user_id"]) for row in jobs] == [(None, 1), (job.id, 2)]
    assert [(row["user_id"], row["spent"]) for row in entries if row["kind"] == "charge"] == [(1, 1), (2, 1)]


async def test_a_url_that_still_works_is_sent_again(live: Live) -> None:
    first = await finished_result(live)
    await react(live, first, AGAIN, 2)
    old, new = (call.body for call in live.api.calls)
    assert new["image_url"] == old["image_url"]
    assert "image_base64" not in new


async def test_when_the_urls_have_expired_the_stored_images_are_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    async with running(tmp_path, monkeypatch, around=servers) as live:
        first = await finished_result(live, model="pkz_4", reference=LOGO)
    async with running(tmp_path, monkeypatch, around=servers, clock=in_two_days) as live:
        live.cdn.gone = True
        await react(live, first, AGAIN, 2)
        assert len(public_results(live)) == 2
    old, new = (call.body for call in live.api.calls)
    assert decode_data_url(new["image_base64"]) == source_image(old["image_url"])
    assert decode_data_url(new["support_image_base64"]) == source_image(old["support_image_url"])
    assert source_image(old["image_url"]) != source_image(old["support_image_url"])
    assert not {"image_url", "support_image_url"} & set(new)


@pytest.mark.parametrize("how", ["never kept", "removed", "damaged"])
async def test_a_source_image_that_is_no_longer_stored_must_be_attached_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers, how: str
) -> None:
    storage = {"source_days": 0} if how == "never kept" else {}
    async with running(tmp_path, monkeypatch, around=servers, storage=storage) as live:
        first = await finished_result(live)
    for file in (tmp_path / "sources").iterdir():
        if how == "removed":
            file.unlink()
        else:
            file.write_bytes(b"damaged")
    async with running(tmp_path, monkeypatch, around=servers, storage=storage, clock=in_two_days) as live:
        await react(live, first, AGAIN, 2)
        texts = direct_messages(live, 2) + [one.content for one in public(live) if one.replied_to is first]
        assert await live.left(2) == 10
    assert len(live.api.calls) == 1
    assert len(texts) == 1
    assert "no longer stored. Attach it again with /thumbnail" in texts[0]
    assert "You were not charged." in texts[0]


async def test_a_missing_reference_image_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    async with running(tmp_path, monkeypatch, around=servers) as live:
        first = await finished_result(live, model="pkz_4", reference=LOGO)
        job = await live.job(first)
    (tmp_path / "sources" / str(job.request.support_hash)).unlink()
    async with running(tmp_path, monkeypatch, around=servers, clock=in_two_days) as live:
        await react(live, first, AGAIN, 2)
        assert [text.partition(" of this")[0] for text in direct_messages(live, 2)] == ["The reference image"]
        assert (await live.left(2), len(live.api.calls)) == (10, 1)


# --- repeat: many members, many times, at once ------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["slow", "refusing"])
async def test_fifty_people_at_once_do_not_flood_the_channel(concurrent_live: Live, provider: str) -> None:
    first = await finished_result(concurrent_live)
    people = range(100, 150)
    if provider == "slow":
        concurrent_live.api.always(Reply.hold())
    elif provider == "refusing":
        concurrent_live.api.always(Reply.error("CONTENT_POLICY"))
    before = len(public(concurrent_live))
    await asyncio.gather(*(concurrent_live.discord.react(first, AGAIN, user_id=user_id) for user_id in people))
    await concurrent_live.api.called(4, timeout=10)
    if provider == "slow":
        await concurrent_live.discord.wait(lambda _: len(direct_messages(concurrent_live, *people)) == 47, 20)
        assert await credits_used(concurrent_live, people) == 3
        concurrent_live.api.release()
    await settle(concurrent_live)
    charged = [user_id for user_id in people if await concurrent_live.left(user_id) == 2]
    refused = [user_id for user_id in people if await concurrent_live.left(user_id) == 3]
    assert len(public(concurrent_live)) - before == 3
    assert len(concurrent_live.api.calls) == 4
    assert (len(charged), len(refused)) == ((0, 50) if provider == "refusing" else (3, 47))
    requesters = await requesters_of_replies(concurrent_live, first)
    assert len(requesters) == 3
    for user_id in people:
        texts = direct_messages(concurrent_live, user_id)
        assert len(texts) == (0 if user_id in requesters else 1)
        assert all("You were not charged." in text and str(first.id) in text for text in texts)


async def test_with_a_quick_provider_everyone_of_fifty_gets_an_image_or_one_answer(concurrent_live: Live) -> None:
    first = await finished_result(concurrent_live)
    people = range(100, 150)
    await react(concurrent_live, first, AGAIN, *people)
    served = await requesters_of_replies(concurrent_live, first)
    assert 3 <= len(served) == len(public_results(concurrent_live)) - 1 == len(concurrent_live.api.calls) - 1
    for user_id in people:
        assert (await concurrent_live.left(user_id) == 2) == (user_id in served)
        assert len(direct_messages(concurrent_live, user_id)) == (0 if user_id in served else 1)
    sent_away = next((user_id for user_id in people if user_id not in served), 151)
    await react(concurrent_live, first, AGAIN, sent_away)
    assert sent_away in await requesters_of_replies(concurrent_live, first)


async def requesters_of_replies(live: Live, first: discord_server.Message) -> set[int]:
    return {(await live.job(one)).requester.user_id for one in public(live) if one.replied_to is first}


CROWDED = "Several are already in progress. Try again when they finish. You were not charged."
HAS_FAILED = "A request like this has just failed. Try again in a minute. You were not charged."


async def crowd(live: Live, message: discord_server.Message, *people: int) -> None:
    """Let three people react, and wait until the provider works for all of them."""
    called = len(live.api.calls)
    live.api.always(Reply.hold())
    for user_id in people:
        await live.discord.react(message, AGAIN, user_id=user_id)
    await live.api.called(called + len(people))
    await live.discord.wait(lambda _: sum(one.replied_to is message for one in public(live)) >= len(people), 10)


async def finish(live: Live) -> None:
    """Let the provider finish everything, and be quick from now on."""
    live.api.always(Reply.ok())
    live.api.release()
    await settle(live)


async def sent_away(live: Live, message: discord_server.Message, *people: int) -> None:
    """Let people react to a result that is crowded."""
    for user_id in people:
        await react_without_waiting(live, message, AGAIN, user_id=user_id)


async def test_when_the_others_have_finished_those_who_were_sent_away_and_newcomers_are_served(
    concurrent_live: Live,
) -> None:
    live, people = concurrent_live, range(104, 121)
    first = await finished_result(live)
    await crowd(live, first, 101, 102, 103)
    await sent_away(live, first, *people)
    assert all(direct_messages(live, user_id)[0].startswith(CROWDED) for user_id in people)
    await finish(live)
    await react(live, first, AGAIN, 200)
    for user_id in people:
        await react(live, first, AGAIN, user_id)
    assert await requesters_of_replies(live, first) == {101, 102, 103, 200, *people}
    assert (len(direct_messages(live, *people)), direct_messages(live, 200)) == (17, [])


async def test_while_the_same_requests_are_in_progress_nobody_is_told_twice(concurrent_live: Live) -> None:
    first = await finished_result(concurrent_live)
    await crowd(concurrent_live, first, 101, 102, 103)
    await sent_away(concurrent_live, first, 104, 104)
    assert len(direct_messages(concurrent_live, 104)) == 1
    await finish(concurrent_live)


async def test_whoever_comes_again_when_others_have_taken_the_places_is_told_again(concurrent_live: Live) -> None:
    first = await finished_result(concurrent_live)
    await crowd(concurrent_live, first, 101, 102, 103)
    await sent_away(concurrent_live, first, 104)
    await finish(concurrent_live)
    await crowd(concurrent_live, first, 111, 112, 113)
    await sent_away(concurrent_live, first, 104, 104)
    assert [text.partition("\n")[0] for text in direct_messages(concurrent_live, 104)] == [CROWDED, CROWDED]
    await finish(concurrent_live)


async def test_whoever_reacts_to_two_crowded_results_is_answered_for_both(concurrent_live: Live) -> None:
    both = [await finished_result(concurrent_live, user_id=user_id) for user_id in (1, 2)]
    for number, message in enumerate(both, 1):
        await crowd(concurrent_live, message, *(100 * number + one for one in (1, 2, 3)))
    for message in both:
        await sent_away(concurrent_live, message, 104)
    texts = direct_messages(concurrent_live, 104)
    assert [str(message.id) in text for message, text in zip(both, texts, strict=True)] == [True, True]
    await finish(concurrent_live)


async def test_someone_whose_image_is_finished_is_not_told_to_come_again(concurrent_live: Live) -> None:
    """Their own reaction has made its image, and no second one follows from it."""
    first = await finished_result(concurrent_live)
    await react(concurrent_live, first, AGAIN, 104)
    await crowd(concurrent_live, first, 101, 102, 103)
    await sent_away(concurrent_live, first, 104)
    assert direct_messages(concurrent_live, 104) == []
    await finish(concurrent_live)


async def test_three_failures_within_a_minute_stop_further_ones_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, passed = datetime.now(UTC), timedelta(0)
    async with running(tmp_path, monkeypatch, clock=lambda: start + passed) as live:
        first = await finished_result(live)
        live.api.script(*[Reply.error("CONTENT_POLICY")] * 3)
        for user_id in (101, 102, 103, 104, 104):
            await react(live, first, AGAIN, user_id)
        assert [text.partition("\n")[0] for text in direct_messages(live, 101, 102, 103, 104)] == [HAS_FAILED]
        assert (len(live.api.calls), sum(one.replied_to is first for one in public(live))) == (4, 3)
        passed = timedelta(seconds=59)
        await react(live, first, AGAIN, 105)
        assert direct_messages(live, 105)[0].startswith(HAS_FAILED)
        passed = timedelta(seconds=61)
        await react(live, first, AGAIN, 104)
        assert (len(live.api.calls), len(public_results(live)), len(direct_messages(live, 104))) == (5, 2, 1)


async def test_images_that_cannot_be_posted_count_as_failures(concurrent_live: Live) -> None:
    first = await finished_result(concurrent_live)
    await crowd(concurrent_live, first, 101, 102, 103)
    concurrent_live.discord.fail("*", "/channels/*", status=403, code=50001, times=100)
    concurrent_live.discord.fail("PATCH", "/channels/*", status=403, code=50001, times=100)
    await finish(concurrent_live)
    concurrent_live.discord.heal()
    assert len(await concurrent_live.app.storage.repository.parked_jobs(101)) == 1
    await react(concurrent_live, first, AGAIN, 104)
    assert direct_messages(concurrent_live, 104)[0].startswith(HAS_FAILED)


async def test_finished_images_of_the_last_minute_stop_nobody(live: Live) -> None:
    first = await finished_result(live)
    for user_id in range(101, 106):
        await react(live, first, AGAIN, user_id)
    assert (len(public_results(live)), direct_messages(live, *range(101, 106))) == (6, [])


@pytest.mark.parametrize("how", [{"reset": True}, {"reset": True, "after": True}, {"hang": True, "after": True}])
async def test_a_reply_that_the_network_loses_is_sent_again_and_posted_once(live: Live, how: dict[str, Any]) -> None:
    await reload_reactions(live, reply_seconds=3)
    first = await finished_result(live)
    live.discord.fail("POST", POSTS, **how)
    await react(live, first, AGAIN, 2)
    assert (len(public_results(live)), len(live.api.calls), direct_messages(live, 2)) == (2, 2, [])
    assert len(public(live)) == 2


async def test_replies_that_are_never_answered_free_their_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, pikzels={"concurrency": 3}) as live:
        await reload_reactions(live, reply_seconds=2)
        first = await finished_result(live)
        live.discord.fail("POST", POSTS, hang=True, times=100)
        async with asyncio.timeout(5):  # three at once: none waits for the one before it
            for user_id in (101, 102, 103):
                await live.discord.react(first, AGAIN, user_id=user_id)
            await live.discord.wait(lambda _: len(direct_messages(live, 101, 102, 103)) == 3, 10)
        live.discord.heal()
        await live.app.use_case.recovery.idle(10)
        assert all(text.startswith("Something went wrong. Try again. You") for text in direct_messages(live, 101, 103))
        await react(live, first, AGAIN, 101)
        assert (len(live.api.calls), [await live.left(one) for one in (101, 102)]) == (2, [9, 10])


async def test_someone_who_fails_again_is_told_again(live: Live) -> None:
    first = await finished_result(live)
    for _ in range(2):
        live.discord.fail("POST", POSTS, code=50035)
        await react(live, first, AGAIN, 2)
    assert [text.startswith("Something went wrong. Try again.") for text in direct_messages(live, 2)] == [True, True]


async def test_members_in_progress_can_react_again_without_a_message(concurrent_live: Live) -> None:
    first = await finished_result(concurrent_live)
    concurrent_live.api.always(Reply.hold())
    for user_id in (101, 102, 103):
        await concurrent_live.discord.react(first, AGAIN, user_id=user_id)
    await concurrent_live.api.called(4)
    await concurrent_live.discord.react(first, AGAIN, user_id=103)  # already generating, so there is nothing to tell
    await concurrent_live.discord.react(first, AGAIN, user_id=104)
    await concurrent_live.discord.wait(lambda _: len(direct_messages(concurrent_live, 104)) == 1, 10)
    concurrent_live.api.release()
    await settle(concurrent_live)
    assert direct_messages(concurrent_live, 101, 102, 103) == []
    assert len(public_results(concurrent_live)) == 4


async def test_a_slow_request_counts_until_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unfinished = timedelta(0)
    async with running(tmp_path, monkeypatch, clock=lambda: datetime.now(UTC) + unfinished) as live:
        first = await finished_result(live)
        live.api.always(Reply.hold())
        for user_id in (101, 102, 103):
            await live.discord.react(first, AGAIN, user_id=user_id)
        await live.api.called(4)
        unfinished = timedelta(minutes=5)
        await react_without_waiting(live, first, AGAIN, user_id=104)
        assert len(direct_messages(live, 104)) == 1
        live.api.release()
        await settle(live)
        live.api.always(Reply.ok())
        await react(live, first, AGAIN, 105)
        assert (len(public_results(live)), direct_messages(live, 105)) == (5, [])


async def test_one_member_reacting_to_fifty_results_gets_as_many_as_their_allowance(concurrent_live: Live) -> None:
    finished_results = await asyncio.gather(*(concurrent_live.made(user_id=user_id) for user_id in range(200, 250)))
    await concurrent_live.app.use_case.recovery.idle(20)
    await asyncio.gather(*(concurrent_live.discord.react(message, AGAIN, user_id=2) for message in finished_results))
    await settle(concurrent_live)
    assert (len(public_results(concurrent_live)), len(concurrent_live.api.calls)) == (53, 53)
    assert await concurrent_live.left(2) == 0
    texts = direct_messages(concurrent_live, 2)
    assert (
        1 <= len(texts) == len({text[:20] for text in texts}) <= 2
    )  # one for too many requests at once, one for no credits left


async def test_two_simultaneous_copies_of_an_event_count_once(live: Live) -> None:
    first = await finished_result(live)
    await react(live, first, AGAIN, 2, 2)
    assert (len(live.api.calls), await live.left(2), direct_messages(live, 2)) == (2, 2, [])
    assert len(public_results(live)) == 2


async def test_removing_and_repeating_a_reaction_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    async with running(tmp_path, monkeypatch, around=servers) as live:
        first = await finished_result(live)
        for _ in range(5):
            await live.discord.react(first, AGAIN, user_id=2)
            await live.discord.unreact(first, AGAIN, user_id=2)
        await settle(live)
    async with running(tmp_path, monkeypatch, around=servers) as live:
        await react(live, first, AGAIN, 2)
        assert (len(live.api.calls), await live.left(2), direct_messages(live, 2)) == (2, 9, [])


async def test_a_result_created_by_reaction_can_be_repeated_by_reaction(live: Live) -> None:
    first = await finished_result(live)
    await react(live, first, AGAIN, 2)
    [second] = [one for one in public_results(live) if one is not first]
    await react(live, second, AGAIN, 2)
    third = await live.job(public_results(live)[-1])
    assert (third.parent_id, third.requester.user_id) == ((await live.job(second)).id, 2)
    assert (await live.left(1), await live.left(2)) == (2, 1)


async def test_the_member_who_reacts_is_charged(live: Live) -> None:
    finished_results = [await finished_result(live) for _ in range(3)]
    await react(live, finished_results[0], AGAIN, 1)
    assert (await live.left(1), len(live.api.calls)) == (0, 3)
    [text] = direct_messages(live, 1)
    assert "You have used 3 of 3 credits today" in text
    await react(live, finished_results[0], AGAIN, 2)
    assert (await live.left(2), len(live.api.calls)) == (2, 4)


async def test_a_failed_request_can_be_retried_by_reacting_again(live: Live) -> None:
    first = await finished_result(live)
    live.api.script(Reply.error("CONTENT_POLICY"))
    await react(live, first, AGAIN, 2)
    [answer] = [one for one in public(live) if one.replied_to is first]
    assert "You were not charged." in answer.content
    await live.discord.unreact(first, AGAIN, user_id=2)
    await react(live, first, AGAIN, 2)
    assert (await live.left(2), len(public_results(live)), len(live.api.calls)) == (2, 2, 3)


# --- reactions that create nothing ------------------------------------------------------------------------------------


async def test_reactions_by_bots_and_on_other_messages_are_ignored(live: Live) -> None:
    first = await finished_result(live)
    await live.discord.wait(lambda _: first.reactions.get(AGAIN) == {discord_server.APPLICATION_ID}, 10)
    live.discord.guilds.bots.add(70)
    texts = live.discord.say("not a result")
    before = len(public(live))
    for emoji in (AGAIN, COPY, DELETE):
        await live.discord.react(first, emoji, user_id=discord_server.APPLICATION_ID)
        await react(live, first, emoji, 70)
        await react(live, texts, emoji, 2)
    await react(live, first, "❤️", 2)
    assert (len(live.api.calls), len(public(live)), direct_messages(live, 2, 70)) == (1, before, [])
    assert not texts.deleted


async def test_reactions_to_a_request_in_progress_are_ignored(live: Live) -> None:
    live.api.script(Reply.hold())
    interaction = await live.thumbnail()
    await live.api.called(1)
    assert interaction.message is not None
    await react_without_waiting(live, interaction.message, AGAIN, DELETE, user_id=2)
    assert (len(live.api.calls), interaction.message.deleted) == (1, False)
    live.api.release()
    await interaction.wait(lambda i: i.message is not None and bool(i.message.attachments), 10)


async def react_without_waiting(live: Live, message: discord_server.Message, *emojis: str, user_id: int) -> None:
    """Like `react`, but without waiting for jobs, because one is still in progress."""
    for emoji in emojis:
        await live.discord.react(message, emoji, user_id=user_id)
    interaction = await live.discord.slash("quota", user_id=NOBODY)
    await interaction.wait(lambda i: i.message is not None, 10)
    await wait_for_handlers()


async def test_in_an_uncached_server_the_reacting_member_is_fetched(live: Live) -> None:
    """In such a server, discord.py drops the member that Discord includes in the event."""
    live.discord.guilds.bots.add(70)
    live.discord.guilds.departed.add(71)
    interaction = await live.discord.slash(
        "thumbnail", options={"image": PHOTO}, user_id=1, guild_id=ELSEWHERE, channel_id=ITS_CHANNEL
    )
    await interaction.wait(lambda i: i.message is not None and bool(i.message.attachments), 10)
    assert interaction.message is not None
    await live.app.use_case.recovery.idle(10)
    await react(live, interaction.message, AGAIN, 70, 71, 72)
    assert [(await live.job(one)).requester.user_id for one in public_results(live)] == [1, 72]
    assert direct_messages(live, 70, 71) == []
    fetched_members = {
        request.path.rpartition("/")[2] for request in live.discord.requests if "/members/" in request.path
    }
    assert fetched_members == {"70", "71", "72"}  # not the bot itself, which recognizes its own reactions


async def test_reactions_work_without_seed_reactions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch, results={"seed_reaction": False}) as live:
        first = await finished_result(live)
        assert first.reactions == {}
        await react(live, first, AGAIN, 2)
        assert (len(public_results(live)), [one.reactions.get(AGAIN) for one in public_results(live)]) == (
            2,
            [{2}, None],
        )


async def test_a_bot_without_the_reaction_permission_delivers_silently(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    live.discord.permissions[discord_server.APPLICATION_ID] = discord_server.ORDINARY_PERMISSIONS & ~(1 << 6)
    first = await finished_result(live)
    assert (first.reactions, await live.left(1)) == ({}, 2)
    await react(live, first, AGAIN, 2)
    assert len(public_results(live)) == 2
    assert nothing_logged(caplog)


async def test_a_shared_private_result_works_like_any_other_result(live: Live) -> None:
    private = await finished_result(live, private=True)
    job = await live.job(private)
    await live.discord.click(private, f"job:share:{job.id}", user_id=1)
    await live.discord.wait(lambda _: len(public_results(live)) == 1, 10)
    [shared] = public_results(live)
    await live.discord.wait(lambda _: shared.reactions.get(AGAIN) == {discord_server.APPLICATION_ID}, 10)
    await settle(live)
    await react(live, shared, AGAIN, 2)
    [second] = [one for one in public_results(live) if one is not shared]
    made = await live.job(second)
    assert (made.parent_id, made.requester.private, second.replied_to) == (job.id, False, shared)
    await react(live, shared, COPY, 3)
    assert [one.attachments[0].data for one in live.discord.direct(3)] == [private.attachments[0].data]
    await react(live, shared, DELETE, 1)
    assert shared.deleted


# --- delete -----------------------------------------------------------------------------------------------------------


async def test_the_requester_can_delete_a_result(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    first = await finished_result(live)
    await react(live, first, DELETE, 1, 1, 1)
    assert (first.deleted, await live.left(1), direct_messages(live, 1)) == (True, 2, [])
    assert nothing_logged(caplog)


async def test_repeating_a_result_makes_a_member_requester_of_the_new_one_only(live: Live) -> None:
    first = await finished_result(live)
    await react(live, first, AGAIN, 2)
    [second] = [one for one in public_results(live) if one is not first]
    await react(live, first, DELETE, 2)
    await react(live, second, DELETE, 1)
    assert (first.deleted, second.deleted) == (False, False)
    await react(live, second, DELETE, 2)
    assert (first.deleted, second.deleted) == (False, True)


async def test_another_members_delete_reaction_is_ignored(live: Live) -> None:
    first = await finished_result(live)
    for _ in range(5):
        await react(live, first, DELETE, 2)
    assert (first.deleted, direct_messages(live, 2)) == (False, [])
    assert sum(request.path == f"/guilds/{discord_server.GUILD_ID}" for request in live.discord.requests) == 1


@pytest.mark.parametrize("why", ["role", "everyone", "channel's role", "channel's member", "administrator", "owner"])
async def test_a_moderator_can_delete_any_result(live: Live, why: str) -> None:
    guilds, may = live.discord.guilds, discord_server.MANAGE_MESSAGES
    guilds.roles[ROLE], guilds.members[2] = 0, (ROLE,)
    match why:
        case "role":
            guilds.roles[ROLE] = may
        case "everyone":
            guilds.everyone |= may
        case "channel's role":
            guilds.overwrite(discord_server.CHANNEL_ID, discord_server.GUILD_ID, deny=may)
            guilds.overwrite(discord_server.CHANNEL_ID, ROLE, allow=may)
        case "channel's member":
            guilds.overwrite(discord_server.CHANNEL_ID, 2, allow=may, of_member=True)
        case "administrator":
            guilds.roles[ROLE] = 1 << 3
            guilds.overwrite(discord_server.CHANNEL_ID, ROLE, deny=may)
        case "owner":
            guilds.owner = 2
    first = await finished_result(live)
    await react(live, first, DELETE, 2)
    assert first.deleted


async def test_a_moderator_of_other_channels_cannot_delete_here(live: Live) -> None:
    live.discord.guilds.everyone |= discord_server.MANAGE_MESSAGES
    live.discord.guilds.overwrite(
        discord_server.CHANNEL_ID, discord_server.GUILD_ID, deny=discord_server.MANAGE_MESSAGES
    )
    first = await finished_result(live)
    await react(live, first, DELETE, 2)
    assert not first.deleted


async def test_in_a_thread_the_overwrites_of_its_channel_apply(live: Live) -> None:
    live.discord.guilds.threads[ITS_CHANNEL] = discord_server.CHANNEL_ID
    live.discord.guilds.overwrite(discord_server.CHANNEL_ID, 2, allow=discord_server.MANAGE_MESSAGES, of_member=True)
    interaction = await live.discord.slash("thumbnail", options={"image": PHOTO}, user_id=1, channel_id=ITS_CHANNEL)
    await interaction.wait(lambda i: i.message is not None and bool(i.message.attachments), 10)
    assert interaction.message is not None
    await live.app.use_case.recovery.idle(10)
    await react(live, interaction.message, DELETE, 3)
    assert not interaction.message.deleted
    await react(live, interaction.message, DELETE, 2)
    assert interaction.message.deleted


# --- copy -------------------------------------------------------------------------------------------------------------


async def test_a_copy_has_the_same_bytes_and_is_sent_at_most_once_a_minute(live: Live) -> None:
    first = await finished_result(live, prompt="a cat")
    for _ in range(3):
        await react(live, first, COPY, 2)
        await live.discord.unreact(first, COPY, user_id=2)
    await react(live, first, "✉", 3)
    [copy] = live.discord.direct(2)
    [other] = live.discord.direct(3)
    [shown], [sent] = first.attachments, copy.attachments
    assert (sent.data, sent.filename, sent.description) == (shown.data, shown.filename, shown.description)
    assert other.attachments[0].data == shown.data
    assert (await live.left(2), len(live.api.calls)) == (3, 1)


async def test_a_failed_copy_is_reported_and_can_be_requested_again(live: Live) -> None:
    first = await finished_result(live)
    live.cdn.gone = True
    await react(live, first, COPY, 2)
    [text] = direct_messages(live, 2)
    assert text.startswith("Something went wrong. Try again.")
    live.cdn.gone = False
    await react(live, first, COPY, 2)
    assert [len(one.attachments) for one in live.discord.direct(2)] == [0, 1]


async def test_a_copy_over_the_direct_message_limit_is_shrunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = 25 * discord_server.MIB
    output = png(11 * discord_server.MIB)
    async with (
        discord_server.serve(keep_files=True, file_limit=large) as discord,
        pikzels_server.serve(api_key=KEY, output=output) as api,
        running(tmp_path, monkeypatch, around=(discord, api)) as live,
    ):
        interaction = await discord.slash("thumbnail", options={"image": PHOTO}, user_id=1, attachment_size_limit=large)
        await interaction.wait(lambda i: i.message is not None and bool(i.message.attachments), 10)
        assert interaction.message is not None
        await live.app.use_case.recovery.idle(10)
        await react(live, interaction.message, COPY, 2)
        [copy] = discord.direct(2)
    assert interaction.message.attachments[0].data == output
    sent = copy.attachments[0]
    assert (sent.filename.rpartition(".")[2], sent.size <= 10 * discord_server.MIB) == ("jpg", True)
    assert (sent.width, sent.height) == (1280, 720)


async def test_a_large_image_is_read_and_shrunk_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    inspect = inspection.inspect

    def recorded(path: Path, *, content: bytes | None = None) -> Picture:
        threads.append(threading.current_thread())
        return inspect(path, content=content)

    monkeypatch.setattr(inspection, "inspect", recorded)
    await reactions._fitting("large.png", png(11 * discord_server.MIB))
    assert threads
    assert threading.main_thread() not in threads


async def test_a_result_without_its_attachment_cannot_be_copied(live: Live) -> None:
    first = await finished_result(live)
    first.attachments.clear()
    await react(live, first, COPY, 2)
    assert len(direct_messages(live, 2)) == 1


# --- notifying the member -------------------------------------------------------------------------------------------


async def set_hint_seconds(live: Live, seconds: float) -> None:
    """Keep the hints in the channel for `seconds`."""
    await reload_reactions(live, hint_seconds=seconds)


async def reload_reactions(live: Live, **seconds: float) -> None:
    client = live.app.client
    await client.remove_cog("Reactions")
    await client.add_cog(Reactions(client, **seconds))


def channel_hints(live: Live) -> list[discord_server.Message]:
    """The hints that mention somebody and carry no image, deleted or not."""
    found = live.discord.messages.values()
    return [one for one in found if one.guild_id is not None and one.content.startswith("<@") and not one.attachments]


async def test_with_closed_direct_messages_one_hint_is_posted_in_the_channel(live: Live) -> None:
    await set_hint_seconds(live, 60)
    first = await finished_result(live)
    people = range(2, 12)
    live.discord.guilds.dms_closed.update(people)
    await react(live, first, COPY, *people)
    await live.discord.wait(lambda _: len(channel_hints(live)) == 1, 10)
    [hint] = channel_hints(live)
    assert "Your direct messages are closed" in hint.content
    await react(live, first, COPY, *people)
    assert (len(channel_hints(live)), hint.deleted) == (1, False)
    await live.app.client.remove_cog("Reactions")  # as on shutdown: no hint stays behind
    assert hint.deleted


async def test_a_hint_is_deleted_after_its_time_and_another_can_follow(live: Live) -> None:
    await set_hint_seconds(live, 0.05)
    first = await finished_result(live)
    live.discord.guilds.dms_closed.update((2, 3))
    for user_id in (2, 3):
        await react(live, first, COPY, user_id)
        await live.discord.wait(
            lambda _: bool(channel_hints(live)) and all(hint.deleted for hint in channel_hints(live)), 10
        )
        await wait_for_hints_to_end()
    assert [hint.content.partition(" ")[0] for hint in channel_hints(live)] == ["<@2>", "<@3>"]


async def test_whoever_could_not_be_told_is_told_when_they_come_again(concurrent_live: Live) -> None:
    live = concurrent_live
    await set_hint_seconds(live, 0.5)
    first = await finished_result(live)
    await crowd(live, first, 101, 102, 103)
    live.discord.guilds.dms_closed.update((104, 105))
    await sent_away(live, first, 104, 105)
    await live.discord.wait(lambda _: len(channel_hints(live)) == 1 and channel_hints(live)[0].deleted, 10)
    await wait_for_hints_to_end()
    await sent_away(live, first, 105)
    await live.discord.wait(lambda _: len(channel_hints(live)) == 2, 10)
    assert channel_hints(live)[1].content == f"<@105> {CROWDED}"
    await finish(live)


async def test_a_hint_that_a_killed_bot_has_left_behind_is_deleted_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    async with running(tmp_path, monkeypatch, around=servers) as live:
        await set_hint_seconds(live, 60)
        first = await finished_result(live)
        live.discord.guilds.dms_closed.add(2)
        await react(live, first, COPY, 2)
        await live.discord.wait(lambda _: len(channel_hints(live)) == 1, 10)
        [hint] = channel_hints(live)
        live.discord.fail("DELETE", POSTS + "/*", reset=True, times=100)  # as good as a kill: nothing is deleted
    assert not hint.deleted
    servers.discord.heal()
    async with running(tmp_path, monkeypatch, around=servers) as live:
        await live.discord.wait(lambda _: hint.deleted, 10)
    deleted = [one for one in servers.discord.requests if one.method == "DELETE" and one.status == 204]
    async with running(tmp_path, monkeypatch, around=servers) as live:
        await settle(live)
    assert [one for one in servers.discord.requests if one.method == "DELETE" and one.status != 0] == deleted


async def test_hints_that_cannot_be_deleted_are_remembered_up_to_a_limit(live: Live) -> None:
    live.discord.fail("DELETE", "/channels/*", reset=True, times=1000)
    shown = hints.Hints(live.app.client, seconds=0)
    for number in range(60):
        assert shown.show(discord_server.GUILD_ID, discord_server.CHANNEL_ID + 100 + number, "a hint")
    await wait_for_hints_to_end()
    stored = dict(json.loads(await live.app.client.services.values.get_value("reaction_hints") or ""))
    newest = sorted(one.id for one in live.discord.messages.values() if one.content == "a hint")[10:]
    assert sorted(stored) == newest


async def wait_for_hints_to_end() -> None:
    tasks = [task for task in asyncio.all_tasks() if task.get_name() == "reaction-hint"]
    if tasks:
        _, unfinished = await asyncio.wait(tasks, timeout=10)
        assert not unfinished


async def test_a_refusal_is_also_posted_in_the_channel(live: Live) -> None:
    finished_results = [await finished_result(live) for _ in range(3)]
    live.discord.guilds.dms_closed.add(1)
    for message in finished_results:
        await react(live, message, AGAIN, 1)
    await live.discord.wait(lambda _: len(channel_hints(live)) == 1, 10)
    assert "You have used 3 of 3 credits" in channel_hints(live)[0].content
    assert len(live.api.calls) == 3


async def test_in_a_channel_where_the_bot_cannot_post_the_member_is_told_and_not_charged(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    first = await finished_result(live)
    live.discord.fail("POST", POSTS, code=50013, times=3)
    await react(live, first, AGAIN, 2)
    [text] = direct_messages(live, 2)
    assert "can't post in that channel. You were not charged." in text
    assert str(discord_server.CHANNEL_ID) in text
    assert (await live.left(2), len(live.api.calls)) == (3, 1)
    live.discord.guilds.dms_closed.add(3)
    await react(live, first, AGAIN, 3)  # neither the channel nor a direct message works
    await wait_for_hints_to_end()
    assert (await live.left(3), len(live.api.calls)) == (3, 1)
    await react(live, first, AGAIN, 2)
    assert (await live.left(2), len(live.api.calls)) == (2, 2)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_when_the_reply_cannot_be_edited_the_image_is_posted_as_a_new_message(live: Live) -> None:
    first = await finished_result(live)
    live.discord.fail("PATCH", POSTS + "/*", code=50013, times=100)
    await react(live, first, AGAIN, 2)
    assert (len(public_results(live)), await live.left(2), len(live.api.calls)) == (2, 2, 2)
    [answer] = [one for one in public(live) if one.replied_to is first]
    assert answer not in public_results(live)


async def test_when_discord_rejects_the_reply_the_member_is_told(live: Live) -> None:
    first = await finished_result(live)
    live.discord.fail("POST", POSTS, code=50035)
    await react(live, first, AGAIN, 2)
    [text] = direct_messages(live, 2)
    assert text.startswith("Something went wrong. Try again. You were not charged.")
    assert (await live.left(2), len(live.api.calls)) == (3, 1)


async def test_nothing_is_charged_when_the_member_cannot_be_reached(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    finished_results = [await finished_result(live) for _ in range(3)]
    live.discord.fail("POST", "/users/@me/channels", code=50007)
    live.discord.fail("POST", POSTS, code=50013)
    await react(live, finished_results[0], AGAIN, 1)
    await wait_for_hints_to_end()
    assert (len(live.api.calls), direct_messages(live, 1), channel_hints(live)) == (3, [], [])
    assert nothing_logged(caplog)


async def test_the_member_who_reacts_is_told_about_an_open_circuit(live: Live) -> None:
    first = await finished_result(live)
    live.api.script(Reply.error("INSUFFICIENT_CREDITS"))
    await react(live, first, AGAIN, 2)
    await react(live, first, AGAIN, 3)
    [text] = direct_messages(live, 3)
    assert "run out of image credits" in text
    assert (await live.left(2), await live.left(3), len(live.api.calls)) == (3, 3, 2)


async def test_a_member_who_reacts_during_shutdown_is_told(live: Live) -> None:
    first = await finished_result(live)
    live.app.use_case.recovery.stop_accepting()
    await react(live, first, AGAIN, 2)
    [text] = direct_messages(live, 2)
    assert text.startswith("The bot is restarting. Try again in a minute. You were not charged.")
