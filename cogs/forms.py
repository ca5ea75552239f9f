"""The forms: to edit a result, and to generate one from an image in a message.

A form's id says what it is about, so it means the same after a restart, when it is submitted twice, and when somebody
else submits it. Nothing of it stays in memory, and discord.py's own store of modals is not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import discord
from discord import app_commands

from bot.domain import validation
from bot.domain.errors import InvalidOption, NoImageFound
from bot.domain.models import Format, Model, Upload
from bot.text import formatting
from cogs import interactions, responses
from cogs.error_handler import answer_failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot.discord_io.client import Client, Services
    from bot.domain.models import Job

    Submitted = discord.Interaction[Client]

_EDIT, _NEW = "form:edit:", "form:new:"
_CHOICES = 25  # Discord: options of one select


async def setup(bot: Client) -> None:
    bot.tree.add_command(make_thumbnail(bot.services))

    async def on_interaction(interaction: Submitted) -> None:
        if interaction.type is discord.InteractionType.modal_submit:
            await submitted(interaction, bot.services)

    bot.add_listener(on_interaction, "on_interaction")


def edit(job: Job) -> discord.ui.Modal:
    """The form, filled in with the options of a result."""
    request = job.request
    fields = _fields(request.model, request.format, request.prompt)
    fields.append(_upload("image", "Another image", "Leave empty to keep the current one"))
    if request.support_image_url:
        fields.append(_upload("reference", "Another reference image", "Leave empty to keep the current one"))
    else:
        fields.append(_upload("reference", "A reference image", "For PKZ 4 and PKZ 4.5"))
    return _modal(_EDIT + job.id, f"Edit #{job.id}", fields)


def make_thumbnail(services: Services) -> app_commands.ContextMenu:
    """Message → Apps → Make thumbnail. Its images are stored at the click, since the form may outlive the message."""

    @app_commands.guild_only()
    async def callback(interaction: discord.Interaction[Client], message: discord.Message) -> None:
        images = _usable(_images(message), services)
        with services.recovery.waited_for():
            draft = await services.results.save_draft(interaction.user.id, images)
            usual = await services.choices.of(interaction.user.id, interaction.guild_id)
            fields = _fields(usual.model, usual.format, None)
            if len(images) > 1:
                fields.insert(0, _which(images))
            await responses.send_modal(interaction, _modal(_NEW + draft, "Make a thumbnail", fields))

    return app_commands.ContextMenu(name="Make thumbnail", callback=callback)


def _modal(custom_id: str, title: str, fields: Sequence[discord.ui.Item[Any]]) -> discord.ui.Modal:
    modal = discord.ui.Modal(title=title, custom_id=custom_id, timeout=None)
    for field in fields:
        modal.add_item(field)
    modal.stop()  # keep nothing in memory: a submitted form is recognized by its id
    return modal


def _fields(model: Model, format_: Format, prompt: str | None) -> list[discord.ui.Item[Any]]:
    text = discord.ui.TextInput[discord.ui.Modal](
        custom_id="prompt",
        style=discord.TextStyle.paragraph,
        default=prompt,
        required=False,
        max_length=validation.PROMPT_LENGTH,
    )
    return [
        discord.ui.Label(text="Prompt", description="What to change or add; no links", component=text),
        _select("model", "Model", {one.value: formatting.MODELS[one] for one in Model}, model.value),
        _select("format", "Format", {one.value: formatting.FORMATS[one] for one in Format}, format_.value),
    ]


def _which(images: Sequence[Upload]) -> discord.ui.Item[Any]:
    names = {str(number): f"{number + 1}. {image.filename}"[:100] for number, image in enumerate(images)}
    return _select("which", "Which image", names, "0")


def _select(custom_id: str, text: str, names: dict[str, str], chosen: str) -> discord.ui.Item[Any]:
    shown = [discord.SelectOption(label=name, value=value, default=value == chosen) for value, name in names.items()]
    return discord.ui.Label(
        text=text, component=discord.ui.Select[discord.ui.Modal](custom_id=custom_id, options=shown)
    )


def _usable(images: Sequence[Upload], services: Services) -> list[Upload]:
    """The valid images, up to the form's limit, checked before anyone fills in the form. If there are none, those of
    which a smaller copy can be made: that is offered when the form is submitted. Raises `NoImageFound`, or what is
    wrong with the first image.
    """
    usable, too_large, wrong = list[Upload](), list[Upload](), list[InvalidOption]()
    for image in images:
        try:
            validation.build_request(
                image=image,
                model=services.default_model,
                format=services.default_format,
                max_pixels=services.max_pixels,
            )
        except InvalidOption as invalid:
            if invalid.oversized is not None and services.smaller_copies.may_help(invalid.oversized):
                too_large.append(image)
            else:
                wrong.append(invalid)
        else:
            usable.append(image)
    if not usable and not too_large:
        raise wrong[0] if wrong else NoImageFound
    return (usable or too_large)[:_CHOICES]


def _upload(custom_id: str, text: str, description: str) -> discord.ui.Item[Any]:
    upload = discord.ui.FileUpload[discord.ui.Modal](custom_id=custom_id, required=False, max_values=1)
    return discord.ui.Label(text=text, description=description, component=upload)


def _images(message: discord.Message) -> list[Upload]:
    """The images of a message, of its embeds, and of what it forwards."""
    attached = [*message.attachments, *(one for shot in message.message_snapshots for one in shot.attachments)]
    images = [interactions.upload(one) for one in attached if (one.content_type or "image/").startswith("image/")]
    embeds = [*message.embeds, *(one for shot in message.message_snapshots for one in shot.embeds)]
    for media in (embed.image if embed.image.url else embed.thumbnail for embed in embeds):
        address = media.proxy_url or media.url
        if address:
            name = address.partition("?")[0].rpartition("/")[2] or "embedded image"
            images.append(Upload(address, name, None, validation.EMBEDDED))
    return images


# --- a submitted form ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answers:
    """What was filled in."""

    model: str
    format: str
    prompt: str
    which: int
    image: Upload | None
    reference: Upload | None


async def submitted(interaction: Submitted, services: Services) -> None:
    """Treat one of our forms as a request; any other form is not ours."""
    data: Any = interaction.data or {}
    custom_id = str(data.get("custom_id", ""))
    try:
        if custom_id.startswith(_EDIT):
            await _edited(interaction, services, custom_id.removeprefix(_EDIT))
        elif custom_id.startswith(_NEW):
            await _new(interaction, services, custom_id.removeprefix(_NEW))
    except Exception as error:  # noqa: BLE001 - the error handler answers everything
        await answer_failure(interaction, error, services)


async def _edited(interaction: Submitted, services: Services, job_id: str) -> None:
    message_id = interactions.message_id(interaction)
    job = await services.results.job(job_id, interaction.user.id, message_id=message_id)
    given = _answers(interaction)
    request = validation.apply_edit(
        job.request,
        model=given.model,
        format=given.format,
        prompt=given.prompt,
        image=given.image,
        reference=given.reference,
        max_pixels=services.max_pixels,
    )
    private = interactions.repeats_privately(interaction, job)
    await interactions.accept(interaction, request, private=private, parent=job)


async def _new(interaction: Submitted, services: Services, draft_id: str) -> None:
    images, given = await services.results.get_draft(draft_id, interaction.user.id), _answers(interaction)
    image = images[given.which] if given.which < len(images) else images[0]
    request = validation.build_request(
        image=image, model=given.model, format=given.format, prompt=given.prompt, max_pixels=services.max_pixels
    )
    await interactions.accept(interaction, request, private=await interactions.wants_private(interaction))


def _answers(interaction: Submitted) -> Answers:
    data: Any = interaction.data or {}
    inputs = [field.get("component") or {} for field in data.get("components", ())]
    given = {one.get("custom_id"): one.get("value") or next(iter(one.get("values") or ()), "") for one in inputs}
    attached = data.get("resolved", {}).get("attachments", {})
    return Answers(
        model=given.get("model", ""),
        format=given.get("format", ""),
        prompt=given.get("prompt", ""),
        which=int(given.get("which") or 0),
        image=_attached(attached.get(given.get("image"))),
        reference=_attached(attached.get(given.get("reference"))),
    )


def _attached(data: Any) -> Upload | None:
    if not data:
        return None
    dimensions = data.get("width"), data.get("height")
    return Upload(data["url"], data["filename"], data["size"], data.get("content_type"), *dimensions)
