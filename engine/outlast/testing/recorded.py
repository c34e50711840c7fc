"""A recorded run against the code of today, in an application's own tests.

Owns `replays`, which reads what `outlast export RUN` wrote. Refuses the file that the run lives in: the record alone is enough,
no step runs and nothing is written. The workflow's body does run.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import msgspec

from .. import codec
from ..errors import CodeMismatch, InvalidInput, TimedOut
from ..journal.entry import Entry
from ..operations.claimed import Claimed
from ..run.replaying import ReplayHost, replay_within
from ..states import Status
from ..store.sqlite import SqliteStore
from ..text.duration import seconds
from ..views.recording import read_instants

if TYPE_CHECKING:
    from ..definition.definition import Definition
    from ..handles import Duration


class Recording(msgspec.Struct, frozen=True):
    """What `outlast export` writes as `recording`: the run as an agent claims it, and its journal."""

    claimed: Claimed
    journal: list[Entry]


def replays(workflow: Definition, *, history: str | Path, timeout: Duration = 10) -> list[str]:
    """Replay a recorded run against a workflow; gives the warnings, such as changed arguments.

    Raises `CodeMismatch` with the first place that differs, and `InvalidInput` where `history` is no export, is a run of another
    workflow or version, or its input does not fit any more. A result that has changed is no difference, and a run that did
    not complete (its deadline or a person may have ended it) is held to its journal alone. `TimedOut` where the body
    does not come to a wait within `timeout`: it is left in its thread.
    """
    recording = _read(Path(history))
    claimed, definition = recording.claimed, workflow.definition
    if claimed.name != definition.name or claimed.version != definition.version:
        recorded, given = (f"{name}@{version}".rstrip("@") for name, version in (_known(claimed), _known(definition)))
        raise InvalidInput(f"{history} is a run of {recorded}, not of {given}.", hint="Give the workflow that it is a run of.")
    try:
        definition.signature.call(codec.decode_input(claimed.input))
    except (TypeError, InvalidInput) as error:
        raise InvalidInput(f"The recorded input does not fit {definition.name} any more: {error}") from None
    with TemporaryDirectory(prefix="outlast-replays-") as folder:
        store = SqliteStore(str(Path(folder) / "empty.db"), create=True, allow_network=True)
        try:
            limit_seconds = seconds(timeout, place="timeout")
            found = replay_within(limit_seconds, ReplayHost(store.connection, store.now), claimed, definition, recording.journal)
        finally:
            store.close()
    if found is None:
        raise TimedOut(
            f"The body of {definition.name} did not come to a wait within {limit_seconds:g} s.",
            hint="It loops, or it waits for something that only a step may wait for; or give it more by timeout=.",
        )
    if found.difference is not None:
        raise found.difference
    if claimed.status is Status.COMPLETED:
        if not found.ended:
            raise CodeMismatch("the end", recorded="a completed run", found="one more durable call")
        if isinstance(found.error, Exception):
            raise CodeMismatch("the end", recorded="a completed run", found=f"{type(found.error).__name__}: {found.error}")
    return found.warnings


def _known(one: Claimed | Definition) -> tuple[str, str]:
    return one.name, one.version


def _read(path: Path) -> Recording:
    try:
        document: Any = json.loads(path.read_bytes())
        return msgspec.convert(read_instants(document["recording"]), Recording)
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = f"{type(error).__name__}: {error}".rstrip(".")
        raise InvalidInput(f"{path} is not a recorded run: {problem}.", hint="Write it with `outlast export RUN > FILE`.") from None
