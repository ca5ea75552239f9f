"""`health`: how the bot that runs with these settings is. Imports little, since Docker may ask every few seconds."""

from __future__ import annotations

import json
import sys
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any

from bot import config
from bot.cli import exit_codes
from bot.domain.errors import InvalidConfiguration
from bot.text import health as text

if TYPE_CHECKING:
    import argparse

_TIMEOUT_SECONDS = 3.0
_THIS_MACHINE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - where to find who listens there


def main(arguments: argparse.Namespace) -> int:
    """Print a line for each part; raises `InvalidConfiguration` if the bot serves no health."""
    settings = config.load().health
    if not settings.port:
        raise InvalidConfiguration("health.port", text.NO_PORT if settings.port is None else text.ANY_PORT)
    host = _THIS_MACHINE.get(settings.host, settings.host)
    try:
        well, parts = _ask(host, settings.port, "/readyz" if arguments.ready else "/healthz")
    except OSError as error:
        print(text.unreachable(host, settings.port, type(error).__name__), file=sys.stderr)
        return exit_codes.FAILED
    except (HTTPException, ValueError):
        print(text.not_this_bot(host, settings.port), file=sys.stderr)
        return exit_codes.FAILED
    for name, state in parts.items():
        print(f"{name}: {state}")
    return exit_codes.OK if well else exit_codes.FAILED


def _ask(host: str, port: int, path: str) -> tuple[bool, dict[str, Any]]:
    """Whether all is well, and the parts. Raises `OSError`, `HTTPException`, and `ValueError` for another answer."""
    connection = HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        parts = json.loads(response.read(65_536))
    finally:
        connection.close()
    if not isinstance(parts, dict) or response.status not in (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE):
        raise ValueError
    return response.status == HTTPStatus.OK, parts
