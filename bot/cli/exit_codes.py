"""The exit codes of the commands. Those from 64 on are from sysexits.h, so that a process supervisor can tell "fix it,
then restart" from "restart".
"""

from __future__ import annotations

OK = 0
FAILED = 1  # what was asked for could not be done; a sentence says why
USAGE = 64  # the command line is wrong
FAULT = 70  # an internal error
STORAGE = 74
CONFIG = 78
INTERRUPTED = 130  # by Ctrl-C, as shells report it
