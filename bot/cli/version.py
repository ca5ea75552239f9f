"""`version`: which version this is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot import __version__
from bot.cli import exit_codes

if TYPE_CHECKING:
    import argparse


def main(_: argparse.Namespace) -> int:
    print(f"pikzels-bot {__version__}")
    return exit_codes.OK
