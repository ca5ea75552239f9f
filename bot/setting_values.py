"""What the values of settings must be like: secrets, addresses, ids, and time zones."""

from __future__ import annotations

import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, SecretStr

from bot.domain.errors import InvalidSetting
from bot.domain.validation import preset_id

KEY_PREFIX = "pkz_"
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_NO_ID = "must be a Discord id, like 123456789012345678"
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f.]*:[0-9a-f:.]*(?:%[a-z0-9._-]+)?", re.IGNORECASE)  # a name or an IP address
_WEBHOOK = re.compile(
    r"https://(?:(?:ptb|canary)\.)?discord(?:app)?\.com/api/(?:v\d+/)?webhooks/\d+/[A-Za-z0-9._~-]+(?:\?thread_id=\d+)?"
)
_ON_THIS_MACHINE = re.compile(r"http://(?:127\.0\.0\.1|localhost|\[::1\])(?::\d+)?/\S*")  # for a simulated Discord


def _is_base_url(value: str) -> str:
    if not _is_safe(value):
        raise ValueError("must be an HTTPS URL (HTTP is allowed only on this machine)")
    if not _has_usable_host_and_port(value):
        raise ValueError("must have a valid host and port, like https://api.pikzels.com or http://127.0.0.1:8099")
    return value.rstrip("/")


def _is_safe(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    encrypted = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
    return bool(encrypted and parts.hostname) and not (parts.query or parts.fragment or "@" in parts.netloc)


def _has_usable_host_and_port(url: str) -> bool:
    """Whether a connection can be tried at all: everything else would fail only with the first request."""
    if " " in url or not url.isprintable():
        return False
    parts = urlsplit(url)
    try:
        host = (parts.hostname or "").encode("idna").decode("ascii")
        return parts.port != 0 and _HOST.fullmatch(host) is not None
    except ValueError:  # a port that is no number or too large, or a name that has no form for DNS
        return False


def _is_key(value: SecretStr) -> SecretStr:
    key = value.get_secret_value().strip()
    if not (key and key.isascii() and key.isprintable()):
        raise ValueError("must be a key of printable ASCII characters")
    return SecretStr(key)


def _has_prefix(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().startswith(KEY_PREFIX):
        raise ValueError(f"must begin with {KEY_PREFIX}")
    return value


def _is_webhook(value: SecretStr) -> SecretStr:
    url = value.get_secret_value()
    if not (_WEBHOOK.fullmatch(url) or _ON_THIS_MACHINE.fullmatch(url)):
        raise ValueError("must be the URL of a Discord webhook, like https://discord.com/api/webhooks/<id>/<token>")
    return value


def _is_no_fraction(value: object) -> object:
    """A fraction as large as an id has lost its last digits; `true` would be 1."""
    if isinstance(value, bool | float) or (isinstance(value, str) and "." in value):
        raise ValueError(_NO_ID)
    return value


def _is_id(value: int) -> int:
    if not 0 < value < 1 << 63:  # SQLite has no larger integers
        raise ValueError(_NO_ID)
    return value


def _is_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("must be a time zone like UTC or Europe/Berlin") from None
    return value


def _is_preset_id(value: str) -> str:
    try:
        return preset_id(value)
    except InvalidSetting:
        raise ValueError("must be an id like 0b5c6a3e-1d2f-4c3b-9a8d-7e6f5a4b3c2d") from None


def _is_folder(value: Path) -> Path:
    folder = expanded(value)
    if str(value).startswith("~") and folder == value:
        raise ValueError("begins with ~, but that user has no home folder")
    return folder


def expanded(path: Path) -> Path:
    """With the home folder in the place of a `~` at the beginning, if there is one: no shell has seen the settings."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


@dataclass(frozen=True, slots=True)
class Unusable:
    """Stands in for a value that cannot be had: `problem` says why, in one clause about `setting`, or about the setting
    that it is the value of.
    """

    problem: str
    setting: str | None = None


def is_secret(annotation: Any) -> bool:
    return annotation is SecretStr or any(is_secret(inner) for inner in get_args(annotation))


def secret_in(name: Path) -> str | Unusable:
    """What the file contains, or why that is no secret. Only the file, its mode, and its owner are ever named."""
    file = expanded(name)
    try:
        secret = file.read_text("utf-8").strip()
    except UnicodeDecodeError:
        return Unusable(f"is in the file {file}, which is not UTF-8 text")
    except (OSError, ValueError) as error:  # a name that contains a null character is a ValueError
        return Unusable(f"is in the file {file}, which cannot be read ({why_unreadable(error, file)})")
    return secret or Unusable(f"is in the file {file}, which is empty")


def why_unreadable(error: OSError | ValueError, file: Path) -> str:
    """Why a file cannot be read, and who may read it."""
    reason = getattr(error, "strerror", None) or type(error).__name__
    with suppress(OSError, ValueError):
        found = file.stat()
        return f"{reason.lower()}; its mode is {stat.S_IMODE(found.st_mode):04o}, its owner is user {found.st_uid}"
    return str(reason).lower()


Secret = Annotated[SecretStr, AfterValidator(_is_key)]
ApiKey = Annotated[Secret, AfterValidator(_has_prefix)]
Webhook = Annotated[Secret, AfterValidator(_is_webhook)]
BaseUrl = Annotated[str, AfterValidator(_is_base_url)]
PresetId = Annotated[str, AfterValidator(_is_preset_id)]
Folder = Annotated[Path, AfterValidator(_is_folder)]
DiscordId = Annotated[int, BeforeValidator(_is_no_fraction), AfterValidator(_is_id)]
TimeZone = Annotated[str, AfterValidator(_is_zone)]
