"""What a user would pick instead, each in a process of its own: which are installed, and one number from each.

Owns the call of `peer_dbos` and `peer_huey`, which are programs of their own, since both libraries start threads and keep
global state. Absent peers are named, never guessed; no number is quoted from elsewhere.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

from .figures import Setting
from .processes import ROOT, environment

PEERS = ("dbos", "huey")


def versions() -> dict[str, str]:
    """The peers that are installed."""
    found = {}
    for name in PEERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    return found


def missing() -> str | None:
    absent = [name for name in PEERS if name not in versions()]
    return f"not installed: {', '.join(absent)} (pip install 'outlast[benchmarks]')" if absent else None


def ask(setting: Setting, peer: str, count: int, *words: str) -> float:
    """The number that a peer's program prints."""
    with setting.new_folder() as folder:
        answer = subprocess.run(
            [sys.executable, "-m", f"benchmarks.peer_{peer}", str(folder), str(count), *words], cwd=ROOT, env=environment(),
            check=True, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    return float(answer.stdout.split()[-1])
