"""The page of a simulated server. It also shows what the bot does between the actions of the people on it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    import simcord
    from simcord.backend.cdn import CdnStore
    from simcord.preview import Preview

    from sandbox.simulated import SimulatedServer

LOOK_SECONDS = 0.25  # between two looks for something new
COUNT_SECONDS = 60.0  # after which relative times ("in 5 hours") are shown anew


class Page:
    """A page that is open. Only one action, or one publication, runs at once: simcord refuses a second one."""

    def __init__(self, server: SimulatedServer, preview: Preview) -> None:
        self._env = server.env
        internals: Any = preview  # what follows has no public access in simcord 3.2.1
        self._preview = preview
        self._one = asyncio.Lock()
        self._act = internals._action  # noqa: SLF001
        internals._action = self._one_action  # noqa: SLF001
        # Its images of embeds are those known at the start; the bot's results come later.
        internals._explicit_assets = _Images(server.env.backend.cdn)  # noqa: SLF001
        self._published = (0, 0.0)

    @property
    def address(self) -> str:
        return str(self._preview.url)

    async def publish(self) -> None:
        """Show everybody what is there now."""
        async with self._one:
            with suppress(TimeoutError):  # the bot is busy; the next look comes soon
                await self._preview.refresh()
                self._note_published()

    async def keep_current(self) -> None:
        """Publish whatever the bot does, for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            requests, at = self._published
            if len(self._env.http_requests) != requests or asyncio.get_running_loop().time() - at > COUNT_SECONDS:
                await self.publish()

    async def _one_action(self, context_id: str | None, body: Mapping[str, Any]) -> Any:
        async with self._one:
            try:
                self._preview._advance_presentation_time()  # noqa: SLF001 - else times are relative to the start
                return await self._act(context_id, body)
            finally:
                self._note_published()

    def _note_published(self) -> None:
        self._published = (len(self._env.http_requests), asyncio.get_running_loop().time())


@asynccontextmanager
async def opened(
    server: SimulatedServer, *, viewers: Sequence[simcord.MemberActor], port: int | None
) -> AsyncIterator[Page]:
    """Serve the page until the end of the block."""
    async with server.env.preview(server.channel, viewers=viewers, layout="channel", port=port) as preview:
        page = Page(server, preview)
        keeping = asyncio.create_task(page.keep_current())
        try:
            yield page
        finally:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping


class _Images(dict[str, tuple[str, bytes]]):
    """Every image of the CDN, by its URL."""

    def __init__(self, cdn: CdnStore) -> None:
        super().__init__()
        self._cdn = cdn

    def get(self, address: str, default: Any = None, /) -> Any:
        image = self._cdn.get(address)
        return default if image is None else (address.rpartition("/")[2], image)
