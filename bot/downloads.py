"""Fetches a finished picture safely: only from a public address (or loopback in a sandbox), never following anything.

The address comes from the provider, so it is treated as hostile: https, no credentials, no redirect, and the address
that is connected to is the one that was checked, which leaves no room for a name that resolves twice.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from bot.errors import OutputGone, OutputRefused, OutputUnreachable, PictureUnusable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from types import TracebackType

MAX_BYTES = 25 * 1024 * 1024
_GONE = (403, 404, 410)


def check(address: str, *, loopback: bool) -> URL:
    """Return the address as a URL this bot may fetch; raises `OutputRefused` with the rule it breaks.

    `loopback` says that the API itself is on this machine: then the output may, and must, be there too.
    """
    try:
        url = URL(address)
        host, port = url.host, url.port
    except ValueError:
        raise OutputRefused("not an address") from None
    if not host or url.user is not None or url.password is not None:
        raise OutputRefused("no host, or credentials in it")
    if loopback:
        if url.scheme in ("http", "https") and _is_loopback(host):
            return url
        raise OutputRefused("not on this machine, though the API is")
    if url.scheme != "https" or port != 443:  # noqa: PLR2004 - https
        raise OutputRefused("not https on its usual port")
    if host.endswith(".") or not _may_connect(host):
        raise OutputRefused("not a public host")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _may_connect(host: str) -> bool:
    """A name may be looked up (the resolver checks what comes); a literal must be public, and plainly written."""
    try:
        return is_public(host)
    except ValueError:
        pass
    last = host.rpartition(".")[2]
    # "2130706433", "0x7f.1", "127.1": not addresses to Python, but to the C library's resolver they are.
    return "." in host and not last[:1].isdigit() and not last.lower().startswith("0x")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet; raises `ValueError` for anything that is no address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is not None:
            return False
        if ip in _NAT64 or ip in _V4_COMPATIBLE or ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_V4_COMPATIBLE = ipaddress.ip_network("::/96")


class PublicResolver(AbstractResolver):
    """Resolves names, and refuses a name of which any address is not public."""

    def __init__(self, inner: AbstractResolver) -> None:
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        if not all(is_public(result["host"]) for result in found):
            raise OutputRefused("resolves to an address that is not public")
        return found

    async def close(self) -> None:
        await self._inner.close()


class Downloads:
    """A session without key, cookies or proxy. `timeout` is the total seconds of one download.

    No connection is kept: each download goes to an address that was checked for it.
    """

    def __init__(self, *, loopback: bool, timeout: float = 120.0, resolver: AbstractResolver | None = None) -> None:
        self._loopback = loopback
        inner = resolver or ThreadedResolver()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=32, force_close=True, resolver=inner if loopback else PublicResolver(inner)
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept": "image/png, image/jpeg, image/webp", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=10.0),
            auto_decompress=False,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def fetch(self, address: str) -> AsyncGenerator[bytes, None]:
        """Yield the picture in pieces; raises `OutputRefused`, `OutputGone`, `OutputUnreachable`, `PictureUnusable`."""
        url = check(address, loopback=self._loopback)
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                _check_answer(response)
                async for piece in _capped(response):
                    yield piece
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise OutputUnreachable(type(error).__name__) from None


def _check_answer(response: aiohttp.ClientResponse) -> None:
    if response.status in _GONE:
        raise OutputGone(f"status {response.status}")
    if response.status != 200:  # noqa: PLR2004 - the only status that carries the picture
        raise OutputUnreachable(f"status {response.status}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise PictureUnusable("compressed, though asked not to be")
    if (response.content_length or 0) > MAX_BYTES:
        raise PictureUnusable("too large")


async def _capped(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    total = 0
    async for piece in response.content.iter_any():
        total += len(piece)
        if total > MAX_BYTES:
            raise PictureUnusable("too large")
        yield piece
