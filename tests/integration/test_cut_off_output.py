"""An output that is cut off, although its Content-Length fits, is neither delivered nor charged."""

from __future__ import annotations

import logging
from io import BytesIO
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from bot.domain.models import State
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import png

if TYPE_CHECKING:
    from tests.support.e2e import Live


def picture(kind: str) -> bytes:
    file = BytesIO()
    Image.effect_noise((320, 180), 60).convert("RGB").save(file, kind)
    return file.getvalue()


def half(content: bytes) -> Reply:
    """Half of a file, with a Content-Length that says so: HTTP sees nothing wrong."""
    return Reply.raw(200, content[: len(content) // 2], {"Content-Type": "image/png"})


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
async def test_a_cut_off_output_is_explained_released_and_pages_the_operator(
    live: Live, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    live.api.always_output(half(picture(kind)))
    message = await live.said()
    job = await live.job(message)
    assert "not a usable image" in message.content
    assert message.content.endswith(f"You were not charged. · #{job.id}")
    assert message.attachments == []
    assert (job.state, await live.left()) == (State.RELEASED, 3)
    assert (len(live.api.downloads), len(live.api.calls)) == (2, 1)
    [alert] = [record for record in caplog.records if "operator:" in record.getMessage()]
    assert (alert.levelno, "picture_unusable (observed=cut off)" in alert.getMessage()) == (logging.ERROR, True)
    assert list((live.folder / "spool").iterdir()) == []


async def test_an_output_that_is_whole_the_second_time_is_delivered_and_charged_once(live: Live) -> None:
    live.api.script_output(half(png()))
    message = await live.made()
    assert message.attachments[0].data == png()
    assert ((await live.job(message)).state, await live.left()) == (State.DELIVERED, 2)
    assert (len(live.api.downloads), len(live.api.calls)) == (2, 1)
