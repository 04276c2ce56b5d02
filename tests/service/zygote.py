"""A process that has imported everything and forks a `pulmofuse` for each line on its input.

Importing the networks' library takes seconds, of which a test that starts ten services has no use.

    {"start": [words], "log": path}  ->  process id
    {"wait": process id}             ->  exit code as subprocess has it; blocks
    {"poll": process id}             ->  the same, or null while it runs
"""

from __future__ import annotations

import json
import os
import sys

import pulmofuse.service  # noqa: F401  # what costs the time
from pulmofuse import cli


def start(words: list[str], log: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(target, 1)
    os.dup2(target, 2)
    sys.argv = ["pulmofuse", *words]
    try:
        cli.main()
    except SystemExit as stop:
        os._exit(stop.code if isinstance(stop.code, int) else 1)
    os._exit(0)


def ended(pid: int, options: int) -> int | None:
    found, status = os.waitpid(pid, options)
    return os.waitstatus_to_exitcode(status) if found else None


for line in sys.stdin:
    asked = json.loads(line)
    if "start" in asked:
        answer = start(asked["start"], asked["log"])
    elif "wait" in asked:
        answer = ended(asked["wait"], 0)
    else:
        answer = ended(asked["poll"], os.WNOHANG)
    print(json.dumps(answer), flush=True)  # noqa: T201
