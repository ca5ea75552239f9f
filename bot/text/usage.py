"""What the admins of a server read about its usage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot.text.formatting import MODELS, bar, credits_

if TYPE_CHECKING:
    from bot.domain.usage import Usage

_DAYS_SHOWN = 7


def table(usage: Usage) -> str:
    """Sums per model and per member, and the latest days; it says everything that the chart shows."""
    lines = [f"**Last {len(usage.days)} days**: {credits_(usage.total)} used or held"]
    sums = {model: sum(amounts) for model, amounts in usage.by_model.items()}
    lines += [f"- {MODELS[model]}: {credits_(total)}" for model, total in sums.items() if total]
    if not usage.total:
        return lines[0]
    lines.append(f"```\n{_days(usage)}\n```**Members who used the most**")
    lines += [f"- {_who(user_id)}: {credits_(used)}" for user_id, used in usage.members]
    return "\n".join(lines)


def _days(usage: Usage) -> str:
    latest = list(zip(usage.days, usage.by_day, strict=True))[-_DAYS_SHOWN:]
    most = max(1, *(used for _, used in latest))
    return "\n".join(f"{day:%a %d %b}  {bar(used, most)}  {used}" for day, used in latest)


def _who(user_id: int) -> str:
    return f"<@{user_id}>" if user_id else "deleted"
