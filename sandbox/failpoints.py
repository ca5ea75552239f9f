"""Wraps the ports of the use case, so that something can happen before and after every call of each.

The points are named from the calls: `repository.sending` is reached before that call, `repository.sending done` after
it. The bot itself carries no such hooks.
"""

from __future__ import annotations

import inspect
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from bot.jobs.ports import Ports

# Plain values, and what has no effect outside the process.
_NOT_WRAPPED = ("queue", "notices", "metrics", "job_log", "clock")
# Dying before or after a read is dying after the effect before it.
_READS = ("job", "open_jobs", "parked_jobs", "unnotified_jobs", "allowances")


class Wrapped:
    """A port whose calls pass `reach`; what `reach` raises is raised instead of, or after, the call."""

    def __init__(self, name: str, port: Any, reach: Callable[[str], None]) -> None:
        self._name = name
        self._port = port
        self._reach = reach

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._port, attribute)
        point = f"{self._name}.{attribute}"
        if attribute in _READS:
            return value
        if inspect.iscoroutinefunction(value):
            return self._call(point, value)
        if inspect.isasyncgenfunction(value):
            return self._stream(point, value)
        return value

    def _call(self, point: str, function: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            self._reach(point)
            result = await function(*args, **kwargs)
            self._reach(f"{point} done")
            return result

        return call

    def _stream(self, point: str, function: Callable[..., Any]) -> Callable[..., Any]:
        async def stream(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
            self._reach(point)
            async for item in function(*args, **kwargs):
                yield item
            self._reach(f"{point} done")

        return stream


def wrapped(ports: Ports, reach: Callable[[str], None]) -> Ports:
    """The same ports, with `reach` told of every point."""
    names = (field.name for field in fields(ports) if field.name not in _NOT_WRAPPED)
    changes: dict[str, Any] = {name: Wrapped(name, getattr(ports, name), reach) for name in names}
    return replace(ports, **changes)
