"""The person of a simulation: starts runs, and cancels, pauses, resumes, signals and retries them.

Owns what was asked of which run, since that says how it may end. Knows only what a person can: the status of a run, and the outside.
Being refused is no failure: the run had gone on meanwhile.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from outlast.engine import Engine
from outlast.errors import Conflict, OutcomeNeeded, OutlastError
from outlast.states import FINAL

from . import simulated_work as work
from .simulated_lines import KEY
from .simulated_shapes import SHAPES

_UNFINISHED = """
select uid, started_at is not null or status <> 'pending' or id in (select successor_id from outlast_outcome)
from outlast_task where name = ? and unique_key is not null and finished_at is null order by id desc
"""


class Person:
    """One person. `acts` does something that the seed picks, `clears_up` what lets every run end."""

    def __init__(self, engine: Engine, chance: random.Random, tell: Callable[[str], None]) -> None:
        self._engine = engine
        self._chance = chance
        self._tell = tell
        names = sorted(SHAPES)
        self.to_start = [chance.choice(names) for _ in range(chance.randint(3, 6))]
        self.shapes: dict[str, str] = {}
        """Tag to shape."""
        self.runs: dict[str, Any] = {}
        """Tag to the newest run of its chain."""
        self.cancelled: set[str] = set()
        self.forced: set[str] = set()
        """Of those, which were not to wait for tries that may still run: such a try may come whenever it likes."""
        self.retried: set[str] = set()
        self.vain: set[str] = set()
        """Tags of calls for which another run of their unique key stands, or a later call: nothing may come of them."""
        self._add_crowd(names)

    def _add_crowd(self, names: list[str]) -> None:
        """In some simulations, many calls of one unique key."""
        alone = self._chance.choice([name for name in names if SHAPES[name].is_alone])
        for _ in range(self._chance.choice((0, 0, 6))):
            self.to_start.insert(self._chance.randrange(len(self.to_start) + 1), alone)

    def starts(self) -> None:
        if self.to_start:
            shape = self.to_start.pop()
            tag = f"t{len(self.shapes) + len(self.vain)}"
            if SHAPES[shape].is_alone:
                self._starts_alone(shape, tag)
                return
            self.shapes[tag] = shape
            self._tell(f"{shape} {tag} is started")
            self.runs[tag] = self._engine.start(SHAPES[shape].workflow, tag)

    def _starts_alone(self, shape: str, tag: str) -> None:
        """Start a run by its unique key. What has to come of it is known from the runs that are unfinished."""
        how = self._chance.choice(("return", "fail", "replace", "debounce"))
        given: Any = {"debounce": "3s", "debounce_max": "8s"} if how == "debounce" else {"if_exists": how}
        found = self._engine.store.connection().execute(_UNFINISHED, (shape,)).fetchall()
        pending = [uid for uid, has_begun in found if not has_begun]
        assert len(pending) <= 1, f"{pending} of {shape} are pending at once"
        assert len(found) - len(pending) <= 1, f"{found} of {shape} have begun"
        self._tell(f"{shape} {tag} is started, to {how} beside {len(found)}, {len(pending)} of them pending")
        self.vain.add(tag)
        try:
            run = self._engine.start(SHAPES[shape].workflow.options(unique_key=KEY, **given), tag)
        except Conflict:
            assert how == "fail", how
            assert found
            return
        assert how != "fail" or not found, "it was let in"
        if how == "return" and found:
            assert run.id == found[0][0], f"{run.id} was given back"
            return
        before = next((one for one in self.runs if self.runs[one].id in pending), None)
        is_called_again = how == "debounce" and before is not None and before not in self.retried
        assert (run.id in pending) is is_called_again, f"{run.id} was started"
        if before is not None:
            if before not in self.retried:
                self.vain.add(before)
            self.cancelled.add(before)
            if is_called_again:
                del self.runs[before], self.shapes[before]
        self.vain.discard(tag)
        self.shapes[tag], self.runs[tag] = shape, run

    def acts(self) -> None:
        """Do something to some run."""
        if not self.runs:
            return
        tag = self._chance.choice(sorted(self.runs))
        acts = {self._signals_it: 4, self._pauses: 2, self._resumes: 3, self._retries: 3, self._cancels: 3}
        (act,) = self._chance.choices(list(acts), list(acts.values()))
        act(tag)

    def signals_all(self) -> None:
        """Send every run the signal that it waits for, or will."""
        for tag in sorted(self.runs):
            if self.runs[tag].status == "running":
                self._signals_it(tag)

    def clears_up(self) -> None:
        """Give every run what it waits for."""
        for tag in sorted(self.runs):
            if self.runs[tag].status in ("paused", "halted"):
                self._resumes(tag)
            if SHAPES[self.shapes[tag]].awaits and self.runs[tag].status == "waiting":
                self._signals_it(tag)
            self._retries(tag)

    def _asks(self, what: str, tag: str, ask: Callable[[], object]) -> bool:
        try:
            ask()
        except OutcomeNeeded:
            raise
        except OutlastError as error:
            self._tell(f"{what} {tag} is refused: {type(error).__name__}")
            return False
        self._tell(f"{what} {tag}")
        return True

    def _signals_it(self, tag: str) -> None:
        if SHAPES[self.shapes[tag]].awaits:
            self._asks("signal", tag, lambda: self.runs[tag].signal("go", 7, key="once"))

    def _pauses(self, tag: str) -> None:
        children = self._chance.random() < 0.5
        self._asks("pause", tag, lambda: self.runs[tag].pause(children=children))

    def _resumes(self, tag: str) -> None:
        run = self.runs[tag]
        try:
            self._asks("resume", tag, run.resume)
        except OutcomeNeeded:
            # What a person would do: look whether it was paid.
            if work.world.has(f"pay {tag}.0"):
                self._asks("done:", tag, lambda: run.resume(done=0))
            else:
                self._asks("not done:", tag, lambda: run.resume(not_done=True))
        for child in run.children():
            if child.status == "paused":
                self._asks("resume the child of", tag, child.resume)

    def _retries(self, tag: str) -> None:
        is_over = SHAPES[self.shapes[tag]].fails_first and self.runs[tag].status in ("failed", "compensated")
        if is_over and tag not in self.cancelled:
            work.world.mended.add(tag)
            self.retried.add(tag)
            # While another of its unique key is unfinished it is refused.
            self._asks("retry", tag, lambda: self.runs.update({tag: self.runs[tag].retry()}))

    def _cancels(self, tag: str) -> None:
        force = self._chance.random() < 0.3
        if self.runs[tag].status not in FINAL and self._asks("cancel", tag, lambda: self.runs[tag].cancel(force=force)):
            self.cancelled.add(tag)
            if force:
                self.forced.add(tag)
