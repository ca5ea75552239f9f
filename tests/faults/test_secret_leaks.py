"""Secrets that exist nowhere else, led through a dozen outcomes of the whole bot, and then looked for everywhere."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import subprocess
import sys
import traceback
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from aiohttp import web
from discord.gateway import DiscordWebSocket
from discord.http import Route
from yarl import URL

from bot import app, config
from bot.domain.errors import BotError
from bot.ops import logs
from sandbox import discord_server, pikzels_server
from sandbox.pikzels_server.contract import Problem
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import PHOTO, Cdn, Live, books, png, settings_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
    from pathlib import Path
    from types import FrameType

pytestmark = pytest.mark.faults

# Of no shape that a redactor could know by itself, but for the key's beginning.
TOKEN = f"canary.token.{secrets.token_hex(16)}"
KEY = f"pkz_{secrets.token_hex(16)}"
HOOK = f"canary-hook-{secrets.token_hex(16)}"
SIGNATURE = secrets.token_hex(32)

# An ended job keeps the addresses of its pictures, whose signatures Discord and the provider let run out in a day.
WITH_ADDRESSES = ("image_url", "support_image_url", "output_url")


# --- a run of the bot ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Hook:
    """A webhook for alerts that answers as `statuses` say, then 204; 0 ends the connection without an answer."""

    address: str = ""
    statuses: list[int] = field(default_factory=list)
    got: list[str] = field(default_factory=list)

    async def alert(self, request: web.Request) -> web.Response:
        self.got.append(await request.text())
        status = self.statuses.pop(0) if self.statuses else 204
        if status == 0 and request.transport is not None:
            request.transport.abort()
        return web.Response(status=status or 204)


@asynccontextmanager
async def hooked() -> AsyncIterator[Hook]:
    hook = Hook()
    application = web.Application()
    application.router.add_post("/api/webhooks/{id}/{token}", hook.alert)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        hook.address = f"http://127.0.0.1:{runner.addresses[0][1]}/api/webhooks/42/{HOOK}"
        yield hook
    finally:
        await runner.cleanup()


@asynccontextmanager
async def surroundings() -> AsyncIterator[tuple[discord_server.DiscordServer, pikzels_server.StandIn, Hook]]:
    async with (
        discord_server.serve(keep_files=True, token=TOKEN) as discord,
        pikzels_server.serve(api_key=KEY, output=png()) as api,
        hooked() as hook,
    ):
        yield discord, api, hook


@asynccontextmanager
async def bot(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    around: tuple[discord_server.DiscordServer, pikzels_server.StandIn, Hook],
    *,
    as_json: bool,
) -> AsyncIterator[Live]:
    """The bot with every secret set, its log as it ships at DEBUG."""
    discord, api, hook = around
    monkeypatch.setattr(Route, "BASE", discord.rest_url)
    monkeypatch.setattr(DiscordWebSocket, "DEFAULT_GATEWAY", URL(discord.gateway_url))
    sections: dict[str, dict[str, Any]] = {
        "discord": {"token": TOKEN},
        "pikzels": {"api_key": KEY},
        "alerts": {"webhook": hook.address},
        "quota": {"member_daily": 2},
    }
    settings = config.Settings.model_validate(settings_for(folder, api.base_url, sections))
    assert not any(secret in repr(settings) + str(settings) for secret in (TOKEN, KEY, HOOK))
    logs.set_up(level="DEBUG", as_json=as_json, secrets=settings.secrets())
    async with AsyncExitStack() as stack:
        cdn = Cdn(discord)
        opened = await stack.enter_async_context(app.opened(settings, cdn=cdn))
        connection = asyncio.create_task(opened.client.start(settings.discord.token.get_secret_value()))
        stack.push_async_callback(_cancel, connection)
        await discord.ready(10)
        yield Live(discord, api, opened, folder, cdn)
    await discord.gone(10)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


# --- the outcomes ----------------------------------------------------------------------------------------------------


async def outcomes(live: Live, hook: Hook) -> None:
    """A member of their own for every way in which a request can end."""
    api = live.api
    hook.statuses[:] = [204, 500, 0, 403]
    signed: dict[str, object] = {"output": f"{api.base_url}/output/x.png?ex=66aa&is=66bb&hm={SIGNATURE}&"}
    api.always(Reply.ok(extra=signed))
    await live.made(user_id=1, prompt="a cat", reference=PHOTO, model="pkz_4")

    refusals = (
        Reply.error("GENERATION_REJECTED"),
        Reply.error("VALIDATION_ERROR", details=(Problem("m", "image_url"),)),
        Reply.error("INTERNAL_ERROR"),
        Reply.raw(418, b'{"error":{"code":"TEAPOT","message":"m"},"request_id":"r"}'),
        Reply.reset(),
        Reply.html(502),
        Reply.raw(200, b"{}"),
        Reply.ok(extra={"output": f"https://10.0.0.1/x.png?hm={SIGNATURE}"}),
        Reply.ok(extra={"output": f"https://bot:{SIGNATURE}@pictures.example/x.png"}),
    )
    for member, reply in enumerate(refusals, 10):
        live.app.queue.circuits._calls.clear()
        api.script(reply)
        await live.said(user_id=member)

    for member, reply in enumerate((Reply.raw(404), Reply.raw(200, b"<html>"), Reply.gzip_bomb(size=1000)), 30):
        api.always_output(reply)
        await live.said(user_id=member)
    api.always_output(Reply())
    api.script_output(Reply.raw(503), Reply.truncated())
    await live.made(user_id=33)

    await refused_before_there_is_a_job(live)
    await living_with_results(live)
    await trouble_with_discord(live)
    for member, reply in enumerate((Reply.redirect("https://elsewhere.example/"), Reply.error("INVALID_API_KEY")), 60):
        api.script(reply)
        await live.said(user_id=member)
        assert (await live.said(user_id=member)).ephemeral  # its circuit is open
        live.app.queue.circuits._breakers.clear()


async def refused_before_there_is_a_job(live: Live) -> None:
    await live.said(user_id=40, prompt="see http://a.example")
    for _ in range(2):
        await live.made(user_id=41)
    assert (await live.said(user_id=41)).ephemeral


async def living_with_results(live: Live) -> None:
    """Every way to go on from a result, and some that fail."""
    discord = live.discord
    public, private = await live.made(user_id=70, prompt="a cat"), await live.made(user_id=71, private=True)
    job_id = public.content.split("#")[1].split()[0]
    for action in ("again", "info", "edit"):
        clicked = await discord.click(public, f"job:{action}:{job_id}", user_id=72)
        await clicked.acked.wait()
    await discord.submit(clicked, {"prompt": "a dog"})
    await discord.submit(clicked, {"prompt": "see http://a.example"})
    await discord.react(public, "🔁", user_id=73)
    await discord.react(public, "✉️", user_id=73)
    chosen = await discord.context_menu("Make thumbnail", discord.say("look", files=[PHOTO]), user_id=74)
    await chosen.acked.wait()
    await discord.submit(chosen)
    live.cdn.gone = True
    for _ in range(2):
        share = private.content.split("#")[1].split()[0]
        await (await discord.click(private, f"job:share:{share}", user_id=71)).acked.wait()
        live.cdn.gone = False
    await (await discord.slash("history", user_id=70)).acked.wait()
    await discord.wait(lambda server: sum(bool(message.attachments) for message in server.messages.values()) > 8, 20)
    await live.app.use_case.recovery.idle(10)
    await (await discord.click(public, f"job:delete:{job_id}", user_id=70)).acked.wait()


async def trouble_with_discord(live: Live) -> None:
    discord, api = live.discord, live.api
    for member, path in ((50, "PATCH /webhooks/*"), (51, "PATCH *"), (52, "* *")):
        method, _, glob = path.partition(" ")
        signed = f"{api.base_url}/output/x.png?hm={SIGNATURE}"
        api.script(Reply(held=True, extra=(("output", signed),)))
        before = len(api.calls)
        await live.thumbnail(user_id=member, prompt="a cat")
        await api.called(before + 1)
        discord.fail(method, glob, status=403, code=50001, times=3 if method == "*" else 1)
        api.release()
        await live.app.use_case.recovery.idle(10)
    discord._state.faults._faults.clear()
    for member, trouble in ((53, {"reset": True}), (54, {"status": 404, "code": 10062}), (55, {"status": 403})):
        discord.fail("POST", "/interactions/*", **trouble)
        await live.thumbnail(user_id=member)
        await discord.wait(lambda d: d.requests[-1].path.startswith(("/interactions", "/webhooks")), 10)
        await live.app.use_case.recovery.idle(10)
    discord.fail("PATCH", "*", reset=True, times=3)
    await live.made(user_id=56)


# --- where a secret could be -----------------------------------------------------------------------------------------


class Records(logging.Handler):
    """What was logged, before anything is taken out of it."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(("bot", "cogs")):
            self.texts.append(f"{record.getMessage()} {record!r} {record.args!r}")
        if record.exc_info and record.exc_info[1] is not None:
            self.errors.extend(described(record.exc_info[1]))


def described(error: BaseException) -> Iterator[str]:
    """All that a person could be shown of an error, of its causes, and of what it hides."""
    yield "".join(traceback.format_exception(error))
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            own = vars(one) if isinstance(one, BotError) else ""  # discord.py's carry a response, which nothing shows
            yield f"{one!r} {one} {one.args!r} {own!r}"
            waiting += [one.__cause__, one.__context__]


@contextmanager
def errors_of_our_own() -> Iterator[list[str]]:
    """Every error of this program that passes through its code, with all that hangs on it."""
    found: list[str] = []

    def within(frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
        if event == "exception" and isinstance(arg[1], BotError):
            found.extend(described(arg[1]))
        return within

    def entered(frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
        frame.f_trace_lines = False
        ours = frame.f_globals.get("__name__", "").partition(".")[0] in ("bot", "cogs")
        return within if ours else None

    before = sys.gettrace()
    sys.settrace(entered)
    try:
        yield found
    finally:
        sys.settrace(before)


def on_disk(folder: Path, copy: Path) -> dict[str, bytes]:
    """Every file below `folder`, and every file's name.

    Copied by another process: closing one of these files in this one would take SQLite's lock away.
    """
    subprocess.run(["cp", "-r", str(folder), str(copy)], check=True)
    files = {str(path.relative_to(copy)): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    return files | {"names": "\n".join(files).encode()}


def hits(places: Mapping[str, str | bytes | Iterable[str]], canaries: Mapping[str, Iterable[str]]) -> list[str]:
    """Which secret was found where: whole, half, or quoted for an address."""
    found = []
    for place, content in places.items():
        text = content if isinstance(content, str | bytes) else "\n".join(content)
        raw = text.encode() if isinstance(text, str) else text
        for name, values in canaries.items():
            count = sum(any(form.encode() in raw for form in forms(value)) for value in values)
            if count:
                found.append(f"{name} ({count}) in {place}")
    return found


def forms(secret: str) -> tuple[str, ...]:
    half = len(secret) // 2
    return secret, quote(secret, safe=""), secret[:half] if half >= 24 else secret, secret[-half:]


def signatures(discord: discord_server.DiscordServer) -> list[str]:
    """Of all files that members gave to commands, and of the provider's output."""
    given = (
        attachment["url"]
        for interaction in discord.interactions.values()
        for attachment in interaction.data.get("resolved", {}).get("attachments", {}).values()
    )
    return [SIGNATURE, *(parse_qs(urlsplit(url).query)["hm"][0] for url in given)]


def tokens(discord: discord_server.DiscordServer, jobs: Iterable[Mapping[str, Any]]) -> list[str]:
    """Of the interactions whose jobs have ended and been told."""
    by_id = {interaction.id: interaction.token for interaction in discord.interactions.values()}
    ended = (job for job in jobs if job["interaction_id"] and job["ended_at"] and job["notified_at"])
    return [by_id[job["interaction_id"]] for job in ended]


@pytest.fixture
def records() -> Iterator[Records]:
    """Logging as it was before, afterwards."""
    root = logging.getLogger()
    loggers = [root, *map(logging.getLogger, ("discord", "aiosqlite", "aiohttp", "asyncio"))]
    levels, handlers = [logger.level for logger in loggers], root.handlers[:]
    yield Records()
    root.handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.mark.parametrize("as_json", [False, True], ids=["lines", "objects"])
async def test_after_every_kind_of_outcome_no_secret_is_anywhere_it_could_be_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    records: Records,
    *,
    as_json: bool,
) -> None:
    folder = tmp_path / "data"
    nouns: list[str] = []
    with errors_of_our_own() as raised:
        async with surroundings() as around:
            discord, api, hook = around
            async with bot(folder, monkeypatch, around, as_json=as_json) as live:
                logging.getLogger().addHandler(records)
                await outcomes(live, hook)
                held = Reply(held=True)
                api.script_output(held)
                await live.thumbnail(user_id=70)  # the first run ends while its picture is on the way
                await api.downloaded(len(api.downloads) + 1)
                await live.app.use_case.recovery.idle(0.01)
                live.app.use_case.recovery.stop_accepting()
                api.release()
            async with bot(folder, monkeypatch, around, as_json=as_json) as live:
                logging.getLogger().addHandler(records)
                await live.made(user_id=71)
                await live.app.use_case.recovery.idle(10)
                rows = await live.app.storage.ledger._database.run("SELECT id, token, ended_at, notified_at FROM jobs")
                for row in rows:
                    nouns.append(repr(await live.app.storage.ledger.job(row["id"])))
                    assert row["token"] is None or row["notified_at"] is None
                under_way = on_disk(folder, tmp_path / "under-way")
    log = capsys.readouterr().err
    jobs, _ = books(folder)
    assert len(jobs) > 20
    assert {job["state"] for job in jobs} >= {"delivered", "released"}
    assert len({job["reason"] for job in jobs}) > 10
    assert "the alert webhook answered 500" in log
    assert "the alert webhook could not be reached: " in log
    assert len(hook.got) > 5
    assert len(raised) > 30

    ours = {"the bot's token": [TOKEN], "the key": [KEY], "the webhook": [HOOK]}
    everybodys = {"a token of an interaction": [one.token for one in discord.interactions.values()]}
    signed = {"a signature": signatures(discord)}
    seen = "\n".join(
        f"{message.content}\n{message.history!r}\n{[one.description for one in message.attachments]}"
        for message in discord.messages.values()
    )
    spoken = {
        "the log": log,
        "what was logged, unredacted": records.texts,
        "errors that were logged": records.errors,
        "errors that were raised": raised,
        "alerts": hook.got,
        "messages": seen,
        "the repr of jobs": nouns,
    }
    assert hits(spoken, ours | everybodys | signed) == []

    stopped = on_disk(folder, tmp_path / "stopped")
    assert hits({f"{name}, under way": data for name, data in under_way.items()}, ours) == []
    assert hits(stopped, ours | {"a token of an ended interaction": tokens(discord, jobs)}) == []
    pictures = {name: data for name, data in stopped.items() if not name.startswith("pikzels-bot.sqlite3")}
    assert hits(pictures, everybodys | signed) == []
    for job in jobs:
        stored = job | json.loads(job["request"])
        del stored["request"]
        columns = {name: str(value) for name, value in stored.items() if name not in WITH_ADDRESSES}
        assert hits(columns, signed | {"a token": tokens(discord, [job])}) == []
    # SQLite's write-ahead log keeps what its next checkpoint will overwrite: gone at a stop, not before.
    print(hits(under_way, {"a token of an ended interaction": tokens(discord, jobs)}))  # noqa: T201 - not a promise


@pytest.mark.parametrize("place", ["the log", "an error", "a file", "half of it", "quoted"])
def test_the_search_finds_a_secret_that_is_there(place: str, tmp_path: Path) -> None:
    secret = "a/b+" + secrets.token_hex(30)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_bytes(b"\0" + secret.encode() + b"\0")
    try:
        try:
            raise ValueError(secret)
        except ValueError:
            raise BotError("another") from None
    except BotError as error:
        shown = list(described(error))
    places: dict[str, Any] = {
        "the log": f"x {secret}",
        "an error": shown,
        "a file": on_disk(tmp_path / "data", tmp_path / "copy")["file"],
        "half of it": secret[: len(secret) // 2],
        "quoted": quote(secret, safe=""),
    }
    assert hits({place: places[place]}, {"it": [secret]}) == [f"it (1) in {place}"]
