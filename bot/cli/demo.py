"""`demo`: the bot in a simulated Discord."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from bot.cli import exit_codes

if TYPE_CHECKING:
    import argparse


def main(arguments: argparse.Namespace) -> int:
    for name in ("model", "format", "prompt"):
        if arguments.once is None and getattr(arguments, name) is not None:
            arguments.refuse(f"argument --{name}: can only be used with --once")
    if arguments.once is not None and arguments.port is not None:
        arguments.refuse("argument --port: cannot be used with --once, which serves no page")
    try:
        from sandbox.demo import main as demo  # noqa: PLC0415 - only for the demo; the bot runs without it
    except ImportError as error:
        print(f"The demo needs the packages in requirements/demo.lock ({error.name} is missing).", file=sys.stderr)
        return exit_codes.CONFIG
    return demo(arguments)
