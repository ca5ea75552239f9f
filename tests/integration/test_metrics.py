"""The metrics, as Prometheus reads them from the running bot."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bot import __version__
from bot.domain.errors import OutcomeUnknown, ProviderRefused
from bot.domain.models import Model
from bot.ops.exposition import Exposition
from bot.ops.metrics import Metrics
from sandbox.pikzels_server.replies import Reply
from tests.support.e2e import books
from tests.support.factories import NOON, a_job
from tests.support.monitored import monitored, samples
from tests.support.use_case_harness import UseCaseHarness, run

if TYPE_CHECKING:
    from pathlib import Path

B = "pikzels_bot_"


def of(found: dict[str, float], name: str) -> dict[str, float]:
    """The samples of a metric that are not 0, by their labels."""
    return {key[len(B + name) :]: value for key, value in found.items() if key.startswith(f"{B}{name}{{") and value}


async def test_jobs_and_money_are_counted_as_the_ledger_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with monitored(tmp_path, monkeypatch, quota={"costs": {"pkz_4": 3}}) as bot:
        await bot.live.made(model="pkz_4")
        await bot.live.made()
        bot.live.api.script(Reply.error("CONTENT_POLICY"), Reply.reset())
        await bot.live.said()
        await bot.live.said()
        await bot.live.app.use_case.recovery.idle(10)
        found = await bot.metrics()
    jobs, entries = books(tmp_path)
    ended = Counter((job["reason"] or job["state"]).partition(":")[0] for job in jobs)
    assert ended == {"delivered": 2, "provider_refused": 1, "outcome_unknown": 1}
    assert of(found, "jobs_ended_total") == {
        '{model="pkz_4",outcome="delivered"}': 1,
        '{model="pkz_4_5",outcome="delivered"}': 1,
        '{model="pkz_4_5",outcome="provider_refused"}': 1,
        '{model="pkz_4_5",outcome="outcome_unknown"}': 1,
    }
    kinds = {"held": "hold", "charged": "charge", "released": "release"}
    for name, kind in kinds.items():
        credits_ = sum(abs(entry["held"]) for entry in entries if entry["kind"] == kind)
        assert found[f"{B}{name}_credits_total"] == credits_ > 0
    price = {kind: sum(entry["price"] for entry in entries if entry["kind"] == kind) for kind in kinds.values()}
    assert found[f"{B}held_dollars_total"] == price["hold"] / 1e6 == pytest.approx(0.36 + 3 * 0.13)
    assert found[f"{B}released_dollars_total"] == -price["release"] / 1e6 == 0.13
    assert found[f"{B}spent_dollars_total"] == sum(price.values()) / 1e6
    assert found[f"{B}charged_dollars_total"] == pytest.approx(0.36 + 0.13)


async def test_calls_requests_and_waits_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with monitored(tmp_path, monkeypatch) as bot:
        bot.live.api.script(Reply.error("CONTENT_POLICY"), Reply.error("NOT_FOUND"))
        await bot.live.said()
        await bot.live.said()
        await bot.live.made(model="pkz_2")
        bot.live.discord.fail("POST", "/interactions/*", status=500)
        await bot.live.made(model="pkz_2")
        found = await bot.metrics()
    assert of(found, "provider_calls_total") == {
        '{code="ok"}': 2,
        '{code="CONTENT_POLICY"}': 1,
        '{code="NOT_FOUND"}': 1,
    }
    assert of(found, "provider_call_duration_seconds_count") == {'{model="pkz_2"}': 2, '{model="pkz_4_5"}': 2}
    assert found[f'{B}provider_call_duration_seconds_bucket{{le="300.0",model="pkz_2"}}'] == 2
    assert 0 < found[f'{B}provider_call_duration_seconds_sum{{model="pkz_2"}}'] < 60
    assert found[f"{B}queue_wait_seconds_count"] == 4
    statuses = of(found, "discord_requests_total")
    assert statuses['{status="500"}'] == 1
    assert statuses['{status="200"}'] > 4
    assert found[f"{B}discord_request_duration_seconds_count"] == sum(statuses.values())


async def test_every_series_is_there_from_the_start_and_follows_the_conventions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with monitored(tmp_path, monkeypatch, connect=False) as bot:
        first = await bot.metrics()
        assert first[f"{B}gateway_connected"] == 0
        await bot.live.connect()
        bot.live.api.script(Reply.error("CONTENT_POLICY"), Reply.reset())
        await bot.live.said()
        await bot.live.said()
        await bot.live.made()
        await bot.live.discord.drop_gateway()
        later = await bot.metrics_once(f'{B}gateway_connections_total{{session="resumed"}}', 1)
    assert first.keys() == later.keys()
    assert first[f'{B}build_info{{version="{__version__}"}}'] == 1
    assert any(name.startswith("python_info{") for name in first)
    assert {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"} <= first.keys()
    assert not [name for name in first if "_created" in name]
    own = {name.partition("{")[0].removeprefix(B) for name in first if name.startswith(B)}
    counted = {name for name in own if name.endswith("_total")}
    started = {name: first[key] for key in first for name in counted if key.partition("{")[0] == B + name}
    assert started.pop("discord_requests_total") == 0
    assert set(started.values()) == {0}
    assert {name.rpartition("_")[2] for name in own - counted} <= {
        *("info", "bytes", "seconds", "bucket", "sum", "count"),
        *("length", "open", "connected", "shards", "progress", "ready"),
    }


async def test_the_state_of_the_bot_is_read_at_every_scrape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with monitored(tmp_path, monkeypatch) as bot:
        bot.live.api.script(Reply.hold())
        await bot.live.thumbnail()
        await bot.live.api.called(1)
        during = await bot.metrics()
        assert (during[f"{B}provider_calls_in_progress"], during[f"{B}jobs_in_progress"]) == (1, 1)
        bot.live.api.release()
        await bot.live.app.use_case.recovery.idle(10)
        (tmp_path / "spool" / "k3f9.part").write_bytes(bytes(1000))
        bot.live.api.script(Reply.error("INSUFFICIENT_CREDITS"))
        await bot.live.said()
        await bot.live.app.use_case.recovery.idle(10)
        await bot.live.discord.drop_gateway()
        after = await bot.metrics_once(f'{B}gateway_connections_total{{session="resumed"}}', 1)
    assert (after[f"{B}provider_calls_in_progress"], after[f"{B}spool_bytes"]) == (0, 1000)
    assert of(after, "circuit_open") == {'{circuit="balance"}': 1}
    assert after[f'{B}ready{{part="circuits"}}'] == 0
    assert after[f'{B}ready{{part="database"}}'] == 1
    assert after[f"{B}sources_bytes"] == sum(file.stat().st_size for file in (tmp_path / "sources").iterdir()) > 0
    assert after[f"{B}disk_free_bytes"] > 1e6
    assert of(after, "gateway_connections_total") == {'{session="new"}': 1, '{session="resumed"}': 1}


# --- the counters -----------------------------------------------------------------------------------------------------


async def scraped(metrics: Metrics) -> dict[str, float]:
    return samples((await Exposition(metrics).render({})).decode())


async def test_two_bots_in_one_process_do_not_add_up() -> None:
    first, second = Metrics(), Metrics()
    first.started()
    assert (await scraped(second))[f"{B}jobs_started_total"] == 0


async def test_an_image_that_was_made_and_not_delivered_is_spent_and_not_charged() -> None:
    metrics = Metrics({Model.PKZ_2: 200_000})
    made = replace(a_job(model=Model.PKZ_2), generated_at=NOON)
    metrics.ended("undeliverable", made)
    found = await scraped(metrics)
    assert found[f"{B}released_credits_total"] == 1
    assert found[f"{B}spent_dollars_total"] == 0.2
    assert (found[f"{B}released_dollars_total"], found[f"{B}charged_dollars_total"]) == (0, 0)


async def test_a_histogram_counts_what_is_at_most_its_bound() -> None:
    metrics = Metrics()
    for seconds in (0.05, 0.051, 31):
        metrics.requested(200, seconds)
    metrics.requested(None, 1)
    metrics.requested(418, 1)
    found = await scraped(metrics)
    name = f"{B}discord_request_duration_seconds"
    assert [found[f'{name}_bucket{{le="{bound}"}}'] for bound in ("0.05", "0.1", "30.0", "+Inf")] == [1, 2, 4, 5]
    assert found[f"{name}_count"] == 5
    assert found[f"{name}_sum"] == pytest.approx(33.101)
    assert of(found, "discord_requests_total") == {'{status="200"}': 3, '{status="none"}': 1, '{status="other"}': 1}


async def test_a_gauge_that_cannot_be_read_is_not_a_number_and_hides_no_other() -> None:
    def gone() -> float:
        raise FileNotFoundError

    metrics = Metrics()
    metrics.watch("spool_bytes", "Bytes", gone, slow=True)
    metrics.watch("queue_length", "Requests", lambda: 3)
    found = await scraped(metrics)
    assert str(found[f"{B}spool_bytes"]) == "nan"
    assert found[f"{B}queue_length"] == 3


def test_what_no_contract_names_makes_no_new_series() -> None:
    metrics = Metrics()
    before = (metrics.calls.keys(), metrics.requests.keys())
    metrics.called(Model.PKZ_2, ProviderRefused("MADE_UP", 400), 1)
    metrics.called(Model.PKZ_2, OutcomeUnknown("reset"), 1)
    metrics.requested(299, 1)
    assert (metrics.calls.keys(), metrics.requests.keys()) == before
    assert metrics.calls["unknown_code"] == metrics.calls["outcome_unknown"] == metrics.requests["other"] == 1


def test_a_hold_is_counted_for_every_accepted_request() -> None:
    async def scenario(harness: UseCaseHarness) -> None:
        job = await harness.accept()
        await harness.ended(job)
        assert [held.id for held in harness.operator.holds] == [job.id]

    run(scenario)
