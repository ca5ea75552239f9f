"""What admins read about the usage of their server, as text and as a picture."""

from __future__ import annotations

import asyncio
import sys
from datetime import date, timedelta
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from bot.domain.models import Model
from bot.domain.usage import Usage
from bot.images import usage_chart
from bot.text import usage as texts

if TYPE_CHECKING:
    from collections.abc import Sequence

DAYS = [date(2026, 10, 29) + timedelta(days=n) for n in range(30)]


def usage(
    *, days: Sequence[date] = DAYS, pkz_4: int = 2, members: Sequence[tuple[int, int]] = ((7, 50), (0, 10))
) -> Usage:
    amounts = {model: [0] * len(days) for model in Model}
    amounts[Model.PKZ_4] = [pkz_4] * len(days)
    return Usage(days, amounts, members if pkz_4 else ())


def drawn(found: Usage, names: dict[int, str]) -> Image.Image:
    png = asyncio.run(usage_chart.draw(found, names))
    assert png is not None
    return Image.open(BytesIO(png), formats=["PNG"])


@pytest.mark.parametrize("name", ["Ann", "$x_1$ \\frac", "漢字", "", "🐈 cat", "x" * 32, "\u202eevil\n", "\\", "$"])
def test_the_chart_is_a_png_that_fits_a_phone_whatever_people_are_called(name: str) -> None:
    image = drawn(usage(members=((7, 50), (8, 1), (0, 3))), {7: name, 8: "Ben"})
    assert image.size == (1080, 1350)
    shown = [color for _, color in sorted(image.convert("RGB").getcolors(1 << 24) or [], reverse=True)]
    assert shown[0] == (0x26, 0x28, 0x2C), "an opaque card"
    assert (0x00, 0x9E, 0x73) in shown, "bars of PKZ 4"


def test_the_chart_of_a_server_that_used_nothing_says_so_without_a_warning() -> None:
    assert drawn(usage(pkz_4=0), {}).size == (1080, 1350)
    assert drawn(usage(days=DAYS[:1]), {}).size == (1080, 1350)


def test_without_matplotlib_there_is_no_chart(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert asyncio.run(usage_chart.draw(usage(), {})) is None


def test_the_table_has_the_sums_the_latest_days_and_the_members() -> None:
    text = texts.table(usage())
    assert text.splitlines()[:3] == ["**Last 30 days**: 60 credits used or held", "- PKZ 4: 60 credits", "```"]
    assert "Fri 27 Nov  ▰▰▰▰▰▰▰▰▰▰  2" in text
    assert text.count("▰▰▰▰▰▰▰▰▰▰") == 7
    assert text.splitlines()[-2:] == ["- <@7>: 50 credits", "- deleted: 10 credits"]


def test_the_table_of_a_server_that_used_nothing_is_one_line() -> None:
    assert texts.table(usage(pkz_4=0)) == "**Last 30 days**: 0 credits used or held"


def test_the_table_fits_a_message() -> None:
    assert len(texts.table(usage(members=[(2**62 + n, 10**9) for n in range(10)]))) < 2000
