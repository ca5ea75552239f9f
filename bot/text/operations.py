"""What /operator answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot.domain.models import Circuit, Period
from bot.text.formatting import bar, credits_, date_and_time, dollars, megabytes, quoted, relative_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bot.domain.models import Allowance
    from bot.domain.server_rules import Block
    from bot.domain.spending import Bill, Condition, Settlement, Spent, UnknownJob

_CIRCUITS = {
    Circuit.KEY: "the API key or the account is refused",
    Circuit.MOVED: "the image service has moved",
    Circuit.BALANCE: "the balance is empty",
    Circuit.MAINTENANCE: "the image service is under maintenance",
    Circuit.FAILURES: "the image service keeps failing",
}


def condition(found: Condition) -> str:
    lines = [f"**Paused**: {quoted(found.paused)}"] if found.paused else []
    if not found.paused and not found.circuits:
        lines.append("**Accepting requests**")
    for circuit, until in found.circuits.items():
        trial = "until you resume" if until is None else f"next try {relative_time(until)}"
        lines.append(f"**Requests are refused**: {_CIRCUITS[circuit]}; {trial}")
    lines.append(f"**Queue**: {found.waiting} waiting, {found.running} in progress")
    lines += [_budget(one) for one in found.budgets]
    more = "at least " if found.unknown_at_least else ""
    lines.append(f"**Unknown outcomes to reconcile**: {more}{found.unknown}")
    made = found.backup
    backup = "none yet" if made is None else f"{relative_time(made.at)} ({megabytes(made.size)})"
    lines.append(f"**Last backup**: {backup}")
    lines.append(f"**Version**: {found.version}")
    return "\n".join(lines)


def _budget(budget: Allowance) -> str:
    limit = budget.limit
    which = "this month" if limit.window.period is Period.MONTH else "today"
    resets = relative_time(limit.window.end)
    shown = f"{dollars(budget.used)} of {dollars(limit.amount)}"
    return f"{bar(budget.used, limit.amount)} **Spent {which}**: {shown}, resets {resets}"


def paused(reason: str) -> str:
    return f"Paused. Members read: {quoted(reason)} What is in progress is finished. Use `/operator resume` to go on."


def resumed(circuits: Sequence[Circuit]) -> str:
    closed = "; no longer assumed: " + ", ".join(_CIRCUITS[circuit] for circuit in circuits) if circuits else ""
    return f"Accepting requests{closed}."


def bill(found: Bill) -> str:
    which = "This month" if found.window.period is Period.MONTH else "Today"
    lines = [_budget(one) for one in found.budget] or [f"**{which}** (no budget is set)"]
    for title, spent, mention in (("Servers", found.servers, "server `{}`"), ("Members", found.members, "<@{}>")):
        lines.append(f"**{title}**" if spent else f"**{title}**: nothing yet")
        lines += [_spent(one, mention) for one in spent]
    return "\n".join(lines)


def _spent(one: Spent, mention: str) -> str:
    who = mention.format(one.subject) if one.subject else "deleted"
    return f"- {who}: {dollars(one.price)}, {credits_(one.credits)}"


def unknown_jobs(jobs: Sequence[UnknownJob]) -> str:
    if not jobs:
        return "There is nothing to reconcile."
    lines = [_unknown(job) for job in jobs]
    how = (
        "Look these up in your Pikzels account, then use `/operator unknown` with `job` and `outcome`. Until then each"
        " counts as paid."
    )
    return "\n".join([*lines, how])


def _unknown(job: UnknownJob) -> str:
    request = f", request `{job.request_id}`" if job.request_id else ""
    return f"- `#{job.job_id}` · sent {date_and_time(job.sent_at or job.ended_at)} · {dollars(job.price)}{request}"


def settled(job_id: str, outcome: Settlement, *, found: bool) -> str:
    if not found:
        return f"{quoted(job_id)} is not a job to reconcile. Use `/operator unknown` to see those that are."
    return f"{quoted(job_id)} is recorded as {outcome}."


def blocks(found: Sequence[Block], said: str) -> str:
    """What was done, and who is blocked everywhere after it."""
    lines = [_block(block) for block in found]
    return "\n".join([said, "**Blocked everywhere**" if lines else "Nobody is blocked everywhere.", *lines])


def _block(block: Block) -> str:
    who = "deleted" if not block.subject else f"server `{block.subject}`" if block.is_server else f"<@{block.subject}>"
    until = "" if block.until is None else f", until {date_and_time(block.until)}"
    return f"- {who}: {quoted(block.reason)}{until}"


def forgotten(given_up: int) -> str:
    lost = f" {given_up} of their images waited for /recover, and were given up." if given_up else ""
    return f"Everything that was stored about this person is deleted.{lost}"


def blocked(subject: int, *, is_server: bool) -> str:
    return f"{_subject(subject, is_server=is_server)} is blocked."


def unblocked(subject: int, *, is_server: bool, found: bool) -> str:
    return f"{_subject(subject, is_server=is_server)} {'is no longer' if found else 'was not'} blocked."


def _subject(subject: int, *, is_server: bool) -> str:
    return f"Server `{subject}`" if is_server else f"<@{subject}>"
