"""What is used when a member leaves an option out: their own choice, else the server's, else the operator's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot.domain.models import require
from bot.domain.server_rules import Preferences, PresetKind, merged_presets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bot.domain.models import Format, Model
    from bot.domain.protocols import PolicyStore


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a request has where its member said nothing."""

    model: Model
    format: Format
    private: bool


class Choices:
    """`defaults` are the operator's, with a model and a format; so are `presets`, name to id."""

    def __init__(
        self,
        *,
        policies: PolicyStore,
        defaults: Preferences,
        presets: Mapping[PresetKind, Mapping[str, str]],
    ) -> None:
        self._policies = policies
        self._defaults = defaults
        self._presets = presets

    async def of(self, user_id: int, guild_id: int | None) -> Chosen:
        """What a member's request in a server starts from."""
        found = (await self._policies.preferences(user_id)).or_else(await self.here(guild_id))
        return Chosen(require(found.model), require(found.format), found.private or False)

    async def here(self, guild_id: int | None) -> Preferences:
        """What whoever has chosen nothing gets in a server."""
        return (await self._policies.server_rules(guild_id)).defaults.or_else(self._defaults)

    @property
    def operators(self) -> Preferences:
        return self._defaults

    async def presets(self, kind: PresetKind, guild_id: int | None) -> Mapping[str, str]:
        """The names that a server knows, to the provider's ids."""
        rules = await self._policies.server_rules(guild_id)
        return merged_presets(self._presets.get(kind, {}), rules.presets.get(kind, {}))

    async def own(self, user_id: int) -> Preferences:
        """What a member has chosen for themselves."""
        return await self._policies.preferences(user_id)

    async def choose(self, user_id: int, preferences: Preferences) -> None:
        """Remember what a member wants from now on."""
        await self._policies.set_preferences(user_id, preferences)
