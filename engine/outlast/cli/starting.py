"""`start` and `run`: a run from the command line.

Owns the reading of a workflow's arguments (pairs, JSON, a file, stdin) and of the options of a start, and the
agent that `run` works with in this process, limited to the tree of that run. Refuses two ways of input at
once; nothing is started before everything has been read and fits.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import FileMissing, InvalidInput, TimedOut
from . import output
from .context import Context
from .follow import conclude, follow
from .group import command
from .tree import is_over

if TYPE_CHECKING:
    from ..definition import Workflow
    from ..definition.options import Options
    from ..store.sqlite import SqliteStore

_OPTIONS = (
    click.option("--input", "input_text", metavar="JSON", help="All arguments: an object by name, or an array."),
    click.option("--input-file", metavar="FILE", help="The same from a file; - is stdin."),
    click.option("--key", help="The idempotency key: a second start with it finds the same run."),
    click.option("--unique-key", help="At most one unfinished run of the workflow has this key."),
    click.option("--if-exists", type=click.Choice(["return", "fail", "replace"]), help="With --unique-key: what to do if it is taken."),
    click.option("--queue", help="Wait in this queue."),
    click.option("--partition", help="A sub-name within the queue."),
    click.option("--priority", type=int, help="Higher goes first; 0 is the default."),
    click.option("--delay", metavar="DURATION", help='Not before this time has passed, as "10m".'),
    click.option("--at", metavar="INSTANT", help="Not before this instant, as 2026-01-31T08:00 (local) or with Z."),
    click.option("--timeout", metavar="DURATION", help="The whole run must end within this."),
    click.option("--tag", "tags", metavar="KEY=VALUE", multiple=True, help="May be repeated."),
)


def start_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@command(
    "start",
    help="Start a run of WORKFLOW and print its id. Agents elsewhere (`outlast up`) execute it.\n\n"
    "key=value takes the parameter's type, key:=JSON forces JSON, - reads all arguments as JSON from stdin. "
    "Of several versions of WORKFLOW the newest is started, NAME@VERSION names one.",
    examples=[
        "outlast start fulfil order_id=o-1 items:='[\"a\"]'",
        'outlast start fulfil --input \'{"order_id": "o-1"}\' --wait',
    ],
)
@click.argument("workflow")
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]...", type=click.UNPROCESSED)
@start_options
@click.option("--wait", is_flag=True, help="Wait for the end and print the result (with --json, the run); exit by the outcome.")
@click.pass_obj
def start(context: Context, /, workflow: str, arguments: tuple[str, ...], wait: bool, **given: Any) -> int:
    definition, named, options = _read(context, workflow, arguments, given)
    context.prepare(migrate=False)
    engine = context.engine()
    run = engine.start_input(definition, named, options)
    task_id, uid = context.find(engine.store, run.id)
    if wait:
        _name(context, uid)
        over = follow(engine.store, task_id, silent=context.machine, raw=context.raw)
        assert over is not None
        if context.machine:
            context.answer(over)
            return output.exit_code(over["status"])
        return conclude(over, as_json=False)
    if context.machine:
        from ..views import run_json

        context.answer(run_json(engine.store, task_id, raw=context.raw))
    else:
        output.write(uid)
    return 0


def _name(context: Context, uid: str) -> None:
    """Say which run this is; not to a script, to which stderr has the error and nothing else."""
    if not context.machine:
        output.note(f"Run {uid}")


@command(
    "run",
    help="Start a run of WORKFLOW, execute it in this process until it ends, and print its result.\n\n"
    "Arguments as for `start`. If --key leads to a run that has ended, its result is printed.",
    examples=["outlast run hello name=Ada", "outlast run fulfil order_id=o-1 --key o-1"],
)
@click.argument("workflow")
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]...", type=click.UNPROCESSED)
@start_options
@click.option("--concurrency", type=click.IntRange(1, 1000), default=8, show_default=True, help="Tasks at once.")
@click.pass_obj
def run(context: Context, /, workflow: str, arguments: tuple[str, ...], concurrency: int, **given: Any) -> int:
    definition, named, options = _read(context, workflow, arguments, given)
    context.prepare(migrate=True)
    engine = context.engine()
    started = engine.start_input(definition, named, options)
    task_id, uid = context.find(engine.store, started.id)
    _name(context, uid)
    over = _work_on(context, engine.store, task_id, uid, concurrency)
    return conclude(over, as_json=context.machine)


def _work_on(context: Context, store: SqliteStore, task_id: int, uid: str, concurrency: int) -> dict[str, Any]:
    """Be agent and supervisor of one run until it is over."""
    from ..agent import Agent
    from ..supervisor import Supervisor
    from ..views import run_json
    from ..views.chains import last_in_line, root_of
    from .roles import quiet_logging

    last_id = last_in_line(store, task_id)
    found = run_json(store, last_id, raw=context.raw)
    if is_over(found):
        return found
    agent = Agent(store, context.registry, context.settings, concurrency=concurrency, root_id=root_of(store, last_id))
    supervisor = Supervisor(store, context.settings)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            agent.run()
        except BaseException as error:  # noqa: BLE001 - told to the person below, from the main thread
            failures.append(error)

    def check() -> None:
        if failures:
            raise failures[0]
        if not thread.is_alive() and not is_over(run_json(store, last_in_line(store, task_id))):
            # A step that overran holds its thread; its retry or undo waits for the end of this process.
            raise _Overran(uid)

    thread = threading.Thread(target=work, name="outlast-agent", daemon=True)
    with _answers_alone(), quiet_logging():
        thread.start()
        supervisor.start()
        try:
            over = follow(store, task_id, silent=context.machine, check=check, raw=context.raw)
            assert over is not None
            return over
        except BaseException as error:
            if not isinstance(error, Exception):
                output.note(f"Stopping; run {uid} stays, and `outlast up` or the same `run` with its key goes on.")
            raise
        finally:
            _stop(agent, thread)
            supervisor.stop()
            output.has_strays |= agent.has_strays


@contextmanager
def _answers_alone() -> Iterator[None]:
    """Send what workflows print, and what the programs that they call print, to stderr: stdout is for the
    result.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


class _Overran(TimedOut):
    def __init__(self, uid: str) -> None:
        super().__init__(
            f"A step of run {uid} overran and does not end, so this process has to.",
            hint="The run goes on under `outlast up`, or when the same `run` is called again with its key.",
        )


def _stop(agent: Any, thread: threading.Thread) -> None:
    """Drain; a second Ctrl-C stops at once."""
    agent.stop()
    while thread.is_alive():
        try:
            thread.join(0.2)
        except BaseException:
            agent.stop()
            thread.join(2)
            raise


def _read(
    context: Context, workflow: str, arguments: tuple[str, ...], given: dict[str, Any]
) -> tuple[Workflow[..., Any], dict[str, Any], Options]:
    """What is to be started: the definition, its arguments by name, its options."""
    definition = context.workflow(workflow)
    signature = definition.signature
    text, file = given.pop("input_text"), given.pop("input_file")
    ways = (text is not None) + (file is not None) + bool(arguments)
    if ways > 1 or ("-" in arguments and len(arguments) > 1):
        raise InvalidInput("The arguments were given in two ways.", hint="Use key=value pairs, --input, --input-file or -.")
    if arguments == ("-",):
        file = "-"
    if text is not None:
        named = signature.from_json(read_json(text, place="--input"))
    elif file is not None:
        named = signature.from_json(read_json(read_file(file), place="stdin" if file == "-" else file))
    else:
        named = signature.parse(arguments)
    options = definition.options(**_options(given)).bound
    if not os.path.lexists(context.path):
        from ..starts import start_operation

        # What a start refuses makes no file.
        start_operation(definition, named, options, context.settings)
    return definition, named, options


def _options(given: dict[str, Any]) -> Any:
    """The keywords of `fn.options(...)` of what was given."""
    found = {name: value for name, value in given.items() if value is not None and name != "tags"}
    if "at" in found:
        found["at"] = instant(found["at"], place="--at")
    if given["tags"]:
        found["tags"] = tags(given["tags"])
    return found


def instant(text: str, *, place: str) -> datetime:
    """A wall instant as a person writes it; without a zone it is local time."""
    try:
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError, OSError):
        raise InvalidInput(
            f"{place} is not an instant: {text!r}.",
            hint="Write it as 2026-01-31T08:00 (local time) or 2026-01-31T07:00Z.",
        ) from None


def tags(pairs: tuple[str, ...]) -> dict[str, str]:
    """Tags of `key=value` pairs."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise InvalidInput(f"--tag {pair!r} is not a tag.", hint="Write --tag key=value.")
        if found.setdefault(name, value) != value:
            raise InvalidInput(f"--tag {name} has two values, {found[name]!r} and {value!r}.", hint="A tag has one value.")
    return found


_LONGEST_WORD = 40


def read_json(text: str, *, place: str, may_be_text: bool = False) -> Any:
    """JSON from outside; one sentence where it is none. Where it may be a plain text, that is what a bare word was meant as."""
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise InvalidInput(f"{place} is nested too deeply.") from None
    except ValueError as error:
        from ..signature.conversion import JSON_HINT

        hint = JSON_HINT
        if may_be_text and text[:1] not in ("{", "[", '"') and 0 < len(text) <= _LONGEST_WORD:
            hint = f"A text is given with its quotes: {shlex.quote(json.dumps(text, ensure_ascii=False))}."
        raise InvalidInput(f"{place} is not JSON: {error}.", hint=hint) from None


def _no_constant(name: str) -> Any:
    # Python's parser takes them; JSON has none, and `key:=JSON` refuses them too.
    raise ValueError(f"{name} is not a JSON value")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:40]} is too large for a number")
    return number


def read_file(name: str) -> str:
    """The text of a file, or of stdin for `-`."""
    place = "stdin" if name == "-" else name
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except FileNotFoundError:
        raise FileMissing(name) from None
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{place} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{place} is not UTF-8 text, at byte {error.start}.") from None
