"""How the cost of a job grows with the jobs at once and with the jobs in the ledger: `python -m benchmarks.growth`.

Each line is a run of its own. `--record` writes the figures to benchmarks/figures.json.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import uvloop

from benchmarks import documents, records
from benchmarks.measurement import NOTHING_ENDED, Ended, Load, Plan, measure
from benchmarks.programs import BOT
from benchmarks.servers import make_image
from benchmarks.workload import quantile
from tests.support import many_entries

if TYPE_CHECKING:
    from pathlib import Path

LOADS = (Load(100, 10), Load(200, 100), Load(1000, 1000))
_DAYS = 360  # less than what the bot keeps, or its first sweep would be measured
ENDED = (0, 10_000, 1_000_000)
_LOAD = Load(100, 10)  # with each number of ended jobs


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run cost: CPU of a job and the slowest answers in ms, memory in MB, the start in seconds."""

    at_once: int
    ended: int
    cpu: float
    peak: float
    answer: float
    start: float


def fill(path: Path, jobs: int) -> None:
    """Put that many ended jobs into the closed, empty database at `path`."""
    many_entries.fill_jobs(path, jobs, now=datetime.now(UTC), days=_DAYS)


async def cost(load: Load, ended: int) -> tuple[Cost, tuple[str, ...]]:
    """The cost of jobs under `load`, with that many ended jobs in the ledger; and every problem."""
    before = Ended(ended, fill) if ended else NOTHING_ENDED
    measured = await measure(BOT, Plan(0, (load,)), make_image(), ended=before)
    [batch] = measured.loads
    found = Cost(
        at_once=load.at_once,
        ended=ended,
        cpu=round(batch.cpu_of_a_job * 1000, 1),
        peak=round(batch.peak, 1),
        answer=round(quantile(batch.answers, 0.99) * 1000, 1),
        start=round(measured.start, 2),
    )
    return found, measured.problems


async def _run(most_ended: int) -> tuple[dict[str, list[Cost]], list[str]]:
    runs = {
        "at_once": [(load, 0) for load in LOADS],
        "ended": [(_LOAD, ended) for ended in ENDED if ended <= most_ended],
    }
    costs: dict[str, list[Cost]] = {name: [] for name in runs}
    problems: list[str] = []
    for name, some in runs.items():
        for load, ended in some:
            found, new = await cost(load, ended)
            print(found, flush=True)
            costs[name].append(found)
            problems += new
    return costs, problems


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--most-ended", type=int, default=ENDED[-1], help="leave larger ledgers out")
    parser.add_argument("--record", action="store_true", help="write the figures to benchmarks/figures.json")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        costs, problems = runner.run(_run(options.most_ended))
    if options.record:
        records.write(records.GROWTH, {name: [asdict(one) for one in some] for name, some in costs.items()})
        documents.refresh()
    for problem in problems:
        print(f"PROBLEM: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
