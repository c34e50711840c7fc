"""The pytest plugin of Outlast: the fixture `outlast_engine`.

A package of its own, so that a pytest session which never asks for the fixture imports nothing of Outlast.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from outlast.testing import DrivenEngine


@pytest.fixture
def outlast_engine(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[DrivenEngine]:
    """An engine on a temporary file, in virtual time: `outlast_engine.run(workflow, ...)` gives the result at once.

    Schedules fire for workflows that the test's module defines or imports, and those that `outlast_engine.schedule()` makes.
    """
    from outlast.testing import driven_engine

    with driven_engine(tmp_path / "outlast.db", schedules_of=getattr(request, "module", None)) as engine:
        yield engine
