"""Adapters for one process on virtual time. They implement `bot.domain.protocols`. The world makes them fail."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

from bot.domain import image_problems
from bot.domain.errors import (
    AnswerUnusable,
    DeliveryDelayed,
    MessageDeleted,
    OutcomeUnknown,
    OutputGone,
    OutputUnreachable,
    ProviderMoved,
    ProviderRefused,
    ProviderUnreachable,
    SourceExpired,
    Undeliverable,
)
from bot.domain.failure_policy import CODES, policy_for
from bot.domain.models import AlertLevel, Downloading, Output, Queued, State
from bot.text import failures
from bot.text.formatting import NOT_CHARGED
from tests.support.simulated_world import BAD, DAY, GOOD, Reachability

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from bot.domain.errors import InvalidOption, JobFailed
    from bot.domain.models import Job, Picture, Status, ThumbnailRequest
    from tests.support.simulated_world import Process, Submission

_UNTIL_RESTART = ("INVALID_API_KEY", "ACCOUNT_SUSPENDED", "moved")
_USUAL = tuple(code for code, policy in CODES.items() if policy.pause is None)
_UNUSUAL = (
    OutcomeUnknown("reset"),
    OutcomeUnknown("html", status=502, request_id="req"),
    AnswerUnusable("{}", status=200),
    ProviderRefused("TEAPOT", 418),
    ProviderRefused("NEW_TO_US", 503),
    ProviderRefused("INSUFFICIENT_CREDITS", 402),
)
_TIMEOUT = 180.0  # maximum seconds for a call
_EXPIRES = DAY  # seconds the provider keeps an output


class SourceImages:
    """Source images that are available or have expired."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def check(self, _: ThumbnailRequest) -> None:
        if self._process.world.happens("source expired"):
            raise SourceExpired("image")

    async def look(self, _: ThumbnailRequest) -> InvalidOption | None:
        await self._process.wait(self._process.world.seconds(0.5), "looking at the source image")
        return image_problems.unreadable("image") if self._process.world.happens("image unreadable") else None

    async def prepare(self, request: ThumbnailRequest) -> ThumbnailRequest:
        await self._process.wait(self._process.world.seconds(0.02), "preparing")
        self.check(request)
        return request

    async def keep(self, _: Job) -> None:
        await self._process.wait(self._process.world.seconds(2), "saving the source image")


class Provider:
    def __init__(self, process: Process, *, retry_server_errors: bool) -> None:
        self._process = process
        self._retry_server_errors = retry_server_errors

    async def create(self, request: ThumbnailRequest) -> Output:
        process, world = self._process, self._process.world
        submission = world.by_address(request.image_url)
        await process.wait(world.seconds(0.1), "connecting")
        if world.is_down("provider unreachable"):
            self._fail(submission, ProviderUnreachable())
        self._check(submission, request.image_url)
        submission.calls.append("is in progress")
        world.note("call", submission)
        failure = self._failure()
        generated = failure is None or (isinstance(failure, OutcomeUnknown) and world.chance.random() < 0.5)
        await asyncio.sleep(_TIMEOUT if failure is not None and world.happens("slow") else world.seconds(30))
        if generated:
            submission.generated_at = world.loop.time()
            world.note("generated", submission)
        process.reach("generated at Pikzels")
        submission.calls.pop()
        if failure is not None:
            self._fail(submission, failure)
        submission.calls.append("succeeded")
        return Output(f"https://out.example/{submission.number}", f"req-{submission.number}")

    def _check(self, submission: Submission, address: str) -> None:
        """Check that the job was saved as `sending`, and that any earlier call provably did no work."""
        if submission.cancelled:
            self._process.world.report_violation("called although it was cancelled", submission)
        for number, call in enumerate(submission.calls, 1):
            if isinstance(call, str):
                self._process.world.report_violation(f"called again although an earlier call {call}", submission)
            elif not isinstance(call, ProviderUnreachable | ProviderRefused) or self._retries(call) < number:
                self._process.world.report_violation(f"called again after {call!r}", submission)
        [state] = self._process.world.raw.execute(
            "SELECT state FROM jobs WHERE request ->> 'image_url' = ?", (address,)
        ).fetchone()
        if state != State.SENDING:
            self._process.world.report_violation(f"called while the database says {state}", submission)

    def _retries(self, failure: JobFailed) -> int:
        return policy_for(failure, retry_server_errors=self._retry_server_errors).retries

    def _fail(self, submission: Submission, failure: JobFailed) -> NoReturn:
        submission.calls.append(failure)
        self._process.world.note("call failed", submission, repr(failure))
        raise failure

    def _failure(self) -> JobFailed | None:
        world = self._process.world
        if world.is_down("maintenance"):
            return ProviderRefused("SERVICE_UNDER_MAINTENANCE", 503, retry_after=self._pause())
        if world.happens("calls rejected until a restart"):
            code = world.chance.choice(_UNTIL_RESTART)
            return ProviderMoved() if code == "moved" else ProviderRefused(code, 401)
        if world.is_down("provider failing") or world.happens("call fails"):
            return self._usual_failure()
        if world.happens("internal error"):
            raise RuntimeError("a bug in the client")
        return None

    def _usual_failure(self) -> JobFailed:
        chance = self._process.world.chance
        throttled = ProviderRefused("TOO_MANY_REQUESTS", 429, retry_after=self._pause())
        refused = ProviderRefused(chance.choice(_USUAL), 500, request_id="req")
        return chance.choice((*_UNUSUAL, throttled, refused, refused))

    def _pause(self) -> timedelta | None:
        chance = self._process.world.chance
        return timedelta(seconds=chance.randint(1, 200)) if chance.random() < 0.5 else None


class Downloader:
    def __init__(self, process: Process) -> None:
        self._process = process

    async def fetch(self, address: str, **_: int | None) -> AsyncGenerator[bytes, None]:
        process, world = self._process, self._process.world
        submission = world.by_address(address)
        await process.wait(world.seconds(0.3), "fetching")
        if (
            submission.generated_at is None
            or world.loop.time() > submission.generated_at + _EXPIRES
            or world.happens("output gone")
        ):
            raise OutputGone("404")
        if world.is_down("source"):
            raise OutputUnreachable("timeout")
        yield BAD if world.happens("picture unusable") else GOOD
        if world.happens("download breaks"):
            raise OutputUnreachable("connection closed")
        world.note("fetched", submission)


class Messenger:
    """Sends one message per request, and any other message that carries its picture."""

    def __init__(self, process: Process, cancel: Callable[[str], bool]) -> None:
        self._process = process
        self._world = process.world
        self._cancel = cancel

    async def reply(self, submission: Submission, job: Job, status: Status) -> int:
        """Post the public reply to a command and return its ID."""
        await self._process.wait(self._world.seconds(0.2), "replying")
        if self._is_unavailable() or self._world.happens("reply refused"):
            raise ConnectionError("Discord")
        if submission.message is not None:
            self._world.report_violation("a request was answered twice", submission)
        submission.message = submission.number
        self._world.note("replied", submission, type(status).__name__)
        if isinstance(status, Queued) and self._world.happens("cancelled"):
            self._world.loop.call_later(self._world.seconds(20), self._cancel_submission, submission, job)
        await self._process.wait(self._world.seconds(0.1), "reply accepted")
        if self._world.happens("reply lost"):
            raise ConnectionError("Discord's response")
        return submission.message

    def _cancel_submission(self, submission: Submission, job: Job) -> None:
        if not self._process.dead and self._cancel(job.id):
            submission.cancelled = True
            self._world.note("cancelled", submission)

    async def deliver(self, job: Job, picture: Picture) -> int:
        submission = self._world.by_address(job.request.image_url)
        if picture.content is None and not picture.path.exists():
            raise FileNotFoundError(picture.path.name)
        await self._process.wait(self._world.seconds(0.5), "delivering")
        self._raise_if_blocked(submission, picture=True)
        self._show(submission)
        await self._process.wait(self._world.seconds(0.3), "delivered at Discord")
        if self._world.happens("delivery response lost"):
            raise DeliveryDelayed("lost")
        self.confirm(submission)
        return submission.number

    async def hand_over(self, job: Job, _: Picture) -> int:
        """Show a saved picture to its requester only."""
        submission = self._world.by_address(job.request.image_url)
        await self._process.wait(self._world.seconds(0.5), "handing over")
        if self._is_unavailable():
            raise DeliveryDelayed("Discord")
        self._show(submission)
        submission.handed_over = True
        await self._process.wait(self._world.seconds(0.3), "handed over")
        if self._world.happens("delivery response lost"):
            raise DeliveryDelayed("Discord's response")
        self.confirm(submission)
        return 10**6 + submission.number

    async def notify(self, job: Job) -> None:
        text = failures.outcome(job)
        submission = self._world.by_address(job.request.image_url)
        await self._process.wait(self._world.seconds(0.3), "sending the notice")
        try:
            self._raise_if_blocked(submission)
        except MessageDeleted:
            return
        ended = job.state is State.RELEASED
        if ended != (NOT_CHARGED in text):
            self._world.report_violation(f"the notice for a {job.state} job was wrong: {text!r}", submission)
        submission.notified += ended
        self._world.note("notified", submission, text.partition(" · ")[0])
        await self._process.wait(self._world.seconds(0.1), "notice sent")
        if self._world.happens("delivery response lost"):
            raise DeliveryDelayed("lost")

    async def show_progress(self, job: Job, status: Status) -> None:
        submission = self._world.by_address(job.request.image_url)
        await self._process.wait(self._world.seconds(0.5), "progress")
        if submission.shown and isinstance(status, Downloading):
            return  # an earlier process has shown it; the messenger looks before it says that a picture is late
        if submission.shown or submission.notified or (isinstance(status, Queued) and submission.calls):
            self._world.report_violation("progress was shown after a later step", submission)

    async def add_again_reaction(self, job: Job, message_id: int) -> None:
        await self._process.wait(self._world.seconds(0.3), "adding the reaction")
        self._world.note("reaction added", self._world.by_address(job.request.image_url), str(message_id))

    def confirm(self, submission: Submission) -> None:
        """Discord has confirmed the picture to the bot."""
        submission.confirmed_at, submission.exempt = self._world.loop.time(), False
        self._world.uncharged.append(submission)

    def _show(self, submission: Submission) -> None:
        if submission.generated_at is None:
            self._world.report_violation("a picture was shown that was never generated", submission)
        submission.shown = True
        self._world.note("shown", submission)
        self._world.counts["deliveries"] += 1

    def _is_unavailable(self) -> bool:
        return self._world.is_down("discord") or self._world.is_down("gateway")

    def _raise_if_blocked(self, submission: Submission, *, picture: bool = False) -> None:
        """Raise an error if the message cannot be edited now."""
        reachability = self._world.reachability_of(submission)
        if self._is_unavailable() or reachability is Reachability.DELAYED or self._world.happens("delivery delayed"):
            raise DeliveryDelayed("503")
        if picture and self._world.happens("internal error"):
            raise RuntimeError("a bug in the messenger")
        if reachability is Reachability.DELETED:
            raise MessageDeleted("10008")
        if (
            reachability is Reachability.UNREACHABLE
            or submission.message is None
            or (reachability is Reachability.NEW_MESSAGE_ONLY and not picture)
        ):
            raise Undeliverable("403")


class Alerts:
    def __init__(self, process: Process) -> None:
        self._process = process

    def send(self, level: AlertLevel, key: str, _: str) -> None:
        if not self._process.dead:
            self._process.world.note("operator", None, f"{level} {key}")
            self._process.world.counts[f"operator: {level}"] += 1

    def repeat(self, level: AlertLevel, key: str, text: str) -> None:
        self.send(level, key, text)

    def end(self, level: AlertLevel, key: str, text: str) -> None:
        self.send(level, key, text)


class Metrics:
    def held(self, job: Job) -> None:
        """Do nothing. These tests do not check metrics."""

    def started(self) -> None:
        """Do nothing. These tests do not check metrics."""

    def ended(self, outcome: str, job: Job) -> None:
        """Do nothing. These tests do not check metrics."""
