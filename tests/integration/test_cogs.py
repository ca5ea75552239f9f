"""The slash commands as members use them in the simulated Discord."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from sandbox import demo, simulated
from sandbox.pikzels_server.replies import Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import simcord

IMAGE = ("cat.jpg", demo.PHOTO.read_bytes())
PERSONA = "0b5c6a3e-1d2f-4c3b-9a8d-7e6f5a4b3c2d"
STYLE = "1b5c6a3e-1d2f-4c3b-9a8d-7e6f5a4b3c2d"


@asynccontextmanager
async def simulation(folder: Path) -> AsyncIterator[simulated.SimulatedServer]:
    """A context manager and not a fixture, because simcord must be exited in the context that entered it."""
    sections: dict[str, dict[str, Any]] = {
        "personas": {"Ann": PERSONA, "Andrew": PERSONA},
        "quota": {"member_daily": 3},
    }
    async with simulated.opened(folder, sections=sections) as opened:
        yield opened


async def left(simulated: simulated.SimulatedServer, member: simcord.MemberActor) -> int:
    return (await simulated.allowance(member)).left


async def private_answer(simulated: simulated.SimulatedServer, member: simcord.MemberActor, **options: Any) -> str:
    """Use /thumbnail; return the text of its private answer."""
    answer = await member.slash(simulated.channel, "thumbnail", **{"image": IMAGE, **options})
    assert answer.ephemeral
    assert answer.response is not None
    return answer.response.content


async def test_every_option_reaches_the_provider_under_its_contract_name(tmp_path: Path) -> None:
    async with simulation(tmp_path) as simulated:
        ann = simulated.member("ann")
        await ann.slash(
            simulated.channel,
            "thumbnail",
            image=IMAGE,
            model="pkz_4",
            format="9:16",
            prompt="a\ncat",
            reference=("second.png", IMAGE[1]),
            persona="ann",
            style=STYLE.upper(),
        )
        await ann.slash(simulated.channel, "thumbnail", image=IMAGE, model="pkz_2", format="1:1", weight="high")
        first, second = (call.body for call in simulated.api.calls)
        assert first.pop("image_url").endswith("/cat.jpg")
        assert first.pop("support_image_url").endswith("/second.png")
        assert first == {"model": "pkz_4", "format": "9:16", "prompt": "a cat", "persona": PERSONA, "style": STYLE}
        assert second.pop("image_url").endswith("/cat.jpg")
        assert second == {"model": "pkz_2", "format": "1:1", "image_weight": "high"}
        assert simulated.message().attachments[0].filename.startswith("thumbnail-")


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "a text file": ({"image": ("a.txt", b"hello")}, "`image` must be a PNG, JPEG or WebP image."),
    "a link": ({"prompt": "like HTTPS://x.y"}, "`prompt` can't contain a link"),
    "a reference for pkz_3": ({"model": "pkz_3", "reference": IMAGE}, "Only PKZ 4 and PKZ 4.5 support `reference`"),
    "a weight for pkz_4": ({"model": "pkz_4", "weight": "low"}, "Only PKZ 2 supports `weight`"),
    "an unknown persona": ({"persona": "nobody"}, "`persona` is neither a name this bot knows nor an id."),
    "an unknown style": ({"style": "nothing"}, "`style` must be an id like"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_an_invalid_option_is_refused_in_private_without_a_call_or_a_charge(tmp_path: Path, name: str) -> None:
    async with simulation(tmp_path) as simulated:
        options, expected = REFUSALS[name]
        ann = simulated.member("ann")
        answer = await private_answer(simulated, ann, **options)
        assert expected in answer
        assert answer.endswith("You were not charged.")
        assert (simulated.api.calls, await left(simulated, ann)) == ([], 3)


async def test_a_pkz_2_result_says_that_the_prompt_is_ignored(tmp_path: Path) -> None:
    async with simulation(tmp_path) as simulated:
        ann = simulated.member("ann")
        await ann.slash(simulated.channel, "thumbnail", image=IMAGE, model="pkz_2", prompt="a cat")
        assert "ignores the prompt" in simulated.message().content


async def test_personas_are_offered_by_name(tmp_path: Path) -> None:
    async with simulation(tmp_path) as simulated:
        ann = simulated.member("ann")
        offered = await ann.autocomplete(simulated.channel, "thumbnail", "persona", "an")
        assert [choice["name"] for choice in offered] == ["Andrew", "Ann"]


async def test_the_quota_is_shown_counted_and_enforced_across_a_restart(tmp_path: Path) -> None:
    async with simulation(tmp_path) as simulated:
        ann, ben = simulated.member("ann"), simulated.member("ben")
        for _ in range(2):
            await ann.slash(simulated.channel, "thumbnail", image=IMAGE)
        await simulated.restart()
        await ann.slash(simulated.channel, "thumbnail", image=IMAGE)
        assert "You have used 3 of 3 credits today" in await private_answer(simulated, ann)
        answer = await ann.slash(simulated.channel, "quota")
        assert answer.ephemeral
        assert answer.response is not None
        assert answer.response.content.startswith("▰▰▰▰▰▰▰▰▰▰ You, today: 3 of 3 credits used, **0 left**. Resets <t:")
        assert await left(simulated, ben) == 3


async def test_a_failure_is_shown_on_the_public_message_with_the_job_id(tmp_path: Path) -> None:
    async with simulation(tmp_path) as simulated:
        simulated.api.always(Reply.error("GENERATION_REJECTED"))
        ann = simulated.member("ann")
        await ann.slash(simulated.channel, "thumbnail", image=IMAGE)
        assert simulated.message().content.startswith(f"<@{ann.id}> The image service could not work")
        assert "You were not charged. · #" in simulated.message().content
        assert await left(simulated, ann) == 3


async def test_an_internal_error_is_still_answered_and_costs_nothing(tmp_path: Path) -> None:
    async with simulation(tmp_path) as simulated:
        simulated.env.inject_error("POST", "/interactions/*/*/callback", status=400, code=50035, times=1)
        ann = simulated.member("ann")
        assert "You were not charged." in await private_answer(simulated, ann)
        assert await left(simulated, ann) == 3


async def test_no_payload_to_discord_allows_a_mention(tmp_path: Path) -> None:
    async with simulation(tmp_path) as simulated:
        ann = simulated.member("ann")
        await ann.slash(simulated.channel, "thumbnail", image=IMAGE, prompt="@everyone look")
        sent = [one.json for one in simulated.env.http_requests if isinstance(one.json, dict)]
        bodies = [body.get("data", body) for body in sent]
        texts = [body for body in bodies if "content" in body]
        assert len(texts) == 2
        assert all(body["allowed_mentions"] == {"parse": []} for body in texts)
