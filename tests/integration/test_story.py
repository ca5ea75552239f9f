"""The life of one result, from the command to its deletion, as the members of a simulated server see it.

simcord supports every step: forms with labels, selects, and a file, reactions without the guilds intent, and the
restart. tests/integration/test_forms.py covers what its members cannot do: submit a form twice or submit one that
somebody else opened (`_submit_modal` refuses both), leave prefilled inputs unchanged (simcord sends omitted inputs as
empty), or use an expired URL (`CdnStore` makes URLs without `ex=`).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import discord

from sandbox import demo, simulated

if TYPE_CHECKING:
    from pathlib import Path

    import simcord

    from bot.domain.models import Job

CAT = ("cat.jpg", demo.PHOTO.read_bytes())


class Story:
    """A simulated server with two members, and a record of what they see after every step."""

    def __init__(self, stage: simulated.SimulatedServer) -> None:
        self.stage = stage
        self.ann, self.ben = stage.member("ann"), stage.member("ben")
        self.lines: list[str] = []

    def visible_to(self, viewer: simcord.MemberActor) -> list[discord.Message]:
        return self.stage.channel.history(viewer=viewer)

    async def record(self, step: str, *, left: tuple[int, int], calls: int) -> None:
        """Record a step and what both members see after it; check their remaining credits and the number of calls."""
        self.lines.append(f"* {step} (left: ann {left[0]}, ben {left[1]}; calls: {calls})")
        assert (await self.left(), len(self.stage.api.calls)) == (left, calls)
        common = {message.id for message in self.visible_to(self.ann)} & {
            message.id for message in self.visible_to(self.ben)
        }
        for viewer in (self.ann, self.ben):
            for message in self.visible_to(viewer):
                if message.id not in common:
                    self.lines.append(f"    only {viewer.name} sees: {_line(message)}")
                elif viewer is self.ann:
                    self.lines.append(f"    {_line(message)}")

    async def job(self, message: discord.Message) -> Job:
        job = await self.stage.app.client.services.results.find_by_message(message.id)
        assert job is not None
        return job

    async def left(self) -> tuple[int, int]:
        """The credits that Ann and Ben have left."""
        ann, ben = [await self.stage.allowance(member) for member in (self.ann, self.ben)]
        return ann.left, ben.left

    def transcript(self) -> str:
        return "\n".join([*self.lines, "", self.stage.env.transcript(), ""])


def _line(message: discord.Message) -> str:
    files = [attachment.filename for attachment in message.attachments]
    reactions = [str(reaction.emoji) for reaction in message.reactions]
    return " | ".join([" ".join(message.content.split()), *files, *_labels(message), *reactions])


def _labels(message: discord.Message) -> list[str]:
    rows = (row for row in message.components if isinstance(row, discord.ActionRow))
    return [child.label or "" for row in rows for child in row.children if isinstance(child, discord.Button)]


async def test_the_life_of_a_result(tmp_path: Path) -> None:
    async with simulated.opened(tmp_path, sections={"quota": {"member_daily": 3}}) as stage:
        story = Story(stage)
        ann, ben, calls = story.ann, story.ben, stage.api.calls

        await ann.slash(stage.channel, "thumbnail", image=CAT, prompt="a cat on the moon")
        await story.record("ann: /thumbnail image:cat.jpg prompt:a cat on the moon", left=(2, 3), calls=1)
        [first] = story.visible_to(ben)
        assert [message.id for message in story.visible_to(ann)] == [first.id]
        made = await story.job(first)
        assert first.content == f"<@{ann.id}> · PKZ 4.5 · 16:9 · 1 credit · #{made.id}\n```\na cat on the moon\n```"
        assert _line(first).endswith(f"| thumbnail-{made.id}.png | Again | Edit | Info | Delete | 🔁")
        assert made.parent_id is None

        await stage.restart()
        await story.record("the bot is restarted", left=(2, 3), calls=1)
        assert [message.id for message in story.visible_to(ben)] == [first.id]

        await ben.react(first, "🔁")
        await story.record("ben: 🔁 on it", left=(2, 2), calls=2)
        [_, second] = story.visible_to(ann)
        again = await story.job(second)
        assert second.reference and second.reference.message_id == first.id  # noqa: PT018 - one fact: which message it replies to
        assert second.content == f"<@{ben.id}> · PKZ 4.5 · 16:9 · 1 credit · #{again.id}\n```\na cat on the moon\n```"
        assert await second.attachments[0].read() != await first.attachments[0].read()
        assert "image_base64" in calls[1].body, "the stored image was sent, so the old URL is not needed"
        assert again.parent_id == made.id

        await ben.unreact(first, "🔁")
        await ben.react(first, "🔁")
        await story.record("ben: 🔁 taken back and given again", left=(2, 2), calls=2)
        assert len(story.visible_to(ben)) == 2

        form = await ann.click(second, label="Edit")
        await stage.restart()
        assert form.modal is not None
        assert form.modal["components"][0]["component"]["value"] == "a cat on the moon"
        await ann.submit_modal(form, {"prompt": "a dog on the moon", "model": ["pkz_4"], "format": ["1:1"]})
        await story.record(
            "ann: Edit on ben's: a dog on the moon, PKZ 4, 1:1, and a restart before she sends it", left=(1, 2), calls=3
        )
        [_, _, third] = story.visible_to(ben)
        edited = await story.job(third)
        assert third.content == f"<@{ann.id}> · PKZ 4 · 1:1 · 1 credit · #{edited.id}\n```\na dog on the moon\n```"
        body = {name: value for name, value in calls[2].body.items() if name != "image_base64"}
        assert body == {"model": "pkz_4", "format": "1:1", "prompt": "a dog on the moon"}
        assert calls[2].body["image_base64"] == calls[1].body["image_base64"]
        assert edited.parent_id == again.id

        refused = await ben.click(third, label="Delete")
        await story.record("ben: Delete on ann's", left=(1, 2), calls=3)
        assert refused.ephemeral
        assert [len(story.visible_to(ann)), len(story.visible_to(ben))] == [3, 4]
        assert "Only the person who requested this image" in story.visible_to(ben)[-1].content

        await ann.click(third, label="Delete")
        await story.record("ann: Delete on her own", left=(1, 2), calls=3)
        assert [message.id for message in story.visible_to(ann)] == [first.id, second.id]
        assert await _charges(stage) == [(ann.id, 1), (ben.id, 1), (ann.id, 1)]
        sys.stdout.write(story.transcript())


async def _charges(stage: simulated.SimulatedServer) -> list[tuple[int, int]]:
    rows = await stage.app.storage.database.run("SELECT user_id, spent FROM entries WHERE kind = 'charge' ORDER BY id")
    return [(row["user_id"], row["spent"]) for row in rows]


async def test_a_private_result_is_shared_and_copied(tmp_path: Path) -> None:
    async with simulated.opened(tmp_path) as stage:
        story = Story(stage)
        await story.ann.slash(stage.channel, "thumbnail", image=CAT, private=True)
        assert story.visible_to(story.ben) == []
        [private] = story.visible_to(story.ann)
        await story.ann.click(private, label="Share")
        [shared] = story.visible_to(story.ben)
        await story.ben.react(shared, "✉️")
        [copy] = story.ben.user.dm_channel.history()
        pictures = {await message.attachments[0].read() for message in (private, shared, copy)}
        assert len(pictures) == 1
        assert len(stage.api.calls) == 1
