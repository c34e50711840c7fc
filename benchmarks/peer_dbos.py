"""A backlog of no-op workflows on DBOS's SQLite system database, drained by one process: prints workflows a second.

    python -m benchmarks.peer_dbos FOLDER COUNT [tuned] [latency]

At its defaults a queue is polled once a second; tuned: every 10 ms and 32 workflows at once, by the settings of its queues.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time

from dbos import DBOS

folder, count, words = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
TUNED = {"polling_interval_sec": 0.01, "worker_concurrency": 32}
_lock = threading.Lock()
_began: list[float] = []
_left = count
_done = threading.Event()


@DBOS.workflow()
def noop() -> None:
    with _lock:
        if not _began:
            _began.append(time.perf_counter())


@DBOS.workflow()
def instant(started_ns: int) -> float:
    return (time.clock_gettime_ns(time.CLOCK_MONOTONIC) - started_ns) / 1e6


if __name__ == "__main__":
    DBOS(
        config={"name": "bench", "system_database_url": f"sqlite:///{folder}/dbos.sqlite", "log_level": "ERROR", "run_admin_server": False}
    )
    logging.disable(logging.WARNING)
    if "backlog" in words:
        DBOS.listen_queues(["nothing"])
    elif "latency" not in words:
        # Another process writes the backlog, so that all of it is there when this one begins.
        subprocess.run([sys.executable, "-m", "benchmarks.peer_dbos", folder, str(count), "backlog", *words], check=True)
    DBOS.launch()
    queue = DBOS.register_queue("q", **(TUNED if "tuned" in words else {}))
    if "backlog" in words:
        for _ in range(count):
            queue.enqueue(noop)
    elif "latency" in words:
        time.sleep(1.0)
        latencies = []
        for _ in range(count):
            latencies.append(queue.enqueue(instant, time.clock_gettime_ns(time.CLOCK_MONOTONIC)).get_result())
            time.sleep(0.05)
        print(sorted(latencies)[len(latencies) // 2])
    else:
        while any(one.status != "SUCCESS" for one in DBOS.list_workflows(status=["ENQUEUED", "PENDING"], limit=1)):
            time.sleep(0.02)
        print(count / (time.perf_counter() - _began[0]))
    sys.stdout.flush()
    os._exit(0)
