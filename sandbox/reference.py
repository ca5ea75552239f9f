"""Writes docs/configuration.md and docs/commands.md from what the program has: `python -m sandbox.reference`."""

from __future__ import annotations

import asyncio
import re
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import discord
from discord import app_commands
from pydantic import BaseModel

from bot.config import Settings
from sandbox import simulated

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TypeAlias

    _Leaf: TypeAlias = app_commands.Command[Any, ..., Any]
    _Command: TypeAlias = _Leaf | app_commands.Group | app_commands.ContextMenu

ROOT = Path(__file__).parents[1]
CONFIGURATION, COMMANDS = ROOT / "docs" / "configuration.md", ROOT / "docs" / "commands.md"
_EXAMPLE = ROOT / "config.example.toml"
_GENERATED = "<!-- Written by `python -m sandbox.reference`. -->"

_CONFIGURATION = """# Configuration

Settings are read from environment variables and from a TOML file: a variable overrides the file,
and the file overrides the default. The file is `config.toml` in the folder where the bot is
started, or the one named by `--config` or `BOT_CONFIG`.

A relative path in a setting, like `token_file` or `folder`, starts at the folder where the bot is
started, wherever the file with the settings is. Use absolute paths if the two differ.

A variable is `BOT_`, the section, two underscores, and the name: `BOT_PIKZELS__TIMEOUT=120` sets
`timeout` in `[pikzels]`. For lists and tables, its value is JSON. A secret can be in a file of its
own: add `_file` to the name, or `_FILE` to the variable. A `~` at the beginning of the
name of a file or folder is your home folder.

An invalid setting stops startup before anything is opened. Changes apply at the next start.
"""

_COMMANDS = """# Commands

Everything that the bot offers in Discord. A command whose name has two or more words is a
subcommand. Options in **bold** are required.
"""

_PICTURES = {  # by `python -m sandbox.screenshots`
    "thumbnail": "![One request is generated, and another one waits, with Cancel](images/progress.webp)",
    "history": "![Three results with their images, and Again and Edit for each](images/history.webp)",
    "quota": "![How many credits are used and left, and when they reset](images/quota.webp)",
    "operator status": "![The queue, the budgets, the unknown outcomes, and the backup](images/operator.webp)",
}
_EVERYONE = "everyone"
_WIDTH = 100


def configuration() -> str:
    """The page about the settings: each section, and each setting with its default and what it does."""
    sections = [f"## `[{name}]`\n\n{_purpose(name)}\n\n{_table(rows)}" for name, rows in _settings()]
    return "\n\n".join([_GENERATED, _CONFIGURATION.strip(), *sections]) + "\n"


def _purpose(section: str) -> str:
    annotation: Any = Settings
    for name in section.split("."):
        annotation = annotation.model_fields[name].annotation
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return textwrap.fill(annotation.__doc__ or "", _WIDTH) if is_section else "A table of names, one per line."


def _settings() -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Each section of the example with its settings: name, default, and comment."""
    section, rows, comment = "", list[tuple[str, str, str]](), list[str]()
    for line in [*_EXAMPLE.read_text("utf-8").splitlines(), "[end]"]:
        if found := re.fullmatch(r"\[(.+)\]", line):
            if section:
                yield section, rows
            section, rows, comment = found[1], [], []
        elif found := re.fullmatch(r"(# )?(\w+) = (.*)", line):
            is_optional = found[1] is not None
            rows.append((found[2], "" if is_optional else found[3], " ".join(comment)))
            comment = []
        elif line.startswith("# "):
            comment.append(line[2:])
        else:
            comment = []


def _table(rows: Iterable[tuple[str, str, str]]) -> str:
    lines = [f"| `{name}` | {f'`{default}`' if default else '–'} | {text} |" for name, default, text in rows]
    return "\n".join(("| setting | default | what it does |", "|---|---|---|", *lines))


async def commands() -> str:
    """The page about the commands: each with its options, and who may use it."""
    with tempfile.TemporaryDirectory() as folder:
        async with simulated.opened(Path(folder)) as server:
            await server.operator("operator")
            tree, guild = server.app.client.tree, discord.Object(server.guild.id)
            everywhere, of_operator = tree.get_commands(), tree.get_commands(guild=guild)
    parts = [_described(command, _who(command)) for command in sorted(everywhere, key=_order)]
    parts += [_described(command, "you, in the server of `[operator]`") for command in of_operator]
    return "\n\n".join([_GENERATED, _COMMANDS.strip(), *parts]) + "\n"


def _order(command: _Command) -> tuple[bool, bool, str]:
    return isinstance(command, app_commands.Group), isinstance(command, app_commands.ContextMenu), command.name


def _who(command: _Command) -> str:
    needed = command.default_permissions
    if needed is None:
        return _EVERYONE
    names = (name.replace("_", " ").title() for name, is_needed in needed if is_needed)
    return ", ".join(names).replace("Guild", "Server")  # Discord's name for a guild


def _described(command: _Command, who: str) -> str:
    if isinstance(command, app_commands.ContextMenu):
        return f"## Message → Apps → {command.name}\n\nFor {who}."
    if isinstance(command, app_commands.Group):
        inside = "\n\n".join(_body(each, level="###") for each in _leaves(command))
        return f"## /{command.name}\n\n{command.description}. For {who}.\n\n{inside}"
    return f"{_body(command, level='##')}\n\nFor {who}."


def _leaves(group: app_commands.Group) -> Iterator[_Leaf]:
    for command in group.commands:
        if isinstance(command, app_commands.Group):
            yield from _leaves(command)
        else:
            yield command


def _body(command: _Leaf, *, level: str) -> str:
    head = f"{level} /{command.qualified_name}\n\n{command.description}."
    if command.qualified_name in _PICTURES:
        head = f"{head}\n\n{_PICTURES[command.qualified_name]}"
    if not command.parameters:
        return head
    rows = [
        f"| {_option(parameter)} | {parameter.description}{_choices(parameter)} |" for parameter in command.parameters
    ]
    return "\n".join((head, "", "| option | what it is |", "|---|---|", *rows))


def _option(parameter: app_commands.Parameter) -> str:
    return f"**`{parameter.display_name}`**" if parameter.required else f"`{parameter.display_name}`"


def _choices(parameter: app_commands.Parameter) -> str:
    return f": {', '.join(choice.name for choice in parameter.choices)}" if parameter.choices else ""


def main() -> None:
    CONFIGURATION.write_text(configuration(), "utf-8")
    COMMANDS.write_text(asyncio.run(commands()), "utf-8")


if __name__ == "__main__":
    main()
