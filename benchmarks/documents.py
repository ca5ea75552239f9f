"""Writes the figures on record into README.md and docs/performance.md: `python -m benchmarks.documents`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from benchmarks import records
from benchmarks.figures import ROWS, Figure, Scale, title, wanted
from benchmarks.servers import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

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


def at_once(section: Mapping[str, Any]) -> str:
    """The table of the jobs at once."""
    header = ("jobs at once", "CPU a job", "peak memory", "first answer, p99")
    rows = [
        (f"{cost['at_once']:,}", f"{cost['cpu']:.1f} ms", f"{cost['peak']:.0f} MB", f"{cost['answer']:,.0f} ms")
        for cost in section["at_once"]
    ]
    return markdown([header, *rows])


def ended(section: Mapping[str, Any]) -> str:
    """The table of the jobs in the ledger."""
    header = ("ended jobs in the ledger", "CPU a job", "peak memory", "first answer, p99", "start")
    rows = [
        (
            f"{cost['ended']:,}",
            f"{cost['cpu']:.1f} ms",
            f"{cost['peak']:.0f} MB",
            f"{cost['answer']:,.0f} ms",
            f"{cost['start']:.2f} s",
        )
        for cost in section["ended"]
    ]
    return markdown([header, *rows])


def stages(section: Mapping[str, Any]) -> str:
    """The figures of the picture."""
    header = ("stage", "one job alone", f"{section['at_once']:,} jobs at once")
    alone, load = section["alone"], section["load"]
    rows = [(stage, f"{alone[stage]:.1f} ms", f"{load.get(stage, 0):.1f} ms") for stage in alone]
    return markdown([header, *rows])


def boot(section: Mapping[str, Any]) -> str:
    """The table of the starts: seconds until Discord has let the bot in, and of the check of the database."""
    header = ("ended jobs in the ledger", "database", "online after", "checked after that in", "if checked first")
    rows = [
        (
            f"{row['jobs']:,}",
            f"{row['megabytes']:,.0f} MB",
            f"{row['online']:.2f} s",
            f"{row['check']:.2f} s" if row["check"] else "–",
            f"{row['first']:.2f} s",
        )
        for row in section["rows"]
    ]
    return markdown([header, *rows])


def many_servers(section: Mapping[str, Any]) -> str:
    """The table of the servers: memory, and seconds until the first connection and until all of them."""
    header = ("servers", "connections", "memory", "for each server", "first one after", "all after", "turns")
    rows = [
        (
            f"{row['servers']:,}",
            f"{row['shards']:,}",
            f"{row['memory']:.1f} MB",
            f"{row['bytes'] / 1000:.2f} kB" if row["bytes"] is not None else "–",
            f"{row['first']:.2f} s",
            f"{row['ready']:.2f} s",
            f"{row['turns']:.0f} s",
        )
        for row in section["rows"]
    ]
    return markdown([header, *rows])


def sections() -> dict[str, str]:
    """What belongs between the marks of each name, as far as it is on record."""
    found = {}
    for name, (key, tables) in TABLES.items():
        if (section := records.read(key)) is not None:
            found[name] = f"{tables(section)}\n\n{_measured(section)}"
    return found


# The tables by the name in their marks, each with its section on record.
TABLES: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "table": (records.TABLE, lambda section: table(*records.table_from_json(section))),
    "stages": (records.STAGES, stages),
    "jobs at once": (records.GROWTH, at_once),
    "jobs in the ledger": (records.GROWTH, ended),
    "boot": (records.BOOT, boot),
    "many servers": (records.MANY_SERVERS, many_servers),
}


def _measured(section: Mapping[str, Any]) -> str:
    where = section["measured"]
    rounds = f", {section['rounds']} rounds" if "rounds" in section else ""
    return f"Measured on {where['date']} with Python {where['python']} on {where['machine']}{rounds}."


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
