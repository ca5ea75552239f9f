"""The use case alone, on virtual time: its ports are lists of what was asked of them and of what they answer."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from bot.domain.errors import InvalidOption, TransitionRefused
from bot.domain.models import TRANSITIONS, Claim, Job, Model, Output, Picture, State, Step
from bot.jobs.circuits import Circuits
from bot.jobs.notices import Notices
from bot.jobs.ports import Ports
from bot.jobs.queue import RequestQueue
from bot.jobs.use_case import UseCase, assemble
from tests.support.admissions import admission, daily, no_refill
from tests.support.factories import NOON, request, requester
from tests.support.virtual_clock import Loop

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Sequence
    from pathlib import Path

    from bot.domain.models import AlertLevel, Allowance, Limit, Reservation, Status, ThumbnailRequest

IMAGE = b"image"
OUTPUT = Output("https://out.example/1", "req-1")
COSTS = {Model.PKZ_4: 3}


@dataclass(slots=True)
class Asked:
    """One call of a port: its name, its arguments, and the seconds since the start."""

    name: str
    arguments: tuple[Any, ...]
    at: float


@dataclass(slots=True)
class Script:
    """What the ports are to do: `answers` by the name of a call, `seconds` it takes, and what was asked so far."""

    answers: defaultdict[str, list[BaseException | None]] = field(default_factory=lambda: defaultdict(list))
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    asked: list[Asked] = field(default_factory=list)

    async def reach(self, name: str, *arguments: Any) -> None:
        """Record a call, let it take its time, and raise what was scripted for it."""
        self.note(name, *arguments)
        await asyncio.sleep(self.seconds[name])
        if self.answers[name] and (failure := self.answers[name].pop(0)) is not None:
            raise failure

    def note(self, name: str, *arguments: Any) -> None:
        self.asked.append(Asked(name, arguments, asyncio.get_running_loop().time()))

    def of(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of each call of `name`."""
        return [one.arguments for one in self.asked if one.name == name]

    def times(self, name: str) -> list[float]:
        return [one.at for one in self.asked if one.name == name]

    def order(self, *names: str) -> list[str]:
        """The names of the calls, in order; with `names`, of those alone."""
        return [one.name for one in self.asked if not names or one.name in names]


class Repository:
    """Jobs in a dictionary, moved by the one table of transitions."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.jobs: dict[str, Job] = {}
        self.notified_at: dict[str, datetime] = {}

    async def reserve(self, reservation: Reservation) -> Job:
        await self._script.reach("reserve", reservation)
        job = Job(
            f"job{len(self.jobs) + 1}",
            State.RESERVED,
            reservation.request,
            reservation.requester,
            reservation.cost,
            reservation.now,
            parent_id=reservation.parent_id,
        )
        self.jobs[job.id] = job
        return job

    async def acked(self, job: Job, *, message_id: int) -> Job:
        return await self._move(Step.ACKED, job, message_id=message_id)

    async def sending(self, job: Job, *, now: datetime) -> Job:
        return await self._move(Step.SENDING, job, sent_at=now, message_id=job.message_id)

    async def generated(self, job: Job, output: Output, *, now: datetime) -> Job:
        return await self._move(Step.GENERATED, job, output=output, generated_at=now)

    async def spooled(self, job: Job, picture: Picture) -> Job:
        return await self._move(Step.SPOOLED, job, picture=picture)

    async def parked(self, job: Job, *, now: datetime) -> Job:
        return await self._move(Step.PARKED, job, parked_at=now)

    async def claiming(self, job: Job, claim: Claim | None) -> Job:
        await self._script.reach("claiming", job.id, claim)
        self.jobs[job.id] = replace(self.jobs[job.id], claim=claim)
        return self.jobs[job.id]

    async def delivered(self, job: Job, *, message_id: int, now: datetime) -> Job:
        return await self._move(Step.DELIVERED, job, message_id=message_id, ended_at=now)

    async def released(self, job: Job, *, reason: str, request_id: str | None, now: datetime) -> Job:
        self._script.note("released with", reason, request_id)
        return await self._move(Step.RELEASED, job, reason=reason, ended_at=now)

    async def notified(self, job: Job, *, now: datetime) -> None:
        await self._move(Step.NOTIFIED, job)
        self.notified_at[job.id] = now

    async def job(self, job_id: str) -> Job | None:
        await self._script.reach("job", job_id)
        return self.jobs.get(job_id)

    async def open_jobs(self) -> list[Job]:
        await self._script.reach("open_jobs")
        return [job for job in self.jobs.values() if job.ended_at is None]

    async def parked_jobs(self, user_id: int) -> list[Job]:
        await self._script.reach("parked_jobs", user_id)
        return [
            job
            for job in self.jobs.values()
            if job.parked_at is not None and job.ended_at is None and job.requester.user_id == user_id
        ]

    async def unnotified_jobs(self) -> list[Job]:
        await self._script.reach("unnotified_jobs")
        return [job for job in self.jobs.values() if job.state is State.RELEASED and job.id not in self.notified_at]

    async def allowances(self, limits: Sequence[Limit]) -> list[Allowance]:
        await self._script.reach("allowances", limits)
        return []

    async def _move(self, step: Step, job: Job, **changes: Any) -> Job:
        await self._script.reach(step.value, job.id, *changes.values())
        current, transition = self.jobs[job.id], TRANSITIONS[step]
        if current.state not in transition.sources:
            raise TransitionRefused(job.id, "/".join(transition.sources))
        self.jobs[job.id] = replace(current, state=transition.target, **changes)
        return self.jobs[job.id]


class Sources:
    def __init__(self, script: Script) -> None:
        self._script = script
        self.rejected: BaseException | None = None

    def check(self, request: ThumbnailRequest) -> None:
        self._script.note("check", request)
        if self.rejected is not None:
            raise self.rejected

    async def look(self, request: ThumbnailRequest) -> InvalidOption | None:
        self._script.note("look", request)
        if "look" in self._script.seconds:
            await asyncio.sleep(self._script.seconds["look"])
        return None

    async def prepare(self, request: ThumbnailRequest) -> ThumbnailRequest:
        await self._script.reach("prepare", request)
        return replace(request, image_base64="data:")

    async def keep(self, job: Job) -> None:
        await self._script.reach("keep", job.id)


class Provider:
    def __init__(self, script: Script) -> None:
        self._script = script

    async def create(self, request: ThumbnailRequest) -> Output:
        await self._script.reach("create", request)
        return OUTPUT


class Downloader:
    def __init__(self, script: Script) -> None:
        self._script = script

    async def fetch(self, address: str, **_: int | None) -> AsyncGenerator[bytes, None]:
        await self._script.reach("fetch", address)
        yield IMAGE
        self._script.note("fetched")


@dataclass(frozen=True, slots=True)
class File:
    """Stands for a path in the spool."""

    name: str
    spool: Spool = field(repr=False, compare=False)

    def exists(self) -> bool:
        return self.name in self.spool.files


class Spool:
    """Keeps pictures by the ids of their jobs."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.files: dict[str, bytes] = {}
        self.unneeded = 0  # files that a sweep removes

    async def write(self, job: Job, pieces: AsyncIterable[bytes]) -> Picture:
        await self._script.reach("write", job.id)
        self.files[job.id] = b"".join([piece async for piece in pieces])
        return self.picture(job.id)

    async def hold_in_memory(self, job: Job, pieces: AsyncIterable[bytes]) -> Picture:
        await self._script.reach("hold_in_memory", job.id)
        return replace(self.picture(job.id), content=b"".join([piece async for piece in pieces]))

    async def find(self, job: Job) -> Picture | None:
        await self._script.reach("find", job.id)
        return self.picture(job.id) if job.id in self.files else None

    async def flush(self, picture: Picture) -> None:
        await self._script.reach("flush", picture.path.name)

    async def remove(self, job: Job) -> None:
        await self._script.reach("remove", job.id)
        self.files.pop(job.id, None)

    async def sweep(self, *, now: datetime, needed: frozenset[str]) -> int:
        await self._script.reach("sweep", now, needed)
        return self.unneeded

    def picture(self, job_id: str) -> Picture:
        return Picture(cast("Path", File(job_id, self)), "PNG", 64, 36, len(IMAGE))


class Messenger:
    def __init__(self, script: Script) -> None:
        self._script = script

    async def deliver(self, job: Job, picture: Picture) -> int:
        await self._script.reach("deliver", job, picture)
        return 501

    async def hand_over(self, job: Job, picture: Picture) -> int:
        await self._script.reach("hand_over", job, picture)
        return 601

    async def notify(self, job: Job) -> None:
        await self._script.reach("notify", job)

    async def show_progress(self, job: Job, status: Status) -> None:
        await self._script.reach("show_progress", job.id, status)

    async def add_again_reaction(self, job: Job, message_id: int) -> None:
        await self._script.reach("add_again_reaction", job.id, message_id)


class Operator:
    """What the operator is told and what is counted."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.holds: list[Job] = []  # that were counted

    def send(self, level: AlertLevel, key: str, text: str) -> None:
        self._script.note("alert", level, key, text)

    def repeat(self, level: AlertLevel, key: str, text: str) -> None:
        self._script.note("repeat", level, key, text)

    def end(self, level: AlertLevel, key: str, text: str) -> None:
        self._script.note("end", level, key, text)

    def started(self) -> None:
        self._script.note("started")

    def held(self, job: Job) -> None:
        self.holds.append(job)

    def ended(self, outcome: str, job: Job) -> None:
        assert job.ended_at is not None
        self._script.note("ended", outcome)


class JobLog:
    """What the admins of a server are told."""

    def __init__(self, script: Script) -> None:
        self._script = script

    def ended(self, job: Job) -> None:
        self._script.note("logged", job.id, job.state)


class UseCaseHarness:
    """A use case and its ports. Create it on the loop that the test runs on."""

    def __init__(
        self,
        *,
        concurrency: int = 1,
        per_member: int = 100,
        retry_server_errors: bool = False,
        restored: bool = False,
    ) -> None:
        self.script = Script()
        self.repository = Repository(self.script)
        self.sources = Sources(self.script)
        self.spool = Spool(self.script)
        self.operator = operator = Operator(self.script)
        self.notices = Notices(operator)
        circuits = Circuits(clock=self.clock, on_open=self.notices.circuit_opened)
        self.queue = RequestQueue(circuits, concurrency=concurrency, limit=100, per_member=per_member)
        ports = Ports(
            queue=self.queue,
            repository=self.repository,
            sources=self.sources,
            provider=Provider(self.script),
            downloader=Downloader(self.script),
            spool=self.spool,
            messenger=Messenger(self.script),
            notices=self.notices,
            refill=no_refill(self.clock),
            metrics=operator,
            job_log=JobLog(self.script),
            clock=self.clock,
        )
        self.admission = admission(daily(5, COSTS), self.repository, self.clock)
        self.use_case: UseCase = assemble(
            ports,
            admission=self.admission,
            retry_server_errors=retry_server_errors,
            restored=restored,
        )
        self.lifecycle, self.outcomes, self.recovery = (
            self.use_case.lifecycle,
            self.use_case.outcomes,
            self.use_case.recovery,
        )

    @staticmethod
    def clock() -> datetime:
        return NOON + timedelta(seconds=asyncio.get_running_loop().time())

    def will(self, name: str, *answers: BaseException | None, always: int = 1) -> None:
        """The next calls of `name` raise these; None is a call that works."""
        self.script.answers[name].extend(list(answers) * always)

    async def reply(self, job: Job, status: Status) -> int:
        """Show a job to its requester, in message 101."""
        await self.script.reach("reply", job.id, status)
        return 101

    async def accept(self, user_id: int = 1, **changes: Any) -> Job:
        return await self.lifecycle.accept(replace(request(), **changes), requester(user_id), self.reply)

    async def ended(self, job: Job) -> Job:
        """The job once nothing is in progress any more."""
        await self.recovery.idle(10**6)
        return self.repository.jobs[job.id]

    def stored(self, state: State, job_id: str = "old1", *, user_id: int = 1, file: bool = True, **changes: Any) -> Job:
        """A job that the database has, as its state requires; without `file`, its picture is gone from the spool."""
        facts: dict[str, Any] = {}
        if state is not State.RESERVED:
            facts["message_id"] = 101
        if state in (State.SENDING, State.GENERATED, State.SPOOLED):
            facts["sent_at"] = self.clock()
        if state in (State.GENERATED, State.SPOOLED):
            facts |= {"output": OUTPUT, "generated_at": self.clock()}
        if state is State.SPOOLED:
            facts["picture"] = self.spool.picture(job_id)
            if file:
                self.spool.files[job_id] = IMAGE
        if state in (State.DELIVERED, State.RELEASED):
            facts["ended_at"] = self.clock()
        if state is State.RELEASED:
            facts["reason"] = "not_started"
        job = Job(job_id, state, request(), requester(user_id), 1, NOON, **facts | changes)
        self.repository.jobs[job_id] = job
        return job

    @property
    def alerts(self) -> list[tuple[AlertLevel, str]]:
        """The level and the key of each alert."""
        return [(level, key) for level, key, _ in self.script.of("alert")]

    @property
    def outcomes_counted(self) -> list[str]:
        return [outcome for (outcome,) in self.script.of("ended")]


def a_claim(at: datetime, user_id: int = 1) -> Claim:
    return Claim(user_id, "claim-token", 10 * 1024 * 1024, at)


def run(scenario: Callable[[UseCaseHarness], Coroutine[None, None, None]], **options: Any) -> None:
    """Run a scenario on virtual time, with a use case of its own; `options` are those of `UseCaseHarness`."""

    async def work() -> None:
        await scenario(UseCaseHarness(**options))

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(work())
