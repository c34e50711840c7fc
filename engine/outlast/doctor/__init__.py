"""The checks of `outlast doctor`: the library, the file, its invariants, and what stands still.

Owns the list of checks; each is a name, a verdict, what was found, and what to do. Refuses to repair, and
to stop at the first problem: a check that cannot be made is a finding itself. The invariants are queries
that find nothing in a sound file; between a crash and the next look of a supervisor some find what it is
about to put right, so leases and the like count only once they are well overdue.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from textwrap import dedent
from typing import TYPE_CHECKING, Any

from .. import clock
from ..errors import OutlastError
from ..store import drift, library, migrations
from ..store.connection.filesystem import NETWORK, kind_of
from ..store.library import sqlite3
from ..text.duration import describe
from ..views.agents import agents_json
from . import compound
from .invariant import Invariant
from .invariants import INVARIANTS

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore

_SHOWN = 5
_SHORT_OF_ROOM_BYTES = 256 << 20
_BIG_BYTES = 1 << 30
_PATIENCE_SECONDS = 60.0
"""What a supervisor has had no time for yet is no finding."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was found, and what to do about it where that is not well."""

    name: str
    ok: bool
    detail: str
    action: str = ""
    query: str = ""
    """Of an invariant: what finds nothing where it holds."""

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "ok": self.ok, "detail": self.detail, "action": self.action, "query": self.query}


def doctor(store: SqliteStore) -> dict[str, Any]:
    """Examine the file: `{"ok", "path", "checks": [{"name", "ok", "detail", "action", "query"}]}`."""
    findings = examine(store)
    return {
        "ok": all(finding.ok for finding in findings),
        "path": store.path,
        "checks": [finding.to_json() for finding in findings],
    }


def is_alive(store: SqliteStore) -> dict[str, Any]:
    """Whether an agent with a lease is up, in the form of `doctor`: what a health check asks every few seconds."""
    up = [agent for agent in agents_json(store) if agent["status"] == "active"]
    detail = f"agents that are up: {len(up)}" if up else "no agent is up"
    finding = Finding("alive", bool(up), detail, "" if up else "`outlast up` starts some.")
    return {"ok": finding.ok, "path": store.path, "checks": [finding.to_json()]}


def examine(store: SqliteStore) -> list[Finding]:
    """Make every check, those of the library and the file first."""
    checks: list[tuple[str, Callable[[SqliteStore], Finding]]] = [
        ("SQLite", _library),
        ("journal mode", _journal_mode),
        ("schema", _schema),
        ("integrity", _integrity),
        ("rights", _rights),
        ("file system", _file_system),
        ("free disk", _free_disk),
        ("clock", _clock),
        ("agents", _agents),
        ("agents' processes", _processes),
        ("undo order", _undo_order),
        ("halted runs", _halted),
        ("broken schedules", _schedules),
    ]
    findings = [_made(name, lambda check=check: check(store)) for name, check in checks]  # type: ignore[misc]
    findings += [_made(one.name, lambda one=one: _invariant(store, one)) for one in INVARIANTS]  # type: ignore[misc]
    return findings


def _made(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except (OutlastError, sqlite3.Error, OSError) as error:
        return Finding(name, False, f"The check failed: {error}", "Fix that, then run `outlast doctor` again.")


def _library(_: SqliteStore) -> Finding:
    version = f"{sqlite3.sqlite_version} by {sqlite3.__name__}"
    first = ".".join(map(str, library.FIRST_SAFE))
    if library.safe:
        return Finding("SQLite", True, f"{version}, free of the WAL-reset bug")
    return Finding(
        "SQLite",
        False,
        f"{version} is older than {first} and can damage a WAL file; a slower rollback journal is used",
        "pip install 'pysqlite3>=0.6.1'",
    )


_SYNCHRONOUS = {0: "off", 1: "normal", 2: "full", 3: "extra"}


def _journal_mode(store: SqliteStore) -> Finding:
    connection = store.connection()
    mode = connection.execute("pragma journal_mode").fetchone()[0]
    synchronous = connection.execute("pragma synchronous").fetchone()[0]
    wanted = "wal" if library.safe else "delete"
    detail = f"journal_mode {mode}, synchronous {_SYNCHRONOUS.get(synchronous, synchronous)}"
    chosen = store.durability
    if mode == wanted and synchronous >= (1 if chosen == "normal" else 2):
        choice = ': by durability = "normal", a power cut can take the last commits' if chosen == "normal" else ""
        return Finding("journal mode", True, f"{detail}{choice}")
    return Finding(
        "journal mode",
        False,
        f"{detail}; expected {wanted} and {chosen}",
        "Stop every process that has the file open, then run `outlast migrate`.",
    )


def _schema(store: SqliteStore) -> Finding:
    connection = store.connection()
    found, wanted = migrations.schema_version(connection), migrations.newest()
    detail = f"version {found}"
    if found != wanted:
        return Finding("schema", False, f"{detail}; this code wants {wanted}", "outlast migrate")
    changed = drift.differences(connection)
    if changed:
        return Finding(
            "schema",
            False,
            f"{detail}; {_listed(changed)}",
            "Make a backup; put it back as `outlast migrate` makes it in a new file.",
        )
    return Finding("schema", True, detail)


def _integrity(store: SqliteStore) -> Finding:
    # The whole check reads every index as well; of a big file that takes minutes.
    is_big = os.stat(store.path).st_size > _BIG_BYTES  # noqa: PTH116
    check = "quick_check" if is_big else "integrity_check"
    lines = [row[0] for row in store.connection().execute(f"pragma {check}(5)")]
    if lines == ["ok"]:
        return Finding("integrity", True, f"{check} found nothing")
    return Finding(
        "integrity",
        False,
        "; ".join(lines),
        "Stop everything; restore a backup, or use sqlite3's `.recover` on a copy of the file and its -wal.",
    )


def _rights(store: SqliteStore) -> Finding:
    mode = os.stat(store.path).st_mode & 0o777  # noqa: PTH116
    if mode & 0o077:
        return Finding("rights", False, f"{mode:04o}: others can read your runs' inputs", f"chmod 600 {store.path}")
    return Finding("rights", True, f"{mode:04o}, yours alone")


def _file_system(store: SqliteStore) -> Finding:
    kind = kind_of(store.path)
    if kind in NETWORK:
        detail = f"{kind} is a network file system; its locks cannot be trusted"
        return Finding("file system", False, detail, "Use a local disk.")
    return Finding("file system", True, kind or "of an unknown kind")


def _free_disk(store: SqliteStore) -> Finding:
    disk = os.statvfs(os.path.dirname(store.path))  # noqa: PTH120
    free = disk.f_bavail * disk.f_frsize
    size = sum(os.stat(name).st_size for name in _files(store.path))  # noqa: PTH116
    detail = f"{_bytes(free)} free; the file takes {_bytes(size)}"
    if free < _SHORT_OF_ROOM_BYTES:
        return Finding("free disk", False, detail, "Make room; on a full disk no new work is taken.")
    return Finding("free disk", True, detail)


def _files(path: str) -> list[str]:
    return [name for name in (path, f"{path}-wal") if os.path.exists(name)]  # noqa: PTH110


_CLOCK = "select boot_id, elapsed_offset, wall_at, engine_at from outlast_clock"


def _clock(store: SqliteStore) -> Finding:
    rows = store.connection().execute(_CLOCK).fetchall()
    if len(rows) != 1:
        return Finding("clock", False, f"{len(rows)} rows in outlast_clock", "Restore a backup.")
    boot_id, _, wall_at, engine_at = rows[0]
    now = store.now()
    if boot_id != clock.boot_id():
        return Finding("clock", False, "engine time is of another boot", "`outlast up` takes it over.")
    if engine_at > now:
        ahead = describe((engine_at - now) / clock.SECOND)
        detail = f"engine time was recorded {ahead} ahead of now"
        return Finding("clock", False, detail, "Restore a backup.")
    drift = (clock.wall() - wall_at) - (now - engine_at)
    detail = "engine time runs"
    if abs(drift) > 5 * clock.SECOND:
        way = "forward" if drift > 0 else "back"
        jump = describe(abs(drift) / clock.SECOND)
        detail += f"; somebody set the wall clock {jump} {way}, which moves no timer"
    return Finding("clock", True, detail)


_AGENTS = """
select count(*), coalesce(sum(lease_until < :now), 0), coalesce(sum(root_id is null and lease_until >= :now), 0)
from outlast_agent where status in ('active', 'draining')
"""

_DUE = """
select count(*), min(due_at) from outlast_task
where due_at is not null and paused_at is null and due_at <= :now
  and coalesce(root_id, id) not in (select a.root_id from outlast_agent a where a.status = 'active' and a.root_id is not null)
"""


def _agents(store: SqliteStore) -> Finding:
    now = store.now()
    count, silent, able = store.connection().execute(_AGENTS, {"now": now}).fetchone()
    due, oldest = store.connection().execute(_DUE, {"now": now}).fetchone()
    detail = f"{count} up, {silent} of them silent; {due:,} due"
    if due and not able:
        waited = describe((now - oldest) / clock.SECOND)
        detail = f"{detail}, the oldest for {waited}, and nobody takes it"
        return Finding("agents", False, detail, "outlast up")
    if silent:
        return Finding("agents", False, detail, "A supervisor gives back what they held: `outlast up`.")
    return Finding("agents", True, detail)


def _processes(store: SqliteStore) -> Finding:
    dead = compound.dead_agents(store)
    if not dead:
        return Finding("agents' processes", True, "no agent of this host has died unnoticed")
    return Finding(
        "agents' processes",
        False,
        f"dead, and nobody has given back what it held: {_listed(dead)}",
        "Start a supervisor: `outlast up` or `outlast supervisor`.",
    )


def _undo_order(store: SqliteStore) -> Finding:
    wrong = compound.wrong_undo(store)
    if not wrong:
        return Finding("undo order", True, "every undo waits for the code of its next compensation")
    return Finding("undo order", False, _listed(wrong), "Make a backup, and report it with the output of `outlast show RUN --json`.")


def _halted(store: SqliteStore) -> Finding:
    waiting = compound.halted(store)
    if not waiting:
        return Finding("halted runs", True, "no run waits for a person")
    count = "1 waits" if len(waiting) == 1 else f"{len(waiting):,} wait"
    return Finding("halted runs", True, f"{count} for a person (`outlast why RUN`): {_listed(waiting)}")


def _schedules(store: SqliteStore) -> Finding:
    broken = compound.broken_schedules(store)
    if not broken:
        return Finding("broken schedules", True, "every schedule can fire")
    return Finding("broken schedules", False, _listed(broken), "outlast why NAME")


def _listed(found: list[str]) -> str:
    more = f" and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
    return f"{', '.join(found[:_SHOWN])}{more}"


def _invariant(store: SqliteStore, invariant: Invariant) -> Finding:
    patience = round(_PATIENCE_SECONDS * clock.SECOND)
    now = store.now()
    parameters = {
        "now": now,
        "before": now - patience,
        "wall_before": clock.wall() - patience,
        "limit": _SHOWN + 1,
    }
    query = dedent(invariant.query).strip()
    rows = store.connection().execute(query, parameters).fetchall()
    if not rows:
        return Finding(invariant.name, True, invariant.holds, query=query)
    shown = ", ".join(str(row[0]) for row in rows[:_SHOWN])
    more = " and more" if len(rows) > _SHOWN else ""
    return Finding(invariant.name, False, f"{invariant.broken}: {shown}{more}", invariant.action, query)


def _bytes(size: int) -> str:
    amount, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount /= 1024
        units.pop(0)
    return f"{amount:.0f} {units[0]}" if amount >= 10 or units[0] == "B" else f"{amount:.1f} {units[0]}"


__all__ = ["Finding", "doctor", "examine"]
