"""An audit of the installed Python distributions: is every file still what was installed?

    outlast run audit                        # this interpreter's distributions
    outlast run audit limit=5
    outlast run audit path=/srv/app/.venv/lib/python3.12/site-packages
    outlast query RUN progress               # while it runs, from another terminal

Each distribution is a task of its own, so that many agents share the work and a killed agent costs no more
than the distributions that it held. What is hashed is in the journal: it is not read again, whatever dies.
"""

from __future__ import annotations

import csv
import hashlib
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from outlast import Fail, Retry, publish, step, workflow

BATCH = 32
"""Distributions that are open at once; the progress is published after each batch."""
NAMED = 20
"""Files of one distribution that are named; the rest is counted."""


@dataclass(frozen=True)
class Installed:
    """A distribution, and the folder that it is installed in."""

    name: str
    version: str
    folder: str


@dataclass(frozen=True)
class Checked:
    """What the files of one distribution are like, beside its RECORD."""

    name: str
    has_record: bool
    files: int
    bytes_hashed: int
    seconds: float
    unhashed: int
    """Files that the RECORD names without a hash, as it does itself."""
    mismatched: int
    missing: int
    unreadable: int
    findings: list[str]
    """`mismatched PATH` and so on; the first ones."""


@dataclass(frozen=True)
class Slow:
    name: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """The end of an audit."""

    is_clean: bool
    distributions: int
    files: int
    bytes_hashed: int
    unhashed: int
    mismatched: int
    missing: int
    unreadable: int
    without_record: list[str]
    findings: dict[str, list[str]]
    slowest: list[Slow]


@workflow
def audit(limit: int | None = None, path: str | None = None) -> Report:
    """Check every file of the installed distributions against its RECORD hash."""
    found = find_installed(path, limit)
    publish("progress", {"checked": 0, "of": len(found)})
    checked: list[Checked] = []
    for begin in range(0, len(found), BATCH):
        checked += check.map(found[begin : begin + BATCH])
        publish("progress", {"checked": len(checked), "of": len(found)})
    return report(checked)


@step(retry=Retry(3))
def find_installed(path: str | None, limit: int | None) -> list[Installed]:
    """List the distributions by name. Of one that is found twice, the one that Python would import counts."""
    if limit is not None and limit < 0:
        raise Fail(f"limit must be 0 or more, not {limit}.")
    if path is not None and not Path(path).is_dir():
        raise Fail(f"{path} is not a folder.")
    by_name: dict[str, Installed] = {}
    for one in metadata.distributions() if path is None else metadata.distributions(path=[path]):
        name = one.metadata["Name"]
        if name:
            folder = str(Path(str(one.locate_file(""))).absolute())
            by_name.setdefault(name.lower(), Installed(name, one.version or "", folder))
    return [by_name[name] for name in sorted(by_name)][:limit]


@step(retry=Retry(3), timeout="10m")
def check(installed: Installed) -> Checked:
    """Hash every file that the RECORD of a distribution names."""
    began = time.monotonic()
    record = _record(installed)
    findings: list[str] = []
    counts = dict.fromkeys(("mismatched", "missing", "unreadable", "unhashed"), 0)
    files = bytes_hashed = 0
    for name, wanted in _rows(record or ""):
        files += 1
        what, size = _compare(Path(installed.folder, name), wanted)
        bytes_hashed += size
        if what in counts:
            counts[what] += 1
            if what != "unhashed" and len(findings) < NAMED:
                findings.append(f"{what} {name}")
    return Checked(
        name=f"{installed.name} {installed.version}".strip(),
        has_record=record is not None,
        files=files,
        bytes_hashed=bytes_hashed,
        seconds=round(time.monotonic() - began, 4),
        findings=findings,
        **counts,
    )


@step
def report(checked: list[Checked]) -> Report:
    """Add it all up."""
    mismatched = sum(one.mismatched for one in checked)
    missing = sum(one.missing for one in checked)
    unreadable = sum(one.unreadable for one in checked)
    by_time = sorted(checked, key=lambda one: (-one.seconds, one.name))
    return Report(
        is_clean=not (mismatched or missing or unreadable),
        distributions=len(checked),
        files=sum(one.files for one in checked),
        bytes_hashed=sum(one.bytes_hashed for one in checked),
        unhashed=sum(one.unhashed for one in checked),
        mismatched=mismatched,
        missing=missing,
        unreadable=unreadable,
        without_record=[one.name for one in checked if not one.has_record],
        findings={one.name: one.findings for one in checked if one.findings},
        slowest=[Slow(one.name, one.seconds) for one in by_time[:5]],
    )


def _record(installed: Installed) -> str | None:
    """The RECORD, read by ourselves: from Python 3.12 on, `Distribution.files` hides what is missing."""
    for one in metadata.distributions(name=installed.name, path=[installed.folder]):
        return one.read_text("RECORD")
    return None  # Uninstalled since it was listed.


def _rows(record: str) -> Iterator[tuple[str, str]]:
    """Each file's name, relative to the folder, and its hash as `sha256=...`, empty where there is none."""
    for row in csv.reader(record.splitlines()):
        if row and row[0]:
            yield row[0], row[1] if len(row) > 1 else ""


def _compare(file: Path, wanted: str) -> tuple[str, int]:
    """What became of a file, and how many of its bytes were hashed."""
    algorithm, _, expected = wanted.partition("=")
    try:
        if not expected or algorithm not in hashlib.algorithms_guaranteed or algorithm.startswith("shake"):
            return ("unhashed" if file.exists() or file.suffix == ".pyc" else "missing"), 0
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, algorithm).digest()
            size = stream.tell()
    except FileNotFoundError:
        return "missing", 0
    except OSError:
        return "unreadable", 0
    actual = urlsafe_b64encode(digest).rstrip(b"=").decode()
    return ("same" if actual == expected.rstrip("=") else "mismatched"), size
