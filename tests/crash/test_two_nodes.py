"""Two `outlast up` on one file, one of them killed as a whole: the other one does it all, nothing twice and nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from .commands import eventually
from .test_role_boundaries import Place

pytestmark = pytest.mark.crash

CODE = """
import os, time
from outlast import Every, current, sqlite3, step, transaction, workflow

def effect(text):
    with open("effects", "a") as file:
        file.write(text + "\\n"); file.flush(); os.fsync(file.fileno())

@step
def first(tag: str) -> None: effect(f"first {tag} {current().idempotency_key}")

@step
def slow(tag: str) -> None:
    effect(f"slow {tag} {current().idempotency_key}"); time.sleep(0.4)

@transaction
def book(db: sqlite3.Connection, tag: str) -> None:
    db.execute("insert into booking values (?)", (tag,))

@workflow
def chain() -> None:
    tag = current().run_id
    first(tag); book(tag); slow(tag)

@workflow(schedule=Every("300ms", catch_up="all", overlap="allow"))
def beat() -> None: pass
"""
RUNS = 12


def children(parent: int) -> list[int]:
    """A node's agents and its scheduler: each is in a group of its own."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], stdout=subprocess.PIPE, text=True, check=True).stdout
    return [int(pid) for pid, of in map(str.split, listed.splitlines()) if int(of) == parent]


def test_of_two_nodes_on_one_file_one_is_killed_and_nothing_is_done_twice_or_lost(tmp_path: Path) -> None:
    place = Place(tmp_path)
    (tmp_path / "workflows" / "work.py").write_text(CODE)
    effects = tmp_path / "effects"
    ticks = "select tick, until from outlast_tick order by tick"

    def seen(word: str) -> Counter[str]:
        lines = effects.read_text().splitlines() if effects.exists() else []
        return Counter(line.removeprefix(f"{word} ") for line in lines if line.startswith(f"{word} "))

    try:
        place.store.connection().execute("create table booking (tag)")
        nodes = [place.popen("up", "--agents", "1", "--concurrency", "2") for _ in range(2)]
        active = "select pid from outlast_agent where status = 'active'"
        eventually(lambda: len(place.rows(active)) == 2 and len(place.rows(ticks)) > 1)
        ids = {place.start("chain").uid for _ in range(RUNS)}
        place.store.ring()
        group = children(nodes[0].pid)
        of_first = [pid for (pid,) in place.rows(active) if pid in group]
        assert len(of_first) == 1, "each node has an agent"
        held = f"select t.uid from outlast_task t join outlast_agent a on a.id = t.agent_id where a.pid = {of_first[0]}"
        eventually(lambda: any(uid in " ".join(seen("slow")) for (uid,) in place.rows(held) if uid in ids))
        for pid in (nodes[0].pid, *group):
            os.kill(pid, signal.SIGKILL)
        assert nodes[0].wait(20) == -signal.SIGKILL, "it had ended by itself"
        fired = len(place.rows(ticks))
        eventually(lambda: place.rows(f"select status from outlast_agent where pid = {of_first[0]}") == [("crashed",)])
        eventually(lambda: place.rows("select distinct status from outlast_task where name = 'chain'") == [("completed",)])
        eventually(lambda: len(place.rows(ticks)) > fired + 2)
        nodes[1].terminate()
        out, _ = nodes[1].communicate(timeout=30)
        assert nodes[1].returncode == 128 + signal.SIGTERM, out
        assert "Traceback" not in out

        assert {tag for (tag,) in place.rows("select tag from booking")} == ids
        assert len(place.rows("select tag from booking")) == RUNS, "a transaction ran twice"
        for word in ("first", "slow"):
            counts = seen(word)
            assert {line.split()[0] for line in counts} == ids
            assert len(counts) == RUNS, "an idempotency key changed"
            # The dead agent had two slots: no more than two steps were cut off in their middle.
            assert sum(counts.values()) <= RUNS + 2, "a step ran twice whose outcome was there"
        assert place.rows("select count(*) from outlast_task where claim > 1") > [(0,)], "nothing was taken over"
        decided = [tick for (tick, until) in place.rows(ticks) for tick in range(int(str(tick)), int(str(until)) + 1, 300_000)]
        assert decided == list(range(decided[0], decided[-1] + 1, 300_000)), "a tick twice, or a hole in the ledger"
        runs = place.rows("select run_id from outlast_tick where run_id is not null order by 1")
        assert runs == place.rows("select uid from outlast_task where name = 'beat' order by 1")
        assert place.is_sound()
    finally:
        place.close()
