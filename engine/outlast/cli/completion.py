"""`completion`: the script that lets a shell complete our commands and options.

Owns nothing but the printing; the script is click's, and it calls `outlast` again for each completion.
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from . import output
from .context import Context
from .group import command, program

VARIABLE = "_OUTLAST_COMPLETE"


@command(
    "completion",
    help="Print the completion script for bash, zsh or fish.",
    examples=[
        'eval "$(outlast completion bash)"        # in ~/.bashrc',
        'eval "$(outlast completion zsh)"         # in ~/.zshrc',
        "outlast completion fish > ~/.config/fish/completions/outlast.fish",
    ],
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_obj
def completion(_context: Context, shell: str) -> int:
    made = get_completion_class(shell)
    assert made is not None
    script = made(program(), {}, "outlast", VARIABLE)
    # `source()` of bash starts a bash to ask for its version; the text is all that is wanted.
    output.write(script.source_template % script.source_vars())
    return 0
