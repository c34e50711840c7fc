"""Watching a run until it is over: silently, as a live tree on a terminal, or as lines in a pipe.

Owns the wait for news of one run: the bell, with a slow look for commits that ring none. Refuses to work on
the run; whoever does runs elsewhere, and `check` lets that be noticed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from . import output
from .render import Line, console, is_rich, mark, plain, text_of, wrapped
from .text import safe, span
from .tree import is_over, run_lines, step_cells

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore

_LOOK_SECONDS = 0.25
"""Between two looks where no bell rang, so that ages move on a screen and commits without a bell are seen."""
_STILL_SECONDS = 1.0
"""A run that stands still for this long is explained."""


class Screen(Protocol):
    """Where progress goes."""

    def show(self, shown: dict[str, Any], waits_for: str) -> None: ...


class _Silent:
    def show(self, shown: dict[str, Any], waits_for: str) -> None:
        pass


class _Lines:
    """A line for each change, as a log."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._seen: dict[str, str] = {}
        self._waits_for = ""

    def show(self, shown: dict[str, Any], waits_for: str) -> None:
        self._run(shown, "")
        if waits_for and waits_for != self._waits_for:
            self._write(f"{mark('waiting', self._stream)} {safe(waits_for)}")
        self._waits_for = waits_for

    def _run(self, run: dict[str, Any], indent: str) -> None:
        if run["status"] == "running":
            # One look may see the run taken and its first steps over: it ran before they did.
            self._status(run, indent)
        for step in run["steps"]:
            state = f"{step['status']} {step['tries']}"
            if self._is_new(f"{run['id']}/{step['kind']}/{step['path']}", state):
                self._write(indent + plain(step_cells(step, self._stream)))
        for child in run["children"]:
            self._run(child, f"{indent}  ")
        self._status(run, indent)

    def _status(self, run: dict[str, Any], indent: str) -> None:
        if self._is_new(run["id"], run["status"]):
            name, sign = safe(run["workflow"]), mark(run["status"], self._stream)
            took = span(run["started_at"], run["finished_at"]) if is_over(run) else ""
            self._write(f"{indent}{sign} {name} {run['id']} {run['status']}  {took}".rstrip())

    def _is_new(self, place: str, state: str) -> bool:
        if self._seen.get(place) == state:
            return False
        self._seen[place] = state
        return True

    def _write(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()


class _Live:
    """The tree of the run, drawn anew in place; its end stays on the screen."""

    def __init__(self, live: Any, stream: TextIO) -> None:
        self._live = live
        self._stream = stream

    def show(self, shown: dict[str, Any], waits_for: str) -> None:
        from rich.console import Group

        # Where the tree goes to stderr, the outcome follows on stdout, or as an error.
        drawn: list[Line] = run_lines(shown, stream=self._stream, outcome=self._stream is sys.stdout)
        if waits_for:
            drawn.append([("  ", ""), (safe(waits_for), "cyan")])
        size = self._live.console.size
        lines = [part for line in drawn for part in wrapped(line, size.width)]
        room = max(5, size.height - 2)
        if len(lines) > room and not is_over(shown):
            # The beginning of a long run is over; what happens now is at its end.
            lines = [*lines[:2], text_of([(f"  … {len(lines) - room} lines", "dim")]), *lines[-(room - 3) :]]
        self._live.update(Group(*lines), refresh=True)


@contextmanager
def screen(stream: TextIO, *, silent: bool) -> Iterator[Screen]:
    """Where the progress of a run is shown: nowhere, live, or as lines."""
    if silent:
        yield _Silent()
    elif is_rich(stream) and stream.isatty():
        from rich.live import Live

        with Live(console=console(stream), auto_refresh=False, vertical_overflow="visible") as live:
            yield _Live(live, stream)
    else:
        yield _Lines(stream)


def follow(
    store: SqliteStore,
    task_id: int,
    *,
    stream: TextIO | None = None,
    silent: bool = False,
    timeout_seconds: float | None = None,
    check: Callable[[], None] | None = None,
    raw: bool = False,
) -> dict[str, Any] | None:
    """Watch a run, and those that go on from it, until it is final or halted, and give it.

    None when `timeout_seconds` went by first.
    """
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    explained = _Explained(store, task_id)
    from ..views.chains import last_in_line
    from ..views.watch import Watch

    with (
        Watch(store) as watch,
        _told_where_to_look(store, task_id, silent=silent or check is not None),
        screen(stream or sys.stderr, silent=silent) as where,
    ):
        while True:
            began = time.monotonic()
            run = _read(store, task_id, whole=not silent, raw=raw)
            where.show(run, "" if silent else explained.of(run))
            if is_over(run):
                last_id = last_in_line(store, task_id)
                if last_id == task_id:
                    return run
                # It went on as a new run: so do we.
                task_id, explained = last_id, _Explained(store, last_id)
                continue
            if check is not None:
                check()
            # A run of ten thousand steps takes a while to read: never more than a fifth of the time goes to
            # looking.
            pause = max(_LOOK_SECONDS, 4 * (time.monotonic() - began))
            if deadline is not None:
                pause = min(pause, deadline - time.monotonic())
                if pause <= 0:
                    return None
            watch.wait(pause)
            if not silent:
                # Thirty pictures a second are enough for anyone, however often the bell rings.
                time.sleep(max(0.0, 0.03 - (time.monotonic() - began)))


@contextmanager
def _told_where_to_look(store: SqliteStore, task_id: int, *, silent: bool) -> Iterator[None]:
    """Whoever stops watching has not stopped the run."""
    try:
        yield
    except KeyboardInterrupt:
        if not silent:
            from ..views.state import uid_of

            uid = uid_of(store, task_id)
            output.note(f"Run {uid} goes on; `outlast show {uid} --follow` watches it again.")
        raise


def _read(store: SqliteStore, task_id: int, *, whole: bool, raw: bool) -> dict[str, Any]:
    from ..views import run_json, show_json

    return show_json(store, task_id, raw=raw) if whole else run_json(store, task_id, raw=raw)


class _Explained:
    """What a run that stands still waits for; asked for once it has stood still for a while."""

    def __init__(self, store: SqliteStore, task_id: int) -> None:
        self._store = store
        self._task_id = task_id
        self._state: object = None
        self._since = time.monotonic()
        self._text = ""

    def of(self, run: dict[str, Any]) -> str:
        state = (
            run["status"],
            run["claim"],
            len(run["steps"]),
            [child["status"] for child in run["children"]],
        )
        if state != self._state:
            self._state, self._since, self._text = state, time.monotonic(), ""
        elif not self._text and time.monotonic() - self._since > _STILL_SECONDS and run["status"] not in ("running",):
            self._text = _summary(self._store, self._task_id)
        return "" if is_over(run) else self._text


def _summary(store: SqliteStore, task_id: int) -> str:
    from ..why import why

    return str(why(store, task_id).summary)


def conclude(run: dict[str, Any], *, as_json: bool) -> int:
    """Print what a run has led to: its value on stdout, its error on stderr.

    Gives the exit code of its outcome.
    """
    status = run["status"]
    code = output.exit_code(status)
    if status == "completed":
        if as_json:
            output.document(run["output"])
        else:
            output.write(output.dumped(run["output"], indent=2 if isinstance(run["output"], dict | list) else None))
        return code
    type_name, message, hint = _outcome(run)
    return output.tell(type_name, message, hint, code, as_json=as_json)


def _outcome(run: dict[str, Any]) -> tuple[str, str, str]:
    """Type, message and hint of how a run ended badly."""
    from ..errors import ResultTimeout, RunCancelled, RunHalted

    uid = run["id"]
    known: ResultTimeout | RunCancelled | RunHalted
    match run["status"]:
        case "failed" | "compensated":
            error = run["error"] or {"type": "RunFailed", "message": ""}
            ended = "failed and was undone" if run["status"] == "compensated" else "failed"
            text = f"{error['type']}: {error['message']}" if error["message"] else error["type"]
            end = "" if text.endswith((".", "!", "?")) else "."
            return str(error["type"]), f"Run {uid} {ended}: {text}{end}", f"`outlast show {uid}` says more."
        case "cancelled":
            known = RunCancelled(uid)
        case "halted":
            known = RunHalted(uid, run["halt_reason"] or "")
        case _:
            known = ResultTimeout(uid, None)
    return type(known).__name__, known.message, known.hint
