"""Interactions from sending to the last edit: what they carry, their three seconds, their token."""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from sandbox.discord_server.api_errors import Refusal, invalid_form
from sandbox.discord_server.components import check_modal
from sandbox.discord_server.condition import Signal
from sandbox.discord_server.files import Form
from sandbox.discord_server.messages import EPHEMERAL, FLAGS_A_BOT_MAY_SET, LOADING, Message, Messages
from sandbox.discord_server.payloads import APPLICATION_ID, Json, Origin, Snowflakes, user

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

COMMAND, COMPONENT, AUTOCOMPLETE, SUBMISSION = 2, 3, 4, 5


class Callback(IntEnum):
    """The kinds of first answer."""

    ANSWER = 4
    DEFER = 5
    DEFER_UPDATE = 6
    UPDATE = 7
    CHOICES = 8
    MODAL = 9


ALLOWED: Mapping[int, frozenset[int]] = MappingProxyType(
    {
        COMMAND: frozenset({Callback.ANSWER, Callback.DEFER, Callback.MODAL}),
        COMPONENT: frozenset(Callback) - {Callback.CHOICES},
        AUTOCOMPLETE: frozenset({Callback.CHOICES}),
        SUBMISSION: frozenset({Callback.ANSWER, Callback.DEFER, Callback.DEFER_UPDATE, Callback.UPDATE}),
    }
)


@dataclass(slots=True, eq=False, kw_only=True)
class Interaction:
    """One interaction and what the bot has made of it."""

    id: int
    type: int
    token: str = field(repr=False)
    origin: Origin = field(repr=False)
    data: Json = field(repr=False)
    signal: Signal = field(repr=False)
    source: Message | None = field(repr=False)
    parent: Interaction | None = field(default=None, repr=False)
    sent_at: float = field(default=0.0, repr=False)
    acked: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    ack: Json | None = None
    ack_seconds: float | None = None
    message: Message | None = None
    modal: Json | None = None
    followups: list[Message] = field(default_factory=list)
    expired: bool = False

    async def wait(self, predicate: Callable[[Interaction], bool], seconds: float = 10.0) -> None:
        """Until the predicate holds; looked at whenever the answer, a followup or one of their edits arrives."""
        await self.signal.until(lambda: predicate(self), seconds, about=self)

    def payload(self) -> Json:
        shown = {
            "id": str(self.id),
            "application_id": str(APPLICATION_ID),
            "type": self.type,
            "token": self.token,
            "version": 1,
            "data": self.data,
        }
        if self.source is not None:
            shown["message"] = self.source.payload()
        return shown | self.origin.payload()

    def metadata(self) -> Json:
        """What a message says about the interaction that made it."""
        owners = self.origin.payload()["authorizing_integration_owners"]
        shown = {"id": str(self.id), "type": self.type, "user": user(self.origin.user_id)}
        if self.parent is not None:
            shown["triggering_interaction_metadata"] = self.parent.metadata()
        elif self.source is not None:
            shown["interacted_message_id"] = str(self.source.id)
        return shown | {"authorizing_integration_owners": owners}

    def receipt(self) -> Json:
        """The callback's reply: only a message made or updated at once comes along."""
        interaction: Json = {"id": str(self.id), "type": self.type}
        if self.message is None or self.ack is None:
            return {"interaction": interaction}
        interaction["response_message_id"] = str(self.message.id)
        interaction["response_message_loading"] = self.message.loading
        interaction["response_message_ephemeral"] = self.message.ephemeral
        if self.ack["type"] not in (Callback.ANSWER, Callback.UPDATE):
            return {"interaction": interaction}
        resource = {"type": self.ack["type"], "message": self.message.payload()}
        return {"interaction": interaction, "resource": resource}


class Interactions:
    """Every interaction sent, by id and by token, with the clock that runs against it."""

    def __init__(
        self, messages: Messages, ids: Snowflakes, signal: Signal, *, ack_deadline: float, token_life: float
    ) -> None:
        self._messages = messages
        self._ids = ids
        self._signal = signal
        self._ack_deadline = ack_deadline
        self._token_life = token_life
        self._by_token: dict[str, Interaction] = {}
        self.by_id: dict[int, Interaction] = {}

    def open(
        self,
        kind: int,
        origin: Origin,
        data: Json,
        *,
        source: Message | None = None,
        parent: Interaction | None = None,
    ) -> Interaction:
        interaction = Interaction(
            id=(number := self._ids.fresh()),
            type=kind,
            token=base64.urlsafe_b64encode(f"interaction:{number}:".encode() + secrets.token_bytes(24)).decode(),
            origin=origin,
            data=data,
            signal=Signal(self._signal),
            source=source,
            parent=parent,
        )
        self.by_id[number] = self._by_token[interaction.token] = interaction
        interaction.sent_at = time.monotonic()
        return interaction

    def answer(self, interaction_id: int, token: str, form: Form, *, arrived: float) -> Interaction:
        """The first answer counts if it arrived in time; a refused one leaves the interaction open."""
        interaction = self.by_id.get(interaction_id)
        if interaction is None or interaction.token != token:
            raise Refusal.known(10062)
        if interaction.ack is not None:
            raise Refusal.known(40060)
        if arrived - interaction.sent_at > self._ack_deadline:
            raise Refusal.known(10062)
        ack: Json = {"type": form.payload.get("type"), "data": form.payload.get("data") or {}}
        interaction.message = self._carry_out(interaction, ack["type"], Form(ack["data"], form.files))
        if ack["type"] == Callback.MODAL:
            interaction.modal = ack["data"]
        interaction.ack, interaction.ack_seconds = ack, arrived - interaction.sent_at
        interaction.acked.set()
        interaction.signal.changed()
        return interaction

    def by_token(self, token: str) -> Interaction:
        """An answered interaction whose token is still good."""
        interaction = self._by_token.get(token)
        if interaction is None or interaction.expired or time.monotonic() - interaction.sent_at > self._token_life:
            raise Refusal.known(50027)
        if interaction.ack is None:
            raise Refusal.known(10015)
        return interaction

    def message(self, token: str, message: str) -> Message:
        """`@original` or the id of a message made with this token."""
        interaction = self.by_token(token)
        made = [found for found in (interaction.message, *interaction.followups) if found and not found.deleted]
        for found in made:
            if found is interaction.message if message == "@original" else str(found.id) == message:
                return found
        raise Refusal.known(10008)

    def edit(self, token: str, message: str, form: Form) -> Message:
        edited = self.message(token, message)
        self._messages.edit(edited, form)
        self.by_token(token).signal.changed()  # it may be the message of another interaction
        return edited

    def follow_up(self, token: str, form: Form) -> Message:
        """The first one after a deferral is an edit of the deferred answer."""
        interaction = self.by_token(token)
        if interaction.message is not None and interaction.message.loading and not interaction.message.deleted:
            self._messages.edit(interaction.message, form)
            return interaction.message
        message = self._new(interaction, form.payload.get("flags", 0) & (EPHEMERAL | FLAGS_A_BOT_MAY_SET))
        self._messages.put(message, form)
        interaction.followups.append(message)
        interaction.signal.changed()
        return message

    def _carry_out(self, interaction: Interaction, kind: object, form: Form) -> Message | None:
        """The message that `@original` means from now on."""
        flags = form.payload.get("flags", 0)
        if kind not in ALLOWED[interaction.type]:
            raise _wrong_kind()
        match kind:
            case Callback.ANSWER:
                message = self._new(interaction, flags & (EPHEMERAL | FLAGS_A_BOT_MAY_SET))
                self._messages.put(message, form)
                return message
            case Callback.DEFER:
                return self._defer(interaction, flags & EPHEMERAL)
            case Callback.UPDATE:
                return self._update(interaction, form)
            case Callback.DEFER_UPDATE:  # without a message it just closes the modal
                return interaction.source
            case Callback.MODAL:
                check_modal(form.payload)
        return None

    def _update(self, interaction: Interaction, form: Form) -> Message:
        """Of the message whose component was used, or whose component opened the modal."""
        if interaction.source is None:
            raise _wrong_kind()
        if interaction.source.deleted:
            raise Refusal.known(10008)
        self._messages.edit(interaction.source, form)
        return interaction.source

    def _defer(self, interaction: Interaction, flags: int) -> Message:
        message = self._new(interaction, flags | LOADING)
        self._messages.show(message)
        return message

    def _new(self, interaction: Interaction, flags: int) -> Message:
        return Message(
            id=self._ids.fresh(),
            channel_id=interaction.origin.channel_id,
            guild_id=interaction.origin.guild_id,
            signal=interaction.signal,
            flags=flags,
            interaction=interaction.metadata(),
        )


def _wrong_kind() -> Refusal:
    return invalid_form("type", code="BASE_TYPE_CHOICES", message="Value must be one of the allowed types.")
