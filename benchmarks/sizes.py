"""What must not grow: a claim beside a million finished tasks, an agent beside 100,000 waiting runs, the command line's start."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from outlast import Engine
from outlast.operations import Claim, End, RegisterAgent
from outlast.states import Ending
from outlast.store.process import this_process

from . import definitions
from .figures import Bar, Benchmark, Round, Setting
from .processes import ROOT, command, environment, eventually, process, resident_bytes, run_agent_once, start_many

_CODE = {"workflow:noop": "f"}

# As a run leaves them: made in bulk, since a million runs would take minutes.
_FINISHED = """
with recursive number(n) as (select 1 union all select n + 1 from number where n < :count)
insert into outlast_task (uid, kind, name, queue, status, needs, claim, created_at, started_at, finished_at, ended_at, ending)
select 'old' || n, 'run', 'noop', 'default', 'completed', 'workflow:noop', 1, n, n, n, n, 'completed' from number
"""
_THEIR_INPUT = "insert into outlast_input (task_id, data, chain) select id, x'7b7d', uid from outlast_task where uid like 'old%'"
_THEIR_OUTCOME = "insert into outlast_outcome (task_id, output) select id, x'31' from outlast_task where uid like 'old%'"


def finish_many(engine: Engine, count: int) -> None:
    with engine.store.transaction() as connection:
        connection.execute(_FINISHED, {"count": count})
        connection.execute(_THEIR_INPUT)
        connection.execute(_THEIR_OUTCOME)
    engine.store.connection().execute("pragma wal_checkpoint(truncate)")


class Claims:
    """One file, and an agent by hand that claims from it."""

    def __init__(self, path: Path, finished: int) -> None:
        self.engine = Engine(path)
        if finished:
            finish_many(self.engine, finished)
        who = this_process()
        register = RegisterAgent("agent", who.host, who.boot_id, who.pid, who.started, 64, None, 10**12, _CODE)
        self._agent_id = self.engine.store.commit(register)
        self.times: list[float] = []

    def round(self) -> None:
        """Start one run, claim it (measured), and finish it."""
        store = self.engine.store
        self.engine.start(definitions.noop)
        began = time.perf_counter()
        claimed = store.commit(Claim(self._agent_id, 1, _CODE))
        self.times.append(time.perf_counter() - began)
        for one in claimed:
            store.commit(End(one.fence, Ending.COMPLETED, output=b"1", simple=True))

    @property
    def milliseconds(self) -> float:
        return statistics.median(self.times) * 1000


def claim_beside(setting: Setting) -> Round:
    finished = setting.size(1_000_000, 200_000)
    with setting.new_folder() as folder:
        empty, full = Claims(folder / "empty.db", 0), Claims(folder / "full.db", finished)
        for _ in range(setting.size(1_500, 500)):
            empty.round()
            full.round()
        empty.engine.close()
        full.engine.close()
        return {
            "empty ms": empty.milliseconds,
            f"{finished:,} finished ms": full.milliseconds,
            "ratio": full.milliseconds / empty.milliseconds,
        }


_WAITING = "select count(*) from outlast_task where status = 'waiting'"


def memory_of_waiting(setting: Setting, count: int) -> tuple[float, float, float]:
    """(MiB of an idle agent, MiB of one beside so many waiting runs, runs parked a second)."""
    with setting.new_folder() as folder, Engine(folder / "app.db") as engine:
        path = folder / "app.db"
        connection = engine.store.connection()
        start_many(engine, definitions.waits_async, 300)
        with process(path, "agent", OUTLAST_PARK_AFTER="1ms") as agent:
            # Warm, with every path of the code loaded: what an agent needs in any case.
            eventually(lambda: connection.execute(_WAITING).fetchone()[0] >= 300)
            time.sleep(1)
            idle = resident_bytes(agent.pid)
            began = time.monotonic()
            start_many(engine, definitions.waits_async, count - 300)
            eventually(lambda: connection.execute(_WAITING).fetchone()[0] >= count, 600, 0.2)
            parked_in = time.monotonic() - began
            time.sleep(1)
            after = resident_bytes(agent.pid)
        return idle / 2**20, after / 2**20, (count - 300) / parked_in


def waiting(setting: Setting) -> Round:
    count = setting.size(100_000, 10_000)
    idle, after, rate = memory_of_waiting(setting, count)
    return {"idle MiB": idle, f"{count:,} waiting MiB": after, "ratio": after / idle, "parked runs/s": rate}


def memory_of_running(setting: Setting) -> Round:
    """What a run that is at work takes in its agent, and how soon a new agent is at work itself."""
    began, idle, sync = _running(setting, definitions.slow_steps)
    _, _, of_async = _running(setting, definitions.slow_steps_async)
    return {"agent's start to its first step ms": began, "idle agent MiB": idle, "KiB a sync run": sync, "KiB an async run": of_async}


def _running(setting: Setting, workflow: object) -> tuple[float, float, float]:
    """(ms to the first step's end, MiB of an agent with one run, KiB for each further run)."""
    runs = setting.size(500, 200)
    with setting.new_folder() as folder, Engine(folder / "app.db") as engine:
        connection = engine.store.connection()
        start_many(engine, workflow, 1, 100_000, 0.2)
        began = time.monotonic()
        with process(folder / "app.db", "agent", "--concurrency", str(runs + 1)) as agent:
            eventually(lambda: connection.execute("select 1 from outlast_journal").fetchone(), every=0.002)
            until_first = (time.monotonic() - began - 0.2) * 1000
            time.sleep(1)
            before = resident_bytes(agent.pid)
            start_many(engine, workflow, runs, 100_000, 0.2)
            eventually(lambda: connection.execute(_AT_WORK).fetchone()[0] > runs)
            return until_first, before / 2**20, (resident_bytes(agent.pid) - before) / 1024 / runs


_AT_WORK = "select count(distinct task_id) from outlast_journal"


def prune_beside_work(setting: Setting) -> Round:
    """What `prune` gives back to the disk, and what it costs an agent that works meanwhile."""
    finished = setting.size(100_000, 20_000)
    with setting.new_folder() as folder, Engine(folder / "app.db") as engine:
        path = folder / "app.db"
        finish_many(engine, finished)
        before = path.stat().st_size
        start_many(engine, definitions.steps, 8, 100_000)
        count = "select count(*) from outlast_journal"
        connection = engine.store.connection()
        with process(path, "agent"):
            eventually(lambda: connection.execute(count).fetchone()[0] > 100)
            first, began = connection.execute(count).fetchone()[0], time.monotonic()
            time.sleep(2)
            second, between = connection.execute(count).fetchone()[0], time.monotonic()
            subprocess.run(
                command(path, "prune", "--older-than", "0s", "--yes"), cwd=ROOT, env=environment(), check=True, capture_output=True
            )
            third, ended = connection.execute(count).fetchone()[0], time.monotonic()
        left = connection.execute("select count(*) from outlast_task").fetchone()[0]
        connection.execute("pragma wal_checkpoint(truncate)")
        after = path.stat().st_size
    assert left <= 8, "prune has left runs"
    alone, beside = (second - first) / (between - began), (third - second) / (ended - between)
    return {
        "runs pruned/s": finished / (ended - between), "MiB before": before / 2**20, "MiB after": after / 2**20,
        "steps/s alone": alone, "steps/s beside prune": beside,
    }  # fmt: skip


def file_size(setting: Setting) -> Round:
    """Bytes that a no-op run and a no-op step leave in the file, and how large the WAL is after the work."""
    runs, steps = setting.size(10_000, 3_000), setting.size(20_000, 6_000)
    with setting.new_folder() as folder, Engine(folder / "app.db") as engine:
        path = folder / "app.db"

        def size() -> int:
            engine.store.connection().execute("pragma wal_checkpoint(truncate)")
            return path.stat().st_size

        empty = size()
        start_many(engine, definitions.noop, runs)
        run_agent_once(path)
        wal = Path(f"{path}-wal").stat().st_size
        after_runs = size()
        start_many(engine, definitions.steps, 20, steps // 20)
        run_agent_once(path)
        wal = max(wal, Path(f"{path}-wal").stat().st_size)
        after_steps = size()
    return {
        "bytes a run": (after_runs - empty) / runs, "bytes a step": (after_steps - after_runs) / steps, "WAL MiB": wal / 2**20,
    }  # fmt: skip


def help_text(setting: Setting) -> Round:
    def seconds(*words: str) -> float:
        times = []
        for _ in range(5):
            began = time.perf_counter()
            subprocess.run([sys.executable, *words], cwd=ROOT, env=environment(), check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - began)
        return statistics.median(times) * 1000

    bare, ours = seconds("-c", "pass"), seconds("-m", "outlast", "--help")
    return {"python -c pass ms": bare, "outlast --help ms": ours, "more ms": ours - bare}


BENCHMARKS = (
    Benchmark("claim", "claim beside finished tasks", claim_beside, (Bar("ratio", at_most=1.2),), rounds=3),
    Benchmark("waiting", "an agent beside waiting runs", waiting, (Bar("ratio", at_most=1.2),), rounds=3),
    Benchmark("file", "the size of the file and its WAL", file_size, (Bar("WAL MiB", at_most=32),), rounds=3),
    Benchmark("running", "a run at work in its agent, and an agent's start", memory_of_running, rounds=3),
    Benchmark("prune", "prune beside an agent at work", prune_beside_work, rounds=3),
    Benchmark("help", "`outlast --help`", help_text, (Bar("more ms", at_most=200, aim=100),)),
)
