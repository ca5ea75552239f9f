"""Pictures that cannot work are found before the paid call, cost nothing, and are told in private."""

from __future__ import annotations

import asyncio
import struct
import time
from base64 import b64decode
from dataclasses import replace
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from bot.app import utc_now
from bot.domain.models import require
from bot.domain.validation import IMAGE_BYTES
from sandbox import discord_server
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import PHOTO, Live, killed_at, running
from tests.support.factories import image_bytes, request, requester

if TYPE_CHECKING:
    from pathlib import Path

    from bot.domain.models import Job, Status
    from tests.support.servers import Servers

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

        image = replace(request(), image_url="https://cdn.example/1/cat.png")
        job = await lifecycle.accept(image, requester(2, at=utc_now()), reply)
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
        assert (await live.job(require(interaction.message))).request.image_hash in kept(tmp_path)


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


# --- what is found before the call -----------------------------------------------------------------------------------

FAKE = discord_server.Upload("fake.png", 5_000, "image/png", width=None, height=None)
HUGE = discord_server.Upload("huge.png", 90_000, "image/png", width=None, height=None)
PHONE = discord_server.Upload("phone.jpg", 200_000, "image/jpeg")
TEXT = b"This is no image.\n" * 50


def png_header(width: int, height: int) -> bytes:
    """The start of a PNG that claims these dimensions; nothing of it can be decoded."""
    return b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0) + bytes(90_000)


def jpeg_with_exif(size: int) -> bytes:
    """A JPEG whose dimensions come after `size` bytes of metadata."""
    plain, full = image_bytes("JPEG"), 65_533
    lengths = [full] * (size // full) + [size % full]
    return plain[:2] + b"".join(b"\xff\xe1" + (n + 2).to_bytes(2, "big") + bytes(n) for n in lengths) + plain[2:]


async def told_in_private(live: Live, *, user_id: int = 1, **options: discord_server.Option) -> discord_server.Message:
    """Send /thumbnail, and wait until its message has been taken back; returns what the requester was told."""
    interaction = await live.thumbnail(user_id=user_id, **options)
    await interaction.wait(lambda i: i.message is not None and i.message.deleted and bool(i.followups), 10)
    await live.app.use_case.recovery.idle(10)
    [told] = interaction.followups
    assert told.ephemeral
    assert not require(interaction.message).ephemeral
    return told


async def assert_nothing_came_of_it(live: Live, *, reason: str) -> None:
    [row] = await live.app.storage.database.run("SELECT state, reason, notified_at FROM jobs")
    assert (row["state"], row["reason"]) == ("released", reason)
    assert row["notified_at"] is not None
    assert (len(live.api.calls), kept(live.folder), await live.left()) == (0, [], 3)


async def test_a_text_file_named_png_ends_in_private_before_the_call(live: Live) -> None:
    live.cdn.content["fake.png"] = TEXT
    told = await told_in_private(live, image=FAKE)
    assert told.content.startswith("`image` can't be read as an image. Attach a PNG, JPEG or WebP file. You were not ")
    assert "<@" not in told.content
    await assert_nothing_came_of_it(live, reason="not_started:imageunreadable:image")


async def test_too_many_pixels_end_in_private_before_the_call(live: Live) -> None:
    live.cdn.content["huge.png"] = png_header(12_000, 12_000)
    told = await told_in_private(live, image=HUGE)
    assert told.content.startswith(
        "`image` is 12000 x 12000 pixels (144 megapixels); the limit is 50 megapixels."
        " Make it smaller and try again. You were not charged."
    )
    await assert_nothing_came_of_it(live, reason="not_started:imagepixels:image:12000:12000:50000000")


async def test_a_bad_reference_is_named(live: Live) -> None:
    live.cdn.content["fake.png"] = TEXT
    told = await told_in_private(live, reference=FAKE)
    assert told.content.startswith("`reference` can't be read as an image.")
    await assert_nothing_came_of_it(live, reason="not_started:imageunreadable:reference")


async def test_the_end_of_a_bad_image_does_not_wait_for_a_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch, pikzels={"concurrency": 1}) as live:
        live.api.script(Reply.hold())
        first = await live.thumbnail()
        await live.api.called(1)
        live.cdn.content["fake.png"] = TEXT
        second = await live.thumbnail(user_id=2, image=FAKE)
        await second.wait(lambda i: i.message is not None and i.message.deleted and bool(i.followups), 10)
        live.api.release()
        await first.wait(lambda i: bool(require(i.message).attachments), 20)


async def test_a_private_request_is_told_in_its_own_message(live: Live) -> None:
    live.cdn.content["fake.png"] = TEXT
    message = await live.said(image=FAKE, private=True)
    assert (message.deleted, labels(message)) == (False, ["Edit", "Delete"])
    assert message.content.startswith("`image` can't be read as an image.")


async def test_with_a_dead_token_the_message_itself_says_what_is_wrong(live: Live) -> None:
    live.cdn.content["fake.png"] = TEXT
    live.discord.fail("POST", "/webhooks/*", status=401, code=50027, times=10)
    message = await live.said(image=FAKE, user_id=2)
    assert message.content.startswith("<@2> `image` can't be read as an image.")
    assert (message.deleted, labels(message)) == (False, ["Edit", "Delete"])


async def test_the_end_of_a_reaction_is_told_in_the_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch, storage={"source_days": 0}) as live:
        first = await live.made()
        live.cdn.content["photo.png"] = TEXT
        await live.discord.react(first, "🔁", user_id=2)
        await live.discord.wait(lambda server: any("can't be read" in m.content for m in server.messages.values()))
        [message] = [one for one in live.discord.messages.values() if one is not first]
        assert message.content.startswith("<@2> `image` can't be read as an image.")
        assert labels(message) == ["Edit", "Delete"]


async def test_a_message_that_cannot_be_taken_back_says_what_is_wrong(live: Live) -> None:
    live.cdn.content["fake.png"] = TEXT
    live.discord.fail("DELETE", "*", status=403, code=50013, times=5)
    message = await live.said(image=FAKE)
    assert message.content.startswith("<@1> `image` can't be read as an image.")
    assert not message.deleted


async def test_a_restart_before_the_requester_was_told_still_tells_in_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    async with running(tmp_path, monkeypatch, around=servers, reach=killed_at("messenger.notify")) as live:
        live.cdn.content["fake.png"] = TEXT
        interaction = await live.thumbnail(image=FAKE)
        await interaction.wait(lambda i: i.message is not None)
        await live.app.use_case.recovery.idle(10)
    message = require(interaction.message)
    assert (message.deleted, message.content.startswith("Generating")) == (False, True)
    async with running(tmp_path, monkeypatch, around=servers) as live:
        await live.app.use_case.recovery.idle(10)
        assert message.deleted
        [told] = interaction.followups
        assert told.content.startswith("`image` can't be read as an image.")


async def test_a_slow_cdn_delays_neither_the_answer_nor_the_end_by_much(live: Live) -> None:
    live.cdn.released.clear()
    live.api.script(Reply.hold())
    started = time.monotonic()
    interaction = await live.thumbnail(reference=FAKE)
    await interaction.wait(lambda i: i.message is not None)
    assert interaction.ack_seconds is not None
    assert interaction.ack_seconds < 1.0
    await live.api.called(1)
    assert time.monotonic() - started < 3.0
    live.cdn.released.set()
    live.api.release()
    await interaction.wait(lambda i: bool(require(i.message).attachments), 20)


async def test_an_image_that_cannot_be_looked_at_is_left_to_the_provider(live: Live) -> None:
    live.cdn.gone = True
    await live.made()
    live.cdn.gone = False
    live.cdn.content["photo.png"] = b""
    await live.made()


async def test_a_fault_of_the_look_costs_nobody_the_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reach(point: str) -> None:
        if point == "sources.look":
            raise RuntimeError("a bug")

    async with running(tmp_path, monkeypatch, reach=reach) as live:
        await live.made()


async def test_a_jpeg_with_much_metadata_is_accepted(live: Live) -> None:
    live.cdn.content["phone.jpg"] = jpeg_with_exif(100 * 1024)
    await live.made(image=PHONE)
    live.cdn.content["phone.jpg"] = jpeg_with_exif(20 * 1024)
    await live.made(image=PHONE)


async def test_a_stored_image_is_not_looked_at_again(live: Live) -> None:
    message = await live.made()
    job = await live.job(message)
    fetched = len(live.cdn.fetched)
    await live.discord.click(message, f"job:again:{job.id}")
    await live.api.called(2)
    await live.app.use_case.recovery.idle(10)
    assert len(live.cdn.fetched) == fetched


async def test_dimensions_that_discord_knows_are_refused_before_anything_is_stored(live: Live) -> None:
    wide = discord_server.Upload("wide.png", 900_000, "image/png", width=9_000, height=6_000)
    for option in ("image", "reference"):
        options: dict[str, Any] = {option: wide}
        message = await live.said(**options)
        assert message.ephemeral
        assert message.content.startswith(f"`{option}` is 9000 x 6000 pixels (54 megapixels); the limit is 50 ")
    assert await live.app.storage.database.run("SELECT 1 FROM jobs") == []
    assert live.cdn.fetched == []


async def test_the_operator_sets_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, monkeypatch, pikzels={"max_megapixels": 1}) as live:
        exact = discord_server.Upload("exact.png", 5_000, "image/png", width=1000, height=1000)
        over = discord_server.Upload("over.png", 5_000, "image/png", width=1000, height=1001)
        await live.made(image=exact)
        refused = await live.said(image=over)
        assert "(1.1 megapixels); the limit is 1 megapixel." in refused.content


# --- a smaller copy --------------------------------------------------------------------------------------------------

SMALLER = "Use a smaller copy"
LARGE = discord_server.Upload("large.png", 11_000_000, "image/png", width=2000, height=2000)


@cache
def large_png() -> bytes:
    """A PNG of over 10 MB."""
    content = image_bytes(width=2000, height=2000, noisy=True)
    assert len(content) > IMAGE_BYTES
    return content


async def press(live: Live, message: discord_server.Message, *, user_id: int = 1) -> discord_server.Interaction:
    [custom_id] = [one["custom_id"] for row in message.components for one in row["components"]]
    return await live.discord.click(message, custom_id, user_id=user_id)


async def shown(interaction: discord_server.Interaction) -> discord_server.Message:
    """The message of an interaction, once it has an image."""
    await interaction.wait(lambda i: i.message is not None and bool(i.message.attachments), 30)
    return require(interaction.message)


def sent_image(live: Live) -> Image.Image:
    """The image that the newest call carries."""
    head, _, data = live.api.calls[-1].body["image_base64"].partition(",")
    assert head == "data:image/jpeg;base64"
    assert len(data) <= IMAGE_BYTES
    return Image.open(BytesIO(b64decode(data)))


async def test_a_file_that_is_too_large_is_replaced_by_a_smaller_copy(live: Live) -> None:
    live.cdn.content["large.png"] = large_png()
    refused = await live.said(image=LARGE, prompt="a cat", model="pkz_4", format="9:16", reference=PHOTO)
    assert (refused.ephemeral, labels(refused), live.cdn.fetched) == (True, [SMALLER], [])
    assert refused.content.startswith("`image` is 10.5 MB; the image service accepts at most 10.0 MB.")
    message = await shown(await press(live, refused))
    assert (message.ephemeral, message.content.count("a cat")) == (False, 1)
    call = live.api.calls[-1].body
    assert (call["model"], call["format"], call["prompt"]) == ("pkz_4", "9:16", "a cat")
    assert call["support_image_url"].partition("?")[0].endswith("photo.png")
    assert sent_image(live).size == (2000, 2000)
    job = await live.job(message)
    assert job.request.image_hash in kept(live.folder)
    assert await live.left() == 2
    again = await live.discord.click(message, f"job:again:{job.id}")
    await shown(again)
    assert sent_image(live).size == (2000, 2000)


async def test_a_private_request_stays_private_with_a_smaller_copy(live: Live) -> None:
    live.cdn.content["large.png"] = large_png()
    refused = await live.said(image=LARGE, private=True)
    assert (await shown(await press(live, refused))).ephemeral


async def test_too_many_pixels_that_discord_knows_are_replaced_by_a_smaller_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, pikzels={"max_megapixels": 1}) as live:
        wide = discord_server.Upload("wide.jpg", 90_000, "image/jpeg", width=2000, height=1000)
        live.cdn.content["wide.jpg"] = image_bytes("JPEG", width=2000, height=1000)
        refused = await live.said(reference=wide, image=wide)
        assert labels(refused) == [SMALLER]
        await shown(await press(live, refused))
        assert sent_image(live).size == (1414, 707)
        assert live.api.calls[-1].body["support_image_base64"].startswith("data:image/jpeg")


async def test_too_many_pixels_found_by_the_look_are_replaced_by_a_smaller_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    content = {"huge.png": image_bytes(width=1500, height=1500)}
    pikzels = {"max_megapixels": 1}
    async with running(tmp_path, monkeypatch, around=servers, pikzels=pikzels) as live:
        live.cdn.content = content
        told = await told_in_private(live, image=HUGE, prompt="a cat")
        assert labels(told) == [SMALLER]
        stranger = await press(live, told, user_id=2)
        await stranger.wait(lambda i: i.message is not None and i.message is not told)
        assert "That result is no longer available." in require(stranger.message).content
    async with running(tmp_path, monkeypatch, around=servers, pikzels=pikzels) as live:
        live.cdn.content = content
        message = await shown(await press(live, told))
        assert not message.ephemeral
        assert "a cat" in message.content
        assert sent_image(live).size == (1000, 1000)
        assert (await live.left(), (await live.job(message)).parent_id) == (9, job_id(told))


async def test_the_button_works_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers
) -> None:
    async with running(tmp_path, monkeypatch, around=servers) as live:
        refused = await live.said(image=LARGE, prompt="a cat")
    async with running(tmp_path, monkeypatch, around=servers) as live:
        live.cdn.content["large.png"] = large_png()
        assert "a cat" in (await shown(await press(live, refused))).content


async def test_only_the_requester_can_use_the_button(live: Live) -> None:
    refused = await live.said(image=LARGE)
    forged = await press(live, refused, user_id=2)
    await forged.wait(lambda i: i.message is not None and i.message is not refused)
    assert require(forged.message).content.startswith("That result is no longer available.")
    assert (live.api.calls, live.cdn.fetched) == ([], [])


async def test_the_button_works_once(live: Live) -> None:
    live.cdn.content["large.png"] = large_png()
    refused = await live.said(image=LARGE)
    first, second = await press(live, refused), await press(live, refused)
    await second.wait(lambda i: i.message is not None and i.message is not refused)
    await shown(first)
    third = await press(live, refused)
    await third.wait(lambda i: i.message is not None and i.message is not refused)
    for late in (second, third):
        assert require(late.message).ephemeral
        assert require(late.message).content == "You've already used this button."
    assert (len(live.api.calls), await live.left()) == (1, 2)


async def test_when_no_copy_can_be_made_the_requester_is_told_and_may_press_again(live: Live) -> None:
    refused = await live.said(image=LARGE)
    for content, expected in (
        (TEXT, "The bot couldn't make a smaller copy of `image`."),
        (None, "`image` couldn't be downloaded. Attach the image again. You were not charged."),
    ):
        live.cdn.gone = content is None
        live.cdn.content["large.png"] = content or b""
        pressed = await press(live, refused)
        await pressed.wait(lambda i: bool(i.followups))
        assert require(pressed.message).deleted
        [told] = pressed.followups
        assert told.ephemeral
        assert told.content.startswith(expected)
    live.cdn.gone = False
    live.cdn.content["large.png"] = large_png()
    await shown(await press(live, refused))


async def test_a_spent_allowance_refuses_a_smaller_copy_in_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch, quota={"member_daily": 1}) as live:
        live.cdn.content["large.png"] = large_png()
        refused = await live.said(image=LARGE)
        await live.made()
        pressed = await press(live, refused)
        await pressed.wait(lambda i: bool(i.followups), 20)
        assert (require(pressed.message).deleted, pressed.followups[0].ephemeral) == (True, True)
        assert pressed.followups[0].content.startswith("You have used 1 of 1 credit today.")


async def test_without_a_store_nothing_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, pikzels = {"source_days": 0}, {"max_megapixels": 1}
    async with running(tmp_path, monkeypatch, storage=storage, pikzels=pikzels) as live:
        assert labels(await live.said(image=LARGE)) == []
        live.cdn.content["huge.png"] = image_bytes(width=1500, height=1500)
        assert labels(await told_in_private(live, image=HUGE)) == []


@pytest.mark.parametrize(
    "image",
    [
        discord_server.Upload("film.png", 26 * 1024 * 1024 + 1, "image/png"),
        discord_server.Upload("poster.png", 9_000_000, "image/png", width=12_000, height=12_000),
        discord_server.Upload("wall.jpg", 9_000_000, "image/jpeg", width=60_000, height=60_000),
    ],
    ids=lambda image: image.filename,
)
async def test_what_the_bot_cannot_shrink_is_only_refused(live: Live, image: discord_server.Upload) -> None:
    refused = await live.said(image=image)
    assert labels(refused) == []
    assert "Make it smaller and try again." in refused.content


async def test_a_form_for_a_large_image_offers_the_copy_when_it_is_submitted(live: Live) -> None:
    live.cdn.content["large.png"] = large_png()
    await live.discord.commands_synced()
    form = await live.discord.context_menu("Make thumbnail", live.discord.say(files=[LARGE]), user_id=1)
    await form.wait(lambda i: i.modal is not None)
    submitted = await live.discord.submit(form, {"prompt": "a cat"})
    await submitted.wait(lambda i: i.message is not None)
    refused = require(submitted.message)
    assert labels(refused) == [SMALLER]
    assert "a cat" in (await shown(await press(live, refused))).content
