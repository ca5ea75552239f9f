"""Sets up logging: a line or a JSON object per record, with the job's id and without secrets."""

from __future__ import annotations

import contextvars
import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bot.ops import reconnect_log

if TYPE_CHECKING:
    from collections.abc import Iterable

job_id: contextvars.ContextVar[str] = contextvars.ContextVar("job_id", default="")

# Patterns of secrets that may appear in any text, no matter what logged it.
_SHAPES = (
    (re.compile(r"pkz_[A-Za-z0-9_-]{6,}"), "pkz_…"),
    (re.compile(r"(?i)(x-api-key['\"]?\s*[:=]\s*['\"]?)[^\s'\",)]+"), r"\1…"),
    (re.compile(r"[MNO][A-Za-z0-9_-]{22,28}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,}"), "…"),  # a Discord bot token
    (re.compile(r"((?:webhooks|interactions)/\d+/)[A-Za-z0-9._~-]+"), r"\1…"),  # a token in a URL
    (re.compile(r"([?&](?:ex|is|hm)=)[0-9a-fA-F]+"), r"\1…"),  # a signature of Discord's CDN
)

# Their DEBUG lines carry request bodies, SQL parameters and URLs with tokens.
_NEVER_DEBUG = ("discord", "aiosqlite", "aiohttp", "asyncio")


class Redactor:
    """Removes the given secrets, and everything that looks like one, from a text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = tuple(sorted((secret for secret in secrets if secret), key=len, reverse=True))

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "…")
        for shape, replacement in _SHAPES:
            text = shape.sub(replacement, text)
        return text


class _Lines(logging.Formatter):
    """One line per record, for people."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%d %H:%M:%S")
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        return self._redact(super().format(record))


class _Objects(logging.Formatter):
    """One JSON object per line, for machines; the `facts` of a record become fields of their own."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "job": job_id.get() or None,
            "error": self.formatException(record.exc_info) if record.exc_info else None,
            **getattr(record, "facts", {}),
        }
        known = {name: value for name, value in fields.items() if value not in (None, "")}
        return json.dumps({name: self._safe(value) for name, value in known.items()}, ensure_ascii=False)

    def _safe(self, value: object) -> object:
        return self._redact(value) if isinstance(value, str) else value


def set_up(*, level: str, as_json: bool | None, secrets: Iterable[str]) -> None:
    """Send every log record to standard error, redacted: as JSON, as lines, or as lines only on a terminal. Replaces
    any earlier setup.
    """
    redact = Redactor(secrets)
    as_json = not sys.stderr.isatty() if as_json is None else as_json
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Objects(redact) if as_json else _Lines(redact))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _NEVER_DEBUG:
        logging.getLogger(name).setLevel(max(logging.getLevelName(level), logging.INFO))
    # Its one warning, at every start, is about the guilds intent, which is off on purpose.
    logging.getLogger("discord.state").setLevel(logging.ERROR)
    reconnect_log.set_up()
