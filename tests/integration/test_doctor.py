"""`doctor` against the simulated Discord and the simulated Pikzels, over real HTTP."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from discord.http import Route

from bot.cli import doctor, run
from bot.config import Settings
from bot.discord_io import application
from bot.storage.database import FILE
from bot.storage.schema import newest_schema
from sandbox import discord_server, pikzels_server
from tests.support.e2e import KEY, running, settings_for
from tests.support.servers import Servers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

TOKEN = "MTEwMDAwMDAwMDAwMDAwMDAwMQ.Gcanary.canary-of-the-token"
WEBHOOK_SECRET = "canary-of-the-webhook"
INSTALLED = ["Python", "SQLite", "packages", "images", "charts", "fonts"]  # the checks that need no settings
ACCOUNTS = ["token", "public", "intents", "invite", "connections", "base URL", "key", "alerts", "operator", "clock"]
STORAGE = ["folder", "disk", "space", "database", "backups", "health"]
ALL_CHECKS = ["settings", *STORAGE, *ACCOUNTS, "time zone", *INSTALLED]


@pytest.fixture
async def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Servers]:
    """The simulated servers, and settings for them in the environment; the working directory is empty."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.upper().startswith("BOT_")]:
        monkeypatch.delenv(name)
    async with discord_server.serve(token=TOKEN) as discord, pikzels_server.serve(api_key=KEY) as api:
        monkeypatch.setattr(Route, "BASE", discord.rest_url)
        for name, value in {
            "DISCORD__TOKEN": TOKEN,
            "PIKZELS__API_KEY": KEY,
            "PIKZELS__BASE_URL": api.base_url,
            "STORAGE__SOURCE_MEGABYTES": "1",
            "ALERTS__WEBHOOK": f"{discord.rest_url}/webhooks/42/{WEBHOOK_SECRET}",
        }.items():
            monkeypatch.setenv(f"BOT_{name}", value)
        yield Servers(discord, api)


class Report:
    """What `doctor` has printed, by the name of the check."""

    def __init__(self, code: int, output: str) -> None:
        self.code = code
        self.output = output
        lines = [re.fullmatch(r"(ok|warning|error) +(.{12}) (.+)", line) for line in output.splitlines()]
        assert all(line is not None for line in lines), output
        self.lines = [(line[2].strip(), line[1], line[3]) for line in lines if line is not None]

    def __getitem__(self, name: str) -> tuple[str, str]:
        [found] = [(severity, text) for check, severity, text in self.lines if check == name]
        return found


async def examine(capsys: pytest.CaptureFixture[str]) -> Report:
    capsys.readouterr()
    code = await asyncio.to_thread(doctor.main, argparse.Namespace())
    output, errors = capsys.readouterr()
    assert errors == ""
    assert not any(secret in output for secret in (TOKEN, KEY, WEBHOOK_SECRET))
    return Report(code, output)


async def errors_of(program: str, *, environment: Mapping[str, str] | None = None) -> str:
    """What another process prints to standard error."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    return (await child.communicate())[1].decode()


async def test_everything_is_checked_on_one_line_each_without_a_secret(
    servers: Servers, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    report = await examine(capsys)
    assert [name for name, _, _ in report.lines] == ALL_CHECKS
    assert report.code == 0
    assert report["token"] == (
        "ok",
        f"Discord knows the bot as pikzels ({discord_server.APPLICATION_ID}, in about 1 server).",
    )
    assert report["invite"][1].endswith(application.invite_link(discord_server.APPLICATION_ID))
    assert report["key"][0] == report["alerts"][0] == report["clock"][0] == report["public"][0] == "ok"
    assert report["base URL"][0] == "warning"
    assert report["base URL"][1].startswith(
        f"The API at {servers.api.base_url} is on this machine, so it is a simulation;"
    )
    assert servers.api.calls == [], "nothing that costs anything"
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


async def test_a_refused_token_and_a_refused_key_are_errors(
    servers: Servers, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOT_DISCORD__TOKEN", "another-token-canary")
    monkeypatch.setenv("BOT_PIKZELS__API_KEY", "pkz_another_key_canary")
    report = await examine(capsys)
    assert report.code == 1
    assert report["token"][0] == "error"
    assert report["token"][1].startswith("Discord refuses the token; ")
    assert report["key"] == (
        "error",
        "Pikzels refuses the key (INVALID_API_KEY): check [pikzels] api_key against the Pikzels platform.",
    )
    assert "canary" not in report.output


async def test_a_public_bot_and_unneeded_intents_are_named(
    servers: Servers, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    servers.discord.application_fields.update(bot_public=True, flags=1 << 15 | 1 << 18)
    report = await examine(capsys)
    assert report.code == 0
    assert report["public"][0] == "warning"
    assert "Public Bot" in report["public"][1]
    assert "[access] servers" in report["public"][1]
    assert "switch Server Members Intent and Message Content Intent off" in report["intents"][1]
    monkeypatch.setenv("BOT_ACCESS__SERVERS", "[1, 2]")
    assert (await examine(capsys))["public"][0] == "ok"


async def test_ids_that_nothing_in_discord_has_are_named(
    servers: Servers, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOT_ACCESS__SERVERS", "[1100000000000000002, 12]")
    monkeypatch.setenv("BOT_OPERATOR__SERVER", "7")
    assert (await examine(capsys))["ids"] == (
        "warning",
        "Nothing in Discord has such short ids: 7 and 12; correct [access], [operator], or [quota].",
    )
    monkeypatch.setenv("BOT_ACCESS__SERVERS", "[1100000000000000002]")
    monkeypatch.setenv("BOT_OPERATOR__SERVER", "1100000000000000002")
    assert "ids" not in {name for name, _, _ in (await examine(capsys)).lines}


async def test_many_servers_and_too_many_starts_are_told(servers: Servers, capsys: pytest.CaptureFixture[str]) -> None:
    starts = servers.discord.session_starts
    starts.shards = 3
    assert (await examine(capsys))["connections"] == (
        "ok",
        "Discord recommends 3 connections, and allows 1000 of 1000 new ones today.",
    )
    starts.remaining, starts.reset_after = 102, 90_500
    report = await examine(capsys)
    severity, text = report["connections"]
    assert (severity, report.code) == ("warning", 0)
    assert text.startswith("Only 102 of 1000 new connections to Discord are left, so the bot waits 2 minutes until ")
    servers.discord.fail("GET", "/gateway/bot", status=503)
    report = await examine(capsys)
    assert report["connections"][0] == "warning"
    assert report["connections"][1].startswith("Discord does not say how many connections")


async def test_without_a_network_each_check_says_so_and_the_others_go_on(
    servers: Servers, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Route, "BASE", "http://127.0.0.1:9/api/v10")
    monkeypatch.setenv("BOT_PIKZELS__BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("BOT_ALERTS__WEBHOOK", f"http://127.0.0.1:9/{WEBHOOK_SECRET}")
    report = await examine(capsys)
    assert report.code == 1
    no_connection = "cannot be reached: there is no connection; check the network and the firewall."
    assert report["token"] == ("error", f"Discord {no_connection}")
    assert report["base URL"] == ("error", f"http://127.0.0.1:9 {no_connection}")
    assert report["alerts"] == ("warning", f"The webhook's server {no_connection}")
    assert report["clock"][0] == "warning"
    assert report["charts"][0] == "ok"


async def test_a_deleted_webhook_is_an_error(servers: Servers, capsys: pytest.CaptureFixture[str]) -> None:
    servers.discord.fail("GET", "/webhooks/*", code=10015)
    report = await examine(capsys)
    assert (report.code, report["alerts"][0]) == (1, "error")


async def test_half_an_operator_is_a_warning(
    servers: Servers, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await examine(capsys))["operator"][0] == "ok"
    monkeypatch.setenv("BOT_OPERATOR__USERS", "[1]")
    assert (await examine(capsys))["operator"] == (
        "warning",
        "Nobody has /operator until [operator] server is set too.",
    )
    monkeypatch.setenv("BOT_OPERATOR__SERVER", "2")
    assert (await examine(capsys))["operator"] == ("ok", "The operators have /operator in their server.")


async def test_invalid_settings_are_all_named_and_what_needs_none_is_checked(
    servers: Servers, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOT_PIKZELS__API_KEY", KEY.removeprefix("pkz_"))
    monkeypatch.setenv("BOT_ALERTS__WEBHOOK", "https://example.com/")
    monkeypatch.setenv("BOT_NONSENSE", "1")
    report = await examine(capsys)
    assert report.code == 78
    assert [name for name, _, _ in report.lines] == [*["settings"] * 3, *INSTALLED]
    assert report.lines[0] == ("settings", "error", "Setting BOT_NONSENSE is not a setting.")


async def test_beside_a_running_bot_the_database_is_in_use(
    servers: Servers, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOT_STORAGE__FOLDER", str(tmp_path))
    newest = newest_schema()
    async with running(tmp_path, monkeypatch, around=servers, connect=False):
        report = await examine(capsys)
        assert report["database"] == ("ok", f"The database has schema {newest}, and is in use: the bot is running.")
        assert "locked" in await errors_of(
            f"import sqlite3; sqlite3.connect({str(tmp_path / FILE)!r}, 0).execute('SELECT 1 FROM jobs')"
        )
    report = await examine(capsys)
    assert report["database"] == ("ok", f"The database has schema {newest}, and is not in use.")
    files = {path.name for path in tmp_path.iterdir() if path.name.startswith(FILE)}
    assert files == {FILE, FILE + ".marker"}, "looking leaves nothing behind"


async def test_a_database_that_cannot_be_used_is_an_error(
    servers: Servers, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOT_STORAGE__FOLDER", str(tmp_path))
    (tmp_path / FILE).write_bytes(b"no database" * 100)
    assert (await examine(capsys))["database"] == ("error", "The database cannot be read: file is not a database.")
    (tmp_path / FILE).unlink()
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.execute("PRAGMA user_version = 900")
    assert "newer version" in (await examine(capsys))["database"][1]


async def test_a_config_file_with_secrets_that_others_can_read_is_named(
    servers: Servers, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("config.toml").write_text(f'[discord]\ntoken = "{TOKEN}"\n')
    Path("config.toml").chmod(0o640)
    monkeypatch.delenv("BOT_DISCORD__TOKEN")
    report = await examine(capsys)
    assert report["secrets"] == (
        "warning",
        "config.toml contains secrets, and its mode 0640 lets other users read it; run `chmod 600 config.toml`.",
    )
    Path("config.toml").chmod(0o600)
    assert "secrets" not in {name for name, _, _ in (await examine(capsys)).lines}


async def test_a_home_that_cannot_be_written_adds_no_line(tmp_path: Path) -> None:
    program = "import argparse; from bot.cli import doctor; doctor.main(argparse.Namespace())"
    here = {name: value for name, value in os.environ.items() if not name.upper().startswith(("BOT_", "MPL", "XDG"))}
    assert await errors_of(program, environment={**here, "HOME": os.devnull, "TMPDIR": str(tmp_path)}) == ""
    assert list(tmp_path.iterdir()) == [], "matplotlib removes what it has written elsewhere"


@pytest.mark.skipif(os.name != "posix", reason="needs modes")
async def test_a_secret_file_that_everybody_can_read_is_named(
    servers: Servers, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with TemporaryDirectory() as folder:
        secret = Path(folder) / "token"
        secret.write_text(TOKEN)
        secret.chmod(0o644)
        monkeypatch.delenv("BOT_DISCORD__TOKEN")
        monkeypatch.setenv("BOT_DISCORD__TOKEN_FILE", str(secret))
        assert "secrets" not in {name for name, _, _ in (await examine(capsys)).lines}, "nobody can enter the folder"
        Path(folder).chmod(0o755)
        assert (await examine(capsys))["secrets"] == (
            "warning",
            f"Every user can read the secret in {secret}, whose mode is 0644; run `chmod o= {secret}`.",
        )


@pytest.mark.parametrize(("seconds", "severity"), [(0, "ok"), (-20, "warning"), (20, "warning"), (4000, "error")])
async def test_the_clock_is_compared_with_discords(
    servers: Servers, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, seconds: int, severity: str
) -> None:
    async def answer(_: web.Request) -> web.Response:
        date = format_datetime(datetime.now(UTC) - timedelta(seconds=seconds), usegmt=True)
        return web.json_response({}, status=500, headers={"Date": date})

    async with served(answer) as address:
        monkeypatch.setattr(Route, "BASE", address)
        report = await examine(capsys)
    assert report["clock"][0] == severity
    if seconds:
        way = "behind" if seconds < 0 else "ahead of"
        told = re.match(rf"The clock is (\d+) s {way} that of Discord; ", report["clock"][1])
        assert told is not None
        assert int(told[1]) == pytest.approx(abs(seconds), abs=2)


async def test_what_answers_like_any_server_is_not_taken_for_discord(
    servers: Servers, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="not json")

    async with served(answer) as address:
        monkeypatch.setattr(Route, "BASE", address)
        report = await examine(capsys)
    assert report["token"] == (
        "error",
        "What answers in Discord's place is not Discord; check what is between this machine and the internet.",
    )
    assert report.code == 1


@pytest.mark.parametrize(
    ("status", "body", "name", "severity"),
    [
        (404, {"error": {"code": "NOT_FOUND"}}, "key", "ok"),
        (401, {"error": {"code": "API_KEY_DELETED"}}, "key", "error"),
        (403, {"error": {"code": "API_ACCESS_NOT_ENABLED"}}, "key", "error"),
        (402, {"error": {"code": "INSUFFICIENT_CREDITS"}}, "key", "warning"),
        (429, {"error": {"code": "TOO_MANY_REQUESTS"}}, "key", "warning"),
        (503, {"error": {"code": "SERVICE_UNDER_MAINTENANCE"}}, "key", "warning"),
        (502, "<h1>Bad gateway</h1>", "key", "warning"),
        (404, "<h1>Not found</h1>", "base URL", "error"),
        (200, "<h1>Welcome</h1>", "base URL", "error"),
        (200, "[" * 100_000, "base URL", "error"),
        (200, "x" * 300_000, "base URL", "error"),
        (307, "", "base URL", "error"),
    ],
)
async def test_what_the_api_answers_is_explained(
    servers: Servers,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    body: str | Mapping[str, Any],
    name: str,
    severity: str,
) -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.headers["X-Api-Key"] == KEY
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, headers={"Location": servers.api.base_url})

    async with served(answer) as address:
        monkeypatch.setenv("BOT_PIKZELS__BASE_URL", address)
        report = await examine(capsys)
    assert report[name][0] == severity, report.output
    assert report.code == (1 if severity == "error" else 0)


class served:  # noqa: N801 - used like a function
    """A server that answers every request with `handler`; entered, it is its address."""

    def __init__(self, handler: Any) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        self._runner = web.AppRunner(app)

    async def __aenter__(self) -> str:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a folder in memory")  # noqa: S108 - nothing is written
def test_a_start_warns_about_a_folder_that_is_in_memory(caplog: pytest.LogCaptureFixture) -> None:
    values = settings_for(Path("/dev/shm/pikzels-bot"), "http://127.0.0.1", {})  # noqa: S108
    run._warn_about_disk(Settings.model_validate(values))
    assert "The folder is in memory (tmpfs) and lost at a restart of the machine;" in caplog.text
    assert not Path("/dev/shm/pikzels-bot").exists()  # noqa: S108
