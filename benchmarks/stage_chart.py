"""Draws the stages of a job on record as docs/images/job-stages.svg: `python -m benchmarks.stage_chart`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks import records
from benchmarks.servers import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.axes import Axes

FILE = ROOT / "docs" / "images" / "job-stages.svg"
_CARD, _INK, _FAINT = "#26282c", "#f2f3f5", "#5c6068"  # an opaque card: readable on a light and on a dark page
# Distinguishable for the color-blind too (Okabe and Ito's palette).
_DISK, _NETWORK, _OTHER = "#e69f00", "#56b4e9", "#009e73"
_COLORS: Mapping[str, str] = {
    **dict.fromkeys(("reserve", "acked", "sending", "generated", "spool", "delivered"), _DISK),
    **dict.fromkeys(("first answer", "look", "provider", "download", "upload"), _NETWORK),
}
_LEGEND = {"the disk, mostly": _DISK, "the network, mostly": _NETWORK, "neither": _OTHER}
_MARGIN = 1.22  # room behind the longest bar for its number


def draw(file: Path = FILE) -> None:
    """Draw what is on record, if anything is."""
    section = records.read(records.STAGES)
    if section is None:
        return
    file.parent.mkdir(exist_ok=True)
    figure = _figure(section)
    # Without a date and with fixed ids, the same figures give the same file.
    with mpl.rc_context({"svg.hashsalt": "stages"}):
        figure.savefig(file, facecolor=_CARD, metadata={"Date": None} if file.suffix == ".svg" else None)


def _figure(section: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(9.0, 5.9), dpi=100, facecolor=_CARD)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    alone, load = figure.subplots(1, 2, sharey=True)
    _bars(alone, section["alone"], "One job alone")
    _bars(load, section["load"], f"{section['at_once']} jobs at once")
    alone.invert_yaxis()
    handles = [alone.barh(0, 0, color=color, label=label) for label, color in _LEGEND.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, labelcolor=_INK, fontsize=12)
    return figure


def _bars(axes: Axes, stages: Mapping[str, float], title: str) -> None:
    axes.set_facecolor(_CARD)
    names, values = list(stages), list(stages.values())
    bars = axes.barh(names, values, color=[_COLORS.get(name, _OTHER) for name in names], height=0.7)
    axes.bar_label(bars, [_label(value) for value in values], color=_INK, fontsize=11, padding=5)
    axes.set_title(f"{title}: {sum(values):,.0f} ms", color=_INK, fontsize=14, loc="left", fontweight="bold")
    axes.set_xlim(0, max(values) * _MARGIN)
    axes.set_xlabel("milliseconds, median", color=_INK, fontsize=11)
    axes.tick_params(colors=_INK, labelsize=12, length=0)
    axes.grid(axis="x", color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)


def _label(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


if __name__ == "__main__":
    draw()
