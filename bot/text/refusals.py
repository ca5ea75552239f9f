"""Why a request is not accepted: private, before anything is stored."""

from __future__ import annotations

from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

from bot.domain import errors
from bot.domain.models import Circuit, Model
from bot.text import limits
from bot.text.formatting import (
    CONTENT_LENGTH,
    MODELS,
    NOT_CHARGED,
    listed,
    megabytes,
    megapixels,
    quoted,
    relative_time,
)
from bot.text.locales import translator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from typing import Any, TypeAlias

    Translate: TypeAlias = Callable[[str], str]

OPTION_PROBLEMS: Mapping[str, str] = MappingProxyType(
    {
        "wrong_model": "Only {models} supports `{option}`. Choose it, or leave `{option}` out.",
        "unknown_choice": "`{option}` must be {choices}.",
        "wrong_type": "`{option}` must be a PNG, JPEG or WebP image.",
        "unreadable": "`{option}` can't be read as an image. Attach a PNG, JPEG or WebP file.",
        "too_many_pixels": (
            "`{option}` is {width} x {height} pixels ({pixels}); the limit is {max_pixels}."
            " Make it smaller and try again."
        ),
        "not_fetched": "`{option}` couldn't be downloaded. Attach the image again.",
        "not_shrunk": "The bot couldn't make a smaller copy of `{option}`. Make it smaller yourself and try again.",
        "too_large": "`{option}` is {size}; the image service accepts at most {limit}. Make it smaller and try again.",
        "empty": "`{option}` is empty. Attach the image again.",
        "no_address": "`{option}` has no usable URL. Attach the image again.",
        "too_long": "`{option}` is {length} characters long; at most {limit} are allowed.",
        "has_link": '`{option}` can\'t contain a link or the letters "http". Describe it in words instead.',
        "unknown_preset": "`{option}` is neither a name this bot knows nor an id.",
    }
)

# Two of these differ with the facts: several models are plural, and without named presets there is no name to know.
_WRONG_MODELS = "Only {models} support `{option}`. Choose one of them, or leave `{option}` out."
_NO_PRESETS = "`{option}` must be an id like 0b5c6a3e-1d2f-4c3b-9a8d-7e6f5a4b3c2d; this bot has no named ones."

CIRCUITS: Mapping[Circuit, str] = MappingProxyType(
    {
        Circuit.KEY: "The bot is not set up correctly; its operator has been told.",
        Circuit.MOVED: "The image service has moved; the operator has been told.",
        Circuit.BALANCE: "The bot has run out of image credits; its operator has been told.",
        Circuit.MAINTENANCE: "The image service is under maintenance.",
        Circuit.FAILURES: "The image service keeps failing, so requests are paused for now.",
    }
)

NOT_ALLOWED: Mapping[str, str] = MappingProxyType(
    {
        "share": "Only the person who requested this image can share it.",
        "shared": "You've already shared this image.",
        "unknown_share": "This image may have been shared before. Look in the channel, and try again later.",
        "delete": "Only the person who requested this image, or someone with Manage Messages, can delete it.",
        "cancel": "Only the person who requested this image, or someone with Manage Messages, can cancel it.",
        "shrink": "Only the person who attached this image can use this button.",
        "shrunk": "You've already used this button.",
        "no_server": "Use this in a server.",
        "operator": "Only the operator of this bot can do that.",
        "id": "That isn't an id of Discord. Copy it from the menu of a user or a server.",
        "in_progress": "Some of your requests are still in progress. Try again when they have finished.",
        "delete_data": "Only the person whose data this is can delete it.",
        "unfinished": "This image isn't finished yet.",
        "started": "Already generating; it can't be cancelled.",
        "crowded": "Several are already in progress. Try again when they finish.",
        "failing": "A request like this has just failed. Try again in a minute.",
        "admin": "Only people with Manage Server can use this command.",
    }
)
SETTING_PROBLEMS: Mapping[str, str] = MappingProxyType(
    {
        "amount": "A limit is a whole number of credits from 0 to 10,000,000, `no limit`, or `remove`.",
        "limit_target": "Choose whose limit to set: exactly one of `member`, `role`, and `whose`.",
        "limit_amount": "Set `day`, `month`, or both.",
        "preset_id": "An id looks like 0b5c6a3e-1d2f-4c3b-9a8d-7e6f5a4b3c2d. Nothing was added.",
        "preset_name": "A name needs at least one visible character. Nothing was added.",
        "no_preset": "There is no preset with that name in this server.",
        "too_many": "This server has as many of these as it may have. Remove one first.",
    }
)
_COULD_COST = ("crowded", "failing")  # the only ones of these that answer a request for an image


def refusal(error: errors.RequestRejected, *, now: datetime, locale: str) -> str:
    """Why, and whether it cost anything."""
    _ = translator(locale)
    sentence = REFUSALS.get(type(error))
    said = sentence(error, now, _) if sentence else _("This request couldn't be accepted.")
    return f"{said} {_(NOT_CHARGED)}" if _could_cost(error) else said


def _could_cost(error: errors.RequestRejected) -> bool:
    """Whether the refusal answers a request for an image."""
    if isinstance(error, errors.NotAllowed):
        return error.problem in _COULD_COST
    return not isinstance(error, errors.InvalidSetting)


def _too_many_active(error: errors.TooManyActiveJobs, _now: datetime, _: Translate) -> str:
    if error.limit == 1:
        return _("One of your requests is still in progress. Try again when it finishes.")
    return _("{count} of your requests are still in progress. Try again when one finishes.").format(count=error.limit)


def _source_expired(error: errors.SourceExpired, _now: datetime, _: Translate) -> str:
    if error.option == "reference":
        return _("The reference image of this result is no longer stored. Attach it again with /thumbnail or Edit.")
    return _("The image this result started from is no longer stored. Attach it again with /thumbnail or Edit.")


def _circuit_open(error: errors.CircuitOpen, now: datetime, _: Translate) -> str:
    said = _(CIRCUITS[error.circuit])
    if error.until is None:
        return said
    soonest = max(error.until, now + timedelta(seconds=1))
    return f"{said} {_('Try again {time}.').format(time=relative_time(soonest))}"


def _blocked(error: errors.Blocked, _now: datetime, _: Translate) -> str:
    block = error.block
    if block.is_server:
        said = _("This server can't use the bot.")
    elif block.guild_id:
        said = _("You can't use the bot in this server.")
    else:
        said = _("You can't use the bot.")
    until = "" if block.until is None else " " + _("This ends {time}.").format(time=relative_time(block.until))
    return f"{said}{until} {_('Reason: {reason}').format(reason=quoted(block.reason))}"


def _too_new(error: errors.TooNew, _now: datetime, _: Translate) -> str:
    sentence = {
        "account": _("Your Discord account is too new to use this bot. Try again {time}."),
        "member": _("You joined this server too recently to use this bot. Try again {time}."),
    }[error.what]
    return sentence.format(time=relative_time(error.until))


def _channel_not_allowed(error: errors.ChannelNotAllowed, _now: datetime, _: Translate) -> str:
    channels = listed([f"<#{channel}>" for channel in error.channels], "or")
    return _("Results can't be posted in this channel. Use {channels}, or set `private`.").format(channels=channels)


def option_problem(error: errors.InvalidOption, _: Translate) -> str:
    """What is wrong with an option, without what it cost."""
    facts = error.facts
    models = facts.get("models")
    sentence = OPTION_PROBLEMS[error.problem]
    if error.problem == "unknown_preset" and not facts.get("known"):
        sentence = _NO_PRESETS
    elif isinstance(models, tuple) and len(models) > 1:
        sentence = _WRONG_MODELS
    shown = {name: _fact(name, value) for name, value in facts.items()}
    return _(sentence).format(option=error.option, **shown)


def _fact(name: str, value: object) -> str:
    if isinstance(value, tuple):
        names = [MODELS[item] if isinstance(item, Model) else str(item) for item in value]
        return listed(names, "and" if name == "models" else "or")
    if name in ("pixels", "max_pixels") and isinstance(value, int):
        return megapixels(value)
    if name in ("size", "limit") and isinstance(value, int) and value > CONTENT_LENGTH * 10:
        return megabytes(value)
    return str(value)


def _queue_full(error: errors.QueueFull, _now: datetime, _: Translate) -> str:
    return _("{count} requests are already waiting. Try again in a few minutes.").format(count=error.length)


REFUSALS: Mapping[type[errors.RequestRejected], Callable[[Any, datetime, Translate], str]] = MappingProxyType(
    {
        errors.InvalidOption: lambda error, _now, _: option_problem(error, _),
        errors.QuotaExceeded: lambda error, _now, _: limits.exceeded(error, _),
        errors.Blocked: _blocked,
        errors.TooNew: _too_new,
        errors.ChannelNotAllowed: _channel_not_allowed,
        errors.ServerNotAllowed: lambda _error, _now, _: _("This bot isn't available in this server."),
        errors.Paused: lambda error, _now, _: _("The bot is paused: {reason}").format(reason=quoted(error.why)),
        errors.QueueFull: _queue_full,
        errors.TooManyActiveJobs: _too_many_active,
        errors.CircuitOpen: _circuit_open,
        errors.SourceExpired: _source_expired,
        errors.NotAllowed: lambda error, _now, _: _(NOT_ALLOWED[error.problem]),
        errors.InvalidSetting: lambda error, _now, _: _(SETTING_PROBLEMS[error.problem]),
        errors.StorageUnavailable: lambda _error, _now, _: _(
            "The bot can't accept requests at the moment; its operator has been told. Try again later."
        ),
        errors.Cancelled: lambda _error, _now, _: _("Cancelled."),
        errors.Restarting: lambda _error, _now, _: _("The bot is restarting. Try again in a minute."),
        errors.ResultGone: lambda _error, _now, _: _(
            "That result is no longer available. Start again with /thumbnail."
        ),
        errors.NoImageFound: lambda _error, _now, _: _("That message has no image."),
        errors.ChannelNotWritable: lambda _error, _now, _: _("The bot can't post in that channel."),
    }
)


def balance_is_back(channel_id: int, *, locale: str) -> str:
    """To somebody who was refused while the provider's balance was empty."""
    _ = translator(locale)
    return _("The bot has image credits again. You can try again in {channel}.").format(channel=f"<#{channel_id}>")
