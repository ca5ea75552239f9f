"""`doctor`: one line per check of the settings, the accounts, and the machine."""

from __future__ import annotations

import asyncio
import os
import stat
import tomllib
from contextlib import suppress
from typing import TYPE_CHECKING

from bot import config
from bot.cli import exit_codes
from bot.domain.diagnosis import Finding, Severity, error, ok, warning
from bot.domain.errors import DatabaseUnusable, InvalidConfiguration
from bot.ops import machine, online
from bot.text import doctor as text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from bot.config import Settings
    from bot.domain.diagnosis import Answer

_TIMEOUT = 10.0  # seconds for each server; all are asked at once


def main(_: argparse.Namespace) -> int:
    """0 if the bot can run, 1 if an error keeps it from running, 78 if the settings do."""
    try:
        settings = config.load()
    except InvalidConfiguration as invalid:
        for setting, problem in invalid.problems:
            _show(error("settings", text.invalid_setting(setting, problem)))
        _show(*_check_installation())
        return exit_codes.CONFIG
    return examine(settings)


def examine(settings: Settings) -> int:
    """Make all checks that need valid settings, and print them; returns the exit code."""
    found = [*_check_files(), *_check_storage(settings), *asyncio.run(_check_accounts(settings))]
    found += [machine.check_zone(settings.quota.timezone), *_check_installation()]
    _show(*found)
    return exit_codes.FAILED if any(finding.severity is Severity.ERROR for finding in found) else exit_codes.OK


def _show(*findings: Finding) -> None:
    for finding in findings:
        print(text.line(finding))


def _check_files() -> Iterator[Finding]:
    path = config.file()
    yield ok("settings", text.settings_valid(path if path.exists() else None))
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0
    if mode & 0o077 and os.name == "posix" and _has_secrets(tomllib.loads(path.read_text("utf-8"))):
        yield warning("secrets", text.readable_secrets(path, mode))


def _check_installation() -> Iterator[Finding]:
    from bot.images import fonts  # noqa: PLC0415 - for this command only

    yield from machine.check_installation()
    with suppress(ImportError):  # matplotlib is optional
        yield machine.judge_fonts(fonts.missing_scripts())


def _has_secrets(values: dict[str, dict[str, object]]) -> bool:
    """Whether a config.toml contains a secret itself, and not only the name of a file."""
    named = (("discord", "token"), ("pikzels", "api_key"), ("alerts", "webhook"))
    return any(name in values.get(section, {}) for section, name in named)


def _check_storage(settings: Settings) -> Iterator[Finding]:
    folder = settings.storage.folder
    yield machine.check_folder(folder)
    yield from machine.check_place(folder, most_sources=settings.storage.source_megabytes * machine.MEBIBYTE)
    try:
        from bot.storage import glimpse  # noqa: PLC0415 - the database's library

        schema = glimpse.schema_of(folder)
        in_use = glimpse.is_in_use(folder)
    except DatabaseUnusable as unusable:
        yield error("database", text.database_unusable(unusable.problem))
        return
    if schema is None:
        yield ok("database", text.database_new())
    else:
        version, newest = schema
        yield ok("database", text.database_usable(version, newest, in_use=in_use))


async def _check_accounts(settings: Settings) -> list[Finding]:
    """Ask Discord, Pikzels, and the webhook, all at once."""
    from bot.discord_io import application  # noqa: PLC0415 - discord.py is slow to import, and invalid settings go first

    (user, own, gateway), key, webhook = await asyncio.gather(
        _ask_discord(settings), _ask_pikzels(settings), _ask_webhook(settings)
    )
    pikzels = settings.pikzels
    return [
        *online.judge_discord(user, own, gateway, servers=settings.access.servers, invite_link=application.invite_link),
        *online.judge_key(key, base_url=pikzels.base_url, on_this_machine=pikzels.on_this_machine),
        online.judge_webhook(webhook),
        _check_operator(settings),
        online.judge_clock({"Discord": user, "Pikzels": key}),
    ]


def _check_operator(settings: Settings) -> Finding:
    users, server = settings.operator.users, settings.operator.server
    if users and server is not None:
        return ok("operator", text.operator_complete())
    if not users and server is None:
        return ok("operator", text.no_operator())
    return warning("operator", text.operator_incomplete("server" if users else "users"))


async def _ask_discord(settings: Settings) -> tuple[Answer, Answer, Answer]:
    from bot.discord_io.application import OwnApplication  # noqa: PLC0415

    async with OwnApplication(token=settings.discord.token.get_secret_value(), timeout=_TIMEOUT) as own:
        return await own.look_up()


async def _ask_pikzels(settings: Settings) -> Answer:
    from bot.pikzels.client import Pikzels  # noqa: PLC0415

    key, base_url = settings.pikzels.api_key.get_secret_value(), settings.pikzels.base_url
    async with Pikzels(api_key=key, base_url=base_url, timeout=_TIMEOUT) as pikzels:
        return await pikzels.try_key()


async def _ask_webhook(settings: Settings) -> Answer | None:
    import aiohttp  # noqa: PLC0415

    from bot.http_session import HttpClient  # noqa: PLC0415

    if settings.alerts.webhook is None:
        return None
    async with HttpClient(timeout=aiohttp.ClientTimeout(total=_TIMEOUT)) as client:
        return await client.ask(settings.alerts.webhook.get_secret_value())
