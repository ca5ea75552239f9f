"""A thousand commands at once, and five hundred clicks of one member: nobody is lost, nobody slips through."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from discord.utils import snowflake_time

from sandbox import discord_server, pikzels_server
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import KEY, PHOTO, Live, books, png, running
from tests.support.fault_injection import seed, size

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

pytestmark = pytest.mark.faults

JOBS, CLICKS, LIMIT = 1000, 500, 5
REPLIES = (*[Reply.ok()] * 17, Reply.error("GENERATION_REJECTED"), Reply.reset(), Reply.html())
SECONDS = 120.0  # both sides share one thread here: Discord's three seconds are for benchmarks.burst


@asynccontextmanager
async def busy(folder: Path, monkeypatch: pytest.MonkeyPatch, *, daily: int) -> AsyncIterator[Live]:
    """A bot that turns nobody away but for the quota."""
    quota, provider, queue = {"member_daily": daily}, {"concurrency": 200}, {"length": JOBS, "per_member": JOBS}
    async with (
        discord_server.serve(ack_deadline=SECONDS) as discord,
        pikzels_server.serve(api_key=KEY, output=png()) as api,
    ):
        around = (discord, api)
        async with running(folder, monkeypatch, around=around, quota=quota, pikzels=provider, queue=queue) as live:
            yield live


async def clicked(live: Live, members: Iterable[int]) -> list[discord_server.Interaction]:
    """All of them at once; returns when each is answered and every job has ended."""
    use = live.discord.slash
    asked = await asyncio.gather(*(use("thumbnail", options={"image": PHOTO}, user_id=member) for member in members))
    async with asyncio.timeout(SECONDS):
        for one in asked:
            await one.acked.wait()
    await live.app.use_case.recovery.idle(SECONDS)
    return asked


def has_picture(interaction: discord_server.Interaction) -> bool:
    return interaction.message is not None and bool(interaction.message.attachments)


def says(interaction: discord_server.Interaction, text: str, *, private: bool = False) -> bool:
    message = interaction.message
    return message is not None and message.ephemeral is private and text in message.content


def allowed(asked: list[discord_server.Interaction]) -> int:
    """How many of a member's clicks a daily limit lets through, though midnight may fall between two of them."""
    clicks_of_days = Counter(snowflake_time(one.id).date() for one in asked)
    return sum(min(LIMIT, clicks) for clicks in clicks_of_days.values())


def endings(folder: Path, shown: list[discord_server.Interaction]) -> Counter[str]:
    """How the jobs ended, by kind of entry: once each, with a charge for exactly those whose picture is shown."""
    jobs, entries = books(folder)
    ends: dict[str, list[str]] = {job["id"]: [] for job in jobs}
    for entry in entries:
        ends[entry["job_id"]].append(entry["kind"])
    assert {tuple(kinds) for kinds in ends.values()} <= {("hold", "charge"), ("hold", "release")}
    assert (sum(entry["held"] for entry in entries), sum(entry["spent"] for entry in entries)) == (0, len(shown))
    charged = {job["message_id"] for job in jobs if job["state"] == "delivered"}
    assert charged == {one.message.id for one in shown if one.message}
    assert list((folder / "spool").iterdir()) == []
    return Counter(kinds[1] for kinds in ends.values())


@pytest.mark.timeout(size(300, 1800))
@pytest.mark.parametrize("turn", range(size(1, 5)))
async def test_a_thousand_commands_at_once_end_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turn: int
) -> None:
    async with busy(tmp_path, monkeypatch, daily=1) as live:
        began = time.perf_counter()
        asked = await clicked(live, range(1, JOBS + 1))
        took = time.perf_counter() - began
        assert len(live.api.downloads) == JOBS
        assert len(live.discord.messages) == JOBS
    assert all(map(has_picture, asked))
    assert endings(tmp_path, asked) == {"charge": JOBS}
    assert len(live.api.calls) == JOBS
    slowest = max(one.ack_seconds or 0 for one in asked)
    print(f"turn {turn}: {JOBS} jobs in {took:.1f} s, slowest answer {slowest:.1f} s")  # noqa: T201 - the count is shown


async def test_a_thousand_commands_end_once_each_whatever_the_provider_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    chance = random.Random(seed(request.node.nodeid))  # noqa: S311 - a choice, not a secret
    async with busy(tmp_path, monkeypatch, daily=1) as live:
        live.api.script(*chance.choices(REPLIES, k=JOBS))
        asked = await clicked(live, range(1, JOBS + 1))
        assert all(has_picture(one) or says(one, "You were not charged.") for one in asked)
    shown = [one for one in asked if has_picture(one)]
    ends = endings(tmp_path, shown)
    assert len(shown) == ends["charge"] <= len(live.api.calls) <= ends.total() <= JOBS
    print(f"{JOBS} jobs, {len(live.api.calls)} calls: {dict(ends)}")  # noqa: T201 - the counts are shown


@pytest.mark.timeout(size(300, 1800))
async def test_of_five_hundred_clicks_of_a_member_exactly_the_limit_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[discord_server.Interaction] = []
    times = []
    async with busy(tmp_path, monkeypatch, daily=LIMIT) as live:
        for member in range(1, size(10, 100) + 1):
            began = time.perf_counter()
            asked = await clicked(live, [member] * CLICKS)
            times.append(time.perf_counter() - began)
            accepted = [one for one in asked if has_picture(one)]
            assert len(accepted) == allowed(asked)
            refused = [one for one in asked if says(one, f"{LIMIT} of {LIMIT} credits", private=True)]
            assert len(refused) == CLICKS - len(accepted)
            shown += accepted
    assert endings(tmp_path, shown) == {"charge": len(shown)}
    assert len(live.api.calls) == len(shown)
    clicks = f"{len(times)} × {CLICKS} clicks, {len(shown)} accepted"
    print(f"{clicks}; a round took {min(times):.1f} to {max(times):.1f} s")  # noqa: T201 - the count is shown
