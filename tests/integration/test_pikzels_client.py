"""One paid call over real HTTP: every outcome has a type, the call is made once, and the key is never exposed."""

import asyncio
import contextlib
import gzip
import json
import logging
import traceback
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest
from aiohttp import web

from bot.domain.errors import (
    AnswerUnusable,
    JobFailed,
    OutcomeUnknown,
    ProviderMoved,
    ProviderRefused,
    ProviderUnreachable,
)
from bot.domain.models import Model, ThumbnailRequest, Weight
from bot.pikzels.client import BODY_BYTES, Pikzels
from bot.pikzels.create_from_image import PATH, body
from sandbox.pikzels_server.contract import CODES as STATUSES
from sandbox.pikzels_server.contract import Problem
from sandbox.pikzels_server.replies import Reply, When
from sandbox.pikzels_server.server import StandIn, serve
from tests.support.event_loop import recorded_threads
from tests.support.factories import API_KEY, NOON, request
from tests.support.provider_contract import CODES

ID = "0b5c6a3e-1d2f-4c3b-9a8d-7e6f5a4b3c2d"
REQUEST = request()
FailedT = TypeVar("FailedT", bound=JobFailed)


@pytest.fixture(autouse=True)
def _key_is_never_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert API_KEY not in caplog.text


def client(base_url: str, *, timeout: float = 5.0) -> Pikzels:
    def clock() -> datetime:
        return NOON

    return Pikzels(api_key=API_KEY, base_url=base_url, timeout=timeout, clock=clock)


async def failed_call(kind: type[FailedT], base_url: str, *, limit: float = 5.0) -> FailedT:
    """Make a call that must fail; return its error, after a check that the error does not contain the key."""
    async with client(base_url, timeout=limit) as pikzels:
        with pytest.raises(kind) as caught:
            await pikzels.create(REQUEST)
    assert type(caught.value) is kind
    assert not any(API_KEY in text for text in all_texts(caught.value))
    return caught.value


def all_texts(error: BaseException) -> Iterator[str]:
    yield from (repr(error), str(error), repr(error.args), repr(vars(error)), *traceback.format_exception(error))
    for chained in (error.__cause__, error.__context__):
        if chained is not None:
            yield from all_texts(chained)


def envelope(code: str = "INTERNAL_ERROR", **others: Any) -> str:
    return json.dumps({"error": {"code": code, "message": "<@&1> canary message"}, **others})


# --- success ------------------------------------------------------------------------------------------------------


async def test_the_documented_success_gives_an_output_with_its_request_id(api: StandIn) -> None:
    async with client(api.base_url) as pikzels:
        output = await pikzels.create(REQUEST)
    assert output.url.startswith(f"{api.base_url}/output/")
    assert output.request_id == api.calls[0].request_id


async def test_fields_outside_the_contract_are_ignored(api: StandIn) -> None:
    api.script(Reply.ok(extra={"model": "pkz_4", "prompt_compacted": None, "cost": [1]}))
    async with client(api.base_url) as pikzels:
        assert (await pikzels.create(REQUEST)).url


async def test_without_a_request_id_in_the_body_the_header_is_used(api: StandIn) -> None:
    api.script(Reply.raw(200, '{"output": "https://cdn.pikzels.com/x.png"}', {"X-Request-Id": "r-1"}))
    async with client(api.base_url) as pikzels:
        assert (await pikzels.create(REQUEST)).request_id == "r-1"


@pytest.mark.parametrize(
    "requested",
    [
        REQUEST,
        ThumbnailRequest("https://a/b", Model.PKZ_2, REQUEST.format, image_weight=Weight.LOW),
        ThumbnailRequest("https://a/b", Model.PKZ_4_5, REQUEST.format, "naïve 猫", "https://c/d", None, ID, ID),
    ],
)
async def test_exactly_the_request_is_sent_with_the_key(api: StandIn, requested: ThumbnailRequest) -> None:
    async with client(f"{api.base_url}/") as pikzels:
        await pikzels.create(requested)
    sent = api.calls[0]
    assert sent.body == body(requested)
    assert None not in sent.body.values()
    assert sent.keyed, "the simulated provider records only that the key was sent"
    assert sent.headers["Content-Type"] == "application/json"
    assert sent.headers["Accept"] == "application/json"
    assert sent.headers["Accept-Encoding"] == "identity"
    assert {"Cookie", "Authorization"}.isdisjoint(sent.headers)


TEN_MEGABYTES = "data:image/png;base64," + "iVBORw0KGgo=" * 1_165_084


@pytest.mark.parametrize(
    ("requested", "here"),
    [
        (REQUEST, True),
        (replace(REQUEST, image_base64="data:image/png;base64,iVBORw0KGgo="), False),
        (replace(REQUEST, support_base64="data:image/png;base64,iVBORw0KGgo="), False),
    ],
    ids=["addresses", "image", "reference"],
)
async def test_a_body_with_an_image_in_it_is_made_in_a_thread(
    api: StandIn, monkeypatch: pytest.MonkeyPatch, requested: ThumbnailRequest, *, here: bool
) -> None:
    calls = recorded_threads(monkeypatch, "bot.pikzels.create_from_image.encoded")
    async with client(api.base_url) as pikzels:
        await pikzels.create(requested)
    assert calls == {"bot.pikzels.create_from_image.encoded": {here}}


async def test_a_connection_may_take_ten_seconds_of_the_time_of_a_call() -> None:
    async with client("http://127.0.0.1:1", timeout=120) as pikzels:
        limits = pikzels._session.timeout
    assert (limits.total, limits.connect, limits.sock_connect) == (120, 10, 10)


def test_each_image_is_sent_as_an_address_or_as_its_bytes_and_never_as_both() -> None:
    addresses = replace(REQUEST, support_image_url="https://cdn.example/logo.png")
    names = {"image_url", "image_base64", "support_image_url", "support_image_base64"}
    for requested, expected in (
        (addresses, {"image_url", "support_image_url"}),
        (replace(addresses, image_base64="data:a"), {"image_base64", "support_image_url"}),
        (replace(addresses, support_base64="data:b"), {"image_url", "support_image_base64"}),
    ):
        assert names & set(body(requested)) == expected
    assert names & set(body(REQUEST)) == {"image_url"}


async def test_images_of_ten_megabytes_are_sent_as_they_are(api: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    large = replace(
        REQUEST, prompt='naïve "猫" \\ \ud83d', image_base64=TEN_MEGABYTES, support_base64=TEN_MEGABYTES[:-4]
    )
    calls = recorded_threads(monkeypatch, "bot.pikzels.create_from_image.encoded")
    async with client(api.base_url, timeout=30) as pikzels:
        await pikzels.create(large)
    assert calls == {"bot.pikzels.create_from_image.encoded": {False}}, "made in a thread: it takes a while"
    [sent] = api.calls
    assert sent.body == body(large)
    assert sent.headers["Content-Type"] == "application/json"
    assert int(sent.headers["Content-Length"]) > 2 * 10**7
    assert "Transfer-Encoding" not in sent.headers


async def test_a_cookie_the_provider_sets_is_not_kept(api: StandIn) -> None:
    api.script(Reply.raw(503, envelope(), {"Set-Cookie": "a=b; Path=/"}))
    async with client(api.base_url) as pikzels:
        with pytest.raises(ProviderRefused):
            await pikzels.create(REQUEST)
        await pikzels.create(REQUEST)
    assert "Cookie" not in api.calls[1].headers


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted(CODES))
async def test_every_code_is_a_refusal_with_its_status_and_request_id(api: StandIn, code: str) -> None:
    api.script(
        Reply.error(code), Reply.error(code, details=(Problem("x", "prompt"), Problem("y"), Problem("z", "a b")))
    )
    for call, fields in enumerate([(), ("prompt",)]):
        refused = await failed_call(ProviderRefused, api.base_url)
        assert (refused.code, refused.status, refused.fields) == (code, STATUSES[code][0], fields)
        assert refused.request_id == api.calls[call].request_id
    assert len(api.calls) == 2


@pytest.mark.parametrize(
    ("in_body", "in_header", "expected"),
    [
        ({}, "r-2", "r-2"),
        ({"request_id": "r-1"}, "r-2", "r-1"),
        ({"request_id": None}, "r-2", "r-2"),
        ({"request_id": "@everyone!"}, "r 2", None),
        ({"request_id": "x" * 129}, "", None),
    ],
)
async def test_a_request_id_comes_from_the_body_or_else_the_header(
    api: StandIn, in_body: dict[str, Any], in_header: str, expected: str | None
) -> None:
    api.script(Reply.raw(500, envelope(**in_body), {"X-Request-Id": in_header}))
    assert (await failed_call(ProviderRefused, api.base_url)).request_id == expected


@pytest.mark.parametrize("status", [400, 418, 500, 599])
async def test_an_unknown_code_is_also_a_refusal(api: StandIn, status: int) -> None:
    api.script(Reply.raw(status, envelope("BRAND_NEW")))
    refused = await failed_call(ProviderRefused, api.base_url)
    assert (refused.code, refused.status) == ("BRAND_NEW", status)


async def test_the_text_of_the_provider_is_not_passed_on(api: StandIn) -> None:
    api.script(Reply.raw(500, envelope(details=[{"field": "<@1>", "message": "canary"}])))
    refused = await failed_call(ProviderRefused, api.base_url)
    assert not any("canary" in text for text in (repr(refused), str(refused), repr(vars(refused))))


@pytest.mark.parametrize(
    ("header", "pause"),
    [
        ("7", timedelta(seconds=7)),
        ("0", timedelta(0)),
        (" 120 ", timedelta(minutes=2)),
        ("9" * 400, timedelta(days=1)),
        (f"{NOON + timedelta(seconds=90):%a, %d %b %Y %H:%M:%S} GMT", timedelta(seconds=90)),
        (f"{NOON + timedelta(seconds=90):%A, %d-%b-%y %H:%M:%S} GMT", timedelta(seconds=90)),
        (f"{NOON + timedelta(seconds=90):%a, %d %b %Y %H:%M:%S} -0000", timedelta(seconds=90)),
        (f"{NOON + timedelta(seconds=90):%a, %d %b %Y %H:%M:%S} +0100", None),  # an hour ago
        (f"{NOON + timedelta(seconds=90):%a, %d %b %Y %H:%M:%S} -0100", timedelta(seconds=3690)),
        (f"{NOON:%a, %d %b %Y %H:%M:%S} GMT", None),
        (f"{NOON - timedelta(seconds=90):%a, %d %b %Y %H:%M:%S} GMT", None),
        ("Thu, 99 Nov 2026 99:99:99 GMT", None),
        ("-7", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
async def test_retry_after_is_read_from_seconds_or_a_date_and_otherwise_ignored(
    api: StandIn, header: str | None, pause: timedelta | None
) -> None:
    api.script(Reply.error("TOO_MANY_REQUESTS", retry_after=header))
    assert (await failed_call(ProviderRefused, api.base_url)).retry_after == pause


async def test_the_first_ten_fields_that_an_error_names_are_kept(api: StandIn) -> None:
    details = [{"field": f"field_{number}", "message": "never shown"} for number in range(12)]
    api.script(Reply.raw(400, json.dumps({"error": {"code": "VALIDATION_ERROR", "details": details}})))
    refused = await failed_call(ProviderRefused, api.base_url)
    assert refused.fields == tuple(f"field_{number}" for number in range(10))


# --- unusable answers -------------------------------------------------------------------------------------------------

DEEP = b"[" * 100_000
HUGE = b'{"error": {"code": ' + b"9" * 100_000 + b"}}"
OVERSIZE = b" " * BODY_BYTES + envelope().encode()
GARBAGE = [b"", b"null", b"[]", b'"x"', b"\xff\xfe\xfd", b'{"error": null}', b'{"error": {"code": 7}}', DEEP, HUGE]
GARBAGE += [
    OVERSIZE,
    b'{"error": "INTERNAL_ERROR"}',
    b'{"error": {"code": "not a code!"}}',
    b'{"error": {"message": "x"}}',
]


@pytest.mark.parametrize("status", [400, 404, 429, 500, 502])
@pytest.mark.parametrize("content", GARBAGE, ids=lambda content: content[:24])
async def test_an_error_without_an_envelope_leaves_the_outcome_unknown(
    api: StandIn, status: int, content: bytes
) -> None:
    api.script(Reply.raw(status, content, {"X-Request-Id": "r-1"}))
    unknown = await failed_call(OutcomeUnknown, api.base_url)
    assert (unknown.status, unknown.request_id, unknown.observed) == (status, "r-1", "no error envelope")


@pytest.mark.parametrize("reply", [Reply.html(502), Reply.html(403), Reply.raw(201, envelope()), Reply.raw(204)])
async def test_an_error_page_of_a_proxy_leaves_the_outcome_unknown(api: StandIn, reply: Reply) -> None:
    api.script(reply)
    await failed_call(OutcomeUnknown, api.base_url)


OUTPUTS: list[Any] = [
    None,
    7,
    "",
    [],
    {},
    True,
    "https://a/\n",
    "https://a/\x00",
    "https://a/\u202e",
    "https://" + "x" * 4096,
]
UNUSABLE = [json.dumps({"output": output}).encode() for output in OUTPUTS]
UNUSABLE += [b"{}", b'{"error": {"code": "INTERNAL_ERROR"}}', b"<html>", b"\x1f\x8b", *GARBAGE]


@pytest.mark.parametrize("content", UNUSABLE, ids=lambda content: content[:40])
async def test_a_success_without_an_output_is_unusable_and_keeps_its_request_id(api: StandIn, content: bytes) -> None:
    api.script(Reply.raw(200, content, {"X-Request-Id": "r-1"}))
    unusable = await failed_call(AnswerUnusable, api.base_url)
    assert (unusable.status, unusable.request_id) == (200, "r-1")
    assert unusable.observed == "no output address"


@pytest.mark.parametrize(("length", "usable"), [(4096, True), (4097, False)])
async def test_an_output_address_may_have_as_many_characters_as_any_url(
    api: StandIn, length: int, *, usable: bool
) -> None:
    url = "https://cdn.example/".ljust(length, "x")
    api.script(Reply.raw(200, json.dumps({"output": url})))
    if not usable:
        await failed_call(AnswerUnusable, api.base_url)
        return
    async with client(api.base_url) as pikzels:
        assert (await pikzels.create(REQUEST)).url == url


class Counter:
    """A server that answers in two pieces, as soon as as many calls as it expects are in progress."""

    def __init__(self, expected: int) -> None:
        self.ports: list[int] = []
        self._expected = expected
        self._complete = asyncio.Event()

    async def answer(self, call: web.Request) -> web.StreamResponse:
        assert call.transport is not None
        self.ports.append(call.transport.get_extra_info("peername")[1])
        if len(self.ports) >= self._expected:
            self._complete.set()
        await self._complete.wait()
        response = web.StreamResponse()
        await response.prepare(call)
        await response.write(b'{"output": "https://cdn.')
        await asyncio.sleep(0.01)  # so that the client reads this piece alone
        await response.write(b'example/x.png"}')
        return response

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        application = web.Application()
        application.router.add_post(PATH, self.answer)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        await runner.cleanup()


async def test_calls_in_progress_do_not_wait_for_each_others_connections() -> None:
    server = Counter(expected=120)
    async with server.served() as url, client(url, timeout=20) as pikzels:
        outputs = await asyncio.gather(*(pikzels.create(REQUEST) for _ in range(120)))
    assert {output.url for output in outputs} == {"https://cdn.example/x.png"}


async def test_every_paid_call_has_a_fresh_connection() -> None:
    server = Counter(expected=1)
    async with server.served() as url, client(url) as pikzels:
        for _ in range(3):
            await pikzels.create(REQUEST)
    assert len(set(server.ports)) == 3, "a kept connection can close just as the next call is written"


async def test_a_compressed_answer_is_not_decompressed(api: StandIn) -> None:
    packed = gzip.compress(b'{"output": "https://cdn.pikzels.com/x.png"}')
    api.script(Reply.raw(200, packed, {"Content-Encoding": "gzip"}))
    await failed_call(AnswerUnusable, api.base_url)


async def test_an_endless_answer_is_abandoned(api: StandIn) -> None:
    api.script(Reply.endless(content_type="application/json"))
    await failed_call(AnswerUnusable, api.base_url)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed(api: StandIn, status: int) -> None:
    async with serve(api_key=API_KEY) as elsewhere:
        api.script(Reply.redirect(elsewhere.base_url + PATH, status=status))
        assert (await failed_call(ProviderMoved, api.base_url)).observed == f"status {status}"
        assert (len(api.calls), elsewhere.calls) == (1, [])


# --- no answer ------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def raw_server(answer: bytes) -> AsyncIterator[str]:
    """A server that answers every request with these bytes, then closes the connection."""

    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answered, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=lambda answer: answer[:40],
)
async def test_an_answer_that_is_not_http_leaves_the_outcome_unknown(answer: bytes) -> None:
    async with raw_server(answer) as base_url:
        await failed_call(OutcomeUnknown, base_url)


async def test_a_refused_connection_means_that_nothing_was_sent() -> None:
    async with serve() as gone:
        pass
    assert (await failed_call(ProviderUnreachable, gone.base_url)).observed == "ClientConnectorError"


async def test_an_unresolvable_name_means_that_nothing_was_sent() -> None:
    await failed_call(ProviderUnreachable, "http://api.pikzels.invalid")


@pytest.mark.parametrize("url", ["http://127.0.0.1:abc", "https://api.pikzels.com:99999", "http://[::1"])
async def test_an_invalid_address_means_that_nothing_was_sent(url: str) -> None:
    assert (await failed_call(ProviderUnreachable, url)).observed == "InvalidUrlClientError"


async def test_a_failed_tls_handshake_means_that_nothing_was_sent(api: StandIn) -> None:
    await failed_call(ProviderUnreachable, api.base_url.replace("http:", "https:"))
    assert api.calls == []


@pytest.mark.parametrize("when", ["before_request", "after_request", "mid_body"])
async def test_a_reset_leaves_the_outcome_unknown_and_is_not_sent_again(api: StandIn, when: When) -> None:
    api.script(Reply.reset(when))
    await failed_call(OutcomeUnknown, api.base_url)
    assert len(api.calls) == 1


@pytest.mark.parametrize("reply", [Reply.hang(), Reply.drip(every=0.05), Reply.hold()], ids=["hang", "drip", "held"])
async def test_silence_beyond_the_time_limit_leaves_the_outcome_unknown(api: StandIn, reply: Reply) -> None:
    api.script(reply)
    unknown = await failed_call(OutcomeUnknown, api.base_url, limit=0.3)
    assert unknown.observed == "TimeoutError"
    assert len(api.calls) == 1


async def test_a_truncated_answer_leaves_the_outcome_unknown(api: StandIn) -> None:
    api.script(Reply.truncated())
    await failed_call(OutcomeUnknown, api.base_url)
    assert len(api.calls) == 1


async def test_a_cancelled_call_is_not_sent_again(api: StandIn) -> None:
    api.script(Reply.hang())
    async with client(api.base_url) as pikzels:
        call = asyncio.create_task(pikzels.create(REQUEST))
        await api.called(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert len(api.calls) == 1
