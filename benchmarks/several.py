"""What happens between processes: latency, idling, shares of one file, and recovery from a kill -9."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from outlast import Engine

from . import definitions, peers
from .figures import Bar, Benchmark, Round, Setting
from .processes import cpu_seconds, eventually, process, start_many, wakeups


def latency(setting: Setting) -> Round:
    count = setting.size(200, 60)
    with setting.new_folder() as folder, Engine(folder / "app.db") as engine, process(folder / "app.db", "agent"):
        engine.start(definitions.instant).result(timeout=30)
        times = []
        for _ in range(count):
            time.sleep(0.02)
            began = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            run = engine.start(definitions.instant)
            times.append((run.result(timeout=30) - began) / 1e6)
    found = {"p50 ms": statistics.median(times), "p99 ms": statistics.quantiles(times, n=100)[98]}
    for peer in peers.versions():
        found[f"{peer} p50 ms"] = peers.ask(setting, peer, 10, "latency")
    return found


def latency_under_load(setting: Setting) -> Round:
    """The same while the agent is at work: 32 of its 64 slots wait in steps, one after the other."""
    count = setting.size(200, 60)
    with setting.new_folder() as folder, Engine(folder / "app.db") as engine:
        start_many(engine, definitions.slow_steps, 32, 100_000, 0.01)
        with process(folder / "app.db", "agent", "--concurrency", "64"):
            eventually(lambda: not engine.store.connection().execute(_UNBEGUN).fetchone()[0])
            times = []
            for _ in range(count):
                time.sleep(0.02)
                began = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
                times.append((engine.start(definitions.instant).result(timeout=30) - began) / 1e6)
    return {"p50 ms": statistics.median(times), "p99 ms": statistics.quantiles(times, n=100)[98]}


def idle(setting: Setting) -> Round:
    seconds = setting.size(10, 4)
    with setting.new_folder() as folder, Engine(folder / "app.db") as engine, process(folder / "app.db", "agent") as agent:
        engine.start(definitions.noop).result(timeout=30)
        time.sleep(1)
        cpu, woken, began = cpu_seconds(agent.pid), wakeups(agent.pid), time.monotonic()
        time.sleep(seconds)
        passed = time.monotonic() - began
        return {
            "cpu % of a core": (cpu_seconds(agent.pid) - cpu) / passed * 100, "wakeups/s": (wakeups(agent.pid) - woken) / passed,
        }  # fmt: skip


_ENDED = """
select o.output, t.finished_at from outlast_task t join outlast_outcome o on o.task_id = t.id where t.kind = 'run' order by 2
"""


def shares(path: Path, engine: Engine, agents: int) -> tuple[float, float]:
    """(runs/s together, least share of an agent by the greatest) while all of them were there."""
    commands = [process(path, "agent", "--once") for _ in range(agents)]
    running = [one.__enter__() for one in commands]
    try:
        eventually(lambda: all(one.poll() is not None for one in running), 300)
    finally:
        for one in commands:
            one.__exit__(None, None, None)
    ends: dict[bytes, list[int]] = {}
    for pid, at in engine.store.connection().execute(_ENDED):
        ends.setdefault(pid, []).append(at)
    if len(ends) < agents:
        return 0.0, 0.0
    first, last = max(at[0] for at in ends.values()), min(at[-1] for at in ends.values())
    counts = [sum(first <= one <= last for one in at) for at in ends.values()]
    return sum(counts) * 1e6 / max(1, last - first), min(counts) / max(counts)


def four_agents(setting: Setting) -> Round:
    count = setting.size(80_000, 24_000)
    rates, fairness = {}, 0.0
    for agents in (1, 4):
        with setting.new_folder() as folder, Engine(folder / "app.db") as engine:
            start_many(engine, definitions.noop, count if agents == 4 else count // 2)
            rates[agents], fairness = shares(folder / "app.db", engine, agents)
    return {
        "one agent runs/s": rates[1], "four agents runs/s": rates[4], "four / one": rates[4] / rates[1],
        "slowest / fastest": fairness,
    }  # fmt: skip


_HELD = "select count(*) from outlast_task t join outlast_agent a on a.id = t.agent_id where a.pid = :pid"
_AGENTS = "select pid from outlast_agent where status = 'active' and slots > 1"
_UNBEGUN = "select count(*) from outlast_task where claim = 0"
_GOES_ON = """
select min(j.at) from outlast_journal j where j.at > :killed_at and j.task_id = :id and j.claim > :claim
"""


def _recovery(setting: Setting, words: Sequence[Sequence[str]], lease: str, *, is_elsewhere: bool = False) -> float:
    """Seconds from the kill to the next step of the last of its runs, elsewhere."""
    with setting.new_folder() as folder, Engine(folder / "app.db") as engine:
        path = folder / "app.db"
        start_many(engine, definitions.slow_steps, 8, 3000, 0.01)
        connection = engine.store.connection()
        with ExitStack() as stack:
            for command in words:
                stack.enter_context(process(path, *command, OUTLAST_LEASE=lease))
            eventually(lambda: len(connection.execute(_AGENTS).fetchall()) >= 2 and not connection.execute(_UNBEGUN).fetchone()[0])
            time.sleep(0.5)
            pids = [pid for (pid,) in connection.execute(_AGENTS) if connection.execute(_HELD, {"pid": pid}).fetchone()[0]]
            held = connection.execute(
                "select t.id, t.claim from outlast_task t join outlast_agent a on a.id = t.agent_id where a.pid = ?", (pids[0],)
            ).fetchall()  # fmt: skip
            killed_at = round(time.time() * 1e6)
            if is_elsewhere:
                with engine.store.transaction() as writing:
                    writing.execute("update outlast_agent set host = 'elsewhere' where pid = ?", (pids[0],))
            os.kill(pids[0], signal.SIGKILL)

            def went_on() -> list[int] | None:
                rows = [
                    connection.execute(_GOES_ON, {"killed_at": killed_at, "id": task_id, "claim": claim}).fetchone()[0]
                    for task_id, claim in held
                ]
                return rows if all(rows) else None

            rows = eventually(went_on, 60)
        return float((max(rows) - killed_at) / 1e6)


def recovery(setting: Setting) -> Round:
    return {"seen to die s": _recovery(setting, [("up", "--agents", "2", "--concurrency", "16")], "30s")}


_LEASE_SECONDS = 3


def recovery_by_lease(setting: Setting) -> Round:
    """The file says that the agent is on another machine: nobody sees it die, and its lease runs out."""
    roles = [("agent", "--concurrency", "16"), ("agent", "--concurrency", "16"), ("supervisor",)]
    seconds = _recovery(setting, roles, f"{_LEASE_SECONDS}s", is_elsewhere=True)
    return {"lease s": _LEASE_SECONDS, "gone on s": seconds, "beyond the lease s": seconds - _LEASE_SECONDS}


BENCHMARKS = (
    Benchmark(
        "latency", "start in one process to first line of the workflow in another, idle", latency,
        (Bar("p50 ms", at_most=2, aim=1), Bar("p99 ms", at_most=8)), rounds=3,
    ),
    Benchmark(
        "latency-under-load", "the same beside 32 runs at work in the agent", latency_under_load, rounds=3,
    ),
    Benchmark("idle", "an idle agent", idle, (Bar("cpu % of a core", at_most=1),), rounds=3),
    Benchmark(
        "four-agents", "4 agent processes on one file", four_agents,
        (Bar("slowest / fastest", at_least=0.8), Bar("four / one", at_least=0.9, aim=1.5)), rounds=3,
    ),
    Benchmark(
        "recovery", "kill -9 of an agent to its runs going on elsewhere", recovery,
        (Bar("seen to die s", at_most=1, aim=0.2),), rounds=3,
    ),
    Benchmark(
        "recovery-by-lease", "the same where nobody sees the agent die", recovery_by_lease,
        (Bar("beyond the lease s", at_most=1),), rounds=3,
    ),
)  # fmt: skip
