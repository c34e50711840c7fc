"""Real processes on real files: starting agents as a user does, a backlog for them, and reading what the file says of it.

Owns the life of those processes: each is ended with the block that started it. What is measured is read from the file's own
instants, so neither the start of an interpreter nor the measuring process counts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from outlast import Engine
from outlast.definition.options import DEFAULT
from outlast.starts import start_operation

ROOT = Path(__file__).resolve().parent.parent
APP = "benchmarks.definitions"


def command(path: Path | str, *words: str) -> list[str]:
    return [sys.executable, "-m", "outlast", "--db", str(path), "--app", APP, *words]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


@contextmanager
def process(path: Path, *words: str, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """An `outlast` command in the background, in a session of its own that ends with the block."""
    started = subprocess.Popen(
        command(path, *words), cwd=ROOT, env=environment(**more), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield started
    finally:
        if started.poll() is None:
            started.send_signal(signal.SIGTERM)
            try:
                started.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(started.pid, signal.SIGKILL)
                started.wait()


def run_agent_once(path: Path, *words: str, **more: str) -> None:
    """One agent that ends when nothing is due."""
    subprocess.run(
        command(path, "agent", "--once", *words), cwd=ROOT, env=environment(**more), check=True, timeout=600,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def start_many(engine: Engine, workflow: Any, count: int, *args: object) -> None:
    """A backlog, written in groups."""
    named = workflow.signature.named(args, {})
    for _ in range(count):
        engine.store.submit(start_operation(workflow, named, DEFAULT, engine.settings, has_queue=lambda _: True))
    engine.store.committer.close()


_SPAN = "select count(*), min(started_at), max(finished_at) from outlast_task where kind = 'run' and status = 'completed'"


def rate_of_runs(engine: Engine) -> float:
    """Completed runs a second, from the first start to the last end."""
    count, first, last = engine.store.connection().execute(_SPAN).fetchone()
    return float(count * 1e6 / max(1, last - first))


def eventually(look: Callable[[], Any], seconds: float = 120.0, every: float = 0.01) -> Any:
    """The first true answer."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError("what was measured did not happen in time")
        time.sleep(every)
    return found


def resident_bytes(pid: int) -> int:
    """Memory of a process that is its own or shared, as `ps` shows it."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wakeups(pid: int) -> int:
    """How often the threads of a process have left the processor of their own accord."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total
