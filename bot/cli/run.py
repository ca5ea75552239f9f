"""`run`: the bot itself, until a signal."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from typing import TYPE_CHECKING, Any

from bot.cli import exit_codes
from bot.domain.diagnosis import Severity
from bot.domain.errors import DatabaseUnusable, InvalidConfiguration

if TYPE_CHECKING:
    import argparse
    from collections.abc import Coroutine

    from bot.config import Settings

log = logging.getLogger("bot")


def main(_: argparse.Namespace) -> int:
    """Returns the exit code; raises `InvalidConfiguration`, `DatabaseUnusable`."""
    # The kernel holds these signals until the bot listens for them. Otherwise, they would kill the process, or be lost
    # if it is PID 1.
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    gc.disable()  # imports leave hardly any garbage, but looking for it delays the start; the supervisor enables it
    from bot import config  # noqa: PLC0415 - slow to import

    settings = config.load()
    from bot import supervisor  # noqa: PLC0415 - an invalid setting is reported before discord.py is even imported
    from bot.ops import logs  # noqa: PLC0415

    logs.set_up(level=settings.log.level, as_json=settings.log.json_lines, secrets=settings.secrets())
    _warn_about_disk(settings)
    try:
        _run_loop(supervisor.run(settings))
    except (InvalidConfiguration, DatabaseUnusable):
        raise
    except Exception:
        log.exception("the bot stopped because of an internal error")
        return exit_codes.FAULT
    return exit_codes.OK


def _warn_about_disk(settings: Settings) -> None:
    """Say what `doctor` would say about the disk, if it is not well; the start goes on. How much the source images may
    still grow is left out, because counting many of them takes a while.
    """
    from bot.ops import machine  # noqa: PLC0415

    for finding in machine.check_place(settings.storage.folder):
        if finding.severity is not Severity.OK:
            log.warning("%s", finding.text)


def _run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Use uvloop where it is available: it needs about half the CPU time per request of the standard loop."""
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        asyncio.run(work)
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)
