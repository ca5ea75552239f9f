"""Health and metrics over real HTTP."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

from bot.ops import health
from bot.ops.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass(slots=True)
class Answer:
    status: int
    type: str
    text: str


@asynccontextmanager
async def served(metrics: Metrics, parts: dict[str, bool]) -> AsyncIterator[str]:
    async with health.served(metrics, host="127.0.0.1", port=0, healthy=lambda: parts) as port:
        yield f"http://127.0.0.1:{port}"


async def get(url: str) -> Answer:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return Answer(response.status, response.headers["Content-Type"], await response.text())


async def test_health_is_200_while_every_part_is_well_and_503_otherwise() -> None:
    parts = {"discord": True, "storage": True}
    async with served(Metrics(), parts) as url:
        assert await get(f"{url}/health") == Answer(
            200, "application/json; charset=utf-8", '{"discord": true, "storage": true}'
        )
        parts["storage"] = False
        assert await get(f"{url}/health") == Answer(
            503, "application/json; charset=utf-8", '{"discord": true, "storage": false}'
        )
        assert (await get(f"{url}/")).status == 404


def samples(text: str) -> dict[str, float]:
    """The values of an exposition, without the times at which its counters were created."""
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#") and "_created" not in line]
    return {name: float(value) for name, _, value in lines}


async def test_metrics_count_jobs_and_refusals_and_read_gauges_at_every_scrape() -> None:
    metrics, waiting = Metrics(), [3.0]
    metrics.watch("pikzels_queue", "Jobs that wait", lambda: waiting[0])
    for _ in range(2):
        metrics.started()
    metrics.ended("delivered")
    metrics.ended("delivered")
    metrics.ended("outcome_unknown")
    metrics.rejected("quota_exceeded")
    expected = {
        "pikzels_jobs_started_total": 2.0,
        'pikzels_jobs_ended_total{outcome="delivered"}': 2.0,
        'pikzels_jobs_ended_total{outcome="outcome_unknown"}': 1.0,
        'pikzels_refusals_total{reason="quota_exceeded"}': 1.0,
        "pikzels_queue": 3.0,
    }
    async with served(metrics, {}) as url:
        answer = await get(f"{url}/metrics")
        assert (answer.status, answer.type) == (200, "text/plain; charset=utf-8")
        assert samples(answer.text) == expected
        waiting[0] = 4
        assert samples((await get(f"{url}/metrics")).text) == expected | {"pikzels_queue": 4.0}
    helps = {line.split(" ", 3)[2]: line.split(" ", 3)[3] for line in answer.text.splitlines() if "# HELP" in line}
    assert helps["pikzels_jobs_started_total"] == "Jobs that started or went on after a restart"
    assert helps["pikzels_jobs_ended_total"] == "Jobs by how they ended"
    assert helps["pikzels_refusals_total"] == "Rejected requests by kind"
    assert helps["pikzels_queue"] == "Jobs that wait"


async def test_two_bots_in_one_process_do_not_add_up() -> None:
    first, second = Metrics(), Metrics()
    first.started()
    async with served(second, {}) as url:
        assert samples((await get(f"{url}/metrics")).text) == {"pikzels_jobs_started_total": 0.0}
