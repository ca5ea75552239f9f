"""What more than one file of tests starts from."""

import io
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from PIL import Image

from bot.model import Asker, Format, Job, Model, State, ThumbnailRequest
from sandbox.pikzels import StandIn, serve

KEY = "pkz_canary_4f1c9d27e8b35a60"
NOON = datetime(2025, 6, 15, 12, tzinfo=UTC)
REQUEST = ThumbnailRequest("https://example.com/reference.jpg", Model.PKZ_4, Format.WIDE, "Make the cat fur white")
ASKER = Asker(
    user_id=81_384_788_765_712_384,
    guild_id=41_771_983_423_143_937,
    channel_id=127_121_515_262_115_840,
    interaction_id=845_027_738_276_462_632,
    token="made-up-interaction-token",
    asked_at=NOON,
    upload_limit=10 * 1024 * 1024,
)


def a_job(*, reason: str | None = None, **request: Any) -> Job:
    state = State.RESERVED if reason is None else State.RELEASED
    return Job("k3f9", state, replace(REQUEST, **request), ASKER, cost=1, created_at=NOON, reason=reason)


def a_picture(kind: str = "PNG", *, width: int = 64, height: int = 36, noisy: bool = False) -> bytes:
    size = (width, height)
    image = Image.frombytes("RGB", size, os.urandom(3 * width * height)) if noisy else Image.new("RGB", size, "teal")
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@pytest.fixture
async def api() -> AsyncIterator[StandIn]:
    """A stand-in of the provider that serves a ready picture."""
    async with serve(api_key=KEY, output=a_picture()) as standin:
        yield standin
