"""The forms on real sockets: a result edited, and one made from the picture of a message."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from bot.app import utc_now
from sandbox import demo, discord_server, pikzels_server, simulated
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import KEY, PHOTO, Live, png, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime
    from pathlib import Path

    from sandbox.discord_server.modals import Value

    Again = Callable[..., AbstractAsyncContextManager[Live]]

REFERENCE = discord_server.Upload("reference.png", 300_000, "image/png")
OTHER = discord_server.Upload("other.webp", 400_000, "image/webp")
NOTES = discord_server.Upload("notes.txt", 5, "text/plain")
LASTING = "https://example.org/lasting/1/"
EMPTY = "That message has no image. You were not charged."
TOO_LONG_AGO = "That result is no longer available. Start again with /thumbnail. You were not charged."
EXPIRED = "The image this result started from is no longer stored. Attach it again with /thumbnail or Edit."


class Clock:
    """The bot's clock, which a test may put forward."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return utc_now() + self.ahead


@pytest.fixture
async def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Live]:
    async with running(tmp_path, monkeypatch, quota={"member_daily": 5}) as started:
        yield started


@pytest.fixture
async def again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Again]:
    """Starts the bot, as often as wanted, in one Discord and on one folder."""
    async with discord_server.serve(keep_files=True) as discord, pikzels_server.serve(api_key=KEY, output=png()) as api:

        @asynccontextmanager
        async def start(**more: Any) -> AsyncIterator[Live]:
            async with running(tmp_path, monkeypatch, around=(discord, api), **more) as started:
                yield started

        yield start


async def edit(live: Live, message: discord_server.Message, *, user_id: int = 1) -> discord_server.Interaction:
    """Press Edit; returns what shows the form."""
    [custom_id] = [one for one in ids(message) if one.startswith("job:edit:")]
    return await opened(await live.discord.click(message, custom_id, user_id=user_id))


async def menu(live: Live, message: discord_server.Message, *, user_id: int = 1) -> discord_server.Interaction:
    """Message → Apps → Make thumbnail; returns what shows the form."""
    await live.discord.commands_synced()
    return await opened(await live.discord.context_menu("Make thumbnail", message, user_id=user_id))


async def opened(interaction: discord_server.Interaction) -> discord_server.Interaction:
    await interaction.wait(lambda i: i.modal is not None, 10)
    return interaction


async def sent(
    live: Live,
    form: discord_server.Interaction,
    values: dict[str, Value] | None = None,
    *,
    user_id: int = 1,
) -> discord_server.Message:
    """Send a form, and wait for its picture or the words that end it."""
    return await ended(await live.discord.submit(form, values, user_id=user_id))


async def ended(interaction: discord_server.Interaction) -> discord_server.Message:
    await interaction.wait(lambda i: i.message is not None and _is_end(i.message), 20)
    assert interaction.message is not None
    return interaction.message


def _is_end(message: discord_server.Message) -> bool:
    return bool(message.attachments) or "charged" in message.content


def ids(message: discord_server.Message) -> list[str]:
    return [one["custom_id"] for row in message.components for one in row["components"]]


def shown(form: discord_server.Interaction) -> dict[str, Any]:
    """What a form is prefilled with, by custom id; a select's is the option chosen."""
    assert form.modal is not None
    inputs = [label["component"] for label in form.modal["components"]]
    return {one["custom_id"]: one.get("value") or _default(one) for one in inputs}


def _default(field: dict[str, Any]) -> str | None:
    return next((option["value"] for option in field.get("options", ()) if option.get("default")), None)


def offered(form: discord_server.Interaction, custom_id: str) -> list[str]:
    """The names that a select offers."""
    assert form.modal is not None
    [field] = [label["component"] for label in form.modal["components"] if label["component"]["custom_id"] == custom_id]
    return [option["label"] for option in field["options"]]


def bodies(live: Live) -> list[dict[str, Any]]:
    """What the provider was asked for, without the signatures of addresses."""
    return [{name: str(value).partition("?")[0] for name, value in call.body.items()} for call in live.api.calls]


# --- edit ---------------------------------------------------------------------------------------------------------


async def test_the_form_shows_what_the_result_was_made_of(live: Live) -> None:
    form = await edit(live, await live.made(prompt="a cat", model="pkz_4", format="9:16"))
    assert shown(form) == {"prompt": "a cat", "model": "pkz_4", "format": "9:16", "image": None, "reference": None}
    bare = await edit(live, await live.made())
    assert shown(bare) == {"prompt": None, "model": "pkz_4_5", "format": "16:9", "image": None, "reference": None}


async def test_a_form_sent_as_it_is_makes_another_of_the_same(live: Live) -> None:
    first = await live.made(prompt="a cat", model="pkz_4", format="9:16", reference=REFERENCE)
    second = await sent(live, await edit(live, first))
    before, after = bodies(live)
    assert after == before
    assert (await live.job(second)).parent_id == (await live.job(first)).id
    assert (second.ephemeral, await live.left()) == (False, 3)


async def test_changes_reach_the_provider(live: Live) -> None:
    first = await live.made(prompt="a cat", model="pkz_4")
    await sent(live, await edit(live, first), {"prompt": "a\ndog", "model": ["pkz_3"], "format": ["1:1"]})
    before, after = bodies(live)
    assert after == before | {"prompt": "a dog", "model": "pkz_3", "format": "1:1"}


async def test_a_prompt_can_be_taken_away(live: Live) -> None:
    await sent(live, await edit(live, await live.made(prompt="a cat")), {"prompt": ""})
    assert "prompt" not in bodies(live)[1]


async def test_a_prompt_of_the_longest_kind_can_be_edited(live: Live) -> None:
    longest = "🐈" * 1500
    await sent(live, await edit(live, await live.made(prompt=longest)))
    assert bodies(live)[1]["prompt"] == longest


async def test_another_picture_takes_the_place_of_the_old_one(live: Live) -> None:
    first = await live.made(prompt="a cat", reference=REFERENCE)
    second = await sent(live, await edit(live, first), {"image": [OTHER]})
    before, after = bodies(live)
    assert after.pop("image_url").endswith("/other.webp")
    assert before.pop("image_url").endswith("/photo.png")
    assert after == before
    old, new = (await live.job(first)).request.image_sha256, (await live.job(second)).request.image_sha256
    assert len({None, old, new}) == 3, "each is kept as itself"


async def test_a_picture_that_is_none_is_refused_before_anything_else(live: Live) -> None:
    first = await live.made()
    refused = await sent(live, await edit(live, first), {"image": [NOTES]})
    assert refused.ephemeral
    assert refused.content == "`image` must be a PNG, JPEG or WebP image. You were not charged."
    assert (await live.left(), len(live.api.calls)) == (4, 1)


async def test_a_reference_can_be_added_and_replaced_where_the_model_takes_one(live: Live) -> None:
    first = await live.made(model="pkz_4")
    second = await sent(live, await edit(live, first), {"reference": [REFERENCE]})
    third = await sent(live, await edit(live, second), {"reference": [OTHER]})
    assert [body.get("support_image_url", "").rpartition("/")[2] for body in bodies(live)] == [
        "",
        "reference.png",
        "other.webp",
    ]
    assert len({body["image_url"] for body in bodies(live)}) == 1
    refused = await sent(live, await edit(live, third), {"model": ["pkz_3"], "reference": [REFERENCE]})
    assert refused.ephemeral
    assert refused.content.startswith("Only PKZ 4 and PKZ 4.5 support `reference`.")
    refused = await sent(live, await edit(live, third), {"reference": [NOTES]})
    assert refused.content.startswith("`reference` must be a PNG, JPEG or WebP image.")


async def test_what_another_model_does_not_take_is_left_out(live: Live) -> None:
    with_reference = await live.made(model="pkz_4", reference=REFERENCE)
    await sent(live, await edit(live, with_reference), {"model": ["pkz_3"]})
    with_weight = await live.made(model="pkz_2", weight="high")
    await sent(live, await edit(live, with_weight), {"model": ["pkz_4_5"]})
    first, second, third, fourth = bodies(live)
    assert "support_image_url" in first
    assert "support_image_url" not in second
    assert third["image_weight"] == "high"
    assert "image_weight" not in fourth


async def test_a_link_in_the_prompt_is_refused_in_private_and_free(live: Live) -> None:
    refused = await sent(live, await edit(live, await live.made()), {"prompt": "like HTTP://x.y"})
    assert refused.ephemeral
    assert refused.content.startswith("`prompt` can't contain a link")
    assert refused.content.endswith("You were not charged.")
    assert (await live.left(), len(live.api.calls)) == (4, 1)


async def test_a_form_sent_twice_makes_two_and_charges_two(live: Live) -> None:
    form = await edit(live, await live.made(prompt="a cat"))
    both = [await live.discord.submit(form, {"prompt": "a dog"}) for _ in range(2)]
    one, other = [await ended(each) for each in both]
    assert one.id != other.id
    await live.app.use_case.recovery.idle(10)
    assert (await live.left(), len(live.api.calls)) == (2, 3)


async def test_somebody_else_may_send_it_and_pays_for_it(live: Live) -> None:
    first = await live.made(prompt="a cat")
    made = await live.job(await sent(live, await edit(live, first), user_id=2))
    assert (made.requester.user_id, made.parent_id) == (2, (await live.job(first)).id)
    assert (await live.left(1), await live.left(2)) == (4, 4)


async def test_who_has_used_everything_up_is_told_so_alone(live: Live) -> None:
    first = await live.made()
    form = await edit(live, first)
    for _ in range(4):
        await sent(live, form)
    refused = await sent(live, form)
    assert refused.ephemeral
    assert refused.content.startswith("You have used 5 of 5 credits today")
    assert len(live.api.calls) == 5


async def test_what_failed_can_be_edited_and_tried_again(live: Live) -> None:
    live.api.script(Reply.error("CONTENT_POLICY"))
    failed = await live.said(prompt="a rude cat")
    second = await sent(live, await edit(live, failed), {"prompt": "a cat"})
    assert bodies(live)[1]["prompt"] == "a cat"
    assert (second.ephemeral, await live.left()) == (False, 4)


async def test_a_form_outlives_the_bot(again: Again) -> None:
    async with again() as live:
        first = await live.made(prompt="a cat")
        form = await edit(live, first)
    async with again() as live:
        made = await live.job(await sent(live, form, {"prompt": "a dog"}))
        assert (made.request.prompt, made.parent_id) == ("a dog", (await live.job(first)).id)


async def test_a_form_about_something_unknown_is_answered_in_private(live: Live) -> None:
    form = await edit(live, await live.made())
    assert form.modal is not None
    form.modal["custom_id"] = "form:edit:zzzz"
    refused = await sent(live, form)
    assert (refused.ephemeral, refused.content) == (True, TOO_LONG_AGO)
    assert await live.left() == 4


async def test_what_is_edited_in_private_stays_private(live: Live) -> None:
    first = await live.made(private=True, prompt="a cat")
    second = await sent(live, await edit(live, first), {"prompt": "a dog"})
    assert second.ephemeral
    assert [one.split(":")[1] for one in ids(second)] == ["again", "edit", "info", "share", "delete"]
    assert all(message.ephemeral for message in live.discord.messages.values())


async def test_a_source_that_has_expired_is_asked_for_again(again: Again) -> None:
    clock = Clock()
    async with again(clock=clock, storage={"source_days": 0}) as live:
        first = await live.made(prompt="a cat")
        await live.app.use_case.recovery.idle(10)
        form = await edit(live, first)
        clock.ahead = timedelta(hours=25)
        refused = await sent(live, form)
        assert (refused.ephemeral, refused.content) == (True, f"{EXPIRED} You were not charged.")
        assert len(live.api.calls) == 1
        clock.ahead = timedelta()  # the wire signs a new picture's address by the real clock
        await sent(live, form, {"image": [OTHER]})
        assert bodies(live)[1]["image_url"].endswith("/other.webp")


async def test_a_source_that_was_kept_never_expires(again: Again) -> None:
    clock = Clock()
    async with again(clock=clock) as live:
        first = await live.made(prompt="a cat")
        await live.app.use_case.recovery.idle(10)
        clock.ahead = timedelta(hours=25)
        await sent(live, await edit(live, first))
        assert set(bodies(live)[1]) == {"model", "format", "prompt", "image_base64"}


async def test_an_expired_reference_is_not_missed_by_a_model_without_one(again: Again) -> None:
    clock = Clock()
    async with again(clock=clock, storage={"source_days": 0}) as live:
        form = await edit(live, await live.made(model="pkz_4", reference=REFERENCE))
        clock.ahead = timedelta(hours=25)
        refused = await sent(live, form, {"model": ["pkz_3"]})
        assert refused.content.startswith(EXPIRED)
        clock.ahead = timedelta()
        await sent(live, form, {"model": ["pkz_3"], "image": [OTHER]})
        assert set(bodies(live)[1]) == {"model", "format", "image_url"}


async def test_an_expired_reference_can_be_attached_again(again: Again) -> None:
    clock = Clock()
    async with again(clock=clock, storage={"source_days": 0}) as live:
        form = await edit(live, await live.made(model="pkz_4", reference=REFERENCE))
        clock.ahead = timedelta(hours=25)
        late = await live.discord.submit(
            form, {"image": [discord_server.Upload("new.png", 9, "image/png", url=LASTING)]}
        )
        assert (await ended(late)).content.startswith("The reference image of this result is no longer stored.")
        both = [discord_server.Upload(f"{name}.png", 9, "image/png", url=LASTING + name) for name in ("new", "other")]
        await sent(live, form, {"image": both[:1], "reference": both[1:]})
        assert [bodies(live)[1][name] for name in ("image_url", "support_image_url")] == [one.url for one in both]


# --- make thumbnail -----------------------------------------------------------------------------------------------


async def test_a_message_with_one_picture_becomes_a_result(live: Live) -> None:
    form = await menu(live, live.discord.say("look", files=[PHOTO], user_id=9), user_id=2)
    assert shown(form) == {"prompt": None, "model": "pkz_4_5", "format": "16:9"}
    result = await sent(live, form, {"prompt": "a cat"}, user_id=2)
    [body] = bodies(live)
    assert body.pop("image_url").endswith("/photo.png")
    assert body == {"model": "pkz_4_5", "format": "16:9", "prompt": "a cat"}
    made = await live.job(result)
    assert (made.requester.user_id, made.parent_id, result.ephemeral) == (2, None, False)
    assert (await live.left(2), await live.left(9)) == (4, 5)


async def test_of_several_pictures_the_chosen_one_is_sent(live: Live) -> None:
    message = live.discord.say(files=[PHOTO, OTHER, REFERENCE])
    form = await menu(live, message)
    assert shown(form)["which"] == "0"
    assert offered(form, "which") == ["1. photo.png", "2. other.webp", "3. reference.png"]
    await sent(live, form, {"which": ["1"]})
    assert bodies(live)[0]["image_url"].endswith("/other.webp")


async def test_only_pictures_that_would_be_taken_are_offered(live: Live) -> None:
    gif, text = discord_server.Upload("a.gif", 9, "image/gif"), discord_server.Upload("a.txt", 9, "text/plain")
    huge = discord_server.Upload("huge.png", 11 * 1024 * 1024, "image/png")
    form = await menu(live, live.discord.say(files=[gif, text, huge, PHOTO]))
    assert "which" not in shown(form)
    await sent(live, form)
    assert bodies(live)[0]["image_url"].endswith("/photo.png")
    for upload, words in ((gif, "must be a PNG, JPEG or WebP image"), (huge, "is 11.0 MB"), (text, "no image")):
        refused = await live.discord.context_menu("Make thumbnail", live.discord.say(files=[upload]))
        assert words in (await ended(refused)).content
    assert len(live.api.calls) == 1


async def test_pictures_in_embeds_count(live: Live) -> None:
    message = live.discord.say("https://example.org/page")
    message.embeds = [
        {"type": "rich", "image": {"url": "https://example.org/a.png", "proxy_url": "https://images.example/x/a.png"}},
        {"type": "article", "thumbnail": {"url": "https://example.org/"}},
        {"type": "rich", "description": "words"},
    ]
    form = await menu(live, message)
    assert offered(form, "which") == ["1. a.png", "2. embedded image"]
    await sent(live, form)
    assert bodies(live)[0]["image_url"] == "https://images.example/x/a.png"


async def test_more_pictures_than_a_form_can_offer_are_no_trouble(live: Live) -> None:
    message = live.discord.say(files=[PHOTO] * 10)
    message.embeds = [{"type": "image", "thumbnail": {"url": f"https://example.org/{n}.png"}} for n in range(30)]
    form = await menu(live, message)
    assert len(offered(form, "which")) == 25
    await sent(live, form, {"which": ["24"]})
    assert bodies(live)[0]["image_url"] == "https://example.org/14.png"


async def test_a_message_without_a_picture_is_answered_in_private(live: Live) -> None:
    await live.discord.commands_synced()
    refused = await ended(await live.discord.context_menu("Make thumbnail", live.discord.say("only words")))
    assert (refused.ephemeral, refused.content) == (True, EMPTY)


async def test_a_draft_is_for_who_began_it_and_for_an_hour(again: Again) -> None:
    clock = Clock()
    async with again(clock=clock) as live:
        message = live.discord.say(files=[PHOTO])
        form = await menu(live, message)
        stranger = await sent(live, form, user_id=2)
        assert (stranger.ephemeral, stranger.content) == (True, TOO_LONG_AGO)
        clock.ahead = timedelta(minutes=59)
        await menu(live, message, user_id=3)
        await sent(live, form)
        clock.ahead = timedelta(minutes=61)
        late = await sent(live, form)
        assert (late.ephemeral, late.content) == (True, TOO_LONG_AGO)
        assert len(live.api.calls) == 1


async def test_a_draft_outlives_the_bot_and_the_message(again: Again) -> None:
    async with again() as live:
        message = live.discord.say(files=[PHOTO, OTHER])
        form = await menu(live, message)
    async with again() as live:
        await live.discord.delete_message(message.id)
        await sent(live, form, {"which": ["1"]})
        assert bodies(live)[0]["image_url"].endswith("/other.webp")


async def test_a_result_can_be_the_picture_of_the_next(live: Live) -> None:
    first = await live.made()
    form = await menu(live, first, user_id=2)
    await sent(live, form, user_id=2)
    assert bodies(live)[1]["image_url"].endswith(f"/{first.filenames[0]}")


async def test_what_a_message_forwards_counts(tmp_path: Path) -> None:
    """In the simulated Discord: nobody forwards on the discord_server."""
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
