"""What members do to a bot: they use /thumbnail, one after the other or all at once."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.process import TICK, Usage, read_usage
from benchmarks.servers import IMAGE_BYTES
from sandbox import discord_server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.servers import Servers

_LOOK_SECONDS = 0.5
_PAUSE_SECONDS = 0.2
_QUIET_SECONDS = 120.0
_LAST_IMAGE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Job:
    """What Discord saw of one job, in seconds since it sent the command; None is what never came."""

    interaction: int
    sent_at: float  # on the monotonic clock, which all processes share
    answered: float | None
    delivered: float | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Some jobs, `at_once` of them in progress, and what they cost: `cpu` in seconds, with all work in the background;
    `peak` in MB.
    """

    jobs: Sequence[Job]
    at_once: int
    cpu: float
    peak: float
    delay: float  # seconds of each provider call

    @property
    def cpu_of_a_job(self) -> float:
        return self.cpu / len(self.jobs)

    @property
    def answers(self) -> list[float]:
        return [job.answered for job in self.jobs if job.answered is not None]

    @property
    def overheads(self) -> list[float]:
        """Seconds of each delivered job beyond the provider's time."""
        return [job.delivered - self.delay for job in self.jobs if job.delivered is not None]


def quantile(values: Sequence[float], part: float) -> float:
    """The value below which `part` of them are; NaN without any."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else float("nan")


class Members:
    """People in the simulated Discord, each with one image of their own, and the process of the bot they use. It has
    settled before each batch.
    """

    def __init__(self, servers: Servers, pid: int) -> None:
        self._servers = servers
        self._pid = pid
        self._expected = hashlib.sha256(servers.output).hexdigest()
        self.commands = 0

    async def warm_up(self) -> None:
        """One job that nobody counts. It must work."""
        batch = await self.batch(1, at_once=1, delay=0.0)
        if not batch.overheads:
            raise RuntimeError("the warm-up image was not delivered")

    async def batch(self, jobs: int, *, at_once: int, delay: float) -> Batch:
        """Send `at_once` commands in one moment, and each further one when another has its image. One at a time, each
        waits until a bot has put the one before away.
        """
        await self._servers.images.set_delay(delay)
        before, commands = read_usage(self._pid), iter(range(jobs))

        async def one_after_another() -> list[Job]:
            return [await self._job(after=_PAUSE_SECONDS if at_once == 1 else 0.0) for _ in commands]

        done = await asyncio.gather(*(one_after_another() for _ in range(at_once)))
        after = await self.settle()
        return Batch([job for some in done for job in some], at_once, after.cpu - before.cpu, after.peak, delay)

    async def settle(self) -> Usage:
        """Wait until the bot neither works nor asks Discord for anything: what it does in the background counts too."""
        async with asyncio.timeout(_QUIET_SECONDS):
            usage, asked = read_usage(self._pid), -1
            while True:
                before, asked_before = usage, asked
                await asyncio.sleep(_LOOK_SECONDS)
                usage, asked = read_usage(self._pid), len(self._servers.discord.requests)
                if asked == asked_before and usage.cpu - before.cpu < 1.5 * TICK:
                    return usage

    async def _job(self, *, after: float) -> Job:
        await asyncio.sleep(after)
        self.commands += 1
        interaction = await self._send(self.commands)
        try:
            await interaction.wait(_has_image, _LAST_IMAGE_SECONDS)
            delivered = time.monotonic() - interaction.sent_at if self._is_whole(interaction) else None
        except TimeoutError:
            delivered = None
        return Job(interaction.id, interaction.sent_at, interaction.ack_seconds, delivered)

    async def _send(self, number: int) -> discord_server.Interaction:
        source = self._servers.images.source(number)
        options: dict[str, discord_server.Option] = {
            "image": discord_server.Upload("photo.png", IMAGE_BYTES, "image/png", url=source),
            "prompt": f"A surprised face beside the number {number}",
        }
        return await self._servers.discord.slash("thumbnail", options=options, user_id=discord_server.USER_ID + number)

    def _is_whole(self, interaction: discord_server.Interaction) -> bool:
        assert interaction.message is not None
        [attachment] = interaction.message.attachments
        return attachment.sha256 == self._expected


def _has_image(interaction: discord_server.Interaction) -> bool:
    return interaction.message is not None and bool(interaction.message.attachments)
