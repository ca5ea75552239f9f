"""What more than one file of tests starts from."""

import hashlib
import io
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from PIL import Image

from bot.domain.models import Job, State
from sandbox.pikzels_server.server import StandIn, serve
from tests.support.factories import NOON, request, requester

# How long an example takes says more about the machine of the day than about the code.
settings.register_profile("no-deadline", deadline=None, print_blob=True)
settings.load_profile("no-deadline")

KEY = "pkz_canary_4f1c9d27e8b35a60"


def a_job(*, reason: str | None = None, **changes: Any) -> Job:
    """A job of member 1 for one credit; `changes` are those of its request."""
    state = State.RESERVED if reason is None else State.RELEASED
    return Job("k3f9", state, replace(request(), **changes), requester(), cost=1, created_at=NOON, reason=reason)


def a_picture(kind: str = "PNG", *, width: int = 64, height: int = 36, noisy: bool = False) -> bytes:
    size = (width, height)
    noise = hashlib.shake_256(b"noise").digest(3 * width * height if noisy else 0)
    image = Image.frombytes("RGB", size, noise) if noisy else Image.new("RGB", size, "teal")
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@pytest.fixture
async def api() -> AsyncIterator[StandIn]:
    """A stand-in of the provider that serves a ready picture."""
    async with serve(api_key=KEY, output=a_picture()) as standin:
        yield standin
