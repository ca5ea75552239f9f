"""Judges what Discord and Pikzels have answered; pure."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from bot.domain.diagnosis import Answer, Finding, error, ok, warning
from bot.domain.session_starts import SessionStarts
from bot.text import doctor as text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

# Flags of an application: an intent is switched on, for a bot in many servers or in few.
_INTENTS = {
    "Presence Intent": 1 << 12 | 1 << 13,
    "Server Members Intent": 1 << 14 | 1 << 15,
    "Message Content Intent": 1 << 18 | 1 << 19,
}
_SLOW, _WRONG = timedelta(seconds=5), timedelta(minutes=1)
_OK, _UNAUTHORIZED, _PAYMENT, _FORBIDDEN, _NOT_FOUND = 200, 401, 402, 403, 404
_ID_DIGITS = 20  # of 64 bits
_REDIRECTS = range(300, 400)


def judge_discord(
    user: Answer,
    application: Answer,
    gateway: Answer,
    *,
    servers: Collection[int],
    invite_link: Callable[[int], str],
) -> Iterator[Finding]:
    """`servers` are those of the settings that may use the bot."""
    if user.trouble is not None:
        yield error("token", text.unreachable("Discord", user.trouble))
    elif user.status == _UNAUTHORIZED:
        yield error("token", text.token_refused())
    elif user.status != _OK:
        yield warning("token", text.discord_status(user.status))
    elif not _is_id(user.body.get("id")):
        yield error("token", text.not_discord())
    else:
        name, user_id = _shown(user.body.get("username")), _shown(user.body["id"])
        yield ok("token", text.token_accepted(name, user_id, application.body.get("approximate_guild_count")))
        yield from _judge_application(application, servers=servers, invite_link=invite_link)
        yield _judge_gateway(gateway)


def _judge_application(
    application: Answer, *, servers: Collection[int], invite_link: Callable[[int], str]
) -> Iterator[Finding]:
    if application.trouble is not None:
        yield warning("application", text.unreachable("Discord", application.trouble))
        return
    application_id = application.body.get("id")
    if application.status != _OK or not _is_id(application_id):
        yield warning("application", text.discord_status(application.status))
        return
    yield _judge_public(is_public=application.body.get("bot_public") is not False, servers=servers)
    flags = application.body.get("flags")
    names = [name for name, bits in _INTENTS.items() if isinstance(flags, int) and flags & bits]
    yield ok("intents", text.unneeded_intents(names) if names else text.no_intents())
    if application.body.get("bot_require_code_grant") is True:
        yield warning("invite", text.invite_blocked())
    else:
        yield ok("invite", text.invite(invite_link(int(str(application_id)))))


def _judge_public(*, is_public: bool, servers: Collection[int]) -> Finding:
    if not is_public:
        return ok("public", text.private_bot())
    return ok("public", text.public_but_limited(len(servers))) if servers else warning("public", text.public_bot())


def _judge_gateway(gateway: Answer) -> Finding:
    """Whether the bot may connect now."""
    try:
        starts = SessionStarts.of(gateway.body["shards"], gateway.body["session_start_limit"])
    except (LookupError, TypeError, ValueError):
        return warning("connections", text.connections_unknown())
    if starts.allow(starts.shards):
        return ok("connections", text.connections_allowed(starts.shards, starts.remaining, starts.total))
    return warning("connections", text.connections_used_up(starts.remaining, starts.total, starts.reset_after))


def judge_key(answer: Answer, *, base_url: str, on_this_machine: bool) -> Iterator[Finding]:
    """`answer` is that to a question about a persona that nobody has."""
    code = _code(answer)
    if answer.trouble is not None:
        yield error("base URL", text.unreachable(base_url, answer.trouble))
        return
    if answer.status in _REDIRECTS:
        yield error("base URL", text.moved(answer.status))
        return
    if not code and answer.status < 500:  # noqa: PLR2004 - HTTP's faults of a server, which may come from before the API
        yield error("base URL", text.not_the_api(answer.status))
        return
    if on_this_machine:
        yield warning("base URL", text.simulated_api(base_url))
    else:
        yield ok("base URL", text.api_reached(base_url))
    if answer.status in (_UNAUTHORIZED, _FORBIDDEN):
        yield error("key", text.key_refused(code))
    elif answer.status == _PAYMENT:
        yield warning("key", text.balance_empty())
    elif answer.status == _NOT_FOUND:
        yield ok("key", text.key_accepted())
    else:
        yield warning("key", text.key_unknown(answer.status, code))


def judge_webhook(answer: Answer | None) -> Finding:
    """`answer` is that to a question about the webhook; None if none is set."""
    if answer is None:
        return ok("alerts", text.no_webhook())
    if answer.trouble is not None:
        return warning("alerts", text.unreachable("The webhook's server", answer.trouble))
    if answer.status == _OK:
        return ok("alerts", text.webhook_works())
    if answer.status in (_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND):
        return error("alerts", text.webhook_gone())
    return warning("alerts", text.webhook_unknown(answer.status))


def judge_clock(answers: dict[str, Answer]) -> Finding:
    """By the first server that has told the time; whole seconds, for that is all it tells."""
    for server, answer in answers.items():
        if answer.ahead is not None:
            off = abs(answer.ahead)
            if off > _WRONG:
                return error("clock", text.clock_wrong(server, answer.ahead))
            if off > _SLOW:
                return warning("clock", text.clock_wrong(server, answer.ahead))
            return ok("clock", text.clock_right(server, answer.ahead))
    return warning("clock", text.clock_unknown())


def _code(answer: Answer) -> str:
    """The code in the API's error format; empty in any other."""
    problem = answer.body.get("error")
    code = problem.get("code") if isinstance(problem, dict) else None
    return code if isinstance(code, str) and code.replace("_", "").isalnum() and code.isascii() else ""


def _is_id(value: object) -> bool:
    """Discord's ids are numbers in a string."""
    return isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= _ID_DIGITS


def _shown(value: object) -> str:
    """What another server has sent, as a short part of a line."""
    return "".join(letter for letter in str(value) if letter.isprintable())[:64]
