"""Sends unique secrets through many outcomes of the whole bot, and then searches for them everywhere."""

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
from tests.support.e2e import PHOTO, Cdn, Live, png, settings_for
from tests.support.e2e import books as stored_rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
    from pathlib import Path
    from types import FrameType

pytestmark = pytest.mark.faults

# Apart from the prefix of the key, these have no format that a redactor could recognize.
TOKEN = f"canary.token.{secrets.token_hex(16)}"
KEY = f"pkz_{secrets.token_hex(16)}"
WEBHOOK_SECRET = f"canary-hook-{secrets.token_hex(16)}"
SIGNATURE = secrets.token_hex(32)

# An ended job keeps the URLs of its images; Discord and the provider let their signatures expire within a day.
URL_COLUMNS = ("image_url", "support_image_url", "output_url")


# --- a run of the bot ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class AlertWebhook:
    """An alert webhook that answers with `statuses` in turn, then with 204; 0 aborts the connection."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    received: list[str] = field(default_factory=list)

    async def alert(self, request: web.Request) -> web.Response:
        self.received.append(await request.text())
        status = self.statuses.pop(0) if self.statuses else 204
        if status == 0 and request.transport is not None:
            request.transport.abort()
        return web.Response(status=status or 204)


@asynccontextmanager
async def alert_webhook() -> AsyncIterator[AlertWebhook]:
    webhook = AlertWebhook()
    application = web.Application()
    application.router.add_post("/api/webhooks/{id}/{token}", webhook.alert)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        webhook.url = f"http://127.0.0.1:{runner.addresses[0][1]}/api/webhooks/42/{WEBHOOK_SECRET}"
        yield webhook
    finally:
        await runner.cleanup()


@asynccontextmanager
async def simulated_servers() -> AsyncIterator[
    tuple[discord_server.DiscordServer, pikzels_server.StandIn, AlertWebhook]
]:
    async with (
        discord_server.serve(keep_files=True, token=TOKEN) as discord,
        pikzels_server.serve(api_key=KEY, output=png()) as api,
        alert_webhook() as webhook,
    ):
        yield discord, api, webhook


@asynccontextmanager
async def bot(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    servers: tuple[discord_server.DiscordServer, pikzels_server.StandIn, AlertWebhook],
    *,
    as_json: bool,
) -> AsyncIterator[Live]:
    """The bot with every secret set, and with its real log setup at DEBUG."""
    discord, api, webhook = servers
    monkeypatch.setattr(Route, "BASE", discord.rest_url)
    monkeypatch.setattr(DiscordWebSocket, "DEFAULT_GATEWAY", URL(discord.gateway_url))
    sections: dict[str, dict[str, Any]] = {
        "discord": {"token": TOKEN},
        "pikzels": {"api_key": KEY},
        "alerts": {"webhook": webhook.url},
        "quota": {"member_daily": 2},
    }
    settings = config.Settings.model_validate(settings_for(folder, api.base_url, sections))
    assert not any(secret in repr(settings) + str(settings) for secret in (TOKEN, KEY, WEBHOOK_SECRET))
    logs.set_up(level="DEBUG", as_json=as_json, secrets=settings.secrets())
    async with AsyncExitStack() as stack:
        cdn = Cdn(discord)
        opened = await stack.enter_async_context(app.opened(settings, cdn=cdn))
        connection = asyncio.create_task(opened.client.start(settings.discord.token.get_secret_value()))
        stack.push_async_callback(_cancel, connection)
        await discord.ready(10)
        yield Live(discord, api, opened, folder, cdn, stack)
    await discord.gone(10)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


# --- the outcomes ----------------------------------------------------------------------------------------------------


async def outcomes(live: Live, webhook: AlertWebhook) -> None:
    """Run every way in which a request can end, each with its own member."""
    api = live.api
    webhook.statuses[:] = [204, 500, 0, 403]
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

    await rejected_requests(live)
    await use_results(live)
    await discord_errors(live)
    for member, reply in enumerate((Reply.redirect("https://elsewhere.example/"), Reply.error("INVALID_API_KEY")), 60):
        api.script(reply)
        await live.said(user_id=member)
        assert (await live.said(user_id=member)).ephemeral  # because its circuit is open
        live.app.queue.circuits._breakers.clear()


async def rejected_requests(live: Live) -> None:
    await live.said(user_id=40, prompt="see http://a.example")
    for _ in range(2):
        await live.made(user_id=41)
    assert (await live.said(user_id=41)).ephemeral


async def use_results(live: Live) -> None:
    """Use every action on a result, including some that fail."""
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


async def discord_errors(live: Live) -> None:
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
    discord.heal()
    for member, error in ((53, {"reset": True}), (54, {"status": 404, "code": 10062}), (55, {"status": 403})):
        discord.fail("POST", "/interactions/*", **error)
        await live.thumbnail(user_id=member)
        await discord.wait(lambda d: d.requests[-1].path.startswith(("/interactions", "/webhooks")), 10)
        await live.app.use_case.recovery.idle(10)
    discord.fail("PATCH", "*", reset=True, times=3)
    await live.made(user_id=56)


# --- where a secret could be -----------------------------------------------------------------------------------------


class Records(logging.Handler):
    """Everything that was logged, before redaction."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(("bot", "cogs")):
            self.texts.append(f"{record.getMessage()} {record!r} {record.args!r}")
        if record.exc_info and record.exc_info[1] is not None:
            self.errors.extend(describe(record.exc_info[1]))


def describe(error: BaseException) -> Iterator[str]:
    """All text that an error, its causes, and its suppressed context could show."""
    yield "".join(traceback.format_exception(error))
    shown: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in shown:
            shown.add(id(one))
            own = (
                vars(one) if isinstance(one, BotError) else ""
            )  # discord.py's errors carry a response, which is never shown
            yield f"{one!r} {one} {one.args!r} {own!r}"
            waiting += [one.__cause__, one.__context__]


@contextmanager
def raised_bot_errors() -> Iterator[list[str]]:
    """Collect every bot error that is raised in the bot's code, with all its text."""
    found: list[str] = []

    def trace_errors(frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
        if event == "exception" and isinstance(arg[1], BotError):
            found.extend(describe(arg[1]))
        return trace_errors

    def trace_calls(frame: FrameType, event: str, arg: Any) -> Callable[..., Any] | None:
        frame.f_trace_lines = False
        own_secrets = frame.f_globals.get("__name__", "").partition(".")[0] in ("bot", "cogs")
        return trace_errors if own_secrets else None

    before = sys.gettrace()
    sys.settrace(trace_calls)
    try:
        yield found
    finally:
        sys.settrace(before)


def on_disk(folder: Path, copy: Path) -> dict[str, bytes]:
    """Every file below `folder`, and every file's name.

    Another process copies them, because closing one of these files in this process would release SQLite's lock.
    """
    subprocess.run(["cp", "-r", str(folder), str(copy)], check=True)
    files = {str(path.relative_to(copy)): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    return files | {"names": "\n".join(files).encode()}


def find_leaks(
    places: Mapping[str, str | bytes | Iterable[str]], secrets_by_name: Mapping[str, Iterable[str]]
) -> list[str]:
    """Where each secret was found: complete, in half, or URL-quoted."""
    found = []
    for place, content in places.items():
        text = content if isinstance(content, str | bytes) else "\n".join(content)
        raw = text.encode() if isinstance(text, str) else text
        for name, values in secrets_by_name.items():
            count = sum(any(variant.encode() in raw for variant in variants(value)) for value in values)
            if count:
                found.append(f"{name} ({count}) in {place}")
    return found


def variants(secret: str) -> tuple[str, ...]:
    half = len(secret) // 2
    return secret, quote(secret, safe=""), secret[:half] if half >= 24 else secret, secret[-half:]


def signatures(discord: discord_server.DiscordServer) -> list[str]:
    """The signatures of all files that members attached to commands, and of the provider's output."""
    attached = (
        attachment["url"]
        for interaction in discord.interactions.values()
        for attachment in interaction.data.get("resolved", {}).get("attachments", {}).values()
    )
    return [SIGNATURE, *(parse_qs(urlsplit(url).query)["hm"][0] for url in attached)]


def tokens(discord: discord_server.DiscordServer, jobs: Iterable[Mapping[str, Any]]) -> list[str]:
    """The tokens of the interactions whose jobs have ended and were reported."""
    by_id = {interaction.id: interaction.token for interaction in discord.interactions.values()}
    ended = (job for job in jobs if job["interaction_id"] and job["ended_at"] and job["notified_at"])
    return [by_id[job["interaction_id"]] for job in ended]


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.mark.parametrize("as_json", [False, True], ids=["lines", "objects"])
async def test_after_every_kind_of_outcome_no_secret_can_be_read_anywhere(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    records: Records,
    *,
    as_json: bool,
) -> None:
    folder = tmp_path / "data"
    job_reprs: list[str] = []
    with raised_bot_errors() as raised:
        async with simulated_servers() as servers:
            discord, api, webhook = servers
            async with bot(folder, monkeypatch, servers, as_json=as_json) as live:
                logging.getLogger().addHandler(records)
                await outcomes(live, webhook)
                held = Reply(held=True)
                api.script_output(held)
                await live.thumbnail(user_id=70)  # the first run ends during the download
                await api.downloaded(len(api.downloads) + 1)
                await live.app.use_case.recovery.idle(0.01)
                live.app.use_case.recovery.stop_accepting()
                api.release()
            async with bot(folder, monkeypatch, servers, as_json=as_json) as live:
                logging.getLogger().addHandler(records)
                await live.made(user_id=71)
                await live.app.use_case.recovery.idle(10)
                rows = await live.app.storage.ledger._database.run("SELECT id, token, ended_at, notified_at FROM jobs")
                for row in rows:
                    job_reprs.append(repr(await live.app.storage.ledger.job(row["id"])))
                    assert row["token"] is None or row["notified_at"] is None
                in_progress = on_disk(folder, tmp_path / "in-progress")
    log = capsys.readouterr().err
    jobs, _ = stored_rows(folder)
    assert len(jobs) > 20
    assert {job["state"] for job in jobs} >= {"delivered", "released"}
    assert len({job["reason"] for job in jobs}) > 10
    assert "the alert webhook answered 500" in log
    assert "the alert webhook could not be reached: " in log
    assert len(webhook.received) > 5
    assert len(raised) > 30

    own_secrets = {"the bot's token": [TOKEN], "the key": [KEY], "the webhook": [WEBHOOK_SECRET]}
    interaction_tokens = {"a token of an interaction": [one.token for one in discord.interactions.values()]}
    signed = {"a signature": signatures(discord)}
    shown = "\n".join(
        f"{message.content}\n{message.history!r}\n{[one.description for one in message.attachments]}"
        for message in discord.messages.values()
    )
    outputs = {
        "the log": log,
        "what was logged, unredacted": records.texts,
        "errors that were logged": records.errors,
        "errors that were raised": raised,
        "alerts": webhook.received,
        "messages": shown,
        "the repr of jobs": job_reprs,
    }
    assert find_leaks(outputs, own_secrets | interaction_tokens | signed) == []

    stopped = on_disk(folder, tmp_path / "stopped")
    assert find_leaks({f"{name}, in progress": data for name, data in in_progress.items()}, own_secrets) == []
    assert find_leaks(stopped, own_secrets | {"a token of an ended interaction": tokens(discord, jobs)}) == []
    pictures = {name: data for name, data in stopped.items() if not name.startswith("pikzels-bot.sqlite3")}
    assert find_leaks(pictures, interaction_tokens | signed) == []
    for job in jobs:
        stored = job | json.loads(job["request"])
        del stored["request"]
        columns = {name: str(value) for name, value in stored.items() if name not in URL_COLUMNS}
        assert find_leaks(columns, signed | {"a token": tokens(discord, [job])}) == []
    # SQLite's write-ahead log keeps data until its next checkpoint, so it is gone after a shutdown and not before.
    print(find_leaks(in_progress, {"a token of an ended interaction": tokens(discord, jobs)}))  # noqa: T201 - informative only


@pytest.mark.parametrize("place", ["the log", "an error", "a file", "half of it", "quoted"])
def test_the_search_finds_a_secret_that_exists(place: str, tmp_path: Path) -> None:
    secret = "a/b+" + secrets.token_hex(30)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_bytes(b"\0" + secret.encode() + b"\0")
    try:
        try:
            raise ValueError(secret)
        except ValueError:
            raise BotError("another") from None
    except BotError as error:
        shown = list(describe(error))
    places: dict[str, Any] = {
        "the log": f"x {secret}",
        "an error": shown,
        "a file": on_disk(tmp_path / "data", tmp_path / "copy")["file"],
        "half of it": secret[: len(secret) // 2],
        "quoted": quote(secret, safe=""),
    }
    assert find_leaks({place: places[place]}, {"it": [secret]}) == [f"it (1) in {place}"]
