"""A store on a file of its own, under a clock that only the test moves, and a maker of runs in it.

Once a session, ahead of the processes that share its work: what hundreds of started processes would each do again is done.
"""

from __future__ import annotations

import compileall
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_runs import Maker

import outlast
from outlast import clock
from outlast.definition import registry
from outlast.store.sqlite import SqliteStore

TESTS = Path(__file__).parent
SLOW = ("workflows", "docs", "typing", "crash", "node", "cli")
MEMORY = Path("/dev/shm")
ROOM = 2 << 30


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts what it puts into the background so, and the processes of the tests would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        return
    if sys.dont_write_bytecode:
        # Images of containers say so. Each process that a test starts would compile the whole engine, half of what it costs.
        compileall.compile_dir(Path(outlast.__file__).parent, quiet=2)
    if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
        # What is written and never read again need not wait for a disk. Crash tests do (crash/conftest.py).
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow ones first, so that at the end neither process waits for a long test of the other."""
    rank = {name: number for number, name in enumerate(SLOW)}
    items.sort(key=lambda item: rank.get(item.path.relative_to(TESTS).parts[0], len(SLOW)) if TESTS in item.path.parents else -1)


@pytest.fixture
def manual() -> Iterator[clock.ManualClock]:
    """It begins with a whole minute: 2023-11-14T22:14:00Z."""
    ours = clock.ManualClock(wall=1_700_000_040 * clock.SECOND)
    with clock.use(ours):
        yield ours


@pytest.fixture
def app() -> Iterator[registry.Registry]:
    """Where a test's own definitions go."""
    with registry.isolated() as ours:
        yield ours


@pytest.fixture
def store(tmp_path: Path, manual: clock.ManualClock) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "app.db", create=True)
    yield opened
    opened.close()


@pytest.fixture
def make(store: SqliteStore) -> Maker:
    return Maker(store)
