"""Puts the parts of the use case together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot.jobs.lifecycle import Lifecycle
from bot.jobs.outcomes import Outcomes
from bot.jobs.recovery import Recovery
from bot.jobs.retry import Retry
from bot.jobs.tasks import JobTasks

if TYPE_CHECKING:
    from bot.jobs.admission import Admission
    from bot.jobs.ports import Ports


@dataclass(frozen=True, slots=True)
class UseCase:
    """What the outside may call: `lifecycle` per request, `outcomes` for claims, `recovery` at start and stop. `tasks`
    are the jobs in progress.
    """

    lifecycle: Lifecycle
    outcomes: Outcomes
    recovery: Recovery
    tasks: JobTasks


def assemble(
    ports: Ports, *, admission: Admission, retry_server_errors: bool = False, restored: bool = False
) -> UseCase:
    tasks, retry = JobTasks(), Retry()
    outcomes = Outcomes(ports, tasks=tasks, retry=retry)
    lifecycle = Lifecycle(
        ports, admission=admission, outcomes=outcomes, tasks=tasks, retry=retry, retry_server_errors=retry_server_errors
    )
    recovery = Recovery(ports, lifecycle=lifecycle, outcomes=outcomes, tasks=tasks, retry=retry, restored=restored)
    return UseCase(lifecycle, outcomes, recovery, tasks)
