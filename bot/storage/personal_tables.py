"""Every table of the schema: which columns identify a person, and what becomes of them when the person's data is
deleted. A test compares this with the real schema, so no table and no column can be forgotten.

What has to outlive a deletion, so that nobody gets a free refill or escapes a block, stands under a pseudonym.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a person, and what a deletion changes in them: expressions by column. None: the rows are deleted; none
    at all: they stay as they are, under the pseudonym.

    `where` may use :user_id, :member (the pseudonym), and :text (the id as text, NULL if it is too short to be one).
    After the change, it is false.
    """

    where: str
    change: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class Table:
    """The columns of a table by what they hold, separated by spaces, and the rows of a person in it.

    `people` are user ids; `ids` other ids; `secrets` let anyone speak as the bot, so they are not exported.
    """

    rows: tuple[Rows, ...] = ()
    people: str = ""
    ids: str = ""
    times: str = ""
    json: str = ""
    secrets: str = ""
    other: str = ""
    has_rowid: bool = True

    @property
    def columns(self) -> list[str]:
        return f"{self.people} {self.ids} {self.times} {self.json} {self.secrets} {self.other}".split()


def _erased(column: str, **others: str) -> Rows:
    """The id in `column` becomes 0."""
    return Rows(f"{column} = :user_id", {column: "0", **others})


def _without_id(column: str) -> Rows:
    """What somebody has written names the person by their id."""
    return Rows(f"instr({column}, :text) > 0", {column: f"replace({column}, :text, '0')"})


def _deleted(where: str = "user_id = :user_id") -> Rows:
    return Rows(where, None)


def _kept(where: str) -> Rows:
    return Rows(where, {})


_REDUCED_REQUEST = (
    "json_object('image_url', '', 'model', json_extract(request, '$.model'),"
    " 'format', json_extract(request, '$.format'))"
)
_GONE = (
    *("reacted_to", "message_id", "token", "shared_id", "sharing_at", "claim_token", "claim_limit", "claimed_at"),
    *("output_url", "request_id", "picture_file", "picture_type", "picture_width", "picture_height"),
    *("picture_size", "picture_sha256"),
)
_ERASED_JOB = {
    "user_id": "0",
    "interaction_id": "-1 - (random() & 0x3fffffffffffffff)",  # unique; and every job has it, or a reaction
    "channel_id": "0",
    "upload_limit": "0",
    "locale": "'en-US'",
    "request": _REDUCED_REQUEST,
    "notified_at": "COALESCE(notified_at, ended_at)",
    **dict.fromkeys(_GONE, "NULL"),
}

# The largest first: they are changed in slices.
TABLES: Mapping[str, Table] = MappingProxyType(
    {
        "jobs": Table(
            (Rows("user_id = :user_id", _ERASED_JOB),),
            people="user_id",
            ids="interaction_id reacted_to guild_id channel_id message_id shared_id member",
            times="asked_at created_at sent_at generated_at parked_at claimed_at sharing_at ended_at notified_at"
            " deleted_at",
            json="request",
            secrets="token claim_token",
            other="id parent_id private state upload_limit operation locale cost output_url request_id picture_file"
            " picture_type picture_width picture_height picture_size picture_sha256 reason claim_limit counted_on extra"
            " price spoiler",
        ),
        "entries": Table(
            (_erased("user_id"),),
            people="user_id",
            ids="guild_id member",
            times="counted_at at",
            other="id job_id kind held spent counted_on extra price mark",
        ),
        "carried": Table(
            (_erased("user_id"),), people="user_id", ids="guild_id", other="counted_on model images credits paid"
        ),
        "drafts": Table((_deleted(),), people="user_id", times="made_at", json="images request", other="id private"),
        "settlements": Table((_erased("actor"),), people="actor", times="at", other="job_id outcome"),
        "grants": Table(
            (_erased("user_id", reason="''"), _erased("actor"), _without_id("reason")),
            people="user_id actor",
            ids="guild_id member",
            times="at",
            other="id amount reason",
        ),
        "server_limits": Table(
            (_deleted("kind = 'member' AND subject = :user_id"),),
            people="subject",
            ids="guild_id",
            other="kind daily monthly",
            has_rowid=False,
        ),
        "blocks": Table(
            (
                Rows("kind = 'member' AND shown_id = :user_id", {"shown_id": "0"}),
                _erased("actor"),
                _without_id("reason"),
            ),
            people="shown_id actor",
            ids="guild_id subject",
            times="until at",
            other="kind reason",
            has_rowid=False,
        ),
        "member_settings": Table((_deleted(),), people="user_id", other="model format private"),
        "audit": Table(
            (
                _erased("target", details="json_remove(details, '$.reason', '$.subject')"),
                _erased("actor"),
                _without_id("details"),
            ),
            people="actor target",
            ids="guild_id",
            times="at",
            json="details",
            other="id action",
        ),
        "waiting_for_balance": Table(
            (_deleted(),), people="user_id", ids="guild_id channel_id", times="at", other="locale"
        ),
        "totals": Table(
            (_kept("subject = :member AND scope NOT IN ('guild', 'bot', 'money')"),),
            ids="subject place",
            other="scope period used",
            has_rowid=False,
        ),
        # no person in them
        "facts": Table(other="name value"),
        "presets": Table(ids="guild_id", other="kind folded name value", has_rowid=False),
        "pseudonyms": Table(secrets="salt"),
        "servers": Table(ids="guild_id", times="seen_at", json="settings"),
    }
)
