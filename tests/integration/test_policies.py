"""Nearly nobody is blocked or has chosen anything, so a request asks the database only for those who are or have."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from bot.domain.models import Model
from bot.domain.server_rules import Block, Change, Preferences
from bot.storage import opening, policies
from bot.storage.policies import Policies
from tests.support.factories import NOON

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

    from bot.storage.database import Database

GUILD, ELSEWHERE = 900, 901
BY_ADMIN = Change(7, GUILD, "block", NOON)
CHOSEN = Preferences(model=Model.PKZ_2)


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[tuple[Database, Policies]]:
    async with opening.opened(folder / "bot.sqlite3") as store:
        yield store, Policies(store)


def a_block(user_id: int, *, guild_id: int = GUILD, is_server: bool = False) -> Block:
    return Block(guild_id, is_server, user_id, "spam", None, 7, NOON)


def counted(store: Database, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that the database is asked to run from now on."""
    asked: list[str] = []
    ask = store.run

    async def run(sql: str, parameters: object = ()) -> object:
        asked.append(sql)
        return await ask(sql, parameters)  # type: ignore[arg-type]  # as it was given

    monkeypatch.setattr(store, "run", run)
    return asked


async def test_others_are_not_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as (store, found):
        await found.block(BY_ADMIN, a_block(1))
        await found.set_preferences(2, CHOSEN)
        assert [block.subject for block in await found.blocks(1, GUILD)] == [1]
        asked = counted(store, monkeypatch)
        for user_id in range(3, 100):
            assert await found.blocks(user_id, GUILD) == []
            assert await found.preferences(user_id) == Preferences()
        assert asked == []


async def test_a_change_counts_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, found):
        assert (await found.blocks(1, GUILD), await found.preferences(1)) == ([], Preferences())
        await found.block(BY_ADMIN, a_block(1))
        await found.set_preferences(1, CHOSEN)
        assert [block.reason for block in await found.blocks(1, GUILD)] == ["spam"]
        assert (await found.blocks(1, ELSEWHERE), await found.preferences(1)) == ([], CHOSEN)
        assert await found.unblock(BY_ADMIN, GUILD, 1, is_server=False)
        await found.set_preferences(1, Preferences())
        assert (await found.blocks(1, GUILD), await found.preferences(1)) == ([], Preferences())


async def test_a_blocked_server_blocks_everybody_in_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, found):
        assert await found.blocks(1, GUILD) == []
        await found.block(Change(7, 0, "block", NOON), a_block(GUILD, guild_id=0, is_server=True))
        assert [block.is_server for block in await found.blocks(1, GUILD)] == [True]
        assert await found.blocks(1, ELSEWHERE) == []
        assert await found.blocks(1, None) == []


async def test_with_too_many_to_remember_everybody_is_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "_BLOCKED", "SELECT DISTINCT subject FROM blocks LIMIT 3")
    monkeypatch.setattr(policies, "_CHOOSERS", "SELECT user_id FROM member_settings LIMIT 3")
    monkeypatch.setattr(policies, "_MOST", 2)
    async with opened(tmp_path) as (_, found):
        for user_id in range(1, 6):
            await found.block(BY_ADMIN, a_block(user_id))
            await found.set_preferences(user_id, CHOSEN)
        for user_id in range(1, 6):
            assert [block.subject for block in await found.blocks(user_id, GUILD)] == [user_id]
            assert await found.preferences(user_id) == CHOSEN
        assert (await found.blocks(6, GUILD), await found.preferences(6)) == ([], Preferences())
