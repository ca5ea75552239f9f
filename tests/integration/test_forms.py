"""The forms, over real sockets: editing a result, and creating one from an image in a message."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from bot.app import utc_now
from sandbox import demo, discord_server, simulated
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import PHOTO, Live, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime
    from pathlib import Path

    from sandbox.discord_server.modals import Value
    from tests.support.servers import Servers

    StartBot = Callable[..., AbstractAsyncContextManager[Live]]

REFERENCE = discord_server.Upload("reference.png", 300_000, "image/png")
OTHER = discord_server.Upload("other.webp", 400_000, "image/webp")
TEXT_FILE = discord_server.Upload("notes.txt", 5, "text/plain")
LASTING = "https://example.org/lasting/1/"
EMPTY = "That message has no image. You were not charged."
TOO_LONG_AGO = "That result is no longer available. Start again with /thumbnail. You were not charged."
EXPIRED = "The image this result started from is no longer stored. Attach it again with /thumbnail or Edit."


class Clock:
    """The bot's clock, which a test can move forward."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return utc_now() + self.ahead


@pytest.fixture
def daily_credits() -> int:
    return 5


@pytest.fixture
def start_bot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, servers: Servers) -> StartBot:
    """Start the bot, any number of times, with the same servers and the same folder."""

    @asynccontextmanager
    async def start(**more: Any) -> AsyncIterator[Live]:
        async with running(tmp_path, monkeypatch, around=servers, **more) as started:
            yield started

    return start


async def edit(live: Live, message: discord_server.Message, *, user_id: int = 1) -> discord_server.Interaction:
    """Press Edit; return the interaction that shows the form."""
    [custom_id] = [one for one in ids(message) if one.startswith("job:edit:")]
    return await wait_for_form(await live.discord.click(message, custom_id, user_id=user_id))


async def menu(live: Live, message: discord_server.Message, *, user_id: int = 1) -> discord_server.Interaction:
    """Choose Apps → Make thumbnail on a message; return the interaction that shows the form."""
    await live.discord.commands_synced()
    return await wait_for_form(await live.discord.context_menu("Make thumbnail", message, user_id=user_id))


async def wait_for_form(interaction: discord_server.Interaction) -> discord_server.Interaction:
    await interaction.wait(lambda i: i.modal is not None, 10)
    return interaction


async def submit(
    live: Live,
    form: discord_server.Interaction,
    values: dict[str, Value] | None = None,
    *,
    user_id: int = 1,
) -> discord_server.Message:
    """Submit a form, and wait for its result or its failure message."""
    return await wait_for_end(await live.discord.submit(form, values, user_id=user_id))


async def wait_for_end(interaction: discord_server.Interaction) -> discord_server.Message:
    await interaction.wait(lambda i: i.message is not None and _is_end(i.message), 20)
    assert interaction.message is not None
    return interaction.message


def _is_end(message: discord_server.Message) -> bool:
    return bool(message.attachments) or "charged" in message.content


def ids(message: discord_server.Message) -> list[str]:
    return [one["custom_id"] for row in message.components for one in row["components"]]


def prefilled(form: discord_server.Interaction) -> dict[str, Any]:
    """The prefilled values of a form by custom id; for a select, the selected option."""
    assert form.modal is not None
    inputs = [label["component"] for label in form.modal["components"]]
    return {one["custom_id"]: one.get("value") or _default(one) for one in inputs}


def _default(field: dict[str, Any]) -> str | None:
    return next((option["value"] for option in field.get("options", ()) if option.get("default")), None)


def option_labels(form: discord_server.Interaction, custom_id: str) -> list[str]:
    """The labels of a select's options."""
    assert form.modal is not None
    [field] = [label["component"] for label in form.modal["components"] if label["component"]["custom_id"] == custom_id]
    return [option["label"] for option in field["options"]]


def call_bodies(live: Live) -> list[dict[str, Any]]:
    """The bodies of the provider calls, with the query strings of URLs removed."""
    return [{name: str(value).partition("?")[0] for name, value in call.body.items()} for call in live.api.calls]


# --- edit ---------------------------------------------------------------------------------------------------------


async def test_the_form_shows_the_options_of_the_result(live: Live) -> None:
    form = await edit(live, await live.made(prompt="a cat", model="pkz_4", format="9:16"))
    assert prefilled(form) == {"prompt": "a cat", "model": "pkz_4", "format": "9:16", "image": None, "reference": None}
    bare = await edit(live, await live.made())
    assert prefilled(bare) == {"prompt": None, "model": "pkz_4_5", "format": "16:9", "image": None, "reference": None}


async def test_an_unchanged_form_repeats_the_same_request(live: Live) -> None:
    first = await live.made(prompt="a cat", model="pkz_4", format="9:16", reference=REFERENCE)
    second = await submit(live, await edit(live, first))
    before, after = call_bodies(live)
    assert after == before
    assert (await live.job(second)).parent_id == (await live.job(first)).id
    assert (second.ephemeral, await live.left()) == (False, 3)


async def test_changes_reach_the_provider(live: Live) -> None:
    first = await live.made(prompt="a cat", model="pkz_4")
    await submit(live, await edit(live, first), {"prompt": "a\ndog", "model": ["pkz_3"], "format": ["1:1"]})
    before, after = call_bodies(live)
    assert after == before | {"prompt": "a dog", "model": "pkz_3", "format": "1:1"}


async def test_a_prompt_can_be_removed(live: Live) -> None:
    await submit(live, await edit(live, await live.made(prompt="a cat")), {"prompt": ""})
    assert "prompt" not in call_bodies(live)[1]


async def test_a_prompt_of_maximum_length_can_be_edited(live: Live) -> None:
    longest = "🐈" * 1500
    await submit(live, await edit(live, await live.made(prompt=longest)))
    assert call_bodies(live)[1]["prompt"] == longest


async def test_a_new_image_replaces_the_old_one(live: Live) -> None:
    first = await live.made(prompt="a cat", reference=REFERENCE)
    second = await submit(live, await edit(live, first), {"image": [OTHER]})
    before, after = call_bodies(live)
    assert after.pop("image_url").endswith("/other.webp")
    assert before.pop("image_url").endswith("/photo.png")
    assert after == before
    old, new = (await live.job(first)).request.image_hash, (await live.job(second)).request.image_hash
    assert len({None, old, new}) == 3, "each image is stored separately"


async def test_a_file_that_is_not_an_image_is_refused_before_anything_else(live: Live) -> None:
    first = await live.made()
    refused = await submit(live, await edit(live, first), {"image": [TEXT_FILE]})
    assert refused.ephemeral
    assert refused.content == "`image` must be a PNG, JPEG or WebP image. You were not charged."
    assert (await live.left(), len(live.api.calls)) == (4, 1)


async def test_a_reference_can_be_added_and_replaced_if_the_model_supports_it(live: Live) -> None:
    first = await live.made(model="pkz_4")
    second = await submit(live, await edit(live, first), {"reference": [REFERENCE]})
    third = await submit(live, await edit(live, second), {"reference": [OTHER]})
    assert [body.get("support_image_url", "").rpartition("/")[2] for body in call_bodies(live)] == [
        "",
        "reference.png",
        "other.webp",
    ]
    assert len({body["image_url"] for body in call_bodies(live)}) == 1
    refused = await submit(live, await edit(live, third), {"model": ["pkz_3"], "reference": [REFERENCE]})
    assert refused.ephemeral
    assert refused.content.startswith("Only PKZ 4 and PKZ 4.5 support `reference`.")
    refused = await submit(live, await edit(live, third), {"reference": [TEXT_FILE]})
    assert refused.content.startswith("`reference` must be a PNG, JPEG or WebP image.")


async def test_options_that_a_new_model_does_not_support_are_dropped(live: Live) -> None:
    with_reference = await live.made(model="pkz_4", reference=REFERENCE)
    await submit(live, await edit(live, with_reference), {"model": ["pkz_3"]})
    with_weight = await live.made(model="pkz_2", weight="high")
    await submit(live, await edit(live, with_weight), {"model": ["pkz_4_5"]})
    first, second, third, fourth = call_bodies(live)
    assert "support_image_url" in first
    assert "support_image_url" not in second
    assert third["image_weight"] == "high"
    assert "image_weight" not in fourth


async def test_a_link_in_the_prompt_is_refused_in_private_and_free(live: Live) -> None:
    refused = await submit(live, await edit(live, await live.made()), {"prompt": "like HTTP://x.y"})
    assert refused.ephemeral
    assert refused.content.startswith("`prompt` can't contain a link")
    assert refused.content.endswith("You were not charged.")
    assert (await live.left(), len(live.api.calls)) == (4, 1)


async def test_a_form_submitted_twice_creates_and_charges_two_results(live: Live) -> None:
    form = await edit(live, await live.made(prompt="a cat"))
    both = [await live.discord.submit(form, {"prompt": "a dog"}) for _ in range(2)]
    one, other = [await wait_for_end(each) for each in both]
    assert one.id != other.id
    await live.app.use_case.recovery.idle(10)
    assert (await live.left(), len(live.api.calls)) == (2, 3)


async def test_another_member_can_edit_a_result_and_is_charged_for_it(live: Live) -> None:
    first = await live.made(prompt="a cat")
    made = await live.job(await submit(live, await edit(live, first), user_id=2))
    assert (made.requester.user_id, made.parent_id) == (2, (await live.job(first)).id)
    assert (await live.left(1), await live.left(2)) == (4, 4)


async def test_a_member_without_credits_is_told_in_private(live: Live) -> None:
    first = await live.made()
    form = await edit(live, first)
    for _ in range(4):
        await submit(live, form)
    refused = await submit(live, form)
    assert refused.ephemeral
    assert refused.content.startswith("You have used 5 of 5 credits today")
    assert len(live.api.calls) == 5


async def test_a_failed_request_can_be_edited_and_retried(live: Live) -> None:
    live.api.script(Reply.error("CONTENT_POLICY"))
    failed = await live.said(prompt="a rude cat")
    second = await submit(live, await edit(live, failed), {"prompt": "a cat"})
    assert call_bodies(live)[1]["prompt"] == "a cat"
    assert (second.ephemeral, await live.left()) == (False, 4)


async def test_a_form_survives_a_restart(start_bot: StartBot) -> None:
    async with start_bot() as live:
        first = await live.made(prompt="a cat")
        form = await edit(live, first)
    async with start_bot() as live:
        made = await live.job(await submit(live, form, {"prompt": "a dog"}))
        assert (made.request.prompt, made.parent_id) == ("a dog", (await live.job(first)).id)


async def test_a_form_for_an_unknown_job_is_answered_in_private(live: Live) -> None:
    form = await edit(live, await live.made())
    assert form.modal is not None
    form.modal["custom_id"] = "form:edit:zzzz"
    refused = await submit(live, form)
    assert (refused.ephemeral, refused.content) == (True, TOO_LONG_AGO)
    assert await live.left() == 4


async def test_editing_a_private_result_stays_private(live: Live) -> None:
    first = await live.made(private=True, prompt="a cat")
    second = await submit(live, await edit(live, first), {"prompt": "a dog"})
    assert second.ephemeral
    assert [one.split(":")[1] for one in ids(second)] == ["again", "edit", "info", "share", "delete"]
    assert all(message.ephemeral for message in live.discord.messages.values())


async def test_an_expired_source_image_must_be_attached_start_bot(start_bot: StartBot) -> None:
    clock = Clock()
    async with start_bot(clock=clock, storage={"source_days": 0}) as live:
        first = await live.made(prompt="a cat")
        await live.app.use_case.recovery.idle(10)
        form = await edit(live, first)
        clock.ahead = timedelta(hours=25)
        refused = await submit(live, form)
        assert (refused.ephemeral, refused.content) == (True, f"{EXPIRED} You were not charged.")
        assert len(live.api.calls) == 1
        clock.ahead = timedelta()  # the server signs a new image's URL by the real clock
        await submit(live, form, {"image": [OTHER]})
        assert call_bodies(live)[1]["image_url"].endswith("/other.webp")


async def test_a_stored_source_image_never_expires(start_bot: StartBot) -> None:
    clock = Clock()
    async with start_bot(clock=clock) as live:
        first = await live.made(prompt="a cat")
        await live.app.use_case.recovery.idle(10)
        clock.ahead = timedelta(hours=25)
        await submit(live, await edit(live, first))
        assert set(call_bodies(live)[1]) == {"model", "format", "prompt", "image_base64"}


async def test_a_model_without_references_does_not_need_an_expired_one(start_bot: StartBot) -> None:
    clock = Clock()
    async with start_bot(clock=clock, storage={"source_days": 0}) as live:
        form = await edit(live, await live.made(model="pkz_4", reference=REFERENCE))
        clock.ahead = timedelta(hours=25)
        refused = await submit(live, form, {"model": ["pkz_3"]})
        assert refused.content.startswith(EXPIRED)
        clock.ahead = timedelta()
        await submit(live, form, {"model": ["pkz_3"], "image": [OTHER]})
        assert set(call_bodies(live)[1]) == {"model", "format", "image_url"}


async def test_an_expired_reference_can_be_attached_start_bot(start_bot: StartBot) -> None:
    clock = Clock()
    async with start_bot(clock=clock, storage={"source_days": 0}) as live:
        form = await edit(live, await live.made(model="pkz_4", reference=REFERENCE))
        clock.ahead = timedelta(hours=25)
        late = await live.discord.submit(
            form, {"image": [discord_server.Upload("new.png", 9, "image/png", url=LASTING)]}
        )
        assert (await wait_for_end(late)).content.startswith("The reference image of this result is no longer stored.")
        both = [discord_server.Upload(f"{name}.png", 9, "image/png", url=LASTING + name) for name in ("new", "other")]
        await submit(live, form, {"image": both[:1], "reference": both[1:]})
        assert [call_bodies(live)[1][name] for name in ("image_url", "support_image_url")] == [one.url for one in both]


# --- make thumbnail -----------------------------------------------------------------------------------------------


async def test_a_message_with_one_image_becomes_a_result(live: Live) -> None:
    form = await menu(live, live.discord.say("look", files=[PHOTO], user_id=9), user_id=2)
    assert prefilled(form) == {"prompt": None, "model": "pkz_4_5", "format": "16:9"}
    result = await submit(live, form, {"prompt": "a cat"}, user_id=2)
    [body] = call_bodies(live)
    assert body.pop("image_url").endswith("/photo.png")
    assert body == {"model": "pkz_4_5", "format": "16:9", "prompt": "a cat"}
    made = await live.job(result)
    assert (made.requester.user_id, made.parent_id, result.ephemeral) == (2, None, False)
    assert (await live.left(2), await live.left(9)) == (4, 5)


async def test_of_several_images_the_selected_one_is_sent(live: Live) -> None:
    message = live.discord.say(files=[PHOTO, OTHER, REFERENCE])
    form = await menu(live, message)
    assert prefilled(form)["which"] == "0"
    assert option_labels(form, "which") == ["1. photo.png", "2. other.webp", "3. reference.png"]
    await submit(live, form, {"which": ["1"]})
    assert call_bodies(live)[0]["image_url"].endswith("/other.webp")


async def test_only_valid_images_are_offered(live: Live) -> None:
    gif, text = discord_server.Upload("a.gif", 9, "image/gif"), discord_server.Upload("a.txt", 9, "text/plain")
    huge = discord_server.Upload("huge.png", 11 * 1024 * 1024, "image/png")
    form = await menu(live, live.discord.say(files=[gif, text, huge, PHOTO]))
    assert "which" not in prefilled(form)
    await submit(live, form)
    assert call_bodies(live)[0]["image_url"].endswith("/photo.png")
    enormous = discord_server.Upload("enormous.png", 26 * 1024 * 1024, "image/png")  # no smaller copy can be made of it
    for upload, expected in ((gif, "must be a PNG, JPEG or WebP image"), (enormous, "is 26.0 MB"), (text, "no image")):
        refused = await live.discord.context_menu("Make thumbnail", live.discord.say(files=[upload]))
        assert expected in (await wait_for_end(refused)).content
    offered = await submit(live, await menu(live, live.discord.say(files=[huge])))
    assert "is 11.0 MB" in offered.content
    assert len(live.api.calls) == 1


async def test_images_in_embeds_are_offered(live: Live) -> None:
    message = live.discord.say("https://example.org/page")
    message.embeds = [
        {"type": "rich", "image": {"url": "https://example.org/a.png", "proxy_url": "https://images.example/x/a.png"}},
        {"type": "article", "thumbnail": {"url": "https://example.org/"}},
        {"type": "rich", "description": "words"},
    ]
    form = await menu(live, message)
    assert option_labels(form, "which") == ["1. a.png", "2. embedded image"]
    await submit(live, form)
    assert call_bodies(live)[0]["image_url"] == "https://images.example/x/a.png"


async def test_the_form_offers_at_most_25_images(live: Live) -> None:
    message = live.discord.say(files=[PHOTO] * 10)
    message.embeds = [{"type": "image", "thumbnail": {"url": f"https://example.org/{n}.png"}} for n in range(30)]
    form = await menu(live, message)
    assert len(option_labels(form, "which")) == 25
    await submit(live, form, {"which": ["24"]})
    assert call_bodies(live)[0]["image_url"] == "https://example.org/14.png"


async def test_a_message_without_an_image_is_answered_in_private(live: Live) -> None:
    await live.discord.commands_synced()
    refused = await wait_for_end(await live.discord.context_menu("Make thumbnail", live.discord.say("only words")))
    assert (refused.ephemeral, refused.content) == (True, EMPTY)


async def test_a_draft_works_only_for_its_member_and_for_an_hour(start_bot: StartBot) -> None:
    clock = Clock()
    async with start_bot(clock=clock) as live:
        message = live.discord.say(files=[PHOTO])
        form = await menu(live, message)
        stranger = await submit(live, form, user_id=2)
        assert (stranger.ephemeral, stranger.content) == (True, TOO_LONG_AGO)
        clock.ahead = timedelta(minutes=59)
        await menu(live, message, user_id=3)
        await submit(live, form)
        clock.ahead = timedelta(minutes=61)
        late = await submit(live, form)
        assert (late.ephemeral, late.content) == (True, TOO_LONG_AGO)
        assert len(live.api.calls) == 1


async def test_a_draft_survives_a_restart_and_the_deletion_of_its_message(start_bot: StartBot) -> None:
    async with start_bot() as live:
        message = live.discord.say(files=[PHOTO, OTHER])
        form = await menu(live, message)
    async with start_bot() as live:
        await live.discord.delete_message(message.id)
        await submit(live, form, {"which": ["1"]})
        assert call_bodies(live)[0]["image_url"].endswith("/other.webp")


async def test_a_result_can_be_the_source_image_of_the_next(live: Live) -> None:
    first = await live.made()
    form = await menu(live, first, user_id=2)
    await submit(live, form, user_id=2)
    assert call_bodies(live)[1]["image_url"].endswith(f"/{first.filenames[0]}")


async def test_images_in_forwarded_messages_are_offered(tmp_path: Path) -> None:
    """Uses simcord, because the simulated Discord server has no forwarded messages."""
    async with simulated.opened(tmp_path) as stage:
        ann = stage.member("ann")
        original = await ann.send(stage.channel, "look", attachments=[("cat.jpg", demo.PHOTO.read_bytes())])
        elsewhere = stage.guild.create_text_channel("elsewhere")
        forwarded = await ann.forward(original, elsewhere)
        form = await ann.context_menu(elsewhere, "Make thumbnail", forwarded)
        await ann.submit_modal(form, {"prompt": "a cat", "model": ["pkz_4"], "format": ["1:1"]})
        [call] = stage.api.calls
        assert call.body["image_url"].endswith("/cat.jpg")
        assert elsewhere.last_message is not None
        assert elsewhere.last_message.attachments
