"""The command line: which commands there are, and what their arguments are. What each does is in `bot.cli`."""

from __future__ import annotations

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C during the imports below ends the program without a traceback; `main` changes it back.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import os
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bot import __version__
from bot.cli import exit_codes, standard_streams
from bot.domain.errors import DatabaseUnusable, InvalidConfiguration
from bot.domain.models import Format, Model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LAST_PORT = 65_535
_WITH_SETTINGS = frozenset({"run", "doctor", "backup", "restore", "health"})  # they read the file; `init` writes it


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    standard_streams.prepare()
    os.umask(0o077)  # only this user may read the database and the spool
    try:
        with standard_streams.checked():
            return _run(argv)
    except InvalidConfiguration as error:
        from bot.text.doctor import invalid_setting  # noqa: PLC0415 - only then

        for setting, problem in error.problems:
            print(invalid_setting(setting, problem), file=sys.stderr)
        return exit_codes.CONFIG
    except DatabaseUnusable as error:
        print(f"The database {error.problem}.", file=sys.stderr)
        return exit_codes.STORAGE
    except BrokenPipeError:  # whoever read the output has ended, like `head`
        return exit_codes.FAILED
    except standard_streams.OutputFailed as error:
        print(f"The output cannot be written: {error.problem}.", file=sys.stderr)
        return exit_codes.FAILED
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED


def _run(argv: Sequence[str] | None) -> int:
    if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    arguments = _parser().parse_args(argv)
    if arguments.config is not None:
        if arguments.command in _WITH_SETTINGS and not arguments.config.is_file():
            how = "is a folder" if arguments.config.is_dir() else "does not exist"
            print(f"--config names {arguments.config}, which {how}.", file=sys.stderr)
            return exit_codes.CONFIG
        os.environ["BOT_CONFIG"] = str(arguments.config)
    # Each command is imported when it is used: the bot that starts needs none of the others.
    command: Callable[[argparse.Namespace], int] = import_module(f"bot.cli.{arguments.command}").main
    return command(arguments)


class _Parser(argparse.ArgumentParser):
    """Tells what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(exit_codes.USAGE, f"{message[:1].upper()}{message[1:]}. Try `{self.prog} --help`.\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=_program(), description="A Discord bot for Pikzels thumbnails.")
    parser.add_argument("--version", action="version", version=f"pikzels-bot {__version__}")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="the file with the settings (default: config.toml in this folder)"
    )
    parser.set_defaults(program=_next_program())
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    commands.add_parser(
        "run",
        help="run the bot",
        description="Run the bot with the settings from config.toml and BOT_… environment variables.",
    )

    commands.add_parser(
        "doctor",
        help="check the settings, the accounts, and this machine",
        description="Print one line per check, with what to do; exit with 1 if an error keeps the bot from running.",
    )

    init = commands.add_parser(
        "init",
        help="ask for what the bot needs, and write its settings",
        description="Ask for what the bot needs, write config.toml and the files of secrets beside it, and check them.",
    )
    init.add_argument("--force", action="store_true", help="replace settings that are already there")

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
        "--save",
        type=Path,
        metavar="FOLDER",
        help="save the first thumbnail there (default: nothing is saved; with --once, the current folder)",
    )
    demo.add_argument(
        "--port",
        type=_port,
        help="port of the page; 0 for any free port (default: 8080, or any free port if 8080 is in use)",
    )

    demo.set_defaults(refuse=demo.error)
    backup = commands.add_parser(
        "backup",
        help="back up the database",
        description="Back up the database, also while the bot runs: then the bot itself makes the backup.",
    )
    backup.add_argument("file", nargs="?", type=Path, metavar="FILE", help="copy the backup to this new file, too")

    verify = commands.add_parser(
        "verify",
        help="check a backup",
        description="Check whether a backup is whole, and whether its ledger is consistent. It stays as it is.",
    )
    verify.add_argument("file", type=Path, metavar="FILE", help="the backup")

    restore = commands.add_parser(
        "restore",
        help="put a backup in the place of the database",
        description="Put a backup in the place of the database, after a check. Stop the bot first.",
    )
    restore.add_argument("file", type=Path, metavar="FILE", help="the backup")
    restore.add_argument("--yes", action="store_true", help="do not ask")
    health = commands.add_parser(
        "health",
        help="ask the running bot how it is",
        description="Ask the bot that runs with these settings whether it is alive. Exit code 0 means yes, 1 means no.",
    )
    health.add_argument(
        "--ready", action="store_true", help="ask whether members can use it: Discord, database, and Pikzels"
    )

    commands.add_parser("version", help="print the version")
    return parser


def _port(text: str) -> int:
    try:
        port = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid int value: {text!r}") from None
    if not 0 <= port <= _LAST_PORT:
        raise argparse.ArgumentTypeError(f"must be from 0 to {_LAST_PORT}")
    return port


def _program() -> str:
    """What the user has typed: the installed command, or the module."""
    name = Path(sys.argv[0]).name
    return name if name.startswith("pikzels-bot") else "python -m bot"


def _next_program() -> str:
    """What the user can type next in this folder: another `python` may lack the packages."""
    if _program() == "python -m bot":
        with suppress(OSError, ValueError):  # it is somewhere else
            return f"{Path(sys.executable).relative_to(Path.cwd())} -m bot"
    return _program()


if __name__ == "__main__":
    raise SystemExit(main())
