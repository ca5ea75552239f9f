"""Interactions, from the event to the last edit: their payload, three-second deadline and token."""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from sandbox.discord_server.api_errors import ApiError, invalid_form
from sandbox.discord_server.components import check_modal
from sandbox.discord_server.condition import Condition
from sandbox.discord_server.files import Form
from sandbox.discord_server.messages import EPHEMERAL, FLAGS_A_BOT_MAY_SET, LOADING, Message, Messages
from sandbox.discord_server.payloads import APPLICATION_ID, Json, Origin, Snowflakes, user

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

COMMAND, COMPONENT, AUTOCOMPLETE, MODAL_SUBMIT = 2, 3, 4, 5


class CallbackType(IntEnum):
    """The types of an interaction's first response."""

    ANSWER = 4
    DEFER = 5
    DEFER_UPDATE = 6
    UPDATE = 7
    CHOICES = 8
    MODAL = 9


ALLOWED: Mapping[int, frozenset[int]] = MappingProxyType(
    {
        COMMAND: frozenset({CallbackType.ANSWER, CallbackType.DEFER, CallbackType.MODAL}),
        COMPONENT: frozenset(CallbackType) - {CallbackType.CHOICES},
        AUTOCOMPLETE: frozenset({CallbackType.CHOICES}),
        MODAL_SUBMIT: frozenset(
            {CallbackType.ANSWER, CallbackType.DEFER, CallbackType.DEFER_UPDATE, CallbackType.UPDATE}
        ),
    }
)


@dataclass(slots=True, eq=False, kw_only=True)
class Interaction:
    """One interaction, and the bot's responses to it."""

    id: int
    type: int
    token: str = field(repr=False)
    origin: Origin = field(repr=False)
    data: Json = field(repr=False)
    condition: Condition = field(repr=False)
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
        """Wait until the predicate is true. It is checked after every response, follow-up and edit."""
        await self.condition.wait_for(lambda: predicate(self), seconds, about=self)

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
        """The interaction metadata that a message shows."""
        owners = self.origin.payload()["authorizing_integration_owners"]
        shown = {"id": str(self.id), "type": self.type, "user": user(self.origin.user_id)}
        if self.parent is not None:
            shown["triggering_interaction_metadata"] = self.parent.metadata()
        elif self.source is not None:
            shown["interacted_message_id"] = str(self.source.id)
        return shown | {"authorizing_integration_owners": owners}

    def callback_response(self) -> Json:
        """The response to the callback. It includes a message only if the callback sent or updated one."""
        interaction: Json = {"id": str(self.id), "type": self.type}
        if self.message is None or self.ack is None:
            return {"interaction": interaction}
        interaction["response_message_id"] = str(self.message.id)
        interaction["response_message_loading"] = self.message.loading
        interaction["response_message_ephemeral"] = self.message.ephemeral
        if self.ack["type"] not in (CallbackType.ANSWER, CallbackType.UPDATE):
            return {"interaction": interaction}
        resource = {"type": self.ack["type"], "message": self.message.payload()}
        return {"interaction": interaction, "resource": resource}


class Interactions:
    """Every interaction, by id and by token, with its deadlines."""

    def __init__(
        self, messages: Messages, ids: Snowflakes, condition: Condition, *, ack_deadline: float, token_life: float
    ) -> None:
        self._messages = messages
        self._ids = ids
        self._condition = condition
        self._ack_deadline = ack_deadline
        self._token_life = token_life
        self._by_token: dict[str, Interaction] = {}
        self.by_id: dict[int, Interaction] = {}

    def create(
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
            condition=Condition(self._condition),
            source=source,
            parent=parent,
        )
        self.by_id[number] = self._by_token[interaction.token] = interaction
        interaction.sent_at = time.monotonic()
        return interaction

    def respond(self, interaction_id: int, token: str, form: Form, *, arrived: float) -> Interaction:
        """Only the first response in time counts. A refused response leaves the interaction open."""
        interaction = self.by_id.get(interaction_id)
        if interaction is None or interaction.token != token:
            raise ApiError.from_code(10062)
        if interaction.ack is not None:
            raise ApiError.from_code(40060)
        if arrived - interaction.sent_at > self._ack_deadline:
            raise ApiError.from_code(10062)
        ack: Json = {"type": form.payload.get("type"), "data": form.payload.get("data") or {}}
        interaction.message = self._apply_callback(interaction, ack["type"], Form(ack["data"], form.files))
        if ack["type"] == CallbackType.MODAL:
            interaction.modal = ack["data"]
        interaction.ack, interaction.ack_seconds = ack, arrived - interaction.sent_at
        interaction.acked.set()
        interaction.condition.notify()
        return interaction

    def by_token(self, token: str) -> Interaction:
        """An acknowledged interaction with a valid token."""
        interaction = self._by_token.get(token)
        if interaction is None or interaction.expired or time.monotonic() - interaction.sent_at > self._token_life:
            raise ApiError.from_code(50027)
        if interaction.ack is None:
            raise ApiError.from_code(10015)
        return interaction

    def message(self, token: str, message: str) -> Message:
        """`message` is `@original`, or the id of a message that was sent with this token."""
        interaction = self.by_token(token)
        sent = [found for found in (interaction.message, *interaction.followups) if found and not found.deleted]
        for found in sent:
            if found is interaction.message if message == "@original" else str(found.id) == message:
                return found
        raise ApiError.from_code(10008)

    def edit(self, token: str, message: str, form: Form) -> Message:
        edited = self.message(token, message)
        self._messages.edit(edited, form)
        self.by_token(token).condition.notify()  # the message may belong to another interaction
        return edited

    def follow_up(self, token: str, form: Form) -> Message:
        """The first follow-up after a deferral edits the deferred response."""
        interaction = self.by_token(token)
        if interaction.message is not None and interaction.message.loading and not interaction.message.deleted:
            self._messages.edit(interaction.message, form)
            return interaction.message
        message = self._new_message(interaction, form.payload.get("flags", 0) & (EPHEMERAL | FLAGS_A_BOT_MAY_SET))
        self._messages.publish(message, form)
        interaction.followups.append(message)
        interaction.condition.notify()
        return message

    def _apply_callback(self, interaction: Interaction, kind: object, form: Form) -> Message | None:
        """Returns the message that `@original` refers to from now on."""
        flags = form.payload.get("flags", 0)
        if kind not in ALLOWED[interaction.type]:
            raise _wrong_type()
        match kind:
            case CallbackType.ANSWER:
                message = self._new_message(interaction, flags & (EPHEMERAL | FLAGS_A_BOT_MAY_SET))
                self._messages.publish(message, form)
                return message
            case CallbackType.DEFER:
                return self._defer(interaction, flags & EPHEMERAL)
            case CallbackType.UPDATE:
                return self._update(interaction, form)
            case CallbackType.DEFER_UPDATE:  # without a message, this only closes the modal
                return interaction.source
            case CallbackType.MODAL:
                check_modal(form.payload)
        return None

    def _update(self, interaction: Interaction, form: Form) -> Message:
        """Updates the message whose component was used, or whose component opened the modal."""
        if interaction.source is None:
            raise _wrong_type()
        if interaction.source.deleted:
            raise ApiError.from_code(10008)
        self._messages.edit(interaction.source, form)
        return interaction.source

    def _defer(self, interaction: Interaction, flags: int) -> Message:
        message = self._new_message(interaction, flags | LOADING)
        self._messages.add(message)
        return message

    def _new_message(self, interaction: Interaction, flags: int) -> Message:
        return Message(
            id=self._ids.fresh(),
            channel_id=interaction.origin.channel_id,
            guild_id=interaction.origin.guild_id,
            condition=interaction.condition,
            flags=flags,
            interaction=interaction.metadata(),
        )


def _wrong_type() -> ApiError:
    return invalid_form("type", code="BASE_TYPE_CHOICES", message="Value must be one of the allowed types.")
