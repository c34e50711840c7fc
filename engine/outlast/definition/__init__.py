"""What a workflow file says, as values: workflows, steps, transactions, queues, and how they are to be called.

`definition` holds the facts that all kinds share, `dispatch` what a call does where it is made, `source` which functions can be defined
and how their code is told apart, `undo` compensations and probes; `workflows`, `steps` and `transactions` the decorators and the precise
types; `options` and `retry` what may be said about a call, `registry` what this process has defined, `code` what an agent may claim by it.
Refuses to execute anything: a call goes through the `Caller` of its context, or is the plain function.
"""

from __future__ import annotations

from .definition import Definition
from .steps import AsyncStep, Step, SyncStep, step
from .transactions import Transaction, transaction
from .undo import NOT_DONE, Compensation, NotDone, Probe
from .workflows import AsyncWorkflow, SyncWorkflow, Workflow, workflow

__all__ = [
    "NOT_DONE",
    "AsyncStep",
    "AsyncWorkflow",
    "Compensation",
    "Definition",
    "NotDone",
    "Probe",
    "Step",
    "SyncStep",
    "SyncWorkflow",
    "Transaction",
    "Workflow",
    "step",
    "transaction",
    "workflow",
]
