"""Claims on a queue with 100,000 pending tasks over 1,000 partitions, beside those on a plain queue: within 2 times.

Both files hold as many tasks and are claimed from by the same agent, in batches of one size, alternately, so that what else the machine
does falls on both. Prints the median time of a claim's transaction on each, and the ratio; with `--per-partition N` and `--concurrency N`
the partitioned queue has limits as well.

    python benchmarks/queues_partitions.py [--tasks 100000] [--partitions 1000] [--batch 8] [--rounds 300]
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from outlast.operations import Claim, End, RegisterAgent, Start
from outlast.operations.queues import SetQueue
from outlast.states import Ending
from outlast.store.process import this_process
from outlast.store.sqlite import SqliteStore

CODE = {"workflow:w": "f"}
BAR = 2.0


class Side:
    """One file with its backlog and an agent."""

    def __init__(self, path: Path, tasks: int, partitions: int, seed: int = 1) -> None:
        self.store = SqliteStore(path, create=True)
        chance = random.Random(seed)
        for number in range(tasks):
            partition = f"tenant-{chance.randrange(partitions)}" if partitions else None
            self.store.submit(Start(f"r{number}", "run", "w", "workflow:w", "q", b"{}", partition=partition))
        who = this_process()
        self.agent_id = self.store.commit(RegisterAgent("agent", who.host, who.boot_id, who.pid, who.started, 64, None, 10**12, CODE))
        self.times: list[float] = []
        self.taken = 0

    def claim(self, batch: int) -> None:
        began = time.perf_counter()
        claims = self.store.commit(Claim(self.agent_id, batch, CODE, taken=self.taken))
        self.times.append(time.perf_counter() - began)
        self.taken += len(claims)
        assert claims, "nothing was claimed"
        for one in claims:
            self.store.submit(End(one.fence, Ending.COMPLETED, output=b"null", simple=True))

    @property
    def milliseconds(self) -> float:
        return statistics.median(self.times) * 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--partitions", type=int, default=1_000)
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--per-partition", type=int)
    parser.add_argument("--concurrency", type=int)
    given = parser.parse_args()
    worst = 0.0
    for batch in given.batch or [1, 8, 64]:
        with tempfile.TemporaryDirectory() as folder:
            plain = Side(Path(folder) / "plain.db", given.tasks, 0)
            turns = Side(Path(folder) / "turns.db", given.tasks, given.partitions)
            if given.per_partition or given.concurrency:
                turns.store.commit(SetQueue("q", concurrency=given.concurrency, per_partition=given.per_partition))
            for _ in range(given.rounds):
                plain.claim(batch)
                turns.claim(batch)
            ratio = turns.milliseconds / plain.milliseconds
            worst = max(worst, ratio)
            print(
                f"{given.tasks:,} tasks, {batch} a claim: plain {plain.milliseconds:.3f} ms, "
                f"{given.partitions:,} partitions {turns.milliseconds:.3f} ms, ratio {ratio:.2f}",
                flush=True,
            )
            plain.store.close()
            turns.store.close()
    print(f"worst ratio {worst:.2f} (bar {BAR:g})")
    return 0 if worst <= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
