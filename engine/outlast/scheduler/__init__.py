"""The scheduler: fires the due ticks of schedules, each once, however many schedulers there are.

Owns the moments of a look and the notice of a wall clock that was set back, and of a zone whose data have
changed. Refuses to write a tick apart from its run, to fire a schedule whose workflow this process does not
have, and to let one bad schedule stop the others: its error is kept with it. It may die anywhere: what it had
not committed, the next one decides.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from .. import clock, scheduling
from ..clock import SECOND
from ..codec import payloads
from ..errors import OutlastError, PayloadUnreadable, StoreError
from ..loop import RoleLoop
from ..model import new_id
from ..operations import Start
from ..operations.schedules import BreakSchedule, Fire, FireDue, Firing, KeepScheduler, LeaveSchedulers, PassLine, Rewind, TickRow
from ..settings import Settings
from ..store import schedulers, schedules
from ..store.process import this_process
from ..store.schedules import StoredSchedule
from ..timetable import Schedule
from ..timetable.catch_up import Pause, Plan, next_of, plan, without
from .alarm import Alarm
from .declared import ScheduleCode

if TYPE_CHECKING:
    from ..definition.registry import Registry
    from ..store.sqlite import SqliteStore

_log = logging.getLogger("outlast")

_LOOK_SECONDS = 1.0
"""The longest wait: a wall clock that somebody sets rings no bell."""
_IDLE_SECONDS = 60.0
_HEARTBEAT_SECONDS = 30.0
_SET_BACK_SECONDS = 0.01
_BATCH = 500


class Scheduler:
    """One scheduler of one file. `tick` from one thread only; `run`, `start` and `stop` as a role does."""

    def __init__(
        self,
        store: SqliteStore,
        registry: Registry,
        settings: Settings,
        *,
        on_change: Callable[[str], None] | None = None,
        tells_ticks: bool = True,
    ) -> None:
        """`on_change` is told, in this role's thread, a line for each thing that changed; without `tells_ticks`,
        for each that changed but the decided ticks.
        """
        self._store = store
        self._registry = registry
        self._settings = settings
        self._on_change = on_change
        self._tells_ticks = tells_ticks
        self._uid = new_id(clock.wall())
        self._code = ScheduleCode(store, registry, self._uid, self._say)
        self._kept_at: int | None = None
        self._skew: int | None = None
        # Schedules that others must fire, by the revision that we looked at.
        self._spared: dict[str, int] = {}
        self._rules: dict[str, Schedule] = {}
        self._broken: dict[str, str] = {}
        self._starts: dict[tuple[str, bytes], Start] = {}
        self._is_running_here = False
        self._loop = RoleLoop("scheduler", self._look, store, listens=True)
        self._alarm = Alarm(self._loop.wake)

    def run(self) -> None:
        """Schedule in this thread until `stop`."""
        self._is_running_here = True
        try:
            self._loop.run()
        finally:
            self._leave()

    def start(self) -> None:
        """Schedule in a background thread."""
        self._loop.start()

    def stop(self) -> None:
        """End after the tick under way. From any thread or signal handler."""
        if self._loop.stop() and not self._is_running_here:
            self._leave()

    def wake(self) -> None:
        """Look now."""
        self._loop.wake()

    def tick(self, now: int) -> float:
        """Decide what is due; give the seconds until the next tick that this process can fire."""
        wall = self._store.engine_time().to_wall(now)
        # A rule that somebody has damaged must not hold up those of the others.
        self._store.connection().tolerate()
        if self._code.take_up(now, wall):
            self._starts.clear()
            self._spared.clear()
            self._kept_at = None
        self._keep(now)
        self._heed_set_back(now, wall)
        if schedules.line_can_pass(self._store.connection()):
            self._store.commit(PassLine())
        if self._fire(wall):
            return 0.0
        earliest = schedules.earliest(self._store.connection(), self._code.workflows, json.dumps(self._spared))
        return _IDLE_SECONDS if earliest is None else max(0.0, (earliest - wall) / SECOND)

    def _look(self, now: int) -> float:
        """One turn of the loop. APScheduler wakes it for the next tick; the wait is for the rest."""
        delay_seconds = self.tick(now)
        if delay_seconds <= 0:
            return 0.0
        if delay_seconds < _IDLE_SECONDS:
            self._alarm.set(self._store.engine_time().to_wall(now) + round(delay_seconds * SECOND))
        return _LOOK_SECONDS

    def _keep(self, now: int) -> None:
        """Say that this scheduler is up, and forget those that are dead."""
        if self._kept_at is not None and now - self._kept_at < _HEARTBEAT_SECONDS * SECOND:
            return
        if self._kept_at is None:
            rows = schedulers.everybody(self._store.connection())
            dead = [row.uid for row in rows if not schedulers.is_live(row)]
            if dead:
                self._store.commit(LeaveSchedulers(tuple(dead)))
        me = this_process()
        self._store.commit(KeepScheduler(self._uid, me.host, me.boot_id, me.pid, me.started, self._code.workflows))
        self._kept_at = now

    def _heed_set_back(self, now: int, wall: int) -> None:
        """After a step back of the wall clock, decide anew about ticks that are ahead now.

        What has fired stays fired.
        """
        skew = wall - now
        if self._skew is None:
            self._heed_zones(wall)
        if self._skew is not None and skew > self._skew - _SET_BACK_SECONDS * SECOND:
            self._skew = max(skew, self._skew)
            return
        connection = self._store.connection()
        for stored in schedules.ahead(connection, wall):
            rows = schedules.rows_between(connection, stored.name, wall + 1, stored.cursor)
            try:
                made = self._rule(stored)
                if made is None:
                    continue
                kept = [part for row in rows for part in without(made, row, wall + 1, row.until)]
                following = next_of(stored.name, made, wall)
            except Exception as error:  # noqa: BLE001 - as in `_firing`
                self._break(stored, error)
                continue
            removed = tuple(row.tick for row in rows)
            if self._store.commit(Rewind(stored.name, stored.revision, wall, *following, removed=removed, rows=tuple(kept))):
                self._say(f"schedule {stored.name}: the clock was set back; its next tick is computed again")
        self._skew = skew

    def _heed_zones(self, wall: int) -> None:
        """Compute next ticks again where a zone's data may have changed since: they come with an update, between two processes.

        What they moved ahead would else fire when the old data say, or be missed.
        """
        for stored in schedules.everything(self._store.connection()):
            is_idle = stored.next_at is None or stored.gone_at is not None or stored.error is not None or stored.paused_at is not None
            if is_idle or stored.cursor > wall or '"timezone"' not in stored.rule:
                continue
            try:
                made = self._rule(stored)
                if made is None or scheduling.is_object(made):
                    continue
                following = next_of(stored.name, made, stored.cursor)
            except Exception as error:  # noqa: BLE001 - as in `_firing`
                self._break(stored, error)
                continue
            if following == (stored.next_tick, stored.next_at):
                continue
            if self._store.commit(Rewind(stored.name, stored.revision, stored.cursor, *following, removed=(), rows=())):
                self._say(f"schedule {stored.name}: the data of its time zone have changed; its next tick is computed again")

    def _fire(self, wall: int) -> bool:
        """Decide the due ticks of a batch of schedules in one transaction; true if there may be more."""
        due = schedules.due(self._store.connection(), self._code.workflows, json.dumps(self._spared), wall=wall, limit=_BATCH)
        if not due:
            return False
        firings = [firing for stored in due if (firing := self._firing(stored, wall)) is not None]
        if firings:
            decided = self._store.commit(FireDue(tuple(firings)))
            for one in decided if self._tells_ticks else ():
                self._say(_line(one.schedule, one.row, one.run_id))
        return True

    def _firing(self, stored: StoredSchedule, wall: int) -> Firing | None:
        """What becomes of a schedule's due ticks; None where it cannot fire, or not here."""
        try:
            made = self._rule(stored)
            if made is None or (stored.source == "code" and stored.name not in self._code.declared):
                self._spared[stored.name] = stored.revision
                return None
            template = self._template(stored)
            found = self._plan(stored, made, wall)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - a foreign trigger may raise anything; the others must fire
            self._break(stored, error)
            return None
        return Firing(
            schedule=stored.name,
            revision=stored.revision,
            overlap=made.overlap,
            decisions=tuple(
                one if isinstance(one, TickRow) else Fire(scheduling.for_tick(template, stored.uid, one.at), one.at, one.in_line)
                for one in found.decisions
            ),
            cursor=found.cursor,
            next_tick=found.next_tick,
            next_at=found.next_at,
        )

    def _plan(self, stored: StoredSchedule, made: Schedule, wall: int) -> Plan:
        pause = None
        if stored.paused_at is not None:
            pause = Pause(stored.pause_reason)
        elif stored.paused_until is not None:
            pause = Pause(stored.pause_reason, stored.paused_until)
        fired = schedules.ran(self._store.connection(), stored.name, stored.cursor, wall)
        return plan(stored.name, made, cursor=stored.cursor, wall=wall, fired=fired, pause=pause)

    def _rule(self, stored: StoredSchedule) -> Schedule | None:
        made = self._rules.get(stored.rule)
        if made is None:
            made = scheduling.read(stored, self._store.path, self._code.declared)
            if made is not None and not scheduling.is_object(made):
                self._rules[stored.rule] = made
        return made

    def _template(self, stored: StoredSchedule) -> Start:
        """The start of a run of this schedule, but for what differs from tick to tick."""
        found = self._starts.get((stored.workflow, stored.input))
        if found is None:
            definition = self._registry.workflow(stored.workflow)
            found = self._starts[stored.workflow, stored.input] = scheduling.start_of(self._store, definition, stored.input, self._settings)
        return found

    def _break(self, stored: StoredSchedule, error: Exception) -> None:
        text = str(error) if isinstance(error, OutlastError) else f"{type(error).__name__}: {error}"
        if not isinstance(error, PayloadUnreadable):
            text = payloads.told(error, text)  # It may quote the input, and stands in the file as it is.
        if self._store.commit(BreakSchedule(stored.name, stored.revision, text)) and self._broken.get(stored.name) != text:
            self._broken[stored.name] = text
            _log.warning("The schedule %s cannot fire: %s", stored.name, text)

    def _leave(self) -> None:
        self._alarm.close()
        if self._kept_at is not None:
            self._kept_at = None
            try:
                self._store.commit(LeaveSchedulers((self._uid,)))
            except StoreError:
                pass  # The next scheduler sees that this process is dead.

    def _say(self, line: str) -> None:
        if self._on_change is not None:
            self._on_change(line)


def _line(name: str, row: TickRow, run_id: str | None) -> str:
    span = clock.iso(row.tick) if row.tick == row.until else f"{clock.iso(row.tick)} to {clock.iso(row.until)}"
    if run_id is not None:
        return f"schedule {name}: {row.outcome} {span}, run {run_id}"
    return f"schedule {name}: {row.outcome} {span}" + (f", {row.reason}" if row.reason else "")
