"""Take out one guard of the engine at a time, and see which tests notice: `python -m tests.mutants [NAME...]`.

A mutant that survives is a test that is missing. Each is a change of one text in a copy of the package, which the tests
import instead; the checkout is never touched. Exits with the number of survivors. `tests/test_mutants.py` is the short form: of each
mutant the one test that notices soonest.
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
    """A guard, the text that takes it out, the tests that ought to notice, and the cheapest one that does."""

    name: str
    file: str
    text: str
    instead: str
    tests: tuple[str, ...]
    killer: str

    def write(self, folder: Path) -> None:
        """Copy the package, without the guard; what is compiled already goes with it, which is half of the time."""
        shutil.copytree(PACKAGE, folder / "outlast")
        module = folder / "outlast" / self.file
        text = module.read_text()
        assert self.text in text, f"{self.name}: {self.file} reads otherwise by now"
        module.write_text(text.replace(self.text, self.instead))


MUTANTS = (
    Mutant(
        "the fence of the journal", "store/journal.py",
        "and claim = :claim and status in", "and :claim = :claim and status in",
        ("tests/crash/test_guarantees.py::test_a_zombie_changes_nothing", "tests/store/test_operations.py",
         "tests/crash/test_simulation.py"),
        "tests/store/test_operations.py::test_a_late_write_of_an_old_claim_changes_nothing[append with a signal]",
    ),
    Mutant(
        "the fence of a park", "store/parking.py",
        "where id = :id and claim = :claim and status = 'running' and agent_id is not null",
        "where id = :id and :claim = :claim and status = 'running' and agent_id is not null",
        ("tests/store/test_parking.py", "tests/store/test_operations.py", "tests/crash/test_boundaries.py"),
        "tests/store/test_operations.py::test_a_late_write_of_an_old_claim_changes_nothing[park]",
    ),
    Mutant(
        "the undo that waits for who had lost a part", "store/ending.py",
        "    if has_stray(transaction, task_id, ending):\n        return False\n", "",
        ("tests/store/test_endings.py",),
        "tests/store/test_endings.py::test_an_undo_waits_for_the_process_that_had_lost_a_submitted_step_which_another_completed",
    ),
    Mutant(
        "BEGIN IMMEDIATE", "store/connection/__init__.py", 'execute("begin immediate")', 'execute("begin")',
        ("tests/store", "tests/crash/test_boundaries.py"),
        "tests/store/test_connection.py::test_a_file_that_somebody_else_writes_is_reported_as_locked",
    ),
    Mutant(
        "synchronous=FULL", "store/connection/pragmas.py", "_SYNCHRONOUS[durability]", "'normal'",
        ("tests/crash/test_power_loss.py", "tests/store", "tests/test_doctor.py", "tests/crash/test_boundaries.py"),
        "tests/store/test_connection.py::test_every_commit_reaches_the_disk",
    ),
    Mutant(
        "synchronous=EXTRA where there is no WAL", "store/connection/pragmas.py",
        'return "extra" if durability', 'return "full" if durability',
        ("tests/crash/test_power_loss.py", "tests/test_durability.py"),
        "tests/test_durability.py::test_a_commit_without_wal_syncs_the_folder_too",
    ),
    Mutant(
        "an undo that gave up stands", "store/ending.py", "and halted_at is not null)", "and halted_at is null)",
        ("tests/store/test_endings.py",),
        "tests/store/test_endings.py::test_an_undo_that_gave_up_stays_halted_until_a_person_decides",
    ),
    Mutant(
        "the end of a forked child", "run/forked.py", "if _generation == before:", "if before >= 0:",
        ("tests/run/test_forked_steps.py",),
        "tests/run/test_forked_steps.py::test_the_child_of_a_fork_ends_where_it_comes_back[returns-sync-1]",
    ),
    Mutant(
        "the unique tick", "store/schema/0002_schedules.sql",
        "primary key (schedule, tick, by_hand),", "primary key (schedule, tick, by_hand, decided_at, run_id),",
        ("tests/store/test_schedules.py", "tests/test_scheduler.py", "tests/crash/test_boundaries.py"),
        "tests/store/test_schedules.py::test_a_backfill_given_twice_starts_nothing_twice_and_leaves_what_has_fired",
    ),
    Mutant(
        "the crash count", "store/agents.py", "crashes = crashes + (:crashed and alone)", "crashes = crashes",
        ("tests/store", "tests/run/test_suspects.py", "tests/crash/test_guarantees.py"),
        "tests/supervisor/test_supervisor.py::test_a_task_that_takes_down_its_agent_alone_again_and_again_is_halted",
    ),
    Mutant(
        "check-then-wait in one transaction", "store/parking.py",
        "if operation.signals and transaction.one(", "if not operation and transaction.one(",
        ("tests/store/test_parking.py", "tests/run/test_wakeups.py"),
        "tests/store/test_parking.py::test_a_signal_between_the_look_and_the_park_keeps_the_run_up",
    ),
    Mutant(
        "the reverse order of the undo", "journal/plan.py", "key=lambda pair: -pair[1].seq", "key=lambda pair: pair[1].seq",
        ("tests/journal/test_plan.py", "tests/run/test_undo.py"),
        "tests/journal/test_plan.py::test_the_latest_started_step_is_undone_first_whatever_ended_first",
    ),
    Mutant(
        "the answer after the commit", "run/sync_run.py",
        "        if answer is None or answer.committed is None:\n            self._append(entry)",
        "        if answer is None or answer.committed is None:\n            self.store.submit(self.append(entry))",
        ("tests/testing/test_crash_everywhere.py", "tests/crash/test_guarantees.py"),
        "tests/run/test_calls_in_runs.py::test_a_step_begins_when_the_outcome_before_it_is_on_disk",
    ),
    Mutant(
        "the transaction's entry in its transaction", "run/transactional.py",
        "            self.committed(context, sealed(entry))\n",
        "            db.execute('commit')\n            db.execute('begin immediate')\n            self.committed(context, sealed(entry))\n",
        ("tests/testing/test_crash_everywhere.py", "tests/run/test_transactions.py"),
        "tests/run/test_transactions.py::test_nothing_of_a_transaction_is_there_until_its_entry_is",
    ),
    Mutant(
        "the seal of payloads", "store/committer/__init__.py",
        "operation = sealed_or_refused(operation)", "operation = operation",
        ("tests/run/test_payload_codecs.py",),
        "tests/run/test_payload_codecs.py::test_nothing_of_any_payload_lies_plain_in_the_file[sync]",
    ),
)  # fmt: skip


def is_noticed(mutant: Mutant, tests: tuple[str, ...] = ()) -> bool:
    """Whether one of the mutant's tests, or of these, fails without the guard."""
    with tempfile.TemporaryDirectory(prefix="outlast-mutant-") as folder:
        mutant.write(Path(folder))
        # Without the plugins of others: they take four times as long to load as one test takes.
        environment = {**os.environ, "PYTHONPATH": folder, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-x", "-p", "no:cacheprovider", "-p", "outlast_pytest"]
        command += tests or mutant.tests
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1):
            raise RuntimeError(f"{mutant.name}: the tests could not be run\n{done.stdout}{done.stderr}")
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
