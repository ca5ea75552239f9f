"""The stand-in for Pikzels enforces the published contract, renders images, and fails on request."""

import asyncio
import base64
import contextlib
import gzip
import io
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from aiohttp import ClientResponse, ClientSession, ClientTimeout
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageStat

from sandbox.pikzels_server.contract import CODES, FORMATS, MODELS, Problem, check_body
from sandbox.pikzels_server.rendering.painter import SIZES, ThumbnailSpec, paint
from sandbox.pikzels_server.rendering.renderer import IMAGE_MAX, PHOTO
from sandbox.pikzels_server.rendering.typography import Box, typeset
from sandbox.pikzels_server.replies import MEBIBYTE, PNG_SIGNATURE, Reply
from sandbox.pikzels_server.server import StandIn, serve
from tests.support.provider_contract import REQUEST

KEY = {"X-Api-Key": "pkz_sandbox"}
EXAMPLE: Mapping[str, Any] = {
    "prompt": "Make the cat fur white",
    "model": "pkz_4",
    "format": "16:9",
    "image_url": "https://example.com/reference.jpg",
}
PERSONA = "18b2ad5e-2a9e-4d3f-b9a8-9f2a1e0b1234"
DATA_URL = "data:image/jpeg;base64," + base64.b64encode(PHOTO.read_bytes()).decode()
FIXED_IMAGE = PNG_SIGNATURE + bytes(1000)

TEXTS = st.text(max_size=20) | st.sampled_from(["", "a\nb", "a\r", "see HtTp", "u\u2028v", "x" * 3000, "x" * 3001])
URLS = st.sampled_from(
    ["https://a/b", "https://", "http://a", "https://a b", "https://a\n", "HTTPS://a", DATA_URL[:40]]
)
DATA = st.sampled_from([DATA_URL[:60], "data:image/svg+xml;base64,", "data:text/html;base64,AA", "AAAA", ""])
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "prompt": TEXTS | st.none(),
        "image_url": URLS,
        "image_base64": DATA,
        "support_image_url": URLS,
        "support_image_base64": DATA,
        "image_weight": st.sampled_from(["low", "medium", "high", "huge", 1]),
        "model": st.sampled_from([*MODELS, "pkz_5", None]),
        "format": st.sampled_from([*FORMATS, "4:3", True]),
        "persona": st.sampled_from([PERSONA, 7]),
        "style": st.sampled_from([PERSONA, [PERSONA]]),
        "seed": st.integers(),
    },
)


def example_body(**changes: Any) -> dict[str, Any]:
    """The documented example with changes. A field that is changed to Ellipsis is omitted."""
    return {name: value for name, value in ({**EXAMPLE, **changes}).items() if value is not ...}


@pytest.fixture
async def client() -> AsyncIterator[ClientSession]:
    async with ClientSession(timeout=ClientTimeout(total=10)) as session:
        yield session


@pytest.fixture
async def api() -> AsyncIterator[StandIn]:
    """A stand-in that serves a fixed image, for tests that do not need rendering."""
    async with serve(output=FIXED_IMAGE) as standin:
        yield standin


async def create(api: StandIn, client: ClientSession, **changes: Any) -> tuple[int, dict[str, Any]]:
    url = f"{api.base_url}/v2/thumbnail/image"
    async with client.post(url, json=example_body(**changes), headers=KEY) as response:
        return response.status, await response.json()


async def create_image(api: StandIn, client: ClientSession, **changes: Any) -> Image.Image:
    status, success = await create(api, client, **changes)
    assert status == 200, success
    async with client.get(success["output"]) as response:
        return Image.open(io.BytesIO(await response.read()))


@contextlib.asynccontextmanager
async def post(
    api: StandIn,
    client: ClientSession,
    data: bytes | str | io.BytesIO,
    *,
    kind: str = "application/json",
    key: str | None = None,
) -> AsyncIterator[ClientResponse]:
    headers = {"Content-Type": kind, "X-Api-Key": key or "pkz_sandbox"}
    async with client.post(f"{api.base_url}/v2/thumbnail/image", data=data, headers=headers) as response:
        yield response


async def return_image(image: bytes) -> bytes:
    return image


def png(size: tuple[int, int], color: str | int) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB" if isinstance(color, str) else "1", size, color).save(sink, "PNG")
    return sink.getvalue()


def difference(one: Image.Image, other: Image.Image) -> float:
    """The mean pixel difference of two images, 0 to 255."""
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).mean) / 3


class TestContract:
    async def test_accepts_the_documented_example(self, api: StandIn, client: ClientSession) -> None:
        async with client.post(f"{api.base_url}/v2/thumbnail/image", json=dict(EXAMPLE), headers=KEY) as response:
            success = await response.json()
        assert response.status == 200
        assert set(success) == {"output", "request_id"}
        assert success["output"].startswith(f"{api.base_url}/output/")
        assert response.headers["X-Request-Id"] == success["request_id"] == str(UUID(success["request_id"]))

    @pytest.mark.parametrize(
        "changes",
        [
            {"prompt": ...},
            {"prompt": "x" * 3000},
            {"prompt": "see www.example.com"},
            {"model": "pkz_2", "image_weight": "high"},
            {"model": "pkz_4_5", "support_image_url": "https://example.com/a.png"},
            {"support_image_url": "https://example.com/a.png", "support_image_base64": DATA_URL},
            {"image_url": ..., "image_base64": DATA_URL},
            {"persona": PERSONA, "style": PERSONA.upper()},
        ],
    )
    async def test_accepts_every_valid_request(
        self, api: StandIn, client: ClientSession, changes: dict[str, Any]
    ) -> None:
        assert (await create(api, client, **changes))[0] == 200

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"model": ...}, "model"),
            ({"model": "pkz_5"}, "model"),
            ({"model": None}, "model"),
            ({"format": ...}, "format"),
            ({"format": "4:3"}, "format"),
            ({"prompt": ""}, "prompt"),
            ({"prompt": "x" * 3001}, "prompt"),
            ({"prompt": "two\nlines"}, "prompt"),
            ({"prompt": "ends in a line\n"}, "prompt"),
            ({"prompt": "two\u2028lines"}, "prompt"),
            ({"prompt": "see HTTPS://example.com"}, "prompt"),
            ({"prompt": "an hTTp 404 page"}, "prompt"),
            ({"prompt": None}, "prompt"),
            ({"image_url": "http://example.com/a.jpg"}, "image_url"),
            ({"image_url": "https://example.com/a b.jpg"}, "image_url"),
            ({"image_url": "https://"}, "image_url"),
            ({"image_url": ..., "image_base64": "AAAA"}, "image_base64"),
            ({"support_image_url": "ftp://example.com"}, "support_image_url"),
            ({"support_image_base64": "data:text/plain;base64,AAAA"}, "support_image_base64"),
            ({"image_weight": "heavy"}, "image_weight"),
            ({"seed": 7}, "seed"),
            ({"image_url": ...}, None),
            ({"image_base64": DATA_URL}, None),
        ],
    )
    async def test_names_the_invalid_field(
        self, api: StandIn, client: ClientSession, changes: dict[str, Any], field: str | None
    ) -> None:
        status, refused = await create(api, client, **changes)
        assert status == 400
        assert set(refused) == {"error", "request_id"}
        assert set(refused["error"]) == {"code", "message", "details"}
        assert refused["error"]["code"] == "VALIDATION_ERROR"
        assert [entry.get("field") for entry in refused["error"]["details"]] == [field]
        assert all(set(entry) <= {"field", "message"} for entry in refused["error"]["details"])

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"model": "pkz_3", "support_image_url": "https://a/b.png"}, "SUPPORT_IMAGE_NOT_SUPPORTED"),
            ({"model": "pkz_2", "support_image_base64": DATA_URL}, "SUPPORT_IMAGE_NOT_SUPPORTED"),
            ({"persona": "me"}, "INVALID_PERSONA"),
            ({"style": PERSONA + "0"}, "INVALID_STYLE"),
        ],
    )
    async def test_has_a_specific_error_code(
        self, api: StandIn, client: ClientSession, changes: dict[str, Any], code: str
    ) -> None:
        status, refused = await create(api, client, **changes)
        assert (status, refused["error"]["code"]) == (400, code)
        assert set(refused["error"]) == {"code", "message"}

    @settings(deadline=None)
    @given(body=BODIES)
    def test_agrees_with_the_published_schema(self, body: dict[str, Any]) -> None:
        assert (check_body(body) is None) == REQUEST.is_valid(body)

    @pytest.mark.parametrize(
        "data", ["", "null", "[]", '"a"', "{", '{"model": NaN}', "\ufeff{}", b"\xff", "[" * 100_000]
    )
    async def test_refuses_a_body_that_is_not_a_json_object(
        self, api: StandIn, client: ClientSession, data: bytes | str
    ) -> None:
        async with post(api, client, data) as response:
            assert response.status == 400
            assert (await response.json())["error"]["code"] == "VALIDATION_ERROR"

    async def test_refuses_another_content_type(self, api: StandIn, client: ClientSession) -> None:
        async with post(api, client, json.dumps(EXAMPLE), kind="text/plain") as response:
            assert response.status == 400
        async with post(api, client, json.dumps(EXAMPLE), kind="application/json; charset=utf-8") as response:
            assert response.status == 200

    @pytest.mark.parametrize(
        ("key", "code"),
        [
            (None, "MISSING_API_KEY"),
            ("", "MISSING_API_KEY"),
            ("sk_live", "INVALID_API_KEY_FORMAT"),
            ("pkz_other", "INVALID_API_KEY"),
        ],
    )
    async def test_refuses_an_invalid_key(
        self, api: StandIn, client: ClientSession, key: str | None, code: str
    ) -> None:
        headers = {} if key is None else {"X-Api-Key": key}
        for method, path in (("POST", "/v2/thumbnail/image"), ("GET", f"/v2/pikzonality/{PERSONA}")):
            async with client.request(method, api.base_url + path, headers=headers) as response:
                refused = await response.json()
            assert (response.status, refused["error"]["code"]) == (401, code)
            assert response.headers["X-Request-Id"] == refused["request_id"]

    @pytest.mark.parametrize("path", [f"/v2/pikzonality/{PERSONA}", "/v2/thumbnail/image", "/anything", "/"])
    async def test_has_no_other_paths(self, api: StandIn, client: ClientSession, path: str) -> None:
        async with client.get(api.base_url + path, headers=KEY) as response:
            assert response.status == 404
            assert (await response.json())["error"]["code"] == "NOT_FOUND"

    async def test_records_calls_without_their_key(self, api: StandIn, client: ClientSession) -> None:
        _, success = await create(api, client)
        _, refused = await create(api, client, model="pkz_9")
        async with client.get(success["output"]):
            pass
        assert [call.request_id for call in api.calls] == [success["request_id"], refused["request_id"]]
        assert api.calls[0].body == EXAMPLE
        assert api.calls[0].at.tzinfo is not None
        assert "x-api-key" not in api.calls[0].headers
        assert "user-agent" in api.calls[0].headers
        assert (api.calls[0].keyed, api.downloads[0].keyed) == (True, False)


class TestReferenceImage:
    async def test_is_fetched_from_its_url(self, client: ClientSession) -> None:
        async with serve(fetch=lambda url: return_image(png((90, 90), url.rpartition("/")[2]))) as api:
            red = await create_image(api, client, image_url="https://example.com/red", prompt=...)
        assert red.size == (1280, 720)
        assert red.getpixel((640, 300))[0] > 2 * red.getpixel((640, 300))[2]  # type: ignore[index]

    async def test_can_be_a_data_url(self, client: ClientSession) -> None:
        async with serve() as api:
            image = await create_image(api, client, image_url=..., image_base64=DATA_URL, format="1:1")
        assert image.size == (1024, 1024)

    @pytest.mark.parametrize("image", [b"", b"<html>", PNG_SIGNATURE, PHOTO.read_bytes()[:2000]])
    async def test_must_be_readable(self, client: ClientSession, image: bytes) -> None:
        async with serve(fetch=lambda _: return_image(image)) as api:
            status, refused = await create(api, client)
        assert (status, refused["error"]["code"]) == (400, "INVALID_IMAGE")

    async def test_must_be_reachable(self, client: ClientSession) -> None:
        async def unreachable(url: str) -> bytes:
            raise aiohttp.ClientConnectionError(url)

        async with serve(fetch=unreachable) as api:
            assert (await create(api, client))[1]["error"]["code"] == "INVALID_IMAGE"

    async def test_in_base64_must_be_base64(self, client: ClientSession) -> None:
        async with serve() as api:
            _, refused = await create(api, client, image_url=..., image_base64="data:image/png;base64,%%%")
        assert refused["error"]["code"] == "INVALID_IMAGE"

    async def test_must_not_have_too_many_pixels(self, client: ClientSession) -> None:
        async with serve(fetch=lambda _: return_image(png((9001, 8000), 1))) as api:
            assert (await create(api, client))[1]["error"]["code"] == "INVALID_IMAGE"

    async def test_must_not_exceed_ten_megabytes(self, client: ClientSession) -> None:
        async with serve(fetch=lambda _: return_image(bytes(IMAGE_MAX + 1))) as api:
            status, refused = await create(api, client)
        assert (status, refused["error"]["code"]) == (413, "IMAGE_TOO_LARGE")

    async def test_must_not_make_the_body_too_large(self, api: StandIn, client: ClientSession) -> None:
        async with post(api, client, io.BytesIO(bytes(33_000_000))) as response:
            assert response.status == 413
            assert (await response.json())["error"]["code"] == "IMAGE_TOO_LARGE"


class TestPainting:
    @pytest.mark.parametrize("shape", FORMATS)
    async def test_has_the_size_of_its_format(self, client: ClientSession, shape: str) -> None:
        async with serve() as api:
            image = await create_image(api, client, format=shape)
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", SIZES[shape])

    def test_differs_visibly_between_models(self) -> None:
        photo = PHOTO.read_bytes()
        images = [self.paint_image(photo, model=model) for model in MODELS]
        pairs = [(one, other) for index, one in enumerate(images) for other in images[:index]]
        assert min(difference(one, other) for one, other in pairs) > 15

    @pytest.mark.parametrize("model", MODELS)
    def test_differs_between_calls(self, model: str) -> None:
        photo = PHOTO.read_bytes()
        first, second = (self.paint_image(photo, model=model, call=call) for call in (1, 2))
        assert difference(first, second) > 5

    @pytest.mark.parametrize("model", MODELS)
    def test_shows_the_prompt_unless_the_model_ignores_it(self, model: str) -> None:
        photo = PHOTO.read_bytes()
        bare, lettered = (self.paint_image(photo, model=model, prompt=prompt) for prompt in ("", "A white cat"))
        assert (difference(bare, lettered) > 3) == (model != "pkz_2")

    def test_applies_the_image_weight_for_pkz_2(self) -> None:
        photo = PHOTO.read_bytes()
        low, high = (self.paint_image(photo, model="pkz_2", weight=weight) for weight in ("low", "high"))
        assert difference(low, high) > 5

    async def test_shows_the_support_image_in_a_corner(self, client: ClientSession) -> None:
        async with serve(fetch=lambda url: return_image(png((90, 90), url.rpartition("/")[2]))) as api:
            gray = await create_image(api, client, image_url="https://a/grey", support_image_url="https://a/lime")
        corner = gray.crop((1050, 60, 1200, 200))
        assert ImageStat.Stat(corner).mean[1] > 200 > ImageStat.Stat(corner).mean[0]

    def test_accepts_every_image_mode(self) -> None:
        for mode in ("RGBA", "LA", "P", "1", "L", "I;16"):
            sink = io.BytesIO()
            Image.new(mode, (40, 30)).save(sink, "PNG")
            assert self.paint_image(sink.getvalue(), model="pkz_4").size == (1280, 720)

    @pytest.mark.parametrize("shape", FORMATS)
    @pytest.mark.parametrize("model", [model for model in MODELS if model != "pkz_2"])
    def test_keeps_the_text_inside_the_frame(self, model: str, shape: str) -> None:
        specs = (ThumbnailSpec(model=model, format=shape, prompt=prompt) for prompt in ("", "Q@|{}, " + "W|g$jy " * 60))
        photo = png((64, 64), "olive")
        changed = ImageChops.difference(*(Image.open(io.BytesIO(paint(spec, photo))) for spec in specs)).getbbox()
        width, height = SIZES[shape]
        assert changed is not None
        assert min(changed[0], changed[1], width - changed[2], height - changed[3]) >= 4

    @settings(max_examples=50, deadline=None)
    @given(
        text=st.text(max_size=200) | st.sampled_from(["W" * 3000, "W " * 1500, "it's a very long headline " * 100]),
        width=st.integers(400, 1280),
        height=st.integers(120, 600),
    )
    @example(text="00000) 0", width=400, height=174)  # a parenthesis is taller than a capital
    def test_keeps_the_text_inside_its_box(self, text: str, width: int, height: int) -> None:
        box = Box(100, 100, 100 + width, 100 + height)
        layout = typeset(text, box=box, sizes=(150, 45))
        if layout is None:
            return
        ink = layout.mask((width + 200, height + 200), words=layout.words, grow=8).getbbox()
        assert ink is None or (ink[0] >= 80 and ink[1] >= 80 and ink[2] <= width + 120 and ink[3] <= height + 145)

    def paint_image(self, photo: bytes, *, model: str, **details: Any) -> Image.Image:
        return Image.open(io.BytesIO(paint(ThumbnailSpec(model=model, format="16:9", **details), photo)))


class TestReplies:
    @pytest.mark.parametrize("code", CODES)
    async def test_error_has_its_status_and_envelope(self, api: StandIn, client: ClientSession, code: str) -> None:
        api.script(Reply.error(code))
        status, refused = await create(api, client)
        assert (status, refused["error"]["code"]) == (CODES[code][0], code)
        assert set(refused["error"]) == {"code", "message"}
        assert refused["request_id"] == api.calls[0].request_id
        assert (await create(api, client))[0] == 200

    async def test_error_can_have_details_and_a_retry_time(self, api: StandIn, client: ClientSession) -> None:
        api.script(
            Reply.error("VALIDATION_ERROR", details=(Problem("no"), Problem("bad", "style"))),
            Reply.error("TOO_MANY_REQUESTS", retry_after="3"),
        )
        _, refused = await create(api, client)
        assert refused["error"]["details"] == [{"message": "no"}, {"field": "style", "message": "bad"}]
        async with post(api, client, json.dumps(EXAMPLE)) as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "3")

    def test_error_rejects_an_unknown_code(self) -> None:
        with pytest.raises(ValueError, match="NO_SUCH"):
            Reply.error("NO_SUCH")

    async def test_raw_is_sent_unchanged(self, api: StandIn, client: ClientSession) -> None:
        api.script(Reply.raw(418, b"{]", {"Content-Type": "text/x", "X-Odd": "1"}), Reply.html(502))
        async with post(api, client, json.dumps(EXAMPLE)) as response:
            assert (response.status, await response.read()) == (418, b"{]")
            assert (response.headers["Content-Type"], response.headers["X-Odd"]) == ("text/x", "1")
        async with post(api, client, json.dumps(EXAMPLE)) as response:
            assert (response.status, response.content_type) == (502, "text/html")

    async def test_ok_can_have_extra_fields(self, api: StandIn, client: ClientSession) -> None:
        api.script(Reply.ok(extra={"model": "pkz_4", "output": None}))
        _, success = await create(api, client)
        assert success == {"output": None, "request_id": api.calls[0].request_id, "model": "pkz_4"}

    async def test_always_applies_while_the_queue_is_empty(self, api: StandIn, client: ClientSession) -> None:
        api.always(Reply.error("CONFLICT"))
        api.script(Reply.ok())
        assert [(await create(api, client))[0] for _ in range(3)] == [200, 409, 409]

    async def test_an_invalid_request_consumes_no_reply(self, api: StandIn, client: ClientSession) -> None:
        api.script(Reply.error("CONFLICT"))
        assert [(await create(api, client, format=shape))[0] for shape in ("2:1", "1:1")] == [400, 409]

    async def test_redirect_sends_its_location(self, api: StandIn, client: ClientSession) -> None:
        api.script(Reply.redirect("https://example.com/"))
        url = f"{api.base_url}/v2/thumbnail/image"
        async with client.post(url, json=example_body(), headers=KEY, allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (307, "https://example.com/")

    @pytest.mark.parametrize("reply", [Reply.ok(delay=0.2), Reply.error("CONFLICT").after(0.2)])
    async def test_delay_postpones_the_answer(self, api: StandIn, client: ClientSession, reply: Reply) -> None:
        api.script(reply)
        assert await self.seconds(api, client) >= 0.2

    async def test_the_server_delays_only_successful_answers(self, client: ClientSession) -> None:
        async with serve(delay=0.2, output=FIXED_IMAGE) as api:
            api.script(Reply.error("CONFLICT"))
            assert await self.seconds(api, client) < 0.2
            assert await self.seconds(api, client) >= 0.2

    async def test_hold_waits_for_the_release(self, api: StandIn, client: ClientSession) -> None:
        api.script(Reply.hold(), Reply.hold(), Reply.ok())
        held = [asyncio.create_task(create(api, client)) for _ in range(2)]
        await api.called(2)
        assert (await create(api, client))[0] == 200
        assert not any(task.done() for task in held)
        api.release()
        assert [status for status, _ in await asyncio.gather(*held)] == [200, 200]

    async def test_waiting_for_missing_calls_times_out(self, api: StandIn) -> None:
        with pytest.raises(TimeoutError):
            await api.called(1, timeout=0.01)

    @pytest.mark.parametrize("when", ["before_request", "after_request"])
    async def test_reset_resets_the_connection(self, api: StandIn, when: Any) -> None:
        api.script(Reply.reset(when=when))
        with pytest.raises(ConnectionResetError):
            await self.bytes_received(api)
        assert [call.body for call in api.calls] == [None if when == "before_request" else EXAMPLE]

    async def test_reset_mid_body_sends_part_of_the_body(self, api: StandIn, client: ClientSession) -> None:
        api.script(Reply.reset(when="mid_body"))
        async with post(api, client, json.dumps(EXAMPLE)) as response:
            assert response.status == 200
            with pytest.raises(aiohttp.ClientError):
                await response.read()

    async def test_truncated_closes_cleanly_but_early(self, api: StandIn) -> None:
        api.script(Reply.truncated())
        head, _, body = (await self.bytes_received(api)).partition(b"\r\n\r\n")
        assert f"Content-Length: {2 * len(body)}".encode() in head or f"{2 * len(body) + 1}".encode() in head

    async def test_drip_sends_the_whole_answer_slowly(self, api: StandIn, client: ClientSession) -> None:
        api.script(Reply.drip(every=0.01, limit=20))
        async with post(api, client, json.dumps(EXAMPLE)) as response:
            first = await response.content.readany()
            assert len(first) < 20
            assert json.loads(first + await response.read())["request_id"] == api.calls[0].request_id

    @pytest.mark.parametrize("reply", [Reply.hang(), Reply.hold(), Reply.ok(delay=60), Reply.drip(every=60)])
    async def test_closing_ends_every_pending_reply(self, client: ClientSession, reply: Reply) -> None:
        async with asyncio.timeout(5):
            async with serve(output=FIXED_IMAGE) as api:
                api.script(reply)
                call = asyncio.create_task(create(api, client))
                await api.called(1)
            with pytest.raises(aiohttp.ClientError):
                await call

    async def seconds(self, api: StandIn, client: ClientSession) -> float:
        started = asyncio.get_running_loop().time()
        await create(api, client)
        return asyncio.get_running_loop().time() - started

    async def bytes_received(self, api: StandIn) -> bytes:
        """Every byte that a plain connection receives in response to the example."""
        reader, writer = await asyncio.open_connection("127.0.0.1", int(api.base_url.rpartition(":")[2]))
        body = json.dumps(EXAMPLE).encode()
        head = f"POST /v2/thumbnail/image HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
        writer.write(f"{head}Content-Type: application/json\r\nX-Api-Key: pkz_sandbox\r\n\r\n".encode() + body)
        try:
            return await asyncio.wait_for(reader.read(), 5)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


class TestOutput:
    async def test_is_the_configured_image(self, api: StandIn, client: ClientSession) -> None:
        async with await self.download(api, client) as response:
            assert (response.status, response.content_type) == (200, "image/png")
            assert await response.read() == FIXED_IMAGE

    async def test_is_not_found_if_it_was_never_rendered(self, client: ClientSession) -> None:
        async with serve() as api, client.get(f"{api.base_url}/output/{PERSONA}.png") as response:
            assert response.status == 404

    async def test_can_be_missing_redirected_a_page_or_wrong_bytes(self, api: StandIn, client: ClientSession) -> None:
        wrong = Reply.raw(200, b"MZ", {"Content-Type": "image/png"})
        api.script_output(Reply.raw(404), Reply.redirect("https://example.com/"), Reply.html(200), wrong)
        api.always_output(Reply.error("INTERNAL_ERROR"))
        statuses = []
        for _ in range(5):
            async with await self.download(api, client) as response:
                statuses.append((response.status, response.content_type))
        assert statuses == [
            (404, "application/octet-stream"),
            (307, "application/octet-stream"),
            (200, "text/html"),
            (200, "image/png"),
            (500, "application/json"),
        ]

    async def test_can_be_endless(self, api: StandIn, client: ClientSession) -> None:
        api.script_output(Reply.endless(), Reply.endless(limit=MEBIBYTE))
        async with await self.download(api, client) as response:
            assert response.content_length is None
            assert (await response.content.readexactly(5 * MEBIBYTE)).startswith(PNG_SIGNATURE)
        async with await self.download(api, client) as response:
            assert len(await response.read()) == MEBIBYTE + len(PNG_SIGNATURE)

    async def test_can_be_a_gzip_bomb(self, api: StandIn) -> None:
        api.script_output(Reply.gzip_bomb(size=4 * MEBIBYTE))
        async with ClientSession(auto_decompress=False) as client, await self.download(api, client) as response:
            packed = await response.read()
            assert response.headers["Content-Encoding"] == "gzip"
        assert len(packed) < 8_000
        assert gzip.decompress(packed) == bytes(4 * MEBIBYTE)

    @pytest.mark.parametrize("reply", [Reply.truncated(), Reply.reset("mid_body")])
    async def test_can_break_off(self, api: StandIn, client: ClientSession, reply: Reply) -> None:
        api.script_output(reply)
        async with await self.download(api, client) as response:
            with pytest.raises(aiohttp.ClientError):
                await response.read()

    async def test_can_hang_or_reset(self, api: StandIn, client: ClientSession) -> None:
        # aiohttp's client retries a GET once if the connection breaks.
        api.script_output(Reply.hang(), Reply.reset(), Reply.reset())
        silent = asyncio.create_task(self.download(api, client))
        await api.downloaded(1)
        with pytest.raises(aiohttp.ClientError):
            await self.download(api, client)
        api.close()
        with pytest.raises(aiohttp.ClientError):
            await silent

    async def test_can_be_held_or_drip(self, api: StandIn, client: ClientSession) -> None:
        api.script_output(Reply.hold(), Reply.drip(every=0, limit=10))
        held = asyncio.create_task(self.download(api, client))
        await api.downloaded(1)
        async with await self.download(api, client) as response:
            assert await response.read() == FIXED_IMAGE
        assert not held.done()
        api.release()
        async with await held as response:
            assert await response.read() == FIXED_IMAGE

    async def download(self, api: StandIn, client: ClientSession) -> ClientResponse:
        return await client.get(f"{api.base_url}/output/{PERSONA}.png", allow_redirects=False)


class TestCommand:
    @pytest.mark.skipif(os.name == "nt", reason="Windows delivers Ctrl-C to child processes differently")
    async def test_serves_until_interrupted(self, client: ClientSession) -> None:
        arguments = [
            "-m",
            "sandbox.pikzels_server",
            "--port",
            "0",
            "--delay",
            "0",
            "--key",
            "pkz_a",
            "--always",
            "CONFLICT",
        ]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, cwd=Path(__file__).parents[2], stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        url = (await asyncio.wait_for(process.stdout.readline(), 10)).decode().strip()
        headers = {"X-Api-Key": "pkz_a"}
        async with client.post(f"{url}/v2/thumbnail/image", json=example_body(), headers=headers) as response:
            assert response.status == 409
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 10) == 0
