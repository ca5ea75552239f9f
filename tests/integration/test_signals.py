"""Stop signals on a system that cannot block them, such as Windows."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from bot import supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAMES = ("SIGINT", "SIGTERM", "SIGBREAK")


@pytest.fixture
def _restore_handlers() -> Iterator[None]:
    before = {name: signal.getsignal(getattr(signal, name)) for name in _NAMES if hasattr(signal, name)}
    yield
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)


@pytest.mark.usefixtures("_restore_handlers")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
async def test_a_signal_stops_the_bot_where_signals_cannot_be_blocked(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delattr(signal, "pthread_sigmask")
    monkeypatch.delattr(signal, "sigwait")
    stopped = asyncio.Event()
    supervisor._listen(stopped.set)
    signal.raise_signal(getattr(signal, name))
    await asyncio.wait_for(stopped.wait(), 5)
    signal.raise_signal(getattr(signal, name))  # a second one is ignored


@pytest.mark.usefixtures("_restore_handlers")
async def test_sigbreak_stops_the_bot_where_it_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "pthread_sigmask")
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    stopped = asyncio.Event()
    before = signal.getsignal(signal.SIGUSR1)
    supervisor._listen(stopped.set)
    signal.raise_signal(signal.SIGUSR1)
    await asyncio.wait_for(stopped.wait(), 5)
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("_restore_handlers")
def test_a_signal_after_the_end_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "pthread_sigmask")

    async def listen() -> None:
        supervisor._listen(lambda: None)

    asyncio.run(listen())
    signal.raise_signal(signal.SIGTERM)
