"""Engine time: elapsed time on this host, kept in the file across boots.

Owns the row of `outlast_clock`. Engine time is the elapsed microseconds of this boot plus an offset that all
processes of the boot read from the file, so they agree, it never falls, and a wall clock that somebody sets
changes nothing. Only across a reboot, when no other clock has run, does the wall clock tell how much passed:
from the pair (wall_at, engine_at) that `record` keeps fresh. Refuses to convert at rest: `to_wall` and
`from_wall` hold for as long as nobody sets the wall clock.
"""

from __future__ import annotations

from .. import clock
from .library import sqlite3

SELECT = "select boot_id, elapsed_offset, wall_at, engine_at from outlast_clock where one = 1"

ADOPT = """
    insert into outlast_clock (one, boot_id, elapsed_offset, wall_at, engine_at)
    values (1, :boot_id, :elapsed_offset, :wall_at, :engine_at)
    on conflict (one) do update
    set boot_id = :boot_id, elapsed_offset = :elapsed_offset, wall_at = :wall_at, engine_at = :engine_at
"""

RECORD = """
    update outlast_clock set wall_at = :wall_at, engine_at = :engine_at
    where one = 1 and boot_id = :boot_id and engine_at <= :engine_at
"""


class EngineTime:
    """The clock of one file. Made by `load`, or by `load_or_adopt` inside a write transaction."""

    def __init__(self, offset: int, boot_id: str) -> None:
        self._offset = offset
        self.boot_id = boot_id

    @property
    def offset(self) -> int:
        """What this boot's elapsed time lacks to be engine time, in microseconds."""
        return self._offset

    def now(self) -> int:
        """The engine instant.

        Never falls within a boot, nor across one unless the wall clock was set back meanwhile.
        """
        return clock.elapsed() + self._offset

    def skew(self) -> int:
        """What engine time lacks to be wall time, right now."""
        return clock.wall() - self.now()

    def to_wall(self, engine_at: int) -> int:
        """The wall instant at which the engine instant is, or was, due as the wall clock is set now."""
        return engine_at + self.skew()

    def from_wall(self, wall_at: int) -> int:
        """The engine instant at which the wall clock shows `wall_at`, unless somebody sets it meanwhile."""
        return wall_at - self.skew()

    def is_current(self) -> bool:
        """Whether the boot is still the one that the offset is of."""
        return self.boot_id == clock.boot_id()

    def record(self, connection: sqlite3.Connection) -> None:
        """Refresh the pair that bridges a reboot.

        What passed since the last call is lost if the wall clock is set back by then.
        """
        engine_at = self.now()
        connection.execute(RECORD, {"wall_at": clock.wall(), "engine_at": engine_at, "boot_id": self.boot_id})


def load(connection: sqlite3.Connection) -> EngineTime | None:
    """Read the engine time of this boot; None where `load_or_adopt` must make it first."""
    row = connection.execute(SELECT).fetchone()
    if row is None or row[0] != clock.boot_id():
        return None
    return EngineTime(row[1], row[0])


def load_or_adopt(connection: sqlite3.Connection) -> EngineTime:
    """Read the engine time of this boot, or carry it over into this boot. Only inside an immediate
    transaction.

    Of two processes that come up at once after a reboot, the second finds what the first has written: they
    agree.
    """
    boot_id, elapsed, wall = clock.boot_id(), clock.elapsed(), clock.wall()
    row = connection.execute(SELECT).fetchone()
    if row is None:
        engine_at = wall
    elif row[0] == boot_id:
        return EngineTime(row[1], boot_id)
    else:
        engine_at = row[3] + max(0, wall - row[2])
    offset = engine_at - elapsed
    connection.execute(ADOPT, {"boot_id": boot_id, "elapsed_offset": offset, "wall_at": wall, "engine_at": engine_at})
    return EngineTime(offset, boot_id)
