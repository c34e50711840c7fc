"""An isolated step has its agent for all that it says: its process never opens the file."""

from __future__ import annotations

import os

import psutil
from run_bench import Bench

from outlast import current, publish, step, workflow
from outlast.definition import registry


@step(isolate=True)
def says_all_that_it_can() -> list[str]:
    print("printed")
    current().heartbeat({"half": True})
    publish("progress", 50)
    return [file.path for file in psutil.Process(os.getpid()).open_files()]


with registry.isolated() as defined:
    defined.add(says_all_that_it_can)

    @workflow
    def asks() -> list[str]:
        return says_all_that_it_can()


def test_the_process_of_an_isolated_step_never_opens_the_file(bench: Bench) -> None:
    bench.agent()
    run = bench.start(asks)
    opened = run.result(timeout=60)
    assert run.query("progress") == 50
    assert not [path for path in opened if os.path.basename(path).startswith("runs.db")]
