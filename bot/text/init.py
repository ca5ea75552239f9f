"""What `init` asks and says, and the config.toml that it writes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bot.text.formatting import listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

WELCOME = "This writes the settings of the bot. Press Ctrl-C at any time to leave everything as it is."
QUESTIONS = {
    "discord.token": "Bot token (Bot page at https://discord.com/developers/applications): ",
    "pikzels.api_key": "Pikzels API key (begins with pkz_): ",
    "access.servers": "Ids of the servers that may use the bot, with commas (empty: every server): ",
    "operator.users": "Your own Discord user id, for /operator (empty: no such command): ",
    "operator.server": "Id of the server that has /operator: ",
    "storage.folder": "Folder for the database and the images: ",
    "alerts.webhook": "Discord webhook for alerts (empty: alerts only in the log): ",
}
NEEDED = "This is needed."
NOT_IDS = "Discord ids are numbers, like 123456789012345678."
NOT_ONE_ID = "This needs one id, like 123456789012345678."
ENDED = "The answers ended before everything was asked; nothing was written."


def with_default(question: str, default: object) -> str:
    """`question` ends in a colon and a space."""
    return f"{question[:-2]} (empty: {default}): "


def invalid(problem: str) -> str:
    return f"The answer {problem}."


def already_there(files: Sequence[Path], program: str) -> str:
    named = listed([str(file) for file in files], "and")
    return f"There is already {named}; `{program} init --force` replaces {'it' if len(files) == 1 else 'them'}."


def cannot_write(problem: str) -> str:
    return f"The settings cannot be written ({problem}); nothing was changed."


def written(files: Sequence[Path]) -> str:
    return f"Written, for this user only: {', '.join(str(file) for file in files)}."


def unused(files: Sequence[Path]) -> str:
    """Secrets of earlier settings, which these ones do not name."""
    return f"No longer used, and still there: {', '.join(str(file) for file in files)}."


def next_step(command: str) -> str:
    return f"Invite the bot with the link above, and start it with `{command}`."


def next_step_without_link(command: str) -> str:
    return f"Start the bot with `{command}`. When it is connected, it logs the link to invite it."


def next_step_after_errors(command: str) -> str:
    return f"Correct the errors above, and check again with `{command}`."


def config(answers: Mapping[str, object], secret_files: Mapping[str, Path]) -> str:
    """The text of config.toml. `answers` and `secret_files` have the settings by their dotted names."""
    operator_server = answers.get("operator.server")
    webhook = secret_files.get("alerts.webhook")
    return f"""\
# Written by init. config.example.toml lists every other setting, with its default.

[discord]
# The file that contains the bot's token.
token_file = {_string(secret_files["discord.token"])}

[pikzels]
# The file that contains the API key, which pays for every image.
api_key_file = {_string(secret_files["pikzels.api_key"])}

[storage]
# Folder for the database and undelivered images. Everything worth keeping is in here.
folder = {_string(answers["storage.folder"])}

[access]
# Ids of the servers that may use the bot; in any other it does nothing. Empty: every server may.
servers = {answers["access.servers"]}

[operator]
# Ids of the Discord users who may use /operator.
users = {answers["operator.users"]}
# Id of the server that has /operator. Without it, there is no such command.
{"# server = 0" if operator_server is None else f"server = {operator_server}"}

[alerts]
# The file that contains the URL of a Discord webhook for alerts.
{"# webhook_file = " + _string("secrets/alerts-webhook") if webhook is None else f"webhook_file = {_string(webhook)}"}
"""


def _string(value: object) -> str:
    """A string of TOML, which escapes what JSON escapes, and one character more."""
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
