"""What people do in the Discord on the wire, and how an unmodified discord.py sees it."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self, cast

import discord
import pytest
from discord import app_commands
from discord.ext import commands

from sandbox import discord_server
from tests.integration.test_discord_server import channel, png, point

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PHOTO = discord_server.Upload("photo.png", 1234, "image/png", url="http://127.0.0.1:9/photo.png")
LOGO = discord_server.Upload("logo.png", 99, "image/png")


class Form(discord.ui.Modal):
    """The edit form, prefilled."""

    def __init__(self, job: str) -> None:
        super().__init__(title="Edit", custom_id=f"edit:{job}", timeout=None)
        models = [discord.SelectOption(label=name, default=name == "pkz_4") for name in ("pkz_3", "pkz_4", "pkz_5")]
        self.prompt = discord.ui.TextInput[Self](custom_id="prompt", default="A cat", max_length=9)
        self.model = discord.ui.Select[Self](custom_id="model", options=models, max_values=2)
        self.image = discord.ui.FileUpload[Self](custom_id="image", required=False, max_values=2)
        self.add_item(discord.ui.Label(text="Prompt", component=self.prompt))
        self.add_item(discord.ui.Label(text="Model", component=self.model))
        self.add_item(discord.ui.Label(text="Picture", component=self.image))
        self.add_item(discord.ui.TextDisplay("One credit"))

    async def on_submit(self, interaction: discord.Interaction) -> None:
        files = [(file.filename, file.url) for file in self.image.values]
        await interaction.response.send_message(f"{self.prompt.value} {self.model.values} {files}", ephemeral=True)


class Again(
    discord.ui.DynamicItem[discord.ui.Button[discord.ui.View]],
    template=re.compile(r"(?P<what>again|edit|hide|show|late):(?P<job>\w+)"),
):
    """Each `what` is answered by another kind of callback."""

    def __init__(self, what: str, job: str) -> None:
        super().__init__(discord.ui.Button(label=what, custom_id=f"{what}:{job}"))
        self.what, self.job = what, job

    @classmethod
    async def from_custom_id(cls, _: discord.Interaction, __: object, match: re.Match[str]) -> Self:
        return cls(match["what"], match["job"])

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        match self.what:
            case "again":
                await interaction.response.send_message(f"Queued {self.job}", view=row("hide"), ephemeral=True)
            case "edit":
                await interaction.response.send_modal(Form(self.job))
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
        view.add_item(Again(name, "k3f9"))
    return view


class Studio(commands.Cog):
    """A command with a form, and a note of every interaction heard."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[discord.Interaction] = asyncio.Queue()

    @commands.Cog.listener()
    async def on_interaction(self, interaction: discord.Interaction) -> None:
        self.heard.put_nowait(interaction)

    @app_commands.command(description="Opens the form")
    async def form(self, interaction: discord.Interaction) -> None:
        await interaction.response.send_modal(Form("k3f9"))


@app_commands.context_menu(name="Use this Picture")
async def use(interaction: discord.Interaction, message: discord.Message) -> None:
    names = [attachment.filename for attachment in message.attachments]
    await interaction.response.send_message(f"{message.author.id} {message.content} {names} {len(message.embeds)}")


class Bot(commands.Bot):
    def __init__(self, intents: discord.Intents | None = None) -> None:
        super().__init__("!", intents=intents or discord.Intents.none(), guild_ready_timeout=0.05)
        self.studio = Studio()

    async def setup_hook(self) -> None:
        await self.add_cog(self.studio)
        self.add_dynamic_items(Again)
        self.tree.add_command(use)
        await self.tree.sync()

    async def heard(self) -> discord.Interaction:
        return await asyncio.wait_for(self.studio.heard.get(), 10)


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[discord_server.DiscordServer]:
    monkeypatch.setattr(discord.VoiceClient, "warn_nacl", False)
    monkeypatch.setattr(discord.VoiceClient, "warn_dave", False)
    async with discord_server.serve() as served:
        point(monkeypatch, served)
        yield served


@asynccontextmanager
async def running(served: discord_server.DiscordServer) -> AsyncIterator[Bot]:
    bot = Bot()
    task = asyncio.create_task(bot.start("any"))
    try:
        await served.ready()
        yield bot
    finally:
        await bot.close()
        await task
        await served.gone()


@pytest.fixture
async def bot(served: discord_server.DiscordServer) -> AsyncIterator[Bot]:
    async with running(served) as bot:
        yield bot


async def posted(served: discord_server.DiscordServer, bot: Bot, *names: str) -> discord_server.Message:
    sent = await channel(bot).send("Done", file=png("first.png"), view=row(*names))
    return served.messages[sent.id]


async def opened(served: discord_server.DiscordServer) -> discord_server.Interaction:
    interaction = await served.slash("form", user_id=7)
    await interaction.acked.wait()
    return interaction


async def answered(interaction: discord_server.Interaction) -> discord_server.Message:
    await interaction.wait(lambda i: i.message is not None and not i.message.loading)
    assert interaction.message is not None
    return interaction.message


def values(heard: discord.Interaction) -> dict[str, object]:
    """Of a submission, by custom id, for a bot that has forgotten the form."""
    data = cast("dict[str, Any]", heard.data)
    fields = [top["component"] for top in data["components"] if "component" in top]
    return {field["custom_id"]: field.get("value", field.get("values")) for field in fields}


async def test_a_form_left_alone_sends_what_was_prefilled(served: discord_server.DiscordServer, bot: Bot) -> None:
    interaction = await opened(served)
    assert interaction.modal is not None
    assert (interaction.modal["custom_id"], interaction.modal["title"]) == ("edit:k3f9", "Edit")
    assert [component["type"] for component in interaction.modal["components"]] == [18, 18, 18, 10]
    sent = await served.submit(interaction)
    message = await answered(sent)
    assert (message.content, message.ephemeral) == ("A cat ['pkz_4'] []", True)
    assert sent.type == 5
    assert sent.origin.user_id == 7
    assert sent.source is None
    assert "message" not in sent.payload()


async def test_a_form_is_filled_in_with_words_choices_and_files(served: discord_server.DiscordServer, bot: Bot) -> None:
    interaction = await opened(served)
    filled = {"prompt": "A dog", "model": ["pkz_3", "pkz_5"]}
    message = await answered(await served.submit(interaction, filled, files=[PHOTO]))
    assert message.content == f"A dog ['pkz_3', 'pkz_5'] [('photo.png', '{PHOTO.url}')]"


async def test_a_file_may_be_given_by_the_name_of_its_field(served: discord_server.DiscordServer, bot: Bot) -> None:
    sent = await served.submit(await opened(served), {"image": [PHOTO, LOGO]})
    assert len(sent.data["resolved"]["attachments"]) == 2
    assert sent.data["components"][2]["component"]["values"] == list(sent.data["resolved"]["attachments"])
    assert "('logo.png', 'https://cdn.discordapp.com/ephemeral-attachments/" in (await answered(sent)).content


async def test_a_form_outlives_the_bot_that_opened_it(served: discord_server.DiscordServer) -> None:
    async with running(served):
        interaction = await opened(served)
    with pytest.raises(discord_server.NotConnected):
        await served.submit(interaction)
    async with running(served) as second:
        sent = await served.submit(interaction, {"prompt": "Later"})
        heard = await second.heard()
        assert heard.type is discord.InteractionType.modal_submit
        assert values(heard) == {"prompt": "Later", "model": ["pkz_4"], "image": []}
        await heard.response.defer()
        await heard.followup.send("Noted", ephemeral=True)
    assert served.identifies == 2
    assert sent.message is None
    assert [(message.content, message.ephemeral) for message in sent.followups] == [("Noted", True)]


async def test_two_people_send_the_same_form(served: discord_server.DiscordServer, bot: Bot) -> None:
    message = await posted(served, bot, "edit")
    clicked = await served.click(message, "edit:k3f9", user_id=7, permissions=8)
    await clicked.acked.wait()
    await bot.heard()
    mine = await served.submit(clicked, {"prompt": "Mine"})
    await answered(mine)
    theirs = await served.submit(clicked, {"prompt": "Theirs"}, user_id=8)
    first, second = await bot.heard(), await bot.heard()
    assert [(heard.user.id, values(heard)["prompt"]) for heard in (first, second)] == [(7, "Mine"), (8, "Theirs")]
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
async def test_nobody_can_send_what_a_form_does_not_take(
    served: discord_server.DiscordServer,
    bot: Bot,
    filled: dict[str, Any],
    files: tuple[discord_server.Upload, ...],
    kind: type[Exception],
) -> None:
    interaction = await opened(served)
    with pytest.raises(kind):
        await served.submit(interaction, filled, files=files)


async def test_without_a_form_there_is_nothing_to_send(served: discord_server.DiscordServer, bot: Bot) -> None:
    clicked = await served.click(await posted(served, bot, "again"), "again:k3f9")
    await clicked.acked.wait()
    with pytest.raises(LookupError):
        await served.submit(clicked)


async def test_a_form_is_not_answered_by_a_form(served: discord_server.DiscordServer, bot: Bot) -> None:
    interaction = await opened(served)
    await bot.heard()
    await answered(await served.submit(interaction))
    await bot.heard()
    await served.submit(interaction, user_id=8)
    heard = await bot.heard()
    refused = await refusal(lambda: heard.response.send_modal(Form("other")))
    assert refused.code == 50035


async def test_a_form_beyond_the_limits_is_refused(served: discord_server.DiscordServer, bot: Bot) -> None:
    message = await posted(served, bot, "edit")
    message.components[0]["components"][0]["custom_id"] = "unheard"
    clicked = await served.click(message, "unheard")
    heard = await bot.heard()
    form = Form("k3f9")
    form.title = "x" * 46
    assert (await refusal(lambda: heard.response.send_modal(form))).code == 50035
    assert clicked.modal is None
    assert not clicked.acked.is_set()


async def test_a_menu_brings_the_message_in_full(served: discord_server.DiscordServer, bot: Bot) -> None:
    [menu] = [command for command in served.commands if command["type"] == 3]
    sent = await channel(bot).send("Result", file=png("first.png"), embed=discord.Embed(title="How"))
    used = await served.context_menu("Use this Picture", served.messages[sent.id], user_id=9)
    assert used.data["target_id"] == str(sent.id)
    assert used.data["id"] == menu["id"]
    assert (await answered(used)).content == f"{discord_server.APPLICATION_ID} Result ['first.png'] 1"
    assert (await bot.heard()).user.id == 9


async def test_a_menu_shows_what_a_person_wrote_and_a_fetch_does_not(
    served: discord_server.DiscordServer, bot: Bot
) -> None:
    said = served.say("Look", files=[PHOTO], user_id=9)
    used = await served.context_menu("Use this Picture", said)
    assert (await answered(used)).content == "9 Look ['photo.png'] 0"
    assert used.data["resolved"]["messages"][str(said.id)]["attachments"][0]["url"] == PHOTO.url
    fetched = await channel(bot).fetch_message(said.id)
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
async def test_commands_beyond_the_rules_are_refused(
    served: discord_server.DiscordServer, bot: Bot, given: list[dict[str, object]]
) -> None:
    before = served.commands
    route = discord.http.Route("PUT", f"/applications/{discord_server.APPLICATION_ID}/commands")
    refused = await refusal(lambda: bot.http.request(route, json=given))
    assert refused.code == 50035
    assert served.commands == before


async def test_a_name_may_be_a_command_and_a_menu(served: discord_server.DiscordServer, bot: Bot) -> None:
    route = discord.http.Route("PUT", f"/applications/{discord_server.APPLICATION_ID}/commands")
    both = [{"name": "use", "description": "words"}, {"name": "use", "type": 3}]
    await bot.http.request(route, json=both)
    assert [(command["name"], command["type"]) for command in served.commands] == [("use", 1), ("use", 3)]
    menus = [{"name": str(number), "type": 3} for number in range(16)]
    assert (await refusal(lambda: bot.http.request(route, json=menus))).code == 30032


async def test_a_button_found_by_its_pattern_answers_in_private(served: discord_server.DiscordServer, bot: Bot) -> None:
    message = await posted(served, bot, "again", "edit")
    clicked = await served.click(message, "again:k3f9", user_id=7)
    shown = await answered(clicked)
    assert (shown.content, shown.flags & 64, shown.id != message.id) == ("Queued k3f9", 64, True)
    heard = await bot.heard()
    assert heard.message is not None
    assert [file.filename for file in heard.message.attachments] == ["first.png"]
    assert [button["custom_id"] for button in clicked.payload()["message"]["components"][0]["components"]] == [
        "again:k3f9",
        "edit:k3f9",
    ]


async def test_a_button_of_a_private_message_changes_it(served: discord_server.DiscordServer, bot: Bot) -> None:
    message = await posted(served, bot, "again")
    private = await answered(await served.click(message, "again:k3f9", user_id=7))
    clicked = await served.click(private, "hide:k3f9", user_id=7)
    await clicked.acked.wait()
    await bot.heard()
    heard = await bot.heard()
    assert heard.message is not None
    assert heard.message.flags.ephemeral
    assert clicked.message is private
    assert (private.content, private.components, message.content) == ("Hidden k3f9", [], "Done")
    with pytest.raises(LookupError):
        await served.click(private, "hide:k3f9")


async def test_a_click_may_be_deferred_both_ways(served: discord_server.DiscordServer, bot: Bot) -> None:
    message = await posted(served, bot, "show", "late")
    shown = await served.click(message, "show:k3f9", user_id=7)
    await shown.wait(lambda i: i.message is not None and i.message.content == "Shown k3f9")
    assert shown.message is message
    assert shown.ack is not None
    assert shown.ack["type"] == 6
    done = await answered(await served.click(message, "late:k3f9", user_id=8))
    assert (done.content, done.ephemeral) == ("Done k3f9", True)


async def test_a_button_outlives_the_bot_that_sent_it(served: discord_server.DiscordServer) -> None:
    async with running(served) as first:
        message = await posted(served, first, "again")
    async with running(served):
        assert (await answered(await served.click(message, "again:k3f9"))).content == "Queued k3f9"


async def test_a_disabled_button_is_not_clicked(served: discord_server.DiscordServer, bot: Bot) -> None:
    view = discord.ui.View()
    view.add_item(discord.ui.Button(label="Gone", custom_id="gone", disabled=True))
    sent = await channel(bot).send("x", view=view)
    with pytest.raises(LookupError, match="disabled"):
        await served.click(served.messages[sent.id], "gone")


async def test_a_select_offers_what_it_offers(served: discord_server.DiscordServer, bot: Bot) -> None:
    view = discord.ui.View()
    options = [discord.SelectOption(label=name) for name in ("one", "two", "three")]
    view.add_item(discord.ui.Select(custom_id="pick:k3f9", options=options, max_values=2))
    sent = await channel(bot).send("Pick", view=view)
    message = served.messages[sent.id]
    await served.select(message, "pick:k3f9", "one", "three", user_id=7)
    heard = await bot.heard()
    data = cast("dict[str, Any]", heard.data)
    assert (data["custom_id"], data["component_type"], data["values"]) == ("pick:k3f9", 3, ["one", "three"])
    for wrong in ((), ("four",), ("one", "two", "three")):
        with pytest.raises(ValueError, match="pick"):
            await served.select(message, "pick:k3f9", *wrong)


async def test_permissions_are_set_for_a_person(served: discord_server.DiscordServer, bot: Bot) -> None:
    served.permissions[7] = discord_server.ORDINARY_PERMISSIONS | discord_server.MANAGE_MESSAGES
    served.permissions[discord_server.APPLICATION_ID] = 0
    message = await posted(served, bot, "again")
    for user_id, moderator in ((7, True), (8, False)):
        clicked = await served.click(message, "again:k3f9", user_id=user_id)
        heard = await bot.heard()
        assert heard.permissions.manage_messages is moderator
        assert heard.permissions.send_messages
        assert not heard.app_permissions.attach_files
        assert isinstance(clicked.payload()["member"]["permissions"], str)


async def test_a_private_message_is_out_of_the_bot_tokens_reach(served: discord_server.DiscordServer, bot: Bot) -> None:
    clicked = await served.click(await posted(served, bot, "again"), "again:k3f9")
    private = await answered(clicked)
    heard = await bot.heard()
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
        await served.react(private, "🔁")
    await heard.followup.edit_message(private.id, content="yes")
    assert private.content == "yes"
    served.expire_token(clicked)
    assert (await refusal(heard.delete_original_response)).code == 50027
    assert not private.deleted


async def test_components_beyond_the_limits_are_refused(served: discord_server.DiscordServer, bot: Bot) -> None:
    bare = {"content": "x", "components": [{"type": 2, "custom_id": "a", "style": 1, "label": "a"}]}
    route = discord.http.Route("POST", f"/channels/{discord_server.CHANNEL_ID}/messages")
    refused = await refusal(lambda: bot.http.request(route, json=bare))
    assert (refused.status, refused.code) == (400, 50035)
    assert "components.0.type" in refused.text
    assert not served.messages


async def test_a_layout_stands_in_place_of_words(served: discord_server.DiscordServer, bot: Bot) -> None:
    class Card(discord.ui.LayoutView):
        words: discord.ui.TextDisplay[Self] = discord.ui.TextDisplay("Result")
        row: discord.ui.ActionRow[Self] = discord.ui.ActionRow()

        @row.button(label="Again", custom_id="again:k3f9")
        async def again(self, _: discord.Interaction, __: discord.ui.Button[Self]) -> None:
            """The button found by its pattern answers."""

    sent = await channel(bot).send(view=Card())
    assert (await answered(await served.click(served.messages[sent.id], "again:k3f9"))).content == "Queued k3f9"
    layout = {"flags": 1 << 15, "content": "x", "components": [{"type": 10, "content": "y"}]}
    route = discord.http.Route("POST", f"/channels/{discord_server.CHANNEL_ID}/messages")
    assert (await refusal(lambda: bot.http.request(route, json=layout))).code == 50035


async def test_a_reply_names_its_message(served: discord_server.DiscordServer, bot: Bot) -> None:
    first = await channel(bot).send("one", file=png("a.png"))
    reply = await channel(bot).send("two", reference=first)
    stored = served.messages[reply.id]
    assert stored.reference == {
        "type": 0,
        "message_id": str(first.id),
        "channel_id": str(discord_server.CHANNEL_ID),
        "guild_id": str(discord_server.GUILD_ID),
    }
    assert stored.replied_to is served.messages[first.id]
    fetched = await channel(bot).fetch_message(reply.id)
    assert fetched.type is discord.MessageType.reply
    assert fetched.reference is not None
    assert isinstance(fetched.reference.resolved, discord.Message)
    assert fetched.reference.resolved.content == "one"
    await served.delete_message(first.id)
    unsure = discord.MessageReference(
        message_id=first.id, channel_id=discord_server.CHANNEL_ID, fail_if_not_exists=False
    )
    third = await channel(bot).send("three", reference=unsure)
    assert served.messages[third.id].reference is None


async def test_direct_messages_are_a_channel_like_any_other(served: discord_server.DiscordServer, bot: Bot) -> None:
    direct = await (await bot.fetch_user(7)).create_dm()
    sent = await direct.send("Here", file=png("a.png"), view=row("again"))
    reply = await direct.send("And", reference=sent)
    message = served.messages[sent.id]
    assert message.guild_id is None
    assert served.messages[reply.id].reference == {
        "type": 0,
        "message_id": str(sent.id),
        "channel_id": str(direct.id),
    }
    clicked = await served.click(message, "again:k3f9")
    heard = await bot.heard()
    assert (heard.user.id, heard.guild_id) == (7, None)
    assert (await answered(clicked)).ephemeral
    await direct.get_partial_message(sent.id).delete()
    assert message.deleted


async def test_ordered_failures_reach_the_new_routes(served: discord_server.DiscordServer, bot: Bot) -> None:
    message = await posted(served, bot, "edit")
    partial = channel(bot).get_partial_message(message.id)
    for method, path, attempt in (
        ("PUT", "/channels/*/reactions/*/@me", lambda: partial.add_reaction("🔁")),
        ("DELETE", "/channels/*/reactions", partial.clear_reactions),
        ("GET", "/channels/*/messages/*", partial.fetch),
    ):
        served.fail(method, path, code=50001)
        assert (await refusal(attempt)).code == 50001
    served.fail("POST", "/interactions/*/callback", code=10062)
    clicked = await served.click(message, "edit:k3f9")
    await served.wait(lambda server: server.requests[-1].status == 404)
    assert clicked.modal is None


async def refusal(attempt: Callable[[], Any]) -> discord.HTTPException:
    with pytest.raises(discord.HTTPException) as refused:
        await attempt()
    return refused.value
