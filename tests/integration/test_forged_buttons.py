"""A client can send any button id on any message: it must not change what others see."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.e2e import running

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def test_a_history_button_on_a_public_message_leaves_the_message_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, monkeypatch) as live:
        result = await live.made()
        job = await live.job(result)
        forged = f"history:older:{job.id}"
        result.components[0]["components"][0]["custom_id"] = forged
        before = (result.content, result.filenames)
        clicked = await live.discord.click(result, forged, user_id=2)
        await clicked.wait(lambda i: i.message is not None or bool(i.followups), 10)
        assert clicked.message is not None
        assert clicked.message.ephemeral
        assert clicked.message.content.startswith("That result is no longer available.")
        assert (result.content, result.filenames) == before
