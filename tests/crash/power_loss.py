"""Power cuts: a workload of the engine on a recorded disk, cut off at many points, and what must hold of every image.

Owns the workload and the checks. An image must be sound, and hold exactly what some commit had left, which is none older than the last
one whose caller was answered (with "normal", any). The invariants of `doctor` are examined once for each such state; from some images
the engine goes on to the end, and repeats no step whose outcome is in the image.
"""

from __future__ import annotations

import random
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import outlast
from outlast import Retry, clock, emit, gather, publish, sleep, sqlite3, step, transaction, wait_signal, workflow
from outlast.definition import registry
from outlast.doctor import examine
from outlast.store import connection, library, log_room
from outlast.store.sqlite import SqliteStore
from outlast.supervisor import Supervisor
from outlast.testing import DrivenEngine
from outlast.testing.quick import QuickStore
from outlast.testing.virtual import VirtualClock

from .power_disk import Disk
from .power_store import Record, RecordedStore, digest, recorded

with registry.isolated() as defined:
    executed: Counter[str] = Counter()

    @step(retry=Retry(2, initial="1s"))
    def act(tag: str, n: int) -> str:
        executed[f"{tag} {n}"] += 1
        if n == 1 and outlast.current().step.try_number == 1:
            raise ConnectionError("once")
        return f"{tag} {n} " + "x" * 700

    @act.compensation
    def undo_act(result: str | None, tag: str, n: int) -> None:
        executed[f"undo {tag} {n}"] += 1

    @transaction
    def book(db: sqlite3.Connection, tag: str) -> int:
        db.execute("create table if not exists booking (tag text)")
        db.execute("insert into booking values (?)", (tag,))
        return 1

    @workflow
    def plain(tag: str) -> int:
        publish("at", 1)
        emit("log", "began")
        acted = act(tag, 0)
        booked = book(tag)
        sleep("1h")
        return len(acted) + booked

    @workflow
    def parent(tag: str) -> int:
        return sum(len(one) for one in gather(*[act.submit(tag, n) for n in range(3)])) + plain.start(tag + "c").result()

    @workflow
    def asks(tag: str) -> int:
        answer = wait_signal("go", int)
        book(tag)
        return answer

    @workflow
    def saga(tag: str) -> None:
        act(tag, 0)
        act(tag, 1)
        raise RuntimeError("no")


@dataclass
class Figures:
    """What was cut off, and what was left."""

    images: int = 0
    events: int = 0
    commits: int = 0
    in_checkpoints: int = 0
    lost: int = 0
    broken: int = 0
    went_on: int = 0
    states: set[int] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.images} images of {self.events} disk events and {self.commits} commits, {self.in_checkpoints} of them in a"
            f" checkpoint; {len(self.states)} different states found; answered commits lost in {self.lost}, file broken in {self.broken};"
            f" the engine went on from {self.went_on}"
        )


def make_some_room(store: SqliteStore) -> None:
    """As an agent does that comes up, in the small: frames that no commit ends are in the WAL behind the last one."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(log_room, "_BYTES", 200_000)
        patched.setattr(log_room, "_HELD_BACK_BYTES", 50_000)
        small = store.connection()
        (cache,) = small.execute("pragma cache_size").fetchone()
        small.execute("pragma cache_size = 10")
        log_room.make_room(small)
        small.execute(f"pragma cache_size = {cache}")


def record_workload(folder: Path, *, durability: str = "full", synchronous: str | None = None, rounds: int = 1) -> Record:
    """Run the workload from an empty folder to its end; give the record."""
    path = folder / "outlast.db"
    runs: dict[str, str] = {}
    with Disk(folder) as disk, registry.isolated() as current, clock.use(VirtualClock()):
        for definition in defined.workflows():
            current.add(definition)
        for definition in defined.steps():
            current.add(definition)
        record = Record(disk, synchronous=synchronous)
        record.is_normal = durability == "normal"
        with recorded(record):
            store = RecordedStore(path, create=True, durability=durability)
            with DrivenEngine(path, store=store, has_scheduler=False) as engine:
                for number in range(rounds):
                    make_some_room(store)
                    started = {flow.name: engine.start(flow, f"{flow.name}{number}") for flow in (plain, parent, asks, saga)}
                    runs |= {run.id: "compensated" if name == "saga" else "completed" for name, run in started.items()}
                    engine.until_idle()
                    started["asks"].signal("go", 7)
                    engine.advance("2h")
                record.cut_off_at = clock.wall()
                assert {run: engine.get(run).status for run in runs} == runs
    return record


def cut_off(record: Record, folder: Path, *, images: int, seed: int, goes_on: int = 0, keeps_all: bool = True) -> Figures:
    """Make that many images and check each; `keeps_all` where no answered commit may be lost."""
    chance = random.Random(seed)
    events = record.disk.events
    figures = Figures(events=len(events), commits=len(record.states) - 1)
    cuts = sorted(chance.randrange(len(events) + 1) for _ in range(images))
    chosen = set(chance.sample(range(images), goes_on))
    disk = record.disk.images()
    for number, cut in enumerate(cuts):
        disk.advance(cut)
        place = folder / f"image-{number}"
        place.mkdir()
        disk.write(place, seed * 1_000_000 + number)
        figures.images += 1
        figures.in_checkpoints += cut < len(events) and events[cut].what == "write" and events[cut].name.endswith(".db")
        problem = _examine(record, place / "outlast.db", cut, figures, keeps_all=keeps_all)
        if problem is None and number in chosen:
            problem = _go_on(record, place / "outlast.db")
            figures.went_on += 1
        if problem is None:
            shutil.rmtree(place)
        else:
            figures.problems.append(f"image {number} (seed {seed}, cut at event {cut}), kept in {place}: {problem}")
    return figures


def _examine(record: Record, path: Path, cut: int, figures: Figures, *, keeps_all: bool) -> str | None:
    begun = [number for number, state in enumerate(record.states) if state.began < cut or number == 0]
    answered = max(n for n in begun if record.states[n].is_promised and (at := record.states[n].answered) is not None and at <= cut)
    if not path.exists():
        # No commit has been answered before the file's name is on the disk.
        if answered:
            figures.lost += 1
        return "the file is not there" if answered and keeps_all else None
    image = sqlite3.connect(path, isolation_level=None)
    try:
        sound = image.execute("pragma integrity_check").fetchall()
        found = digest(image.execute) if sound == [("ok",)] else ""
    except sqlite3.DatabaseError as error:
        sound, found = [(str(error),)], ""
    finally:
        image.close()
    if sound != [("ok",)]:
        figures.broken += 1
        return f"damaged: {sound[:3]}"
    alike = [number for number in begun if record.states[number].digest == found]
    if not alike:
        figures.broken += 1
        return "it holds what no commit has left"
    if alike[-1] < answered:
        figures.lost += 1
        if keeps_all:
            return f"commit {answered} was answered, and the file is as commit {alike[-1]} left it"
    if alike[-1] not in figures.states:
        figures.states.add(alike[-1])
        return _invariants(path)
    return None


_NOT_OF_THE_IMAGE = ("agents", "agents' processes", "free disk", "rights", "clock", "SQLite")


def _invariants(path: Path) -> str | None:
    image = sqlite3.connect(path)
    is_empty = image.execute("select count(*) from sqlite_schema").fetchone() == (0,)
    image.close()
    if is_empty:
        return None
    store = SqliteStore(path)
    try:
        bad = [one.name + ": " + one.detail for one in examine(store) if not one.ok and one.name not in _NOT_OF_THE_IMAGE]
    finally:
        store.close()
    return f"doctor finds {bad}" if bad else None


_OUTCOMES = "select data from outlast_journal union all select output from outlast_outcome"
_OUTCOME = re.compile(rb'"(\S+ \d+) x{700}"')


def _go_on(record: Record, path: Path) -> str | None:
    """When the power is back, in another boot: whatever was started ends, and what has an outcome is not executed again."""
    with registry.isolated() as current, clock.use(_NextBoot(record.cut_off_at)):
        for definition in (*defined.workflows(), *defined.steps()):
            current.add(definition)
        executed.clear()
        store = QuickStore(path, create=True)
        with DrivenEngine(path, store=store, has_scheduler=False) as engine:
            known = {one[1].decode() for row in store.connection().execute(_OUTCOMES) if (one := _OUTCOME.match(row[0] or b""))}
            runs = [one.id for one in engine.runs(limit=1000)]
            supervisor = Supervisor(store, engine.settings)
            supervisor.tick(store.now())
            supervisor.stop()
            engine.advance("3h")
            for run in runs:
                if engine.get(run).status == "waiting":
                    engine.get(run).signal("go", 7)
            engine.advance("3h")
            left = {run: engine.get(run).status for run in runs if engine.get(run).status not in ("completed", "compensated")}
    if left:
        return f"when the power was back these did not end: {left}"
    if again := [one for one in known if executed[one]]:
        return f"when the power was back these steps were executed again: {again}"
    return None


class _NextBoot(VirtualClock):
    """The wall clock has gone on, and elapsed time begins anew."""

    def __init__(self, wall: int) -> None:
        super().__init__([wall, 30 * clock.SECOND])

    def boot_id(self) -> str:
        return "after the power cut"


def long_form(folder: Path, *, images: int = 2_500) -> Iterator[str]:
    """The figures of every kind of journal and every promise, a line each. Raises `AssertionError`."""
    for name, is_safe, durability, synchronous in (
        ("WAL, full", True, "full", None),
        ("WAL, normal", True, "normal", None),
        ("rollback journal, full", False, "full", None),
        ("WAL, fsync taken out (must lose)", True, "full", "off"),
        ("WAL, full taken for normal (must lose)", True, "full", "normal"),
        ("rollback journal, extra taken for full (must lose)", False, "full", "full"),
    ):
        place = folder / name
        (place / "images").mkdir(parents=True)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(library, "safe", is_safe)
            patched.setattr(connection, "_warned", True)
            record = record_workload(place, durability=durability, synchronous=synchronous, rounds=3)
            figures = cut_off(
                record, place / "images", images=images, seed=1, goes_on=0 if synchronous else 100, keeps_all=durability == "full"
            )
        if synchronous is None:
            assert not figures.problems, "\n".join(figures.problems)
        else:
            assert figures.lost
        shutil.rmtree(place)
        yield f"power cuts, {name}: {figures}"
