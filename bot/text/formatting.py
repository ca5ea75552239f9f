"""The small parts that sentences are made of: names, amounts, times, and text made safe to show."""

from __future__ import annotations

import math
import re
import unicodedata
from types import MappingProxyType
from typing import TYPE_CHECKING

from bot.domain.models import Format, Model

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta

CONTENT_LENGTH = 2000  # Discord: characters in one message
ALT_LENGTH = 1024  # Discord: characters in an attachment's description

NOT_CHARGED = "You were not charged."

MODELS: Mapping[Model, str] = MappingProxyType(
    {Model.PKZ_2: "PKZ 2", Model.PKZ_3: "PKZ 3", Model.PKZ_4: "PKZ 4", Model.PKZ_4_5: "PKZ 4.5"}
)
FORMATS: Mapping[Format, str] = MappingProxyType(
    {Format.WIDE: "16:9 · YouTube", Format.TALL: "9:16 · Shorts", Format.SQUARE: "1:1 · square"}
)

_SHOWN_CATEGORIES = re.compile(r"[LMNPSZ].|Co")


def credits_(amount: int) -> str:
    return f"{amount} credit" if amount == 1 else f"{amount} credits"


def days(span: timedelta) -> str:
    return "1 day" if span.days == 1 else f"{span.days} days"


def images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"


def megabytes(size: int) -> str:
    return f"{size / 1024 / 1024:.1f} MB"


def megapixels(pixels: int) -> str:
    """Rounded up to one decimal: an amount over a limit never looks like the limit."""
    amount = math.ceil(pixels / 100_000) / 10
    return f"{amount:g} megapixel" if amount == 1 else f"{amount:g} megapixels"


def relative_time(at: datetime) -> str:
    """A timestamp that Discord counts down by itself."""
    return f"<t:{int(at.timestamp())}:R>"


def date_and_time(at: datetime) -> str:
    """A timestamp that Discord shows in each reader's own time zone."""
    return f"<t:{int(at.timestamp())}:f>"


def ordinal(number: int) -> str:
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def listed(items: Sequence[str], conjunction: str) -> str:
    """Items as English lists them: "a", "a or b", "a, b or c"."""
    *others, last = items
    return f"{', '.join(others)} {conjunction} {last}" if others else last


def harmless(text: str) -> str:
    """A member's text, safe inside a code block: no backticks, no control, bidi or zero-width characters."""
    shown = (" " if character in "\u2028\u2029" else character for character in text.replace("`", "ˋ"))
    return "".join(c for c in shown if _SHOWN_CATEGORIES.match(unicodedata.category(c)))


def quoted(text: str) -> str:
    """What an admin or the operator has written, in a message: it can neither mention, nor link, nor format."""
    return f"`{shortened(harmless(text).strip(), 200) or '–'}`"


def bar(used: int, amount: int, *, width: int = 10) -> str:
    """How much of something is used. Only what is used up fills the bar, and what is not unused is never empty."""
    filled = width if used >= amount else min(width - 1, math.ceil(width * used / amount))
    return "▰" * filled + "▱" * (width - filled)


def dollars(millionths: int) -> str:
    return f"${millionths / 1_000_000:,.2f}"


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def code_block(text: str) -> str:
    """`text` on lines of its own, where nothing in it can mention or link; nothing for an empty one."""
    return f"\n```\n{text}\n```" if text else ""


def message_link(guild_id: int | None, channel_id: int, message_id: int) -> str:
    return f"https://discord.com/channels/{guild_id or '@me'}/{channel_id}/{message_id}"
