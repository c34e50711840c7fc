"""What the roles ask of a store, as values: each operation is one atomic, fenced change.

Owns those on tasks and agents, and their results; those on schedules, queues and retention lie beside. A store (SQLite now, PostgreSQL to
come) executes them, alone or many in one commit, stamped with its own `now`. Refuses SQL, I/O and the clock. Structs, to be cheap.
"""

from __future__ import annotations

from msgspec import Struct

from ..journal.entry import Entry
from ..states import Ending, Status
from .atomic import Operation
from .claimed import Claimed, Fence, Wanted


class Start(Operation["Started"], frozen=True, gc=False):
    """Write a task row: a run, or a submitted step."""

    uid: str
    kind: str
    name: str
    needs: str
    queue: str
    input: bytes
    version: str = ""
    partition: str | None = None
    priority: int = 0
    delay: int | None = None
    at_wall: int | None = None
    key: str | None = None
    unique_key: str | None = None
    if_exists: str = "return"
    debounce: int | None = None
    debounce_max: int | None = None
    tags: str | None = None
    timeout: int | None = None
    deadline_at: int | None = None
    parent_id: int | None = None
    parent_path: str | None = None
    root_id: int | None = None
    retry_of: str | None = None
    chain: str = ""
    idempotency_key: str | None = None
    options: str | None = None
    tick: int | None = None
    max_crashes: int | None = None


class Started(Struct, frozen=True, gc=False):
    """The task that a start led to; `created` is false where a key led to one that was there."""

    task_id: int
    uid: str
    created: bool


class StartPart(Operation[Started], frozen=True, gc=False):
    """Start a child or a submitted step of a claimed run, together with the journal entry that says so."""

    fence: Fence
    entry: Entry
    start: Start


class Claim(Operation[list[Claimed]], frozen=True, gc=False):
    """Take up to `limit` due tasks whose code this agent has. `code` maps `needs` to the fingerprint of its source.

    `taken` is how many the agent has taken so far: every eighth is the longest due, whatever its priority. With `suspects_first`,
    where a suspect is due, take one of those and nothing else, as with `suspects`, `alone` and a limit of one.
    """

    agent_id: int
    limit: int
    code: dict[str, str]
    queues: tuple[str, ...] | None = None
    root_id: int | None = None
    alone: bool = False
    suspects: bool = False
    suspects_first: bool = False
    taken: int = 0


class Append(Operation[bool | Wanted], frozen=True, gc=False):
    """Write entries into the journal of a claimed run; take a signal with them.

    Gives what is wanted of the run meanwhile: it begins nothing more, though its agent may not have read of that yet.

    With `unless_signal`, write nothing and give false where an unread signal of that name came after `seen_signal_id`.
    """

    fence: Fence
    entries: list[Entry]
    signal_id: int | None = None
    unless_signal: str | None = None
    seen_signal_id: int = 0
    clears_suspicion: bool = False
    tries: int | None = None
    """How many there have been of a submitted step, before its agent may be replaced."""


class Publish(Operation[None], frozen=True, gc=False):
    """Set a published value; from a workflow with the entry that keeps replay from setting it again."""

    fence: Fence
    entry: Entry | None
    key: str
    value: bytes
    run_id: int | None = None


class Emit(Operation[None], frozen=True, gc=False):
    """Append messages to a stream; from a workflow with the entry that keeps replay from emitting them again."""

    fence: Fence
    entry: Entry | None
    stream: str
    values: list[bytes]
    step: str | None = None
    try_number: int | None = None
    run_id: int | None = None


class End(Operation[Status], frozen=True, gc=False):
    """Decide how a claimed run or step ends. `simple`: it has no parts, no undo and no stray try."""

    fence: Fence
    ending: Ending
    output: bytes | None = None
    error: bytes | None = None
    tries: int = 0
    simple: bool = False
    strays: tuple[str, ...] = ()
    undo: bool = True
    failed: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()
    """What a retry of the run sets aside, as by `RetryRun`."""


class ContinueAsNew(Operation[Status], frozen=True, gc=False):
    """Complete a claimed run and start its successor: same key, parent, tags and unread signals."""

    fence: Fence
    start: Start


class RetryRun(Operation[bool], frozen=True, gc=False):
    """Put a claimed run back for its next try; false, and nothing but a cancel of them, while parts that go with it still run.

    The outcomes at `failed`, whose error ended it, are set aside, with what `branches` journalled afterwards.
    """

    fence: Fence
    failed: tuple[str, ...]
    branches: tuple[str, ...]
    delay: int
    tries: int


class Again(Operation[None], frozen=True, gc=False):
    """Put a submitted step back for its next try, with the try that failed; or its probe, which does not count as a try."""

    fence: Fence
    entry: Entry
    delay: int
    tries: int | None = None
    """How many there have been now; that of the entry where it is a try."""


class Park(Operation[bool], frozen=True, gc=False):
    """Take a waiting run off its agent; false where something that it waits for is there already.

    `places` says, for each of the parts, where in the code it was started: a part that a key led to is known by that, too.
    """

    fence: Fence
    due_at: int | None
    signals: tuple[str, ...] = ()
    seen_signal_id: int = 0
    parts: tuple[int, ...] = ()
    places: tuple[str, ...] = ()
    wait_for_all: bool = False
    fails_fast: bool = False
    notice: int = 0


class GiveBack(Operation[None], frozen=True, gc=False):
    """Return a task unharmed: drained, paused, or refused because this agent's code disagrees with its journal."""

    fence: Fence
    due_at: int | None = None
    refused: str | None = None


class Halt(Operation[None], frozen=True, gc=False):
    """Stop a claimed task until a person decides."""

    fence: Fence
    reason: str
    error: bytes | None = None
    strays: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()
    """What is set aside, as by `RetryRun`, so that a resume does not come back to the same error."""
    is_parked: bool = False
    """The run lay down under this claim before it was known that its code does not unwind."""
    question: Entry | None = None
    """What a person has to find out before the run goes on."""


class Acknowledge(Operation[None], frozen=True, gc=False):
    """Say that the holder has read so many notices."""

    fence: Fence
    notice: int


class StrayEnded(Operation[None], frozen=True, gc=False):
    """A try that overran has ended; its late outcome goes to the journal for the undo's sake."""

    task_id: int
    agent_id: int
    path: str
    entry: Entry | None = None
    run_id: int | None = None


class CancelParts(Operation[None], frozen=True, gc=False):
    """Cancel parts of a claimed run: what a gather or a cancelled branch no longer waits for."""

    fence: Fence
    parts: tuple[int, ...]


class RecordUndo(Operation[None], frozen=True, gc=False):
    """Journal a compensation's try or outcome under the fence of a compensating run."""

    fence: Fence
    entry: Entry


class PassUndo(Operation[None], frozen=True, gc=False):
    """Release a compensating run for an agent with the code of its next compensation, from `delay` on."""

    fence: Fence
    delay: int = 0


class EndUndo(Operation[Status], frozen=True, gc=False):
    """All compensations are done."""

    fence: Fence


class Signal(Operation[bool], frozen=True, gc=False):
    """Keep a signal for a run and wake it; false where its key has been here before."""

    uid: str
    name: str
    payload: bytes
    key: str | None = None


class Cancel(Operation[str], frozen=True, gc=False):
    """Ask a run to be cancelled; gives its status afterwards."""

    uid: str
    undo: bool = True
    force: bool = False


class Pause(Operation[str], frozen=True, gc=False):
    uid: str
    children: bool = False


class Resume(Operation[str], frozen=True, gc=False):
    """End a pause, or send a halted run on.

    One that was halted by an unknown outcome takes what a person found out: the step's stored result, or that it was not done.
    """

    uid: str
    done: bytes | None = None
    not_done: bool = False
    by: str = ""


class StartRetry(Operation[Started], frozen=True, gc=False):
    """Run a final run anew, as another run; `uid` is what it is to be called. An unfinished retry of its chain is given back."""

    retried: str
    uid: str
    from_step: str | None = None


class RegisterAgent(Operation[int], frozen=True, gc=False):
    uid: str
    host: str
    boot_id: str
    pid: int
    process_started: str
    slots: int
    queues: str | None
    lease: int
    code: dict[str, str]
    root_id: int | None = None


class LearnCode(Operation[None], frozen=True, gc=False):
    """An agent has code that was defined while it ran."""

    agent_id: int
    code: dict[str, str]


class Heartbeat(Operation[bool], frozen=True, gc=False):
    """Renew an agent's lease; false where it was lost and everything under it is somebody else's."""

    agent_id: int
    lease: int
    draining: bool = False


class LeaveAgent(Operation[None], frozen=True, gc=False):
    """An agent ends in good order; what it still holds goes back without suspicion. `running` are tasks whose tries go on in this process's
    threads: an ending of theirs waits for those, and where the process itself goes on (`is_embedded`), so do the endings that wait for a
    try already.
    """

    agent_id: int
    running: tuple[int, ...] = ()
    is_embedded: bool = False


class AgentEnded(Operation[list[str]], frozen=True, gc=False):
    """An agent's process is gone, or its lease is; gives its tasks back. Gives a line for each task that changed."""

    agent_id: int
    status: str
    """`crashed` (it died in this boot), `lost` (its lease ran out and nobody saw it die), `stopped` (a reboot)."""
    evidence: str
    max_crashes: int
    seen_dead: bool


class Sweep(Operation[list[str]], frozen=True, gc=False):
    """Look after what time and lost wakeups leave: deadlines, endings, undo without code, wall-clock starts."""

    lease: int
