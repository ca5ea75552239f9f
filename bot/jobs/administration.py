"""What the admins of a server may set and see, within what the operator allows."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from bot.domain import server_rules, validation
from bot.domain.errors import InvalidSetting
from bot.domain.server_rules import NOTHING_SET, Amounts, Block, LimitKind

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from bot.domain.protocols import PolicyStore, UsageRecords
    from bot.domain.quota import QuotaRules
    from bot.domain.server_rules import Change, PresetKind, ServerRules
    from bot.domain.usage import Usage

USAGE_DAYS = 30
MOST_LIMITS, MOST_PRESETS, MOST_CHANNELS = 500, 100, 100  # of one server; of presets, per kind
PRESET_NAME_LENGTH = 60


@dataclass(frozen=True, slots=True)
class LimitTarget:
    """Whose limit is set; `subject` is a role, a user, or 0."""

    kind: LimitKind
    subject: int = 0


class Administration:
    """Every change comes with a `Change`, which says who makes it and in which server; whoever makes one has checked
    that the person may. Each method returns the state after it. Raises `InvalidSetting` for what cannot be set.
    """

    def __init__(
        self,
        *,
        policies: PolicyStore,
        usage: UsageRecords,
        quota: QuotaRules,
        clock: Callable[[], datetime],
    ) -> None:
        self.quota = quota
        self._policies = policies
        self._usage = usage
        self._clock = clock
        self._changing = asyncio.Lock()  # most changes read the rules before they write them

    async def rules(self, guild_id: int) -> ServerRules:
        return await self._policies.server_rules(guild_id)

    async def usage(self, guild_id: int, at: datetime) -> Usage:
        """What was used in the days up to `at`, by the calendar of the limits."""
        today = at.astimezone(self.quota.zone).date()
        return await self._usage.usage(guild_id, first=today - timedelta(days=USAGE_DAYS - 1), last=today)

    async def set_limit(
        self, change: Change, target: LimitTarget, *, day: str | None, month: str | None
    ) -> ServerRules:
        """Set what is given; what is left out stays as it is."""
        if day is None and month is None:
            raise InvalidSetting("limit_amount")
        async with self._changing:
            rules = await self._policies.server_rules(change.guild_id)
            key = (target.kind, target.subject)
            now = rules.limits.get(key, NOTHING_SET)
            amounts = Amounts(server_rules.amount(day, now.daily), server_rules.amount(month, now.monthly))
            _check_room(key in rules.limits or amounts == NOTHING_SET, len(rules.limits), MOST_LIMITS)
            return await self._policies.set_limit(change, target.kind, target.subject, amounts)

    async def grant(self, change: Change, amount: int, reason: str) -> int:
        """Give `change.target` extra credits, or take back what is left of them; returns how many are left."""
        return await self._policies.grant(change, change.target, amount, reason)

    async def block(self, change: Change, reason: str, *, days: float | None) -> list[Block]:
        """Block `change.target`, for ever without `days`."""
        until = None if days is None else change.at + timedelta(days=days)
        block = Block(
            guild_id=change.guild_id,
            is_server=False,
            subject=change.target,
            reason=reason,
            until=until,
            actor=change.actor,
            at=change.at,
        )
        await self._policies.block(change, block)
        return await self.blocks(change.guild_id)

    async def unblock(self, change: Change) -> tuple[bool, list[Block]]:
        """Lift the block of `change.target`; says whether there was one."""
        lifted = await self._policies.unblock(change, change.guild_id, change.target, is_server=False)
        return lifted, await self.blocks(change.guild_id)

    async def blocks(self, guild_id: int) -> list[Block]:
        return await self._policies.active_blocks(guild_id, now=self._clock())

    async def add_preset(self, change: Change, kind: PresetKind, name: str, value: str) -> ServerRules:
        name, identifier = " ".join(name.split()), validation.preset_id(value)
        if not name.isprintable() or not name:
            raise InvalidSetting("preset_name")
        async with self._changing:
            known = (await self._policies.server_rules(change.guild_id)).presets.get(kind, {})
            is_known = name.casefold() in {one.casefold() for one in known}
            _check_room(is_known, len(known), MOST_PRESETS)
            return await self._policies.add_preset(change, kind, name, identifier)

    async def remove_preset(self, change: Change, kind: PresetKind, name: str) -> ServerRules:
        async with self._changing:
            known = (await self._policies.server_rules(change.guild_id)).presets.get(kind, {})
            if name.strip().casefold() not in {one.casefold() for one in known}:
                raise InvalidSetting("no_preset")
            return await self._policies.remove_preset(change, kind, name.strip())

    async def add_channel(self, change: Change, channel_id: int) -> ServerRules:
        async with self._changing:
            rules = await self._policies.server_rules(change.guild_id)
            _check_room(channel_id in rules.channels, len(rules.channels), MOST_CHANNELS)
            return await self._policies.set_rules(change, replace(rules, channels=rules.channels | {channel_id}))

    async def remove_channel(self, change: Change, channel_id: int) -> ServerRules:
        async with self._changing:
            rules = await self._policies.server_rules(change.guild_id)
            return await self._policies.set_rules(change, replace(rules, channels=rules.channels - {channel_id}))

    async def set_log_channel(self, change: Change, channel_id: int | None) -> ServerRules:
        async with self._changing:
            rules = await self._policies.server_rules(change.guild_id)
            return await self._policies.set_rules(change, replace(rules, log_channel=channel_id))

    async def set_defaults(
        self, change: Change, *, model: str | None, format_: str | None, private: str | None, spoiler: bool | None
    ) -> ServerRules:
        """What is left out stays as it is; the values are those of `server_rules.chosen`."""
        async with self._changing:
            rules = await self._policies.server_rules(change.guild_id)
            defaults = server_rules.chosen(rules.defaults, model=model, format_=format_, private=private)
            hidden = rules.spoiler if spoiler is None else spoiler
            return await self._policies.set_rules(change, replace(rules, defaults=defaults, spoiler=hidden))


def _check_room(is_known: bool, count: int, most: int) -> None:  # noqa: FBT001 - one call per kind, beside its meaning
    """Raises `InvalidSetting` if one more would be too many."""
    if not is_known and count >= most:
        raise InvalidSetting("too_many")
