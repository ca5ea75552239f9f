"""Where the time of a job goes, stage by stage, alone and under load: `python -m benchmarks.stages`.

`--record` writes the figures to benchmarks/figures.json and draws docs/images/job-stages.svg.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import defaultdict
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

import uvloop

from benchmarks import documents, programs, records, stage_chart
from benchmarks.measurement import ALONE_DELAY, LOAD_DELAY
from benchmarks.programs import Program
from benchmarks.servers import make_image, served

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from benchmarks.workload import Batch, Job

RECORDED = Program("bot", ("benchmarks.stage_recorder",), keeps_books=True)

ANSWERED, SHOWN = "answered", "shown"  # by what Discord sees; all other moments are begins and ends of calls
BEGIN = "begin of "

# Each stage ends at a moment, and begins where the one before has ended.
STAGES: Mapping[str, str] = {
    "admission": f"{BEGIN}repository.reserve",
    "reserve": "repository.reserve",
    "first answer": ANSWERED,
    "acked": "repository.acked",
    "look": "sources.look",
    "sending": "repository.sending",
    "provider": "provider.create",
    "generated": "repository.generated",
    "wait to download": f"{BEGIN}downloader.fetch",
    "download": "downloader.fetch",
    "spool": "spool.write",
    "wait to upload": f"{BEGIN}messenger.deliver",
    "upload": SHOWN,
    "delivered": "repository.delivered",
}
PROVIDER = "provider"
# In a stage of another name, or beside the line on which a member waits.
_WITHOUT_STAGE = {
    "messenger.deliver",
    "sources.prepare",
    "sources.keep",
    "spool.remove",
    "messenger.add_again_reaction",
    "repository.allowances",
}

Moments = dict[str, float]  # on the monotonic clock


def moments(file: Path) -> dict[int, Moments]:
    """When each call of each interaction began and ended; of several calls of one kind, the first."""
    found: dict[int, Moments] = defaultdict(dict)
    for line in file.read_text("utf-8").splitlines():
        interaction, name, begin, end = json.loads(line)
        found[interaction].setdefault(f"{BEGIN}{name}", begin)
        found[interaction].setdefault(name, end)
    return found


def stages(job: Job, calls: Moments, delay: float) -> dict[str, float]:
    """Seconds of each stage of a job. A stage whose call was not made has none, and the next one begins earlier. What
    ended before the stage in front of it took no time. The provider's own `delay` does not count.
    """
    assert job.answered is not None
    assert job.delivered is not None
    seen = {**calls, ANSWERED: job.sent_at + job.answered, SHOWN: job.sent_at + job.delivered}
    made = [(stage, seen[moment]) for stage, moment in STAGES.items() if moment in seen]
    ends = [job.sent_at]
    for _, end in made:
        ends.append(max(end, ends[-1]))
    found = {stage: end - begin for (stage, _), (begin, end) in zip(made, pairwise(ends), strict=True)}
    if PROVIDER in found:
        found[PROVIDER] = max(0.0, found[PROVIDER] - delay)
    return found


def medians(jobs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median milliseconds of each stage."""
    return {
        stage: round(median(job.get(stage, 0.0) for job in jobs) * 1000, 2)
        for stage in STAGES
        if any(stage in job for job in jobs)
    }


def unknown(seen: Iterable[Moments]) -> set[str]:
    """Calls that this file does not know; the time of one is in the stage after it."""
    names = {name for calls in seen for name in calls if not name.startswith(BEGIN)}
    return names - set(STAGES.values()) - _WITHOUT_STAGE


async def measure(alone: int, jobs: int, at_once: int) -> dict[str, Any]:
    async with served(make_image()) as servers:
        async with programs.running(RECORDED, servers) as running:
            await running.members.warm_up()
            batches = {
                "alone": await running.members.batch(alone, at_once=1, delay=ALONE_DELAY),
                "load": await running.members.batch(jobs, at_once=at_once, delay=LOAD_DELAY),
            }
        seen = moments(programs.calls_file(servers))
    if others := unknown(seen.values()):
        print(f"Calls that have no stage yet: {', '.join(sorted(others))}")
    found: dict[str, Any] = {name: _of_batch(batch, seen) for name, batch in batches.items()}
    return {**found, "jobs_alone": alone, "jobs": jobs, "at_once": at_once}


def _of_batch(batch: Batch, seen: Mapping[int, Moments]) -> dict[str, float]:
    whole = [job for job in batch.jobs if job.answered is not None and job.delivered is not None]
    return medians([stages(job, seen[job.interaction], batch.delay) for job in whole])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--alone", type=int, default=30, help="jobs one at a time (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=400, help="jobs under load (default: %(default)s)")
    parser.add_argument("--at-once", type=int, default=200, help="of them at once (default: %(default)s)")
    parser.add_argument("--record", action="store_true", help="write the figures and draw them")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(measure(options.alone, options.jobs, options.at_once))
    print(f"{'median, ms':<18}{'alone':>8}{options.at_once:>6} at once")
    for stage, milliseconds in found["alone"].items():
        print(f"{stage:<18}{milliseconds:>8.1f}{found['load'].get(stage, 0.0):>14.1f}")
    if options.record:
        records.write(records.STAGES, found)
        stage_chart.draw()
        documents.refresh()


if __name__ == "__main__":
    main()
