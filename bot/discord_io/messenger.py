"""Shows results and outcomes in Discord, by the first way that works; says what its failure means for the job."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from bot.discord_io import buttons
from bot.discord_io.attempts import MethodFailed, Next
from bot.discord_io.delivery_methods import Content
from bot.discord_io.seed_queue import SeedQueue
from bot.domain import image_problems
from bot.domain.errors import DeliveryDelayed, MessageDeleted, NotStarted, Undeliverable
from bot.domain.models import Downloading, require
from bot.text import failures, results

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from bot.discord_io.delivery_methods import DeliveryMethods
    from bot.discord_io.own_messages import Message
    from bot.domain.models import Job, Picture, Status

    _Method = Callable[[Job, Content], Awaitable[Message]]

_PROGRESS_SECONDS = 10.0  # for one edit that shows progress, and so the longest that a result waits for one
_PROGRESS_AT_ONCE = 4  # more would keep results waiting for a line that does not matter


class Messenger:
    """Shows states and pictures, by the first of the `methods` that works. `seed` is the reaction added under public
    results, if any.
    """

    def __init__(self, methods: DeliveryMethods, *, clock: Callable[[], datetime], seed: str | None = None) -> None:
        self._methods = methods
        self._seed = seed
        self._seeds = SeedQueue(self._add_seed, clock=clock)
        self._progress = asyncio.Semaphore(_PROGRESS_AT_ONCE)
        self._progress_edits: dict[str, asyncio.Task[None]] = {}  # in flight, by job

    async def deliver(self, job: Job, picture: Picture) -> int:
        """Show `picture` on the job's message, else in a new one, else to the requester alone. Returns the id of the
        message that carries it. A private result is never shown to anyone else.

        Raises `DeliveryDelayed` if the same may work later, `MessageDeleted`, `Undeliverable`.
        """
        await self._progress_shown(job)
        new = () if job.requester.private else (self._methods.as_new_message,)
        try:
            message = await self._try_each(job, picture, edits=self._edits(job), new=new)
        except Undeliverable as failure:
            message = await self._to_requester(job, picture, failure)
        return _carrier(message)

    async def hand_over(self, job: Job, picture: Picture) -> int:
        """Show a kept picture to its requester alone, in the answer to the command that `job.claim` names; raises as
        `deliver` does.
        """
        claim = require(job.claim)
        requester = replace(
            job.requester, token=claim.token, asked_at=claim.at, upload_limit=claim.upload_limit, private=True
        )
        there = replace(job, requester=requester)
        return _carrier(await self._try_each(there, picture, edits=(self._methods.by_token,)))

    async def notify(self, job: Job) -> None:
        """Show how a job without a picture to show ended, in place of its message, else to its requester alone; raises
        as `deliver` does. What is wrong with an image is told in private first, and the message taken back: others
        need not see it. A program that is killed in between may say it twice.
        """
        await self._progress_shown(job)
        if image_problems.from_reason(job.reason) is not None and await self._told_in_private(job):
            return
        try:
            await self._try_each(job, None, edits=self._edits(job))
        except MessageDeleted:
            return  # nobody is waiting there any more
        except Undeliverable as failure:
            if _never_answered(job):
                raise
            await self._to_requester(job, None, failure)

    async def _told_in_private(self, job: Job) -> bool:
        """Tell the requester alone, and take the message back; False if the message has to say it."""
        if job.requester.private:
            return False
        try:
            view = buttons.view(job, buttons.OF_TOO_LARGE) if image_problems.can_shrink(job.reason) else None
            await self._methods.follow_up(job, Content(failures.failure(job), view=view))
            await self._methods.take_back(job)
        except MethodFailed as failure:
            return failure.then is Next.DELETED  # somebody else has taken it away
        return True

    def _edits(self, job: Job) -> Sequence[_Method]:
        """The methods that change the message in place; only the token can change a private one."""
        return (self._methods.by_token,) if job.requester.private else (self._methods.by_token, self._methods.by_bot)

    async def _try_each(
        self, job: Job, picture: Picture | None, *, edits: Sequence[_Method], new: Sequence[_Method] = ()
    ) -> Message:
        """Use the first method that works. One that may work later is never followed by one that posts anew."""
        failed: list[MethodFailed] = []
        for method in (*edits, *new):
            if method in new and _later(failed):
                break
            try:
                return await self._show(method, job, picture)
            except MethodFailed as failure:
                if failure.then is Next.DELETED:
                    raise MessageDeleted(failure.observed) from failure
                failed.append(failure)
        observed = "; ".join(failure.observed for failure in failed)
        raise (DeliveryDelayed if _later(failed) else Undeliverable)(observed)

    async def _show(self, method: _Method, job: Job, picture: Picture | None) -> Message:
        """One method with the prompt below the picture; without it if Discord or a filter refuses the text."""
        direct = method == self._methods.by_direct_message
        if picture is None:
            outcome = failures.outcome_by_direct_message if direct else failures.outcome
            return await method(job, Content(outcome(job), view=buttons.of_ended(job)))
        view = buttons.of_result(job)
        text = results.result_by_direct_message if direct else results.result
        try:
            return await method(job, Content(text(job), picture, view))
        except MethodFailed as failure:
            if not failure.for_its_text:
                raise
            return await method(job, Content(text(job, with_prompt=False), picture, view))

    async def _to_requester(self, job: Job, picture: Picture | None, failure: Undeliverable) -> Message:
        """The last method: a direct message. If that fails too, the first failure is what is raised."""
        try:
            return await self._show(self._methods.by_direct_message, job, picture)
        except MethodFailed as closed:
            observed = f"{failure.observed}; {closed.observed}"
            kind = DeliveryDelayed if closed.then is Next.LATER else type(failure)
            raise kind(observed) from None

    async def find_shared(self, job: Job, channel_id: int) -> int | None:
        """The public message of a share that was interrupted; raises `DeliveryDelayed` if that cannot be known now."""
        try:
            return await self._methods.messages.shared(job, channel_id)
        except MethodFailed as failure:
            raise DeliveryDelayed(failure.observed) from None

    async def tell(self, user_id: int, text: str) -> None:
        """Send a direct message that no job depends on; a failure does not matter."""
        with suppress(MethodFailed):
            await self._methods.tell(user_id, text)

    async def add_again_reaction(self, job: Job, message_id: int) -> None:
        """Add the reaction that generates another image under a public result, when Discord has time for it; a failure
        does not matter.
        """
        if self._seed is not None and not job.requester.private and job.requester.guild_id is not None:
            self._seeds.put(job.requester.channel_id, message_id)

    async def _add_seed(self, channel_id: int, message_id: int) -> bool:
        try:
            await self._methods.add_reaction(channel_id, message_id, require(self._seed))
        except MethodFailed as failure:
            return failure.then is not Next.LATER
        return True

    async def close(self) -> None:
        """Give up what nobody waits for."""
        await self._seeds.close()

    async def show_progress(self, job: Job, status: Status) -> None:
        """Show how far a job is, if that is quickly done; a failure does not matter. A caller that is cancelled leaves
        the edit to its end: Discord may apply it all the same, so what comes next has to wait for it.
        """
        if self._progress.locked() and not isinstance(status, Downloading):  # that one is shown only once
            return
        await self._progress_shown(job)
        edit = asyncio.create_task(self._edit_progress(job, status), name=f"progress-{job.id}")
        self._progress_edits[job.id] = edit
        edit.add_done_callback(lambda _: self._progress_edits.pop(job.id, None))
        await asyncio.shield(edit)

    async def _edit_progress(self, job: Job, status: Status) -> None:
        content = Content(results.status(job, status), view=buttons.of_status(job, status), progress=True)
        async with self._progress:
            with suppress(TimeoutError):
                async with asyncio.timeout(_PROGRESS_SECONDS):
                    if isinstance(status, Downloading) and await self._methods.carries_picture(job):
                        return
                    for method in self._edits(job):
                        try:
                            await method(job, content)
                        except MethodFailed as failure:
                            if failure.then is Next.TRY_NEXT:
                                continue
                        return

    async def _progress_shown(self, job: Job) -> None:
        """Wait until no edit of the job's progress is in flight."""
        edit = self._progress_edits.get(job.id)
        if edit is not None:
            await asyncio.wait([edit])


def _carrier(message: Message) -> int:
    """The id of the message that carries the picture; Discord may take a message and drop its file."""
    if not message.get("attachments"):
        raise DeliveryDelayed("Discord's answer carries no attachment")
    return int(message["id"])


def _later(found: Sequence[MethodFailed]) -> bool:
    return any(failure.then is Next.LATER for failure in found)


def _never_answered(job: Job) -> bool:
    """Whether the reply itself failed: then the caller that sent it tells the requester."""
    return job.message_id is None and job.reason == NotStarted.kind
