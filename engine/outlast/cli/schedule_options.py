"""How a schedule is written on the command line: its rule, its options, its input.

Owns the options of `schedule create` and `update` and their reading into a `Schedule`. Refuses two rules at
once, and input in two ways.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from ..errors import InvalidInput
from .starting import read_json

if TYPE_CHECKING:
    from ..definition import Workflow
    from ..timetable import Schedule

_OPTIONS = (
    click.option("--cron", metavar="TEXT", help='Cron text, as "0 2 * * *" or @daily.'),
    click.option("--timezone", metavar="ZONE", help="Of the cron text: an IANA name, or local. UTC by default."),
    click.option("--every", metavar="DURATION", help='An interval, as "10m".'),
    click.option("--at", metavar="INSTANT", help="Once, at 2027-01-31T08:00 (local) or with Z."),
    click.option("--catch-up", type=click.Choice(["latest", "all", "none"]), help="What follows downtime."),
    click.option("--catch-up-window", metavar="DURATION", help="How old a tick may be for that; 1d, or none."),
    click.option(
        "--overlap",
        type=click.Choice(["skip", "allow", "queue_one", "cancel_running"]),
        help="What a tick does while the last run is unfinished.",
    ),
    click.option("--jitter", metavar="DURATION", help="Delay each tick by up to this."),
    click.option("--start", metavar="INSTANT", help="No tick before this; none removes the bound."),
    click.option("--end", metavar="INSTANT", help="No tick after this; none removes the bound."),
    click.option("--input", "input_text", metavar="JSON", help="All arguments: an object by name, or an array."),
)

_RULES = ("cron", "every", "at")


def schedule_options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def read_schedule(given: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> Schedule:
    """The schedule that the options mean; `before` is what it was, as data, and holds where nothing is given."""
    from ..timetable import from_json

    rules = [name for name in _RULES if given[name] is not None]
    if len(rules) > 1:
        raise InvalidInput(f"--{rules[0]} and --{rules[1]} exclude each other.", hint="Give one rule.")
    if not rules and before is None:
        raise InvalidInput("When does it tick?", hint="Give --cron, --every or --at.")
    data = dict(before) if before is not None else {}
    for name in ("catch_up", "catch_up_window", "overlap", "jitter", "start", "end"):
        if given[name] is not None:
            is_none = given[name] == "none" and name != "catch_up"
            data[name] = None if is_none else given[name]
    trigger = _trigger(given, rules[0] if rules else None, data, before)
    if trigger is not None:
        data["trigger"] = trigger
    return from_json(data)


def read_input(
    definition: Workflow[..., Any], arguments: tuple[str, ...], text: str | None, before: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """The arguments by name; None where none were given. Pairs are laid over those of before."""
    if text is not None and arguments:
        raise InvalidInput("The arguments were given in two ways.", hint="Use key=value pairs, or --input.")
    if text is not None:
        return dict(definition.signature.from_json(read_json(text, place="--input")))
    return dict(definition.signature.parse(arguments, before or {})) if arguments else None


def _trigger(
    given: Mapping[str, Any], rule: str | None, data: Mapping[str, Any], before: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """The rule as data; None where it stays as it was."""
    from ..timetable import At, Cron, Every

    zone = given["timezone"]
    name = None if zone in (None, "local") else zone
    known = {} if before is None else before["trigger"]
    if rule is None and zone is not None and known.get("kind") == "cron":
        rule, text = "cron", known["text"]
    else:
        text = given["cron"]
    if zone is not None and rule != "cron":
        raise InvalidInput("--timezone belongs to --cron.", hint="An --at may name its own: 2027-01-31T08:00+01:00.")
    if rule == "cron":
        kept = known.get("timezone", "UTC") if known.get("kind") == "cron" else "UTC"
        made: Schedule = Cron(text, timezone=name if zone is not None else kept)
    elif rule == "every":
        made = Every(given["every"], start=data.get("start"))
    elif rule == "at":
        made = At(given["at"])
    elif known.get("kind") == "every" and given["start"] is not None:
        made = Every(known["interval"] / 1_000_000, start=data.get("start"))
    else:
        return None
    trigger: dict[str, Any] = made.to_json()["trigger"]
    return trigger
