"""How click finds and describes the commands: the lazy group, the command class, the global options.

Owns the import of a command's module at the moment it is called, the options that may stand before or after a
command, help pages with an example, and the close match for a name that is wrong. Refuses to import anything
of the engine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from gettext import gettext
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from . import catalogue
from .context import Context

_NUMBER = re.compile(r"-\d+(\.\d+)?([eE][+-]?\d+)?")
_MASK = "\0"
"""What no argument of a process can begin with."""

_GLOBALS = ("db", "apps", "as_json", "as_lines", "raw")


def _global_options() -> list[click.Option]:
    return [
        click.Option(["--db", "db"], metavar="FILE", help="The database.", expose_value=False, callback=_keep),
        click.Option(
            ["--app", "apps"],
            metavar="NAME",
            multiple=True,
            help="Workflow code.",
            expose_value=False,
            callback=_keep,
        ),
        click.Option(["--json", "as_json"], is_flag=True, help="JSON on stdout.", expose_value=False, callback=_keep),
        click.Option(["--jsonl", "as_lines"], is_flag=True, help="Lists as lines.", expose_value=False, callback=_keep),
        click.Option(["--raw", "raw"], is_flag=True, help="Values with their tags.", expose_value=False, callback=_keep),
    ]


def _keep(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Lay what was given after the command over what was given before it; what may be repeated adds to it."""
    if value not in (None, (), False) and parameter.name is not None:
        context = ctx.ensure_object(Context)
        setattr(context, parameter.name, (*context.apps, *value) if parameter.name == "apps" else value)
    return value


LARGEST = 2**63 - 1
"""SQLite has no larger number."""


class Count(click.IntRange):
    """A number of rows, or of a message: at most SQLite's largest, which no help page and no error shows."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if number > LARGEST:
            self.fail(f"{value} is too large a number.", param, ctx)
        return number


_KINDS = {"workflow": "workflow", "reference": "run", "references": "run", "statuses": "status", "queue": "queue", "queues": "queue"}


class _Name(click.types.StringParamType):
    """A text that names something which a shell may look up: by the parameter's name, or by the noun of its group."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from .complete import offered

        group = ctx.parent.info_name if ctx.parent is not None else None
        kind = _KINDS.get(param.name or "") or (group if group in ("queue", "schedule", "workflow") else None)
        if kind is None:
            return []
        return [CompletionItem(name, help=about or None) for name, about in offered(kind, ctx.ensure_object(Context), incomplete)]


class Command(click.Command):
    """A command that takes the global options too, and whose help page ends with examples."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.examples = tuple(examples)
        for parameter in self.params:
            if parameter.name in (*_KINDS, "name") and parameter.type is click.STRING:
                parameter.type = _Name()
        self.params.extend(_global_options())

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Let a negative number be an argument: to click, all that begins with `-` is an option."""
        options = [one for one in self.get_params(ctx) if isinstance(one, click.Option) and not one.is_flag]
        named = {name for one in options for name in one.opts}
        end = args.index("--") if "--" in args else len(args)
        masked = [
            f"{_MASK}{one}" if number < end and _NUMBER.fullmatch(one) and (number == 0 or args[number - 1] not in named) else one
            for number, one in enumerate(args)
        ]
        rest = super().parse_args(ctx, masked)
        for name, value in ctx.params.items():
            if isinstance(value, str):
                ctx.params[name] = value.removeprefix(_MASK)
            elif isinstance(value, tuple):
                ctx.params[name] = tuple(part.removeprefix(_MASK) if isinstance(part, str) else part for part in value)
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = [
            record
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option)
            and parameter.name not in _GLOBALS
            and (record := parameter.get_help_record(ctx)) is not None
        ]
        if own:
            with formatter.section(gettext("Options")):
                formatter.write_dl(own)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            with formatter.section("Examples" if len(self.examples) > 1 else "Example"):
                for example in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{example}\n")
        formatter.write("\n--db, --app, --json, --jsonl and --raw: see `outlast --help`.\n")


class Nouns(click.Group):
    """A group of verbs about one noun."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.examples = tuple(examples)
        self.params.extend(_global_options())

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:  # A shell that completes has no verb yet.
            raise click.UsageError(f"Which? Name one of {', '.join(self.list_commands(ctx))}.", ctx)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        _check_known(ctx, self, args)
        return super().resolve_command(ctx, args)

    format_epilog = Command.format_epilog


class LazyGroup(click.Group):
    """The commands of the catalogue, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(catalogue.COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = catalogue.COMMANDS.get(catalogue.ALIASES.get(cmd_name, cmd_name))
        if entry is None:
            return None
        found: click.Command = getattr(import_module(f"{__package__}.{entry.module}"), entry.attribute)
        return found

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        _check_known(ctx, self, args)
        return super().resolve_command(ctx, args)

    def get_help(self, ctx: click.Context) -> str:
        return catalogue.help_text()

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        items = [CompletionItem(entry.name, help=entry.help) for entry in catalogue.COMMANDS.values() if entry.name.startswith(incomplete)]
        return items + click.Command.shell_complete(self, ctx, incomplete)


def _check_known(ctx: click.Context, group: click.Group, args: list[str]) -> None:
    """Refuse an unknown command with the one that was meant."""
    name = args[0] if args else ""
    names = group.list_commands(ctx)
    # A shell that completes shows an error amid the line that is being written.
    if (
        ctx.resilient_parsing
        or not name
        or name.startswith("-")
        or name in names
        or name in catalogue.ALIASES
        or group.get_command(ctx, name)
    ):
        return
    close = get_close_matches(name, [*names, *catalogue.ALIASES], n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"See `{ctx.command_path} --help`."
    raise click.UsageError(f"There is no command {name!r}. {hint}", ctx=None)


def command(name: str, *, examples: Sequence[str], **attributes: Any) -> Callable[[Callable[..., Any]], Command]:
    """`click.command` with examples and the global options."""
    made: Callable[[Callable[..., Any]], Command] = click.command(name, cls=Command, examples=examples, **attributes)
    return made


def program() -> click.Command:
    """The whole command line."""
    return LazyGroup(
        "outlast",
        params=[
            *_global_options(),
            click.Option(["--version"], is_flag=True),
        ],
        context_settings={"help_option_names": ["--help", "-h"], "max_content_width": 100},
        no_args_is_help=False,
        invoke_without_command=True,
        callback=_bare,
    )


@click.pass_context
def _bare(ctx: click.Context, version: bool) -> None:
    if version:
        from .. import __version__
        from . import output

        if ctx.ensure_object(Context).machine:
            output.document({"version": __version__})
        else:
            click.echo(f"outlast {__version__}")
        ctx.exit(0)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
