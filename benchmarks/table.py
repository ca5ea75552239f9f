"""The bot beside a bare discord.py bot, as ratios: `python -m benchmarks.table`.

Both run in processes of their own, over TLS, on the same simulated servers, in turns. The figures are compared with the
last ones in the repository. It ends with 1 if something got worse, or if the bot lost, paid or charged a job wrongly,
answered late, or took too much memory. `--record` makes the new figures the last ones.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING

import uvloop

from benchmarks import documents, figures, limits, records
from benchmarks.figures import ROWS, Figure, Scale, figure
from benchmarks.measurement import Load, Measured, Plan, measure
from benchmarks.programs import BARE, BOT
from benchmarks.servers import make_image
from benchmarks.workload import quantile

if TYPE_CHECKING:
    from collections.abc import Mapping

FULL = Scale()
QUICK = Scale(alone=10, jobs=100, at_once=50, burst=0, entries=0)
_CHECKS = 150  # calls of each kind a round

Pair = tuple[Measured, Measured]  # of one round: the bot, and the bare bot


async def rounds_of(scale: Scale, rounds: int) -> list[Pair]:
    """Measure both programs in every round; who goes first changes."""
    loads = Load(scale.jobs, scale.at_once), Load(scale.burst, scale.burst)
    plan = Plan(scale.alone, tuple(load for load in loads if load.jobs))
    output, found = make_image(), []
    for number in range(rounds):
        one_round = {}
        for program in (BOT, BARE) if number % 2 == 0 else (BARE, BOT):
            one_round[program.name] = await measure(program, plan, output)
            print(f"round {number + 1} of {rounds}, {program.name:4}: {_line(one_round[program.name])}", flush=True)
        found.append((one_round[BOT.name], one_round[BARE.name]))
    return found


def _line(measured: Measured) -> str:
    return ", ".join(f"{key} {value:.4g} {ROWS[key].unit}" for key, value in values(measured).items())


def values(measured: Measured) -> dict[str, float]:
    """The rows of one run, in their units."""
    found = {"idle": measured.idle, "start": measured.start}
    if measured.alone is not None:
        found["cpu alone"] = measured.alone.cpu_of_a_job * 1000
        found["overhead alone"] = quantile(measured.alone.overheads, 0.5) * 1000
        found["answer alone"] = quantile(measured.alone.answers, 0.5) * 1000
    if measured.loads:
        first = measured.loads[0]
        found["cpu at once"] = first.cpu_of_a_job * 1000
        found["answer at once"] = quantile(first.answers, 0.99) * 1000
        found["peak at once"] = first.peak
    if len(measured.loads) > 1:
        found["peak in a burst"] = measured.loads[1].peak
    return found


async def checks_of(scale: Scale, rounds: int) -> list[tuple[float, float]]:
    """For each round, the milliseconds of an allowance check in a full and in an empty ledger."""
    if not scale.entries:
        return []
    slowest = await limits.slowest(scale.entries, rounds=rounds, calls=_CHECKS)
    return [(check.full * 1000, check.empty * 1000) for check in slowest]


async def table_of(scale: Scale, rounds: int) -> tuple[dict[str, Figure], list[str]]:
    """The figures in the order of the table, and every problem."""
    pairs = await rounds_of(scale, rounds)
    both = [(values(bot), values(bare)) for bot, bare in pairs]
    found = {key: [(bot[key], bare[key]) for bot, bare in both] for key in ROWS if key in both[0][0]}
    if checks := await checks_of(scale, rounds):
        found["check"] = checks
    problems = [problem for pair in pairs for measured in pair for problem in measured.problems]
    return {key: figure(found[key]) for key in ROWS if key in found}, problems


def compared(now: Mapping[str, Figure], scale: Scale) -> list[str]:
    """What got worse since the last record, in sentences; prints whether there was anything to compare with."""
    section = records.read(records.TABLE)
    if section is None:
        print("There are no figures on record to compare with.")
        return []
    recorded_scale, before = records.table_from_json(section)
    if recorded_scale != scale:
        print(f"The figures on record are of another scale: {asdict(recorded_scale)}. Nothing is compared.")
        return []
    found = list(figures.worse(now, before, scale))
    print(f"Compared with the figures of {section['measured']['date']}: {len(found) or 'nothing'} got worse.")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=FULL.jobs, help="jobs under load (default: %(default)s)")
    parser.add_argument("--at-once", type=int, default=FULL.at_once, help="of them at once (default: %(default)s)")
    parser.add_argument("--alone", type=int, default=FULL.alone, help="jobs one at a time (default: %(default)s)")
    parser.add_argument("--burst", type=int, default=FULL.burst, help="commands in the burst (default: %(default)s)")
    parser.add_argument("--entries", type=int, default=FULL.entries, help="ledger entries (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each program (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help=f"a small scale instead: {asdict(QUICK)}")
    parser.add_argument("--record", action="store_true", help="write the figures to benchmarks/figures.json")
    options = parser.parse_args()
    scale = (
        QUICK if options.quick else Scale(options.alone, options.jobs, options.at_once, options.burst, options.entries)
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found, problems = runner.run(table_of(scale, options.rounds))
    print(f"\n{documents.table(scale, found)}\n")
    if beyond := [figures.title(key, scale) for key in figures.missed(found)]:
        print(f"Goals that are not reached: {'; '.join(beyond)}.")
    problems += compared(found, scale)
    if options.record:
        records.write(records.TABLE, records.table_to_json(scale, options.rounds, found))
        documents.refresh()
    for problem in problems:
        print(f"PROBLEM: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    raise SystemExit(main())
