"""The simulated Discord, driven by an unmodified discord.py."""

from __future__ import annotations

import asyncio
import hashlib
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
from sandbox.discord_server.files import image_size
from tests.support.discord_clients import PNG, channel, png, running, simulated_discord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

PHOTO = discord_server.Upload("photo.png", 1234, "image/png")
REPOSITORY = Path(__file__).parents[2]


class AgainView(discord.ui.View):
    def __init__(self) -> None:
        super().__init__(timeout=None)
        self.add_item(discord.ui.Button(label="Again", custom_id="again"))


class ThumbnailBot(commands.Bot):
    """A minimal bot with the same interactions as the real one."""

    def __init__(self, **options: Any) -> None:
        super().__init__("!", intents=discord.Intents.none(), guild_ready_timeout=0.05, **options)
        self.interactions: asyncio.Queue[discord.Interaction] = asyncio.Queue()
        self.reactions: asyncio.Queue[discord.RawReactionActionEvent] = asyncio.Queue()
        self.errors: asyncio.Queue[BaseException] = asyncio.Queue()

    async def setup_hook(self) -> None:
        self.tree.add_command(thumbnail)
        self.tree.add_command(admin)
        self.tree.error(self.record_error)
        await self.tree.sync()

    async def on_interaction(self, interaction: discord.Interaction) -> None:
        self.interactions.put_nowait(interaction)

    async def on_raw_reaction_add(self, event: discord.RawReactionActionEvent) -> None:
        self.reactions.put_nowait(event)

    async def record_error(self, _: discord.Interaction, error: app_commands.AppCommandError) -> None:
        self.errors.put_nowait(error.__cause__ or error)


@app_commands.command(description="Makes a thumbnail")
async def thumbnail(interaction: discord.Interaction, image: discord.Attachment, model: str = "pkz_4") -> None:
    answer = await interaction.response.send_message(f"Queued {image.filename} {model}", view=AgainView())
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


@pytest.fixture
async def bot(server: discord_server.DiscordServer) -> AsyncIterator[ThumbnailBot]:
    async with running(server, ThumbnailBot()) as bot:
        yield bot


async def run_thumbnail(server: discord_server.DiscordServer) -> discord_server.Interaction:
    interaction = await server.slash("thumbnail", options={"image": PHOTO})
    await interaction.wait(lambda i: i.message is not None and i.message.content == "Done")
    return interaction


async def test_a_bot_can_respond_to_a_command_and_edit_the_response_with_a_file(
    server: discord_server.DiscordServer, bot: ThumbnailBot
) -> None:
    interaction = await run_thumbnail(server)
    received = await bot.interactions.get()
    message = interaction.message
    assert message is not None
    assert interaction.ack is not None
    assert interaction.ack_seconds is not None
    assert received.id == interaction.id
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
    assert server.requests[-1] == ("PATCH", f"/webhooks/{bot.application_id}/{received.token}/messages/@original", 200)


async def test_an_interaction_has_its_user_channel_and_options(
    server: discord_server.DiscordServer, bot: ThumbnailBot
) -> None:
    await server.slash("thumbnail", options={"image": PHOTO}, user_id=77, roles=(5,), locale="de", permissions=32)
    received = await bot.interactions.get()
    assert (received.user.id, received.guild_id, received.channel_id) == (
        77,
        discord_server.GUILD_ID,
        discord_server.CHANNEL_ID,
    )
    assert received.permissions.manage_guild
    assert not received.permissions.send_messages
    assert received.app_permissions.attach_files
    assert received.filesize_limit == 10 * 1024 * 1024
    assert received.locale is discord.Locale.german
    image = received.namespace.image
    assert image.url.startswith("https://cdn.discordapp.com/ephemeral-attachments/")
    assert {"ex", "is", "hm"} <= set(URL(image.url).query)
    assert (image.filename, image.width, image.height, image.ephemeral) == ("photo.png", 1280, 720, True)


async def test_a_command_in_direct_messages_has_no_guild(
    server: discord_server.DiscordServer, bot: ThumbnailBot
) -> None:
    interaction = await server.slash("thumbnail", options={"image": PHOTO}, guild_id=None, user_id=78)
    received = await bot.interactions.get()
    assert received.guild_id is None
    assert received.context.dm_channel
    assert received.user.id == 78
    direct = await (await bot.fetch_user(78)).create_dm()
    assert direct.id == received.channel_id == interaction.origin.channel_id


async def test_a_subcommand_resolves_its_user_and_the_first_followup_replaces_the_deferred_response(
    server: discord_server.DiscordServer, bot: ThumbnailBot
) -> None:
    interaction = await server.slash("admin grant", options={"member": 4711, "amount": 3})
    await interaction.wait(lambda i: i.message is not None and not i.message.loading)
    assert interaction.ack == {"type": 5, "data": {"flags": 64}}
    assert interaction.message is not None
    assert interaction.message.ephemeral
    assert interaction.message.content == "4711 3"
    assert not interaction.followups


async def test_commands_are_registered_once_and_keep_their_ids(
    server: discord_server.DiscordServer, bot: ThumbnailBot
) -> None:
    first = {command["name"]: command["id"] for command in await server.commands_synced()}
    again = {command.name: str(command.id) for command in await bot.tree.sync()}
    fetched = {command.name: str(command.id) for command in await bot.tree.fetch_commands()}
    assert first == again == fetched
    assert first.keys() == {"thumbnail", "admin"}


async def test_autocomplete_returns_choices(server: discord_server.DiscordServer, bot: ThumbnailBot) -> None:
    asked = await server.autocomplete("thumbnail", "model", options={"model": "pkz"})
    await asked.acked.wait()
    assert asked.ack is not None
    assert asked.ack["data"]["choices"] == [{"name": "PKZ", "value": "pkz"}]


async def test_a_click_includes_its_message_and_can_update_it(
    server: discord_server.DiscordServer, bot: ThumbnailBot
) -> None:
    message = (await run_thumbnail(server)).message
    assert message is not None
    await bot.interactions.get()
    clicked = await server.click(message, "again", user_id=79)
    received = await bot.interactions.get()
    assert received.message is not None
    assert received.message.id == message.id
    assert received.user.id == 79
    assert received.message.attachments[0].filename == "first.png"
    await received.response.edit_message(content="Clicked", view=None)
    assert clicked.message is message
    assert message.content == "Clicked"
    assert message.components == []
    with pytest.raises(LookupError):
        await server.click(message, "again")


async def test_an_edit_with_the_bot_token_keeps_the_listed_attachments(
    server: discord_server.DiscordServer, bot: ThumbnailBot
) -> None:
    message = (await run_thumbnail(server)).message
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


async def test_new_files_can_have_string_ids(server: discord_server.DiscordServer, bot: ThumbnailBot) -> None:
    form = FormData(quote_fields=False)
    listed = [{"id": "0", "filename": "named.webp", "description": "told"}]
    form.add_field("payload_json", json.dumps({"attachments": listed}))
    form.add_field("files[0]", PNG, filename="raw.png", content_type="application/octet-stream")
    url = f"{server.rest_url}/channels/{discord_server.CHANNEL_ID}/messages"
    async with ClientSession() as session, session.post(url, data=form, headers={"Authorization": "Bot t"}) as answer:
        assert answer.headers["Content-Type"] == "application/json"
        [shown] = (await answer.json())["attachments"]
    assert (shown["filename"], shown["content_type"], shown["description"]) == ("named.webp", "image/webp", "told")


async def test_an_expired_token_is_refused_and_the_bot_token_still_works(
    server: discord_server.DiscordServer, bot: ThumbnailBot
) -> None:
    interaction = await run_thumbnail(server)
    received = await bot.interactions.get()
    server.expire_token(interaction)
    with pytest.raises(discord.HTTPException) as refused:
        await received.edit_original_response(content="late")
    assert (refused.value.status, refused.value.code) == (401, 50027)
    assert interaction.message is not None
    await channel(bot).get_partial_message(interaction.message.id).edit(content="by bot token")
    assert interaction.message.content == "by bot token"


async def test_a_response_after_the_deadline_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with simulated_discord(monkeypatch, ack_deadline=0.0) as server, running(server, ThumbnailBot()) as bot:
        interaction = await server.slash("thumbnail", options={"image": PHOTO})
        refused = await bot.errors.get()
    assert isinstance(refused, discord.NotFound)
    assert refused.code == 10062
    assert not interaction.acked.is_set()
    assert interaction.message is None


async def test_a_second_response_is_refused(server: discord_server.DiscordServer, bot: ThumbnailBot) -> None:
    server.fail("POST", "/interactions/*/callback", status=504, after=True)
    interaction = await server.slash("thumbnail", options={"image": PHOTO})
    refused = await asyncio.wait_for(bot.errors.get(), 10)
    assert isinstance(refused, discord.HTTPException)
    assert refused.code == 40060
    assert interaction.acked.is_set()
    assert [request.status for request in server.requests if request.path.endswith("/callback")] == [504, 400]


async def test_the_same_nonce_returns_the_same_message(server: discord_server.DiscordServer, bot: ThumbnailBot) -> None:
    first = await channel(bot).send("one", nonce="job-k3f9", file=png("a.png"))
    second = await channel(bot).send("two", nonce="job-k3f9", file=png("b.png"))
    other = await channel(bot).send("three", nonce="job-other")
    assert first.id == second.id != other.id
    assert [message.id async for message in channel(bot).history(limit=5)] == [other.id, first.id]
    assert server.messages[first.id].content == "one"


async def test_a_reply_to_a_deleted_message_is_refused(server: discord_server.DiscordServer, bot: ThumbnailBot) -> None:
    first = await channel(bot).send("one")
    reply = await channel(bot).send("two", reference=first)
    assert reply.reference is not None
    assert reply.reference.message_id == first.id
    server.delete_message(first.id)
    with pytest.raises(discord.HTTPException) as refused:
        await channel(bot).send("three", reference=first)
    assert refused.value.code == 50035
    with pytest.raises(discord.NotFound):
        await channel(bot).fetch_message(first.id)
    assert server.messages[first.id].deleted


async def test_followups_are_separate_messages(server: discord_server.DiscordServer, bot: ThumbnailBot) -> None:
    interaction = await run_thumbnail(server)
    received = await bot.interactions.get()
    sent = await received.followup.send("private", ephemeral=True, wait=True, file=png("c.png"))
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
async def test_an_injected_reset_resets_the_connection(
    server: discord_server.DiscordServer, bot: ThumbnailBot, *, after: bool
) -> None:
    server.fail("POST", "/channels/*/messages", reset=True, after=after)
    with pytest.raises((ClientOSError, ServerDisconnectedError)):
        await channel(bot).send("lost", file=png("lost.png"))
    assert server.requests[-1].status == 0
    assert len(server.messages) == after


async def test_an_injected_hang_never_answers(server: discord_server.DiscordServer, bot: ThumbnailBot) -> None:
    server.fail("POST", "/channels/*/messages", hang=True)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(channel(bot).send("lost"), 0.2)
    assert len(server.messages) == 0
    await channel(bot).send("found")
    assert [message.content for message in server.messages.values()] == ["found"]


async def test_an_interrupted_upload_has_no_effect(
    server: discord_server.DiscordServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = URL(server.rest_url)
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
    await server.wait(lambda server: bool(server.requests))
    assert server.requests[-1].status == 0
    assert not server.messages
    assert not caplog.records


async def test_an_injected_error_occurs_as_often_as_requested(
    server: discord_server.DiscordServer, bot: ThumbnailBot
) -> None:
    server.fail("POST", "/channels/*/messages", status=429, times=2, retry_after=0.01)
    await channel(bot).send("in the end")
    server.fail("PATCH", "/channels/*", code=50001)
    with pytest.raises(discord.Forbidden):
        await channel(bot).get_partial_message(next(iter(server.messages))).edit(content="no")
    assert [request.status for request in server.requests][-4:] == [429, 429, 200, 403]


async def test_discord_py_retries_after_a_500(server: discord_server.DiscordServer, bot: ThumbnailBot) -> None:
    server.fail("PATCH", "/webhooks/*/messages/@original", status=500)
    interaction = await run_thumbnail(server)
    assert interaction.message is not None
    assert len(interaction.message.history) == 2
    assert [request.status for request in server.requests if request.method == "PATCH"] == [500, 200]


async def test_an_oversize_file_and_an_empty_message_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with simulated_discord(monkeypatch, file_limit=1000) as server, running(server, ThumbnailBot()) as bot:
        for content, file, code in (("x", png("big.png"), 40005), ("", discord.utils.MISSING, 50006)):
            with pytest.raises(discord.HTTPException) as refused:
                await channel(bot).send(content, file=file)
            assert refused.value.code == code
        assert not server.messages


async def test_reactions_are_stored_and_sent_as_events(server: discord_server.DiscordServer) -> None:
    bot = ThumbnailBot()
    bot._connection._intents = discord.Intents(guild_reactions=True)
    async with running(server, bot):
        sent = await channel(bot).send("react")
        await sent.add_reaction("🔁")
        own = await bot.reactions.get()
        assert bot.user is not None
        assert own.user_id == bot.user.id
        await server.react(server.messages[sent.id], "🔁", user_id=80)
        theirs = await bot.reactions.get()
        assert (theirs.user_id, theirs.message_author_id, str(theirs.emoji)) == (80, bot.user.id, "🔁")
        server.permissions[discord_server.APPLICATION_ID] = (
            discord_server.ORDINARY_PERMISSIONS | discord_server.MANAGE_MESSAGES
        )
        await sent.remove_reaction("🔁", discord.Object(80))
        assert server.messages[sent.id].reactions == {"🔁": {bot.user.id}}


async def test_a_bot_resumes_after_the_gateway_drops(server: discord_server.DiscordServer, bot: ThumbnailBot) -> None:
    await server.drop_gateway()
    with pytest.raises(discord_server.NotConnected):
        await server.slash("thumbnail", options={"image": PHOTO})
    await server.ready()
    assert (server.identifies, server.resumes) == (1, 1)
    await run_thumbnail(server)


async def test_the_guild_is_sent_with_the_guilds_intent(server: discord_server.DiscordServer) -> None:
    bot = ThumbnailBot()
    bot._connection._intents = discord.Intents(guilds=True)
    async with running(server, bot):
        guild = bot.get_guild(discord_server.GUILD_ID)
        assert guild is not None
        assert guild.get_channel(discord_server.CHANNEL_ID) is not None


async def test_a_wrong_token_cannot_log_in(monkeypatch: pytest.MonkeyPatch) -> None:
    async with simulated_discord(monkeypatch, token="right") as server:
        bot = ThumbnailBot()
        with pytest.raises(discord.LoginFailure):
            await bot.start("wrong")
        await bot.close()
        async with running(server, ThumbnailBot(), token="right"):
            assert server.connected


async def test_a_wait_that_times_out_shows_the_last_state(server: discord_server.DiscordServer) -> None:
    with pytest.raises(TimeoutError, match="connected=False"):
        await server.ready(0.01)


def _jpeg() -> bytes:
    return b"\xff\xd8\xff\xe0\x00\x04\x00\x00\xff\xc0\x00\x11\x08\x00\x09\x00\x10\x03"


def _webps() -> Iterator[bytes]:
    yield b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + (15).to_bytes(3, "little") + (8).to_bytes(3, "little")
    yield b"RIFF\0\0\0\0WEBPVP8L" + bytes(4) + b"\x2f" + (15 | 8 << 14).to_bytes(4, "little")
    yield b"RIFF\0\0\0\0WEBPVP8 " + bytes(10) + struct.pack("<HH", 16, 9)


@pytest.mark.parametrize("head", [_jpeg(), *_webps()])
def test_the_image_size_is_read_from_the_first_bytes(head: bytes) -> None:
    assert image_size(head) == (16, 9)
    assert image_size(head[:10]) is None


BOT_PROGRAM = """
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
async def launch(
    server: discord_server.DiscordServer, folder: Path, *argv: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    (folder / "bot").mkdir()
    (folder / "bot" / "__init__.py").touch()
    (folder / "bot" / "__main__.py").write_text(BOT_PROGRAM)
    environment = os.environ | server.environment() | {"PYTHONPATH": str(REPOSITORY)}
    command = (sys.executable, "-m", "sandbox.launch", *argv)
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=environment)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_the_launcher_connects_a_process_to_the_server(
    server: discord_server.DiscordServer, tmp_path: Path
) -> None:
    async with launch(server, tmp_path, "run") as process:
        assert await process.wait() == 7
    assert server.identifies == 1


async def test_a_killed_process_disconnects(server: discord_server.DiscordServer, tmp_path: Path) -> None:
    async with launch(server, tmp_path, "run", "stay") as process:
        await server.ready()
        process.send_signal(signal.SIGKILL)
        await server.gone()
    with pytest.raises(discord_server.NotConnected):
        await server.slash("thumbnail")
