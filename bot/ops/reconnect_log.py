"""Keeps the log short while Discord cannot be reached: sentences for discord.py's tracebacks, ever fewer of them."""

from __future__ import annotations

import logging

from bot.text import operator

_LOGGERS = ("discord.client", "discord.shard", "discord.gateway", "bot.discord_io.shards")
_FIRST = 3  # tries that are all told

# How discord.py 2.7 begins its lines; the tests fail if a newer one says it differently.
_RECONNECT = "Attempting a reconnect"
_LOGIN = "logging in"
_CONNECTED = ("has connected to Gateway", "has successfully RESUMED")


def is_told(tries: int) -> bool:
    """Whether the log tells of so many tries in a row: of the first ones, and then of every second, fourth, eighth …"""
    return tries <= _FIRST or tries & (tries - 1) == 0


class ReconnectFilter(logging.Filter):
    """Turns the traceback of each failed reconnect into a sentence, and counts until there is a connection again."""

    def __init__(self) -> None:
        super().__init__()
        self._reconnects = self._logins = 0

    def filter(self, record: logging.LogRecord) -> bool:
        line = str(record.msg)
        if line.startswith(_RECONNECT):
            self._reconnects += 1
            _shorten(record)
            return is_told(self._reconnects)
        if line.startswith(_LOGIN):
            self._logins += 1
            return is_told(self._logins)
        if any(words in line for words in _CONNECTED):
            self._reconnects = self._logins = 0
        return True


def _shorten(record: logging.LogRecord) -> None:
    error = record.exc_info[1] if record.exc_info else None
    seconds = record.args[-1] if isinstance(record.args, tuple) and record.args else 0
    record.msg = operator.discord_unreachable(observed(error), float(str(seconds)))
    record.args = record.exc_info = record.exc_text = None
    record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)


def observed(error: BaseException | None) -> str:
    """An error in a few words, without what it quotes: its class, and the HTTP status if it has one."""
    status = getattr(error, "status", None)
    name = "unknown" if error is None else type(error).__name__
    return f"{name} {status}" if isinstance(status, int) and status else name


def set_up() -> None:
    """Filter discord.py's lines; replaces any earlier setup."""
    only = ReconnectFilter()
    for name in _LOGGERS:
        logging.getLogger(name).filters[:] = [only]
