"""What limits say: which one a request exceeds, and what is left of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot.domain.models import OF_MEMBERS, Period, Scope
from bot.text.formatting import bar, credits_, relative_time
from bot.text.locales import translator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from bot.domain.errors import QuotaExceeded
    from bot.domain.models import Allowance, Limit

    Translate: TypeAlias = Callable[[str], str]


def exceeded(error: QuotaExceeded, _: Translate) -> str:
    """Which limit has no room for a request."""
    limit, used = error.allowance.limit, error.allowance.used
    sentence = {
        Scope.MEMBER: _("You have used {used} of {credits} {when}{costs}. Resets {time}."),
        Scope.MEMBER_HERE: _("You have used {used} of {credits} in this server {when}{costs}. Resets {time}."),
        Scope.GUILD: _("This server has used {used} of {credits} {when}{costs}. Resets {time}."),
        Scope.BOT: _("All servers together have used {used} of {credits} {when}{costs}. Resets {time}."),
        Scope.MONEY: _("The bot's budget for {period} is used up. Resets {time}."),
        Scope.ATTEMPTS: _("You have made {used} requests this hour. Try again {time}."),
        Scope.UNKNOWN: _(
            "{used} of your requests today may have cost the operator money without an image for you: they weren't"
            " answered, or their image was given up. Try again {time}."
        ),
        Scope.STRIKES: _(
            "The image service refused {used} of your requests today for their content. Try again {time}."
        ),
    }[limit.scope]
    costs = _(", and this costs {cost}").format(cost=error.cost) if error.cost > 1 else ""
    return sentence.format(
        used=used,
        credits=credits_(limit.amount),
        costs=costs,
        when=_when(limit, _),
        period={Period.MONTH: _("this month")}.get(limit.window.period, _("today")),
        time=relative_time(limit.window.end),
    )


def _when(limit: Limit, _: Translate) -> str:
    return _("this month") if limit.window.period is Period.MONTH else _("today")


def allowances(found: Sequence[Allowance], *, locale: str) -> str:
    """What is used and left; the limit that binds first comes last."""
    _ = translator(locale)
    lines = [_allowance(one, _) for one in sorted(found, key=lambda one: -one.left)]
    if len(lines) > 1:
        lines[-1] += " " + _("This one limits you first.")
    extra = max((one.extra for one in found if one.limit.scope in OF_MEMBERS), default=0)
    if extra:
        lines.append(_("After that you have **{credits}** extra in this server.").format(credits=credits_(extra)))
    return "\n".join(lines) or _("There is no limit for you.")


def _allowance(allowance: Allowance, _: Translate) -> str:
    limit = allowance.limit
    sentence = {
        Scope.MEMBER: _("You, {when}: {used} of {credits} used, **{left} left**."),
        Scope.MEMBER_HERE: _("You in this server, {when}: {used} of {credits} used, **{left} left**."),
        Scope.GUILD: _("This server, {when}: {used} of {credits} used, **{left} left**."),
        Scope.BOT: _("All servers, {when}: {used} of {credits} used, **{left} left**."),
    }[limit.scope]
    left = max(0, limit.amount - allowance.used)
    line = sentence.format(when=_when(limit, _), used=allowance.used, credits=credits_(limit.amount), left=left)
    line = f"{bar(allowance.used, limit.amount)} {line}"
    return f"{line} {_('Resets {time}.').format(time=relative_time(limit.window.end))}" if allowance.used else line
