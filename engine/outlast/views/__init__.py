"""Read models: what the file says, in the JSON shapes that screens, scripts and the facade rely on.

`find` turns what a person writes into a run, `runs` and `steps` show it, `agents`, `stats` and
`definitions` what surrounds it. Nothing here writes, and nothing needs the workflows' code: values are
shown without the classes that they name.
"""

from __future__ import annotations

from .agents import agents_json
from .definitions import workflows_json
from .find import find_run
from .queues import queues_json
from .runs import children_ids, find_runs, run_json, runs_json, show_json, status_of
from .state import messages_json, published_json, published_value, stream_names
from .stats import stats_json
from .steps import steps_json
from .undo import undo_json

__all__ = [
    "agents_json",
    "children_ids",
    "find_run",
    "find_runs",
    "messages_json",
    "published_json",
    "published_value",
    "queues_json",
    "run_json",
    "runs_json",
    "show_json",
    "stats_json",
    "status_of",
    "steps_json",
    "stream_names",
    "undo_json",
    "workflows_json",
]
