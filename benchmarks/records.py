"""The last figures in the repository: a section for each benchmark, with when and where it was measured."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.figures import Figure, Scale

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE = Path(__file__).with_name("figures.json")
TABLE, GROWTH, STAGES, BOOT, MANY_SERVERS = "table", "growth", "stages", "boot", "many_servers"


def read(section: str, file: Path = FILE) -> dict[str, Any] | None:
    """A section as it was written; None if it never was."""
    sections: dict[str, dict[str, Any]] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return sections.get(section)


def write(section: str, values: Mapping[str, Any], file: Path = FILE) -> None:
    """Replace a section, and say when and where it was measured."""
    sections = json.loads(file.read_text("utf-8")) if file.exists() else {}
    sections[section] = {"measured": measured(), **values}
    file.write_text(json.dumps(sections, indent=2) + "\n", "utf-8")


def measured() -> dict[str, str]:
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "python": platform.python_version(),
        "machine": f"{os.cpu_count()} cores, {platform.system()} on {platform.machine()}",
    }


def table_to_json(scale: Scale, rounds: int, figures: Mapping[str, Figure]) -> dict[str, Any]:
    rows = {key: {name: round(value, 4) for name, value in asdict(found).items()} for key, found in figures.items()}
    return {"rounds": rounds, "scale": asdict(scale), "rows": rows}


def table_from_json(section: Mapping[str, Any]) -> tuple[Scale, dict[str, Figure]]:
    return Scale(**section["scale"]), {key: Figure(**values) for key, values in section["rows"].items()}
