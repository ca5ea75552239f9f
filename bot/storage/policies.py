"""What the operator and the admins of servers have set, who is blocked, and who changed what."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from bot.domain.models import Format, Model
from bot.domain.server_rules import Amounts, Block, LimitKind, Preferences, PresetKind, ServerRules
from bot.storage.job_rows import maybe_time, ms, time_of
from bot.storage.pseudonyms import member_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from bot.domain.server_rules import Change
    from bot.storage.database import Database, Row, Transaction

_CACHED = 1000  # servers whose rules stay in memory

_BLOCKS = """
    SELECT * FROM blocks
    WHERE (kind = 'member' AND subject = :member AND guild_id IN (0, :guild_id))
        OR (kind = 'server' AND subject = :guild_id AND guild_id = 0)
"""
_MOST = 10_000  # people of whom memory knows that the database has something about them
_BLOCKED = f"SELECT DISTINCT subject FROM blocks LIMIT {_MOST + 1}"
_CHOOSERS = f"SELECT user_id FROM member_settings LIMIT {_MOST + 1}"
_AUDIT = "INSERT INTO audit (at, actor, guild_id, target, action, details) VALUES (?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True, slots=True)
class _Exceptions:
    """Who is blocked, and who has preferences: nearly nobody, so that nearly nobody's request has to ask the database.
    None: too many to remember.
    """

    blocked: frozenset[int] | None
    choosers: frozenset[int] | None


class Policies:
    """Rules of servers, blocks, grants, presets, and settings of members. Each change is one transaction, together with
    the record of who made it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rules: dict[int, ServerRules] = {}  # the latest read or written ones
        self._exceptions: _Exceptions | None = None

    # --- reading -----------------------------------------------------------------------------------------------------

    async def server_rules(self, guild_id: int | None) -> ServerRules:
        """What the admins of a server have set; outside of servers, nothing."""
        if guild_id is None:
            return ServerRules()
        known = self._rules.get(guild_id)
        if known is None:
            known = await self._database.write(lambda transaction: _rules(transaction, guild_id))
            while len(self._rules) >= _CACHED:
                del self._rules[next(iter(self._rules))]
            self._rules[guild_id] = known
        return known

    async def blocks(self, user_id: int, guild_id: int | None) -> list[Block]:
        """The blocks of a member there and everywhere, and of the server; some may have expired."""
        values = {"member": self._key(user_id), "guild_id": guild_id}
        blocked = (await self._known()).blocked
        if blocked is not None and blocked.isdisjoint(values.values()):
            return []
        return [_block(row) for row in await self._database.run(_BLOCKS, values)]

    async def preferences(self, user_id: int) -> Preferences:
        """What a member has chosen for themselves."""
        choosers = (await self._known()).choosers
        if choosers is not None and user_id not in choosers:
            return Preferences()
        rows = await self._database.run("SELECT * FROM member_settings WHERE user_id = ?", (user_id,))
        return _preferences(dict(rows[0])) if rows else Preferences()

    async def _known(self) -> _Exceptions:
        if self._exceptions is None:
            self._exceptions = await self._database.write(_read_exceptions)
        return self._exceptions

    # --- changing ----------------------------------------------------------------------------------------------------

    async def set_limit(self, change: Change, kind: LimitKind, subject: int, amounts: Amounts) -> ServerRules:
        """Set one limit of the server, or remove it if nothing is set; returns the rules after it."""
        key = (change.guild_id, kind, subject)

        def steps(transaction: Transaction) -> None:
            transaction.run("DELETE FROM server_limits WHERE guild_id = ? AND kind = ? AND subject = ?", key)
            if amounts != Amounts():
                values = (*key, amounts.daily, amounts.monthly)
                transaction.run("INSERT INTO server_limits VALUES (?, ?, ?, ?, ?)", values)

        return await self._changed(change, steps, kind=kind, subject=subject, **asdict(amounts))

    async def set_rules(self, change: Change, rules: ServerRules) -> ServerRules:
        """Set the channels, the log channel, the defaults and the spoiler of a server; returns the rules after it."""
        settings = _settings(rules)

        def steps(transaction: Transaction) -> None:
            transaction.run(
                "INSERT INTO servers (guild_id, settings, seen_at) VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET settings = excluded.settings",
                (change.guild_id, json.dumps(settings), ms(change.at)),
            )

        return await self._changed(change, steps, **settings)

    async def add_preset(self, change: Change, kind: PresetKind, name: str, value: str) -> ServerRules:
        """Name one of the provider's ids, in place of what had that name; returns the rules after it."""
        values = (change.guild_id, kind, name.casefold(), name, value)

        def steps(transaction: Transaction) -> None:
            transaction.run("INSERT OR REPLACE INTO presets VALUES (?, ?, ?, ?, ?)", values)

        return await self._changed(change, steps, kind=kind, name=name, value=value)

    async def remove_preset(self, change: Change, kind: PresetKind, name: str) -> ServerRules:
        """Forget a name; returns the rules after it, which are the same if there was no such name."""
        sql = "DELETE FROM presets WHERE guild_id = ? AND kind = ? AND folded = ?"

        def steps(transaction: Transaction) -> None:
            transaction.run(sql, (change.guild_id, kind, name.casefold()))

        return await self._changed(change, steps, kind=kind, name=name)

    async def block(self, change: Change, block: Block) -> None:
        """Block somebody, in place of what blocked them there before."""
        subject = block.subject if block.is_server else self._key(block.subject)
        values = (
            block.guild_id,
            "server" if block.is_server else "member",
            subject,
            block.subject,
            block.reason,
            None if block.until is None else ms(block.until),
            block.actor,
            ms(block.at),
        )

        def steps(transaction: Transaction) -> None:
            transaction.run("INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)

        until = None if block.until is None else block.until.isoformat()
        await self._changed(change, steps, reason=block.reason, until=until)

    async def unblock(self, change: Change, guild_id: int, subject: int, *, is_server: bool) -> bool:
        """Lift a block; False if there was none."""
        key = (guild_id, "server" if is_server else "member", subject if is_server else self._key(subject))
        lifted = list[Any]()

        def steps(transaction: Transaction) -> None:
            sql = "DELETE FROM blocks WHERE guild_id = ? AND kind = ? AND subject = ? RETURNING subject"
            lifted[:] = transaction.run(sql, key)

        await self._changed(change, steps)
        return bool(lifted)

    async def active_blocks(self, guild_id: int, *, now: datetime) -> list[Block]:
        """Who is blocked in a server; for 0, who is blocked everywhere."""
        sql = "SELECT * FROM blocks WHERE guild_id = ? AND (until IS NULL OR until > ?) ORDER BY at"
        return [_block(row) for row in await self._database.run(sql, (guild_id, ms(now)))]

    async def grant(self, change: Change, user_id: int, amount: int, reason: str) -> int:
        """Give a member extra credits in the server, or take back what is left of them; returns how many are left."""
        member = self._key(user_id)

        def steps(transaction: Transaction) -> int:
            given = max(amount, -_extra(transaction, member, change.guild_id))
            if given:
                transaction.run(
                    "INSERT INTO grants (guild_id, user_id, member, amount, reason, actor, at)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (change.guild_id, user_id, member, given, reason, change.actor, ms(change.at)),
                )
            _record(transaction, change, amount=given, reason=reason)
            return _extra(transaction, member, change.guild_id)

        return await self._database.write(steps)

    async def set_preferences(self, user_id: int, preferences: Preferences) -> None:
        """What a member wants from now on; nothing is recorded but the choice."""
        values = (user_id, preferences.model, preferences.format, preferences.private)
        try:
            if preferences == Preferences():
                await self._database.run("DELETE FROM member_settings WHERE user_id = ?", (user_id,))
            else:
                await self._database.run("INSERT OR REPLACE INTO member_settings VALUES (?, ?, ?, ?)", values)
        finally:  # as for the rules
            self._exceptions = None

    async def record(self, change: Change, **details: Any) -> None:
        """Write down a change that is kept elsewhere."""
        await self._database.write(lambda transaction: _record(transaction, change, **details))

    def forget_cached(self) -> None:
        """Something else has changed the tables."""
        self._rules.clear()
        self._exceptions = None

    async def _changed(self, change: Change, steps: Any, **details: Any) -> ServerRules:
        def recorded(transaction: Transaction) -> ServerRules:
            steps(transaction)
            _record(transaction, change, **details)
            return _rules(transaction, change.guild_id)

        try:
            return await self._database.write(recorded)
        finally:  # a caller that was cancelled has changed them all the same
            self._rules.pop(change.guild_id, None)
            self._exceptions = None

    def _key(self, user_id: int) -> int:
        return member_key(self._database.salt, user_id)


def _read_exceptions(transaction: Transaction) -> _Exceptions:
    return _Exceptions(*(_few(transaction.run(sql)) for sql in (_BLOCKED, _CHOOSERS)))


def _few(rows: Sequence[Row]) -> frozenset[int] | None:
    return None if len(rows) > _MOST else frozenset(row[0] for row in rows)


def _record(transaction: Transaction, change: Change, **details: Any) -> None:
    values = (ms(change.at), change.actor, change.guild_id or None, change.target, change.action)
    transaction.run(_AUDIT, (*values, json.dumps(details)))


def _extra(transaction: Transaction, member: int, guild_id: int) -> int:
    given = "SELECT COALESCE(SUM(amount), 0) FROM grants WHERE member = ? AND guild_id = ?"
    used = "SELECT COALESCE(SUM(used), 0) FROM totals WHERE scope = 'extra' AND subject = ? AND place = ?"
    [[amount]], [[spent]] = (transaction.run(sql, (member, guild_id)) for sql in (given, used))
    return int(amount) - int(spent)


def _rules(transaction: Transaction, guild_id: int) -> ServerRules:
    limits = transaction.run("SELECT * FROM server_limits WHERE guild_id = ?", (guild_id,))
    presets = transaction.run("SELECT * FROM presets WHERE guild_id = ? ORDER BY folded", (guild_id,))
    settings = transaction.run("SELECT settings FROM servers WHERE guild_id = ?", (guild_id,))
    return replace(
        _from_settings(json.loads(settings[0]["settings"]) if settings else {}),
        limits={(LimitKind(row["kind"]), row["subject"]): Amounts(row["daily"], row["monthly"]) for row in limits},
        presets={kind: {row["name"]: row["value"] for row in presets if row["kind"] == kind} for kind in PresetKind},
    )


def _settings(rules: ServerRules) -> dict[str, Any]:
    return {
        "channels": sorted(rules.channels),
        "log_channel": rules.log_channel,
        "spoiler": rules.spoiler,
        **asdict(rules.defaults),
    }


def _from_settings(stored: Mapping[str, Any]) -> ServerRules:
    return ServerRules(
        channels=frozenset(stored.get("channels", ())),
        log_channel=stored.get("log_channel"),
        defaults=_preferences(stored),
        spoiler=stored.get("spoiler", False),
    )


def _preferences(stored: Mapping[str, Any]) -> Preferences:
    model, format_, private = (stored.get(name) for name in ("model", "format", "private"))
    return Preferences(
        None if model is None else Model(model),
        None if format_ is None else Format(format_),
        None if private is None else bool(private),
    )


def _block(row: Row) -> Block:
    return Block(
        guild_id=row["guild_id"],
        is_server=row["kind"] == "server",
        subject=row["shown_id"],
        reason=row["reason"],
        until=maybe_time(row["until"]),
        actor=row["actor"],
        at=time_of(row["at"]),
    )
