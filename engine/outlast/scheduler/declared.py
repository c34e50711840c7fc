"""What the code of this process declares, brought into the table of schedules.

Owns the comparison of the two when a scheduler comes up, and whenever definitions have come or gone since: a
new schedule begins now, a changed one too, one that has disappeared from its code is noted as gone. Refuses
to speak for other code: only whoever has loaded the file that declared a schedule may say that it is gone.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import clock, scheduling
from ..clock import SECOND
from ..errors import OutlastError, StoreError
from ..operations.schedules import GoneSchedule, ScheduleWrite, WriteSchedules
from ..scheduling import Declared
from ..store import schedulers, schedules
from ..store.process import this_process
from ..store.schedules import StoredSchedule

if TYPE_CHECKING:
    from ..definition import Workflow
    from ..definition.registry import Registry
    from ..store.sqlite import SqliteStore

_log = logging.getLogger("outlast")

_CODE_SECONDS = 1.0
_RETRY_SECONDS = 30.0
_TRIES = 5


class ScheduleCode:
    """The schedules of one process's code. Belongs to one thread."""

    def __init__(self, store: SqliteStore, registry: Registry, uid: str, say: Callable[[str], None]) -> None:
        """`uid` is that of the scheduler that asks; `say` is told a line for each change."""
        self._store = store
        self._registry = registry
        self._uid = uid
        self._say = say
        self.declared: dict[str, Declared] = {}
        self.workflows = "[]"
        """The names of the workflows that this process has, as a JSON list."""
        self._host = this_process().host
        self._seen: list[Workflow[..., Any]] | None = None
        self._seen_at = 0
        self._tried_at = 0
        self._problems: set[str] = set()

    def take_up(self, now: int, wall: int) -> bool:
        """Bring the table up to what the code declares; false where that is as it was at the last look."""
        if self._seen is not None and 0 <= now - self._seen_at < _CODE_SECONDS * SECOND:
            return False
        self._seen_at = now
        workflows = self._registry.workflows()
        is_retry = workflows == self._seen
        if is_retry and not self._retries(now):
            return False
        self._tried_at = now
        self.declared, problems = scheduling.declared(self._registry)
        self.workflows = json.dumps(sorted({one.name for one in workflows}))
        for _ in range(_TRIES):
            writes, gone = self._changes(wall, problems)
            if not writes and not gone:
                break
            stale = self._store.commit(WriteSchedules(tuple(writes), tuple(gone)))
            if not is_retry:
                self._say_taken_up(writes, gone, stale)
            if not stale:
                break
        self._warn(problems)
        self._seen = workflows
        return True

    def _retries(self, now: int) -> bool:
        """Whether a schedule that could not fire gets another try: what it lacked, a queue say, may be there by now."""
        if now - self._tried_at < _RETRY_SECONDS * SECOND:
            return False
        self._tried_at = now
        return schedules.any_broken(self._store.connection())

    def _changes(self, wall: int, problems: list[str]) -> tuple[list[ScheduleWrite], list[GoneSchedule]]:
        stored = {one.name: one for one in schedules.everything(self._store.connection())}
        writes: list[ScheduleWrite] = []
        for name, one in self.declared.items():
            known = stored.get(name)
            if known is not None and known.source == "command":
                problems.append(
                    f"The schedule {name} of {one.workflow.place} is not used: "
                    f"one of this name was made by hand. `outlast schedule delete {name}` makes room for it."
                )
                continue
            try:
                write = self._change(name, one, known, wall)
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 - a foreign trigger may raise anything
                problems.append(f"The schedule {name} of {one.workflow.place} is not used: {error}")
                continue
            if write is not None:
                writes.append(write)
        workflows = {one.name for one in self._registry.workflows()}
        for one_stored in stored.values():
            if one_stored.source == "command" and one_stored.error is not None and one_stored.workflow in workflows:
                writes += self._mended(one_stored, wall)
        return writes, [scheduling.gone(self._store, one, wall) for one in self._gone(stored.values())]

    def _change(self, name: str, one: Declared, known: StoredSchedule | None, wall: int) -> ScheduleWrite | None:
        origin = (os.path.abspath(one.workflow.file), self._host)  # noqa: PTH100
        facts = (one.schedule, one.workflow.name, one.input)
        if known is None:
            return scheduling.new(name, *facts, source="code", wall=wall, origin=origin)
        return scheduling.change(self._store, known, *facts, source="code", wall=wall, origin=origin)

    def _mended(self, stored: StoredSchedule, wall: int) -> list[ScheduleWrite]:
        """A schedule that could not fire, for another try with the code of today."""
        try:
            made = scheduling.read(stored, self._store.path, self.declared)
            if made is None:
                return []
            write = scheduling.change(self._store, stored, made, stored.workflow, stored.input, source="command", wall=wall)
        except OutlastError:
            return []
        return [] if write is None else [write]

    def _gone(self, stored: Iterable[StoredSchedule]) -> list[StoredSchedule]:
        """Schedules of code that declares them no more. Only whoever has loaded that code may say so: another
        app on the same file is none of ours.
        """
        missing = [one for one in stored if one.source == "code" and one.gone_at is None and one.name not in self.declared]
        if not missing:
            return []
        loaded = {os.path.abspath(one.file) for one in self._registry.workflows()}  # noqa: PTH100
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if isinstance(file, str):
                loaded.add(os.path.abspath(file))  # noqa: PTH100
        others = {name for row in schedulers.live(self._store.connection(), but=self._uid) for name in json.loads(row.workflows)}
        return [
            one
            for one in missing
            if one.origin in loaded
            or (one.origin_host == self._host and one.workflow not in others and not Path(one.origin or "").exists())
        ]

    def _say_taken_up(self, writes: list[ScheduleWrite], gone: list[GoneSchedule], stale: list[str]) -> None:
        for one in writes:
            row = one.row
            if row.name not in stale:
                state = "new" if one.revision is None else "changed"
                coming = "nothing to come" if row.next_tick is None else f"next {clock.iso(row.next_tick)}"
                self._say(f"schedule {row.name}: {state}, {row.description}; {coming}")
        for one_gone in gone:
            if one_gone.name not in stale:
                self._say(f"schedule {one_gone.name}: gone from its code; it no longer fires")

    def _warn(self, problems: list[str]) -> None:
        for problem in problems:
            if problem not in self._problems:
                self._problems.add(problem)
                _log.warning("%s", problem)
