"""The page of the demo, used as a browser uses it: over HTTP, one action after the other."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp

from sandbox import apps_menu, demo, live, page, simulated
from sandbox.pikzels_server.replies import Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    import pytest

CAT = demo.PHOTO.read_bytes()


class Browser:
    """One open page. `state` is what it shows."""

    def __init__(self, http: aiohttp.ClientSession, address: str) -> None:
        parts = urlsplit(address)
        self._http = http
        self._root = f"http://{parts.netloc}"
        self._headers = {"X-Simcord-Capability": parts.fragment}
        self._sequence = 0
        self.state: dict[str, Any] = {}

    async def open(self, viewer: int) -> None:
        self.state = await self._request("POST", "/api/pages", json={"viewer_id": str(viewer)})
        self._headers["X-Simcord-Context"] = self.state["context"]["id"]

    async def look(self) -> list[dict[str, Any]]:
        """The messages on the page, oldest first."""
        self.state = await self._request("GET", "/api/state")
        return [self.state["messages"][key] for key in self.state["timeline"]]

    async def sees(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until the newest message is one for which `condition` holds."""
        async with asyncio.timeout(15):
            while not (messages := await self.look()) or not condition(messages[-1]):  # noqa: ASYNC110 - a page polls
                await asyncio.sleep(0.02)
        return messages[-1]

    async def act(self, kind: str, file: bytes | None = None, **what: Any) -> dict[str, Any]:
        await self.look()
        self._sequence += 1
        body = {
            "protocol_version": 3,
            "sequence": self._sequence,
            "request_id": str(self._sequence),
            "generation": self.state["context"]["generation"],
            "bot_generation": self.state["botGeneration"],
            "published_revision": self.state["publishedRevision"],
            "kind": kind,
            **what,
        }
        form = aiohttp.FormData({"payload": json.dumps(body)})
        if file is not None:
            form.add_field("file:image", file, filename="cat.jpg")
        sent = {"json": body} if file is None else {"data": form}
        receipt: dict[str, Any] = await self._request("POST", "/api/action", **sent)
        assert receipt["settlement"] == "settled", receipt
        return receipt

    async def command(self, name: str, file: bytes | None = None, **options: Any) -> dict[str, Any]:
        entry = await self._entry(name)
        if file is not None:
            options["image"] = {"upload": 0}
        return await self.act(
            "run_command",
            file,
            command_id=entry["commandId"],
            path=entry["path"],
            schema_fingerprint=entry["schemaFingerprint"],
            options=options,
        )

    async def offered(self, name: str, option: str, typed: str) -> list[str]:
        """The names that the bot offers for what is typed."""
        entry = await self._entry(name)
        answer = await self.act(
            "autocomplete_command",
            command_id=entry["commandId"],
            path=entry["path"],
            schema_fingerprint=entry["schemaFingerprint"],
            options={},
            focused=option,
            value=typed,
        )
        return [choice["name"] for choice in answer["result"]["choices"]]

    async def asset(self, identity: str) -> bytes:
        async with self._http.get(f"{self._root}/api/assets/{identity}", headers=self._headers) as response:
            assert response.status == 200
            return await response.read()

    async def _entry(self, name: str) -> Any:
        catalog = await self._request("GET", "/api/commands")
        [entry] = [each for each in catalog["entries"] if each["invocation"] == name]
        return entry

    async def _request(self, method: str, path: str, **what: Any) -> Any:
        async with self._http.request(method, self._root + path, headers=self._headers, **what) as response:
            assert response.status == 200, await response.text()
            return await response.json()


@asynccontextmanager
async def demo_page(
    folder: Path, **sections: Any
) -> AsyncIterator[tuple[simulated.SimulatedServer, page.Page, Browser]]:
    """The page as `bot demo` serves it, opened by the member "you". Images are made when the test releases them."""
    settings = {**demo.PAGE_SETTINGS, **sections}
    async with simulated.opened(folder, sections=settings, is_live=True) as server:
        server.api.always(Reply(held=True))
        you = server.member("you")
        async with page.opened(server, viewers=[you], port=None) as opened, aiohttp.ClientSession() as http:
            browser = Browser(http, opened.address)
            await browser.open(you.id)
            yield server, opened, browser
            server.api.always(Reply())
            server.api.release()


async def release(server: simulated.SimulatedServer, *, call: int = 1) -> None:
    """Let the provider finish the image of the so-manieth call."""
    await server.api.called(call)
    server.api.release()


def content(message: dict[str, Any]) -> str:
    return str(message["content"])


def has_image(message: dict[str, Any]) -> bool:
    return bool(message["attachments"])


def buttons(message: dict[str, Any]) -> dict[str, str]:
    """The control keys of a message's buttons, by label."""
    controls = [control for row in message["components"] for control in row["components"]]
    return {control["label"]: control["control_key"] for control in controls}


async def test_the_page_shows_that_an_image_is_being_made_and_then_the_image(tmp_path: Path) -> None:
    async with demo_page(tmp_path) as (server, _, browser):
        await browser.command("thumbnail", CAT, prompt="a cat")
        assert content((await browser.look())[-1]).startswith("Generating · #")
        await release(server)
        result = await browser.sees(has_image)
        assert "Again" in buttons(result)


async def test_a_request_that_waits_can_be_cancelled_on_the_page(tmp_path: Path) -> None:
    async with demo_page(tmp_path) as (server, _, browser):
        await browser.command("thumbnail", CAT)
        await browser.command("thumbnail", CAT)
        waiting = (await browser.look())[-1]
        assert content(waiting).startswith("Queued · #")
        await browser.act("click", target_id=waiting["id"], control_key=buttons(waiting)["Cancel"])
        await browser.sees(lambda message: "cancelled" in content(message).lower())
        await release(server)
        assert len(server.api.calls) == 1


async def test_the_history_on_the_page_has_images(tmp_path: Path) -> None:
    async with demo_page(tmp_path) as (server, _, browser):
        await browser.command("thumbnail", CAT)
        await release(server)
        await browser.sees(has_image)
        await browser.command("history")
        [entry] = (await browser.look())[-1]["embeds"]
        assert entry["thumbnail"]["available"]
        assert (await browser.asset(entry["thumbnail"]["asset_id"])).startswith(b"\x89PNG")


async def test_time_passes_on_the_page_and_credits_come_back_the_next_day(tmp_path: Path) -> None:
    async with demo_page(tmp_path, quota={"member_daily": 1}) as (server, opened, browser):
        before = server.env.now()
        await browser.command("thumbnail", CAT)
        await release(server)
        await browser.sees(has_image)
        assert server.env.now() > before
        await browser.command("thumbnail", CAT)
        assert "used 1 of 1 credit today" in content((await browser.look())[-1])
        await demo.move_to_next_day(server, opened)
        assert server.env.now().date() > before.date()
        await browser.command("thumbnail", CAT)
        assert content((await browser.look())[-1]).startswith("Generating")


def test_the_clock_follows_the_clock_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    at = 1_800_000_000.0
    monkeypatch.setattr("sandbox.live.time.time", lambda: at)
    clock = live.MovingClock()
    at += 8 * 3600  # the machine was suspended
    assert (clock.elapsed, clock.now().timestamp()) == (8 * 3600, at)
    at -= 3600  # somebody set it back
    assert clock.elapsed == 8 * 3600


async def test_personas_and_styles_are_offered_by_name(tmp_path: Path) -> None:
    async with demo_page(tmp_path) as (_, _, browser):
        assert await browser.offered("thumbnail", "persona", "m") == ["game streamer", "mascot"]
        assert await browser.offered("thumbnail", "style", "") == ["comic", "neon"]


async def test_the_menu_of_a_message_has_a_command_on_the_page(tmp_path: Path) -> None:
    async with demo_page(tmp_path) as (server, opened, browser):
        friend = server.member("friend")
        await browser.command(apps_menu.NAME)
        assert content((await browser.look())[-1]) == "There is no such message with an image."
        await friend.send(server.channel, "look", attachments=[("cat.jpg", CAT)])
        await opened.publish()
        assert await browser.offered(apps_menu.NAME, "message", "cat") == ["friend: cat.jpg"]
        await browser.command(apps_menu.NAME)
        await browser.look()
        form = browser.state["modal"]
        values = {"prompt": "a cat", "model": ["pkz_4"], "format": ["1:1"]}
        await browser.act("modal_submit", modal_handle=form["handle"], values=values)
        assert content((await browser.look())[-1]).startswith("Generating")
        await release(server)
        await browser.sees(has_image)
        assert server.api.calls[0].body["prompt"] == "a cat"


async def test_the_terminal_says_once_what_to_do_without_credits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with simulated.opened(tmp_path, sections={"quota": {"member_daily": 1}}) as server:
        friend = server.member("friend")
        told = await demo.tell_credits(server, [friend], frozenset())
        assert (told, capsys.readouterr().out) == (frozenset(), "")
        await friend.slash(server.channel, "thumbnail", image=("cat.jpg", CAT))
        told = await demo.tell_credits(server, [friend], told)
        said = capsys.readouterr().out
        assert "“friend” has used all credits of today." in said
        assert "/thumbnail-admin grant member:friend amount:10" in said
        await demo.tell_credits(server, [friend], told)
        assert capsys.readouterr().out == ""
