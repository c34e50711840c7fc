"""What a retry takes over from the run that it retries: a result for each place, for equal input.

Owns one pure function over a journal and what that run had itself inherited and not reached. Refuses I/O, and to take over what was
undone, what was set aside, and failures: those run again. The exceptions are timeouts that had passed and were caught. With each
place goes the number of finished results that were set aside there, which is part of the idempotency key: a step runs again under a
new key only where its result had stood.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from .aside import branch_of, to_set_aside
from .entry import INHERITED, Entry
from .plan import undone_places

STEPS = frozenset({"step", "transaction", "task", "child"})
"""The kinds that a person can choose, and whose results are inherited for equal input."""
_KINDS = STEPS | {"timer", "signal", "first", "message", "patch"}
_BEGAN = ""
"""The place of the instant at which the first run of the chain began."""


class Inherited(Struct, frozen=True, gc=False):
    """What stands at a place. Without an `event` there is no result, only the number, or the id of a child, beside it."""

    path: str
    kind: str
    name: str
    seq: int
    at: int
    event: str | None = None
    generation: int = 0
    try_number: int = 0
    flags: int = 0
    started_at: int | None = None
    uid: str | None = None
    input: bytes | None = None
    data: bytes | None = None


def began(at: int) -> Inherited:
    """The instant that `now()` gives before anything has happened."""
    return Inherited(_BEGAN, "run", "", 0, at)


def began_at(inherited: Mapping[str, Inherited]) -> int | None:
    found = inherited.get(_BEGAN)
    return None if found is None else found.at


class _Place:
    """What a journal says of one place, and of what had been there."""

    def __init__(self, first: Entry) -> None:
        self.first = first
        self.started: Entry | None = None
        self.outcome: Entry | None = None
        self.given: Entry | None = None
        """The entry that has the input."""
        self.succeeded_late = False
        self.is_open = True
        """Something is there; not only what was set aside."""
        self.finished_before = 0
        self.has_inherited = False

    @property
    def succeeded(self) -> bool:
        return self.outcome is not None and self.outcome.event == "completed"

    def read(self, entry: Entry) -> None:
        if entry.event == "set_aside":
            self.finished_before += self.succeeded
            self.started = self.outcome = self.given = None
            self.succeeded_late = False
            self.is_open = False
            return
        if not self.is_open:
            self.first, self.is_open = entry, True
        if entry.input is not None and self.given is None:
            self.given = entry
        if entry.event == "started":
            self.started = entry
        elif entry.event != "tried" and (self.outcome is None or self.outcome.event != "completed"):
            # A success that came late, after a timeout or a cancel, is what the world knows of.
            self.succeeded_late = self.outcome is not None and entry.event == "completed"
            self.outcome = entry
        self.has_inherited = self.has_inherited or bool(entry.flags & INHERITED)


def inherit(
    entries: Iterable[Entry],
    before: Mapping[str, Inherited],
    *,
    failed: Collection[str] = (),
    branches: Collection[str] = (),
    chosen: str | None = None,
) -> list[Inherited]:
    """What the retry of a run has, by its journal and by what it had inherited itself.

    The outcomes at `failed` ended it and `branches` saw them; `chosen` is the place where a person wants the retry to begin.
    """
    journal = list(entries)
    places = _read(journal)
    left = {path: one for path, one in before.items() if path not in places}
    last_seq = max((entry.seq for entry in journal), default=0)
    # What was written off, by a timeout or a cancel, and succeeded all the same, stands.
    late = {path for path, place in places.items() if place.succeeded_late and place.first.kind in STEPS}
    cut = {entry.path for entry in to_set_aside(journal, failed, branches)} - late
    if chosen is not None:
        at = places[chosen].first.seq if chosen in places else last_seq + left[chosen].seq
        cut |= {path for path, place in places.items() if _follows(path, place.first.seq, chosen, at)}
        cut |= {path for path, one in left.items() if one.path and _follows(path, last_seq + one.seq, chosen, at)}
    cut |= undone_places(journal)
    kept = [_of(path, place, before.get(path), is_cut=path in cut) for path, place in places.items()]
    kept += [_left(one, last_seq, is_cut=path in cut) for path, one in left.items()]
    return [one for one in kept if one is not None]


def choose(entries: Iterable[Entry], before: Mapping[str, Inherited], wanted: str) -> str | None:
    """The place that a path or the name of a step means, of a name the first; None where there is none."""
    places = _read(entries)
    if wanted in places or (wanted and wanted in before):
        return wanted
    named = [(place.first.seq, path) for path, place in places.items() if place.first.name == wanted and place.first.kind in STEPS]
    named = named or [(one.seq, path) for path, one in before.items() if one.name == wanted and one.kind in STEPS]
    return min(named)[1] if named else None


def _read(entries: Iterable[Entry]) -> dict[str, _Place]:
    places: dict[str, _Place] = {}
    for entry in entries:
        if entry.kind in _KINDS:
            place = places.get(entry.path)
            if place is None:
                place = places[entry.path] = _Place(entry)
            place.read(entry)
    return places


def _of(path: str, place: _Place, before: Inherited | None, *, is_cut: bool) -> Inherited | None:
    first, outcome = place.first, place.outcome
    finished = place.succeeded
    generation = place.finished_before + (finished and is_cut) if first.kind in STEPS else 0
    if before is not None:
        # What was inherited and never taken was refused: other input, or other code.
        refused = before.event == "completed" and not place.has_inherited
        generation += before.generation + (refused and first.kind in STEPS)
    started, given = place.started, place.given
    made = Inherited(
        path, first.kind, first.name, first.seq, first.at, generation=generation,
        flags=given.flags if given is not None else 0, input=given.input if given is not None else None,
        uid=part_id(started),
    )  # fmt: skip
    if outcome is not None and place.is_open and not is_cut and (finished or _is_a_timeout(outcome, started)):
        return replace(
            made, event=outcome.event, seq=outcome.seq, at=outcome.at, try_number=outcome.try_number,
            started_at=outcome.started_at if outcome.started_at is not None else first.started_at, data=outcome.data,
        )  # fmt: skip
    if first.kind == "child" and not finished and place.is_open:
        return made
    return replace(made, uid=None, input=None) if generation else None


def _left(one: Inherited, last_seq: int, *, is_cut: bool) -> Inherited | None:
    """What the run had inherited and never came to."""
    if not one.path:
        return one
    if not is_cut:
        return replace(one, seq=last_seq + one.seq)
    generation = one.generation + (one.event == "completed" and one.kind in STEPS)
    if one.kind == "child" and one.event is None:
        return one
    if not generation:
        return None
    return Inherited(one.path, one.kind, one.name, one.seq, one.at, generation=generation)


def _is_a_timeout(outcome: Entry, started: Entry | None) -> bool:
    return outcome.kind == "signal" and outcome.event == "failed" and started is not None and started.due_at is not None


def part_id(started: Entry | None) -> str | None:
    """The id of the part whose start an entry tells of."""
    if started is None or started.kind not in ("task", "child") or started.data is None:
        return None
    return started.data.decode().partition(" ")[2] or None


def _follows(path: str, seq: int, chosen: str, chosen_seq: int) -> bool:
    """Whether a place comes with the chosen one or after it: by its number on one branch, by the journal on others."""
    own, number = branch_of(chosen), _numbers(chosen)
    place = _numbers(path)
    if not place:
        return False
    if path == chosen or path.startswith(f"{chosen}."):
        return True
    if path.startswith(own):
        return place[: len(number)] > number
    return seq > chosen_seq


def _numbers(path: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in path.split("."))
    except ValueError:
        return ()
