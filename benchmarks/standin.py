"""The image service for `benchmarks.burst`. It runs in its own process and returns the same image for every call.

It prints its address on the first line, and its number of calls for every line that it reads.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from sandbox import pikzels_server


async def _run(image: bytes, delay: float) -> None:
    async with pikzels_server.serve(output=image, delay=delay) as api:
        print(api.base_url, flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(len(api.calls), flush=True)


if __name__ == "__main__":
    asyncio.run(_run(Path(sys.argv[1]).read_bytes(), float(sys.argv[2])))
