"""Whether the event loop goes on while something large is handled."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import pytest


@dataclass(slots=True)
class Turns:
    """The turns that another task of the event loop had."""

    count: int = 0


@asynccontextmanager
async def counted_turns() -> AsyncIterator[Turns]:
    turns = Turns()

    async def take_turns() -> None:
        while True:
            turns.count += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(take_turns())
    try:
        yield turns
    finally:
        task.cancel()


def recorded_threads(monkeypatch: pytest.MonkeyPatch, *targets: str) -> dict[str, set[bool]]:
    """For each function, named by its dotted path: whether its calls were made by the thread of this test."""
    calls: dict[str, set[bool]] = {target: set() for target in targets}
    here = threading.get_ident()

    def recorded(target: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(call)
        def record(*args: Any, **kwargs: Any) -> Any:
            calls[target].add(threading.get_ident() == here)
            return call(*args, **kwargs)

        return record

    for target in targets:
        module, _, name = target.rpartition(".")
        owner = __import__(module, fromlist=[name])
        monkeypatch.setattr(owner, name, recorded(target, getattr(owner, name)))
    return calls
