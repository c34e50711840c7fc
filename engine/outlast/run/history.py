"""The journal of one run in memory, by place and in order of delivery.

Owns the comparison of code and journal: a difference is another kind or name at a place, or code that ends before its journal does.
Refuses I/O. A place is a path: "3" is the third durable call of the main branch, "3.1" the first of the branch made there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..errors import CodeMismatch
from ..journal.entry import INHERITED, Entry
from .when_used import when_used

OUTCOMES = frozenset({"completed", "failed", "cancelled", "unknown"})
DELIVERED = frozenset({"step", "transaction", "task", "child", "timer", "signal"})
"""The kinds whose outcomes the code waits for."""
_BOOKKEEPING = frozenset({"patch", "forced", "compensation", "question", "probe", "void"})
PROBE_PREFIX = "probe/"


def void(seq: int, name: str, at: int) -> Entry:
    """What fills the number of an entry that was not written."""
    return Entry(seq, f"void/{seq}", "cancelled", "void", name, at)


class Record:
    """What the journal says of one place."""

    __slots__ = ("began", "kind", "name", "outcome", "path", "probed", "started", "tried", "visited")

    def __init__(self, path: str, kind: str, name: str) -> None:
        self.path = path
        self.kind = kind
        self.name = name
        self.started: Entry | None = None
        self.tried: Entry | None = None
        self.began = 0
        """The try that was begun and has not come to an end, of a step that says so; else 0."""
        self.probed: Entry | None = None
        """The last try of the probe, since then."""
        self.outcome: Entry | None = None
        self.visited = False


class History:
    """The records of a journal, and the outcomes in the order in which they reach the code."""

    last_seq = 0
    has_parts = False
    deliveries = when_used(list[Entry])
    gaps = when_used(list[int])
    """Numbers that a process had given out when it died, of entries that were not written: they waited for the lock that a
    `@transaction` step held, whose entry was committed with a later number. Nothing followed from what they told."""
    _asides = when_used(dict[str, list[Record]])

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.records: dict[str, Record] = {}
        for entry in entries:
            if entry.seq > self.last_seq + 1 and entry.kind == "transaction":
                self.gaps += range(self.last_seq + 1, entry.seq)
            self.last_seq = max(self.last_seq, entry.seq)
            if entry.kind == "probe":
                probed = self.records.get(entry.path.removeprefix(PROBE_PREFIX))
                if probed is not None:
                    probed.probed = entry
                continue
            if entry.kind in _BOOKKEEPING and entry.kind != "patch":
                continue
            if entry.event == "set_aside":
                self._set_aside(entry.path)
                continue
            record = self.records.get(entry.path)
            if record is None:
                record = self.records[entry.path] = Record(entry.path, entry.kind, entry.name)
            if entry.event == "started":
                record.started = entry
                record.began, record.probed = entry.try_number, None
                self.has_parts = self.has_parts or entry.kind in ("task", "child")
            elif entry.event == "tried":
                record.tried = entry
                record.began = 0
            elif record.outcome is None:
                record.outcome = entry
                if entry.kind in DELIVERED:
                    self.deliveries.append(entry)

    def at(self, path: str, kind: str, name: str) -> Record | None:
        """What is recorded at a place that the code has reached; `CodeMismatch` where that is something else."""
        record = self.records.get(path)
        if record is None:
            return None
        if record.kind != kind or record.name != name:
            raise CodeMismatch(path, recorded=f"{record.kind} {record.name}", found=f"{kind} {name}")
        record.visited = True
        return record

    def is_ahead(self) -> bool:
        """Whether the journal goes on beyond what the code has reached."""
        return any(True for _ in self.ahead())

    def ahead(self) -> Iterator[Record]:
        """What the journal has and the code has not reached."""
        return (record for record in self.records.values() if not record.visited and record.kind not in _BOOKKEEPING)

    def check_end(self, found: str = "the end of the workflow") -> None:
        """Refuse code that ended while the journal goes on."""
        for record in self.ahead():
            raise CodeMismatch(record.path, recorded=f"{record.kind} {record.name}", found=found)

    def all_records(self) -> Iterator[Record]:
        """What is at each place, and what was there before it was set aside."""
        yield from self.records.values()
        for asides in self._asides.values():
            yield from asides

    def generation(self, path: str) -> int:
        """How often what was at a place has been set aside: what starts there next is another task."""
        return len(self._asides.get(path, ()))

    def key_generation(self, path: str) -> int:
        """How often a finished result was set aside there. Failed and unknown outcomes keep their idempotency key."""
        asides = self._asides.get(path, ())
        return sum(record.outcome is not None and record.outcome.event == "completed" for record in asides)

    def child_set_aside(self, path: str, name: str) -> Entry | None:
        """The start of the child that was here last, where it had not completed before it was set aside."""
        asides = self._asides.get(path)
        record = asides[-1] if asides else None
        if record is None or record.kind != "child" or record.name != name:
            return None
        return None if record.outcome is not None and record.outcome.event == "completed" else record.started

    def has_inherited(self, path: str) -> bool:
        """Whether what the run had inherited for a place has become its own, be it set aside since."""
        present = self.records.get(path)
        records = [*self._asides.get(path, ()), *([present] if present is not None else [])]
        return any(record.outcome is not None and record.outcome.flags & INHERITED for record in records)

    def mark(self, path: str, kind: str, name: str) -> Record:
        """Note a place that the code has reached for the first time."""
        record = self.records[path] = Record(path, kind, name)
        record.visited = True
        return record

    def _set_aside(self, path: str) -> None:
        record = self.records.pop(path, None)
        if record is not None:
            self._asides.setdefault(path, []).append(record)
        if record is not None and record.outcome is not None and record.outcome in self.deliveries:
            self.deliveries.remove(record.outcome)
