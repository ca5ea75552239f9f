"""The image service of `benchmarks.burst`, in a process of its own: one picture for every call.

Says its address on the first line; for every line it reads, it says how often it was called.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from sandbox import pikzels_server


async def _run(picture: bytes, delay: float) -> None:
    async with pikzels_server.serve(output=picture, delay=delay) as api:
        print(api.base_url, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(len(api.calls), flush=True)


if __name__ == "__main__":
    asyncio.run(_run(Path(sys.argv[1]).read_bytes(), float(sys.argv[2])))
