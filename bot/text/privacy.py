"""What is stored about people, and what their export and their deletion say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bot.domain.models import CLAIM_LIFE
from bot.text.formatting import days, images
from bot.text.locales import translator

if TYPE_CHECKING:
    from bot.domain.privacy import RetentionRules

DELETE_BUTTON = "Delete my data"
EXPORT_FILE = "my-data.json"


def notice(rules: RetentionRules, *, locale: str) -> str:
    """What is stored, for how long, and who sees it."""
    _ = translator(locale)
    sources = (
        _("The images you attach, to make a result again: {days} after they were last used.").format(
            days=days(rules.sources)
        )
        if rules.sources
        else _("The images you attach are not kept.")
    )
    return "\n".join(
        (
            _("**What this bot stores about you**"),
            "- "
            + _(
                "Your requests (your user id, server, channel, options and prompt, and what became of them): {days}."
            ).format(days=days(rules.jobs)),
            f"- {sources}",
            "- "
            + _("Finished images, only until they are delivered; for `/recover`, {days}.").format(
                days=days(CLAIM_LIFE)
            ),
            "- "
            + _("What you start in a form, for an hour, and what you choose in your settings, until you change it."),
            "- "
            + _(
                "What admins and the operator decide about you: limits, extra credits, blocks, with who did it. The"
                " record of changes: {days}."
            ).format(days=days(rules.jobs)),
            "- "
            + _("What admins set for a server that the bot has left: {days}.").format(days=days(rules.left_servers)),
            _("**Who sees it**"),
            "- "
            + _(
                "Whoever runs this bot. Admins of a server see who used how much there. The image service gets your"
                " images and your prompt, and not who you are. Nobody else."
            ),
            _("**What you can do**"),
            "- " + _("`/my-data export` gives you all of it. `/my-data delete` deletes it, at once."),
            "- "
            + _(
                "After that, only sums stay: how many credits somebody has used, and whether they are blocked, under a"
                " pseudonym."
            ),
        )
    )


def exported(*, locale: str) -> str:
    return translator(locale)("This is everything the bot stores about you.")


def confirm_deletion(*, waiting: int, locale: str) -> str:
    """Before a deletion: what goes, and what stays."""
    _ = translator(locale)
    kept = (
        " "
        + _("That includes {images} you haven't collected with `/recover`; you won't be charged for them.").format(
            images=images(waiting)
        )
        if waiting
        else ""
    )
    return "\n".join(
        (
            _(
                "**Delete everything the bot stores about you?** Your requests, prompts, settings, forms, and the"
                " images you attached."
            )
            + kept,
            _("This can't be undone. The buttons under your results stop working, and `/history` will be empty."),
            _(
                "**What stays:** messages in Discord, which you can delete there; and, under a pseudonym, how many"
                " credits you have used and whether you are blocked."
            ),
        )
    )


def deleted(*, given_up: int, locale: str) -> str:
    _ = translator(locale)
    lost = " " + _("{images} waiting for `/recover` went with it.").format(images=images(given_up)) if given_up else ""
    return (
        _("Done: the bot no longer stores anything about you.")
        + lost
        + " "
        + _("Your messages in Discord stay until you delete them there.")
    )
