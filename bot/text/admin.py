"""What a server's admins read: the state after each change, and who has used what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot.domain.models import Period
from bot.domain.server_rules import NOTHING_SET, UNLIMITED, Amounts, LimitKind, PresetKind
from bot.text import settings
from bot.text.formatting import CONTENT_LENGTH, MODELS, code_block, credits_, quoted, relative_time
from bot.text.locales import translator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from bot.domain.quota import QuotaRules
    from bot.domain.server_rules import Block, Preferences, ServerRules
    from bot.domain.usage import Usage

    Translate: TypeAlias = Callable[[str], str]

CHART = "Credits per day and model, and the members who used the most; the message has the same numbers"
_PERIODS = (Period.DAY, Period.MONTH)
_MEMBERS_SHOWN = (8, 6, 4, 2)  # in each list; as many as fit into one message


# --- limits ---------------------------------------------------------------------------------------------------------


def limits(rules: ServerRules, quota: QuotaRules, *, locale: str) -> str:
    """Every limit of a server, and where the operator's is the one that binds."""
    _ = translator(locale)
    everyone = rules.limits.get((LimitKind.EVERYONE, 0), NOTHING_SET)
    lines = [
        _("**Whole server**: {amounts}").format(amounts=_both(rules.server, quota.server, _of_server, _)),
        _("**Each member**: {amounts}").format(amounts=_both(everyone, quota.member, _of_everyone, _)),
    ]
    for (kind, subject), amounts in sorted(rules.limits.items()):
        mention = {LimitKind.ROLE: f"<@&{subject}>", LimitKind.MEMBER: f"<@{subject}>"}.get(kind)
        if mention is not None:
            lines.append(f"{mention}: {_both(amounts, NOTHING_SET, _of_others, _)}")
    if len(lines) > 2:  # noqa: PLR2004 - the two lines that are always there
        lines.append(_("A member's own limit comes first; otherwise the best of their roles and of everyone counts."))
    return _fitting(lines, _)


def _both(
    own: Amounts, operators: Amounts, one: Callable[[int | None, int | None, Translate], str], _: Translate
) -> str:
    per = {Period.DAY: _("per day"), Period.MONTH: _("per month")}
    return " · ".join(f"{one(own.of(period), operators.of(period), _)} {per[period]}" for period in _PERIODS)


def _of_server(own: int | None, operators: int | None, _: Translate) -> str:
    if operators is None:
        return _amount(own, _)
    if own is None:
        return _("{credits} (the operator's limit)").format(credits=credits_(operators))
    if UNLIMITED < own <= operators:
        return _amount(own, _)
    return _("{credits} (the operator's limit binds, not {own})").format(
        credits=credits_(operators), own=_amount(own, _)
    )


def _of_everyone(own: int | None, operators: int | None, _: Translate) -> str:
    if own is not None or operators is None:
        return _amount(own, _)
    return _("{credits} in all servers together (the operator's limit)").format(credits=credits_(operators))


def _of_others(own: int | None, _operators: int | None, _: Translate) -> str:
    return _("not set") if own is None else _amount(own, _)


def _amount(amount: int | None, _: Translate) -> str:
    return _("no limit") if amount is None or amount == UNLIMITED else credits_(amount)


# --- members --------------------------------------------------------------------------------------------------------


def granted(user_id: int, extra: int, *, locale: str) -> str:
    """What a member has after a grant."""
    _ = translator(locale)
    return _("<@{user}> now has **{credits}** extra in this server, used when their limit is reached.").format(
        user=user_id, credits=credits_(extra)
    )


def blocks(found: Sequence[Block], *, locale: str) -> str:
    """Who may not use the bot in a server."""
    _ = translator(locale)
    if not found:
        return _("Nobody is blocked in this server.")
    lines = [_("Blocked in this server:"), *(_block(block, _) for block in found)]
    return _fitting(lines, _)


def _block(block: Block, _: Translate) -> str:
    who = f"<@{block.subject}>" if block.subject else _("a member whose data was deleted")
    until = _("until unblocked") if block.until is None else _("ends {time}").format(time=relative_time(block.until))
    return f"{who} · {until} · {quoted(block.reason)} · " + _("by {actor}").format(actor=f"<@{block.actor}>")


def unblocked(found: Sequence[Block], *, lifted: bool, locale: str) -> str:
    """Whether a block was lifted, and who is blocked still."""
    _ = translator(locale)
    said = _("The block was lifted.") if lifted else _("This member wasn't blocked in this server.")
    return f"{said} {blocks(found, locale=locale)}"


# --- settings of the server -----------------------------------------------------------------------------------------


def presets(rules: ServerRules, *, locale: str) -> str:
    """The names that a server has given to ids."""
    _ = translator(locale)
    named = {PresetKind.PERSONA: _("persona"), PresetKind.STYLE: _("style")}
    lines = [
        f"{named[kind]} · {quoted(name)} · `{value}`"
        for kind in PresetKind
        for name, value in rules.presets.get(kind, {}).items()
    ]
    return _fitting(lines, _) if lines else _("This server has no presets of its own.")


def channels(rules: ServerRules, *, locale: str) -> str:
    """Where public results may go."""
    _ = translator(locale)
    if not rules.channels:
        return _("Public results may go to any channel.")
    lines = [_("Public results may go only to these channels and their threads:")]
    return _fitting([*lines, *(f"<#{channel}>" for channel in sorted(rules.channels))], _)


def log_channel(rules: ServerRules, *, locale: str) -> str:
    """Where ended jobs are listed."""
    _ = translator(locale)
    if rules.log_channel is None:
        return _("The log is off.")
    return _("Each ended request gets one line in {channel}. Make sure that the bot can post there.").format(
        channel=f"<#{rules.log_channel}>"
    )


def defaults(rules: ServerRules, operators: Preferences, *, locale: str) -> str:
    """What members of a server get who choose nothing."""
    _ = translator(locale)
    spoiler = _("yes") if rules.spoiler else _("no")
    lines = [
        _("When members leave an option out and have chosen nothing with `/settings`, the bot uses:"),
        *settings.choices(rules.defaults, operators, otherwise=_(settings.AS_THE_OPERATOR), _=_),
        _("**Results are spoilers**: {answer}").format(answer=spoiler),
    ]
    return "\n".join(lines)


# --- usage ----------------------------------------------------------------------------------------------------------


def usage(found: Usage, *, locale: str) -> str:
    """Who has used what in the last 7 and 30 days, and how much there was per day; fits into one message."""
    _ = translator(locale)
    if not found.rows:
        return _("Nobody has used the bot in this server in the last 30 days.")
    texts = (_usage(found, shown, _) for shown in _MEMBERS_SHOWN)
    return next((text for text in texts if len(text) <= CONTENT_LENGTH), _days(found, _))


def _usage(found: Usage, shown: int, _: Translate) -> str:
    return "\n".join([*_window(found, 7, shown, _), *_window(found, 30, shown, _), _days(found, _)])


def _window(found: Usage, days: int, shown: int, _: Translate) -> list[str]:
    part = found.last(days)
    members = part.by_member()
    title = _("**Last {days} days**: {used}").format(days=days, used=_used(part, _))
    lines = [title, *(f"{_member(user_id, _)}: {_used(used, _)}" for user_id, used in members[:shown])]
    if len(members) > shown:
        lines.append(_("… and {count} more members").format(count=len(members) - shown))
    return lines


def _member(user_id: int, _: Translate) -> str:
    return f"<@{user_id}>" if user_id else _("members whose data was deleted")


def _used(part: Usage, _: Translate) -> str:
    """Credits, then images by model."""
    models = ", ".join(f"{MODELS[model]} × {images}" for model, images in part.by_model())
    return f"{credits_(part.credits)} ({models})" if models else credits_(part.credits)


def _days(found: Usage, _: Translate) -> str:
    rows = [f"{day:%m-%d} {part.images:>6} {part.credits:>7}" for day, part in found.by_day()]
    return code_block("\n".join([f"{_('day'):<5} {_('images'):>6} {_('credits'):>7}", *rows])).lstrip("\n")


def _fitting(lines: Sequence[str], _: Translate) -> str:
    """As many lines as one message holds, and how many there are besides."""
    shown = list(lines)
    while len("\n".join(shown)) > CONTENT_LENGTH - 30:
        shown.pop()
    left = len(lines) - len(shown)
    return "\n".join([*shown, *([_("… and {count} more").format(count=left)] if left else [])])
