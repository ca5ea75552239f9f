"""User actions in the simulated Discord, as an unmodified discord.py sees them."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Self, cast

import discord
import pytest
from discord import app_commands
from discord.ext import commands

from sandbox import discord_server
from tests.support.discord_clients import channel, png, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PHOTO = discord_server.Upload("photo.png", 1234, "image/png", url="http://127.0.0.1:9/photo.png")
LOGO = discord_server.Upload("logo.png", 99, "image/png")


class EditModal(discord.ui.Modal):
    """The prefilled edit form."""

    def __init__(self, job: str) -> None:
        super().__init__(title="Edit", custom_id=f"edit:{job}", timeout=None)
        models = [discord.SelectOption(label=name, default=name == "pkz_4") for name in ("pkz_3", "pkz_4", "pkz_5")]
        self.prompt = discord.ui.TextInput[Self](custom_id="prompt", default="A cat", max_length=9)
        self.model = discord.ui.Select[Self](custom_id="model", options=models, max_values=2)
        self.image = discord.ui.FileUpload[Self](custom_id="image", required=False, max_values=2)
        self.add_item(discord.ui.Label(text="Prompt", component=self.prompt))
        self.add_item(discord.ui.Label(text="Model", component=self.model))
        self.add_item(discord.ui.Label(text="Image", component=self.image))
        self.add_item(discord.ui.TextDisplay("One credit"))

    async def on_submit(self, interaction: discord.Interaction) -> None:
        files = [(file.filename, file.url) for file in self.image.values]
        await interaction.response.send_message(f"{self.prompt.value} {self.model.values} {files}", ephemeral=True)


class JobButton(
    discord.ui.DynamicItem[discord.ui.Button[discord.ui.View]],
    template=re.compile(r"(?P<action>again|edit|hide|show|late):(?P<job>\w+)"),
):
    """Each action has a different type of response."""

    def __init__(self, action: str, job: str) -> None:
        super().__init__(discord.ui.Button(label=action, custom_id=f"{action}:{job}"))
        self.action, self.job = action, job

    @classmethod
    async def from_custom_id(cls, _: discord.Interaction, __: object, match: re.Match[str]) -> Self:
        return cls(match["action"], match["job"])

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        match self.action:
            case "again":
                await interaction.response.send_message(f"Queued {self.job}", view=row("hide"), ephemeral=True)
            case "edit":
                await interaction.response.send_modal(EditModal(self.job))
            case "hide":
                await interaction.response.edit_message(content=f"Hidden {self.job}", view=None)
            case "show":
                await interaction.response.defer()
                await interaction.edit_original_response(content=f"Shown {self.job}")
            case "late":
                await interaction.response.defer(thinking=True, ephemeral=True)
                await interaction.edit_original_response(content=f"Done {self.job}")


def row(*names: str) -> discord.ui.View:
    view = discord.ui.View(timeout=None)
    for name in names:
        view.add_item(JobButton(name, "k3f9"))
    return view


class FormCog(commands.Cog):
    """A command that opens the form, and a queue of all interactions."""

    def __init__(self) -> None:
        self.interactions: asyncio.Queue[discord.Interaction] = asyncio.Queue()

    @commands.Cog.listener()
    async def on_interaction(self, interaction: discord.Interaction) -> None:
        self.interactions.put_nowait(interaction)

    @app_commands.command(description="Opens the form")
    async def form(self, interaction: discord.Interaction) -> None:
        await interaction.response.send_modal(EditModal("k3f9"))


@app_commands.context_menu(name="Use this Image")
async def use(interaction: discord.Interaction, message: discord.Message) -> None:
    names = [attachment.filename for attachment in message.attachments]
    await interaction.response.send_message(f"{message.author.id} {message.content} {names} {len(message.embeds)}")


class Bot(commands.Bot):
    def __init__(self, intents: discord.Intents | None = None) -> None:
        super().__init__("!", intents=intents or discord.Intents.none(), guild_ready_timeout=0.05)
        self.form_cog = FormCog()

    async def setup_hook(self) -> None:
        await self.add_cog(self.form_cog)
        self.add_dynamic_items(JobButton)
        self.tree.add_command(use)
        await self.tree.sync()

    async def next_interaction(self) -> discord.Interaction:
        return await asyncio.wait_for(self.form_cog.interactions.get(), 10)


@pytest.fixture
async def bot(server: discord_server.DiscordServer) -> AsyncIterator[Bot]:
    async with running(server, Bot()) as bot:
        yield bot


async def post_result(server: discord_server.DiscordServer, bot: Bot, *names: str) -> discord_server.Message:
    sent = await channel(bot).send("Done", file=png("first.png"), view=row(*names))
    return server.messages[sent.id]


async def open_form(server: discord_server.DiscordServer) -> discord_server.Interaction:
    interaction = await server.slash("form", user_id=7)
    await interaction.acked.wait()
    return interaction


async def wait_for_answer(interaction: discord_server.Interaction) -> discord_server.Message:
    await interaction.wait(lambda i: i.message is not None and not i.message.loading)
    assert interaction.message is not None
    return interaction.message


def submitted_values(received: discord.Interaction) -> dict[str, object]:
    """The submitted values by custom id, for a bot that no longer has the modal."""
    data = cast("dict[str, Any]", received.data)
    fields = [top["component"] for top in data["components"] if "component" in top]
    return {field["custom_id"]: field.get("value", field.get("values")) for field in fields}


async def test_an_unchanged_form_submits_its_prefilled_values(server: discord_server.DiscordServer, bot: Bot) -> None:
    interaction = await open_form(server)
    assert interaction.modal is not None
    assert (interaction.modal["custom_id"], interaction.modal["title"]) == ("edit:k3f9", "Edit")
    assert [component["type"] for component in interaction.modal["components"]] == [18, 18, 18, 10]
    sent = await server.submit(interaction)
    message = await wait_for_answer(sent)
    assert (message.content, message.ephemeral) == ("A cat ['pkz_4'] []", True)
    assert sent.type == 5
    assert sent.origin.user_id == 7
    assert sent.source is None
    assert "message" not in sent.payload()


async def test_a_form_accepts_text_choices_and_files(server: discord_server.DiscordServer, bot: Bot) -> None:
    interaction = await open_form(server)
    filled = {"prompt": "A dog", "model": ["pkz_3", "pkz_5"]}
    message = await wait_for_answer(await server.submit(interaction, filled, files=[PHOTO]))
    assert message.content == f"A dog ['pkz_3', 'pkz_5'] [('photo.png', '{PHOTO.url}')]"


async def test_a_file_can_be_submitted_under_the_name_of_its_field(
    server: discord_server.DiscordServer, bot: Bot
) -> None:
    sent = await server.submit(await open_form(server), {"image": [PHOTO, LOGO]})
    assert len(sent.data["resolved"]["attachments"]) == 2
    assert sent.data["components"][2]["component"]["values"] == list(sent.data["resolved"]["attachments"])
    assert "('logo.png', 'https://cdn.discordapp.com/ephemeral-attachments/" in (await wait_for_answer(sent)).content


async def test_a_form_can_be_submitted_after_the_bot_restarts(server: discord_server.DiscordServer) -> None:
    async with running(server, Bot()):
        interaction = await open_form(server)
    with pytest.raises(discord_server.NotConnected):
        await server.submit(interaction)
    async with running(server, Bot()) as second:
        sent = await server.submit(interaction, {"prompt": "Later"})
        received = await second.next_interaction()
        assert received.type is discord.InteractionType.modal_submit
        assert submitted_values(received) == {"prompt": "Later", "model": ["pkz_4"], "image": []}
        await received.response.defer()
        await received.followup.send("Noted", ephemeral=True)
    assert server.identifies == 2
    assert sent.message is None
    assert [(message.content, message.ephemeral) for message in sent.followups] == [("Noted", True)]


async def test_two_users_can_submit_the_same_form(server: discord_server.DiscordServer, bot: Bot) -> None:
    message = await post_result(server, bot, "edit")
    clicked = await server.click(message, "edit:k3f9", user_id=7, permissions=8)
    await clicked.acked.wait()
    await bot.next_interaction()
    mine = await server.submit(clicked, {"prompt": "Mine"})
    await wait_for_answer(mine)
    theirs = await server.submit(clicked, {"prompt": "Theirs"}, user_id=8)
    first, second = await bot.next_interaction(), await bot.next_interaction()
    assert [(received.user.id, submitted_values(received)["prompt"]) for received in (first, second)] == [
        (7, "Mine"),
        (8, "Theirs"),
    ]
    assert first.permissions.administrator
    assert not second.permissions.administrator
    assert first.message is not None
    assert first.message.id == message.id
    await second.response.edit_message(content="Edited")
    assert theirs.message is message
    assert message.content == "Edited"


@pytest.mark.parametrize(
    ("filled", "files", "kind"),
    [
        ({"prompt": "Far too long"}, (), ValueError),
        ({"prompt": ""}, (), ValueError),
        ({"model": ["pkz_9"]}, (), ValueError),
        ({"model": []}, (), ValueError),
        ({}, (PHOTO, PHOTO, PHOTO), ValueError),
        ({"image": "photo.png"}, (), TypeError),
        ({"seed": "1"}, (), LookupError),
    ],
)
async def test_a_form_rejects_values_that_a_user_could_not_submit(
    server: discord_server.DiscordServer,
    bot: Bot,
    filled: dict[str, Any],
    files: tuple[discord_server.Upload, ...],
    kind: type[Exception],
) -> None:
    interaction = await open_form(server)
    with pytest.raises(kind):
        await server.submit(interaction, filled, files=files)


async def test_submitting_without_an_open_form_fails(server: discord_server.DiscordServer, bot: Bot) -> None:
    clicked = await server.click(await post_result(server, bot, "again"), "again:k3f9")
    await clicked.acked.wait()
    with pytest.raises(LookupError):
        await server.submit(clicked)


async def test_a_bot_cannot_respond_to_a_form_with_a_form(server: discord_server.DiscordServer, bot: Bot) -> None:
    interaction = await open_form(server)
    await bot.next_interaction()
    await wait_for_answer(await server.submit(interaction))
    await bot.next_interaction()
    await server.submit(interaction, user_id=8)
    received = await bot.next_interaction()
    refused = await refusal(lambda: received.response.send_modal(EditModal("other")))
    assert refused.code == 50035


async def test_a_form_beyond_the_limits_is_refused(server: discord_server.DiscordServer, bot: Bot) -> None:
    message = await post_result(server, bot, "edit")
    message.components[0]["components"][0]["custom_id"] = "unknown"
    clicked = await server.click(message, "unknown")
    received = await bot.next_interaction()
    form = EditModal("k3f9")
    form.title = "x" * 46
    assert (await refusal(lambda: received.response.send_modal(form))).code == 50035
    assert clicked.modal is None
    assert not clicked.acked.is_set()


async def test_a_context_menu_command_receives_the_full_message(server: discord_server.DiscordServer, bot: Bot) -> None:
    [menu] = [command for command in server.commands if command["type"] == 3]
    sent = await channel(bot).send("Result", file=png("first.png"), embed=discord.Embed(title="How"))
    used = await server.context_menu("Use this Image", server.messages[sent.id], user_id=9)
    assert used.data["target_id"] == str(sent.id)
    assert used.data["id"] == menu["id"]
    assert (await wait_for_answer(used)).content == f"{discord_server.APPLICATION_ID} Result ['first.png'] 1"
    assert (await bot.next_interaction()).user.id == 9


async def test_a_context_menu_command_sees_a_users_content_but_a_fetch_does_not(
    server: discord_server.DiscordServer, bot: Bot
) -> None:
    posted = server.say("Look", files=[PHOTO], user_id=9)
    used = await server.context_menu("Use this Image", posted)
    assert (await wait_for_answer(used)).content == "9 Look ['photo.png'] 0"
    assert used.data["resolved"]["messages"][str(posted.id)]["attachments"][0]["url"] == PHOTO.url
    fetched = await channel(bot).fetch_message(posted.id)
    assert (fetched.author.id, fetched.content, fetched.attachments) == (9, "", [])
    refused = await refusal(lambda: fetched.edit(content="Mine"))
    assert refused.code == 50005
    refused = await refusal(fetched.delete)
    assert refused.code == 50013


@pytest.mark.parametrize(
    "given",
    [
        [{"name": "Use", "type": 3, "description": "words"}],
        [{"name": "x" * 33, "type": 3}],
        [{"name": "Use", "type": 3}, {"name": "Use", "type": 3}],
        [{"name": "Upper", "description": "words"}],
        [{"name": "empty", "description": ""}],
    ],
)
async def test_invalid_commands_are_refused(
    server: discord_server.DiscordServer, bot: Bot, given: list[dict[str, object]]
) -> None:
    before = server.commands
    route = discord.http.Route("PUT", f"/applications/{discord_server.APPLICATION_ID}/commands")
    refused = await refusal(lambda: bot.http.request(route, json=given))
    assert refused.code == 50035
    assert server.commands == before


async def test_a_slash_command_and_a_context_menu_command_can_share_a_name(
    server: discord_server.DiscordServer, bot: Bot
) -> None:
    route = discord.http.Route("PUT", f"/applications/{discord_server.APPLICATION_ID}/commands")
    both = [{"name": "use", "description": "words"}, {"name": "use", "type": 3}]
    await bot.http.request(route, json=both)
    assert [(command["name"], command["type"]) for command in server.commands] == [("use", 1), ("use", 3)]
    menus = [{"name": str(number), "type": 3} for number in range(16)]
    assert (await refusal(lambda: bot.http.request(route, json=menus))).code == 30032


async def test_a_dynamic_button_can_respond_with_an_ephemeral_message(
    server: discord_server.DiscordServer, bot: Bot
) -> None:
    message = await post_result(server, bot, "again", "edit")
    clicked = await server.click(message, "again:k3f9", user_id=7)
    shown = await wait_for_answer(clicked)
    assert (shown.content, shown.flags & 64, shown.id != message.id) == ("Queued k3f9", 64, True)
    received = await bot.next_interaction()
    assert received.message is not None
    assert [file.filename for file in received.message.attachments] == ["first.png"]
    assert [button["custom_id"] for button in clicked.payload()["message"]["components"][0]["components"]] == [
        "again:k3f9",
        "edit:k3f9",
    ]


async def test_a_button_can_edit_its_ephemeral_message(server: discord_server.DiscordServer, bot: Bot) -> None:
    message = await post_result(server, bot, "again")
    private = await wait_for_answer(await server.click(message, "again:k3f9", user_id=7))
    clicked = await server.click(private, "hide:k3f9", user_id=7)
    await clicked.acked.wait()
    await bot.next_interaction()
    received = await bot.next_interaction()
    assert received.message is not None
    assert received.message.flags.ephemeral
    assert clicked.message is private
    assert (private.content, private.components, message.content) == ("Hidden k3f9", [], "Done")
    with pytest.raises(LookupError):
        await server.click(private, "hide:k3f9")


async def test_a_click_can_be_deferred_with_or_without_a_new_message(
    server: discord_server.DiscordServer, bot: Bot
) -> None:
    message = await post_result(server, bot, "show", "late")
    shown = await server.click(message, "show:k3f9", user_id=7)
    await shown.wait(lambda i: i.message is not None and i.message.content == "Shown k3f9")
    assert shown.message is message
    assert shown.ack is not None
    assert shown.ack["type"] == 6
    done = await wait_for_answer(await server.click(message, "late:k3f9", user_id=8))
    assert (done.content, done.ephemeral) == ("Done k3f9", True)


async def test_a_button_works_after_the_bot_restarts(server: discord_server.DiscordServer) -> None:
    async with running(server, Bot()) as first:
        message = await post_result(server, first, "again")
    async with running(server, Bot()):
        assert (await wait_for_answer(await server.click(message, "again:k3f9"))).content == "Queued k3f9"


async def test_a_disabled_button_cannot_be_clicked(server: discord_server.DiscordServer, bot: Bot) -> None:
    view = discord.ui.View()
    view.add_item(discord.ui.Button(label="Gone", custom_id="gone", disabled=True))
    sent = await channel(bot).send("x", view=view)
    with pytest.raises(LookupError, match="disabled"):
        await server.click(server.messages[sent.id], "gone")


async def test_a_select_accepts_only_its_own_options(server: discord_server.DiscordServer, bot: Bot) -> None:
    view = discord.ui.View()
    options = [discord.SelectOption(label=name) for name in ("one", "two", "three")]
    view.add_item(discord.ui.Select(custom_id="pick:k3f9", options=options, max_values=2))
    sent = await channel(bot).send("Pick", view=view)
    message = server.messages[sent.id]
    await server.select(message, "pick:k3f9", "one", "three", user_id=7)
    received = await bot.next_interaction()
    data = cast("dict[str, Any]", received.data)
    assert (data["custom_id"], data["component_type"], data["values"]) == ("pick:k3f9", 3, ["one", "three"])
    for wrong in ((), ("four",), ("one", "two", "three")):
        with pytest.raises(ValueError, match="pick"):
            await server.select(message, "pick:k3f9", *wrong)


async def test_permissions_can_be_set_for_a_user(server: discord_server.DiscordServer, bot: Bot) -> None:
    server.permissions[7] = discord_server.ORDINARY_PERMISSIONS | discord_server.MANAGE_MESSAGES
    server.permissions[discord_server.APPLICATION_ID] = 0
    message = await post_result(server, bot, "again")
    for user_id, moderator in ((7, True), (8, False)):
        clicked = await server.click(message, "again:k3f9", user_id=user_id)
        received = await bot.next_interaction()
        assert received.permissions.manage_messages is moderator
        assert received.permissions.send_messages
        assert not received.app_permissions.attach_files
        assert isinstance(clicked.payload()["member"]["permissions"], str)


async def test_the_bot_token_cannot_access_an_ephemeral_message(server: discord_server.DiscordServer, bot: Bot) -> None:
    clicked = await server.click(await post_result(server, bot, "again"), "again:k3f9")
    private = await wait_for_answer(clicked)
    received = await bot.next_interaction()
    partial = channel(bot).get_partial_message(private.id)
    for attempt in (
        partial.fetch,
        partial.delete,
        lambda: partial.edit(content="no"),
        lambda: partial.add_reaction("🔁"),
        lambda: partial.remove_reaction("🔁", discord.Object(7)),
        partial.clear_reactions,
    ):
        refused = await refusal(attempt)
        assert (refused.status, refused.code) == (404, 10008)
    assert (await refusal(lambda: channel(bot).send("x", reference=partial))).code == 50035
    with pytest.raises(LookupError):
        await server.react(private, "🔁")
    await received.followup.edit_message(private.id, content="yes")
    assert private.content == "yes"
    server.expire_token(clicked)
    assert (await refusal(received.delete_original_response)).code == 50027
    assert not private.deleted


async def test_components_beyond_the_limits_are_refused(server: discord_server.DiscordServer, bot: Bot) -> None:
    bare = {"content": "x", "components": [{"type": 2, "custom_id": "a", "style": 1, "label": "a"}]}
    route = discord.http.Route("POST", f"/channels/{discord_server.CHANNEL_ID}/messages")
    refused = await refusal(lambda: bot.http.request(route, json=bare))
    assert (refused.status, refused.code) == (400, 50035)
    assert "components.0.type" in refused.text
    assert not server.messages


async def test_a_layout_replaces_the_content(server: discord_server.DiscordServer, bot: Bot) -> None:
    class Card(discord.ui.LayoutView):
        words: discord.ui.TextDisplay[Self] = discord.ui.TextDisplay("Result")
        row: discord.ui.ActionRow[Self] = discord.ui.ActionRow()

        @row.button(label="Again", custom_id="again:k3f9")
        async def again(self, _: discord.Interaction, __: discord.ui.Button[Self]) -> None:
            """The dynamic item responds instead."""

    sent = await channel(bot).send(view=Card())
    assert (await wait_for_answer(await server.click(server.messages[sent.id], "again:k3f9"))).content == "Queued k3f9"
    layout = {"flags": 1 << 15, "content": "x", "components": [{"type": 10, "content": "y"}]}
    route = discord.http.Route("POST", f"/channels/{discord_server.CHANNEL_ID}/messages")
    assert (await refusal(lambda: bot.http.request(route, json=layout))).code == 50035


async def test_a_reply_references_its_message(server: discord_server.DiscordServer, bot: Bot) -> None:
    first = await channel(bot).send("one", file=png("a.png"))
    reply = await channel(bot).send("two", reference=first)
    stored = server.messages[reply.id]
    assert stored.reference == {
        "type": 0,
        "message_id": str(first.id),
        "channel_id": str(discord_server.CHANNEL_ID),
        "guild_id": str(discord_server.GUILD_ID),
    }
    assert stored.replied_to is server.messages[first.id]
    fetched = await channel(bot).fetch_message(reply.id)
    assert fetched.type is discord.MessageType.reply
    assert fetched.reference is not None
    assert isinstance(fetched.reference.resolved, discord.Message)
    assert fetched.reference.resolved.content == "one"
    await server.delete_message(first.id)
    unsure = discord.MessageReference(
        message_id=first.id, channel_id=discord_server.CHANNEL_ID, fail_if_not_exists=False
    )
    third = await channel(bot).send("three", reference=unsure)
    assert server.messages[third.id].reference is None


async def test_direct_messages_work_like_any_other_channel(server: discord_server.DiscordServer, bot: Bot) -> None:
    direct = await (await bot.fetch_user(7)).create_dm()
    sent = await direct.send("Here", file=png("a.png"), view=row("again"))
    reply = await direct.send("And", reference=sent)
    message = server.messages[sent.id]
    assert message.guild_id is None
    assert server.messages[reply.id].reference == {
        "type": 0,
        "message_id": str(sent.id),
        "channel_id": str(direct.id),
    }
    clicked = await server.click(message, "again:k3f9")
    received = await bot.next_interaction()
    assert (received.user.id, received.guild_id) == (7, None)
    assert (await wait_for_answer(clicked)).ephemeral
    await direct.get_partial_message(sent.id).delete()
    assert message.deleted


async def test_injected_faults_apply_to_every_route(server: discord_server.DiscordServer, bot: Bot) -> None:
    message = await post_result(server, bot, "edit")
    partial = channel(bot).get_partial_message(message.id)
    for method, path, attempt in (
        ("PUT", "/channels/*/reactions/*/@me", lambda: partial.add_reaction("🔁")),
        ("DELETE", "/channels/*/reactions", partial.clear_reactions),
        ("GET", "/channels/*/messages/*", partial.fetch),
    ):
        server.fail(method, path, code=50001)
        assert (await refusal(attempt)).code == 50001
    server.fail("POST", "/interactions/*/callback", code=10062)
    clicked = await server.click(message, "edit:k3f9")
    await server.wait(lambda server: server.requests[-1].status == 404)
    assert clicked.modal is None


async def refusal(attempt: Callable[[], Any]) -> discord.HTTPException:
    with pytest.raises(discord.HTTPException) as refused:
        await attempt()
    return refused.value
