"""What leaves the program: JSON documents, errors, exit codes.

Owns the one place where stdout gets JSON and stderr gets an error, in the shapes that scripts rely on.
Refuses tracebacks for a user's mistake: an error of ours is its sentence and its next action, a bug is one
sentence that says how to see more.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from ..errors import OutlastError, RemoteError
from .catalogue import wants_colour
from .text import safe, safe_json, safe_lines
from .wrapping import broken, width_of

FAILED = 1
USAGE = 2
NOT_FOUND = 3
CONFLICT = 4
TIMED_OUT = 5
CANCELLED = 6
STORE = 7
INTERRUPTED = 130
TERMINATED = 143

has_strays = False
"""Set where threads of steps go on that nobody can stop: then the process ends without waiting for them."""

was_terminated = False
"""Set by the first SIGTERM. What the handler raises is lost where it interrupts a callback of the interpreter (the import
machinery has some): a role that comes up after that must not live on.
"""

_BY_STATUS = {
    "completed": 0,
    "failed": FAILED,
    "compensated": FAILED,
    "halted": FAILED,
    "cancelled": CANCELLED,
}


def exit_code(status: str) -> int:
    """The exit code for a run's status; that of an open run is "timed out"."""
    return _BY_STATUS.get(status, TIMED_OUT)


class Quit(Exception):
    """End with this exit code; all that is to be said has been said."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def write(text: str) -> None:
    """A line to stdout."""
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """A line to stderr, for the person who looks: no part of the answer. It may name a file, whose name may hold anything."""
    sys.stderr.write(f"{fitted(safe_lines(text))}\n")
    sys.stderr.flush()


def fitted(text: str, *, hang: int | None = None) -> str:
    """A text broken between words, where stderr is a terminal that is narrower."""
    width = width_of(sys.stderr)
    if width is None:
        return text
    return "\n".join(lead + text[begin:end] for lead, begin, end in broken(text, width, hang=hang))


def dumped(value: Any, *, indent: int | None = None, stream: TextIO | None = None) -> str:
    """Readable JSON, safe to show, in what stdout (or `stream`) can encode: its own way to spell the rest is no JSON."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=str)
    try:
        text.encode((stream or sys.stdout).encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=indent, default=str)
    return safe_json(text)


def document(value: Any) -> None:
    """One JSON document: on a terminal indented, in a pipe on one line."""
    write(dumped(value, indent=2 if sys.stdout.isatty() else None))


def lines(values: Iterable[Any]) -> None:
    """A JSON object on each line."""
    for value in values:
        write(dumped(value))


def report(error: BaseException, *, as_json: bool) -> int:
    """Tell of an error on stderr and give its exit code."""
    return tell(*_facts(error), as_json=as_json)


def report_refusals(refusals: Sequence[tuple[str, OutlastError]]) -> int:
    """Tell as one JSON object what became of the runs of a batch that refused; `error` and the exit code are those of the first."""
    told = []
    for run_id, error in refusals:
        type_name, message, hint, code = _facts(error)
        told.append({"run_id": run_id, "type": type_name, "message": message, "hint": hint, "exit_code": code})
    first = {key: told[0][key] for key in ("type", "message", "hint")}
    code = _facts(refusals[0][1])[3]
    sys.stderr.write(dumped({"error": first, "errors": told, "exit_code": code}, stream=sys.stderr) + "\n")
    return code


def tell(type_name: str, message: str, hint: str, code: int, *, as_json: bool) -> int:
    """Write an error of these facts to stderr and give its exit code."""
    if as_json:
        document = {"error": {"type": type_name, "message": message, "hint": hint}, "exit_code": code}
        sys.stderr.write(dumped(document, stream=sys.stderr) + "\n")
    else:
        label = "\x1b[1;31mError:\x1b[0m" if wants_colour(sys.stderr.isatty()) else "Error:"
        text = fitted(f"Error: {safe(f'{message} {hint}'.strip())}", hang=0)
        sys.stderr.write(f"{label}{text.removeprefix('Error:')}\n")
    return code


def _facts(error: BaseException) -> tuple[str, str, str, int]:
    if isinstance(error, OutlastError):
        message = str(error) if isinstance(error, RemoteError) else error.message
        return type(error).__name__, message, error.hint, error.exit_code
    if "click" in sys.modules:
        import click

        if isinstance(error, click.ClickException):
            return "UsageError", *_usage(error), USAGE
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        # Only a text from outside can have one: what is stored has been refused before.
        message = f"{error.object[:80]!r} has a lone surrogate at {error.start}, which is in nothing that is stored."
        return "InvalidInput", message, "Give the text as UTF-8.", USAGE
    if isinstance(error, FileNotFoundError) and error.filename is None:
        return "FileMissing", "The current folder is not there any more.", "Go to one that is.", NOT_FOUND
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        where = f"{error.filename}: " if error.filename else ""
        return type(error).__name__, f"{where}{error.strerror or error}.", "", FAILED
    library = sys.modules.get("outlast.store.library")
    if library is not None and isinstance(error, library.sqlite3.Error):
        # What concerns the whole file is an error of ours by now; what is left is a table that is not as our migrations made it.
        return "StoreDamaged", f"SQLite refuses: {error}.", "`outlast doctor` says whether the file's tables are as they should be.", STORE
    message = f"Unexpected {type(error).__name__}: {error}".rstrip(".") + "."
    if isinstance(error, ImportError | AttributeError) and (hiding := _hiding()):
        return type(error).__name__, message, f"{', '.join(hiding)} hides a module of the standard library: rename it.", USAGE
    hint = "This is a bug in outlast; set OUTLAST_DEBUG=1 to see the traceback."
    return type(error).__name__, message, hint, FAILED


def _hiding() -> list[str]:
    """The files of the app that have been imported in the place of a module of the standard library."""
    first = sys.path[0] if sys.path else ""
    files = [getattr(sys.modules.get(name), "__file__", None) or "" for name in sys.stdlib_module_names]
    own = os.path.dirname(os.__file__)  # noqa: PTH120
    return sorted(file for file in files if file and first != own and os.path.dirname(file.removesuffix("/__init__.py")) == first)  # noqa: PTH120


def _usage(error: Any) -> tuple[str, str]:
    """Click's message as a sentence, and where to read on."""
    message: str = " ".join(error.format_message().split())
    hint = ""
    context = getattr(error, "ctx", None)
    if "Did you mean" not in message and context is not None:
        hint = f"See `{context.command_path} --help`."
    return (message if message.endswith((".", "?", "!")) else f"{message}."), hint


def debugging() -> bool:
    return bool(os.environ.get("OUTLAST_DEBUG"))
