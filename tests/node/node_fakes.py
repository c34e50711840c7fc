"""A small child for tests of the node, and a node in a process of its own. Run as `python node_fakes.py MODE
ARGUMENTS`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from outlast import operations as op
from outlast.liveness import Pulse
from outlast.settings import resolve
from outlast.store.process import this_process
from outlast.store.sqlite import SqliteStore


def agent(database: str, mode: str, number: int) -> None:
    """Registers, beats and leaves on SIGTERM, but for what `mode` says: a word, or words for each number."""
    store = SqliteStore(database)
    who = this_process()
    settings = resolve()
    lease = round(settings.lease_seconds * 1_000_000)
    code = {"workflow:w": "f"}
    agent_id = store.commit(op.RegisterAgent(f"{who.pid}-{time.time()}", who.host, who.boot_id, who.pid, who.started, 8, None, lease, code))
    ended: list[int] = []
    signal.signal(signal.SIGTERM, signal.SIG_IGN if mode == "deaf" else lambda number, _: ended.append(number))
    if mode == "claims" and number:
        store.commit(op.Claim(agent_id, 10, code))
    if mode == "parent":
        subprocess.Popen(["sleep", "600"])
    pulse = Pulse()
    if mode == "hangs":
        time.sleep(600)
    if mode == "locks":
        with store.transaction():
            time.sleep(600)
    renewed = time.monotonic()
    while not ended:
        pulse.beat()
        if time.monotonic() - renewed > settings.lease_seconds / 3:
            renewed = time.monotonic()
            store.commit(op.Heartbeat(agent_id, lease))
        time.sleep(0.02)
        if mode == "solo" and not number:
            break
    store.commit(op.LeaveAgent(agent_id))
    store.close()


def node(database: str, mode: str, options: dict[str, Any]) -> int:
    """A node of such children, in the main thread of this process; says what happens on stdout."""
    from outlast.node import Node

    def say(text: str) -> None:
        print(text, flush=True)

    made = Node(database, [], resolve(), on_event=say, command=commands(database, mode), **options)
    return made.run()


def commands(database: str, mode: str) -> Any:
    return lambda number: [sys.executable, str(Path(__file__)), "agent", database, mode, str(number)]


if __name__ == "__main__":
    os.environ.setdefault("OUTLAST_LEASE", "30s")
    if sys.argv[1] == "agent":
        agent(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        sys.exit(node(sys.argv[2], sys.argv[3], json.loads(sys.argv[4])))
