"""`doctor`: one line per check of the settings, the accounts, and the machine."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import tomllib
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bot import config
from bot.cli import exit_codes
from bot.domain.diagnosis import Finding, Severity, error, ok, warning
from bot.domain.errors import DatabaseUnusable, InvalidConfiguration
from bot.ops import control, machine, online, ports
from bot.text import doctor as text

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bot.config import Health, Settings
    from bot.domain.diagnosis import Answer

_LEAST_ID = 10**14  # Discord's since 2015
_TIMEOUT = 10.0  # seconds for each server; all are asked at once


def main(_: argparse.Namespace) -> int:
    """0 if the bot can run, 1 if an error keeps it from running, 78 if the settings do."""
    code, _found = report()
    return code


def report() -> tuple[int, Sequence[Finding]]:
    """Make all checks, and print them; returns the exit code, and what was found."""
    try:
        settings = config.load()
    except InvalidConfiguration as invalid:
        problems = [error("settings", text.invalid_setting(setting, problem)) for setting, problem in invalid.problems]
        code, found = exit_codes.CONFIG, [*problems, *_check_installation()]
    else:
        found = examine(settings)
        has_error = any(finding.severity is Severity.ERROR for finding in found)
        code = exit_codes.FAILED if has_error else exit_codes.OK
    for finding in found:
        print(text.line(finding))
    return code, found


def examine(settings: Settings) -> list[Finding]:
    """Make all checks that need valid settings."""
    found = [*_check_files(), *_check_ids(settings), *check_storage(settings), *asyncio.run(_check_accounts(settings))]
    return [*found, machine.check_zone(settings.quota.timezone), *_check_installation()]


def _check_files() -> Iterator[Finding]:
    path = config.file()
    yield ok("settings", text.settings_valid(path if path.exists() else None))
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0
    if os.name != "posix":
        return
    if mode & 0o077 and config.has_secrets(tomllib.loads(path.read_text("utf-8"))):
        yield warning("secrets", text.readable_secrets(path, mode))
    for file in config.secret_files():
        if machine.is_open_to_all(file):
            yield warning("secrets", text.shared_secret(file, machine.owner_of(file)[0]))


def _check_ids(settings: Settings) -> Iterator[Finding]:
    """Ids that nobody has are only a mistake in the real Discord: simulations have such."""
    access, operator, quota = settings.access, settings.operator, settings.quota
    given = access.servers | operator.users | quota.exempt_members | quota.exempt_roles
    if operator.server is not None:
        given |= {operator.server}
    if short := sorted(number for number in given if number < _LEAST_ID):
        yield warning("ids", text.short_ids(short))


def _check_installation() -> Iterator[Finding]:
    from bot.images import fonts  # noqa: PLC0415 - for this command only

    yield from machine.check_installation()
    try:
        with _quiet("matplotlib"):  # where it may not write at home, it says so at length, and writes elsewhere
            missing = fonts.missing_scripts()
    except ImportError:  # it is optional
        return
    except OSError:  # it may not write anywhere
        yield warning("fonts", text.charts_need_a_folder())
        return
    yield machine.judge_fonts(missing)


@contextmanager
def _quiet(library: str) -> Iterator[None]:
    """What the library logs in this block is left out, errors excepted."""
    log = logging.getLogger(library)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def check_storage(settings: Settings) -> Iterator[Finding]:
    folder = settings.storage.folder
    yield machine.check_folder(folder)
    yield from machine.check_inner_folders(folder)
    yield from machine.check_place(folder, most_sources=settings.storage.source_megabytes * machine.MEBIBYTE)
    from bot.storage import backups, glimpse  # noqa: PLC0415 - the database's library

    in_use = glimpse.is_in_use(folder)
    yield _check_database(folder, in_use=in_use)
    backup = settings.backup
    yield machine.check_backups(backup.folder or folder / backups.FOLDER, are_scheduled=backup.minutes > 0)
    yield _check_health(settings.health, is_running=in_use or control.is_served(folder / control.NAME))


def _check_database(folder: Path, *, in_use: bool) -> Finding:
    from bot.storage import glimpse  # noqa: PLC0415 - the database's library

    try:
        if denied := machine.denied_file(glimpse.files_of(folder)):
            return error("database", text.database_denied(denied, *machine.owner_of(denied)))
        schema = glimpse.schema_of(folder)
    except DatabaseUnusable as unusable:
        return error("database", text.database_unusable(unusable.problem))
    except OSError as problem:  # the folder cannot be entered
        return error("database", text.database_unusable(f"cannot be read: {problem.strerror}"))
    if schema is None:
        return ok("database", text.database_new())
    if not in_use and (damage := glimpse.damage_in(folder)):
        return error("database", text.database_damaged(damage))
    version, newest = schema
    return ok("database", text.database_usable(version, newest, in_use=in_use))


def _check_health(health: Health, *, is_running: bool) -> Finding:
    if health.port is None:
        return ok("health", text.no_health())
    if is_running:
        return ok("health", text.health_in_use(health.host, health.port))
    try:
        ports.try_port(health.host, health.port)
    except OSError as problem:
        return error("health", text.invalid_setting(*ports.described(problem, host=health.host, port=health.port)))
    return ok("health", text.health_served(health.host, health.port))


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
