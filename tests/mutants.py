"""Take out one guard of the engine at a time, and see which tests notice: `python -m tests.mutants [NAME...]`.

A mutant that survives is a test that is missing. Each is a change of one text in a copy of the package, which the tests
import instead; the checkout is never touched. Exits with the number of survivors.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "engine" / "outlast"


@dataclass(frozen=True)
class Mutant:
    """A guard, the text that takes it out, and the tests that ought to notice."""

    name: str
    file: str
    text: str
    instead: str
    tests: tuple[str, ...]

    def write(self, folder: Path) -> None:
        """Copy the package, without the guard."""
        shutil.copytree(PACKAGE, folder / "outlast", ignore=shutil.ignore_patterns("__pycache__"))
        module = folder / "outlast" / self.file
        text = module.read_text()
        assert self.text in text, f"{self.name}: {self.file} reads otherwise by now"
        module.write_text(text.replace(self.text, self.instead))


MUTANTS = (
    Mutant(
        "the fence of the journal", "store/journal.py",
        "and claim = :claim and status in", "and :claim = :claim and status in",
        ("tests/crash/test_guarantees.py::test_a_zombie_changes_nothing", "tests/store/test_operations.py"),
    ),
    Mutant(
        "the fence of a park", "store/parking.py",
        "where id = :id and claim = :claim and status = 'running' and agent_id is not null",
        "where id = :id and :claim = :claim and status = 'running' and agent_id is not null",
        ("tests/store/test_parking.py", "tests/store/test_operations.py", "tests/crash/test_boundaries.py"),
    ),
    Mutant(
        "BEGIN IMMEDIATE", "store/connection.py", 'execute("begin immediate")', 'execute("begin")',
        ("tests/store", "tests/crash/test_boundaries.py"),
    ),
    Mutant(
        "synchronous=FULL", "store/pragmas.py", "_SYNCHRONOUS[durability]", "'normal'",
        ("tests/crash/test_power_loss.py", "tests/store", "tests/test_doctor.py", "tests/crash/test_boundaries.py"),
    ),
    Mutant(
        "the unique tick", "store/schema/0002_schedules.sql",
        "primary key (schedule, tick, by_hand),", "primary key (schedule, tick, by_hand, decided_at, run_id),",
        ("tests/store/test_schedules.py", "tests/test_scheduler.py", "tests/crash/test_boundaries.py"),
    ),
    Mutant(
        "the crash count", "store/agents.py", "crashes = crashes + (:crashed and alone)", "crashes = crashes",
        ("tests/store", "tests/run/test_suspects.py", "tests/crash/test_guarantees.py"),
    ),
    Mutant(
        "check-then-wait in one transaction", "store/parking.py",
        "if operation.signals and transaction.one(", "if not operation and transaction.one(",
        ("tests/store/test_parking.py", "tests/run/test_wakeups.py"),
    ),
    Mutant(
        "the reverse order of the undo", "plan.py", "key=lambda pair: -pair[1].seq", "key=lambda pair: pair[1].seq",
        ("tests/test_plan.py", "tests/run/test_undo.py"),
    ),
    Mutant(
        "the answer after the commit", "run/sync_run.py",
        "        if answer is None or answer.committed is None:\n            self._append(entry)",
        "        if answer is None or answer.committed is None:\n            self.store.submit(self.append(entry))",
        ("tests/testing/test_crash_everywhere.py", "tests/crash/test_guarantees.py"),
    ),
    Mutant(
        "the transaction's entry in its transaction", "run/transactional.py",
        "            self.committed(context, entry)\n",
        "            db.execute('commit')\n            db.execute('begin immediate')\n            self.committed(context, entry)\n",
        ("tests/testing/test_crash_everywhere.py", "tests/run/test_transactions.py"),
    ),
)  # fmt: skip


def is_noticed(mutant: Mutant) -> bool:
    """Whether a test fails without the guard."""
    with tempfile.TemporaryDirectory(prefix="outlast-mutant-") as folder:
        mutant.write(Path(folder))
        environment = {**os.environ, "PYTHONPATH": folder}
        tests = [test for test in mutant.tests if (ROOT / test.partition("::")[0]).exists()]
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *tests]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1, 2):
            raise SystemExit(f"{mutant.name}: the tests could not be run\n{done.stdout}{done.stderr}")
        last = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        print(f"  {last[0][:150] if last else 'no test fails'}")
        return done.returncode != 0


def main(names: list[str]) -> int:
    survivors = []
    chosen = [mutant for mutant in MUTANTS if not names or any(name in mutant.name for name in names)]
    for mutant in chosen:
        print(mutant.name, flush=True)
        began = time.monotonic()
        if not is_noticed(mutant):
            survivors.append(mutant.name)
        print(f"  {time.monotonic() - began:.0f} s", flush=True)
    print(f"{len(chosen)} mutants, {len(survivors)} survive{': ' + ', '.join(survivors) if survivors else ''}")
    return len(survivors)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
