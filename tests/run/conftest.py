"""Fixtures of the tests about what happens inside a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from run_bench import Bench, effects


@pytest.fixture
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """A bench with the definitions of the test's module, which keeps them as `defined`."""
    effects.clear()
    bench = Bench(tmp_path / "runs.db", request.module.defined)
    try:
        yield bench
    finally:
        for gate in [value for value in vars(request.module).values() if type(value).__name__ == "Gate"]:
            gate.open()
        try:
            bench.close()
        finally:
            for gate in [value for value in vars(request.module).values() if type(value).__name__ == "Gate"]:
                gate.close()
