"""The messages of every channel, and Discord's rules for sending and editing them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from sandbox.discord_server.api_errors import ApiError, invalid_form
from sandbox.discord_server.components import assign_ids, check_message
from sandbox.discord_server.condition import Condition
from sandbox.discord_server.files import Attachment, Form, ReceivedFile, Upload, make_attachment
from sandbox.discord_server.payloads import APPLICATION_ID, Channels, Json, Origin, Snowflakes, person

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

SUPPRESS_EMBEDS, EPHEMERAL, LOADING, SILENT, COMPONENTS_V2 = 1 << 2, 1 << 6, 1 << 7, 1 << 12, 1 << 15
FLAGS_A_BOT_MAY_SET = SUPPRESS_EMBEDS | SILENT | COMPONENTS_V2
CONTENT_LIMIT = 2000
FILE_COUNT_LIMIT = 10
LEGACY_FIELDS: Mapping[str, str] = MappingProxyType(
    {
        "code": "MESSAGE_CANNOT_USE_LEGACY_FIELDS_WITH_COMPONENTS_V2",
        "message": "This field cannot be used when using MessageFlags.IS_COMPONENTS_V2",
    }
)
REPLY = 19
COMMAND_REPLY = 20


class Edit(NamedTuple):
    """The content of a message from the time `at` on (monotonic seconds)."""

    at: float
    content: str
    filenames: tuple[str, ...]


@dataclass(slots=True, eq=False, kw_only=True)
class Message:
    """One message and its edit history. The author is the bot by default."""

    id: int
    channel_id: int
    guild_id: int | None
    condition: Condition = field(repr=False)
    author_id: int = APPLICATION_ID
    flags: int = 0
    content: str = ""
    attachments: list[Attachment] = field(default_factory=list)
    embeds: list[Json] = field(default_factory=list)
    components: list[Json] = field(default_factory=list)
    reactions: dict[str, set[int]] = field(default_factory=dict)
    nonce: str | int | None = None
    replied_to: Message | None = field(default=None, repr=False)
    interaction: Json | None = field(default=None, repr=False)
    deleted: bool = False
    history: list[Edit] = field(default_factory=list, repr=False)
    created: datetime = field(default_factory=lambda: datetime.now(UTC), repr=False)
    edited: datetime | None = field(default=None, repr=False)

    @property
    def sent_by_bot(self) -> bool:
        return self.author_id == APPLICATION_ID

    @property
    def ephemeral(self) -> bool:
        return bool(self.flags & EPHEMERAL)

    @property
    def loading(self) -> bool:
        """Whether the message is still the "thinking…" of a deferred response."""
        return bool(self.flags & LOADING)

    @property
    def filenames(self) -> tuple[str, ...]:
        return tuple(attachment.filename for attachment in self.attachments)

    async def wait(self, predicate: Callable[[Message], bool], seconds: float = 10.0) -> None:
        await self.condition.wait_for(lambda: predicate(self), seconds, about=self)

    def record_change(self) -> None:
        self.history.append(Edit(time.monotonic(), self.content, self.filenames))
        self.condition.notify()

    def payload(self) -> Json:
        return {
            "id": str(self.id),
            "channel_id": str(self.channel_id),
            "type": COMMAND_REPLY if self.interaction else REPLY if self.reference else 0,
            "author": person(self.author_id),
            "content": self.content,
            "attachments": [attachment.payload() for attachment in self.attachments],
            "embeds": self.embeds,
            "components": self.components,
            "flags": self.flags,
            "timestamp": self.created.isoformat(),
            "edited_timestamp": self.edited and self.edited.isoformat(),
            "mentions": [],
            "mention_roles": [],
            "mention_everyone": False,
            "pinned": False,
            "tts": False,
            **self._optional_fields(),
        }

    @property
    def reference(self) -> Json | None:
        """The location of the message that this one replies to."""
        target = self.replied_to
        if target is None:
            return None
        guild = {} if target.guild_id is None else {"guild_id": str(target.guild_id)}
        return {"type": 0, "message_id": str(target.id), "channel_id": str(target.channel_id)} | guild

    def referenced_payload(self) -> Json | None:
        """The message as a reply shows it, without any message that it replied to itself."""
        return None if self.deleted else _without(self.payload(), "referenced_message")

    def _optional_fields(self) -> Json:
        found: Json = {"application_id": str(APPLICATION_ID)} if self.sent_by_bot else {}
        if self.interaction is not None:
            found |= {"interaction_metadata": self.interaction, "webhook_id": str(APPLICATION_ID)}
        if self.replied_to is not None:
            found["message_reference"] = self.reference
            found["referenced_message"] = self.replied_to.referenced_payload()
        if self.nonce is not None:
            found["nonce"] = self.nonce
        if self.reactions:
            found["reactions"] = [_reaction(emoji, users) for emoji, users in self.reactions.items()]
        return found


class Messages:
    """Every message, including deleted ones."""

    def __init__(self, ids: Snowflakes, channels: Channels, condition: Condition) -> None:
        self._ids = ids
        self._channels = channels
        self._condition = condition
        self._by_nonce: dict[tuple[int, str | int], Message] = {}
        self.by_id: dict[int, Message] = {}

    def forget_nonces(self) -> None:
        """Discord remembers a nonce for a few minutes."""
        self._by_nonce.clear()

    def find(self, message_id: int) -> Message:
        message = self.by_id.get(message_id)
        if message is None or message.deleted:
            raise ApiError.from_code(10008)
        return message

    def find_public(self, message_id: int, channel_id: int) -> Message:
        """A message that the bot token can access, which excludes ephemeral messages."""
        message = self.find(message_id)
        if message.ephemeral or message.channel_id != channel_id:
            raise ApiError.from_code(10008)
        return message

    def newest_first(self, channel_id: int) -> Iterator[Message]:
        for message in reversed(self.by_id.values()):
            if message.channel_id == channel_id and not message.deleted and not message.ephemeral:
                yield message

    def post(self, channel_id: int, form: Form) -> Message:
        """Posts with the bot token. A repeated nonce returns the message that it created before."""
        nonce = form.payload.get("nonce")
        key = (channel_id, nonce) if nonce is not None and form.payload.get("enforce_nonce") else None
        if key is not None and key in self._by_nonce:
            return self._by_nonce[key]
        replied_to = self._find_reply_target(form.payload.get("message_reference"), channel_id)
        message = Message(
            id=self._ids.fresh(),
            channel_id=channel_id,
            guild_id=self._channels.guild_id(channel_id),
            condition=Condition(self._condition),
            flags=form.payload.get("flags", 0) & FLAGS_A_BOT_MAY_SET,
            nonce=nonce,
            replied_to=replied_to,
        )
        self.publish(message, form)
        if key is not None:
            self._by_nonce[key] = message
        return message

    def say(self, origin: Origin, content: str, files: Sequence[Upload], reply_to: Message | None) -> Message:
        """Posts as a user."""
        message = Message(
            id=self._ids.fresh(),
            channel_id=origin.channel_id,
            guild_id=origin.guild_id,
            condition=Condition(self._condition),
            author_id=origin.user_id,
            content=content,
            attachments=[file.attachment(self._ids.fresh(), origin.channel_id) for file in files],
            replied_to=reply_to,
        )
        self.add(message)
        return message

    def publish(self, message: Message, form: Form) -> None:
        """Fills a new message and adds it to its channel."""
        self._fill(message, form)
        self.add(message)

    def add(self, message: Message) -> None:
        self.by_id[message.id] = message
        message.record_change()

    def edit(self, message: Message, form: Form) -> None:
        """Changes only the given fields. An edit completes a deferred response."""
        self._fill(message, form)
        message.flags = message.flags & ~LOADING | form.payload.get("flags", 0) & FLAGS_A_BOT_MAY_SET
        message.edited = datetime.now(UTC)
        message.record_change()

    def delete(self, message: Message) -> None:
        message.deleted = True
        message.condition.notify()

    def _fill(self, message: Message, form: Form) -> None:
        content = form.payload.get("content", message.content) or ""
        if len(content) > CONTENT_LIMIT:
            raise invalid_form("content", code="BASE_TYPE_MAX_LENGTH", message="Must be 2000 or fewer in length.")
        attachments = self._attachments(message, form)
        embeds = form.payload.get("embeds", message.embeds) or []
        components = form.payload.get("components", message.components) or []
        if not (content or attachments or embeds or components):
            raise ApiError.from_code(50006)
        if components:
            layout = (message.flags | form.payload.get("flags", 0)) & COMPONENTS_V2
            check_message(components, layout=bool(layout))
            if layout and (content or embeds):
                raise invalid_form("content" if content else "embeds", **LEGACY_FIELDS)
        message.content, message.attachments = content, attachments
        message.embeds, message.components = embeds, assign_ids(components)

    def _attachments(self, message: Message, form: Form) -> list[Attachment]:
        """`attachments` lists the files to keep and describes the new ones; without it, every file is kept."""
        new = dict(form.files)
        listed = form.payload.get("attachments")
        found = (
            list(message.attachments)
            if listed is None
            else [self._find_listed(message, entry, new) for entry in listed]
        )
        found += [self._make_attachment(message, file, {}) for file in new.values()]
        if len(found) > FILE_COUNT_LIMIT:
            raise ApiError.from_code(30015)
        return found

    def _find_listed(self, message: Message, entry: Json, new: dict[int, ReceivedFile]) -> Attachment:
        number = int(entry["id"])
        if number in new:
            return self._make_attachment(message, new.pop(number), entry)
        for attachment in message.attachments:
            if attachment.id == number:
                return attachment
        raise invalid_form("attachments", code="ATTACHMENT_NOT_FOUND", message=f"Attachment {number} not found.")

    def _make_attachment(self, message: Message, file: ReceivedFile, described: Json) -> Attachment:
        return make_attachment(
            file,
            described,
            attachment_id=self._ids.fresh(),
            channel_id=message.channel_id,
            ephemeral=message.ephemeral,
        )

    def _find_reply_target(self, given: Json | None, channel_id: int) -> Message | None:
        """A bot cannot reply to an ephemeral message, or to a message in another channel."""
        if given is None:
            return None
        target = self.by_id.get(int(given["message_id"]))
        if target is not None and not (target.deleted or target.ephemeral) and target.channel_id == channel_id:
            return target
        if given.get("fail_if_not_exists", True):
            raise invalid_form("message_reference", code="REPLIES_UNKNOWN_MESSAGE", message="Unknown message")
        return None


def emoji_payload(emoji: str) -> Json:
    """`name:id` is a custom emoji; anything else is a Unicode emoji."""
    name, _, emoji_id = emoji.partition(":")
    return {"id": emoji_id or None, "name": name}


def _without(payload: Json, key: str) -> Json:
    return {name: value for name, value in payload.items() if name != key}


def _reaction(emoji: str, users: set[int]) -> dict[str, Any]:
    return {
        "emoji": emoji_payload(emoji),
        "count": len(users),
        "count_details": {"burst": 0, "normal": len(users)},
        "me": APPLICATION_ID in users,
        "me_burst": False,
        "burst_colors": [],
    }
