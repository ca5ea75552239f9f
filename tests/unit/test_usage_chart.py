"""The usage of a server as a picture."""

from __future__ import annotations

import asyncio
import sys
import threading
from datetime import date, timedelta
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from fontTools.fontBuilder import FontBuilder  # type: ignore[import-untyped]
from fontTools.pens.ttGlyphPen import TTGlyphPen  # type: ignore[import-untyped]
from matplotlib import font_manager
from PIL import Image

from bot.domain.models import Model
from bot.domain.usage import Usage, Used
from bot.images import fonts, usage_chart

if TYPE_CHECKING:
    from pathlib import Path

TODAY = date(2026, 11, 27)


def usage(*members: int, days: int = 30) -> Usage:
    """Each of the members uses two credits on each day."""
    rows = [Used(TODAY - timedelta(days=ago), member, Model.PKZ_4, 1, 2) for ago in range(days) for member in members]
    return Usage(TODAY, rows)


def drawn(found: Usage, names: dict[int, str]) -> Image.Image:
    png = asyncio.run(usage_chart.draw(found, names))
    assert png is not None
    return Image.open(BytesIO(png), formats=["PNG"])


@pytest.mark.parametrize("name", ["Ann", "$x_1$ \\frac", "漢字", "", "🐈 cat", "x" * 32, "\u202eevil\n", "\\", "$"])
def test_the_chart_is_a_png_that_fits_a_phone_whatever_people_are_called(name: str) -> None:
    image = drawn(usage(7, 8, 0), {7: name, 8: "Ben"})
    assert image.size == (1080, 1350)
    shown = [color for _, color in sorted(image.convert("RGB").getcolors(1 << 24) or [], reverse=True)]
    assert shown[0] == (0x26, 0x28, 0x2C), "an opaque card"
    assert (0x00, 0x9E, 0x73) in shown, "bars of PKZ 4"


def test_the_chart_of_a_server_that_used_nothing_says_so_without_a_warning() -> None:
    assert drawn(usage(), {}).size == (1080, 1350)
    assert drawn(usage(7, days=1), {}).size == (1080, 1350)


@pytest.fixture
def cjk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A font with a few Chinese, Japanese, and Korean letters is installed, but was not when matplotlib looked."""
    letters = {ord(letter): f"u{ord(letter):X}" for letter in "的我のア한이"}
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", *letters.values()])
    font.setupCharacterMap(letters)
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 800), (800, 800), (800, 0)):
        pen.lineTo(corner)
    pen.closePath()
    font.setupGlyf(dict.fromkeys([".notdef", *letters.values()], pen.glyph()))
    font.setupHorizontalMetrics(dict.fromkeys([".notdef", *letters.values()], (1000, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Noto Sans CJK JP", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "cjk.ttf")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*font_manager.fontManager.ttflist])
    monkeypatch.setattr(font_manager, "X11FontDirectories", [str(tmp_path)])


def drawn_label(name: str) -> str:
    return usage_chart._label(name, 70_007, letters=fonts.letters(fonts.families()))


@pytest.mark.usefixtures("cjk")
def test_names_are_written_in_a_font_that_was_installed_for_them() -> None:
    assert fonts.missing_scripts() == []
    assert drawn_label("的Annのア한") == "的Annのア한"
    assert drawn(usage(7), {7: "的Ann"}).size == (1080, 1350)  # matplotlib warns of a letter that it cannot write


def test_without_such_a_font_their_members_are_shown_by_the_end_of_their_id() -> None:
    bare = [fonts.families()[0]]
    assert usage_chart._label("的我", 70_007, letters=fonts.letters(bare)) == "…0007"
    assert usage_chart._label("的Ann", 70_007, letters=fonts.letters(bare)) == "Ann"


class Missing:
    """Finds no matplotlib, and notes the threads that looked for it."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] == "matplotlib":
            self.threads.append(threading.current_thread())
            raise ModuleNotFoundError(name)


def test_without_matplotlib_there_is_no_chart_and_nobody_waits_for_its_import(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Missing()
    for module in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [missing, *sys.meta_path])
    assert asyncio.run(usage_chart.draw(usage(7), {})) is None
    assert missing.threads
    assert threading.main_thread() not in missing.threads
