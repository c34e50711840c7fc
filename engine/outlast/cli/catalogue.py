"""The table of all commands, and the first help page, which is made from it.

Owns which commands there are, where each is defined, its line of help and its section. Refuses to import any
of them, or click: `outlast --help` must cost little more than Python itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """One command: the module and attribute that hold it, and what it says of itself in one line."""

    name: str
    section: str
    module: str
    attribute: str
    help: str


_START = "Start and run"
_LOOK = "Look"
_ACT = "Act"
_CODE = "Code, queues and agents"
_ROLES = "Roles"
_FILE = "The file"

_TABLE = (
    Entry("init", _START, "beginning", "init", "Write a first workflow file."),
    Entry("demo", _START, "beginning", "demo", "Watch an order survive kill -9, on screen."),
    Entry("start", _START, "starting", "start", "Start a run; prints its id."),
    Entry("run", _START, "starting", "run", "Start a run and execute it here until it ends."),
    Entry("runs", _LOOK, "listing", "runs", "List runs, the newest first."),
    Entry("show", _LOOK, "looking", "show", "Draw a run: its steps, children, times, tries and errors."),
    Entry("result", _LOOK, "looking", "result", "Print what a run returned."),
    Entry("why", _LOOK, "looking", "why", "Say what a run waits for, and what to do."),
    Entry("query", _LOOK, "looking", "query", "Print what a run has published."),
    Entry("stream", _LOOK, "looking", "stream", "Print the messages of a run's stream."),
    Entry("logs", _LOOK, "logs", "logs", "Print what a run and its steps have logged."),
    Entry("cancel", _ACT, "acting", "cancel", "Cancel runs, and undo what they did."),
    Entry("pause", _ACT, "acting", "pause", "Hold runs at their next durable call."),
    Entry("resume", _ACT, "acting", "resume", "End a pause, or let a halted run continue."),
    Entry("retry", _ACT, "acting", "retry", "Retry finished runs, each as a new run."),
    Entry("signal", _ACT, "acting", "signal", "Send a signal to a run."),
    Entry("workflows", _CODE, "listing", "workflows", "List the workflows of the app."),
    Entry("workflow", _CODE, "listing", "workflow", "Show one workflow."),
    Entry("check", _CODE, "check", "check", "Replay open runs against the code on disk."),
    Entry("schedules", _CODE, "schedules", "schedules", "List the schedules, and when each fires next."),
    Entry("schedule", _CODE, "schedules", "schedule", "Show, create, change or pause one schedule."),
    Entry("queues", _CODE, "listing", "queues", "List the queues: what waits, what runs, limits."),
    Entry("queue", _CODE, "queues", "queue", "Set the limits of a queue, pause and resume it."),
    Entry("agents", _CODE, "listing", "agents", "List the agents, and what they run."),
    Entry("stats", _CODE, "listing", "stats", "Count runs by status."),
    Entry("up", _ROLES, "roles", "up", "Keep agents, supervisor and scheduler alive here."),
    Entry("agent", _ROLES, "roles", "agent", "Run one agent in this process."),
    Entry("supervisor", _ROLES, "roles", "supervisor", "Run the supervisor in this process."),
    Entry("scheduler", _ROLES, "roles", "scheduler", "Run the scheduler in this process."),
    Entry("doctor", _FILE, "upkeep", "doctor", "Check SQLite, the file and its invariants."),
    Entry("backup", _FILE, "upkeep", "backup", "Copy the file while others write to it."),
    Entry("prune", _FILE, "pruning", "prune", "Delete old runs and ticks."),
    Entry("migrate", _FILE, "upkeep", "migrate", "Create the file, or bring an old one up to date."),
    Entry("export", _FILE, "upkeep", "export", "Print all that is known of a run, as JSON."),
    Entry("completion", _FILE, "completion", "completion", "Print the completion script for a shell."),
)

COMMANDS: dict[str, Entry] = {entry.name: entry for entry in _TABLE}
ALIASES = {"list": "runs"}

GLOBAL_OPTIONS = (
    ("--db FILE", "The database; else $OUTLAST_DB, [tool.outlast], outlast.db."),
    ("--app NAME", "Workflow code: a module, file or folder. May be repeated."),
    ("--json", "One JSON document on stdout; errors as JSON on stderr."),
    ("--jsonl", "Print lists as one JSON object per line."),
    ("--raw", "Print values with the tags they are stored with."),
    ("--version", "Print the version."),
    ("--help", "Print this page, or a command's."),
)


def help_text(*, colour: bool = False) -> str:
    """The first help page."""
    lines = ["Usage: outlast COMMAND ...", "", "Workflows that outlast crashes, on one SQLite file."]
    section = ""
    for entry in _TABLE:
        if entry.section != section:
            section = entry.section
            lines += ["", _heading(section, colour=colour)]
        lines.append(f"  {entry.name:<11} {entry.help}")
    lines += ["", _heading("Options, before or after the command", colour=colour)]
    lines += [f"  {option:<11} {text}" for option, text in GLOBAL_OPTIONS]
    lines += ["", _heading("To start with", colour=colour)]
    lines += [
        "  outlast init && outlast run hello name=Ada",
        "  outlast COMMAND --help   has an example for each",
    ]
    return "\n".join(lines)


def wants_colour(is_terminal: bool) -> bool:
    """Whether to colour: as NO_COLOR and FORCE_COLOR say, else on a terminal that can."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return is_terminal and os.environ.get("TERM") != "dumb"


def _heading(text: str, *, colour: bool) -> str:
    return f"\x1b[1m{text}\x1b[0m" if colour else f"{text}:"
