"""The log channel of a server gets one line per ended job, which mentions nobody and keeps no result waiting."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

from bot.discord_io import log_channel
from bot.discord_io.log_channel import CAP, LIFE, LogChannels
from bot.domain.models import State
from bot.domain.server_rules import Change, ServerRules
from bot.text import job_log
from sandbox.discord_server.payloads import CHANNEL_ID, GUILD_ID
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import Live, running
from tests.support.factories import NOON, a_job

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    import discord
    import pytest
    from discord.http import MultipartParameters

    from bot.domain.models import Job
    from sandbox import discord_server

LOG_CHANNEL = 77


async def set_log_channel(live: Live, channel_id: int | None = LOG_CHANNEL) -> None:
    change = Change(99, GUILD_ID, "test", live.app.client.services.clock())
    await live.app.storage.policies.set_rules(change, replace(ServerRules(), log_channel=channel_id))


def logged(live: Live) -> list[discord_server.Message]:
    return [message for message in live.discord.messages.values() if message.channel_id == LOG_CHANNEL]


def timeless(line: str) -> str:
    return re.sub(r" \d+ s ", " N s ", line)


async def lines(live: Live, count: int) -> list[str]:
    """Wait for that many lines; they may come in fewer messages."""

    def found() -> list[str]:
        return [line for message in logged(live) for line in message.content.splitlines()]

    await live.discord.wait(lambda _: len(found()) >= count, 10)
    return found()


async def test_a_delivered_job_gets_one_line_with_a_link(live: Live) -> None:
    await set_log_channel(live)
    message = await live.made(prompt="a secret cat")
    job = await live.job(message)
    [line] = await lines(live, 1)
    link = f"https://discord.com/channels/{GUILD_ID}/{CHANNEL_ID}/{message.id}"
    assert timeless(line) == f"#{job.id} · <@1> · PKZ 4.5 · 16:9 · 1 credit · N s · {link}"


async def test_a_line_makes_no_noise_and_shows_no_preview(live: Live) -> None:
    await set_log_channel(live)
    await live.made()
    await lines(live, 1)
    [message] = logged(live)
    assert message.flags == 1 << 2 | 1 << 12  # SUPPRESS_EMBEDS, SUPPRESS_NOTIFICATIONS


async def test_a_private_result_has_no_link(live: Live) -> None:
    await set_log_channel(live)
    await live.made(private=True)
    [line] = await lines(live, 1)
    assert timeless(line).endswith("1 credit · N s · visible only to them")


async def test_a_released_job_says_why(live: Live) -> None:
    await set_log_channel(live)
    live.api.script(Reply.error("CONTENT_POLICY"))
    await live.said()
    [line] = await lines(live, 1)
    assert timeless(line).endswith(
        " · not charged · N s · The image service does not allow this image or prompt. Try a different one."
    )


async def test_a_recovered_image_gets_its_line_when_it_is_claimed(live: Live) -> None:
    await set_log_channel(live)
    await live.park()
    assert logged(live) == []
    await live.discord.slash("recover", user_id=1)
    [line] = await lines(live, 1)
    assert line.endswith("visible only to them")


async def test_without_a_log_channel_nothing_is_posted(live: Live) -> None:
    await live.made()
    await set_log_channel(live)
    await set_log_channel(live, None)
    await live.made()
    await live.app.use_case.recovery.idle(10)
    assert logged(live) == []


async def test_a_log_channel_that_cannot_be_written_disturbs_no_result(live: Live) -> None:
    await set_log_channel(live)
    live.discord.fail("POST", f"/channels/{LOG_CHANNEL}/messages", code=50001, times=1)
    await live.made()
    await live.app.use_case.recovery.idle(10)
    live.discord.heal()
    await live.made()
    assert len(await lines(live, 1)) == 1


async def test_a_log_channel_that_hangs_disturbs_no_result(live: Live) -> None:
    await set_log_channel(live)
    live.discord.fail("POST", f"/channels/{LOG_CHANNEL}/messages", hang=True, times=1)
    await live.made()
    await live.made()
    assert logged(live) == []


async def test_the_lines_of_the_last_jobs_are_posted_before_the_bot_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as live:
        await set_log_channel(live)
        discord = live.discord
        await live.made()
    assert len([message for message in discord.messages.values() if message.channel_id == LOG_CHANNEL]) == 1


class Recorder:
    """Stands for the client and its HTTP: keeps the payload of the message that is sent."""

    def __init__(self) -> None:
        self.http = self
        self.payload: dict[str, Any] = {}

    async def send_message(self, _channel_id: int, *, params: MultipartParameters) -> None:
        self.payload = dict(params.payload or {})


async def test_a_line_mentions_nobody() -> None:
    recorder = Recorder()
    assert await log_channel.post(cast("discord.Client", recorder), LOG_CHANNEL, job_log.line(a_job(reason="failed")))
    assert "<@1>" in recorder.payload["content"]
    assert recorder.payload["allowed_mentions"] == {"parse": []}


# --- the queue alone -------------------------------------------------------------------------------------------------


class Posts:
    """What was posted, and whether posting works."""

    def __init__(self) -> None:
        self.now = NOON
        self.texts: list[str] = []
        self.works = asyncio.Event()
        self.tried = asyncio.Event()
        self.channels = LogChannels(self.post, rules=self.rules, clock=self.clock)

    def clock(self) -> datetime:
        return self.now

    async def rules(self, _: int) -> ServerRules:
        return ServerRules(log_channel=LOG_CHANNEL)

    async def post(self, _channel_id: int, text: str) -> bool:
        self.tried.set()
        await self.works.wait()
        self.texts.append(text)
        return True


def job(number: int) -> Job:
    return replace(a_job(reason="undeliverable"), id=f"job{number}")


async def test_lines_that_wait_together_are_posted_together_in_their_order() -> None:
    posts = Posts()
    for number in range(100):
        posts.channels.ended(job(number))
    posts.works.set()
    await posts.channels.close()
    found = [line.partition(" ")[0] for text in posts.texts for line in text.splitlines()]
    assert found == [f"#job{number}" for number in range(100)]
    assert len(posts.texts) < 10
    assert max(map(len, posts.texts)) <= 2000


async def test_the_oldest_lines_are_left_out_when_too_many_wait() -> None:
    posts = Posts()
    for number in range(CAP + 1):
        posts.channels.ended(job(number))
    posts.works.set()
    await posts.channels.close()
    found = [line.partition(" ")[0] for text in posts.texts for line in text.splitlines()]
    assert (len(found), found[0]) == (CAP, "#job1")


async def test_a_line_that_is_too_old_is_left_out() -> None:
    posts = Posts()
    posts.channels.ended(job(1))
    posts.now += LIFE + timedelta(seconds=1)
    posts.channels.ended(job(2))
    posts.works.set()
    await posts.channels.close()
    assert [text.partition(" ")[0] for text in posts.texts] == ["#job2"]


async def test_a_job_outside_of_servers_is_not_logged() -> None:
    posts = Posts()
    outside = job(1)
    posts.channels.ended(replace(outside, requester=replace(outside.requester, guild_id=None)))
    posts.works.set()
    await posts.channels.close()
    assert posts.texts == []


def test_a_line_has_the_seconds_of_the_call() -> None:
    done = replace(a_job(), state=State.DELIVERED, message_id=5, sent_at=NOON, ended_at=NOON + timedelta(seconds=12.4))
    assert job_log.line(done) == ("#k3f9 · <@1> · PKZ 4 · 16:9 · 1 credit · 12 s · https://discord.com/channels/7/8/5")
