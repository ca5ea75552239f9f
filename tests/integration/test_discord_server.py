"""The Discord on the wire, driven by an unmodified discord.py."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import signal
import struct
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import discord
import pytest
from aiohttp import ClientOSError, ClientSession, FormData, ServerDisconnectedError
from discord import app_commands
from discord.ext import commands
from yarl import URL

from sandbox import discord_server
from sandbox.discord_server.files import pixels

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 640, 360, 8, 2, 0, 0, 0) + bytes(300_000)
PHOTO = discord_server.Upload("photo.png", 1234, "image/png")
REPOSITORY = Path(__file__).parents[2]


class Again(discord.ui.View):
    def __init__(self) -> None:
        super().__init__(timeout=None)
        self.add_item(discord.ui.Button(label="Again", custom_id="again"))


class Painter(commands.Bot):
    """The least bot that does what the real one does."""

    def __init__(self, **options: Any) -> None:
        super().__init__("!", intents=discord.Intents.none(), guild_ready_timeout=0.05, **options)
        self.interactions: asyncio.Queue[discord.Interaction] = asyncio.Queue()
        self.reactions: asyncio.Queue[discord.RawReactionActionEvent] = asyncio.Queue()
        self.errors: asyncio.Queue[BaseException] = asyncio.Queue()

    async def setup_hook(self) -> None:
        self.tree.add_command(thumbnail)
        self.tree.add_command(admin)
        self.tree.error(self.on_refusal)
        await self.tree.sync()

    async def on_interaction(self, interaction: discord.Interaction) -> None:
        self.interactions.put_nowait(interaction)

    async def on_raw_reaction_add(self, event: discord.RawReactionActionEvent) -> None:
        self.reactions.put_nowait(event)

    async def on_refusal(self, _: discord.Interaction, error: app_commands.AppCommandError) -> None:
        self.errors.put_nowait(error.__cause__ or error)


@app_commands.command(description="Paints")
async def thumbnail(interaction: discord.Interaction, image: discord.Attachment, model: str = "pkz_4") -> None:
    answer = await interaction.response.send_message(f"Queued {image.filename} {model}", view=Again())
    assert answer.message_id is not None
    await interaction.edit_original_response(content="Done", attachments=[png("first.png")])


@thumbnail.autocomplete("model")
async def models(_: discord.Interaction, typed: str) -> list[app_commands.Choice[str]]:
    return [app_commands.Choice(name=typed.upper(), value=typed)]


admin = app_commands.Group(name="admin", description="For admins")


@admin.command(description="Grants")
async def grant(interaction: discord.Interaction, member: discord.User, amount: int) -> None:
    await interaction.response.defer(ephemeral=True)
    await interaction.followup.send(f"{member.id} {amount}")


def png(name: str) -> discord.File:
    return discord.File(io.BytesIO(PNG), name, description="alt text")


@pytest.fixture(autouse=True)
def quiet_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discord.VoiceClient, "warn_nacl", False)
    monkeypatch.setattr(discord.VoiceClient, "warn_dave", False)


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[discord_server.DiscordServer]:
    async with discord_server.serve(keep_files=True) as served:
        point(monkeypatch, served)
        yield served


@pytest.fixture
async def bot(served: discord_server.DiscordServer) -> AsyncIterator[Painter]:
    async with running(Painter()) as bot:
        await served.ready()
        yield bot


def point(monkeypatch: pytest.MonkeyPatch, served: discord_server.DiscordServer) -> None:
    monkeypatch.setattr(discord.http.Route, "BASE", served.rest_url)
    monkeypatch.setattr(discord.gateway.DiscordWebSocket, "DEFAULT_GATEWAY", URL(served.gateway_url))


@asynccontextmanager
async def running(bot: Painter, *, word: str = "any") -> AsyncIterator[Painter]:
    task = asyncio.create_task(bot.start(word))
    try:
        yield bot
    finally:
        await bot.close()
        await task


def channel(bot: commands.Bot, channel_id: int = discord_server.CHANNEL_ID) -> discord.PartialMessageable:
    return bot.get_partial_messageable(channel_id, guild_id=discord_server.GUILD_ID)


async def painted(served: discord_server.DiscordServer) -> discord_server.Interaction:
    interaction = await served.slash("thumbnail", options={"image": PHOTO})
    await interaction.wait(lambda i: i.message is not None and i.message.content == "Done")
    return interaction


async def test_a_command_is_answered_and_its_answer_edited_with_a_file(
    served: discord_server.DiscordServer, bot: Painter
) -> None:
    interaction = await painted(served)
    seen = await bot.interactions.get()
    message = interaction.message
    assert message is not None
    assert interaction.ack is not None
    assert interaction.ack_seconds is not None
    assert seen.id == interaction.id
    assert interaction.acked.is_set()
    assert interaction.ack["type"] == 4
    assert 0 < interaction.ack_seconds < 3
    assert [(edit.content, edit.filenames) for edit in message.history] == [
        ("Queued photo.png pkz_4", ()),
        ("Done", ("first.png",)),
    ]
    [attachment] = message.attachments
    assert attachment.data == PNG
    assert attachment.sha256 == hashlib.sha256(PNG).hexdigest()
    assert (attachment.size, attachment.content_type) == (len(PNG), "image/png")
    assert (attachment.width, attachment.height, attachment.description) == (640, 360, "alt text")
    assert served.requests[-1] == ("PATCH", f"/webhooks/{bot.application_id}/{seen.token}/messages/@original", 200)


async def test_the_interaction_says_who_where_and_what(served: discord_server.DiscordServer, bot: Painter) -> None:
    await served.slash("thumbnail", options={"image": PHOTO}, user_id=77, roles=(5,), locale="de", permissions=32)
    seen = await bot.interactions.get()
    assert (seen.user.id, seen.guild_id, seen.channel_id) == (77, discord_server.GUILD_ID, discord_server.CHANNEL_ID)
    assert seen.permissions.manage_guild
    assert not seen.permissions.send_messages
    assert seen.app_permissions.attach_files
    assert seen.filesize_limit == 10 * 1024 * 1024
    assert seen.locale is discord.Locale.german
    image = seen.namespace.image
    assert image.url.startswith("https://cdn.discordapp.com/ephemeral-attachments/")
    assert {"ex", "is", "hm"} <= set(URL(image.url).query)
    assert (image.filename, image.width, image.height, image.ephemeral) == ("photo.png", 1280, 720, True)


async def test_a_command_in_direct_messages_has_no_guild(served: discord_server.DiscordServer, bot: Painter) -> None:
    interaction = await served.slash("thumbnail", options={"image": PHOTO}, guild_id=None, user_id=78)
    seen = await bot.interactions.get()
    assert seen.guild_id is None
    assert seen.context.dm_channel
    assert seen.user.id == 78
    direct = await (await bot.fetch_user(78)).create_dm()
    assert direct.id == seen.channel_id == interaction.origin.channel_id


async def test_a_subcommand_resolves_its_user_and_a_first_followup_fills_the_deferred_answer(
    served: discord_server.DiscordServer, bot: Painter
) -> None:
    interaction = await served.slash("admin grant", options={"member": 4711, "amount": 3})
    await interaction.wait(lambda i: i.message is not None and not i.message.loading)
    assert interaction.ack == {"type": 5, "data": {"flags": 64}}
    assert interaction.message is not None
    assert interaction.message.ephemeral
    assert interaction.message.content == "4711 3"
    assert not interaction.followups


async def test_commands_are_registered_once_and_keep_their_ids(
    served: discord_server.DiscordServer, bot: Painter
) -> None:
    first = {command["name"]: command["id"] for command in await served.commands_synced()}
    again = {command.name: str(command.id) for command in await bot.tree.sync()}
    fetched = {command.name: str(command.id) for command in await bot.tree.fetch_commands()}
    assert first == again == fetched
    assert first.keys() == {"thumbnail", "admin"}


async def test_autocomplete_brings_choices(served: discord_server.DiscordServer, bot: Painter) -> None:
    asked = await served.autocomplete("thumbnail", "model", options={"model": "pkz"})
    await asked.acked.wait()
    assert asked.ack is not None
    assert asked.ack["data"]["choices"] == [{"name": "PKZ", "value": "pkz"}]


async def test_a_click_carries_its_message_and_may_update_it(
    served: discord_server.DiscordServer, bot: Painter
) -> None:
    message = (await painted(served)).message
    assert message is not None
    await bot.interactions.get()
    clicked = await served.click(message, "again", user_id=79)
    seen = await bot.interactions.get()
    assert seen.message is not None
    assert seen.message.id == message.id
    assert seen.user.id == 79
    assert seen.message.attachments[0].filename == "first.png"
    await seen.response.edit_message(content="Clicked", view=None)
    assert clicked.message is message
    assert message.content == "Clicked"
    assert message.components == []
    with pytest.raises(LookupError):
        await served.click(message, "again")


async def test_an_edit_by_bot_token_keeps_what_it_lists(served: discord_server.DiscordServer, bot: Painter) -> None:
    message = (await painted(served)).message
    assert message is not None
    fetched = await channel(bot).fetch_message(message.id)
    assert fetched.interaction_metadata is not None
    assert fetched.interaction_metadata.user.id == discord_server.USER_ID
    await fetched.edit(attachments=[*fetched.attachments, png("second.png")])
    assert message.filenames == ("first.png", "second.png")
    await channel(bot).get_partial_message(message.id).edit(attachments=[png("third.png")])
    assert [attachment.filename for attachment in message.attachments] == ["third.png"]
    await channel(bot).get_partial_message(message.id).edit(content="Kept")
    assert [*message.filenames, message.content] == ["third.png", "Kept"]


async def test_string_ids_name_new_files_too(served: discord_server.DiscordServer, bot: Painter) -> None:
    form = FormData(quote_fields=False)
    listed = [{"id": "0", "filename": "named.webp", "description": "told"}]
    form.add_field("payload_json", json.dumps({"attachments": listed}))
    form.add_field("files[0]", PNG, filename="raw.png", content_type="application/octet-stream")
    url = f"{served.rest_url}/channels/{discord_server.CHANNEL_ID}/messages"
    async with ClientSession() as session, session.post(url, data=form, headers={"Authorization": "Bot t"}) as answer:
        assert answer.headers["Content-Type"] == "application/json"
        [shown] = (await answer.json())["attachments"]
    assert (shown["filename"], shown["content_type"], shown["description"]) == ("named.webp", "image/webp", "told")


async def test_an_expired_token_is_refused_and_the_bot_token_still_works(
    served: discord_server.DiscordServer, bot: Painter
) -> None:
    interaction = await painted(served)
    seen = await bot.interactions.get()
    served.expire_token(interaction)
    with pytest.raises(discord.HTTPException) as refused:
        await seen.edit_original_response(content="late")
    assert (refused.value.status, refused.value.code) == (401, 50027)
    assert interaction.message is not None
    await channel(bot).get_partial_message(interaction.message.id).edit(content="by bot token")
    assert interaction.message.content == "by bot token"


async def test_an_answer_after_the_deadline_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with discord_server.serve(ack_deadline=0.0) as served:
        point(monkeypatch, served)
        async with running(Painter()) as bot:
            await served.ready()
            interaction = await served.slash("thumbnail", options={"image": PHOTO})
            refused = await bot.errors.get()
    assert isinstance(refused, discord.NotFound)
    assert refused.code == 10062
    assert not interaction.acked.is_set()
    assert interaction.message is None


async def test_a_second_answer_is_refused(served: discord_server.DiscordServer, bot: Painter) -> None:
    served.fail("POST", "/interactions/*/callback", status=504, after=True)
    interaction = await served.slash("thumbnail", options={"image": PHOTO})
    refused = await asyncio.wait_for(bot.errors.get(), 10)
    assert isinstance(refused, discord.HTTPException)
    assert refused.code == 40060
    assert interaction.acked.is_set()
    assert [seen.status for seen in served.requests if seen.path.endswith("/callback")] == [504, 400]


async def test_the_same_nonce_brings_back_the_same_message(served: discord_server.DiscordServer, bot: Painter) -> None:
    first = await channel(bot).send("one", nonce="job-k3f9", file=png("a.png"))
    second = await channel(bot).send("two", nonce="job-k3f9", file=png("b.png"))
    other = await channel(bot).send("three", nonce="job-other")
    assert first.id == second.id != other.id
    assert [message.id async for message in channel(bot).history(limit=5)] == [other.id, first.id]
    assert served.messages[first.id].content == "one"


async def test_a_reply_needs_its_message(served: discord_server.DiscordServer, bot: Painter) -> None:
    first = await channel(bot).send("one")
    reply = await channel(bot).send("two", reference=first)
    assert reply.reference is not None
    assert reply.reference.message_id == first.id
    served.delete_message(first.id)
    with pytest.raises(discord.HTTPException) as refused:
        await channel(bot).send("three", reference=first)
    assert refused.value.code == 50035
    with pytest.raises(discord.NotFound):
        await channel(bot).fetch_message(first.id)
    assert served.messages[first.id].deleted


async def test_followups_are_messages_of_their_own(served: discord_server.DiscordServer, bot: Painter) -> None:
    interaction = await painted(served)
    seen = await bot.interactions.get()
    sent = await seen.followup.send("private", ephemeral=True, wait=True, file=png("c.png"))
    [followup] = interaction.followups
    assert followup.id == sent.id
    assert followup.ephemeral
    assert followup.filenames == ("c.png",)
    await sent.edit(content="changed")
    assert followup.content == "changed"
    with pytest.raises(discord.NotFound):
        await channel(bot).fetch_message(followup.id)
    await sent.delete()
    assert followup.deleted


@pytest.mark.parametrize("after", [False, True])
async def test_a_reset_is_a_reset(served: discord_server.DiscordServer, bot: Painter, *, after: bool) -> None:
    served.fail("POST", "/channels/*/messages", reset=True, after=after)
    with pytest.raises((ClientOSError, ServerDisconnectedError)):
        await channel(bot).send("lost", file=png("lost.png"))
    assert served.requests[-1].status == 0
    assert len(served.messages) == after


async def test_an_upload_broken_off_has_no_effect(
    served: discord_server.DiscordServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = URL(served.rest_url)
    _, writer = await asyncio.open_connection(url.host, url.port)
    head = (
        f"POST {url.path}/channels/1/messages HTTP/1.1",
        "Host: 127.0.0.1",
        "Authorization: Bot token",
        "Content-Type: multipart/form-data; boundary=cut",
        "Content-Length: 1000000",
    )
    part = '\r\n\r\n--cut\r\nContent-Disposition: form-data; name="files[0]"; filename="a.png"\r\n\r\n'
    writer.write("\r\n".join(head).encode() + part.encode() + PNG)
    await writer.drain()
    writer.transport.abort()
    await served.wait(lambda server: bool(server.requests))
    assert served.requests[-1].status == 0
    assert not served.messages
    assert not caplog.records


async def test_an_ordered_failure_comes_as_often_as_ordered(served: discord_server.DiscordServer, bot: Painter) -> None:
    served.fail("POST", "/channels/*/messages", status=429, times=2, retry_after=0.01)
    await channel(bot).send("in the end")
    served.fail("PATCH", "/channels/*", code=50001)
    with pytest.raises(discord.Forbidden):
        await channel(bot).get_partial_message(next(iter(served.messages))).edit(content="no")
    assert [seen.status for seen in served.requests][-4:] == [429, 429, 200, 403]


async def test_a_500_is_retried_by_the_library(served: discord_server.DiscordServer, bot: Painter) -> None:
    served.fail("PATCH", "/webhooks/*/messages/@original", status=500)
    interaction = await painted(served)
    assert interaction.message is not None
    assert len(interaction.message.history) == 2
    assert [seen.status for seen in served.requests if seen.method == "PATCH"] == [500, 200]


async def test_an_oversize_file_and_an_empty_message_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with discord_server.serve(file_limit=1000) as served:
        point(monkeypatch, served)
        async with running(Painter()) as bot:
            await served.ready()
            for content, file, code in (("x", png("big.png"), 40005), ("", discord.utils.MISSING, 50006)):
                with pytest.raises(discord.HTTPException) as refused:
                    await channel(bot).send(content, file=file)
                assert refused.value.code == code
            assert not served.messages


async def test_reactions_are_counted_and_told(served: discord_server.DiscordServer) -> None:
    bot = Painter()
    bot._connection._intents = discord.Intents(guild_reactions=True)
    async with running(bot):
        await served.ready()
        sent = await channel(bot).send("react")
        await sent.add_reaction("🔁")
        own = await bot.reactions.get()
        assert bot.user is not None
        assert own.user_id == bot.user.id
        await served.react(served.messages[sent.id], "🔁", user_id=80)
        theirs = await bot.reactions.get()
        assert (theirs.user_id, theirs.message_author_id, str(theirs.emoji)) == (80, bot.user.id, "🔁")
        served.permissions[discord_server.APPLICATION_ID] = (
            discord_server.ORDINARY_PERMISSIONS | discord_server.MANAGE_MESSAGES
        )
        await sent.remove_reaction("🔁", discord.Object(80))
        assert served.messages[sent.id].reactions == {"🔁": {bot.user.id}}


async def test_a_dropped_gateway_is_resumed(served: discord_server.DiscordServer, bot: Painter) -> None:
    await served.drop_gateway()
    with pytest.raises(discord_server.NotConnected):
        await served.slash("thumbnail", options={"image": PHOTO})
    await served.ready()
    assert (served.identifies, served.resumes) == (1, 1)
    await painted(served)


async def test_guilds_are_told_only_to_those_who_ask(served: discord_server.DiscordServer) -> None:
    bot = Painter()
    bot._connection._intents = discord.Intents(guilds=True)
    async with running(bot):
        await served.ready()
        await bot.wait_until_ready()
        guild = bot.get_guild(discord_server.GUILD_ID)
        assert guild is not None
        assert guild.get_channel(discord_server.CHANNEL_ID) is not None


async def test_a_wrong_token_does_not_log_in(monkeypatch: pytest.MonkeyPatch) -> None:
    async with discord_server.serve(token="right") as served:
        point(monkeypatch, served)
        bot = Painter()
        with pytest.raises(discord.LoginFailure):
            await bot.start("wrong")
        await bot.close()
        async with running(Painter(), word="right"):
            await served.ready()


async def test_waiting_in_vain_says_what_it_saw(served: discord_server.DiscordServer) -> None:
    with pytest.raises(TimeoutError, match="connected=False"):
        await served.ready(0.01)


def _jpeg() -> bytes:
    return b"\xff\xd8\xff\xe0\x00\x04\x00\x00\xff\xc0\x00\x11\x08\x00\x09\x00\x10\x03"


def _webps() -> Iterator[bytes]:
    yield b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + (15).to_bytes(3, "little") + (8).to_bytes(3, "little")
    yield b"RIFF\0\0\0\0WEBPVP8L" + bytes(4) + b"\x2f" + (15 | 8 << 14).to_bytes(4, "little")
    yield b"RIFF\0\0\0\0WEBPVP8 " + bytes(10) + struct.pack("<HH", 16, 9)


@pytest.mark.parametrize("head", [_jpeg(), *_webps()])
def test_the_size_in_pixels_is_read_from_the_head(head: bytes) -> None:
    assert pixels(head) == (16, 9)
    assert pixels(head[:10]) is None


LAUNCHED = """
import asyncio, sys, discord

class Lone(discord.Client):
    async def on_ready(self):
        if "stay" not in sys.argv:
            await self.close()

def main(argv):
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False
    bot = Lone(intents=discord.Intents.none(), guild_ready_timeout=0.05)
    asyncio.run(bot.start("token"))
    return 7 if argv[0] == "run" else 1
"""


@asynccontextmanager
async def launched(
    served: discord_server.DiscordServer, folder: Path, *argv: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    (folder / "bot").mkdir()
    (folder / "bot" / "__init__.py").touch()
    (folder / "bot" / "__main__.py").write_text(LAUNCHED)
    environment = os.environ | served.environment() | {"PYTHONPATH": str(REPOSITORY)}
    command = (sys.executable, "-m", "sandbox.discord_server", *argv)
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=environment)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_the_launcher_points_a_process_at_the_wire(served: discord_server.DiscordServer, tmp_path: Path) -> None:
    async with launched(served, tmp_path, "run") as process:
        assert await process.wait() == 7
    assert served.identifies == 1


async def test_a_killed_process_is_gone(served: discord_server.DiscordServer, tmp_path: Path) -> None:
    async with launched(served, tmp_path, "run", "stay") as process:
        await served.ready()
        process.send_signal(signal.SIGKILL)
        await served.gone()
    with pytest.raises(discord_server.NotConnected):
        await served.slash("thumbnail")
