"""A thousand commands at once, and five hundred by one member: every job ends once, and the limit holds."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from discord.utils import snowflake_time

from cogs import responses
from sandbox import discord_server, pikzels_server
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import KEY, PHOTO, Live, png, running
from tests.support.e2e import books as stored_rows
from tests.support.fault_injection import seed, size

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

pytestmark = pytest.mark.faults

JOBS, CLICKS, LIMIT = 1000, 500, 5
REPLIES = (*[Reply.ok()] * 17, Reply.error("GENERATION_REJECTED"), Reply.reset(), Reply.html())
SECONDS = 120.0  # both sides share one thread here; benchmarks.table checks Discord's limit of 3 seconds


@asynccontextmanager
async def busy(folder: Path, monkeypatch: pytest.MonkeyPatch, *, daily: int) -> AsyncIterator[Live]:
    """A bot that refuses requests only because of the quota."""
    monkeypatch.setattr(responses, "DISCORD_WAITS", SECONDS)
    quota, provider, queue = {"member_daily": daily}, {"concurrency": 200}, {"length": JOBS, "per_member": JOBS}
    async with (
        discord_server.serve(ack_deadline=SECONDS) as discord,
        pikzels_server.serve(api_key=KEY, output=png()) as api,
    ):
        around = (discord, api)
        async with running(folder, monkeypatch, around=around, quota=quota, pikzels=provider, queue=queue) as live:
            yield live


async def run_commands(live: Live, members: Iterable[int]) -> list[discord_server.Interaction]:
    """Send one command per member at once; return when each is answered and every job has ended."""
    slash = live.discord.slash
    interactions = await asyncio.gather(
        *(slash("thumbnail", options={"image": PHOTO}, user_id=member) for member in members)
    )
    async with asyncio.timeout(SECONDS):
        for one in interactions:
            await one.acked.wait()
    await live.app.use_case.recovery.idle(SECONDS)
    return interactions


def has_image(interaction: discord_server.Interaction) -> bool:
    return interaction.message is not None and bool(interaction.message.attachments)


def shows(interaction: discord_server.Interaction, text: str, *, private: bool = False) -> bool:
    message = interaction.message
    return message is not None and message.ephemeral is private and text in message.content


def allowed_commands(interactions: list[discord_server.Interaction]) -> int:
    """How many of a member's commands the daily limit allows, even if midnight falls between two of them."""
    clicks_of_days = Counter(snowflake_time(one.id).date() for one in interactions)
    return sum(min(LIMIT, clicks) for clicks in clicks_of_days.values())


def count_outcomes(folder: Path, shown: list[discord_server.Interaction]) -> Counter[str]:
    """Count the jobs by their final entry; check that each ended once, with a charge exactly for each shown image."""
    jobs, entries = stored_rows(folder)
    outcomes: dict[str, list[str]] = {job["id"]: [] for job in jobs}
    for entry in entries:
        outcomes[entry["job_id"]].append(entry["kind"])
    assert {tuple(kinds) for kinds in outcomes.values()} <= {("hold", "charge"), ("hold", "release")}
    assert (sum(entry["held"] for entry in entries), sum(entry["spent"] for entry in entries)) == (0, len(shown))
    charged = {job["message_id"] for job in jobs if job["state"] == "delivered"}
    assert charged == {one.message.id for one in shown if one.message}
    assert list((folder / "spool").iterdir()) == []
    return Counter(kinds[1] for kinds in outcomes.values())


@pytest.mark.timeout(size(300, 1800))
@pytest.mark.parametrize("turn", range(size(1, 5)))
async def test_a_thousand_simultaneous_commands_each_end_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turn: int
) -> None:
    async with busy(tmp_path, monkeypatch, daily=1) as live:
        began = time.perf_counter()
        interactions = await run_commands(live, range(1, JOBS + 1))
        took = time.perf_counter() - began
        assert len(live.api.downloads) == JOBS
        assert len(live.discord.messages) == JOBS
    assert all(map(has_image, interactions))
    assert count_outcomes(tmp_path, interactions) == {"charge": JOBS}
    assert len(live.api.calls) == JOBS
    slowest = max(one.ack_seconds or 0 for one in interactions)
    print(f"round {turn}: {JOBS} jobs in {took:.1f} s, slowest answer {slowest:.1f} s")  # noqa: T201 - prints the counts


async def test_a_thousand_commands_each_end_once_whatever_the_provider_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    chance = random.Random(seed(request.node.nodeid))  # noqa: S311 - test data, not a secret
    async with busy(tmp_path, monkeypatch, daily=1) as live:
        live.api.script(*chance.choices(REPLIES, k=JOBS))
        interactions = await run_commands(live, range(1, JOBS + 1))
        assert all(has_image(one) or shows(one, "You were not charged.") for one in interactions)
    shown = [one for one in interactions if has_image(one)]
    outcomes = count_outcomes(tmp_path, shown)
    assert len(shown) == outcomes["charge"] <= len(live.api.calls) <= outcomes.total() <= JOBS
    print(f"{JOBS} jobs, {len(live.api.calls)} calls: {dict(outcomes)}")  # noqa: T201 - prints the counts


@pytest.mark.timeout(size(300, 1800))
async def test_of_five_hundred_commands_by_a_member_exactly_the_limit_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[discord_server.Interaction] = []
    times = []
    async with busy(tmp_path, monkeypatch, daily=LIMIT) as live:
        for member in range(1, size(10, 100) + 1):
            began = time.perf_counter()
            interactions = await run_commands(live, [member] * CLICKS)
            times.append(time.perf_counter() - began)
            accepted = [one for one in interactions if has_image(one)]
            assert len(accepted) == allowed_commands(interactions)
            refused = [one for one in interactions if shows(one, f"{LIMIT} of {LIMIT} credits", private=True)]
            assert len(refused) == CLICKS - len(accepted)
            shown += accepted
    assert count_outcomes(tmp_path, shown) == {"charge": len(shown)}
    assert len(live.api.calls) == len(shown)
    clicks = f"{len(times)} × {CLICKS} clicks, {len(shown)} accepted"
    print(f"{clicks}; a round took {min(times):.1f} to {max(times):.1f} s")  # noqa: T201 - prints the counts
