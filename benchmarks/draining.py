"""A backlog of no-op runs, drained by one agent, beside the same on DBOS and on Huey."""

from __future__ import annotations

from outlast import Engine

from . import definitions, disk, peers
from .figures import Bar, Benchmark, Round, Setting
from .processes import rate_of_runs, run_agent_once, start_many


def ours(setting: Setting, count: int) -> float:
    with setting.new_folder() as folder, Engine(folder / "app.db") as engine:
        start_many(engine, definitions.noop, count)
        run_agent_once(folder / "app.db")
        return rate_of_runs(engine)


def drain(setting: Setting) -> Round:
    count = setting.size(20_000, 5_000)
    found = {"runs/s": ours(setting, count)}
    installed = peers.versions()
    if "huey" in installed:
        found["Huey tasks/s"] = peers.ask(setting, "huey", setting.size(5_000, 2_000))
        found["Huey tuned tasks/s"] = peers.ask(setting, "huey", setting.size(5_000, 2_000), "tuned")
    again = ours(setting, count)
    if "dbos" in installed:
        found["DBOS workflows/s"] = peers.ask(setting, "dbos", setting.size(600, 300))
        found["DBOS tuned workflows/s"] = peers.ask(setting, "dbos", setting.size(600, 300), "tuned")
    with setting.new_folder() as folder:
        found["raw claims/s in batches of 64"] = disk.claims(folder / "raw.db", count)
    found["runs/s"] = (found["runs/s"] + again) / 2
    for peer, figure in (("DBOS", "DBOS workflows/s"), ("Huey", "Huey tasks/s")):
        for kind in ("", "tuned "):
            name = figure.replace(" ", f" {kind}", 1)
            if name in found:
                found[f"ratio to {peer}{' ' + kind.strip() if kind else ''}"] = found["runs/s"] / found[name]
    return found


BENCHMARKS = (
    Benchmark(
        "drain", "drain of a backlog of no-op runs, one agent", drain,
        (Bar("ratio to DBOS", at_least=60, aim=100), Bar("ratio to Huey", at_least=2.5, aim=4)),
        {
            "outlast": "WAL, synchronous=FULL: nothing is lost at a power cut",
            "Huey": "WAL, synchronous=FULL; a task that a crash interrupts is lost",
            "Huey tuned": "WAL, synchronous=OFF: a power cut loses what was written last, and may damage the file",
            "DBOS": "rollback journal, synchronous=FULL", "DBOS tuned": "the same",
        },
        is_there=peers.missing,
    ),
)  # fmt: skip
