"""The database without its thread and event loop: a call yields its work, and `together` does it."""

from __future__ import annotations

import asyncio
import sqlite3
import types
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from bot.storage import opening
from bot.storage.database import Database, Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterator
    from pathlib import Path

T = TypeVar("T")


@contextmanager
def empty_database(folder: Path) -> Iterator[sqlite3.Connection]:
    """A new database as the bot makes it, for `copied`."""
    path = folder / "empty.sqlite3"
    asyncio.run(_create(path))
    with closing(sqlite3.connect(path)) as empty:
        yield empty


async def _create(path: Path) -> None:
    async with opening.opened(path):
        pass


def copied(origin: sqlite3.Connection, to: Path | str = ":memory:") -> sqlite3.Connection:
    """A copy of a database, by default in memory."""
    copy = sqlite3.connect(to, isolation_level=None)
    copy.execute("PRAGMA synchronous = OFF")  # no power loss in these tests
    origin.backup(copy)
    return copy


class InlineDatabase(Database):
    """The statements, the savepoints, BEGIN, and COMMIT are those of the real database."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._transaction = Transaction(raw)
        self.damage = None
        [[self.salt]] = raw.execute("SELECT salt FROM pseudonyms")

    async def _enqueue(self, work: Callable[[], T]) -> T:
        return await _request_work(work)

    def together(self, *calls: Coroutine[Any, Any, Any]) -> list[Any]:
        """Run calls at the same moment, with their work in one commit; return their results and exceptions."""
        outcomes: list[Any] = [None] * len(calls)
        answers: dict[int, Any] = dict.fromkeys(range(len(calls)))
        while answers:
            works = {}
            for number, answer in answers.items():
                try:
                    works[number] = _resume(calls[number], answer)
                except StopIteration as end:
                    outcomes[number] = end.value
                except Exception as error:  # noqa: BLE001 - an outcome like any other
                    outcomes[number] = error
            answers = dict(zip(works, self._commit(list(works.values())), strict=True)) if works else {}
        return outcomes


@types.coroutine
def _request_work(work: Callable[[], T]) -> Generator[Callable[[], T], T, T]:
    return (yield work)


def _resume(call: Coroutine[Any, Any, Any], answer: Any) -> Any:
    """Resume a call; return the work that it yields next, or raise StopIteration at its end."""
    return call.throw(answer) if isinstance(answer, Exception) else call.send(answer)
