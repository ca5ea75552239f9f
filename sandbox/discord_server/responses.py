"""HTTP responses in Discord's JSON format."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from sandbox.discord_server.api_errors import ApiError


def json_response(payload: object, *, status: int = 200) -> web.Response:
    """The Content-Type has no charset, because discord.py compares the whole header."""
    return web.Response(body=json.dumps(payload).encode(), status=status, content_type="application/json")


def no_content() -> web.Response:
    return web.Response(status=204)


def error_response(error: ApiError) -> web.Response:
    response = json_response(error.body, status=error.status)
    if error.status == 429:
        # discord.py treats a 429 without Via as a Cloudflare ban and gives up.
        response.headers["Via"] = "1.1 google"
        response.headers["Retry-After"] = str(error.body.get("retry_after", 0))
    return response


def path_id(request: web.Request, name: str) -> int:
    """An id in the URL path."""
    return int(request.match_info[name])
