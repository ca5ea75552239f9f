"""Who may do what: every command, button, form, menu and reaction, by every kind of person. Prints the matrix."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import discord
from discord import app_commands

from bot.domain.models import require
from bot.domain.server_rules import Block, Change
from sandbox import discord_server
from sandbox.discord_server.payloads import OriginFields
from tests.integration.test_admin import COMMANDS as ADMIN_COMMANDS
from tests.support.e2e import PHOTO, Live, running

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pytest

    from bot.domain.models import Job

REQUESTER, SOMEONE_ELSE = 900_000_000_000_000_001, 900_000_000_000_000_002
ORDINARY = discord_server.ORDINARY_PERMISSIONS
MODERATOR = 900_000_000_000_000_007
MANAGE_SERVER = discord.Permissions(manage_guild=True).value
ELSEWHERE = (4242, 1_100_000_000_000_000_042)  # a server, and a channel of it
SUBJECT = "900000000000000009"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who tries everything."""

    user_id: int
    permissions: int = ORDINARY
    place: tuple[int | None, int] = (discord_server.GUILD_ID, discord_server.CHANNEL_ID)

    @property
    def origin(self) -> OriginFields:
        guild_id, channel_id = self.place
        return OriginFields(
            user_id=self.user_id, permissions=self.permissions, guild_id=guild_id, channel_id=channel_id
        )


OPERATOR, BLOCKED = 900_000_000_000_000_077, 900_000_000_000_000_066
PEOPLE = {
    "operator": Person(OPERATOR),
    "operator elsewhere": Person(OPERATOR, place=ELSEWHERE),
    "admin": Person(900_000_000_000_000_011, ORDINARY | MANAGE_SERVER),
    "admin elsewhere": Person(900_000_000_000_000_012, ORDINARY | MANAGE_SERVER, ELSEWHERE),
    "member": Person(900_000_000_000_000_013),
    "blocked": Person(BLOCKED),
    "blocked admin": Person(BLOCKED, ORDINARY | MANAGE_SERVER),
    "by DM": Person(900_000_000_000_000_014, place=(None, 1_100_000_000_000_000_099)),
}

PERSON_WHO_MODERATES = Person(MODERATOR, ORDINARY | discord_server.MANAGE_MESSAGES)

# What each command needs, and its options.
EVERYONE: Mapping[str, Mapping[str, Any]] = {"quota": {}, "history": {}, "settings": {"model": "pkz_4"}}
EVERYWHERE: Mapping[str, Mapping[str, Any]] = {"recover": {}, "privacy": {}, "my-data export": {}, "my-data delete": {}}
UNBLOCKED: Mapping[str, Mapping[str, Any]] = {"thumbnail": {"image": PHOTO}}
ADMINS = {f"thumbnail-admin {name}": options for name, options in ADMIN_COMMANDS.items()}
OPERATORS: Mapping[str, Mapping[str, Any]] = {
    "operator status": {},
    "operator pause": {"reason": "a test"},
    "operator resume": {},
    "operator spend": {},
    "operator unknown": {"job": "k3f9", "outcome": "free"},
    "operator block": {"id": SUBJECT, "kind": "member", "reason": "a test"},
    "operator unblock": {"id": SUBJECT, "kind": "member"},
    "operator forget": {"user": SUBJECT},
}
MENUS = ("Make thumbnail",)
COMMANDS = {**EVERYONE, **EVERYWHERE, **UNBLOCKED, **ADMINS, **OPERATORS}

REFUSALS = (
    "You can't use the bot",
    "Only the operator of this bot",
    "Only people with Manage Server",
    "Use this in a server.",
    "That result is no longer available.",
    "Only the person",
)


def expected(command: str, who: str) -> str:
    if who == "by DM":
        return "answered" if command in EVERYWHERE else "refused"
    if command in OPERATORS:
        if who == "operator elsewhere":
            return "unknown"  # Discord has not registered it there
        return "answered" if who == "operator" else "unknown" if who == "admin elsewhere" else "refused"
    if command in ADMINS:
        return "answered" if "admin" in who else "refused"
    if command in UNBLOCKED:
        return "refused" if "blocked" in who else "accepted"
    return "answered"


@dataclass(slots=True)
class Matrix:
    """What came of each attempt; `wrong` has those that differ from what is expected."""

    people: tuple[str, ...]
    rows: dict[str, dict[str, str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def add(self, what: str, who: str, found: str, expected: str) -> None:
        self.rows.setdefault(what, {})[who] = found
        if found != expected:
            self.wrong.append(f"{what} by {who}: {found}, not {expected}")

    def __str__(self) -> str:
        first = max(map(len, self.rows))
        lines = ["".join([" " * first, *(f"  {who:>18}" for who in self.people)])]
        for what, row in self.rows.items():
            lines.append("".join([f"{what:<{first}}", *(f"  {row.get(who, '–'):>18}" for who in self.people)]))
        return "\n".join(lines)


async def test_every_command_is_allowed_to_whom_it_is_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with everyone(tmp_path, monkeypatch) as live:
        tree = live.app.client.tree
        registered = set(names(tree.get_commands()))
        registered |= set(names(tree.get_commands(guild=discord.Object(discord_server.GUILD_ID))))
        assert registered == {*COMMANDS, *MENUS}, "a new command needs a row"
        matrix = Matrix(tuple(PEOPLE))
        await block(live)
        message = live.discord.say("look", user_id=SOMEONE_ELSE, files=(PHOTO,))
        for who, person in PEOPLE.items():
            opened = await live.discord.context_menu(MENUS[0], message, **person.origin)
            found = await outcome(opened)
            matrix.add(MENUS[0], who, found, "refused" if who == "by DM" else "form")
            if opened.modal is not None:
                sent = await outcome(await live.discord.submit(opened, {"prompt": "mine"}, **person.origin))
                matrix.add("  its form", who, sent, "refused" if "blocked" in who else "accepted")
        await live.app.use_case.recovery.idle(20)
        for command, options in COMMANDS.items():
            for who, person in PEOPLE.items():
                found = await slash(live, command, options, person)
                matrix.add(f"/{command}", who, found, expected(command, who))
        await live.app.use_case.recovery.idle(20)
    print(matrix)  # noqa: T201 - for the test report
    assert not matrix.wrong, "\n".join(matrix.wrong)


# --- results ---------------------------------------------------------------------------------------------------------


async def test_every_result_can_be_used_by_whom_it_is_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    people = {name: PEOPLE[name] for name in ("operator", "admin", "member", "blocked", "admin elsewhere", "by DM")}
    people |= {
        "its requester": Person(REQUESTER),
        "moderator": Person(MODERATOR, ORDINARY | discord_server.MANAGE_MESSAGES),
    }
    matrix = Matrix(tuple(people))
    async with everyone(tmp_path, monkeypatch) as live:
        await block(live)
        own = await made(live, SOMEONE_ELSE)  # the message that ids are forged onto
        for what, private in (("public", False), ("private", True)):
            for who, person in people.items():
                result = await made(live, REQUESTER, private=private)
                job = await job_of(live, result)
                for action in ("again", "edit", "form", "info", "share", "delete"):
                    shown = result if person.user_id == REQUESTER or not private else own
                    if who in ("admin elsewhere", "by DM"):
                        shown = own  # nobody can press a button of a message they cannot see
                    found = await press(live, action, job, shown, person)
                    matrix.add(f"{what}: {action}", who, found, of_result(action, who, private=private))
        await live.app.use_case.recovery.idle(20)
    print(matrix)  # noqa: T201
    assert not matrix.wrong, "\n".join(matrix.wrong)


def of_result(action: str, who: str, *, private: bool) -> str:
    """What may come of a button under a result, or of its id forged onto another message."""
    if who in ("admin elsewhere", "by DM") or (private and who != "its requester"):
        return "refused"
    if action in ("edit", "info"):
        return {"edit": "form", "info": "answered"}[action]
    if action == "share":
        return "done" if private else "refused"
    if action == "delete":
        return "done" if who in ("its requester", "moderator") else "refused"
    return "refused" if who == "blocked" else "accepted" if not private else "answered"


# --- reactions and other buttons -------------------------------------------------------------------------------------


async def test_every_reaction_is_for_whom_it_is_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    people = {name: PEOPLE[name] for name in ("operator", "admin", "member", "blocked")}
    people |= {
        "its requester": Person(REQUESTER),
        "moderator": Person(MODERATOR, ORDINARY | discord_server.MANAGE_MESSAGES),
    }
    matrix = Matrix((*people, "a bot"))
    async with everyone(tmp_path, monkeypatch) as live:
        await block(live)
        live.discord.guilds.roles[70] = discord_server.MANAGE_MESSAGES
        live.discord.guilds.members[MODERATOR] = (70,)
        for emoji, name in (("🔁", "again"), ("✉️", "copy"), ("❌", "delete")):
            for who, person in people.items():
                result = await made(live, REQUESTER)
                await live.app.use_case.recovery.idle(20)
                found = await react(live, result, emoji, person)
                matrix.add(f"{emoji} {name}", who, found, of_reaction(name, who))
            result = await made(live, REQUESTER)
            await live.app.use_case.recovery.idle(20)
            await live.discord.react(result, emoji, user_id=8, bot=True)
            after = await react(live, result, "✉️", Person(9))
            nothing = after == "copy" and not live.discord.direct(8) and not result.deleted
            matrix.add(f"{emoji} {name}", "a bot", "nothing" if nothing else after, "nothing")
        await live.app.use_case.recovery.idle(20)
    print(matrix)  # noqa: T201
    assert not matrix.wrong, "\n".join(matrix.wrong)


def of_reaction(name: str, who: str) -> str:
    if name == "again":
        return "refused" if who == "blocked" else "accepted"
    if name == "copy":
        return "copy"
    return "deleted" if who in ("its requester", "moderator") else "nothing"


async def react(live: Live, result: discord_server.Message, emoji: str, person: Person) -> str:
    """What came of a reaction; for nothing, of the copy that the same person asks for after it."""
    calls, told = len(live.api.calls), len(live.discord.direct(person.user_id))

    def found(*, copies: int) -> str | None:
        if result.deleted:
            return "deleted"
        if len(live.api.calls) > calls:
            return "accepted"
        new = live.discord.direct(person.user_id)[told:]
        if any(message.attachments for message in new):
            return "copy" if copies else "nothing"
        return "refused" if new else None

    await live.discord.react(result, emoji, user_id=person.user_id)
    wanted = emoji == "✉️"
    if emoji == "❌" and person.user_id not in (REQUESTER, MODERATOR):  # only an opinion
        await live.discord.react(result, "✉️", user_id=person.user_id)
    await live.discord.wait(lambda _: found(copies=wanted) is not None, 20)
    return found(copies=wanted) or ""


async def test_the_button_that_deletes_data_is_for_the_person_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with everyone(tmp_path, monkeypatch) as live:
        await made(live, REQUESTER)
        await live.app.use_case.recovery.idle(20)
        for who, person in PEOPLE.items():
            asked = await live.discord.slash("my-data delete", **person.origin)
            await asked.wait(lambda i: i.message is not None)
            message = require(asked.message)
            message.components[0]["components"][0]["custom_id"] = f"delete-data:{REQUESTER}"
            clicked = await live.discord.click(message, f"delete-data:{REQUESTER}", **person.origin)
            await clicked.wait(lambda i: i.message is not None and bool(i.message.content))
            assert require(clicked.message).content == "Only the person whose data this is can delete it.", who
        rows = await live.app.storage.database.run("SELECT user_id FROM jobs")
        assert [row["user_id"] for row in rows] == [REQUESTER]


# --- attempts --------------------------------------------------------------------------------------------------------


def everyone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return running(
        folder,
        monkeypatch,
        quota={"member_daily": 1000, "attempts_hourly": 1000},
        operator={"users": [OPERATOR], "server": discord_server.GUILD_ID},
    )


async def block(live: Live) -> None:
    at = live.app.client.services.clock()
    change = Change(OPERATOR, 0, "block", at, target=BLOCKED)
    await live.app.storage.policies.block(
        change,
        Block(guild_id=0, is_server=False, subject=BLOCKED, reason="a test", until=None, actor=OPERATOR, at=at),
    )


def names(commands: Any) -> Iterator[str]:
    for command in commands:
        if isinstance(command, app_commands.Group):
            yield from names(command.commands)
        else:
            yield command.qualified_name if isinstance(command, app_commands.Command) else command.name


async def slash(live: Live, command: str, options: Mapping[str, Any], person: Person) -> str:
    guild_id = person.place[0]
    registered = live.discord._state.commands
    known = [*registered.for_guild(None), *([] if guild_id is None else registered.for_guild(guild_id))]
    if guild_id is not None and command.split(maxsplit=1)[0] not in [one["name"] for one in known]:
        return "unknown"
    return await outcome(await live.discord.slash(command, options=options, **person.origin))


async def press(live: Live, action: str, job: Job, message: discord_server.Message, person: Person) -> str:
    """Press a button, or submit the form, of `job` on a message."""
    name = "edit" if action == "form" else action
    before = message.components[0]["components"][0]["custom_id"]
    message.components[0]["components"][0]["custom_id"] = f"job:{name}:{job.id}"
    try:
        clicked = await live.discord.click(message, f"job:{name}:{job.id}", **person.origin)
        found = await outcome(clicked)
        if action != "form" or clicked.modal is None:
            return found
        return await outcome(await live.discord.submit(clicked, {"prompt": "mine now"}, **person.origin))
    finally:
        if message.components:
            message.components[0]["components"][0]["custom_id"] = before


async def outcome(interaction: discord_server.Interaction) -> str:
    """What came of an attempt."""
    await asyncio.wait_for(interaction.acked.wait(), 10)
    if interaction.modal is not None:
        return "form"
    kind = require(interaction.ack)["type"]
    if kind == 6:  # the deferral of an update
        return "done"
    if kind == 5:  # the deferral of an answer
        return "answered"
    message = require(interaction.message)
    if not message.ephemeral:
        return "accepted"
    return "refused" if message.content.startswith(REFUSALS) else "answered"


async def made(live: Live, user_id: int, **options: Any) -> discord_server.Message:
    return await live.made(user_id=user_id, **options)


async def job_of(live: Live, message: discord_server.Message) -> Job:
    return await live.job(message)
