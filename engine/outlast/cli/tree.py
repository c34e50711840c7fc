"""A run as lines: its header, its steps and its children, and the end.

Owns how `show` and the live progress draw a run from the JSON of the views. Refuses to ask the store for
anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from ..text.counted import times
from .output import dumped
from .render import Cell, Line, branches, mark, status_cell
from .text import age, ago, instant, is_future, local, now, safe, shortened, span

_VALUE_WIDTH = 100
FINAL = frozenset({"completed", "failed", "compensated", "cancelled"})


def run_lines(shown: dict[str, Any], *, stream: Any = None, outcome: bool = True) -> list[Line]:
    """The whole drawing of a run, from `show_json`."""
    lines: list[Line] = [_title(shown, stream), _facts(shown)]
    if shown["tags"]:
        lines.append(
            [
                ("  ", ""),
                ("tags ", "dim"),
                (safe(", ".join(f"{k}={v}" for k, v in shown["tags"].items())), ""),
            ]
        )
    if shown["input"]:
        lines.append([("  ", ""), ("input ", "dim"), (_value(shown["input"]), "")])
    lines.extend(_parts(shown, "  ", stream))
    if outcome:
        lines.extend(_ending(shown))
    return lines


def _title(run: dict[str, Any], stream: Any) -> Line:
    status = run["status"]
    cells: list[Cell] = [
        status_cell(status, mark(status, stream)),
        (" ", ""),
        (safe(_name(run)), "bold"),
        (f"  {run['id']}  ", ""),
        status_cell(status),
    ]
    took = span(run["started_at"], run["finished_at"])
    if took:
        cells.append((f"  {took}", "dim"))
    return cells


def _name(run: dict[str, Any]) -> str:
    return f"{run['workflow']}@{run['version']}" if run["version"] else str(run["workflow"])


def _facts(run: dict[str, Any]) -> Line:
    facts = [f"queue {safe(run['queue'])}"]
    if run["partition"]:
        facts.append(f"partition {safe(run['partition'])}")
    if run["key"]:
        facts.append(f"key {safe(run['key'])}")
    facts.append(f"created {local(run['created_at'])} ({ago(run['created_at'])})")
    if run.get("tick"):
        facts.append(f"tick {local(run['tick'])}")
    if run["claim"] > 1:
        facts.append(f"claimed {run['claim']} times")
    if run["crashes"]:
        facts.append(f"crashed {times(run['crashes'])}")
    if run["parent_id"]:
        facts.append(f"child of {run['parent_id']}")
    if run["retry_of"]:
        facts.append(f"retry of {run['retry_of']}")
    if run["due_at"] and run["status"] not in FINAL and is_future(run["due_at"]):
        facts.append(f"due {local(run['due_at'])} ({age(run['due_at'])})")
    if run["deadline_at"] and run["status"] not in FINAL:
        facts.append(f"deadline {local(run['deadline_at'])} ({age(run['deadline_at'])})")
    return [("  " + " · ".join(facts), "dim")]


def _parts(shown: dict[str, Any], indent: str, stream: Any) -> Iterator[Line]:
    """Steps and children in the order of their beginning, compensations last."""
    branch, last_branch, trunk, nothing = branches(stream)
    steps = _rising(shown["steps"], "started_at")
    children = _rising(shown["children"], "created_at")
    parts = [part for _, part in sorted([*steps, *children], key=lambda pair: pair[0])]
    parts += _waits(shown["waits"])
    for index, part in enumerate(parts):
        is_last = index == len(parts) - 1
        lead = indent + (last_branch if is_last else branch)
        below = indent + (nothing if is_last else trunk)
        if "path" not in part and "workflow" not in part:
            yield [(lead, "dim"), *_wait_cells(part, stream)]
        elif "workflow" in part:
            yield [(lead, "dim"), *_title(part, stream)]
            yield from _parts(part, below, stream)
            yield from ([(below, "dim"), *line] for line in _ending(part))
        else:
            inherited: list[Cell] = [("  inherited", "dim")] if _is_inherited(shown, part) else []
            yield [(lead, "dim"), *step_cells(part, stream), *inherited]


_STILL_SECONDS = 1.0
"""Who has written nothing for so long is worth a line."""
_OPEN = {"task": "steps", "child": "children"}


def _waits(waits: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is worth a line. Parts are drawn themselves, so that of several of one name a count says it all."""
    counts = Counter((wait["kind"], wait["name"]) for wait in waits if wait["kind"] in _OPEN)
    found = [wait for wait in waits if wait["kind"] not in _OPEN and not _is_brief(wait)]
    return found + [{"kind": kind, "name": name, "due_at": None, "count": count} for (kind, name), count in counts.items()]


def _is_brief(wait: dict[str, Any]) -> bool:
    since = instant(wait.get("since"))
    return since is not None and (now() - since).total_seconds() < _STILL_SECONDS


_WAITS = {"timer": "until", "signal": "for the signal", "retry": "for the next try of", "task": "for the step", "child": "for the child"}


def _wait_cells(wait: dict[str, Any], stream: Any) -> list[Cell]:
    """What a run waits for, and when it no longer does; or that it is at work."""
    if wait["kind"] == "work":
        since = span(wait["since"], None)
        return [
            status_cell("running", mark("running", stream)),
            (" executes a step or its own code", ""),
            (f"  {since} since its last entry", "dim"),
        ]
    if wait["kind"] == "ending":
        text = f" {wait['name']}, and waits for what still runs of it"
        return [status_cell("waiting", mark("waiting", stream)), (text, "")]
    if wait.get("count", 1) > 1:
        text = f" waits for {wait['count']:,} {_OPEN[wait['kind']]} {safe(wait['name'])}"
        return [status_cell("waiting", mark("waiting", stream)), (text, "")]
    cells: list[Cell] = [status_cell("waiting", mark("waiting", stream)), (f" waits {_WAITS[wait['kind']]}", "")]
    if wait["kind"] != "timer":
        cells.append((f" {safe(wait['name'])}", ""))
    if wait["due_at"]:
        until = "" if wait["kind"] == "timer" else ", until" if wait["kind"] == "signal" else ","
        cells.append((f"{until} {local(wait['due_at'])} ({age(wait['due_at'])})", "dim"))
    return cells


def _is_inherited(run: dict[str, Any], step: dict[str, Any]) -> bool:
    """Whether a step had ended before its run began: its result is of the run that this one retries."""
    return bool(run["retry_of"] and run["started_at"] and step["finished_at"] and step["finished_at"] < run["started_at"])


def _rising(parts: list[dict[str, Any]], name: str) -> list[tuple[tuple[bool, str], dict[str, Any]]]:
    """Parts that are in order, each with what two such lists are merged by: a wall clock that was set back does not reorder them."""
    found: list[tuple[tuple[bool, str], dict[str, Any]]] = []
    last = ""
    for part in parts:
        last = max(last, str(part[name] or ""))
        found.append(((part.get("kind") == "compensation", last), part))
    return found


def step_cells(step: dict[str, Any], stream: Any = None) -> list[Cell]:
    """One step: mark, name, place, time, tries, error."""
    status = "pending" if step.get("is_pending") else step["status"]
    cells = [status_cell(status, mark(status, stream)), (" ", "")]
    if step["kind"] == "compensation":
        cells.append(("undo ", "magenta"))
    cells.append((safe(step["name"]), ""))
    place = str(step["path"]).removeprefix("undo/")
    if place != step["name"] and place:
        cells.append((f" #{safe(place)}", "dim"))
    if status not in ("completed", "failed"):
        cells.append((f"  {status}", status_cell(status)[1]))
    # Of an unknown outcome nobody knows either how long it took.
    took = "" if status == "unknown" and not step["finished_at"] else span(step["started_at"], step["finished_at"])
    if took:
        cells.append((f"  {took}", "dim"))
    if step["tries"] > 1:
        cells.append((f"  {step['tries']} tries", "yellow"))
    if step["error"]:
        cells.append((f"  {error_text(step['error'])}", "red" if status != "completed" else "dim"))
    return cells


def _ending(run: dict[str, Any]) -> list[Line]:
    lines: list[Line] = []
    if run["status"] == "completed":
        lines.append([("  ", ""), ("result ", "dim"), (_value(run["output"]), "green")])
    if run["error"]:
        lines.append([("  ", ""), ("error ", "dim"), (error_text(run["error"]), "red")])
    if run["halt_reason"]:
        lines.append([("  ", ""), ("halted ", "dim"), (safe(run["halt_reason"]), "bold red")])
    if run["undo"]:
        text = run["undo"]["status"]
        if run["undo"]["error"]:
            text += f": {error_text(run['undo']['error'])}"
        lines.append([("  ", ""), ("undo ", "dim"), (safe(text), "magenta")])
    return lines


_UNDO_HEADS = {
    "completed": "Was undone, in this order:",
    "pending": "Would be undone, in this order:",
    "left": "Was left as it is:",
}


def undo_lines(plan: list[dict[str, Any]]) -> list[Line]:
    """What was undone, and what would be, in order."""
    if not plan:
        return [[("  ", ""), ("There is nothing to undo.", "dim")]]
    lines: list[Line] = []
    for status, head in _UNDO_HEADS.items():
        part = [undo for undo in plan if undo["status"] == status]
        if part:
            lines.append([(f"  {head}", "dim")])
            lines += [_undo_line(number, undo) for number, undo in enumerate(part, 1)]
    return lines


def _undo_line(number: int, undo: dict[str, Any]) -> Line:
    cells: list[Cell] = [
        (f"  {number:>3}. ", "dim"),
        (safe(undo["name"]), "magenta"),
        (f" #{safe(undo['path'])}", "dim"),
        (f"  {_value(undo['input'])}", ""),
        (f"  {undo['outcome']}", "dim"),
    ]
    if undo["outcome"] == "completed":
        cells.append((f"  result {_value(undo['result'])}", "dim"))
    if undo["tries"] > 1 or (undo["tries"] and undo["status"] != "completed"):
        cells.append((f"  {undo['tries']} {'try' if undo['tries'] == 1 else 'tries'} so far", "yellow"))
    if undo["error"]:
        cells.append((f"  {error_text(undo['error'])}", "red"))
    return cells


def error_text(error: dict[str, Any]) -> str:
    """An error in one line."""
    message = str(error.get("message") or "")
    return safe(f"{error['type']}: {message}" if message else error["type"])


def _value(value: Any) -> str:
    return shortened(dumped(value), _VALUE_WIDTH)


def is_over(run: dict[str, Any]) -> bool:
    """Whether nothing will happen by itself any more: the run is final, or needs a person."""
    return run["status"] in FINAL or run["status"] == "halted"


def began(run: dict[str, Any]) -> float:
    at = instant(run["started_at"] or run["created_at"])
    return at.timestamp() if at is not None else 0.0
