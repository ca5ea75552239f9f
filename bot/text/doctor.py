"""What `doctor` says about each check: what was found and, unless all is well, what to do. No secrets."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING

from bot.domain.diagnosis import Trouble
from bot.text.formatting import listed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta
    from pathlib import Path

    from bot.domain.diagnosis import Finding, Obstacle

_PORTAL = "https://discord.com/developers/applications"
_TROUBLES = {
    Trouble.NAME: "its name cannot be resolved; check the network and DNS",
    Trouble.CERTIFICATE: "its certificate is not valid; check the clock, and whether something intercepts connections",
    Trouble.TIMEOUT: "it did not answer in time; check the network and the firewall",
    Trouble.CONNECTION: "there is no connection; check the network and the firewall",
    Trouble.ANSWER: "its answer is not HTTP as expected; check what is between this machine and the internet",
}
_MOST_SHOWN = 3
_KEY_REFUSALS = {
    "API_ACCESS_NOT_ENABLED": "the account has no access to the API; enable it on the Pikzels platform",
    "ACCOUNT_SUSPENDED": "the account is suspended; contact Pikzels",
    "API_KEY_INACTIVE": "the key is inactive; activate it on the Pikzels platform, or set another one",
    "API_KEY_DELETED": "the key was deleted; create another one on the Pikzels platform",
}


LINK_TO_NOWHERE = "it is a link to what does not exist"


def line(finding: Finding) -> str:
    return f"{finding.severity:<8} {finding.name:<12} {finding.text}"


# --- settings --------------------------------------------------------------------------------------------------------


def invalid_setting(setting: str, problem: str) -> str:
    return f"Setting {setting} {problem}."


def settings_valid(file: Path | None) -> str:
    return "All settings are valid" + (f", those in {file} included." if file else "; there is no config.toml.")


def short_ids(ids: Sequence[int]) -> str:
    shown = [str(number) for number in ids[:_MOST_SHOWN]] + (["others"] if len(ids) > _MOST_SHOWN else [])
    return f"Nothing in Discord has such short ids: {listed(shown, 'and')}; correct [access], [operator], or [quota]."


def readable_secrets(file: Path, mode: int) -> str:
    command = f"chmod 600 {shlex.quote(str(file))}"
    return f"{file} contains secrets, and its mode {mode:04o} lets other users read it; run `{command}`."


def shared_secret(file: Path, mode: int | None) -> str:
    command = f"chmod o= {shlex.quote(str(file))}"
    return f"Every user can read the secret in {file}, whose mode is {mode or 0:04o}; run `{command}`."


# --- Discord ---------------------------------------------------------------------------------------------------------


def unreachable(server: str, trouble: Trouble) -> str:
    return f"{server} cannot be reached: {_TROUBLES[trouble]}."


def token_refused() -> str:
    return f"Discord refuses the token; reset it on the Bot page at {_PORTAL}, and set [discord] token."


def not_discord() -> str:
    return "What answers in Discord's place is not Discord; check what is between this machine and the internet."


def discord_status(status: int) -> str:
    return f"Discord answered with status {status}, which says nothing about the token; try again in some minutes."


def token_accepted(name: str, user_id: str, servers: object) -> str:
    where = f", in about {_servers(servers)}" if isinstance(servers, int) else ""
    return f"Discord knows the bot as {name} ({user_id}{where})."


def public_bot() -> str:
    return (
        f"Anybody can invite the bot and spend your credits; switch Public Bot off on the Bot page at {_PORTAL},"
        " or name your servers in [access] servers."
    )


def public_but_limited(servers: int) -> str:
    return f"Anybody can invite the bot, but it works only in the {_servers(servers)} of [access] servers."


def private_bot() -> str:
    return "Only the application's owner can invite the bot."


def _servers(count: int) -> str:
    return "1 server" if count == 1 else f"{count} servers"


def operator_complete() -> str:
    return "The operators have /operator in their server."


def no_operator() -> str:
    return "Nobody has /operator, because [operator] is not set; see the README for what it does."


def operator_incomplete(missing: str) -> str:
    return f"Nobody has /operator until [operator] {missing} is set too."


def unneeded_intents(names: Sequence[str]) -> str:
    return f"The bot needs no privileged intent; switch {listed(names, 'and')} off on the Bot page at {_PORTAL}."


def no_intents() -> str:
    return "No privileged intent is switched on, and the bot needs none."


def invite(link: str) -> str:
    return f"This link invites the bot with the fewest permissions it needs: {link}"


def invite_blocked() -> str:
    return f"No link invites the bot until Requires OAuth2 Code Grant is switched off on the Bot page at {_PORTAL}."


def connections_allowed(shards: int, remaining: int, total: int) -> str:
    number = "one connection" if shards == 1 else f"{shards} connections"
    return f"Discord recommends {number}, and allows {remaining} of {total} new ones today."


def connections_used_up(remaining: int, total: int, reset_after: timedelta) -> str:
    minutes = math.ceil(reset_after.total_seconds() / 60)
    return (
        f"Only {remaining} of {total} new connections to Discord are left, so the bot waits {minutes} minutes until"
        " Discord counts anew; find out what has started the bot so often."
    )


def connections_unknown() -> str:
    return "Discord does not say how many connections the bot may open; try again in some minutes."


# --- Pikzels ---------------------------------------------------------------------------------------------------------


def key_accepted() -> str:
    return "Pikzels accepts the key; asking cost nothing, and the balance is shown only on the Pikzels platform."


def key_refused(code: str) -> str:
    reason = _KEY_REFUSALS.get(code, "check [pikzels] api_key against the Pikzels platform")
    return f"Pikzels refuses the key ({code}): {reason}."


def balance_empty() -> str:
    return "Pikzels accepts the key, but the balance is empty; add credits on the Pikzels platform."


def key_unknown(status: int, code: str) -> str:
    answer = f"{status} {code}".strip()
    return f"Pikzels answered with {answer}, which says nothing about the key; try again in some minutes."


def not_the_api(status: int) -> str:
    return f"What answers (status {status}) is not the API of Pikzels; correct [pikzels] base_url."


def moved(status: int) -> str:
    return f"The API answers with a redirect ({status}), which the bot never follows; correct [pikzels] base_url."


def api_reached(base_url: str) -> str:
    return f"The API answers at {base_url}."


def simulated_api(base_url: str) -> str:
    return (
        f"The API at {base_url} is on this machine, so it is a simulation; remove [pikzels] base_url for real images."
    )


# --- alerts ----------------------------------------------------------------------------------------------------------


def no_webhook() -> str:
    return "Alerts appear only in the log, because [alerts] webhook is not set."


def webhook_works() -> str:
    return "Discord knows the webhook."


def webhook_gone() -> str:
    return "Discord does not know the webhook; create another one in your channel's settings, and set [alerts] webhook."


def webhook_unknown(status: int) -> str:
    return f"Discord answered with status {status}, which says nothing about the webhook; try again in some minutes."


# --- the machine -----------------------------------------------------------------------------------------------------


def clock_right(server: str, ahead: timedelta) -> str:
    seconds = abs(ahead.total_seconds())
    return f"The clock agrees with that of {server}" + (f" to {seconds:.0f} s." if seconds >= 1 else ".")


def clock_wrong(server: str, ahead: timedelta) -> str:
    seconds = ahead.total_seconds()
    way = "ahead of" if seconds > 0 else "behind"
    return (
        f"The clock is {abs(seconds):.0f} s {way} that of {server}; synchronize it (NTP), or days begin at wrong times."
    )


def clock_unknown() -> str:
    return "Nobody has told the time, so the clock could not be checked."


def folder_usable(folder: Path) -> str:
    return f"{folder} can be written."


def folder_new(folder: Path) -> str:
    return f"{folder} does not exist yet; the bot will create it."


def folder_unusable(obstacle: Obstacle) -> str:
    return f"{obstacle.path} cannot be written ({obstacle.problem}); {_remedy(obstacle)}, or set [storage] folder."


def _remedy(obstacle: Obstacle) -> str:
    return "create what it links to" if obstacle.leads_nowhere else "correct its owner"


def denied(problem: str, mode: int | None, owner: int | None) -> str:
    """`problem` in the words of the operating system."""
    return problem.lower() + ("" if mode is None else f"; its mode is {mode:04o}, its owner is user {owner}")


def backups_written(folder: Path) -> str:
    return f"Backups are written to {folder}."


def backups_off() -> str:
    return "Backups are made only by the command `backup`, because [backup] minutes is 0."


def backups_unreadable(folder: Path, mode: int | None, owner: int | None) -> str:
    why = denied("permission denied", mode, owner)
    return f"The backups in {folder} cannot be read ({why}); correct its owner, or set [backup] folder."


def backups_unwritable(obstacle: Obstacle) -> str:
    return (
        f"No backup can be made, because {obstacle.path} cannot be written ({obstacle.problem});"
        f" {_remedy(obstacle)}, or set [backup] folder."
    )


def local_disk(kind: str | None) -> str:
    return (
        f"The folder is on a local disk ({kind})." if kind else "Which kind of disk the folder is on is not known here."
    )


def network_disk(kind: str) -> str:
    return (
        f"The folder is on a network disk ({kind}), which can damage a database; set [storage] folder to a local one."
    )


def disk_in_memory(kind: str) -> str:
    return f"The folder is in memory ({kind}) and lost at a restart of the machine; set [storage] folder to a disk."


def disk_of_a_container(kind: str) -> str:
    return f"The folder belongs to the container ({kind}) and is lost with it; mount a volume there."


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"  # noqa: PLR2004 - a gigabyte


def space(free: int) -> str:
    return f"{_size(free)} are free."


def little_space(free: int, wanted: int) -> str:
    return f"Only {_size(free)} are free; make room for {_size(wanted)}, or lower [storage] source_megabytes."


def database_new() -> str:
    return "There is no database yet; the bot will create it."


def database_usable(version: int, newest: int, *, in_use: bool) -> str:
    state = "in use: the bot is running" if in_use else "not in use"
    upgrade = "" if version == newest else f"; the next start upgrades it to {newest}, so back it up first"
    return f"The database has schema {version}, and is {state}{upgrade}."


def database_unusable(problem: str) -> str:
    return f"The database {problem}."


def database_damaged(problem: str) -> str:
    problem = " ".join(problem.split())  # SQLite's has several lines
    return f"The database is damaged ({problem}); restore a backup with the command `restore`."


def database_denied(file: Path, mode: int | None, owner: int | None) -> str:
    why = denied("permission denied", mode, owner)
    return f"{file} cannot be read and written by this user ({why}); correct its owner or mode."


def no_health() -> str:
    return "Health and metrics are not served, because [health] port is not set."


def health_served(host: str, port: int) -> str:
    return f"Port {port} on {host} is free for health and metrics."


def health_in_use(host: str, port: int) -> str:
    return f"The running bot serves health and metrics on port {port} of {host}."


def sqlite_fine(version: str, *, has_reset_bug: bool) -> str:
    note = "; its WAL-reset bug does not matter here, because the bot has a single connection" if has_reset_bug else ""
    return f"SQLite {version} is new enough{note}."


def sqlite_old(version: str, least: str) -> str:
    return f"SQLite {version} is too old for the database; use a Python with SQLite {least} or newer."


def sqlite_unsafe(version: str) -> str:
    return f"SQLite {version} was built without threads; use a Python whose SQLite is thread-safe."


def python_fine(version: str) -> str:
    return f"Python {version} is new enough."


def python_old(version: str, least: str) -> str:
    return f"Python {version} is too old; use Python {least} or newer."


def packages_locked(count: int) -> str:
    return f"All {count} packages have the versions of requirements/run.lock."


def packages_unlocked() -> str:
    return "There is no requirements/run.lock beside the program to compare the packages with."


def packages_differ(differences: Sequence[tuple[str, str, str | None]]) -> str:
    shown = ", ".join(f"{name} {found or 'missing'} instead of {wanted}" for name, wanted, found in differences[:3])
    more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""  # noqa: PLR2004 - as many as are shown
    return f"Packages differ from requirements/run.lock ({shown}{more}); install them with `make install`."


def charts(*, drawn: bool) -> str:
    if drawn:
        return "matplotlib draws the picture of /thumbnail-admin usage."
    return (
        "matplotlib is not installed, so /thumbnail-admin usage answers with a table; requirements/charts.lock has it."
    )


def charts_need_a_folder() -> str:
    return "matplotlib finds no folder that it can write, so it draws nothing; set the variable MPLCONFIGDIR to one."


def names_written() -> str:
    return "That picture has fonts for Chinese, Japanese, and Korean names."


def names_not_written(scripts: Sequence[str]) -> str:
    return (
        f"No font has {listed(scripts, 'or')}, so that picture shows such members by the end of their id; install one"
        " if you have any (on Debian, the package fonts-noto-cjk), and restart the bot."
    )


def formats_readable() -> str:
    return "Pillow reads PNG, JPEG, and WebP."


def formats_missing(names: Sequence[str]) -> str:
    return f"Pillow was built without {listed(names, 'and')}; install the Pillow of requirements/run.lock."


def time_zone(name: str) -> str:
    return f"The time zone {name} is known."


def time_zones_missing() -> str:
    return "There are no time zones; install the package tzdata."
