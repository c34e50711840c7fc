"""The threads in which sync code runs: how many there are, and that they end."""

from __future__ import annotations

import threading

from outlast.agent.runners import Runners
from outlast.agent.slots import Slots


def test_who_adds_need_look_again_only_where_work_waits_for_a_thread() -> None:
    begun, enough = threading.Semaphore(0), threading.Event()

    def work(_: str) -> None:
        begun.release()
        enough.wait(20)

    slots = Slots(3, lambda: None)
    runners: Runners[str] = Runners(slots, work)
    assert not runners.add(["one"])
    assert begun.acquire(timeout=20)
    assert not runners.add(["two", "three"])
    assert begun.acquire(timeout=20)
    assert begun.acquire(timeout=20)
    assert runners.add(["four", "five"])
    assert runners.add(["six"])
    enough.set()
    runners.close()


def test_a_thread_that_is_at_work_as_its_agent_leaves_ends_after_its_work() -> None:
    begun, enough = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def work(_: object) -> None:
        threads.append(threading.current_thread())
        begun.set()
        enough.wait(20)

    slots = Slots(1, lambda: None)
    runners = Runners(slots, work)
    runners.add(["one"])
    assert begun.wait(20)
    runners.close()
    enough.set()
    threads[0].join(20)
    assert not threads[0].is_alive()
