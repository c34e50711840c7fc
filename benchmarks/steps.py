"""Steps: one run after the other's fsync, many runs at once, and one long run with its replay."""

from __future__ import annotations

import time
from collections.abc import Callable

from outlast import Engine

from . import definitions, disk
from .figures import Bar, Benchmark, Round, Setting
from .processes import eventually, process, rate_of_runs, run_agent_once, start_many

_DURABILITY = {"outlast": "WAL, synchronous=FULL: nothing is lost at a power cut", "raw": "the same"}


def one_run(setting: Setting) -> Round:
    count = setting.size(6_000, 1_500)
    with setting.new_folder() as folder:
        raw = disk.Raw(folder / "raw.db")
        with Engine(folder / "app.db") as engine:
            start_many(engine, definitions.steps, 1, count)
            run_agent_once(folder / "app.db")
            rate = rate_of_runs(engine) * count
        limit = raw.rate()
    return {"steps/s": rate, "raw one-row commits/s": limit, "ratio": rate / limit}


def durability(setting: Setting) -> Round:
    """What a user gains who lets a power cut take the last commits."""
    count = setting.size(6_000, 1_500)
    rates = {}
    for choice in ("full", "normal"):
        with setting.new_folder() as folder, Engine(folder / "app.db") as engine:
            start_many(engine, definitions.steps, 1, count)
            run_agent_once(folder / "app.db", OUTLAST_DURABILITY=choice)
            rates[choice] = rate_of_runs(engine) * count
    return {"full steps/s": rates["full"], "normal steps/s": rates["normal"], "normal / full": rates["normal"] / rates["full"]}


def many_runs(workflow: object) -> Callable[[Setting], Round]:
    def measure(setting: Setting) -> Round:
        runs, count = 64, setting.size(300, 60)
        with setting.new_folder() as folder:
            raw = disk.Raw(folder / "raw.db")
            with Engine(folder / "app.db") as engine:
                start_many(engine, workflow, runs, count)
                run_agent_once(folder / "app.db", "--concurrency", str(runs))
                rate = rate_of_runs(engine) * count
            limit = raw.rate()
            group = disk.grouped_rows(folder / "raw.db", 0.3)
        return {
            "steps/s": rate, "raw one-row commits/s": limit, "raw rows/s in groups of 64": group, "ratio": rate / limit,
        }  # fmt: skip

    return measure


_AT = """
select at from outlast_journal j join outlast_task t on t.id = j.task_id
where j.event = 'completed' and j.kind = 'step' order by j.seq
"""


def long_run(setting: Setting) -> Round:
    count = 10_000
    with setting.new_folder() as folder, Engine(folder / "app.db", park_after="100ms") as engine:
        run = engine.start(definitions.steps_then_wait, count)
        with process(folder / "app.db", "agent", OUTLAST_PARK_AFTER="100ms"):
            eventually(lambda: run.status == "waiting")
        at = [row[0] for row in engine.store.connection().execute(_AT)]
        # A new agent knows nothing of the run: it reads the whole journal and replays the code to where it stood.
        with process(folder / "app.db", "agent"):
            eventually(lambda: engine.store.connection().execute("select 1 from outlast_agent where status = 'active'").fetchone())
            time.sleep(0.3)
            run.signal("go")
            run.result(timeout=60)
        started, finished = engine.store.connection().execute(
            "select created_at, (select finished_at from outlast_task) from outlast_signal"
        ).fetchone()  # fmt: skip
    first, last = at[999] - at[0], at[-1] - at[-1000]
    return {
        "first thousand ms": first / 1000, "last thousand ms": last / 1000, "last / first": last / first,
        "replay of 10,000 s": (finished - started) / 1e6,
    }  # fmt: skip


_MANY = (Bar("ratio", at_least=3, aim=4.5),)

BENCHMARKS = (
    Benchmark(
        "one-run", "one run of no-op steps, each fsynced before the next", one_run, (Bar("ratio", at_least=0.6, aim=0.85),), _DURABILITY,
    ),
    Benchmark("many-sync", "64 runs at once in one agent, sync", many_runs(definitions.steps), _MANY, _DURABILITY),
    Benchmark("many-async", "64 runs at once in one agent, async", many_runs(definitions.steps_async), _MANY, _DURABILITY),
    Benchmark(
        "durability", "the same run with durability = normal", durability,
        durability={"full": _DURABILITY["outlast"], "normal": "WAL, synchronous=NORMAL: a power cut takes the last commits"},
    ),
    Benchmark(
        "long-run", "one run of 10,000 steps, and its replay", long_run,
        (Bar("last / first", at_most=1.3), Bar("replay of 10,000 s", at_most=0.5, aim=0.1)), _DURABILITY, rounds=3,
    ),
)  # fmt: skip
