"""The host looks after itself: load, memory and disk every ten seconds, and somebody is told when they stay too high.

    pip install psutil
    outlast up
    outlast runs --workflow escalate
    outlast signal RUN acknowledged '{"by": "eve"}'

Samples are kept for a day in a table of our own. Three samples in a row over a limit start an escalation, one at a time for a
host: each level is told in its turn, the next one when nobody has acknowledged in time. Alerts are lines of `alerts.log` where
the agents run, or of `$MONITOR_ALERTS`; put a mail or a pager in the place of `tell`. Without psutil it is not scheduled.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from outlast import Every, Fail, Retry, SignalTimeout, current, publish, sqlite3, step, transaction, wait_signal, workflow

IN_A_ROW = 3
LEVELS = ("on call", "the team", "everybody")
KEPT = 8640
"""Samples: a day of them."""


@dataclass(frozen=True)
class Sample:
    at: datetime
    load_percent: float
    """Load of the last minute, per processor."""
    memory_percent: float
    disk_percent: float


@dataclass(frozen=True)
class Limits:
    load_percent: float = 200.0
    memory_percent: float = 95.0
    disk_percent: float = 95.0


@dataclass(frozen=True)
class Acknowledged:
    """The payload of the signal `acknowledged`."""

    by: str


@workflow(schedule=Every("10s", catch_up="none") if find_spec("psutil") else None, retention="1d", timeout="1m")
def collect(limits: Limits | None = None) -> Sample:
    """Take a sample, keep it, and start an escalation where the last ones are all over a limit."""
    sample = measure()
    complaint = keep(sample, limits or Limits())
    if complaint is not None:
        escalate.options(unique_key=host()).start(complaint)
    return sample


@workflow(retention="30d")
def escalate(complaint: str, wait: str = "10m") -> str:
    """Tell one level after the other until somebody acknowledges; gives who did, or that nobody has."""
    for level in LEVELS:
        tell(level, complaint)
        publish("told", level)
        try:
            answer = wait_signal("acknowledged", Acknowledged, timeout=wait)
        except SignalTimeout:
            continue
        tell(level, f"{answer.by} looks after it: {complaint}")
        return f"acknowledged by {answer.by}"
    return "nobody has acknowledged"


@step
def host() -> str:
    """This host's name: it does not belong in the workflow, where each replay would ask again."""
    return socket.gethostname()


@step(retry=Retry(3, initial="200ms", unless=Fail), timeout="20s")
def measure() -> Sample:
    """Read the host's load, memory and disk."""
    try:
        import psutil
    except ImportError:
        raise Fail("psutil is not installed: pip install psutil") from None
    processors = psutil.cpu_count() or 1
    return Sample(
        datetime.now(UTC),
        round(100 * psutil.getloadavg()[0] / processors, 1),
        psutil.virtual_memory().percent,
        psutil.disk_usage(Path.cwd().anchor).percent,
    )


@transaction
def keep(db: sqlite3.Connection, sample: Sample, limits: Limits) -> str | None:
    """Keep a sample for a day; gives a sentence where the last ones are all over a limit."""
    db.execute(
        "create table if not exists host_sample (id integer primary key, at text not null, "
        "load_percent real not null, memory_percent real not null, disk_percent real not null)"
    )
    values = (sample.at.isoformat(), sample.load_percent, sample.memory_percent, sample.disk_percent)
    db.execute("insert into host_sample (at, load_percent, memory_percent, disk_percent) values (?, ?, ?, ?)", values)
    db.execute("delete from host_sample where id <= (select max(id) from host_sample) - ?", (KEPT,))
    last = db.execute("select load_percent, memory_percent, disk_percent from host_sample order by id desc limit ?", (IN_A_ROW,)).fetchall()
    if len(last) < IN_A_ROW:
        return None
    bounds = (("load", limits.load_percent), ("memory", limits.memory_percent), ("disk", limits.disk_percent))
    high = [
        f"{name} {last[0][number]:g} % (limit {limit:g} %)"
        for number, (name, limit) in enumerate(bounds)
        if all(row[number] > limit for row in last)
    ]
    return ", ".join(high) or None


@step(retry=Retry(5, initial="1s"))
def tell(level: str, text: str) -> None:
    """Alert somebody: here, by a line in a file."""
    file = Path(os.environ.get("MONITOR_ALERTS", "alerts.log"))
    with file.open("a", encoding="utf-8") as alerts:
        alerts.write(f"{level}: {text} [{current().idempotency_key}]\n")
