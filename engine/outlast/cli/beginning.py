"""`init` and `demo`: the first minutes.

Owns the first workflow file that a person gets. Refuses to overwrite anything: what is there already stays,
and the command says so.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from ..errors import AlreadyExists, InvalidInput, StoreReadOnly
from . import output
from .context import Context
from .group import command
from .text import safe

FIRST_WORKFLOW = '''\
"""A first workflow: each step is journalled, so that a run goes on where it was, whatever dies on the way."""

from outlast import Retry, sleep, step, workflow

# from outlast import Cron


@step(retry=Retry(5, initial="200ms"))
def greet(name: str) -> str:
    """A step is where the world is touched. It is tried again when it raises, and its result is kept."""
    return f"Hello, {name}!"


# @workflow(schedule=Cron("0 8 * * mon-fri", timezone="Europe/Berlin"))
@workflow
def hello(name: str = "world") -> str:
    """Greet, wait a second, and greet again."""
    first = greet(name)
    sleep("1s")  # Survives a restart; a longer one holds neither a thread nor memory.
    second = greet(f"{name}, still")
    return f"{first} {second}"
'''

PROJECT = """\
[tool.outlast]
app = "workflows"
db = "outlast.db"
"""


@command(
    "init",
    help="Write a first workflow, workflows/hello.py, into FOLDER (by default, here).",
    examples=["outlast init", "outlast init shop && cd shop && outlast run hello name=Ada"],
)
@click.argument("folder", required=False, default=".")
@click.pass_obj
def init(context: Context, folder: str) -> int:
    if not folder or "\0" in folder:
        raise InvalidInput(f"{folder!r} cannot be the name of a folder.")
    root = Path(folder).expanduser()
    target = root / "workflows" / "hello.py"
    project = root / "pyproject.toml"
    if os.path.lexists(target):
        raise AlreadyExists(f"{target} exists already.", hint="Nothing was written.")
    written = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as file:
            file.write(FIRST_WORKFLOW)
        written.append(str(target))
        if not os.path.lexists(project):
            with project.open("x", encoding="utf-8") as file:
                file.write(PROJECT)
            written.append(str(project))
    except FileExistsError as error:
        raise AlreadyExists(f"{error.filename} is in the way.", hint="Name another folder.") from None
    except NotADirectoryError as error:
        raise InvalidInput(f"{error.filename} is in a place that is not a folder.", hint="Name another folder.") from None
    except PermissionError as error:
        raise StoreReadOnly(str(error.filename)) from None
    if context.machine:
        context.answer({"written": written})
        return 0
    for name in written:
        output.write(f"Wrote {safe(name)}")
    output.write("\nNext:")
    if root.resolve() != Path.cwd():
        # With what `~` stands for: quotes would keep a shell from that.
        where = f"./{root}" if str(root).startswith("-") else str(root)
        output.write(f"  cd {safe(shlex.quote(where))}")
    output.write("  outlast run hello name=Ada      # start it and work on it here")
    output.write("  outlast up                      # or: keep agents alive in one terminal,")
    output.write("  outlast start hello name=Ada    # and start runs from another")
    return 0


@command(
    "demo",
    help="Run an order in a temporary folder, kill its agent in the middle, and watch it continue.",
    examples=["outlast demo"],
)
@click.option("--keep", is_flag=True, help="Keep the folder, so that you can look around in it.")
@click.pass_obj
def demo(context: Context, keep: bool) -> int:
    from .demo import perform

    return perform(keep=keep, as_json=context.machine)
