"""How cost grows with size: finished tasks, steps in a run, waiting runs, agents, payload, fan-out.

Owns one curve for each; a point is the median of three rounds. Refuses bars: the rows that have one are benchmarks.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from outlast import Engine

from . import definitions
from .figures import Curve, Setting
from .processes import rate_of_runs, run_agent_once, start_many
from .several import shares
from .sizes import Claims, memory_of_waiting

_ROUNDS = 3


def _curve(title: str, size: str, figure: str, sizes: Sequence[int], measure: Callable[[int], float], rounds: int = _ROUNDS) -> Curve:
    points = []
    for one in sizes:
        value = statistics.median(measure(one) for _ in range(rounds))
        print(f"  {title}: {one:,} {size}: {value:,.3f} {figure}", flush=True)
        points.append((float(one), value))
    return Curve(title, size, figure, tuple(points))


def finished_tasks(setting: Setting) -> Curve:
    def measure(count: int) -> float:
        with setting.new_folder() as folder:
            side = Claims(folder / "app.db", count)
            for _ in range(300):
                side.round()
            side.engine.close()
            return side.milliseconds

    sizes = (1_000, 10_000, 100_000) if setting.quick else (1_000, 10_000, 100_000, 1_000_000)
    return _curve("claim", "finished tasks", "ms", sizes, measure)


def _microseconds_a_step(setting: Setting, runs: int, count: int, *more: object, workflow: object = definitions.steps) -> float:
    with setting.new_folder() as folder, Engine(folder / "app.db") as engine:
        start_many(engine, workflow, runs, *more, count)
        run_agent_once(folder / "app.db")
        return 1e6 / (rate_of_runs(engine) * count)


def steps_in_a_run(setting: Setting) -> Curve:
    sizes = (10, 100, 1_000) if setting.quick else (10, 100, 1_000, 10_000)
    return _curve("step", "steps in its run", "µs", sizes, lambda count: _microseconds_a_step(setting, max(1, 2_000 // count), count))


def payload(setting: Setting) -> Curve:
    return _curve(
        "step with payload", "bytes in and out", "µs", (100, 1_000, 10_000, 100_000),
        lambda size: _microseconds_a_step(setting, 1, 300, "x" * size, workflow=definitions.payload),
    )  # fmt: skip


def fan_out(setting: Setting) -> Curve:
    def measure(count: int) -> float:
        with setting.new_folder() as folder, Engine(folder / "app.db") as engine:
            start_many(engine, definitions.fan_out, 1, count)
            run_agent_once(folder / "app.db")
            return 1e6 / (rate_of_runs(engine) * count)

    return _curve("submitted step", "fan-out", "µs", (10, 100, 1_000), measure)


def agents(setting: Setting) -> Curve:
    def measure(count: int) -> float:
        with setting.new_folder() as folder, Engine(folder / "app.db") as engine:
            start_many(engine, definitions.noop, setting.size(10_000, 5_000) * count)
            return shares(folder / "app.db", engine, count)[0]

    return _curve("drain", "agents", "runs/s", (1, 2, 3, 4), measure)


def waiting_runs(setting: Setting) -> Curve:
    sizes = (1_000, 10_000) if setting.quick else (1_000, 10_000, 30_000)
    return _curve("agent's memory", "waiting runs", "MiB", sizes, lambda count: memory_of_waiting(setting, count)[1], rounds=1)


CURVES = {
    "finished-tasks": finished_tasks, "steps-in-a-run": steps_in_a_run, "payload": payload, "fan-out": fan_out, "agents": agents,
    "waiting-runs": waiting_runs,
}  # fmt: skip
