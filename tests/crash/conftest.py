"""The folder of a crash test: on the machine's disk, where a commit takes as long as it does."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

DISK = Path("/var/tmp")


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Kept where the test fails. In memory, hardly a kill would land in the middle of a commit."""
    folder = Path(tempfile.mkdtemp(prefix="outlast-", dir=DISK)).resolve()
    failed = request.session.testsfailed
    yield folder
    if request.session.testsfailed == failed:
        shutil.rmtree(folder, ignore_errors=True)
