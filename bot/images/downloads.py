"""Downloads an image safely: only from a public address, or from loopback in a sandbox.

The URL comes from the provider, so it is treated as hostile: https, no credentials. So is the address of a redirect.
The address connected to is the one that was checked, so a name that resolves differently the second time changes
nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from contextlib import aclosing
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from bot.domain.errors import OutputGone, OutputRefused, OutputUnreachable, PictureUnusable
from bot.http_session import BodyTooLarge, HttpClient, capped

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from bot.domain import protocols

MAX_BYTES = 25 * 1024 * 1024
_GONE = (403, 404, 410)
_WHOLE, _PART = 200, 206
_REDIRECTS = (301, 302, 303, 307, 308)
_HOPS = 3  # redirects in a row
_CONNECT_SECONDS = 10.0
_CONNECTIONS = 10  # as many as there are downloads at once; each that is kept takes half a megabyte
_KEEP_SECONDS = 30.0

_LONGEST = 8192  # characters; what common servers accept in a request line
_LONGEST_NAME = 253

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
# The last label begins with a letter: "2130706433", "0x7f.1" and "127.1" are no addresses to Python, but to the C
# library's resolver they are.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)+(?=[a-z]){_LABEL}")
# Names that never belong to the public internet: RFC 6761, 6762, 7686, 8375 and 9476, ICANN's .internal, common habits.
_PRIVATE_NAME = re.compile(
    r"\.(?:localhost|localdomain|local|internal|intranet|private|corp|lan|home|arpa|test|invalid|example|onion|alt)$"
)


def check(address: str, *, loopback: bool) -> URL:
    """Return the address as a URL this bot may fetch; raises `OutputRefused` with the rule it breaks.

    `loopback` says that the API itself is on this machine: then the output must be there too.
    """
    _check_characters(address)
    try:
        url = URL(address)
        host, port = url.host and url.raw_host, url.port  # `host` raises for punycode that means nothing
    except ValueError:
        raise OutputRefused("not an address") from None
    if not host or "%" in host or url.user is not None or url.password is not None:
        raise OutputRefused("no plain host, or with credentials")
    if loopback:
        if url.scheme in ("http", "https") and _is_loopback(host):
            return url
        raise OutputRefused("not on this machine, although the API is")
    if url.scheme != "https" or port != 443:  # noqa: PLR2004 - https
        raise OutputRefused("not https on its usual port")
    if not _may_connect(host):
        raise OutputRefused("not a public host")
    return url


def redirected(url: URL, location: str, *, loopback: bool) -> URL:
    """Where a redirect from `url` to `location` leads, checked as `check` does; raises `OutputRefused`."""
    if not location:
        raise OutputRefused("redirects without an address")
    if _SCHEME.match(location):
        return check(location, loopback=loopback)
    _check_characters(location)
    try:
        target = str(url.join(URL(location)))
    except ValueError:
        raise OutputRefused("redirects to what is not an address") from None
    return check(target, loopback=loopback)


def _check_characters(address: str) -> None:
    # Parsers disagree on blanks, control characters and backslashes: dropped, kept, or the end of the host.
    if len(address) > _LONGEST or not address.isprintable() or " " in address or "\\" in address:
        raise OutputRefused("too long, or with characters that do not belong in an address")


def _is_loopback(host: str) -> bool:
    try:
        ip = ipaddress.ip_address(host)
        # From Python 3.13 on, an IPv4 address spelt as IPv6 counts as well.
        return ip.is_loopback and getattr(ip, "ipv4_mapped", None) is None
    except ValueError:
        return host == "localhost"


def _may_connect(host: str) -> bool:
    """A name may be looked up, since the resolver checks the result; a literal must be public and plainly written."""
    try:
        return is_public(host)
    except ValueError:
        return len(host) <= _LONGEST_NAME and _NAME.fullmatch(host) is not None and not _PRIVATE_NAME.search(host)


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet; raises `ValueError` for anything that is no address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is not None or ip.is_site_local:
            return False
    if any(ip in network for network in _NOT_PUBLIC):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


# What `is_global` accepts in one version of Python or another.
_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,
        (
            "64:ff9b::/96",  # NAT64: leads to any IPv4 address
            "::/96",  # an IPv4 address spelt as IPv6
            "3fff::/20",  # documentation
            "192.0.0.0/24",  # protocols of the IETF
            "192.88.99.0/24",  # relays of 6to4
            "168.63.129.16/32",  # looks public: the host of a virtual machine at Azure
        ),
    )
)


class PublicResolver(AbstractResolver):
    """Resolves names, and refuses a name if any of its addresses is not public."""

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


class ImageDownloader(HttpClient):
    """Downloads images without key or cookies. `timeout` is the total seconds of one download, with its redirects.

    A connection may be kept for the next download from the same host: it leads to the address that was checked. aiohttp
    repeats a request once if a kept connection turns out to be closed.
    """

    def __init__(self, *, loopback: bool, timeout: float = 120.0, resolver: AbstractResolver | None = None) -> None:
        self._loopback = loopback
        self._seconds = timeout
        inner = resolver or ThreadedResolver()
        super().__init__(
            connector=aiohttp.TCPConnector(
                limit=_CONNECTIONS,
                keepalive_timeout=_KEEP_SECONDS,
                resolver=inner if loopback else PublicResolver(inner),
            ),
            headers={"Accept": "image/png, image/jpeg, image/webp"},
            timeout=aiohttp.ClientTimeout(total=timeout),
        )

    async def fetch(self, address: str, *, first: int | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the image in pieces, or only the `first` bytes, if the server can send a part; raises `OutputRefused`,
        `OutputGone`, `OutputUnreachable`, `PictureUnusable`.
        """
        url = check(address, loopback=self._loopback)
        deadline = asyncio.get_running_loop().time() + self._seconds
        headers = {} if first is None else {"Range": f"bytes=0-{first - 1}"}
        try:
            async with await self._followed(url, deadline, headers) as response:
                _check_answer(response, may_be_part=first is not None)
                async for piece in capped(response, MAX_BYTES):
                    yield piece
        except BodyTooLarge:
            raise PictureUnusable("too large") from None
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise OutputUnreachable(type(error).__name__) from None

    async def _followed(self, url: URL, deadline: float, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """The answer behind at most three redirects. They are not left to aiohttp, which would check none of them."""
        seen: set[URL] = set()
        while url not in seen and len(seen) <= _HOPS:
            seen.add(url)
            response = await self._session.get(
                url, allow_redirects=False, headers=headers, timeout=_time_until(deadline)
            )
            if response.status not in _REDIRECTS:
                return response
            response.close()
            url = redirected(url, response.headers.get("Location", ""), loopback=self._loopback)
        raise OutputUnreachable("redirected in a circle, or too often")


def _time_until(deadline: float) -> aiohttp.ClientTimeout:
    left = deadline - asyncio.get_running_loop().time()
    if left <= 0:  # to aiohttp, zero is no limit
        raise TimeoutError
    return aiohttp.ClientTimeout(total=left, sock_connect=_CONNECT_SECONDS)


def _check_answer(response: aiohttp.ClientResponse, *, may_be_part: bool) -> None:
    if response.status in _GONE:
        raise OutputGone(f"status {response.status}")
    if response.status != _WHOLE and not (may_be_part and _is_start(response)):
        raise OutputUnreachable(f"status {response.status}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise PictureUnusable("compressed, though asked not to be")
    if (response.content_length or 0) > MAX_BYTES:
        raise PictureUnusable("too large")


def _is_start(response: aiohttp.ClientResponse) -> bool:
    return response.status == _PART and response.headers.get("Content-Range", "").startswith("bytes 0-")


async def fetch_whole(downloader: protocols.ImageDownloader, address: str) -> bytes:
    """The whole image at once; raises as `fetch` does."""
    async with aclosing(downloader.fetch(address)) as pieces:
        return b"".join([piece async for piece in pieces])
