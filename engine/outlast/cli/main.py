"""The way in and out of the command line: fast help, exit codes, signals, closed pipes.

Owns what happens to whatever a command raises: an error of ours or of click's is reported with its code, Ctrl-C ends with 130,
SIGTERM with 143, a reader that has gone ends it quietly, and a bug shows one sentence. Refuses to import click for the first help
page and for the version.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from . import catalogue

_COMPLETE_VARIABLE = "_OUTLAST_COMPLETE"


class Terminated(BaseException):
    """SIGTERM, where no command handles it itself."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    code = _flush(call(sys.argv[1:] if arguments is None else arguments))
    output = sys.modules.get(f"{__package__}.output")
    if output is not None and output.has_strays:
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def call(arguments: Sequence[str]) -> int:
    """Run the command line and give its exit code."""
    arguments = list(arguments)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character, and a lone surrogate, must not end a command.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if _COMPLETE_VARIABLE not in os.environ and _is_first_page(arguments):
        return _print_first_page()
    return _guarded(arguments)


def _is_first_page(arguments: list[str]) -> bool:
    return not arguments or arguments in (["--help"], ["-h"], ["help"])


def _print_first_page() -> int:
    try:
        print(catalogue.help_text(colour=catalogue.wants_colour(sys.stdout.isatty())))
    except BrokenPipeError:
        _forget_stdout()
    return 0


def _guarded(arguments: list[str]) -> int:
    from . import output

    as_json = _asks_for_json(arguments)
    try:
        _on_terminate()
        return _dispatch(arguments)
    except output.Quit as quit_:
        return quit_.code
    except BrokenPipeError:
        _forget_stdout()
        return 0
    except (KeyboardInterrupt, Terminated) as error:
        return output.INTERRUPTED if isinstance(error, KeyboardInterrupt) else output.TERMINATED
    except Exception as error:
        if output.debugging():
            import traceback

            traceback.print_exc()
        return output.report(error, as_json=as_json)


def _dispatch(arguments: list[str]) -> int:
    import click

    from .context import Context
    from .group import program
    from .output import INTERRUPTED

    context = Context()
    try:
        result = program().main(
            arguments, prog_name="outlast", standalone_mode=False, obj=context, complete_var=_COMPLETE_VARIABLE
        )
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.Abort:
        return INTERRUPTED
    finally:
        context.close()
    return result if isinstance(result, int) else 0


def _asks_for_json(arguments: list[str]) -> bool:
    """Whether errors are to be JSON; known before click has read anything, since it may be click that fails."""
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in before or "--jsonl" in before


def _on_terminate() -> None:
    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    try:
        signal.signal(signal.SIGTERM, terminate)
    except ValueError:
        pass  # Not the main thread: a test, or somebody's program.


def _flush(code: int) -> int:
    """Write what is buffered here, where a reader that has gone can still be told from an error."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
    except OSError as error:
        sys.stderr.write(f"Error: the output cannot be written: {error.strerror}.\n")
        _forget_stdout()
        return code or 1
    return code


def _forget_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's own last flush does not fail."""
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
    except (OSError, ValueError):
        pass
