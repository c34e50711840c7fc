"""A backlog of no-op tasks on Huey's SQLite storage, drained by its consumer: prints tasks a second.

    python -m benchmarks.peer_huey FOLDER COUNT [tuned] [latency]

At its defaults the consumer has one thread, and SQLite's own `synchronous=FULL` holds; tuned, as its documentation says, by
`fsync=False`, with a larger cache and short pauses of the consumer.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from huey import SqliteHuey

folder, count = sys.argv[1], int(sys.argv[2])
tuned, latency = "tuned" in sys.argv, "latency" in sys.argv
huey = SqliteHuey(filename=f"{folder}/huey.db", results=False, **({"fsync": False, "cache_mb": 32} if tuned else {}))
PAUSES = {"initial_delay": 0.01, "backoff": 1.0, "max_delay": 0.01} if tuned else {}
_lock = threading.Lock()
_began: list[float] = []
_done = threading.Event()
_left = count


@huey.task()
def noop() -> None:
    global _left
    with _lock:
        if not _began:
            _began.append(time.perf_counter())
        _left -= 1
        if _left <= 0:
            _done.set()


@huey.task()
def instant(started_ns: int) -> None:
    _latencies.append((time.clock_gettime_ns(time.CLOCK_MONOTONIC) - started_ns) / 1e6)
    _done.set()


_latencies: list[float] = []

if latency:
    consumer = huey.create_consumer(**PAUSES)
    consumer.start()
    time.sleep(1.0)
    for _ in range(count):
        _done.clear()
        instant(time.clock_gettime_ns(time.CLOCK_MONOTONIC))
        _done.wait()
        time.sleep(0.05)
    print(sorted(_latencies)[len(_latencies) // 2])
else:
    for _ in range(count):
        noop()
    consumer = huey.create_consumer(**PAUSES)
    consumer.start()
    _done.wait()
    print(count / (time.perf_counter() - _began[0]))
sys.stdout.flush()
consumer.stop()
os._exit(0)
