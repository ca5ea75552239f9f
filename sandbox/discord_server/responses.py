"""Answers to requests, in Discord's JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from sandbox.discord_server.api_errors import Refusal


def reply(payload: object, *, status: int = 200) -> web.Response:
    """Content-Type without a charset: discord.py compares it whole."""
    return web.Response(body=json.dumps(payload).encode(), status=status, content_type="application/json")


def done() -> web.Response:
    return web.Response(status=204)


def refused(refusal: Refusal) -> web.Response:
    response = reply(refusal.body, status=refusal.status)
    if refusal.status == 429:
        # discord.py takes a 429 without Via for a ban by Cloudflare and gives up
        response.headers["Via"] = "1.1 google"
        response.headers["Retry-After"] = str(refusal.body.get("retry_after", 0))
    return response


def number(request: web.Request, name: str) -> int:
    """A part of the path that is an id."""
    return int(request.match_info[name])
