"""A store on a file of its own, under a clock that only the test moves, and a maker of runs in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from made_runs import Maker

from outlast import clock
from outlast.store.sqlite import SqliteStore


@pytest.fixture
def manual() -> Iterator[clock.ManualClock]:
    ours = clock.ManualClock()
    with clock.use(ours):
        yield ours


@pytest.fixture
def store(tmp_path: Path, manual: clock.ManualClock) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "app.db", create=True)
    yield opened
    opened.close()


@pytest.fixture
def make(store: SqliteStore) -> Maker:
    return Maker(store)
