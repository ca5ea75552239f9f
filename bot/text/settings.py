"""What members and admins read about the choices that are used when an option is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot.text.formatting import FORMATS, MODELS
from bot.text.locales import translator

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from bot.domain.server_rules import Preferences

    Translate: TypeAlias = Callable[[str], str]

AS_IN_THE_SERVER = "the server's default"  # a choice of /settings
AS_THE_OPERATOR = "the operator's default"  # a choice of the admins


def of_member(own: Preferences, here: Preferences, *, locale: str) -> str:
    """What /thumbnail uses for a member who leaves an option out, and whose choice that is."""
    _ = translator(locale)
    lines = [
        _("When you leave an option of `/thumbnail` out, the bot uses:"),
        *choices(own, here, otherwise=_(AS_IN_THE_SERVER), _=_),
    ]
    return "\n".join(lines)


def choices(own: Preferences, others: Preferences, *, otherwise: str, _: Translate) -> list[str]:
    """One line per option: what has been chosen, else what others have chosen, which `otherwise` names."""
    lines = []
    for name, chosen, default in (
        (_("Model"), _model(own), _model(others)),
        (_("Format"), _format(own), _format(others)),
        (_("Private"), _private(own, _), _private(others, _) or _("no")),
    ):
        lines.append(f"**{name}**: {chosen}" if chosen else f"**{name}**: {default} ({otherwise})")
    return lines


def _model(preferences: Preferences) -> str | None:
    return None if preferences.model is None else MODELS[preferences.model]


def _format(preferences: Preferences) -> str | None:
    return None if preferences.format is None else FORMATS[preferences.format]


def _private(preferences: Preferences, _: Translate) -> str | None:
    return None if preferences.private is None else (_("yes") if preferences.private else _("no"))
