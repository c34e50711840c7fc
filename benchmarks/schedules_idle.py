"""A file with 10,000 schedules: what the scheduler costs while none is due, and how soon 1,000 that are due at once have their rows.

    python benchmarks/schedules_idle.py [--schedules 10000] [--due 1000] [--seconds 20]

The first figure is processor time over elapsed time of a scheduler process, once it has settled; the bar is 1 % of a core. The
second is the time from the tick to the commit of the last of its task rows; the bar is one second. Both run on one file, made
anew, in processes of their own.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from outlast import clock
from outlast.store.sqlite import SqliteStore

IDLE_BAR = 0.01
DUE_BAR_SECONDS = 1.0

CODE = """
from datetime import datetime, timedelta, timezone
from outlast import At, Cron, workflow

@workflow(schedule=[Cron(f"{{n % 60}} {{n % 24}} 1 1 *", name=f"s{{n}}") for n in range({idle})])
def idle() -> None:
    pass

@workflow(schedule=[At(datetime.fromtimestamp({at}, timezone.utc), name=f"d{{n}}") for n in range({due})])
def due() -> None:
    pass
"""

_DONE = "select count(*), max(created_at) from outlast_task where name = 'due'"


def processor_seconds(pid: int) -> float:
    """User and system time of a process; `ps` counts in whole seconds."""
    import psutil

    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--due", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "workflows").mkdir()
        (folder / "pyproject.toml").write_text("")
        at = int(time.time() + 25 + given.seconds)
        (folder / "workflows" / "many.py").write_text(CODE.format(idle=given.schedules, due=given.due, at=at))
        store = SqliteStore(folder / "outlast.db", create=True)
        role = subprocess.Popen([sys.executable, "-m", "outlast", "scheduler"], cwd=folder, stderr=subprocess.DEVNULL)
        try:
            while store.connection().execute("select count(*) from outlast_schedule").fetchone()[0] < given.schedules + given.due:
                time.sleep(0.2)
            time.sleep(3)
            before, began = processor_seconds(role.pid), time.monotonic()
            time.sleep(given.seconds)
            share = (processor_seconds(role.pid) - before) / (time.monotonic() - began)
            print(f"{given.schedules:,} schedules, none due: {share:.2%} of a core (bar {IDLE_BAR:.0%})", flush=True)
            while store.connection().execute(_DONE).fetchone()[0] < given.due:
                assert time.time() < at + 60, "the ticks did not fire"
                time.sleep(0.05)
            took = store.connection().execute(_DONE).fetchone()[1] / clock.SECOND - at
            print(f"{given.due:,} schedules due at once: {took * 1000:.0f} ms to the last row (bar {DUE_BAR_SECONDS:g} s)")
        finally:
            role.send_signal(signal.SIGTERM)
            role.wait(30)
            store.close()
    return 0 if share <= IDLE_BAR and took <= DUE_BAR_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
