"""Who a process is, and whether it still lives.

Owns the identity that a claim is kept under: a pid alone is reused, so it comes with the instant the process
was started, the boot, and the place from which its pid means anything (host and pid namespace). Refuses to
guess: of a process on another host, or in another container, nothing can be said from here, and the answer is
None.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .. import clock


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process, told apart from every other, earlier and later ones included."""

    host: str
    """Host name, machine id and pid namespace, separated by slashes."""
    boot_id: str
    pid: int
    started: str
    """When it was started, in the system's own terms; only ever compared. Empty where it cannot be read."""


def this_process() -> ProcessIdentity:
    """The identity of the calling process."""
    pid = os.getpid()
    seen = _look(pid)
    return ProcessIdentity(_host(), clock.boot_id(), pid, seen.started if seen else "")


def is_alive(identity: ProcessIdentity) -> bool | None:
    """Whether that very process still runs; None where it cannot be seen from here.

    False is proof: the boot is over, the pid is gone, a zombie, or somebody else's by now.
    """
    machine, _, _ = identity.host.rpartition("/")
    here, _, _ = _host().rpartition("/")
    if machine != here:
        return None
    # A boot ends every process of its machine, whatever namespace it lived in.
    if identity.boot_id != clock.boot_id():
        return False
    if identity.host != _host():
        return None
    seen = _look(identity.pid)
    if seen is None:
        # /proc may hide the processes of others (hidepid), so its silence alone proves nothing.
        try:
            os.kill(identity.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass
        return None
    if seen.is_dead:
        return False
    if not identity.started or not seen.started:
        return None
    return seen.started == identity.started


@dataclass(frozen=True, slots=True)
class _Seen:
    started: str
    is_dead: bool


def _look(pid: int) -> _Seen | None:
    if sys.platform == "darwin":
        return _look_by_ps(pid)
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return parse_stat(text)


def parse_stat(text: str) -> _Seen:
    """Read /proc/PID/stat.

    The name in parentheses may itself hold spaces and parentheses: the last one ends it.
    """
    fields = text[text.rindex(")") + 1 :].split()
    # The state is field 3, the start time field 22, counted from 1 with the pid.
    return _Seen(started=fields[22 - 3], is_dead=fields[0] in "ZXx")


def _look_by_ps(pid: int) -> _Seen | None:
    try:
        done = subprocess.run(
            ["/bin/ps", "-o", "state=,lstart=", "-p", str(pid)],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
            env={"LC_ALL": "C", "TZ": "UTC"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    state, _, started = done.stdout.strip().partition(" ")
    if not state:
        return None
    return _Seen(started=" ".join(started.split()), is_dead=state.startswith("Z"))


def _host() -> str:
    return f"{socket.gethostname()}/{_machine_id()}/{_pid_namespace()}"


@cache
def _machine_id() -> str:
    for name in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        try:
            found = Path(name).read_text().strip()
        except OSError:
            continue
        if found:
            return found
    return ""


@cache
def _pid_namespace() -> str:
    # A pid means something else in each namespace. Its inode is read, not followed.
    try:
        return str(os.readlink("/proc/self/ns/pid")).removeprefix("pid:[").removesuffix("]")  # noqa: PTH115
    except OSError:
        return ""
