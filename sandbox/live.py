"""Makes a simulated server live, for people who look at it: its time passes, and they can act while an image is made.

simcord is made for tests: its clock stands still, and an action of a member ends when the bot has nothing left to do.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from simcord.backend.cdn import CdnStore

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Generator

    import simcord

    from bot.domain.models import Output, ThumbnailRequest
    from bot.domain.protocols import Provider
    from bot.jobs.ports import Ports
    from bot.jobs.queue import RequestQueue, Ticket

# Not simcord's own address: the page shows no image of an embed that comes from there.
CDN = "https://cdn.pikzels-bot.invalid"


class MovingClock:
    """A clock for simcord that follows this machine's, also over a suspension, and can be moved forward."""

    def __init__(self) -> None:
        self._started = self._last = time.time()  # `time.monotonic` is simcord's in the bot's tasks: it asks this clock
        self._moved = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds; never fewer than before."""
        self._last = max(self._last, time.time())
        return self._last - self._started + self._moved

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._started, UTC) + timedelta(seconds=self.elapsed)

    def advance(self, seconds: float) -> None:
        self._moved += seconds

    def move_to_next_day(self) -> None:
        now = self.now()
        midnight = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC)
        self.advance((midnight - now).total_seconds())


class EmbeddableCdn(CdnStore):
    """A CDN whose images the page shows in embeds too."""

    def store_attachment(
        self, attachment_id: int, channel_id: int, filename: str, data: bytes, description: str | None
    ) -> dict[str, Any]:
        stored = super().store_attachment(attachment_id, channel_id, filename, data, description)
        address = f"{CDN}/attachments/{channel_id}/{attachment_id}/{filename}"
        self._blobs[address] = data
        return {**stored, "url": address, "proxy_url": address}


def install(env: simcord.Env) -> MovingClock:
    """Give the environment a clock that moves and a CDN for embeds."""
    clock, backend = MovingClock(), cast("Any", env.backend)
    backend.clock, backend.cdn = clock, EmbeddableCdn()
    return clock


def unblocked(ports: Ports, *, env: Callable[[], simcord.Env]) -> Ports:
    """Ports with which simcord does not wait for the provider, nor for a turn at it, at the end of an action."""
    queue = cast("RequestQueue", _Queue(ports.queue, env))
    return replace(ports, provider=_Provider(ports.provider, env), queue=queue)


@dataclass(frozen=True, slots=True)
class _Provider:
    provider: Provider
    env: Callable[[], simcord.Env]

    async def create(self, request: ThumbnailRequest) -> Output:
        made: Output = await self.env().external_wait(self.provider.create(request), reason="Pikzels makes an image")
        return made


class _Queue:
    """The queue, except that its tickets wait outside of simcord's sight."""

    def __init__(self, queue: RequestQueue, env: Callable[[], simcord.Env]) -> None:
        self._queue = queue
        self._env = env

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)

    def enter(self, member: int) -> Ticket:
        ticket = self._queue.enter(member)
        ticket.turn_future = cast("asyncio.Future[None]", _Turn(ticket.turn_future, self._env))
        return ticket


class _Turn:
    """The future of a ticket's turn."""

    def __init__(self, future: asyncio.Future[None], env: Callable[[], simcord.Env]) -> None:
        self._future = future
        self._env = env

    def __getattr__(self, name: str) -> Any:
        return getattr(self._future, name)

    def __await__(self) -> Generator[Any, None, None]:
        return cast("Generator[Any, None, None]", self._env().external_wait(self._future, reason="a turn").__await__())
