"""Another name of `python -m sandbox.launch`."""

from __future__ import annotations

import sys

from sandbox.launch import launch

if __name__ == "__main__":
    raise SystemExit(launch(sys.argv[1:]))
