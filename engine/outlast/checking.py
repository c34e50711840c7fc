"""`outlast check`: every open run replayed against the code on disk, before a deploy finds out.

Owns the verdict on each run (it fits, it differs at a place, its code is missing, its body does not come to an end) and on each patch.
Refuses the live file: it works on a copy that the backup API makes, runs no step and writes nothing. The workflow's body does run.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from . import codec
from .definition.code import Code
from .definition.stored_retry import retry_from
from .errors import CodeMismatch, InvalidInput, PayloadUnreadable
from .journal.entry import Entry
from .journal.plan import undo_plan
from .operations.claimed import Claimed
from .run.replaying import Found, ReplayHost, replay_within
from .settings import Settings
from .store import journal, sealing
from .store.backup import backup
from .store.sqlite import SqliteStore
from .views.open_runs import open_runs
from .views.runs import status_of

if TYPE_CHECKING:
    from .definition.registry import Registry

HANGS_SECONDS = 10.0
_HANGS_AGAIN_SECONDS = 1.0
_BUDGET_SECONDS = 30.0
"""What all bodies that hang may take together; then no more runs of their workflows are looked at."""


@dataclass(slots=True)
class Verdict:
    """What a run makes of the code. `result` is `fits`, `differs`, `no code`, `hangs` or `no key`."""

    id: str
    workflow: str
    version: str
    status: str
    result: str = "fits"
    message: str | None = None
    place: str | None = None
    journal: str | None = None
    code: str | None = None
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        names = ("id", "workflow", "version", "status", "result", "message", "place", "journal", "code", "warnings")
        return {name: getattr(self, name) for name in names}


@dataclass(slots=True)
class Report:
    """The verdicts, and by patch the open runs that go by the old code, and those that are marked as going by the new."""

    runs: list[Verdict] = field(default_factory=list)
    needed: dict[str, list[str]] = field(default_factory=dict)
    marked: dict[str, list[str]] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    not_looked_at: int = 0
    """Runs of workflows that hang, for which no time was left."""
    hung: set[tuple[str, str]] = field(default_factory=set)
    lost_seconds: float = 0.0

    @property
    def is_fit(self) -> bool:
        return all(one.result == "fits" for one in self.runs)

    def patches(self) -> list[dict[str, Any]]:
        """Each patch: whether the code still asks about it, and whether an open run needs that."""
        return [
            {
                "id": name,
                "in_code": name in self.asked,
                "needed_by": self.needed.get(name, []),
                "marked": len(self.marked.get(name, [])),
            }
            for name in sorted(self.asked | set(self.marked))
        ]

    def to_json(self) -> dict[str, Any]:
        return {
            "fits": self.is_fit,
            "not_looked_at": self.not_looked_at,
            "runs": [one.to_json() for one in self.runs],
            "patches": self.patches(),
        }


def check(path: str, registry: Registry, settings: Settings, *, workflow: str | None = None, ids: Collection[str] | None = None) -> Report:
    """Replay open runs against `registry`. Raises the `StoreError`s. A body that hangs is left in its thread."""
    report = Report()
    code = Code(registry)
    with TemporaryDirectory(prefix="outlast-check-") as folder:
        copy = str(Path(folder) / "copy.db")
        backup(path, copy, allow_network=settings.allow_network)
        store = SqliteStore(copy, allow_network=True)
        store.connection().tolerate()
        try:
            for claimed, ending in open_runs(store.connection(), workflow=workflow):
                if ids is not None and claimed.uid not in ids:
                    continue
                if (claimed.name, claimed.version) in report.hung and report.lost_seconds >= _BUDGET_SECONDS:
                    report.not_looked_at += 1
                else:
                    report.runs.append(_judge(store, code, settings, claimed, ending, report))
        finally:
            store.close()
    return report


def _judge(store: SqliteStore, code: Code, settings: Settings, claimed: Claimed, ending: str | None, report: Report) -> Verdict:
    verdict = Verdict(claimed.uid, claimed.name, claimed.version, status_of(store, claimed.fence.task_id))
    entries = journal.load(store.connection(), claimed.fence.task_id)
    for entry in entries:
        if entry.kind == "patch":
            report.marked.setdefault(entry.name, []).append(claimed.uid)
    if ending is not None:
        if ending != "completed":
            _look_at_undo(verdict, code, entries, "Its undo needs")
        return verdict
    definition = code.workflow(claimed.name, claimed.version)
    if definition is None:
        version = f" with the version {claimed.version!r}" if claimed.version else ""
        verdict.result, verdict.message = "no code", f"The code has no workflow {claimed.name}{version}."
        return verdict
    try:
        definition.signature.call(codec.decode_input(claimed.input))
        if claimed.options:
            retry_from(claimed.options)
        entries = sealing.opened(entries)
    except PayloadUnreadable as error:
        verdict.result, verdict.message = "no key", str(error)
        return verdict
    except codec.NotDecodable as error:
        verdict.result, verdict.message = "differs", f"Its input or its options cannot be read: {error}"
        return verdict
    except (TypeError, InvalidInput) as error:
        verdict.result, verdict.message = "differs", f"Its input does not fit {claimed.name} any more: {error}"
        return verdict
    host = ReplayHost(store.connection, store.now, settings)
    known, began = (claimed.name, claimed.version), time.monotonic()
    left = min(HANGS_SECONDS, _BUDGET_SECONDS - report.lost_seconds)
    limit = _HANGS_AGAIN_SECONDS if known in report.hung else max(left, _HANGS_AGAIN_SECONDS)
    found = replay_within(limit, host, claimed, definition, entries)
    if found is None:
        report.hung.add(known)
        report.lost_seconds += time.monotonic() - began
        verdict.result = "hangs"
        verdict.message = f"The body of {claimed.name} did not come to a wait within {limit:g} s; it is left running here."
        return verdict
    for name, decided in found.patches.items():
        report.asked.add(name)
        if not decided:
            report.needed.setdefault(name, []).append(claimed.uid)
    verdict.warnings = found.warnings
    _settle(verdict, found)
    if verdict.result == "fits":
        _look_at_undo(verdict, code, entries, "Should it be undone, that needs")
    return verdict


def _look_at_undo(verdict: Verdict, code: Code, entries: list[Entry], when: str) -> None:
    missing = [undo.name for undo in undo_plan(entries) if code.compensated(undo) is None]
    if missing:
        verdict.result = "no code"
        verdict.message = f"{when} the compensation of {missing[0]}, which the code does not have."


def _settle(verdict: Verdict, found: Found) -> None:
    if found.difference is not None:
        _differs(verdict, found.difference)
    elif found.error is not None:
        verdict.warnings.append(f"It would fail: {type(found.error).__name__}: {found.error}")


def _differs(verdict: Verdict, difference: CodeMismatch) -> None:
    verdict.result, verdict.message = "differs", difference.message
    verdict.place, verdict.journal, verdict.code = difference.path, difference.recorded, difference.found
