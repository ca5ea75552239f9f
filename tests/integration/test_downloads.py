"""Finished pictures are fetched from public addresses only, over real HTTP, and nothing else is believed."""

import asyncio
import contextlib
import ipaddress
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from bot.domain.errors import JobFailed, OutputGone, OutputRefused, OutputUnreachable, PictureUnusable
from bot.images.downloads import MAX_BYTES, ImageDownloader, PublicResolver, check
from sandbox.pikzels_server.replies import Reply
from sandbox.pikzels_server.server import StandIn, serve
from tests.conftest import a_picture
from tests.support.addresses import HOSTILE, INSIDE, ORDINARY

PUBLIC = ("8.8.8.8", "2606:4700:4700::1111")
NAME = "https://cdn.example.com/a.png"


@dataclass
class Scripted(AbstractResolver):
    """Answers every name with the same addresses (`later` from the second time on) and remembers who asked."""

    addresses: tuple[str, ...] = ()
    port: int = 1
    later: tuple[str, ...] | None = None
    asked: list[str] = field(default_factory=list)

    async def resolve(
        self,
        host: str,
        port: int = 0,  # noqa: ARG002 - the resolver's own interface
        family: socket.AddressFamily = socket.AF_INET,
    ) -> list[ResolveResult]:
        self.asked.append(host)
        answers = self.addresses if self.later is None or len(self.asked) == 1 else self.later
        return [
            ResolveResult(hostname=host, host=address, port=self.port, family=family, proto=0, flags=0)
            for address in answers
        ]

    async def close(self) -> None:
        pass


async def fetched(downloads: ImageDownloader, address: str) -> bytes:
    return b"".join([piece async for piece in downloads.fetch(address)])


async def failing(kind: type[JobFailed], address: str, *, limit: float = 5.0) -> None:
    async with ImageDownloader(loopback=True, timeout=limit) as downloads:
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


@dataclass
class Ears:
    """Hears of every connection this process begins, and lets none begin that would leave this machine."""

    heard: list[str] | None = None

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event != "socket.connect" or self.heard is None or args[0].family == socket.AF_UNIX:
            return
        address = args[1][0]
        self.heard.append(address)
        if not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            raise ConnectionRefusedError


@pytest.fixture(scope="session")
def ears() -> Ears:
    ears = Ears()
    sys.addaudithook(ears)  # for good: Python takes none away
    return ears


@pytest.fixture
def connections(ears: Ears) -> Iterator[list[str]]:
    """The addresses that sockets were to be connected to during the test."""
    ears.heard = []
    yield ears.heard
    ears.heard = None


# --- which addresses ----------------------------------------------------------------------------------------------


def test_there_are_enough_hostile_addresses() -> None:
    assert len(set(HOSTILE)) == len(HOSTILE) >= 150


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: ascii(hostile)[1:61])
async def test_a_hostile_address_is_refused_before_any_name_is_looked_up(hostile: str) -> None:
    with pytest.raises(OutputRefused):
        check(hostile, loopback=False)
    resolver = Scripted(("8.8.8.8",))
    async with ImageDownloader(loopback=False, resolver=resolver) as downloads:
        with pytest.raises(OutputRefused):
            await fetched(downloads, hostile)
    assert resolver.asked == []


async def test_no_socket_is_connected_for_any_hostile_address(connections: list[str]) -> None:
    async with (
        listening() as (port, _),
        ImageDownloader(loopback=False, resolver=Scripted(("127.0.0.1",), port)) as downloads,
    ):
        for hostile in HOSTILE:
            with pytest.raises(OutputRefused):
                await fetched(downloads, hostile)
    assert connections == []


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: ascii(hostile)[1:61])
def test_in_a_sandbox_a_hostile_address_leads_at_most_to_this_machine(hostile: str) -> None:
    with contextlib.suppress(OutputRefused):
        host = check(hostile, loopback=True).host or ""
        assert host == "localhost" or ipaddress.ip_address(host).is_loopback


@pytest.mark.parametrize("address", ORDINARY, ids=lambda address: ascii(address)[1:61])
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
        *[NAME, "http://10.0.0.1/", "http://0.0.0.0/", "http://8.8.8.8/", "http://localhost.example.com/", ""],
        *["http://2130706433/", "ftp://127.0.0.1/", "file:///etc/passwd", "http://user@127.0.0.1/"],
        "http://[::ffff:127.0.0.1]/",
    ],
)
def test_a_sandbox_takes_nothing_but_this_machine(address: str) -> None:
    with pytest.raises(OutputRefused):
        check(address, loopback=True)


@pytest.mark.parametrize("inside", INSIDE)
async def test_a_name_that_leads_inside_is_refused_without_a_connection(inside: str, connections: list[str]) -> None:
    for answers in ((inside,), (*PUBLIC, inside), (inside, *PUBLIC), (PUBLIC[0], inside, PUBLIC[1])):
        async with ImageDownloader(loopback=False, resolver=Scripted(answers)) as downloads:
            with pytest.raises(OutputRefused):
                await fetched(downloads, NAME)
    assert connections == []


@pytest.mark.parametrize("name", ["127.0.0.1.nip.io", "localtest.me", "0x7f.com", "xn--e1afmkfd.xn--p1ai"])
async def test_a_public_name_that_leads_to_this_machine_is_refused(name: str, connections: list[str]) -> None:
    async with (
        listening() as (port, _),
        ImageDownloader(loopback=False, resolver=Scripted(("127.0.0.1",), port)) as downloads,
    ):
        with pytest.raises(OutputRefused):
            await fetched(downloads, f"https://{name}/a.png")
    assert connections == []


@pytest.mark.parametrize("inside", INSIDE)
async def test_a_name_that_moves_inside_is_connected_to_where_it_was_checked(
    inside: str, connections: list[str]
) -> None:
    moving = Scripted(PUBLIC[:1], later=(inside,))
    async with ImageDownloader(loopback=False, resolver=moving) as downloads:
        with pytest.raises(OutputUnreachable):
            await fetched(downloads, NAME)
    assert (connections, len(moving.asked)) == ([PUBLIC[0]], 1)
    async with ImageDownloader(loopback=False, resolver=moving) as downloads:
        with pytest.raises(OutputRefused):
            await fetched(downloads, NAME)
    assert (connections, len(moving.asked)) == ([PUBLIC[0]], 2)


async def test_a_name_that_moves_inside_between_many_downloads_leads_none_of_them_there(connections: list[str]) -> None:
    async with ImageDownloader(loopback=False, resolver=Scripted(PUBLIC, later=("127.0.0.1",))) as downloads:
        names = [f"https://{number % 3}.example.com/a.png" for number in range(30)]
        outcomes = await asyncio.gather(*(fetched(downloads, name) for name in names), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {OutputUnreachable, OutputRefused}
    assert set(connections) == set(PUBLIC)


@pytest.mark.parametrize("answer", ["", "localhost", "127.1", "2130706433", "cdn.example.com", "１２７.0.0.1"])
async def test_a_resolver_that_answers_no_address_leads_nowhere(answer: str, connections: list[str]) -> None:
    async with ImageDownloader(loopback=False, resolver=Scripted((answer,))) as downloads:
        with pytest.raises((OutputRefused, OutputUnreachable)):
            await fetched(downloads, NAME)
    assert connections == []


async def test_the_scripted_resolver_could_have_led_to_this_machine() -> None:
    """So that no connection means something: in a sandbox, where names are not checked, there is one."""
    async with listening() as (port, connections):
        async with ImageDownloader(loopback=True, resolver=Scripted(("127.0.0.1",), port)) as downloads:
            with pytest.raises(OutputUnreachable):
                await fetched(downloads, "http://localhost/a.png")
        assert connections


async def test_a_name_with_public_addresses_is_resolved_to_them() -> None:
    found = await PublicResolver(Scripted(PUBLIC)).resolve("cdn.example.com")
    assert tuple(answer["host"] for answer in found) == PUBLIC


# --- what comes from there ----------------------------------------------------------------------------------------


async def test_a_good_picture_arrives_whole(api: StandIn, address: str) -> None:
    async with ImageDownloader(loopback=True) as downloads:
        assert await fetched(downloads, address) == a_picture()
    assert len(api.downloads) == 1


async def test_a_large_picture_arrives_in_pieces_and_whole() -> None:
    large = bytes(range(256)) * 16_384
    async with serve(output=large) as api, ImageDownloader(loopback=True) as downloads:
        pieces = [piece async for piece in downloads.fetch(f"{api.base_url}/output/x.png")]
    assert len(pieces) > 1
    assert b"".join(pieces) == large


async def test_neither_key_nor_cookie_goes_along(api: StandIn, address: str) -> None:
    api.script_output(Reply.raw(200, a_picture(), {"Set-Cookie": "a=b; Path=/"}))
    async with ImageDownloader(loopback=True) as downloads:
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


@pytest.mark.parametrize("inside", INSIDE)
@pytest.mark.parametrize("status", [302, 307])
async def test_a_redirect_to_the_inside_is_not_followed(
    api: StandIn, address: str, connections: list[str], status: int, inside: str
) -> None:
    host = f"[{inside}]" if ":" in inside else inside
    api.script_output(Reply.redirect(f"http://{host}/latest/meta-data/", status=status))
    await failing(OutputUnreachable, address)
    assert (connections, len(api.downloads)) == (["127.0.0.1"], 1)


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
    async with serve(output=bytes(MAX_BYTES)) as api, ImageDownloader(loopback=True) as downloads:
        assert len(await fetched(downloads, f"{api.base_url}/output/x.png")) == MAX_BYTES


@pytest.mark.parametrize("reply", [Reply.gzip_bomb(), Reply.raw(200, bytes(MAX_BYTES + 1))], ids=["packed", "large"])
async def test_what_its_header_rules_out_is_refused_before_a_piece_is_passed_on(
    api: StandIn, address: str, reply: Reply
) -> None:
    api.script_output(reply)
    async with ImageDownloader(loopback=True) as downloads:
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
