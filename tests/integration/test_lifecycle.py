"""The use case on real sockets: what the member sees, what is charged, what the provider was asked."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from bot.domain.models import Circuit, State
from sandbox import discord_server, pikzels_server
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import KEY, PHOTO, Live, books, png, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Live]:
    async with running(tmp_path, monkeypatch, quota={"member_daily": 5}) as started:
        yield started


def posts(live: Live) -> int:
    return len(live.api.calls)


async def test_a_command_becomes_a_lasting_picture_and_one_charge(live: Live) -> None:
    message = await live.made(prompt="a cat\non the moon", model="pkz_4")
    job = await live.job(message)
    [attachment] = message.attachments
    assert (job.state, job.message_id, await live.left()) == (State.DELIVERED, message.id, 4)
    assert attachment.data == png()
    assert attachment.filename == f"thumbnail-{job.id}.png"
    assert attachment.description == "Thumbnail 16:9, made by PKZ 4 from the prompt: a cat on the moon"
    assert message.content == f"<@1> · PKZ 4 · 16:9 · 1 credit · #{job.id}\n```\na cat on the moon\n```"
    assert message.history[0].content.startswith(f"Generating · #{job.id} · started <t:")
    assert job.asker.token == ""
    assert list((live.folder / "spool").iterdir()) == []


async def test_the_attachments_own_address_is_what_the_provider_gets(live: Live) -> None:
    interaction = await live.thumbnail(prompt="x")
    await live.api.called(1)
    [body] = [call.body for call in live.api.calls]
    [attachment] = interaction.data["resolved"]["attachments"].values()
    assert body == {"image_url": attachment["url"], "model": "pkz_4_5", "format": "16:9", "prompt": "x"}


ENDINGS = {
    "GENERATION_REJECTED": (Reply.error("GENERATION_REJECTED"), "could not work with this picture", 1),
    "CONTENT_POLICY": (Reply.error("CONTENT_POLICY"), "does not allow", 1),
    "INTERNAL_ERROR": (Reply.error("INTERNAL_ERROR"), "failed to make", 1),
    "reset": (Reply.reset(), "lost contact", 1),
    "reset before reading": (Reply.reset("before_request"), "lost contact", 1),
    "reset in the body": (Reply.reset("mid_body"), "lost contact", 1),
    "truncated": (Reply.truncated(), "lost contact", 1),
    "proxy page": (Reply.html(502), "lost contact", 1),
    "unusable 200": (Reply.raw(200, b"{}"), "unusable", 1),
    "not JSON": (Reply.raw(200, b"<html>"), "unusable", 1),
    "moved": (Reply.redirect("https://elsewhere.example/"), "has moved", 1),
    "unknown code": (Reply.raw(418, b'{"error":{"code":"TEAPOT","message":"m"},"request_id":"r"}'), "refused this", 1),
}


@pytest.mark.parametrize("name", ENDINGS)
async def test_a_failed_call_is_made_once_told_plainly_and_not_charged(live: Live, name: str) -> None:
    reply, words, calls = ENDINGS[name]
    live.api.always(reply)
    message = await live.said()
    job = await live.job(message)
    assert words in message.content
    assert message.content.endswith(f"You were not charged. · #{job.id}")
    assert message.attachments == []
    assert (job.state, await live.left(), posts(live)) == (State.RELEASED, 5, calls)


async def test_a_429_is_waited_for_and_sent_again(live: Live) -> None:
    live.api.script(Reply.error("TOO_MANY_REQUESTS", retry_after="1"))
    await live.made()
    assert posts(live) == 2
    assert live.api.calls[1].at.timestamp() - live.api.calls[0].at.timestamp() >= 1.0


async def test_a_provider_that_cannot_be_reached_was_never_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, pikzels={"base_url": "http://127.0.0.1:9"}) as live:
        message = await live.said()
        assert "could not be reached" in message.content
        assert (await live.job(message)).reason == "unreachable"
        assert await live.left() == 10


async def test_an_empty_balance_closes_the_door_politely_and_touches_no_allowance(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    live.api.always(Reply.error("INSUFFICIENT_CREDITS"))
    first = await live.said()
    second = await live.said(user_id=2)
    third = await live.said(user_id=3)
    assert "run out of image credits" in first.content
    assert not first.ephemeral
    assert all("run out of image credits" in one.content and "<t:" in one.content for one in (second, third))
    assert second.ephemeral
    assert third.ephemeral
    assert (posts(live), await live.left(1), await live.left(2)) == (1, 5, 5)
    assert Circuit.BALANCE in live.app.gate.open_circuits
    told = [record for record in caplog.records if "operator:" in record.getMessage()]
    assert [record.levelno for record in told] == [logging.ERROR]
    assert "balance is empty" in told[0].getMessage()


async def test_a_refused_key_is_the_operators_business_and_appears_nowhere(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    live.api.always(Reply.error("INVALID_API_KEY"))
    message = await live.said()
    assert "not set up correctly" in message.content
    assert (await live.said(user_id=2)).ephemeral
    assert posts(live) == 1
    assert "pkz_live_key" not in caplog.text


@pytest.mark.parametrize(
    ("reply", "tries", "words"),
    [
        (Reply.raw(404), 3, "no longer there"),
        (Reply.raw(200, b"<html>not a picture</html>"), 2, "not a usable picture"),
        (Reply.redirect("https://elsewhere.example/x.png"), None, None),
    ],
    ids=["gone", "not a picture", "redirect"],
)
async def test_an_output_that_cannot_be_had_is_released_and_paged(
    live: Live, reply: Reply, tries: int | None, words: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    live.api.always_output(reply)
    if tries is None:  # may get better: tried for as long as the output lives
        await live.thumbnail()
        await live.api.downloaded(2)
        assert await live.left() == 4
        return
    message = await live.said()
    assert words is not None
    assert words in message.content
    assert (len(live.api.downloads), posts(live), await live.left()) == (tries, 1, 5)
    assert any(record.levelno == logging.ERROR and "operator:" in record.getMessage() for record in caplog.records)


async def test_a_download_that_breaks_off_is_fetched_again_without_a_second_call(live: Live) -> None:
    live.api.script_output(Reply.truncated(), Reply.raw(503))
    await live.made()
    assert (posts(live), await live.left()) == (1, 4)


async def test_those_who_wait_see_their_place_and_then_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, pikzels={"concurrency": 1}) as live:
        live.api.script(Reply.hold(), Reply.hold(), Reply.hold())
        first = await live.thumbnail(user_id=1)
        await live.api.called(1)
        second = await live.thumbnail(user_id=2)
        third = await live.thumbnail(user_id=3)
        await third.wait(lambda i: i.message is not None, 5)
        assert shown(second).startswith("Queued · #")
        assert shown(second).endswith("next in line")
        assert shown(third).endswith("2nd in line")
        live.api.release()
        await live.api.called(2)
        await second.wait(lambda i: i.message is not None and i.message.content.startswith("Generating"), 5)
        for count in (2, 3):
            await live.api.called(count)
            live.api.release()
        for interaction in (first, second, third):
            await interaction.wait(lambda i: i.message is not None and bool(i.message.attachments), 10)


def shown(interaction: discord_server.Interaction) -> str:
    assert interaction.message is not None
    return interaction.message.content


async def test_500_clicks_at_once_against_an_allowance_of_5_make_exactly_5_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = {"length": 1000, "per_member": 1000}  # only the allowance binds
    async with running(tmp_path, monkeypatch, quota={"member_daily": 5}, queue=line) as live:
        clicks = await asyncio.gather(*(live.thumbnail() for _ in range(500)))
        for click in clicks:
            await click.wait(lambda i: bool(i.message and (i.message.attachments or i.message.ephemeral)), 30)
        pictures = [click for click in clicks if click.message is not None and click.message.attachments]
        refused = [shown(click) for click in clicks if click.message is not None and click.message.ephemeral]
        assert (len(pictures), len(refused), posts(live), await live.left()) == (5, 495, 5, 0)
        assert all("You have used 5 of 5 credits for today" in words for words in refused)


# --- delivery --------------------------------------------------------------------------------------------------------


async def test_when_the_interactions_token_is_dead_the_bot_edits_its_message_itself(live: Live) -> None:
    live.api.script(Reply.hold())
    interaction = await live.thumbnail()
    await live.api.called(1)
    live.discord.expire_token(interaction)
    live.api.release()
    await interaction.wait(lambda i: i.message is not None and bool(i.message.attachments), 10)
    assert len(live.discord.messages) == 1
    assert (await live.job(live.discord.messages[max(live.discord.messages)])).state is State.DELIVERED


async def test_when_nothing_can_be_edited_the_picture_comes_as_a_new_message_once(live: Live) -> None:
    live.discord.fail("PATCH", "*/messages/*", status=403, code=50001, times=100)
    interaction = await live.thumbnail()
    await live.discord.wait(lambda d: any(m.attachments for m in d.messages.values()), 10)
    [carrier] = [message for message in live.discord.messages.values() if message.attachments]
    job = await live.job(carrier)
    assert interaction.message is not None
    assert carrier.id != interaction.message.id
    assert (carrier.nonce, job.message_id, job.state) == (job.id, carrier.id, State.DELIVERED)


async def a_deleted_message(live: Live) -> discord_server.Interaction:
    """A request whose message is deleted while the provider works; the picture is made all the same."""
    live.api.script(Reply.hold())
    interaction = await live.thumbnail()
    await live.api.called(1)
    assert interaction.message is not None
    live.discord.delete_message(interaction.message.id)
    live.api.release()
    return interaction


async def test_a_deleted_message_is_respected_and_its_picture_goes_to_the_asker_alone(live: Live) -> None:
    interaction = await a_deleted_message(live)
    await live.discord.wait(lambda d: any(m.attachments for m in d.messages.values()), 10)
    [carrier] = [message for message in live.discord.messages.values() if message.attachments]
    assert carrier.guild_id is None
    assert carrier.content.endswith(f"-# It could not be posted in <#{interaction.origin.channel_id}>, so here it is.")
    await live.app.thumbnails.idle(10)
    job = await live.app.ledger.job(str(carrier.nonce))
    assert job is not None
    assert (job.state, job.message_id, await live.left()) == (State.DELIVERED, carrier.id, 4)


async def test_a_picture_nobody_could_be_given_is_kept_and_claimed_once_even_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with discord_server.serve(keep_files=True) as discord, pikzels_server.serve(api_key=KEY, output=png()) as api:
        async with running(tmp_path, monkeypatch, around=(discord, api)) as live:
            discord.fail("POST", "/users/@me/channels", status=403, code=50007, times=100)
            await a_deleted_message(live)
            await live.app.thumbnails.idle(10)
            assert (await live.left(), len(list((tmp_path / "spool").iterdir()))) == (9, 1)
            assert any("kept for a claim" in record.getMessage() for record in caplog.records)
        async with running(tmp_path, monkeypatch, around=(discord, api)) as live:
            claims = [await discord.slash("recover", user_id=1) for _ in range(2)]
            for claim in claims:
                await claim.wait(lambda i: i.message is not None and not i.message.loading, 10)
            await live.app.thumbnails.idle(10)
            assert await live.left() == 9
            stranger = await discord.slash("recover", user_id=2)
            await stranger.wait(lambda i: i.message is not None and "Nothing is waiting" in i.message.content, 10)
        carriers = [message for message in discord.messages.values() if message.attachments]
        assert carriers
        assert all(message.ephemeral for message in carriers)
    [job], entries = books(tmp_path)
    assert job["state"] == "delivered"
    assert [entry["kind"] for entry in entries] == ["hold", "charge"]
    assert list((tmp_path / "spool").iterdir()) == []


async def test_a_disk_that_takes_nothing_stops_admissions_and_loses_no_picture_that_is_under_way(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    live.api.script(Reply.hold())
    interaction = await live.thumbnail()
    await live.api.called(1)
    connection = live.app.ledger._database._connection
    await connection.execute_fetchall("PRAGMA query_only = ON")  # no write succeeds any more
    refused = await live.said(user_id=2)
    assert "cannot take requests at the moment" in refused.content
    assert refused.ephemeral
    live.api.release()
    await interaction.wait(lambda i: i.message is not None and bool(i.message.attachments), 20)
    assert (await live.job(interaction.message)).state is State.SENDING  # type: ignore[arg-type]  # waited for
    await connection.execute_fetchall("PRAGMA query_only = OFF")
    await live.app.books.close()
    assert (await live.job(interaction.message)).state is State.DELIVERED  # type: ignore[arg-type]  # waited for
    told = [record for record in caplog.records if "cannot be written" in record.getMessage()]
    assert {record.levelno for record in told} == {logging.ERROR}


class Fault:
    """A fault of the program itself, the first time it comes to a point."""

    def __init__(self, point: str) -> None:
        self.point = point

    def __call__(self, point: str) -> None:
        if point == self.point:
            self.point = ""
            raise ZeroDivisionError


async def test_a_fault_of_the_program_keeps_a_finished_picture_for_its_asker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, reach=Fault("spooled")) as live:
        interaction = await live.thumbnail()
        await interaction.wait(lambda i: i.message is not None and "/recover" in i.message.content, 10)
        claim = await live.discord.slash("recover", user_id=1)
        await claim.wait(lambda i: i.message is not None and bool(i.message.attachments), 10)
        assert (posts(live), await live.left()) == (1, 9)


async def test_a_fault_of_the_program_before_the_picture_is_here_leaves_it_to_the_next_tidying_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, reach=Fault("generated")) as live:
        interaction = await live.thumbnail()
        await live.api.called(1)
        await live.app.thumbnails.idle(10)
        assert "Generating" in shown(interaction)
        await live.app.thumbnails.tidy()
        await interaction.wait(lambda i: i.message is not None and bool(i.message.attachments), 10)
        await live.app.thumbnails.idle(10)
        assert (posts(live), await live.left()) == (1, 9)


async def test_a_fault_of_the_program_before_anything_is_paid_ends_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, reach=Fault("acked")) as live:
        said = await live.said()
        assert said.content.startswith("Something went wrong inside the bot")
        assert (posts(live), await live.left()) == (0, 10)


async def test_what_nobody_came_for_in_a_week_is_given_back(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    live.discord.fail("POST", "/users/@me/channels", status=403, code=50007, times=100)
    await a_deleted_message(live)
    await live.app.thumbnails.idle(10)
    await live.app.thumbnails.tidy()
    assert await live.left() == 4
    monkeypatch.setattr("bot.jobs.lifecycle.CLAIM_LIFE", -timedelta(days=1))
    await live.app.thumbnails.tidy()
    await live.app.thumbnails.idle(10)
    assert await live.left() == 5
    assert list((live.folder / "spool").iterdir()) == []


async def test_a_prompt_that_a_filter_refuses_is_left_out_and_the_picture_comes(live: Live) -> None:
    live.discord.fail("PATCH", "*", status=400, code=200000)
    message = await live.made(prompt="a rude word")
    assert "rude" not in message.content
    assert message.content.endswith(f"#{(await live.job(message)).id}")


async def test_discord_in_trouble_delays_a_picture_and_does_not_lose_it(live: Live) -> None:
    live.discord.fail("PATCH", "*", reset=True, times=4)
    message = await live.made()
    assert (await live.job(message)).state is State.DELIVERED
    assert (posts(live), await live.left()) == (1, 4)


class Heard(logging.Handler):
    """Sets an event when a line with `text` is logged."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.event = asyncio.Event()
        self._text = text

    def emit(self, record: logging.LogRecord) -> None:
        if self._text in record.getMessage():
            self.event.set()


async def test_a_picture_that_is_ready_while_the_connection_is_renewed_waits_for_it(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    heard = Heard("no connection to Discord")
    logging.getLogger("bot.jobs.retry").addHandler(heard)
    live.api.script(Reply.hold())
    interaction = await live.thumbnail()
    await live.api.called(1)
    fresh = await live.app.renew()
    live.api.release()
    await live.api.downloaded(1)
    await asyncio.wait_for(heard.event.wait(), 10)
    connection = asyncio.create_task(fresh.start("token"))
    await interaction.wait(lambda i: i.message is not None and bool(i.message.attachments), 20)
    await live.app.thumbnails.idle(10)
    assert (posts(live), await live.left()) == (1, 4)
    connection.cancel()
    await asyncio.wait([connection])
    logging.getLogger("bot.jobs.retry").removeHandler(heard)


async def test_a_picture_over_the_upload_limit_is_made_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch, output=png(400_000)) as live:
        interaction = await live.discord.slash(
            "thumbnail", options={"image": PHOTO}, user_id=1, attachment_size_limit=100_000
        )
        await interaction.wait(lambda i: i.message is not None and bool(i.message.attachments), 20)
        assert interaction.message is not None
        [attachment] = interaction.message.attachments
        assert attachment.size <= 100_000
        assert attachment.filename.endswith(".jpg")
        await live.job(interaction.message)
        assert list((live.folder / "spool").iterdir()) == []


async def test_an_answer_that_discord_did_not_take_costs_nothing(live: Live) -> None:
    live.discord.fail("POST", "/interactions/*", status=404, code=10062)
    await live.thumbnail()
    await live.discord.wait(lambda d: any(seen.method == "PATCH" for seen in d.requests), 10)  # it tries to say so
    await live.app.thumbnails.idle(10)
    assert (posts(live), await live.left()) == (0, 5)


async def test_no_payload_can_mention_anybody(live: Live) -> None:
    message = await live.made(prompt="@everyone <@1> ``` <@&2> [x](y)")
    assert message.content.count("```") == 2
    assert "@everyone" in message.content.partition("```")[2]
