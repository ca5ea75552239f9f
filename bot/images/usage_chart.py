"""Draws the usage of a server: credits per day and model, and the members who used the most.

matplotlib is optional (`pip install "pikzels-bot[charts]"`); without it there is no picture.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from io import BytesIO
from types import MappingProxyType
from typing import TYPE_CHECKING

from bot.domain.models import Model
from bot.domain.usage import MOST_SHOWN
from bot.images import fonts
from bot.text.formatting import MODELS, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

    from matplotlib.axes import Axes

    from bot.domain.usage import Usage

_WIDTH, _HEIGHT, _DPI = 7.2, 9.0, 150  # inches: 1080 x 1350 pixels, which fill a phone
_CARD, _INK, _FAINT = "#26282c", "#f2f3f5", "#5c6068"  # an opaque card: readable on Discord's dark and light
# Distinguishable for the color-blind too (Okabe and Ito's palette).
_COLORS: Mapping[Model, str] = MappingProxyType(
    {Model.PKZ_2: "#e69f00", Model.PKZ_3: "#56b4e9", Model.PKZ_4: "#009e73", Model.PKZ_4_5: "#cc79a7"}
)
_PAD = 0.2  # inches around each half
_NAME_LENGTH = 18  # characters
_DAYS = 30  # in the upper half
_TICKS = 6  # days that are named below the bars, at most
_MARGIN = 1.18  # room above the longest bar for its number


async def draw(usage: Usage, names: Mapping[int, str]) -> bytes | None:
    """A PNG; None without matplotlib. `names` are those of the members, by id."""
    return await asyncio.to_thread(_draw, usage, names)


def _draw(usage: Usage, names: Mapping[int, str]) -> bytes | None:
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and so slow to import that a thread has to do it
    except ImportError:
        return None
    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DPI, facecolor=_CARD)
    figure.set_layout_engine("constrained", w_pad=_PAD, h_pad=_PAD)
    days, members = figure.subplots(2, 1, height_ratios=(1.1, 1))
    for axes in (days, members):
        _style(axes)
    _draw_days(days, usage)
    most = usage.by_member()[:MOST_SHOWN]
    families = fonts.families()
    letters = fonts.letters(families)
    labels = [_label(names.get(user_id, ""), user_id, letters=letters) for user_id, _ in most]
    _draw_members(members, labels, [used.credits for _, used in most], families=families)
    out = BytesIO()
    figure.savefig(out, format="png", facecolor=_CARD)
    return out.getvalue()


def _style(axes: Axes) -> None:
    axes.set_facecolor(_CARD)
    axes.tick_params(colors=_INK, labelsize=13, length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _draw_days(axes: Axes, usage: Usage) -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    days = [usage.today - timedelta(days=ago) for ago in reversed(range(_DAYS))]
    places = range(_DAYS)
    used: Counter[tuple[date, Model]] = Counter()
    for row in usage.rows:
        used[row.day, row.model] += row.credits
    bottom = [0] * _DAYS
    for model in Model:
        amounts = [used[day, model] for day in days]
        if any(amounts):
            axes.bar(places, amounts, bottom=bottom, color=_COLORS[model], label=MODELS[model], width=0.8)
            bottom = [below + amount for below, amount in zip(bottom, amounts, strict=True)]
    axes.set_title("Credits per day", color=_INK, fontsize=18, loc="left", fontweight="bold")
    shown = places[:: -(-_DAYS // _TICKS)]
    axes.set_xticks(shown, [f"{days[place]:%b} {days[place].day}" for place in shown])
    axes.set_ylim(0, max(1, *bottom) * _MARGIN)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    if any(bottom):
        axes.legend(loc="upper left", ncols=4, frameon=False, labelcolor=_INK, fontsize=13, handlelength=1)


def _draw_members(axes: Axes, labels: Sequence[str], used: Sequence[int], *, families: list[str]) -> None:
    axes.set_title("Members who used the most", color=_INK, fontsize=18, loc="left", fontweight="bold")
    axes.set_xticks([])
    if not labels:
        axes.set_yticks([])
        axes.text(0, 0.5, "Nobody yet", color=_INK, fontsize=14, transform=axes.transAxes)
        return
    places = range(len(labels))
    bars = axes.barh(places, used, color="#56b4e9", height=0.7)
    axes.bar_label(bars, color=_INK, fontsize=13, padding=6)
    axes.set_yticks(places, labels, fontfamily=families)
    axes.set_xlim(0, max(1, *used) * _MARGIN)
    axes.invert_yaxis()


def _label(name: str, user_id: int, *, letters: set[int]) -> str:
    """What stands for a member: the name as far as the fonts have its letters, else the end of the id."""
    drawable = "".join(character for character in name if ord(character) in letters).strip()
    if not user_id or not drawable:
        return f"…{user_id % 10_000:04}" if user_id else "deleted"
    return shortened(drawable, _NAME_LENGTH).replace("$", r"\$")  # nothing starts a formula
