"""Lines for the operator's log and alerts: no member's words, no secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot.domain.models import Period, require
from bot.text.formatting import MODELS, credits_, dollars
from bot.text.health import CIRCUITS, CONNECTIONS

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from bot.domain.errors import JobFailed, StorageUnavailable
    from bot.domain.health import Gateway
    from bot.domain.models import Allowance, Circuit, Job

OLDER_DATABASE = (
    "an older copy replaced the database: charges made since that copy are lost, and jobs that it calls open are"
    " released"
)

_NOT_SHOWN = ("policy", "cause", "details")  # the last two are in the reason


def connected(name: str, user_id: int, servers: int, invite: str, *, shards: int = 1) -> str:
    where = "1 server" if servers == 1 else f"{servers} servers"
    by = "" if shards == 1 else f", by {shards} connections"
    return f"connected to Discord as {name} ({user_id}), in {where}{by}; to invite the bot: {invite}"


def shards_recommended(shards: int) -> str:
    return f"Discord recommends {shards} connections for the servers that the bot is in; opening them"


def shards_unknown(observed: str, *, shards: int) -> str:
    number = "one" if shards == 1 else shards
    return f"Discord did not say how many connections it recommends ({observed}); opening {number}"


def identify_limit(wait: timedelta) -> str:
    return f"too many new connections to Discord; the next in {wait}"


def failure(error: JobFailed) -> str:
    """The kind of a failure, and what is needed to reconcile it with the provider."""
    facts = {
        name: value for name, value in vars(error).items() if value not in (None, (), "") and name not in _NOT_SHOWN
    }
    described = ", ".join(f"{name}={value}" for name, value in facts.items())
    return f"{error.kind} ({described})" if described else error.reason


def job_line(job: Job, error: JobFailed) -> str:
    return f"job {job.id}: {failure(error)}"


def delivered(job: Job) -> str:
    """Whose image it was, what it cost, and where its seconds went."""
    where = f"server {job.requester.guild_id}" if job.requester.guild_id else "no server"
    stages = ", ".join(f"{seconds:.1f} s {stage}" for stage, seconds in _stages(job).items())
    facts = f"{MODELS[job.request.model]}, {job.request.format}, {credits_(job.cost)}; {stages}"
    return f"job {job.id} delivered to user {job.requester.user_id} in {where}: {facts}"


def delivered_facts(job: Job) -> dict[str, str | int | float]:
    """The same for machines. Ids are text: many readers of JSON round large numbers."""
    return {
        "user": str(job.requester.user_id),
        "server": str(job.requester.guild_id or ""),
        "model": job.request.model.value,
        "format": job.request.format.value,
        "credits": job.cost,
        **{f"seconds_{stage}": round(seconds, 3) for stage, seconds in _stages(job).items()},
    }


def _stages(job: Job) -> dict[str, float]:
    """The seconds of a delivered job: until its call, until the provider's answer, and until Discord had the image."""
    times = (job.created_at, require(job.sent_at), require(job.generated_at), require(job.ended_at))
    names = ("waiting", "generating", "delivering")
    return {name: (end - begin).total_seconds() for name, begin, end in zip(names, times, times[1:], strict=False)}


def job_parked(job: Job, error: JobFailed) -> str:
    return f"{job_line(job, error)}; kept for /recover"


def interaction_failed(observed: str) -> str:
    return f"an interaction hit an internal error ({observed}), see the log"


def internal_error(job: Job) -> str:
    return f"job {job.id}: an internal error, see the log"


def storage_unavailable(error: StorageUnavailable) -> str:
    if error.damaged:
        return (
            f"the database is damaged ({error.problem}): new requests are rejected, and jobs in progress go on; restore"
            " a backup, for the next start is refused"
        )
    return f"the database cannot be written ({error.problem}): new requests are rejected until it can"


def commands_not_synced(observed: str) -> str:
    return f"Discord did not register the commands ({observed}): those of the last time stay"


def backup_failed(problem: str, last: datetime | None) -> str:
    known = "there is none yet" if last is None else f"the last one is of {last:%Y-%m-%d %H:%M} UTC"
    return f"the database was not backed up ({problem}); {known}"


def disconnected(state: Gateway, since: datetime) -> str:
    """Some of the connections to Discord have been lost since then, or all of them."""
    how = f"disconnected since {since:%H:%M:%S} UTC ({CONNECTIONS[state.connection]})"
    if not state.are_all_away:
        some = f"{state.away} of {len(state.connections)} connections to Discord have been {how}"
        return f"{some}: nobody in their servers can use the bot; it keeps trying to connect"
    return f"Discord has been {how}: nobody can use the bot; it keeps trying to connect"


def discord_unreachable(observed: str, seconds: float) -> str:
    return f"Discord cannot be reached ({observed}); trying again in {seconds:.0f} s"


def client_ended(observed: str) -> str:
    return f"the connection to Discord failed ({observed}); starting a fresh one"


def connected_again(after: timedelta) -> str:
    minutes, seconds = divmod(round(after.total_seconds()), 60)
    return f"Discord is connected again, after {minutes} min {seconds} s"


def with_waiting(line: str, waiting: int) -> str:
    """`line`, and how many people were waiting when it became true."""
    if not waiting:
        return line
    people = "1 person was" if waiting == 1 else f"{waiting} people were"
    return f"{line}; {people} waiting and told"


def budget_used(budget: Allowance) -> str:
    limit = budget.limit
    share = 100 * budget.used // max(1, limit.amount)
    spent = f"{dollars(budget.used)} of {dollars(limit.amount)}"
    which = "this month" if limit.window.period is Period.MONTH else "today"
    effect = "requests are refused" if budget.used >= limit.amount else "at 100 % requests are refused"
    return f"the budget for {which} is {share} % used ({spent}); {effect}, resets {limit.window.end:%Y-%m-%d %H:%M} UTC"


def circuit_opened(circuit: Circuit, until: datetime | None) -> str:
    back = "until the operator acts" if until is None else f"next trial {until:%Y-%m-%d %H:%M:%S} UTC"
    return f"{CIRCUITS[circuit]}; new requests are rejected, {back}"
