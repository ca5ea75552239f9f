"""The command line: run, demo, version."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot import __version__
from bot.domain.errors import DatabaseUnusable, InvalidConfiguration
from bot.domain.models import Format, Model

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

log = logging.getLogger("bot")

# From sysexits.h, so that a process supervisor can tell "fix it, then restart" from "restart".
EXIT_OK, EXIT_FAULT, EXIT_STORAGE, EXIT_CONFIG = 0, 70, 74, 78


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    os.umask(0o077)  # only this user may read the database and the spool
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except InvalidConfiguration as error:
        print(f"Setting {error.setting} {error.problem}.", file=sys.stderr)
        return EXIT_CONFIG
    except DatabaseUnusable as error:
        print(f"The database {error.problem}.", file=sys.stderr)
        return EXIT_STORAGE
    except KeyboardInterrupt:
        return EXIT_OK


def _run(_: argparse.Namespace) -> int:
    # The kernel holds these signals until the bot listens for them. Otherwise, they would kill the process, or be lost
    # if it is PID 1.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    gc.disable()  # imports leave hardly any garbage, but looking for it delays the start; the supervisor enables it
    from bot import config  # noqa: PLC0415 - slow to import

    settings = config.load()
    from bot import supervisor  # noqa: PLC0415 - an invalid setting is reported before discord.py is even imported
    from bot.ops import logs  # noqa: PLC0415

    logs.set_up(level=settings.log.level, as_json=settings.log.json_lines, secrets=settings.secrets())
    try:
        _run_loop(supervisor.run(settings))
    except (InvalidConfiguration, DatabaseUnusable):
        raise
    except Exception:
        log.exception("the bot stopped because of an internal error")
        return EXIT_FAULT
    return EXIT_OK


def _run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Use uvloop where it is available: it needs about half the CPU time per request of the standard loop."""
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        asyncio.run(work)
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


def _demo(arguments: argparse.Namespace) -> int:
    try:
        from sandbox.demo import main as demo  # noqa: PLC0415 - only for the demo; the bot runs without it
    except ImportError as error:
        print(f"The demo needs the packages in requirements/demo.lock ({error.name} is missing).")
        return EXIT_CONFIG
    return demo(arguments)


def _version(_: argparse.Namespace) -> int:
    print(f"pikzels-bot {__version__}")
    return EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bot", description="A Discord bot for Pikzels thumbnails.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="run the bot",
        description="Run the bot with the settings from config.toml and BOT_… environment variables.",
    )
    run.set_defaults(command=_run)

    demo = commands.add_parser(
        "demo",
        help="try the bot without a token, a key, or the internet",
        description="Serve a page to try /thumbnail: the real bot in a simulated Discord, with a simulated Pikzels.",
    )
    demo.add_argument(
        "--once", type=Path, metavar="IMAGE", help="generate one thumbnail from this image, without the page"
    )
    demo.add_argument("--model", choices=[str(model) for model in Model], help="model to use, with --once")
    demo.add_argument("--format", choices=[str(format_) for format_ in Format], help="format to use, with --once")
    demo.add_argument("--prompt", help="prompt to use, with --once")
    demo.add_argument(
        "--port",
        type=int,
        help="port of the page; 0 for any free port (default: 8080, or any free port if 8080 is in use)",
    )
    demo.set_defaults(command=_demo)

    version = commands.add_parser("version", help="print the version")
    version.set_defaults(command=_version)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
