"""An audit of the installed Python distributions: every file checked against the hash that its RECORD names.

Run it with `outlast run audit`, or with several agents: `outlast up --agents 2` and `outlast start audit`. Each distribution is one
submitted step, so that agents share them and a crash costs at most the distributions that were under way.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import io
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from outlast import publish, step, workflow

BATCH = 16


@dataclass(frozen=True)
class Finding:
    """A file that is not what its RECORD says."""

    file: str
    problem: str


@dataclass(frozen=True)
class Checked:
    """What the check of one distribution found."""

    distribution: str
    files: int
    hashed_bytes: int
    seconds: float
    findings: list[Finding]


@step
def find_distributions(path: str | None) -> list[str]:
    """The folders of the metadata of everything that is installed, sorted."""
    places = [path] if path is not None else sys.path
    found = set()
    for distribution in importlib.metadata.distributions(path=places):
        folder = getattr(distribution, "_path", None)
        if folder is not None and (Path(folder) / "RECORD").is_file():
            found.add(str(folder))
    return sorted(found)


@step
def check(metadata: str) -> Checked:
    """Hash every file of one distribution; reading it again after a crash does no harm."""
    began = time.perf_counter()
    folder = Path(metadata)
    files = hashed_bytes = 0
    findings: list[Finding] = []
    for name, expected, _ in _record(folder):
        files += 1
        file = folder.parent / name
        if not file.is_file():
            # Bytecode is made and removed by the interpreter as it likes.
            if not name.endswith(".pyc"):
                findings.append(Finding(name, "is missing"))
            continue
        if not expected:
            continue
        algorithm, _, digest = expected.partition("=")
        data = file.read_bytes()
        hashed_bytes += len(data)
        actual = base64.urlsafe_b64encode(hashlib.new(algorithm, data).digest()).rstrip(b"=").decode()
        if actual != digest:
            findings.append(Finding(name, f"has another {algorithm} than RECORD says"))
    return Checked(folder.name, files, hashed_bytes, round(time.perf_counter() - began, 3), findings)


@workflow
def audit(path: str | None = None, limit: int | None = None) -> dict[str, object]:
    """Check every installed distribution, or the first `limit`, or those in the folder `path`; report at the end."""
    distributions = find_distributions(path)[:limit]
    results: list[Checked] = []
    for start in range(0, len(distributions), BATCH):
        results += check.map(distributions[start : start + BATCH])
        publish("progress", {"checked": len(results), "of": len(distributions)})
    slowest = sorted(results, key=lambda checked: checked.seconds, reverse=True)[:3]
    return {
        "distributions": len(results),
        "files": sum(checked.files for checked in results),
        "hashed_bytes": sum(checked.hashed_bytes for checked in results),
        "findings": {
            checked.distribution: [f"{finding.file} {finding.problem}" for finding in checked.findings]
            for checked in results
            if checked.findings
        },
        "slowest": [f"{checked.distribution} {checked.seconds:.2f} s" for checked in slowest],
    }


def _record(folder: Path) -> list[list[str]]:
    text = (folder / "RECORD").read_text(encoding="utf-8")
    return [row for row in csv.reader(io.StringIO(text)) if len(row) == 3]
