"""The endpoint create-from-image: its path, and the body of a call."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from bot.domain.models import ThumbnailRequest

PATH = "/v2/thumbnail/image"
_IMAGES = ("image_base64", "support_image_base64")


def body(request: ThumbnailRequest) -> dict[str, str]:
    """The JSON body of the call; unset options are left out, since null is not in the schema."""
    fields = {
        "model": request.model.value,
        "format": request.format.value,
        "image_url": request.image_url if request.image_base64 is None else None,
        "image_base64": request.image_base64,
        "prompt": request.prompt,
        "support_image_url": request.support_image_url if request.support_base64 is None else None,
        "support_image_base64": request.support_base64,
        "image_weight": request.image_weight and request.image_weight.value,
        "persona": request.persona,
        "style": request.style,
    }
    return {name: value for name, value in fields.items() if value is not None}


def encoded(request: ThumbnailRequest) -> bytes:
    """The body as it is sent. Call it in a thread if the request has base64, which can be 14 MB for each image."""
    fields = (b'"%b": %b' % (name.encode(), _encoded(name, value)) for name, value in body(request).items())
    return b"{" + b", ".join(fields) + b"}"


def _encoded(name: str, value: str) -> bytes:
    """json takes 80 ms for an image of 10 MB and lets no other thread run; orjson does not accept half a character."""
    return orjson.dumps(value) if name in _IMAGES else json.dumps(value).encode()
