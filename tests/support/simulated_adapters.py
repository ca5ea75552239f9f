"""Adapters of one life on virtual time, behind `bot.domain.protocols`: they fail as the world decides."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn

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
from bot.domain.models import AlertLevel, Output, Queued, State
from bot.text import failures
from bot.text.formatting import NOT_CHARGED
from tests.support.simulated_world import BAD, DAY, GOOD, Way

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from bot.domain.errors import JobFailed
    from bot.domain.models import Job, Picture, Status, ThumbnailRequest
    from tests.support.simulated_world import Asked, Life

_UNTIL_RESTART = ("INVALID_API_KEY", "ACCOUNT_SUSPENDED", "moved")
_USUAL = tuple(code for code, verdict in CODES.items() if verdict.pause is None)
_UNUSUAL = (
    OutcomeUnknown("reset"),
    OutcomeUnknown("html", status=502, request_id="req"),
    AnswerUnusable("{}", status=200),
    ProviderRefused("TEAPOT", 418),
    ProviderRefused("NEW_TO_US", 503),
    ProviderRefused("INSUFFICIENT_CREDITS", 402),
)
_TIMEOUT = 180.0  # seconds a call may take
_EXPIRES = DAY  # seconds the provider keeps an output


class SourceImages:
    """The pictures a job is made from lie where they are, or do not any more."""

    def __init__(self, life: Life) -> None:
        self._life = life

    def check(self, _: ThumbnailRequest) -> None:
        if self._life.world.happens("source expired"):
            raise SourceExpired("image")

    async def prepare(self, request: ThumbnailRequest) -> ThumbnailRequest:
        await self._life.take(self._life.world.seconds(0.02), "preparing")
        self.check(request)
        return request

    async def keep(self, _: Job) -> None:
        await self._life.take(self._life.world.seconds(2), "keeping the original")


class Provider:
    def __init__(self, life: Life, *, retry_server_errors: bool) -> None:
        self._life = life
        self._retry_server_errors = retry_server_errors

    async def create(self, request: ThumbnailRequest) -> Output:
        life, world = self._life, self._life.world
        asked = world.by_address(request.image_url)
        await life.take(world.seconds(0.1), "connecting")
        if world.is_down("provider unreachable"):
            self._fail(asked, ProviderUnreachable())
        self._check(asked, request.image_url)
        asked.calls.append("under way")
        world.note("call", asked)
        failure = self._failure()
        made = failure is None or (isinstance(failure, OutcomeUnknown) and world.chance.random() < 0.5)
        await asyncio.sleep(_TIMEOUT if failure is not None and world.happens("slow") else world.seconds(30))
        if made:
            asked.made_at = world.loop.time()
            world.note("made", asked)
        life.reach("made")
        asked.calls.pop()
        if failure is not None:
            self._fail(asked, failure)
        asked.calls.append("worked")
        return Output(f"https://out.example/{asked.number}", f"req-{asked.number}")

    def _check(self, asked: Asked, address: str) -> None:
        """The paid call is written down before, and made again only where no work can have been done."""
        if asked.taken_back:
            self._life.world.forbidden("called though it was taken back", asked)
        for number, call in enumerate(asked.calls, 1):
            if isinstance(call, str):
                self._life.world.forbidden(f"called again, though a call before {call}", asked)
            elif not isinstance(call, ProviderUnreachable | ProviderRefused) or self._retries(call) < number:
                self._life.world.forbidden(f"called again after {call!r}", asked)
        [state] = self._life.world.raw.execute(
            "SELECT state FROM jobs WHERE request ->> 'image_url' = ?", (address,)
        ).fetchone()
        if state != State.SENDING:
            self._life.world.forbidden(f"called while the database says {state}", asked)

    def _retries(self, failure: JobFailed) -> int:
        return policy_for(failure, retry_server_errors=self._retry_server_errors).retries

    def _fail(self, asked: Asked, failure: JobFailed) -> NoReturn:
        asked.calls.append(failure)
        self._life.world.note("call failed", asked, repr(failure))
        raise failure

    def _failure(self) -> JobFailed | None:
        world = self._life.world
        if world.is_down("maintenance"):
            return ProviderRefused("SERVICE_UNDER_MAINTENANCE", 503, retry_after=self._pause())
        if world.happens("calls off until a restart"):
            code = world.chance.choice(_UNTIL_RESTART)
            return ProviderMoved() if code == "moved" else ProviderRefused(code, 401)
        if world.is_down("provider failing") or world.happens("call fails"):
            return self._usual_failure()
        if world.happens("unforeseen"):
            raise RuntimeError("a fault in the client")
        return None

    def _usual_failure(self) -> JobFailed:
        chance = self._life.world.chance
        throttled = ProviderRefused("TOO_MANY_REQUESTS", 429, retry_after=self._pause())
        refused = ProviderRefused(chance.choice(_USUAL), 500, request_id="req")
        return chance.choice((*_UNUSUAL, throttled, refused, refused))

    def _pause(self) -> timedelta | None:
        chance = self._life.world.chance
        return timedelta(seconds=chance.randint(1, 200)) if chance.random() < 0.5 else None


class Downloader:
    def __init__(self, life: Life) -> None:
        self._life = life

    async def fetch(self, address: str) -> AsyncGenerator[bytes, None]:
        life, world = self._life, self._life.world
        asked = world.by_address(address)
        await life.take(world.seconds(0.3), "fetching")
        if asked.made_at is None or world.loop.time() > asked.made_at + _EXPIRES or world.happens("output gone"):
            raise OutputGone("404")
        if world.is_down("source"):
            raise OutputUnreachable("timeout")
        yield BAD if world.happens("picture unusable") else GOOD
        if world.happens("download breaks"):
            raise OutputUnreachable("broke off")
        world.note("fetched", asked)


class Messenger:
    """One message a request, and whatever else carries its picture."""

    def __init__(self, life: Life, cancel: Callable[[str], bool]) -> None:
        self._life = life
        self._world = life.world
        self._cancel = cancel

    async def answer(self, asked: Asked, job: Job, status: Status) -> int:
        """The public answer to a command; its id."""
        await self._life.take(self._world.seconds(0.2), "answering")
        if self._is_away() or self._world.happens("answer refused"):
            raise ConnectionError("Discord")
        if asked.message is not None:
            self._world.forbidden("a request was answered twice", asked)
        asked.message = asked.number
        self._world.note("answered", asked, type(status).__name__)
        if isinstance(status, Queued) and self._world.happens("taken back"):
            self._world.loop.call_later(self._world.seconds(20), self._take_back, asked, job)
        await self._life.take(self._world.seconds(0.1), "answer taken")
        if self._world.happens("answer lost"):
            raise ConnectionError("Discord's answer")
        return asked.message

    def _take_back(self, asked: Asked, job: Job) -> None:
        if not self._life.dead and self._cancel(job.id):
            asked.taken_back = True
            self._world.note("taken back", asked)

    async def deliver(self, job: Job, picture: Picture) -> int:
        asked = self._world.by_address(job.request.image_url)
        if picture.content is None and not picture.path.exists():
            raise FileNotFoundError(picture.path.name)
        await self._life.take(self._world.seconds(0.5), "delivering")
        self._hindered(asked, picture=True)
        self._show(asked)
        await self._life.take(self._world.seconds(0.3), "delivered at Discord")
        if self._world.happens("delivery's answer lost"):
            raise DeliveryDelayed("lost")
        self.confirm(asked)
        return asked.number

    async def hand_over(self, job: Job, _: Picture) -> int:
        """A kept picture, for its requester alone."""
        asked = self._world.by_address(job.request.image_url)
        await self._life.take(self._world.seconds(0.5), "handing over")
        if self._is_away():
            raise ConnectionError("Discord")
        self._show(asked)
        asked.handed_over = True
        await self._life.take(self._world.seconds(0.3), "handed over")
        if self._world.happens("delivery's answer lost"):
            raise ConnectionError("Discord's answer")
        self.confirm(asked)
        return 10**6 + asked.number

    async def notify(self, job: Job) -> None:
        text = failures.outcome(job)
        asked = self._world.by_address(job.request.image_url)
        await self._life.take(self._world.seconds(0.3), "telling at Discord")
        try:
            self._hindered(asked)
        except MessageDeleted:
            return
        ended = job.state is State.RELEASED
        if ended != (NOT_CHARGED in text):
            self._world.forbidden(f"a {job.state} job was told: {text!r}", asked)
        asked.told += ended
        self._world.note("told", asked, text.partition(" · ")[0])
        await self._life.take(self._world.seconds(0.1), "told at Discord")
        if self._world.happens("delivery's answer lost"):
            raise DeliveryDelayed("lost")

    async def show_progress(self, job: Job, status: Status) -> None:
        asked = self._world.by_address(job.request.image_url)
        await self._life.take(self._world.seconds(0.5), "progress")
        if asked.shown or asked.told or (isinstance(status, Queued) and asked.calls):
            self._world.forbidden("progress was shown after the end", asked)

    async def add_again_reaction(self, job: Job, message_id: int) -> None:
        await self._life.take(self._world.seconds(0.3), "inviting")
        self._world.note("invited", self._world.by_address(job.request.image_url), str(message_id))

    def confirm(self, asked: Asked) -> None:
        """The bot knows now that the picture is to be seen."""
        asked.confirmed_at, asked.excused = self._world.loop.time(), False
        self._world.unsettled.append(asked)

    def _show(self, asked: Asked) -> None:
        if asked.made_at is None:
            self._world.forbidden("a picture was shown that nobody made", asked)
        asked.shown = True
        self._world.note("shown", asked)
        self._world.counts["deliveries"] += 1

    def _is_away(self) -> bool:
        return self._world.is_down("discord") or self._world.is_down("gateway")

    def _hindered(self, asked: Asked, *, picture: bool = False) -> None:
        """Raises what keeps an edit from being done."""
        way = self._world.way_of(asked)
        if self._is_away() or way is Way.STUCK or self._world.happens("delivery delayed"):
            raise DeliveryDelayed("503")
        if picture and self._world.happens("unforeseen"):
            raise RuntimeError("a fault in the messenger")
        if way is Way.DELETED:
            raise MessageDeleted("10008")
        if way is Way.CLOSED or asked.message is None or (way is Way.ANEW and not picture):
            raise Undeliverable("403")


class Alerts:
    def __init__(self, life: Life) -> None:
        self._life = life

    def send(self, level: AlertLevel, key: str, _: str) -> None:
        if not self._life.dead:
            self._life.world.note("operator", None, f"{level} {key}")
            self._life.world.counts[f"operator: {level}"] += 1


class Metrics:
    def started(self) -> None:
        """Nobody reads them here."""

    def ended(self, outcome: str) -> None:
        """Nobody reads them here."""
