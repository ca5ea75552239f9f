"""The fonts of the usage chart: the one that matplotlib brings, and installed ones for names that it cannot write.

Every function needs matplotlib, and raises `ImportError` without it.
"""

from __future__ import annotations

from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_BROUGHT = "DejaVu Sans"
# Families with Chinese, Japanese, or Korean, as Debian, Fedora, macOS, and Windows have them; the first is preferred.
_FAMILIES = (
    *(f"Noto Sans CJK {region}" for region in ("JP", "SC", "TC", "KR", "HK")),
    *(f"Noto Sans {region}" for region in ("JP", "SC", "TC", "KR", "HK")),
    *("Source Han Sans", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback"),
    *("IPAexGothic", "IPAGothic", "VL Gothic", "TakaoGothic", "NanumGothic", "UnDotum"),
    *("PingFang SC", "Hiragino Sans", "Hiragino Sans GB", "Apple SD Gothic Neo", "Arial Unicode MS"),
    *("Microsoft YaHei", "Yu Gothic", "MS Gothic", "Malgun Gothic"),
)
# Letters without which a font does not have the script.
_SCRIPTS: Mapping[str, str] = MappingProxyType({"Chinese": "的我", "Japanese": "のア", "Korean": "한이"})


def families() -> list[str]:
    """The families in which names are written: each letter in the first one that has it."""
    from matplotlib import font_manager  # noqa: PLC0415 - optional and slow to import

    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known:  # matplotlib keeps a list of what was installed when it was used first
            with suppress(OSError, RuntimeError, ValueError):  # no font that it can read
                font_manager.fontManager.addfont(path)
    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    return [_BROUGHT, *(family for family in _FAMILIES if family in installed)]


def letters(names: list[str]) -> set[int]:
    """The code points that these families have together."""
    from matplotlib import font_manager  # noqa: PLC0415

    return {point for name in names for point in font_manager.get_font(font_manager.findfont(name)).get_charmap()}


def missing_scripts() -> list[str]:
    """The scripts in which no name can be written."""
    found = letters(families())
    return [script for script, sample in _SCRIPTS.items() if not found.issuperset(map(ord, sample))]
