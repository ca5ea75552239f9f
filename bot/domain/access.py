"""Who may use the bot, and where. Pure: what is known about a person comes from outside."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from bot.domain.errors import Blocked, ChannelNotAllowed, ServerNotAllowed, TooNew

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bot.domain.models import Requester
    from bot.domain.server_rules import Block, ServerRules

_DISCORD_EPOCH = datetime(2015, 1, 1, tzinfo=UTC)  # the timestamp in a snowflake counts milliseconds from here


@dataclass(frozen=True, slots=True)
class AccessRules:
    """The operator's rules. No `servers` at all: every server may use the bot."""

    servers: frozenset[int] = frozenset()
    account_age: timedelta = timedelta(0)
    time_in_server: timedelta = timedelta(0)

    def check_server(self, guild_id: int | None) -> None:
        """Raises `ServerNotAllowed`."""
        if self.servers and guild_id not in self.servers:
            raise ServerNotAllowed

    def check(self, requester: Requester, rules: ServerRules, blocks: Iterable[Block]) -> None:
        """Raises `ServerNotAllowed`, `Blocked`, `TooNew`, `ChannelNotAllowed` for a request that is not accepted.

        `blocks` are those of this member and this server. Whoever Discord says nothing about is not too new.
        """
        self.check_server(requester.guild_id)
        asked_at = requester.asked_at
        for block in blocks:
            if block.until is None or asked_at < block.until:
                raise Blocked(block)
        _check_age("account", account_created(requester.user_id) + self.account_age, asked_at)
        if requester.joined_at is not None:
            _check_age("member", requester.joined_at + self.time_in_server, asked_at)
        if not requester.private:
            _check_channel(requester, rules)


def account_created(user_id: int) -> datetime:
    """When Discord made an account: the time in its snowflake."""
    return _DISCORD_EPOCH + timedelta(milliseconds=user_id >> 22)


def _check_age(what: str, until: datetime, asked_at: datetime) -> None:
    if asked_at < until:
        raise TooNew(what, until)


def _check_channel(requester: Requester, rules: ServerRules) -> None:
    places = {requester.channel_id, requester.parent_channel_id}
    if rules.channels and not rules.channels & places:
        raise ChannelNotAllowed(tuple(sorted(rules.channels)))
