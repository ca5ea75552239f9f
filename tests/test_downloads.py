"""Finished pictures are fetched from public addresses only, over real HTTP, and nothing else is believed."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from bot.downloads import MAX_BYTES, Downloads, PublicResolver, check
from bot.errors import Failed, OutputGone, OutputRefused, OutputUnreachable, PictureUnusable
from sandbox.pikzels import StandIn, serve
from sandbox.replies import Reply
from tests.conftest import a_picture

GOOD = "https://cdn.example.com/a.png"
SPELT_DIFFERENTLY = """
    2130706433 0x7f000001 0X7F000001 017700000001 0x7f.0.0.1 0177.0.0.1 127.1 127.0.1 0x7f.1 0177.1 0 0x0 127.0.0.0x1
    256.1.1.1 1.1.1.1.1 1.1.1 a.1 a.0x7f １２７.0.0.1 １２７．０．０．１ ①②⑦.0.0.1 127。0。0。1 %31%32%37.0.0.1
"""
NOT_PUBLIC_V4 = """
    127.0.0.1 127.255.255.254 0.0.0.0 10.0.0.1 172.16.0.1 172.31.255.255 192.168.0.1 100.64.0.1 169.254.169.254
    192.0.0.1 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
"""
NOT_PUBLIC_V6 = """
    [::] [::1] [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::ffff:8.8.8.8] [::127.0.0.1] [::8.8.8.8]
    [64:ff9b::7f00:1] [64:ff9b::8.8.8.8] [64:ff9b:1::1] [2002:7f00:1::] [2002:808:808::] [2001::1] [2001:db8::1]
    [fe80::1] [fe80::1%25eth0] [fec0::1] [fc00::1] [fd00:ec2::254] [ff02::1] [ff0e::1] [100::1]
"""
NAMES = "localhost LOCALHOST ⓛocalhost localhost. localhost6 ip6-localhost intranet cdn.example.com. 127.0.0.1. . .."
ELSEWHERE = """
    user@cdn.example.com user:pw@cdn.example.com :pw@cdn.example.com cdn.example.com:8443 cdn.example.com:80
    cdn.example.com:0 cdn.example.com:99999 cdn.example.com:x cdn.example.com@127.0.0.1 127.0.0.1#@cdn.example.com
    cdn.example.com%2f@127.0.0.1 127.0.0.1\\@cdn.example.com [::1 [::1]x
"""
WHOLE = """
    http://cdn.example.com/ http://cdn.example.com:443/ ftp://cdn.example.com/ ws://cdn.example.com/ file:///etc/passwd
    file://cdn.example.com/x data:image/png;base64,AAAA javascript:alert(1) blob:https://cdn.example.com/x https://
    https:///x https:/cdn.example.com https:cdn.example.com //cdn.example.com/x /x cdn.example.com/x null
"""
HOSTS = [*SPELT_DIFFERENTLY.split(), *NOT_PUBLIC_V4.split(), *NOT_PUBLIC_V6.split(), *NAMES.split(), *ELSEWHERE.split()]
HOSTILE = [*(f"https://{host}/x.png" for host in HOSTS), *WHOLE.split(), "", " ", "\n", "\0", "https://\0/"]


@dataclass
class Scripted(AbstractResolver):
    """Answers every name with the same addresses and one port, and remembers who asked."""

    addresses: tuple[str, ...] = ()
    port: int = 1
    asked: list[str] = field(default_factory=list)

    async def resolve(
        self,
        host: str,
        port: int = 0,  # noqa: ARG002 - the resolver's own interface
        family: socket.AddressFamily = socket.AF_INET,
    ) -> list[ResolveResult]:
        self.asked.append(host)
        return [
            ResolveResult(hostname=host, host=address, port=self.port, family=family, proto=0, flags=0)
            for address in self.addresses
        ]

    async def close(self) -> None:
        pass


async def fetched(downloads: Downloads, address: str) -> bytes:
    return b"".join([piece async for piece in downloads.fetch(address)])


async def failing(kind: type[Failed], address: str, *, limit: float = 5.0) -> None:
    async with Downloads(loopback=True, timeout=limit) as downloads:
        with pytest.raises(kind) as caught:
            await fetched(downloads, address)
    assert type(caught.value) is kind


@pytest.fixture
def address(api: StandIn) -> str:
    return f"{api.base_url}/output/any.png"


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[tuple[int, list[None]]]:
    """A port on this machine, and one entry for each connection to it."""
    connections: list[None] = []

    async def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(None)
        writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], connections


# --- which addresses ----------------------------------------------------------------------------------------------


def test_there_are_enough_hostile_addresses() -> None:
    assert len(set(HOSTILE)) == len(HOSTILE) >= 60


@pytest.mark.parametrize("hostile", HOSTILE)
async def test_a_hostile_address_is_refused_before_any_name_is_looked_up(hostile: str) -> None:
    with pytest.raises(OutputRefused):
        check(hostile, loopback=False)
    resolver = Scripted(("8.8.8.8",))
    async with Downloads(loopback=False, resolver=resolver) as downloads:
        with pytest.raises(OutputRefused):
            await fetched(downloads, hostile)
    assert resolver.asked == []


@pytest.mark.parametrize(
    "address",
    [
        *[GOOD, "HTTPS://CDN.Example.com/a?b=c#d", "https://cdn.example.com:443/", "https://пример.рф/"],
        *["https://0x7f.com/", "https://1.1.1.1/", "https://8.8.8.8/a", "https://[2606:4700:4700::1111]/"],
    ],
)
def test_an_ordinary_public_address_is_accepted(address: str) -> None:
    assert check(address, loopback=False).scheme == "https"


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:8099/a", "https://127.9.9.9/", "http://[::1]:1/", "http://localhost:1/"]
)
def test_a_sandbox_takes_this_machine(address: str) -> None:
    assert check(address, loopback=True).host


@pytest.mark.parametrize(
    "address",
    [
        *[GOOD, "http://10.0.0.1/", "http://0.0.0.0/", "http://8.8.8.8/", "http://localhost.example.com/", ""],
        *["http://2130706433/", "ftp://127.0.0.1/", "file:///etc/passwd", "http://user@127.0.0.1/"],
        "http://[::ffff:127.0.0.1]/",
    ],
)
def test_a_sandbox_takes_nothing_but_this_machine(address: str) -> None:
    with pytest.raises(OutputRefused):
        check(address, loopback=True)


@pytest.mark.parametrize(
    "answers", [("127.0.0.1",), ("8.8.8.8", "127.0.0.1"), ("127.0.0.1", "8.8.8.8"), ("::1",), ("10.0.0.1",)]
)
@pytest.mark.parametrize(
    "name", ["cdn.example.com", "a.localhost", "localhost.localdomain", "metadata.google.internal"]
)
async def test_a_name_that_leads_inside_is_refused_without_a_connection(name: str, answers: tuple[str, ...]) -> None:
    async with listening() as (port, connections):
        async with Downloads(loopback=False, resolver=Scripted(answers, port)) as downloads:
            with pytest.raises(OutputRefused):
                await fetched(downloads, f"https://{name}/a.png")
        assert connections == []


async def test_the_scripted_resolver_could_have_led_to_this_machine() -> None:
    """So that no connection means something: in a sandbox, where names are not checked, there is one."""
    async with listening() as (port, connections):
        async with Downloads(loopback=True, resolver=Scripted(("127.0.0.1",), port)) as downloads:
            with pytest.raises(OutputUnreachable):
                await fetched(downloads, "http://localhost/a.png")
        assert connections


async def test_a_name_with_public_addresses_is_resolved_to_them() -> None:
    found = await PublicResolver(Scripted(("8.8.8.8", "2606:4700:4700::1111"))).resolve("cdn.example.com")
    assert [answer["host"] for answer in found] == ["8.8.8.8", "2606:4700:4700::1111"]


# --- what comes from there ----------------------------------------------------------------------------------------


async def test_a_good_picture_arrives_whole(api: StandIn, address: str) -> None:
    async with Downloads(loopback=True) as downloads:
        assert await fetched(downloads, address) == a_picture()
    assert len(api.downloads) == 1


async def test_a_large_picture_arrives_in_pieces_and_whole() -> None:
    large = bytes(range(256)) * 16_384
    async with serve(output=large) as api, Downloads(loopback=True) as downloads:
        pieces = [piece async for piece in downloads.fetch(f"{api.base_url}/output/x.png")]
    assert len(pieces) > 1
    assert b"".join(pieces) == large


async def test_neither_key_nor_cookie_goes_along(api: StandIn, address: str) -> None:
    api.script_output(Reply.raw(200, a_picture(), {"Set-Cookie": "a=b; Path=/"}))
    async with Downloads(loopback=True) as downloads:
        await fetched(downloads, address)
        await fetched(downloads, address)
    for call in api.downloads:
        assert not call.keyed
        assert {"Cookie", "Authorization", "Referer"}.isdisjoint(call.headers)
        assert call.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_a_picture_that_is_not_there_is_gone(api: StandIn, address: str, status: int) -> None:
    api.script_output(Reply.raw(status, b"gone"))
    await failing(OutputGone, address)


@pytest.mark.parametrize("status", [201, 204, 206, 400, 408, 429, 500, 502, 503, 504])
async def test_any_other_answer_may_be_better_next_time(api: StandIn, address: str, status: int) -> None:
    api.script_output(Reply.raw(status))
    await failing(OutputUnreachable, address)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(api: StandIn, address: str, status: int) -> None:
    async with serve(output=a_picture()) as elsewhere:
        api.script_output(Reply.redirect(f"{elsewhere.base_url}/output/x.png", status=status))
        await failing(OutputUnreachable, address)
        assert elsewhere.downloads == []


@pytest.mark.parametrize(
    "reply",
    [
        Reply.raw(200, bytes(MAX_BYTES + 1), {"Content-Type": "image/png"}),
        Reply.endless(limit=MAX_BYTES + 1024 * 1024),
        Reply.gzip_bomb(size=MAX_BYTES * 2),
        Reply.raw(200, a_picture(), {"Content-Encoding": "br"}),
    ],
    ids=["too large and says so", "too large without saying so", "compressed to nothing", "compressed unreadably"],
)
async def test_what_is_too_large_or_compressed_is_unusable(api: StandIn, address: str, reply: Reply) -> None:
    api.script_output(reply)
    await failing(PictureUnusable, address)


async def test_a_picture_of_exactly_the_largest_size_is_taken() -> None:
    async with serve(output=bytes(MAX_BYTES)) as api, Downloads(loopback=True) as downloads:
        assert len(await fetched(downloads, f"{api.base_url}/output/x.png")) == MAX_BYTES


@pytest.mark.parametrize("reply", [Reply.gzip_bomb(), Reply.raw(200, bytes(MAX_BYTES + 1))], ids=["packed", "large"])
async def test_what_its_header_rules_out_is_refused_before_a_piece_is_passed_on(
    api: StandIn, address: str, reply: Reply
) -> None:
    api.script_output(reply)
    async with Downloads(loopback=True) as downloads:
        with pytest.raises(PictureUnusable):
            await anext(downloads.fetch(address))


@pytest.mark.parametrize(
    "reply", [Reply.truncated(), Reply.reset(), Reply.reset("mid_body")], ids=["truncated", "reset", "reset midway"]
)
async def test_a_download_cut_short_may_be_better_next_time(api: StandIn, address: str, reply: Reply) -> None:
    api.script_output(reply, reply)  # aiohttp itself tries a GET once more after a reset
    await failing(OutputUnreachable, address)


@pytest.mark.parametrize("reply", [Reply.hang(), Reply.drip(every=0.05)], ids=["hang", "drip"])
async def test_a_download_ends_with_its_time(api: StandIn, address: str, reply: Reply) -> None:
    api.script_output(reply)
    await failing(OutputUnreachable, address, limit=0.3)


async def test_a_server_that_is_not_there_may_be_there_next_time() -> None:
    async with serve() as gone:
        pass
    await failing(OutputUnreachable, f"{gone.base_url}/output/x.png")
