"""Finished images are downloaded over real HTTP, from public addresses only, and every response is checked."""

import asyncio
import contextlib
import ipaddress
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from bot.domain.errors import JobFailed, OutputGone, OutputRefused, OutputUnreachable, PictureUnusable
from bot.images.downloads import MAX_BYTES, ImageDownloader, PublicResolver, check, redirected
from sandbox.pikzels_server.replies import Reply
from sandbox.pikzels_server.server import StandIn, serve
from tests.support.addresses import HOSTILE, ORDINARY, PRIVATE_ADDRESSES
from tests.support.factories import image_bytes

PUBLIC = ("8.8.8.8", "2606:4700:4700::1111")
NAME = "https://cdn.example.com/a.png"


@dataclass
class ScriptedResolver(AbstractResolver):
    """Resolves every name to the same addresses (to `later` from the second query on) and records the names."""

    addresses: tuple[str, ...] = ()
    port: int = 1
    later: tuple[str, ...] | None = None
    queries: list[str] = field(default_factory=list)

    async def resolve(
        self,
        host: str,
        port: int = 0,  # noqa: ARG002 - the resolver's own interface
        family: socket.AddressFamily = socket.AF_INET,
    ) -> list[ResolveResult]:
        self.queries.append(host)
        answers = self.addresses if self.later is None or len(self.queries) == 1 else self.later
        return [
            ResolveResult(hostname=host, host=address, port=self.port, family=family, proto=0, flags=0)
            for address in answers
        ]

    async def close(self) -> None:
        pass


async def download(downloads: ImageDownloader, address: str) -> bytes:
    return b"".join([piece async for piece in downloads.fetch(address)])


async def assert_download_fails(kind: type[JobFailed], address: str, *, limit: float = 5.0) -> None:
    async with ImageDownloader(loopback=True, timeout=limit) as downloads:
        with pytest.raises(kind) as caught:
            await download(downloads, address)
    assert type(caught.value) is kind


@pytest.fixture
def address(api: StandIn) -> str:
    return f"{api.base_url}/output/any.png"


@contextlib.asynccontextmanager
async def listening_port() -> AsyncIterator[tuple[int, list[None]]]:
    """Listens on a local port; yields it with a list that gets one entry per connection."""
    connections: list[None] = []

    async def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(None)
        writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], connections


@dataclass
class ConnectionMonitor:
    """Records every connection that this process starts, and blocks those that would leave this machine."""

    addresses: list[str] | None = None

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event != "socket.connect" or self.addresses is None or args[0].family == socket.AF_UNIX:
            return
        address = args[1][0]
        self.addresses.append(address)
        if not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            raise ConnectionRefusedError


@pytest.fixture(scope="session")
def monitor() -> ConnectionMonitor:
    monitor = ConnectionMonitor()
    sys.addaudithook(monitor)  # permanent: Python cannot remove an audit hook
    return monitor


@pytest.fixture
def connections(monitor: ConnectionMonitor) -> Iterator[list[str]]:
    """The addresses that sockets tried to connect to during the test."""
    monitor.addresses = []
    yield monitor.addresses
    monitor.addresses = None


# --- allowed addresses --------------------------------------------------------------------------------------------


def test_there_are_enough_hostile_addresses() -> None:
    assert len(set(HOSTILE)) == len(HOSTILE) >= 150


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: ascii(hostile)[1:61])
async def test_a_hostile_address_is_refused_before_any_name_is_resolved(hostile: str) -> None:
    with pytest.raises(OutputRefused):
        check(hostile, loopback=False)
    resolver = ScriptedResolver(("8.8.8.8",))
    async with ImageDownloader(loopback=False, resolver=resolver) as downloads:
        with pytest.raises(OutputRefused):
            await download(downloads, hostile)
    assert resolver.queries == []


async def test_no_hostile_address_causes_a_connection(connections: list[str]) -> None:
    async with (
        listening_port() as (port, _),
        ImageDownloader(loopback=False, resolver=ScriptedResolver(("127.0.0.1",), port)) as downloads,
    ):
        for hostile in HOSTILE:
            with pytest.raises(OutputRefused):
                await download(downloads, hostile)
    assert connections == []


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: ascii(hostile)[1:61])
def test_in_sandbox_mode_a_hostile_address_reaches_only_this_machine(hostile: str) -> None:
    with contextlib.suppress(OutputRefused):
        host = check(hostile, loopback=True).host or ""
        assert host == "localhost" or ipaddress.ip_address(host).is_loopback


@pytest.mark.parametrize("address", ORDINARY, ids=lambda address: ascii(address)[1:61])
def test_an_ordinary_public_address_is_accepted(address: str) -> None:
    assert check(address, loopback=False).scheme == "https"


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:8099/a", "https://127.9.9.9/", "http://[::1]:1/", "http://localhost:1/"]
)
def test_sandbox_mode_allows_this_machine(address: str) -> None:
    assert check(address, loopback=True).host


@pytest.mark.parametrize(
    "address",
    [
        *[NAME, "http://10.0.0.1/", "http://0.0.0.0/", "http://8.8.8.8/", "http://localhost.example.com/", ""],
        *["http://2130706433/", "ftp://127.0.0.1/", "file:///etc/passwd", "http://user@127.0.0.1/"],
        "http://[::ffff:127.0.0.1]/",
    ],
)
def test_sandbox_mode_allows_only_this_machine(address: str) -> None:
    with pytest.raises(OutputRefused):
        check(address, loopback=True)


@pytest.mark.parametrize("private", PRIVATE_ADDRESSES)
async def test_a_name_with_a_private_address_is_refused_without_a_connection(
    private: str, connections: list[str]
) -> None:
    for answers in ((private,), (*PUBLIC, private), (private, *PUBLIC), (PUBLIC[0], private, PUBLIC[1])):
        async with ImageDownloader(loopback=False, resolver=ScriptedResolver(answers)) as downloads:
            with pytest.raises(OutputRefused):
                await download(downloads, NAME)
    assert connections == []


@pytest.mark.parametrize("name", ["127.0.0.1.nip.io", "localtest.me", "0x7f.com", "xn--e1afmkfd.xn--p1ai"])
async def test_a_public_name_that_resolves_to_this_machine_is_refused(name: str, connections: list[str]) -> None:
    async with (
        listening_port() as (port, _),
        ImageDownloader(loopback=False, resolver=ScriptedResolver(("127.0.0.1",), port)) as downloads,
    ):
        with pytest.raises(OutputRefused):
            await download(downloads, f"https://{name}/a.png")
    assert connections == []


@pytest.mark.parametrize("private", PRIVATE_ADDRESSES)
async def test_the_connection_uses_the_address_that_was_checked(private: str, connections: list[str]) -> None:
    moving = ScriptedResolver(PUBLIC[:1], later=(private,))
    async with ImageDownloader(loopback=False, resolver=moving) as downloads:
        with pytest.raises(OutputUnreachable):
            await download(downloads, NAME)
    assert (connections, len(moving.queries)) == ([PUBLIC[0]], 1)
    async with ImageDownloader(loopback=False, resolver=moving) as downloads:
        with pytest.raises(OutputRefused):
            await download(downloads, NAME)
    assert (connections, len(moving.queries)) == ([PUBLIC[0]], 2)


async def test_names_that_move_to_a_private_address_are_never_connected_there(connections: list[str]) -> None:
    async with ImageDownloader(loopback=False, resolver=ScriptedResolver(PUBLIC, later=("127.0.0.1",))) as downloads:
        names = [f"https://{number % 3}.example.com/a.png" for number in range(30)]
        outcomes = await asyncio.gather(*(download(downloads, name) for name in names), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {OutputUnreachable, OutputRefused}
    assert set(connections) == set(PUBLIC)


@pytest.mark.parametrize("answer", ["", "localhost", "127.1", "2130706433", "cdn.example.com", "１２７.0.0.1"])
async def test_a_resolver_answer_that_is_not_an_address_causes_no_connection(
    answer: str, connections: list[str]
) -> None:
    async with ImageDownloader(loopback=False, resolver=ScriptedResolver((answer,))) as downloads:
        with pytest.raises((OutputRefused, OutputUnreachable)):
            await download(downloads, NAME)
    assert connections == []


async def test_the_scripted_resolver_can_lead_to_this_machine() -> None:
    """Proves that the tests above can fail: in sandbox mode, which checks no names, a connection is made."""
    async with listening_port() as (port, connections):
        async with ImageDownloader(loopback=True, resolver=ScriptedResolver(("127.0.0.1",), port)) as downloads:
            with pytest.raises(OutputUnreachable):
                await download(downloads, "http://localhost/a.png")
        assert connections


async def test_a_name_resolves_to_its_public_addresses() -> None:
    found = await PublicResolver(ScriptedResolver(PUBLIC)).resolve("cdn.example.com")
    assert tuple(answer["host"] for answer in found) == PUBLIC


# --- responses ----------------------------------------------------------------------------------------------------


async def test_a_valid_image_arrives_complete(api: StandIn, address: str) -> None:
    async with ImageDownloader(loopback=True) as downloads:
        assert await download(downloads, address) == image_bytes()
    assert len(api.downloads) == 1


async def test_a_large_image_arrives_complete_in_pieces() -> None:
    large = bytes(range(256)) * 16_384
    async with serve(output=large) as api, ImageDownloader(loopback=True) as downloads:
        pieces = [piece async for piece in downloads.fetch(f"{api.base_url}/output/x.png")]
    assert len(pieces) > 1
    assert b"".join(pieces) == large


async def test_a_download_sends_neither_key_nor_cookie(api: StandIn, address: str) -> None:
    api.script_output(Reply.raw(200, image_bytes(), {"Set-Cookie": "a=b; Path=/"}))
    async with ImageDownloader(loopback=True) as downloads:
        await download(downloads, address)
        await download(downloads, address)
    for call in api.downloads:
        assert not call.keyed
        assert {"Cookie", "Authorization", "Referer"}.isdisjoint(call.headers)
        assert call.headers["Accept-Encoding"] == "identity"


@contextlib.asynccontextmanager
async def closing_after(seconds: float) -> AsyncIterator[tuple[str, list[object]]]:
    """Serves an image, and closes a connection that nothing has used for so long; yields its address and a list of
    the client's end of the connection of each request.
    """
    clients: list[object] = []

    async def image(request: web.Request) -> web.Response:
        assert request.transport is not None
        clients.append(request.transport.get_extra_info("peername"))
        return web.Response(body=image_bytes())

    app = web.Application()
    app.router.add_get("/x.png", image)
    runner = web.AppRunner(app, keepalive_timeout=seconds)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/x.png", clients
    finally:
        await runner.cleanup()


async def test_the_next_download_from_the_same_host_uses_the_same_connection() -> None:
    async with closing_after(60) as (address, clients), ImageDownloader(loopback=True) as downloads:
        for _ in range(3):
            assert await download(downloads, address) == image_bytes()
        async with contextlib.aclosing(downloads.fetch(address)) as pieces:
            await anext(pieces)
    assert (len(clients), len(set(clients))) == (4, 1)


async def test_a_connection_that_the_host_has_closed_meanwhile_fails_no_download() -> None:
    async with closing_after(0.05) as (address, clients), ImageDownloader(loopback=True) as downloads:
        for _ in range(3):
            assert await download(downloads, address) == image_bytes()
            await asyncio.sleep(0.2)  # until the host has closed it
    assert len(set(clients)) == 3


async def test_the_first_bytes_are_enough_if_the_host_can_send_a_part(api: StandIn, address: str) -> None:
    content = image_bytes()
    part = {"Content-Range": f"bytes 0-99/{len(content)}"}
    api.script_output(Reply.raw(206, content[:100], part), Reply.raw(200, content))
    async with ImageDownloader(loopback=True) as downloads:
        for expected in (content[:100], content):
            assert b"".join([piece async for piece in downloads.fetch(address, first=100)]) == expected
        assert await download(downloads, address) == content
    assert [call.headers.get("Range") for call in api.downloads] == ["bytes=0-99", "bytes=0-99", None]


@pytest.mark.parametrize("headers", [{}, {"Content-Range": "bytes 5-99/1000"}, {"Content-Range": "bytes */1000"}])
async def test_a_part_from_the_middle_is_no_image(api: StandIn, address: str, headers: dict[str, str]) -> None:
    api.script_output(Reply.raw(206, image_bytes()[5:100], headers))
    async with ImageDownloader(loopback=True) as downloads:
        with pytest.raises(OutputUnreachable):
            await anext(downloads.fetch(address, first=100))


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_a_missing_image_counts_as_gone(api: StandIn, address: str, status: int) -> None:
    api.script_output(Reply.raw(status, b"gone"))
    await assert_download_fails(OutputGone, address)


@pytest.mark.parametrize("status", [201, 204, 206, 400, 408, 429, 500, 502, 503, 504])
async def test_any_other_status_can_be_retried(api: StandIn, address: str, status: int) -> None:
    api.script_output(Reply.raw(status))
    await assert_download_fails(OutputUnreachable, address)


@pytest.mark.parametrize("status", [300, 304, 305, 306, 399])
async def test_another_status_with_a_location_is_not_followed(api: StandIn, address: str, status: int) -> None:
    async with serve(output=image_bytes()) as elsewhere:
        api.script_output(Reply.redirect(f"{elsewhere.base_url}/output/x.png", status=status))
        await assert_download_fails(OutputUnreachable, address)
        assert elsewhere.downloads == []


@pytest.mark.parametrize(
    "reply",
    [
        Reply.raw(200, bytes(MAX_BYTES + 1), {"Content-Type": "image/png"}),
        Reply.endless(limit=MAX_BYTES + 1024 * 1024),
        Reply.gzip_bomb(size=MAX_BYTES * 2),
        Reply.raw(200, image_bytes(), {"Content-Encoding": "br"}),
    ],
    ids=["too large and says so", "too large without saying so", "compressed to nothing", "compressed unreadably"],
)
async def test_a_too_large_or_compressed_response_is_unusable(api: StandIn, address: str, reply: Reply) -> None:
    api.script_output(reply)
    await assert_download_fails(PictureUnusable, address)


async def test_an_image_of_exactly_the_maximum_size_is_accepted() -> None:
    async with serve(output=bytes(MAX_BYTES)) as api, ImageDownloader(loopback=True) as downloads:
        assert len(await download(downloads, f"{api.base_url}/output/x.png")) == MAX_BYTES


@pytest.mark.parametrize("reply", [Reply.gzip_bomb(), Reply.raw(200, bytes(MAX_BYTES + 1))], ids=["packed", "large"])
async def test_a_response_with_invalid_headers_is_refused_before_any_data_is_passed_on(
    api: StandIn, address: str, reply: Reply
) -> None:
    api.script_output(reply)
    async with ImageDownloader(loopback=True) as downloads:
        with pytest.raises(PictureUnusable):
            await anext(downloads.fetch(address))


@pytest.mark.parametrize(
    "reply", [Reply.truncated(), Reply.reset(), Reply.reset("mid_body")], ids=["truncated", "reset", "reset midway"]
)
async def test_an_interrupted_download_can_be_retried(api: StandIn, address: str, reply: Reply) -> None:
    api.script_output(reply, reply)  # aiohttp itself retries a GET once after a reset
    await assert_download_fails(OutputUnreachable, address)


@pytest.mark.parametrize("reply", [Reply.hang(), Reply.drip(every=0.05)], ids=["hang", "drip"])
async def test_a_download_ends_at_its_time_limit(api: StandIn, address: str, reply: Reply) -> None:
    api.script_output(reply)
    await assert_download_fails(OutputUnreachable, address, limit=0.3)


async def test_a_download_that_hangs_ends_after_two_minutes(
    api: StandIn, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, skipped = asyncio.get_running_loop(), 0.0
    real_time = loop.time
    monkeypatch.setattr(loop, "time", lambda: real_time() + skipped)
    api.script_output(Reply.hang())
    async with ImageDownloader(loopback=True) as downloads:
        task = asyncio.create_task(download(downloads, address))
        await api.downloaded(1)
        skipped = 115.0
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
        skipped = 122.0
        with pytest.raises(OutputUnreachable):
            await asyncio.wait_for(task, 5)


async def test_an_unreachable_server_can_be_retried() -> None:
    async with serve() as gone:
        pass
    await assert_download_fails(OutputUnreachable, f"{gone.base_url}/output/x.png")


# --- redirects ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed_and_nothing_of_ours_goes_along(status: int, address: str, api: StandIn) -> None:
    async with serve(output=b"elsewhere") as elsewhere, ImageDownloader(loopback=True) as downloads:
        location = f"{elsewhere.base_url}/output/x.png?signature=a%20b#part"
        answer = {"Location": location, "Set-Cookie": "a=b; Path=/", "Content-Type": "image/png"}
        api.script_output(Reply.raw(status, b"moved", answer))
        assert await download(downloads, address) == b"elsewhere"
    [call] = elsewhere.downloads
    assert not call.keyed
    assert {"Cookie", "Authorization", "Referer"}.isdisjoint(call.headers)
    assert (call.headers["Accept-Encoding"], call.headers["Accept"]) == (
        "identity",
        "image/png, image/jpeg, image/webp",
    )


@pytest.mark.parametrize("location", ["/output/other.png", "other.png", "./other.png#part", "../output/other.png?a=b"])
async def test_a_relative_redirect_starts_from_the_address_that_redirects(
    api: StandIn, address: str, location: str
) -> None:
    api.script_output(Reply.redirect(location))
    async with ImageDownloader(loopback=True) as downloads:
        assert await download(downloads, address) == image_bytes()
    assert len(api.downloads) == 2


async def test_three_redirects_are_followed_and_a_fourth_is_not(api: StandIn, address: str) -> None:
    chain = [Reply.redirect(f"/output/{number}.png") for number in range(4)]
    api.script_output(*chain[:3])
    async with ImageDownloader(loopback=True) as downloads:
        assert await download(downloads, address) == image_bytes()
    assert len(api.downloads) == 4
    api.script_output(*chain)
    await assert_download_fails(OutputUnreachable, address)
    assert len(api.downloads) == 8


@pytest.mark.parametrize("location", ["any.png", "#part", "?", "x.png"], ids=["itself", "fragment", "query", "other"])
async def test_a_redirect_in_a_circle_is_given_up(api: StandIn, address: str, location: str) -> None:
    api.always_output(Reply.redirect(location))
    await assert_download_fails(OutputUnreachable, address)
    assert len(api.downloads) <= 2


@pytest.mark.parametrize("headers", [{}, {"Location": ""}], ids=["none", "empty"])
async def test_a_redirect_without_an_address_is_refused(api: StandIn, address: str, headers: dict[str, str]) -> None:
    api.script_output(Reply.raw(302, b"", headers))
    await assert_download_fails(OutputRefused, address)


@pytest.mark.parametrize("private", [address for address in PRIVATE_ADDRESSES if address not in ("127.0.0.1", "::1")])
@pytest.mark.parametrize("status", [302, 307])
async def test_a_redirect_to_a_private_address_is_refused_without_a_connection(
    api: StandIn, address: str, connections: list[str], status: int, private: str
) -> None:
    host = f"[{private}]" if ":" in private else private
    api.script_output(Reply.redirect(f"http://{host}/latest/meta-data/", status=status))
    await assert_download_fails(OutputRefused, address)
    assert (connections, len(api.downloads)) == (["127.0.0.1"], 1)


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: ascii(hostile)[1:61])
def test_a_redirect_to_a_hostile_address_is_refused(hostile: str) -> None:
    """Unless it is hostile only for being relative: then it stays at the public server that sends it."""
    with contextlib.suppress(OutputRefused):
        target = redirected(URL("https://base.example.org/a.png"), hostile, loopback=False)
        assert not hostile.startswith(("http:", "https:"))
        assert target.host == "base.example.org" or hostile == "//cdn.example.com/x"


@pytest.mark.parametrize("address", ORDINARY, ids=lambda address: ascii(address)[1:61])
def test_a_redirect_to_an_ordinary_public_address_leads_there(address: str) -> None:
    assert redirected(URL("https://base.example.org/a.png"), address, loopback=False) == check(address, loopback=False)


async def test_a_chain_of_redirects_ends_at_the_time_limit_of_one_download(api: StandIn, address: str) -> None:
    chain = [Reply.redirect(f"/output/{number}.png").after(0.25) for number in range(3)]
    api.script_output(*chain)
    await assert_download_fails(OutputUnreachable, address, limit=0.4)
