"""Writes the figures on record into README.md and docs/performance.md: `python -m benchmarks.documents`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from benchmarks import records
from benchmarks.figures import ROWS, Figure, Scale, title, wanted
from benchmarks.servers import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

README, PERFORMANCE = ROOT / "README.md", ROOT / "docs" / "performance.md"


def table(scale: Scale, figures: Mapping[str, Figure]) -> str:
    """The table of the bot and the bare bot. Of the last row, the second figure is that of an empty ledger."""
    header = ("", "bot", "bare bot", "ratio (lowest to highest)", "goal")
    rows = [_row(key, scale, found) for key, found in figures.items()]
    return markdown([header, *rows])


def _row(key: str, scale: Scale, found: Figure) -> tuple[str, ...]:
    row = ROWS[key]
    bot, base = (f"{_rounded(value)} {row.unit}" for value in (found.bot, found.base))
    return title(key, scale), bot, base, str(found), wanted(row.goal, row.unit)


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    header, *others = rows
    return "\n".join(_line(cells) for cells in (header, ["---"] * len(header), *others))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def sections() -> dict[str, str]:
    """What stands between the marks of each name, as far as it is on record."""
    found = {}
    if (section := records.read(records.TABLE)) is not None:
        found["table"] = f"{table(*records.table_from_json(section))}\n\n{_measured(section['measured'])}"
    return found


def _measured(where: Mapping[str, str]) -> str:
    return f"Measured on {where['date']} with Python {where['python']} on {where['machine']}."


def filled(text: str, found: Mapping[str, str]) -> str:
    """`text` with every section that is on record between its marks."""
    for name, content in found.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        text = re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n\n{content}\n\n{end}", text, flags=re.DOTALL)  # noqa: B023
    return text


def refresh() -> None:
    """Write the figures on record into the documents."""
    for file in (README, PERFORMANCE):
        file.write_text(filled(file.read_text("utf-8"), sections()), "utf-8")


if __name__ == "__main__":
    refresh()
