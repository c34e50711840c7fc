"""The way in and out of the command line: fast help, exit codes, signals, closed pipes.

Owns what happens to whatever a command raises: an error of ours or of click's is reported with its code,
Ctrl-C ends with 130, SIGTERM with 143, a reader that has gone ends it quietly (one of stderr does not), and a bug shows one sentence.
Refuses to import click for the first help page and for the version.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from . import catalogue
from .forgiving import forgiving

_COMPLETE_VARIABLE = "_OUTLAST_COMPLETE"
_OF_THE_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


class Terminated(BaseException):
    """SIGTERM, where no command handles it itself."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    _occupy_standard_descriptors()
    # For good: the interpreter's own last flush must not fail either, else it would change the exit code.
    sys.stderr = forgiving(sys.stderr)
    arguments = sys.argv[1:] if arguments is None else arguments
    code = _flush(call(arguments), as_json=_asks_for_json(arguments))
    output = sys.modules.get(f"{__package__}.output")
    if output is not None and output.has_strays:
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _occupy_standard_descriptors() -> None:
    """Give what the caller has closed (`>&-`) to the null device: else the next file that is opened would be stdout."""
    for number, mode in ((0, "r"), (1, "w"), (2, "w")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one, since those below are taken by now.
            os.open(os.devnull, os.O_RDWR)
        name = ("stdin", "stdout", "stderr")[number]
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def call(arguments: Sequence[str]) -> int:
    """Run the command line and give its exit code."""
    arguments = list(arguments)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character, and a lone surrogate, must not end a command.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if _COMPLETE_VARIABLE not in os.environ and _is_first_page(arguments):
        return _print_first_page()
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    return _guarded(arguments)


def _is_first_page(arguments: list[str]) -> bool:
    return not arguments or arguments in (["--help"], ["-h"], ["help"])


def _print_first_page() -> int:
    try:
        print(catalogue.help_text(colour=catalogue.wants_colour(sys.stdout.isatty())))
    except OSError as error:
        return _lost_output(error)
    return 0


def _guarded(arguments: list[str]) -> int:
    from . import output

    as_json = _asks_for_json(arguments)
    try:
        _on_terminate()
        return _dispatch(arguments)
    except output.Quit as quit_:
        return quit_.code
    except BrokenPipeError as error:
        return _lost_output(error, as_json=as_json)
    except (KeyboardInterrupt, Terminated) as error:
        return output.INTERRUPTED if isinstance(error, KeyboardInterrupt) else output.TERMINATED
    except Exception as error:  # noqa: BLE001 - the last resort of a program
        if output.debugging():
            import traceback

            traceback.print_exc()
        if isinstance(error, OSError) and error.filename is None and error.errno in _OF_THE_OUTPUT:
            return _lost_output(error, as_json=as_json)
        return output.report(error, as_json=as_json)


def _dispatch(arguments: list[str]) -> int:
    import click

    from .context import Context
    from .group import program

    instruction = os.environ.get(_COMPLETE_VARIABLE)
    if instruction:
        from click.shell_completion import shell_complete

        return shell_complete(program(), {}, "outlast", _COMPLETE_VARIABLE, instruction)
    _warn_of_variables()
    context = Context()
    try:
        # Not click's own `main`, which turns a reader that has gone into an exit code of its own.
        with program().make_context("outlast", arguments, obj=context) as ctx:
            result = ctx.command.invoke(ctx)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    finally:
        context.close()
    return result if isinstance(result, int) else 0


def _warn_of_variables() -> None:
    """Say which variables of ours nobody reads. A child of `up` says nothing: its node has."""
    if not any(name.startswith("OUTLAST_") for name in os.environ):
        return
    from ..liveness import FD_VARIABLE
    from ..settings import misspelt_variables
    from . import output

    found = misspelt_variables() if FD_VARIABLE not in os.environ else {}
    if found:
        output.note("; ".join(f"nothing reads ${name}; did you mean ${meant}?" for name, meant in found.items()))


def _asks_for_json(arguments: Sequence[str]) -> bool:
    """Whether errors are to be JSON; asked before click, which may be what fails."""
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in before or "--jsonl" in before


def _on_terminate() -> None:
    from . import output

    def terminate(_number: int, _frame: FrameType | None) -> None:
        output.was_terminated = True
        raise Terminated

    try:
        signal.signal(signal.SIGTERM, terminate)
    except ValueError:
        pass  # Not the main thread: a test, or somebody's program.


def _flush(code: int, *, as_json: bool) -> int:
    """Write what is buffered here, where a reader that has gone can still be told from an error."""
    try:
        sys.stdout.flush()
    except OSError as error:
        lost = _lost_output(error, as_json=as_json)
        return code or lost
    return code


def _lost_output(error: OSError, *, as_json: bool = False) -> int:
    """What stdout cannot take any more: a reader that has gone is none of our business, a full disk is an error."""
    try:
        # The interpreter's own last flush must not fail again.
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
    except (OSError, ValueError):
        pass
    if isinstance(error, BrokenPipeError):
        return 0
    from . import output

    return output.tell(type(error).__name__, f"The output cannot be written: {error.strerror}.", "", output.FAILED, as_json=as_json)
