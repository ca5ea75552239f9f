"""Everything the use case talks to, in one bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from bot.domain.protocols import (
        ImageDownloader,
        JobLog,
        JobRepository,
        Messenger,
        Metrics,
        OutputSpool,
        Provider,
        SourceImages,
    )
    from bot.jobs.notices import Notices
    from bot.jobs.queue import RequestQueue
    from bot.jobs.refill import Refill


@dataclass(frozen=True, slots=True)
class Ports:
    """Every effect of the use case passes one of these, so wrapping them is enough to watch or to fail any of them."""

    queue: RequestQueue
    repository: JobRepository
    sources: SourceImages
    provider: Provider
    downloader: ImageDownloader
    spool: OutputSpool
    messenger: Messenger
    notices: Notices
    refill: Refill
    metrics: Metrics
    job_log: JobLog
    clock: Callable[[], datetime]
