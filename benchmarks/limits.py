"""What a million entries cost a check: the same requests against a full ledger and an empty one, in turns.

Run it with `.venv/bin/python -m benchmarks.limits`. It ends with an error if the full ledger takes more than
1.5 times as long as the empty one.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

from bot.domain.access import AccessRules
from bot.domain.errors import QuotaExceeded
from bot.domain.server_rules import Amounts, Change
from bot.jobs.admission import Admission
from bot.storage import opening
from bot.storage.ledger import Ledger
from bot.storage.policies import Policies
from tests.support.factories import request, requester
from tests.support.many_entries import EVERY_LIMIT, GUILD, MEMBERS, fill
from tests.support.query_plans import reservation_plan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from bot.domain.models import Requester
    from bot.storage.database import Database

NOW = datetime(2026, 12, 31, 21, tzinfo=UTC)  # the end of a long month: its limits read the most rows
HIGHEST_RATIO = 1.5


@dataclass(frozen=True, slots=True)
class Subject:
    """One ledger, and admission to it; `refusing` has no credits for anybody."""

    database: Database
    ledger: Ledger
    admission: Admission
    refusing: Admission

    async def reserve(self, by: Requester) -> None:
        await self.ledger.reserve(await self.admission.admit(request(), by, None))

    async def refuse(self, by: Requester) -> None:
        with suppress(QuotaExceeded):
            await self.ledger.reserve(await self.refusing.admit(request(), by, None))

    async def show(self, by: Requester) -> None:
        await self.admission.allowances(by)


@dataclass(frozen=True, slots=True)
class Check:
    """The median seconds of one kind of check, in an empty and in a full ledger."""

    name: str
    empty: float
    full: float

    @property
    def ratio(self) -> float:
        return self.full / self.empty


MEASURED: dict[str, Callable[[Subject, Requester], Awaitable[None]]] = {
    "reservation, on disk": Subject.reserve,
    "refusal, no disk": Subject.refuse,
    "allowances of /quota": Subject.show,
}


async def _opened(stack: AsyncExitStack, path: Path) -> Subject:
    store = await stack.enter_async_context(opening.opened(path))
    ledger, policies = Ledger(store, spool=path.parent), Policies(store)
    for member in range(1, MEMBERS + 1, 10):  # some have extra credits
        await policies.grant(Change(1, GUILD, "grant", NOW), member, 5, "thanks")
    full = replace(EVERY_LIMIT, bot=Amounts(0, 0))
    admission, refusing = (
        Admission(quota=quota, access=AccessRules(), policies=policies, repository=ledger, clock=lambda: NOW)
        for quota in (EVERY_LIMIT, full)
    )
    return Subject(store, ledger, admission, refusing)


async def measure(subjects: Sequence[Subject], rounds: int) -> dict[str, list[list[float]]]:
    """Seconds by what was measured and by subject; each round measures everything on every subject."""
    times: dict[str, list[list[float]]] = {name: [[] for _ in subjects] for name in MEASURED}
    for number in range(rounds):
        for name, call in MEASURED.items():
            turns = list(zip(subjects, times[name], strict=True))
            for subject, taken in turns if number % 2 else reversed(turns):
                by = requester(1 + number * 7 % MEMBERS, at=NOW + timedelta(seconds=number))
                start = perf_counter()
                await call(subject, by)
                taken.append(perf_counter() - start)
    return times


def checked(times: Mapping[str, Sequence[Sequence[float]]]) -> list[Check]:
    return [Check(name, median(empty), median(full)) for name, (empty, full) in times.items()]


@asynccontextmanager
async def opened_pair(entries: int) -> AsyncIterator[list[Subject]]:
    """An empty ledger and one with that many entries, both warm."""
    with tempfile.TemporaryDirectory() as name:
        empty, full = Path(name, "empty.sqlite3"), Path(name, "full.sqlite3")
        async with opening.opened(full):
            pass
        fill(full, entries, now=NOW)
        async with AsyncExitStack() as stack:
            subjects = [await _opened(stack, path) for path in (empty, full)]
            await measure(subjects, 20)  # warm up
            yield subjects


async def slowest(entries: int, *, rounds: int, calls: int) -> list[Check]:
    """For each round, the check that a full ledger slows down most."""
    async with opened_pair(entries) as subjects:
        return [max(checked(await measure(subjects, calls)), key=lambda check: check.ratio) for _ in range(rounds)]


async def _run(entries: int, calls: int) -> bool:
    """Print the medians; returns whether every ratio is low enough."""
    start = perf_counter()
    async with opened_pair(entries) as subjects:
        print(f"{entries:,} entries, filled in {perf_counter() - start:.0f} s")
        checks = checked(await measure(subjects, calls))
        print(f"{'median, ms':<24}{'empty':>10}{'full':>10}{'ratio':>8}")
        for check in checks:
            print(f"{check.name:<24}{check.empty * 1000:>10.3f}{check.full * 1000:>10.3f}{check.ratio:>8.2f}")
        rules = await subjects[1].admission.admit(request(), requester(1, at=NOW), None)
        print(f"\nEXPLAIN QUERY PLAN of the reservation, with {len(rules.limits)} limits:")
        print("\n".join(await reservation_plan(subjects[1].database, subjects[1].ledger, rules)))
    return max(check.ratio for check in checks) <= HIGHEST_RATIO


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=400)
    arguments = parser.parse_args()
    if not asyncio.run(_run(arguments.entries, arguments.rounds)):
        sys.exit(f"a full ledger takes more than {HIGHEST_RATIO} times as long as an empty one")
