"""The verbs of `schedule` that change something: make, change, hold, start by hand.

Refuses to change what code declares: that is done in the code. Nothing is written before everything that was
given has been read and fits.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from ..errors import InvalidInput, ScheduleNotFound
from . import output
from .context import Context
from .group import command
from .schedule_options import read_input, read_schedule, schedule_options
from .schedule_view import code_of, print_ticks, report, with_schedule
from .starting import instant
from .text import safe

if TYPE_CHECKING:
    from ..operations.schedules import Decided
    from ..timetable import Schedule

_ASKED_FROM = 100


@command(
    "create",
    help="Create a schedule that starts runs of WORKFLOW. It begins now; key=value pairs are the runs' arguments.",
    examples=[
        'outlast schedule create nightly report --cron "0 2 * * *" --timezone Europe/Berlin folder=/data',
        "outlast schedule create poll collect --every 10m --overlap allow",
    ],
)
@click.argument("name")
@click.argument("workflow")
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]...", type=click.UNPROCESSED)
@schedule_options
@click.pass_obj
def create(
    context: Context,
    /,
    name: str,
    workflow: str,
    arguments: tuple[str, ...],
    input_text: str | None,
    **given: Any,
) -> int:
    from .. import scheduling
    from ..text.names import checked_name

    checked_name(name, place="The name of a schedule")
    made = read_schedule(given)
    _check_ticks(made, name)
    if "@" in workflow:
        raise InvalidInput("A schedule starts the newest version of its workflow.", hint="Name it without a version.")
    definition = context.workflow(workflow)
    scheduling.refuse_declared(context.registry, name)
    named = read_input(definition, arguments, input_text)
    data = scheduling.encoded_input(name, definition, named, context.settings)
    scheduling.put(context.store(), name, made, definition.name, data, is_new=True)
    return report(context, name)


@command(
    "update",
    help="Change a schedule; what you do not give stays, also single arguments. A new rule begins now and never fires for the past.",
    examples=[
        'outlast schedule update nightly --cron "0 3 * * *"',
        "outlast schedule update poll --overlap skip folder=/data",
    ],
)
@click.argument("name")
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]...", type=click.UNPROCESSED)
@schedule_options
@click.pass_obj
def update(context: Context, /, name: str, arguments: tuple[str, ...], input_text: str | None, **given: Any) -> int:
    from .. import codec, scheduling
    from ..scheduling.backfill import found as find

    store = context.store()
    with _found_in_code(context, name, "change it there"):
        stored = find(store, name)
    if stored.source == "code":
        raise scheduling.of_code(name, stored.origin, "change it there")
    if not arguments and input_text is None and all(value is None for value in given.values()):
        raise InvalidInput(f"What is to change of {name}?", hint="`outlast schedule update --help` lists it.")
    # Raises where it cannot be read: what is not given is taken from it.
    scheduling.read(stored, store.path, {})
    made = read_schedule(given, json.loads(stored.rule))
    if made.fingerprint != stored.fingerprint:
        _check_ticks(made, name)
    data = stored.input
    if arguments or input_text is not None:
        definition = context.workflow(stored.workflow)
        named = read_input(definition, arguments, input_text, codec.decode(stored.input) if arguments else None)
        data = scheduling.encoded_input(name, definition, named, context.settings)
    scheduling.put(store, name, made, stored.workflow, data)
    return report(context, name)


@command(
    "delete",
    help="Forget a schedule and its ledger. Its runs stay.",
    examples=["outlast schedule delete nightly"],
)
@click.argument("name")
@click.pass_obj
def delete(context: Context, name: str) -> int:
    from ..scheduling import unschedule

    with _found_in_code(context, name, "remove it there"):
        unschedule(context.store(), name)
    if context.machine:
        context.answer({"name": name, "status": "deleted"})
    else:
        output.write(f"Schedule {safe(name)} is deleted.")
    return 0


@command(
    "pause",
    help="Fire no ticks until it is resumed; the ledger says which fell into the pause.",
    examples=['outlast schedule pause nightly --reason "migration until Friday"'],
)
@click.argument("name")
@click.option("--reason", help="Why; `schedule show` and the ledger repeat it.")
@click.pass_obj
def pause(context: Context, name: str, reason: str | None) -> int:
    from ..operations.schedules import PauseSchedule
    from ..text.names import checked_text

    if reason is not None:
        checked_text(reason, place="--reason")
    with_schedule(context, name).commit(PauseSchedule(name, reason))
    return report(context, name)


@command(
    "resume",
    help="End a pause. What fell into it does not fire.",
    examples=["outlast schedule resume nightly"],
)
@click.argument("name")
@click.pass_obj
def resume(context: Context, name: str) -> int:
    from ..operations.schedules import ResumeSchedule

    context.store().commit(ResumeSchedule(name))
    return report(context, name)


@command(
    "trigger",
    help="Start a run now, whatever the rule, a pause or an unfinished run says; prints the run's id.",
    examples=["outlast schedule trigger nightly"],
)
@click.argument("name")
@click.pass_obj
def trigger(context: Context, name: str) -> int:
    from ..scheduling.backfill import trigger as start

    decided = start(with_schedule(context, name), context.registry, context.settings, name)
    if context.machine:
        context.answer(_tick(decided))
    else:
        output.write(str(decided.run_id))
    return 0


@command(
    "backfill",
    help="Start the runs of ticks from --from to --to, both included, that have none. All start at once; what has fired stays fired.",
    examples=["outlast schedule backfill nightly --from 2026-01-01 --to 2026-01-31T23:59 --dry-run"],
)
@click.argument("name")
@click.option("--from", "first", metavar="INSTANT", required=True, help="The first tick, or before it.")
@click.option("--to", "last", metavar="INSTANT", required=True, help="The last tick, included.")
@click.option("--dry-run", is_flag=True, help="Only list the ticks.")
@click.option("--yes", "-y", is_flag=True, help=f"Do not ask; from {_ASKED_FROM} ticks on it does.")
@click.pass_obj
def backfill(context: Context, name: str, first: str, last: str, dry_run: bool, yes: bool) -> int:
    from ..clock import from_datetime
    from ..scheduling import backfill as past
    from ..views.schedules import tick_json

    begin = from_datetime(instant(first, place="--from"))
    end = from_datetime(instant(last, place="--to"))
    code, store = code_of(context), with_schedule(context, name)
    missing = past.missing_ticks(store, code, name, begin, end)
    if dry_run:
        found = [tick_json(name, tick, tick, 1, "backfilled", "dry run", None) for tick in missing]
    else:
        if len(missing) >= _ASKED_FROM and not yes:
            _ask(len(missing))
        decided = past.backfill(store, context.registry, context.settings, code, name, begin, end)
        found = [_tick(one) for one in decided]
    if context.machine:
        context.answer(found)
        return 0
    print_ticks(found, empty="Nothing to backfill: every tick of that range has its run, or there is none.")
    return 0


@contextmanager
def _found_in_code(context: Context, name: str, action: str) -> Iterator[None]:
    """What the file does not know may be declared by code that no scheduler has seen yet: then that is the answer."""
    try:
        yield
    except ScheduleNotFound:
        from ..scheduling import of_code

        if (one := code_of(context).get(name)) is None:
            raise
        raise of_code(name, one.workflow.file, action) from None


def _check_ticks(made: Schedule, name: str) -> None:
    from .. import clock

    if made.timetable.next(clock.wall()) is None:
        raise InvalidInput(f"Schedule {name} would never tick: all its instants are past.")


def _ask(count: int) -> None:
    if not sys.stdin.isatty():
        raise InvalidInput(f"This would start {count:,} runs.", hint="Say --yes to do it.")
    if not click.confirm(f"Start {count:,} runs?", err=True):
        output.note("Nothing was done.")
        raise output.Quit(0)


def _tick(decided: Decided) -> dict[str, Any]:
    from ..views.schedules import tick_json

    row = decided.row
    return tick_json(decided.schedule, row.tick, row.until, row.count, row.outcome, row.reason, decided.run_id)


VERBS = (create, update, delete, pause, resume, trigger, backfill)
