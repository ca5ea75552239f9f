"""Reactions on results, on real sockets: another, a copy, away; whoever reacts, however often, after any restart."""

from __future__ import annotations

import asyncio
import base64
import logging
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from yarl import URL

from cogs.reactions import Reactions
from sandbox import discord_server, pikzels_server
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import KEY, PHOTO, Live, books, given, png, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

AGAIN, COPY, DELETE = "🔁", "✉️", "❌"
LOGO = discord_server.Upload("logo.png", 100_000, "image/png")
NOBODY = 999_999  # asks for the quota only, so that the order of events is known
ROLE, ELSEWHERE, ITS_CHANNEL = 55, 1_100_000_000_000_000_077, 1_100_000_000_000_000_078
POSTS = f"/channels/{discord_server.CHANNEL_ID}/messages"


@pytest.fixture
async def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Live]:
    async with running(tmp_path, monkeypatch, quota={"member_daily": 3}) as started:
        yield started


@pytest.fixture
async def wide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Live]:
    """For many at once."""
    async with running(tmp_path, monkeypatch, quota={"member_daily": 3}, pikzels={"concurrency": 100}) as started:
        yield started


@asynccontextmanager
async def surroundings() -> AsyncIterator[tuple[discord_server.DiscordServer, pikzels_server.StandIn]]:
    """A Discord and a Pikzels that outlive the bot."""
    async with discord_server.serve(keep_files=True) as discord, pikzels_server.serve(api_key=KEY, output=png()) as api:
        yield discord, api


def in_two_days() -> datetime:
    return datetime.now(UTC) + timedelta(days=2)


async def settle(live: Live) -> None:
    """Until every event sent so far has been dealt with: an interaction's answer shows that all have been heard."""
    asked = await live.discord.slash("quota", user_id=NOBODY)
    await asked.wait(lambda i: i.message is not None, 10)
    await dealt_with()
    await live.app.use_case.recovery.idle(10)


async def dealt_with() -> None:
    events = [task for task in asyncio.all_tasks() if task.get_name() == "discord.py: on_raw_reaction_add"]
    if events:
        done, late = await asyncio.wait(events, timeout=30)
        assert not late
        assert done


async def react(live: Live, message: discord_server.Message, emoji: str, *people: int) -> None:
    """At the same moment, and until all is done."""
    await asyncio.gather(*(live.discord.react(message, emoji, user_id=user_id) for user_id in people))
    await settle(live)


def public(live: Live) -> list[discord_server.Message]:
    """What stands in servers' channels, for everybody."""
    found = live.discord.messages.values()
    return [one for one in found if one.guild_id is not None and not one.ephemeral and not one.deleted]


def pictures(live: Live) -> list[discord_server.Message]:
    return [one for one in public(live) if one.attachments]


def told(live: Live, *people: int) -> list[str]:
    return [one.content for user_id in people for one in live.discord.direct(user_id)]


async def used(live: Live, people: Iterable[int]) -> int:
    """Credits that `people` have spent or held of their three."""
    return sum([3 - await live.left(user_id) for user_id in people])


async def finished(live: Live, **options: Any) -> discord_server.Message:
    message = await live.made(**options)
    await live.app.use_case.recovery.idle(10)
    return message


def image_given(address: str) -> bytes:
    return given(URL(address).path.split("/")[-2])


def content(data_url: str) -> bytes:
    kind, _, encoded = data_url.partition(",")
    assert kind == "data:image/png;base64"
    return base64.b64decode(encoded)


def quiet(caplog: pytest.LogCaptureFixture) -> bool:
    return not [record for record in caplog.records if record.levelno >= logging.WARNING]


# --- another: after restarts, from what is kept -------------------------------------------------------------------


async def test_an_old_result_is_made_again_after_two_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with surroundings() as around:
        async with running(tmp_path, monkeypatch, around=around) as live:
            first = await finished(live, prompt="a cat", model="pkz_3", format="9:16")
            job = await live.job(first)
        async with running(tmp_path, monkeypatch, around=around):
            pass
        async with running(tmp_path, monkeypatch, around=around) as live:
            await react(live, first, AGAIN, 2)
            [second] = [one for one in pictures(live) if one is not first]
            made = await live.job(second)
        old, new = live.api.calls
    assert (made.parent_id, made.requester.user_id, second.replied_to) == (job.id, 2, first)
    assert old.body == new.body
    jobs, entries = books(tmp_path)
    assert [(row["parent_id"], row["user_id"]) for row in jobs] == [(None, 1), (job.id, 2)]
    assert [(row["user_id"], row["spent"]) for row in entries if row["kind"] == "charge"] == [(1, 1), (2, 1)]


async def test_an_address_that_still_works_is_forwarded(live: Live) -> None:
    first = await finished(live)
    await react(live, first, AGAIN, 2)
    old, new = (call.body for call in live.api.calls)
    assert new["image_url"] == old["image_url"]
    assert "image_base64" not in new


async def test_when_the_addresses_have_died_the_kept_pictures_are_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with surroundings() as around:
        async with running(tmp_path, monkeypatch, around=around) as live:
            first = await finished(live, model="pkz_4", reference=LOGO)
        async with running(tmp_path, monkeypatch, around=around, clock=in_two_days) as live:
            live.cdn.gone = True
            await react(live, first, AGAIN, 2)
            assert len(pictures(live)) == 2
    old, new = (call.body for call in live.api.calls)
    assert content(new["image_base64"]) == image_given(old["image_url"])
    assert content(new["support_image_base64"]) == image_given(old["support_image_url"])
    assert image_given(old["image_url"]) != image_given(old["support_image_url"])
    assert not {"image_url", "support_image_url"} & set(new)


@pytest.mark.parametrize("how", ["never kept", "removed", "damaged"])
async def test_a_picture_that_is_no_longer_kept_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    storage = {"source_days": 0} if how == "never kept" else {}
    async with surroundings() as around:
        async with running(tmp_path, monkeypatch, around=around, storage=storage) as live:
            first = await finished(live)
        for file in (tmp_path / "sources").iterdir():
            if how == "removed":
                file.unlink()
            else:
                file.write_bytes(b"damaged")
        async with running(tmp_path, monkeypatch, around=around, storage=storage, clock=in_two_days) as live:
            await react(live, first, AGAIN, 2)
            said = told(live, 2) + [one.content for one in public(live) if one.replied_to is first]
            assert await live.left(2) == 10
    assert len(live.api.calls) == 1
    assert len(said) == 1
    assert "no longer stored. Attach it again with /thumbnail" in said[0]
    assert "You were not charged." in said[0]


async def test_a_lost_reference_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with surroundings() as around:
        async with running(tmp_path, monkeypatch, around=around) as live:
            first = await finished(live, model="pkz_4", reference=LOGO)
            job = await live.job(first)
        (tmp_path / "sources" / str(job.request.support_sha256)).unlink()
        async with running(tmp_path, monkeypatch, around=around, clock=in_two_days) as live:
            await react(live, first, AGAIN, 2)
            assert [text.partition(" of this")[0] for text in told(live, 2)] == ["The reference image"]
            assert (await live.left(2), len(live.api.calls)) == (10, 1)


# --- another: many, often, at once --------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["slow", "quick", "refusing"])
async def test_fifty_people_at_once_do_not_flood_the_channel(wide: Live, provider: str) -> None:
    first = await finished(wide)
    people = range(100, 150)
    if provider == "slow":
        wide.api.always(Reply.hold())
    elif provider == "refusing":
        wide.api.always(Reply.error("CONTENT_POLICY"))
    before = len(public(wide))
    await asyncio.gather(*(wide.discord.react(first, AGAIN, user_id=user_id) for user_id in people))
    await wide.api.called(4, timeout=10)
    if provider == "slow":
        await wide.discord.wait(lambda _: len(told(wide, *people)) == 47, 20)
        assert await used(wide, people) == 3
        wide.api.release()
    await settle(wide)
    charged = [user_id for user_id in people if await wide.left(user_id) == 2]
    refused = [user_id for user_id in people if await wide.left(user_id) == 3]
    assert len(public(wide)) - before == 3
    assert len(wide.api.calls) == 4
    assert (len(charged), len(refused)) == ((0, 50) if provider == "refusing" else (3, 47))
    makers = {(await wide.job(one)).requester.user_id for one in public(wide) if one.replied_to is first}
    assert len(makers) == 3
    for user_id in people:
        said = told(wide, user_id)
        assert len(said) == (0 if user_id in makers else 1)
        assert all("You were not charged." in text and str(first.id) in text for text in said)


async def test_who_waited_their_turn_may_react_again(wide: Live) -> None:
    first = await finished(wide)
    wide.api.always(Reply.hold())
    for user_id in (101, 102, 103):
        await wide.discord.react(first, AGAIN, user_id=user_id)
    await wide.api.called(4)
    await wide.discord.react(first, AGAIN, user_id=103)  # not told to come back: it is being made
    await wide.discord.react(first, AGAIN, user_id=104)
    await wide.discord.wait(lambda _: len(told(wide, 104)) == 1, 10)
    wide.api.release()
    await settle(wide)
    assert told(wide, 101, 102, 103) == []
    assert len(pictures(wide)) == 4


async def test_what_takes_long_counts_for_as_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = timedelta(0)
    async with running(tmp_path, monkeypatch, clock=lambda: datetime.now(UTC) + late) as live:
        first = await finished(live)
        live.api.always(Reply.hold())
        for user_id in (101, 102, 103):
            await live.discord.react(first, AGAIN, user_id=user_id)
        await live.api.called(4)
        late = timedelta(minutes=5)
        await react_only(live, first, AGAIN, user_id=104)
        assert len(told(live, 104)) == 1
        live.api.release()
        await settle(live)
        live.api.always(Reply.ok())
        await react(live, first, AGAIN, 105)
        assert (len(pictures(live)), told(live, 105)) == (5, [])


async def test_one_person_reacting_to_fifty_results_gets_what_the_allowance_has(wide: Live) -> None:
    results = await asyncio.gather(*(wide.made(user_id=user_id) for user_id in range(200, 250)))
    await wide.app.use_case.recovery.idle(20)
    await asyncio.gather(*(wide.discord.react(message, AGAIN, user_id=2) for message in results))
    await settle(wide)
    assert (len(pictures(wide)), len(wide.api.calls)) == (53, 53)
    assert await wide.left(2) == 0
    said = told(wide, 2)
    assert 1 <= len(said) == len({text[:20] for text in said}) <= 2  # too many at once, and nothing left


async def test_the_same_event_twice_at_the_same_moment_counts_once(live: Live) -> None:
    first = await finished(live)
    await react(live, first, AGAIN, 2, 2)
    assert (len(live.api.calls), await live.left(2), told(live, 2)) == (2, 2, [])
    assert len(pictures(live)) == 2


async def test_taking_a_reaction_back_and_reacting_again_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with surroundings() as around:
        async with running(tmp_path, monkeypatch, around=around) as live:
            first = await finished(live)
            for _ in range(5):
                await live.discord.react(first, AGAIN, user_id=2)
                await live.discord.unreact(first, AGAIN, user_id=2)
            await settle(live)
        async with running(tmp_path, monkeypatch, around=around) as live:
            await react(live, first, AGAIN, 2)
            assert (len(live.api.calls), await live.left(2), told(live, 2)) == (2, 9, [])


async def test_a_reaction_to_what_a_reaction_made_makes_a_third(live: Live) -> None:
    first = await finished(live)
    await react(live, first, AGAIN, 2)
    [second] = [one for one in pictures(live) if one is not first]
    await react(live, second, AGAIN, 2)
    third = await live.job(pictures(live)[-1])
    assert (third.parent_id, third.requester.user_id) == ((await live.job(second)).id, 2)
    assert (await live.left(1), await live.left(2)) == (2, 1)


async def test_the_allowance_is_that_of_who_reacted(live: Live) -> None:
    results = [await finished(live) for _ in range(3)]
    await react(live, results[0], AGAIN, 1)
    assert (await live.left(1), len(live.api.calls)) == (0, 3)
    [said] = told(live, 1)
    assert "You have used 3 of 3 credits today" in said
    await react(live, results[0], AGAIN, 2)
    assert (await live.left(2), len(live.api.calls)) == (2, 4)


async def test_what_failed_may_be_tried_again_by_reacting_again(live: Live) -> None:
    first = await finished(live)
    live.api.script(Reply.error("CONTENT_POLICY"))
    await react(live, first, AGAIN, 2)
    [answer] = [one for one in public(live) if one.replied_to is first]
    assert "You were not charged." in answer.content
    await live.discord.unreact(first, AGAIN, user_id=2)
    await react(live, first, AGAIN, 2)
    assert (await live.left(2), len(pictures(live)), len(live.api.calls)) == (2, 2, 3)


# --- who is not asking ---------------------------------------------------------------------------------------------


async def test_seeds_bots_and_other_messages_make_nothing(live: Live) -> None:
    first = await finished(live)
    await live.discord.wait(lambda _: first.reactions.get(AGAIN) == {discord_server.APPLICATION_ID}, 10)
    live.discord.guilds.bots.add(70)
    said = live.discord.say("not a result")
    before = len(public(live))
    for emoji in (AGAIN, COPY, DELETE):
        await live.discord.react(first, emoji, user_id=discord_server.APPLICATION_ID)
        await react(live, first, emoji, 70)
        await react(live, said, emoji, 2)
    await react(live, first, "❤️", 2)
    assert (len(live.api.calls), len(public(live)), told(live, 2, 70)) == (1, before, [])
    assert not said.deleted


async def test_reactions_to_a_request_under_way_wait_for_nothing(live: Live) -> None:
    live.api.script(Reply.hold())
    asked = await live.thumbnail()
    await live.api.called(1)
    assert asked.message is not None
    await react_only(live, asked.message, AGAIN, DELETE, user_id=2)
    assert (len(live.api.calls), asked.message.deleted) == (1, False)
    live.api.release()
    await asked.wait(lambda i: i.message is not None and bool(i.message.attachments), 10)


async def react_only(live: Live, message: discord_server.Message, *emojis: str, user_id: int) -> None:
    """As `react`, while a job is still in progress."""
    for emoji in emojis:
        await live.discord.react(message, emoji, user_id=user_id)
    asked = await live.discord.slash("quota", user_id=NOBODY)
    await asked.wait(lambda i: i.message is not None, 10)
    await dealt_with()


async def test_in_a_server_not_seen_before_the_members_kind_is_asked_for(live: Live) -> None:
    """discord.py then drops the member that Discord sends along."""
    live.discord.guilds.bots.add(70)
    live.discord.guilds.departed.add(71)
    asked = await live.discord.slash(
        "thumbnail", options={"image": PHOTO}, user_id=1, guild_id=ELSEWHERE, channel_id=ITS_CHANNEL
    )
    await asked.wait(lambda i: i.message is not None and bool(i.message.attachments), 10)
    assert asked.message is not None
    await live.app.use_case.recovery.idle(10)
    await react(live, asked.message, AGAIN, 70, 71, 72)
    assert [(await live.job(one)).requester.user_id for one in pictures(live)] == [1, 72]
    assert told(live, 70, 71) == []
    asked_for = {seen.path.rpartition("/")[2] for seen in live.discord.requests if "/members/" in seen.path}
    assert asked_for == {"70", "71", "72"}  # of its own seeds it knows


async def test_without_seeds_reactions_work_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch, results={"seed_reaction": False}) as live:
        first = await finished(live)
        assert first.reactions == {}
        await react(live, first, AGAIN, 2)
        assert (len(pictures(live)), [one.reactions.get(AGAIN) for one in pictures(live)]) == (2, [{2}, None])


async def test_a_bot_that_may_not_react_delivers_without_a_word(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    live.discord.permissions[discord_server.APPLICATION_ID] = discord_server.ORDINARY_PERMISSIONS & ~(1 << 6)
    first = await finished(live)
    assert (first.reactions, await live.left(1)) == ({}, 2)
    await react(live, first, AGAIN, 2)
    assert len(pictures(live)) == 2
    assert quiet(caplog)


async def test_what_was_private_and_is_shared_is_a_result_like_any(live: Live) -> None:
    private = await finished(live, private=True)
    job = await live.job(private)
    await live.discord.click(private, f"job:share:{job.id}", user_id=1)
    await live.discord.wait(lambda _: len(pictures(live)) == 1, 10)
    [shared] = pictures(live)
    await settle(live)
    await react(live, shared, AGAIN, 2)
    [second] = [one for one in pictures(live) if one is not shared]
    made = await live.job(second)
    assert (made.parent_id, made.requester.private, second.replied_to) == (job.id, False, shared)
    await react(live, shared, COPY, 3)
    assert [one.attachments[0].data for one in live.discord.direct(3)] == [private.attachments[0].data]
    await react(live, shared, DELETE, 1)
    assert shared.deleted


# --- away ----------------------------------------------------------------------------------------------------------


async def test_the_asker_takes_a_result_away_once(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    first = await finished(live)
    await react(live, first, DELETE, 1, 1, 1)
    assert (first.deleted, await live.left(1), told(live, 1)) == (True, 2, [])
    assert quiet(caplog)


async def test_who_made_it_again_is_the_asker_of_that_one_only(live: Live) -> None:
    first = await finished(live)
    await react(live, first, AGAIN, 2)
    [second] = [one for one in pictures(live) if one is not first]
    await react(live, first, DELETE, 2)
    await react(live, second, DELETE, 1)
    assert (first.deleted, second.deleted) == (False, False)
    await react(live, second, DELETE, 2)
    assert (first.deleted, second.deleted) == (False, True)


async def test_a_strangers_cross_is_an_opinion(live: Live) -> None:
    first = await finished(live)
    for _ in range(5):
        await react(live, first, DELETE, 2)
    assert (first.deleted, told(live, 2)) == (False, [])
    assert sum(seen.path == f"/guilds/{discord_server.GUILD_ID}" for seen in live.discord.requests) == 1


@pytest.mark.parametrize("why", ["role", "everyone", "channel's role", "channel's member", "administrator", "owner"])
async def test_a_moderator_takes_any_result_away(live: Live, why: str) -> None:
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
    first = await finished(live)
    await react(live, first, DELETE, 2)
    assert first.deleted


async def test_a_moderator_elsewhere_is_a_stranger_here(live: Live) -> None:
    live.discord.guilds.everyone |= discord_server.MANAGE_MESSAGES
    live.discord.guilds.overwrite(
        discord_server.CHANNEL_ID, discord_server.GUILD_ID, deny=discord_server.MANAGE_MESSAGES
    )
    first = await finished(live)
    await react(live, first, DELETE, 2)
    assert not first.deleted


async def test_in_a_thread_its_channels_exceptions_hold(live: Live) -> None:
    live.discord.guilds.threads[ITS_CHANNEL] = discord_server.CHANNEL_ID
    live.discord.guilds.overwrite(discord_server.CHANNEL_ID, 2, allow=discord_server.MANAGE_MESSAGES, of_member=True)
    asked = await live.discord.slash("thumbnail", options={"image": PHOTO}, user_id=1, channel_id=ITS_CHANNEL)
    await asked.wait(lambda i: i.message is not None and bool(i.message.attachments), 10)
    assert asked.message is not None
    await live.app.use_case.recovery.idle(10)
    await react(live, asked.message, DELETE, 3)
    assert not asked.message.deleted
    await react(live, asked.message, DELETE, 2)
    assert asked.message.deleted


# --- a copy --------------------------------------------------------------------------------------------------------


async def test_a_copy_has_the_same_bytes_and_comes_once_a_minute(live: Live) -> None:
    first = await finished(live, prompt="a cat")
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


async def test_a_copy_that_could_not_be_fetched_is_told_and_may_be_asked_for_again(live: Live) -> None:
    first = await finished(live)
    live.cdn.gone = True
    await react(live, first, COPY, 2)
    [said] = told(live, 2)
    assert said.startswith("Something went wrong. Try again.")
    live.cdn.gone = False
    await react(live, first, COPY, 2)
    assert [len(one.attachments) for one in live.discord.direct(2)] == [0, 1]


async def test_a_copy_over_the_limit_of_direct_messages_is_made_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = 25 * discord_server.MIB
    output = png(11 * discord_server.MIB)
    async with (
        discord_server.serve(keep_files=True, file_limit=large) as discord,
        pikzels_server.serve(api_key=KEY, output=output) as api,
        running(tmp_path, monkeypatch, around=(discord, api)) as live,
    ):
        asked = await discord.slash("thumbnail", options={"image": PHOTO}, user_id=1, attachment_size_limit=large)
        await asked.wait(lambda i: i.message is not None and bool(i.message.attachments), 10)
        assert asked.message is not None
        await live.app.use_case.recovery.idle(10)
        await react(live, asked.message, COPY, 2)
        [copy] = discord.direct(2)
    assert asked.message.attachments[0].data == output
    sent = copy.attachments[0]
    assert (sent.filename.rpartition(".")[2], sent.size <= 10 * discord_server.MIB) == ("jpg", True)
    assert (sent.width, sent.height) == (1280, 720)


async def test_a_result_without_its_picture_has_no_copy(live: Live) -> None:
    first = await finished(live)
    first.attachments.clear()
    await react(live, first, COPY, 2)
    assert len(told(live, 2)) == 1


# --- telling the person --------------------------------------------------------------------------------------------


async def short_lines(live: Live, seconds: float) -> None:
    """Lines in the channel that stay for `seconds`."""
    client = live.app.client
    await client.remove_cog("Reactions")
    await client.add_cog(Reactions(client, hint_seconds=seconds))


def lines(live: Live) -> list[discord_server.Message]:
    """The lines that mention somebody and carry nothing, gone or not."""
    found = live.discord.messages.values()
    return [one for one in found if one.guild_id is not None and one.content.startswith("<@") and not one.attachments]


async def test_with_direct_messages_closed_one_line_stands_in_the_channel_for_a_while(live: Live) -> None:
    await short_lines(live, 60)
    first = await finished(live)
    people = range(2, 12)
    live.discord.guilds.dms_closed.update(people)
    await react(live, first, COPY, *people)
    await live.discord.wait(lambda _: len(lines(live)) == 1, 10)
    [line] = lines(live)
    assert "Your direct messages are closed" in line.content
    await react(live, first, COPY, *people)
    assert (len(lines(live)), line.deleted) == (1, False)
    await live.app.client.remove_cog("Reactions")  # as at a stop: nothing stays behind
    assert line.deleted


async def test_a_line_goes_after_its_time_and_another_may_follow(live: Live) -> None:
    await short_lines(live, 0.05)
    first = await finished(live)
    live.discord.guilds.dms_closed.update((2, 3))
    for user_id in (2, 3):
        await react(live, first, COPY, user_id)
        await live.discord.wait(lambda _: bool(lines(live)) and all(line.deleted for line in lines(live)), 10)
        await lines_gone()
    assert [line.content.partition(" ")[0] for line in lines(live)] == ["<@2>", "<@3>"]


async def lines_gone() -> None:
    tasks = [task for task in asyncio.all_tasks() if task.get_name() == "reaction-hint"]
    if tasks:
        _, late = await asyncio.wait(tasks, timeout=10)
        assert not late


async def test_a_refusal_finds_its_way_into_the_channel_too(live: Live) -> None:
    results = [await finished(live) for _ in range(3)]
    live.discord.guilds.dms_closed.add(1)
    for message in results:
        await react(live, message, AGAIN, 1)
    await live.discord.wait(lambda _: len(lines(live)) == 1, 10)
    assert "You have used 3 of 3 credits" in lines(live)[0].content
    assert len(live.api.calls) == 3


async def test_where_the_bot_may_not_post_the_person_is_told_and_not_charged(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    first = await finished(live)
    live.discord.fail("POST", POSTS, code=50013, times=3)
    await react(live, first, AGAIN, 2)
    [said] = told(live, 2)
    assert "can't post in that channel. You were not charged." in said
    assert str(discord_server.CHANNEL_ID) in said
    assert (await live.left(2), len(live.api.calls)) == (3, 1)
    live.discord.guilds.dms_closed.add(3)
    await react(live, first, AGAIN, 3)  # neither here nor there
    await lines_gone()
    assert (await live.left(3), len(live.api.calls)) == (3, 1)
    await react(live, first, AGAIN, 2)
    assert (await live.left(2), len(live.api.calls)) == (2, 2)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_where_the_answer_cannot_be_changed_the_picture_comes_in_a_message_of_its_own(live: Live) -> None:
    first = await finished(live)
    live.discord.fail("PATCH", POSTS + "/*", code=50013, times=100)
    await react(live, first, AGAIN, 2)
    assert (len(pictures(live)), await live.left(2), len(live.api.calls)) == (2, 2, 2)
    [answer] = [one for one in public(live) if one.replied_to is first]
    assert answer not in pictures(live)


async def test_when_discord_does_not_take_the_answer_the_person_is_told(live: Live) -> None:
    first = await finished(live)
    live.discord.fail("POST", POSTS, code=50035)
    await react(live, first, AGAIN, 2)
    [said] = told(live, 2)
    assert said.startswith("Something went wrong. Try again. You were not charged.")
    assert (await live.left(2), len(live.api.calls)) == (3, 1)


async def test_nothing_is_lost_when_who_reacted_can_be_told_nowhere(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    results = [await finished(live) for _ in range(3)]
    live.discord.fail("POST", "/users/@me/channels", code=50007)
    live.discord.fail("POST", POSTS, code=50013)
    await react(live, results[0], AGAIN, 1)
    await lines_gone()
    assert (len(live.api.calls), told(live, 1), lines(live)) == (3, [], [])
    assert quiet(caplog)


async def test_a_provider_that_is_not_called_is_told_to_who_reacted(live: Live) -> None:
    first = await finished(live)
    live.api.script(Reply.error("INSUFFICIENT_CREDITS"))
    await react(live, first, AGAIN, 2)
    await react(live, first, AGAIN, 3)
    [said] = told(live, 3)
    assert "run out of image credits" in said
    assert (await live.left(2), await live.left(3), len(live.api.calls)) == (3, 3, 2)


async def test_who_reacts_while_the_bot_stops_is_told(live: Live) -> None:
    first = await finished(live)
    live.app.use_case.recovery.stop_accepting()
    await react(live, first, AGAIN, 2)
    [said] = told(live, 2)
    assert said.startswith("The bot is restarting. Try again in a minute. You were not charged.")
