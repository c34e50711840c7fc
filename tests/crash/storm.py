"""The storm: every role in processes of its own, SIGKILLed at random while runs of all shapes are at work.

Owns the workflow file, the processes and the checks. What happened outside is a ledger that every effect is fsynced to. The
kills that landed and the recoveries that were seen have a floor, so that a storm cannot pass by doing nothing.
"""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import outlast
from outlast import sqlite3
from outlast.doctor import doctor

from .commands import Folder

CODE = """
import os, time
from outlast import Every, Retry, current, gather, sleep, sqlite3, step, transaction, wait_signal, workflow

def effect(text):
    with open("effects", "a") as file:
        file.write(text + "\\n"); file.flush(); os.fsync(file.fileno())

@step(retry=Retry(4, initial="20ms", maximum="50ms"))
def act(tag: str, n: int) -> int:
    effect(f"act {tag}.{n} {current().idempotency_key}")
    time.sleep(0.02)
    if current().step.try_number == 1 and n == 1: raise ConnectionError("once")
    return n

@act.compensation
def undo_act(result: int | None, tag: str, n: int) -> None:
    effect(f"undo {tag}.{n} {current().idempotency_key}")
    time.sleep(0.02)

@transaction
def book(db: sqlite3.Connection, tag: str) -> int:
    db.execute("create table if not exists booking (tag text)")
    db.execute("insert into booking values (?)", (tag,))
    return 1

@workflow
def plain(tag: str) -> int:
    done = sum(act(tag, n) for n in range(3))
    book(tag)
    sleep(0.05)
    return done

@workflow
async def later(tag: str) -> int:
    import asyncio
    await asyncio.sleep(0.05)
    done = [await act.aio(tag, n) for n in range(3)]
    await book.aio(tag)
    return sum(done)

@workflow
def wide(tag: str) -> int:
    done = sum(gather(*[act.submit(tag, n) for n in range(3)]))
    book(tag)
    return done

@workflow
def parent(tag: str) -> int:
    return plain.start(tag + "c").result()

@workflow
def asks(tag: str) -> int:
    done = wait_signal("go", int)
    act(tag, 0)
    book(tag)
    return done

@workflow
def saga(tag: str) -> None:
    for n in range(3): act(tag, n)
    raise RuntimeError("no")

@workflow(schedule=Every("1s"))
def tick() -> None:
    pass
"""

SHAPES = ("plain", "later", "wide", "parent", "asks", "saga")
ROLES = (("agent",), ("agent",), ("agent", "--concurrency", "1"), ("agent",), ("supervisor",), ("scheduler",))


@dataclass(frozen=True)
class Figures:
    """What a storm did, and what it cost."""

    runs: int
    kills: int
    effects: int
    repeated: int
    taken_over: int
    seconds: float


def storm(path: Path, *, runs: int, kills: int, seed: int, patience_seconds: float = 120.0) -> Figures:
    """Start runs while processes die, let it end, and check everything. Raises `AssertionError`."""
    chance = random.Random(seed)
    began = time.monotonic()
    here = Folder(path, lease="2s")
    (path / "workflows" / "work.py").write_text(CODE)
    processes = [here.popen(*role) for role in ROLES]
    engine = outlast.Engine(path / "outlast.db")
    try:
        ids = _start(here, runs)
        landed = 0
        while landed < kills:
            time.sleep(chance.uniform(0.05, 0.4))
            victim = chance.randrange(len(processes))
            if processes[victim].poll() is None:
                processes[victim].send_signal(signal.SIGKILL)
                landed += 1
            processes[victim].wait()
            processes[victim] = here.popen(*ROLES[victim])
        _await_ends(engine, ids, patience_seconds)
        figures = _checked(here, engine, ids, landed, began)
    finally:
        engine.close()
        here.close()
    return figures


def _start(here: Folder, runs: int) -> dict[str, tuple[str, str]]:
    """The ids of the runs, each with its shape and tag. Acknowledged starts, in one process for speed."""
    code = (
        "import outlast, sys; sys.path.insert(0, 'workflows'); import work\n"
        "with outlast.Engine() as engine:\n"
        f"    for n in range({runs}):\n"
        f"        shape = {SHAPES!r}[n % {len(SHAPES)}]\n"
        "        run = engine.start(getattr(work, shape), f't{n}')\n"
        "        if shape == 'asks': run.signal('go', 7)\n"
        "        print(run.id, shape, f't{n}', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=here.path, env=here.environment, capture_output=True, text=True, check=True)
    return {line.split()[0]: (line.split()[1], line.split()[2]) for line in done.stdout.splitlines()}


def _await_ends(engine: outlast.Engine, ids: dict[str, tuple[str, str]], patience_seconds: float) -> None:
    deadline = time.monotonic() + patience_seconds
    while open_runs := [i for i in ids if engine.get(i).status not in ("completed", "compensated", "failed", "cancelled")]:
        statuses = Counter(engine.get(i).status for i in open_runs)
        assert time.monotonic() < deadline, f"{len(open_runs)} runs have not ended: {statuses}"
        time.sleep(0.1)


def _checked(here: Folder, engine: outlast.Engine, ids: dict[str, tuple[str, str]], kills: int, began: float) -> Figures:
    wrong = [
        f"{shape} {tag} ended {engine.get(i).status}"
        for i, (shape, tag) in ids.items()
        if engine.get(i).status != ("compensated" if shape == "saga" else "completed")
    ]
    assert not wrong, wrong
    effects = here.effects()
    _check_effects(effects, ids, kills)
    connection = sqlite3.connect(here.path / "outlast.db")
    try:
        booked = Counter(row[0] for row in connection.execute("select tag from booking"))
        expected = {tag + ("c" if shape == "parent" else "") for shape, tag in ids.values() if shape != "saga"}
        assert booked == Counter(expected), "a @transaction step happened otherwise than exactly once"
        taken_over = connection.execute("select count(*) from outlast_task where claim > 1").fetchone()[0]
        assert connection.execute("pragma integrity_check").fetchone()[0] == "ok"
    finally:
        connection.close()
    report: dict[str, Any] = doctor(engine.store)
    bad = [check for check in report["checks"] if not check["ok"] and check["name"] not in ("agents", "agents' processes", "free disk")]
    assert not bad, bad
    repeated = sum(count - 1 for count in Counter(effects).values())
    return Figures(len(ids), kills, len(effects), repeated, taken_over, time.monotonic() - began)


def _check_effects(effects: list[str], ids: dict[str, tuple[str, str]], kills: int) -> None:
    counts: Counter[str] = Counter()
    keys: dict[str, set[str]] = {}
    undone: dict[str, list[int]] = {}
    for line in effects:
        word, what, key = line.split()
        counts[f"{word} {what}"] += 1
        keys.setdefault(f"{word} {what}", set()).add(key)
        if word == "undo" and int(what.rpartition(".")[2]) not in undone.setdefault(what.rpartition(".")[0], []):
            undone[what.rpartition(".")[0]].append(int(what.rpartition(".")[2]))
    for shape, tag in ids.values():
        for n in range(1 if shape == "asks" else 3):
            name = f"act {tag}{'c' if shape == 'parent' else ''}.{n}"
            least = 2 if n == 1 else 1
            assert least <= counts[name] <= least + kills, f"{name} happened {counts[name]} times, with {kills} kills"
        if shape == "saga":
            assert undone.get(tag) == [2, 1, 0], f"{tag} was undone in the order {undone.get(tag)}"
    assert all(len(one) == 1 for one in keys.values()), "an idempotency key changed between tries"
    assert not [line for line in effects if not re.fullmatch(r"(act|undo) \S+ \S+", line)]
