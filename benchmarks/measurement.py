"""Measures one program once: its start, its idle memory, jobs alone, and jobs at once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks import checks, programs
from benchmarks.servers import served
from bot.storage import opening

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.programs import Program
    from benchmarks.servers import Servers
    from benchmarks.workload import Batch

ALONE_DELAY, LOAD_DELAY = 0.1, 0.5  # seconds of a provider call


@dataclass(frozen=True, slots=True)
class Load:
    """How many jobs, and how many of them at once."""

    jobs: int
    at_once: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How many jobs one after the other, at first; none leaves them out. Then the loads."""

    alone: int
    loads: tuple[Load, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of a program. `start` is seconds until it was connected, `idle` its memory then in MB."""

    start: float
    idle: float
    alone: Batch | None
    loads: tuple[Batch, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """Jobs that are in the ledger before the start; `fill` puts that many into a closed, empty database."""

    jobs: int = 0
    fill: Callable[[Path, int], None] | None = None


NOTHING_ENDED = Ended()


async def measure(program: Program, plan: Plan, output: bytes, *, ended: Ended = NOTHING_ENDED) -> Measured:
    """Run `program` once on fresh servers; `output` is the image of every job."""
    async with served(output) as servers:
        books = programs.database(servers)
        if ended.fill is not None:
            await _fill(books, ended)
        before = checks.counts(books)
        async with programs.running(program, servers) as running:
            idle = (await running.members.settle()).memory
            await running.members.warm_up()
            batch = running.members.batch
            alone = await batch(plan.alone, at_once=1, delay=ALONE_DELAY) if plan.alone else None
            loads = [await batch(load.jobs, at_once=load.at_once, delay=LOAD_DELAY) for load in plan.loads]
        problems = [check for batch in [alone, *loads] if batch for check in checks.check_delivery(batch)]
        if program.keeps_books:
            problems += [check for batch in loads for check in checks.check_limits(batch)]
            problems += await _check_books(servers, before, jobs=running.members.commands)
    return Measured(running.start, idle, alone, tuple(loads), tuple(f"{program.name}: {it}" for it in problems))


async def _fill(path: Path, ended: Ended) -> None:
    assert ended.fill is not None
    path.parent.mkdir()
    async with opening.opened(path):
        pass
    await asyncio.to_thread(ended.fill, path, ended.jobs)


async def _check_books(servers: Servers, before: Counter[str], *, jobs: int) -> list[str]:
    found = checks.counts(programs.database(servers))
    found.subtract(before)
    return [
        *checks.check_books(found, paid=await servers.images.calls(), jobs=jobs),
        *checks.check_sources(programs.data_folder(servers) / "sources", jobs),
    ]
