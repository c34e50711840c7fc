"""What kind of file system a path is on, and the refusal of those whose locks cannot be trusted.

Owns the list of network file systems. SQLite's WAL needs shared memory and byte-range locks that every
process sees; over NFS, SMB and their like both fail silently, and the file is damaged weeks later. Refused by
default, allowed to whoever says so.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from ...errors import NetworkFileSystem

NETWORK = frozenset(
    (
        "9p",
        "acfs",
        "afpfs",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "gpfs",
        "glusterfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs3",
        "nfs4",
        "orangefs",
        "panfs",
        "prl_fs",
        "pvfs2",
        "smb2",
        "smb3",
        "smbfs",
        "vboxsf",
        "vmhgfs",
        "webdav",
        "fuse.ceph",
        "fuse.ceph-fuse",
        "fuse.cephfs",
        "fuse.davfs",
        "fuse.davfs2",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.goofys",
        "fuse.grpcfuse",
        "fuse.juicefs",
        "fuse.mount-s3",
        "fuse.osxfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "fuse.vmhgfs-fuse",
        "macfuse",
        "osxfuse",
        "sshfs",
    )
)


def kind_of(path: str | os.PathLike[str]) -> str:
    """The type of the file system that holds `path`, which need not exist yet; empty where unknown."""
    real = os.path.realpath(path)
    best, kind = "", ""
    for point, found in _mounts():
        # A later mount on the same point hides the earlier one.
        inside = point == "/" or real == point or real.startswith(point + "/")
        if inside and len(point) >= len(best):
            best, kind = point, found
    return kind


def refuse_network(path: str | os.PathLike[str], *, allow: bool) -> None:
    """Raise `NetworkFileSystem` where SQLite's locks cannot be trusted, unless `allow`."""
    if allow:
        return
    kind = kind_of(path)
    if kind in NETWORK:
        raise NetworkFileSystem(os.fspath(path), kind)


def _mounts() -> list[tuple[str, str]]:
    """Mount points and their types, in order of mounting."""
    try:
        text = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    except OSError:
        return _mounts_by_command() if sys.platform == "darwin" else []
    return parse_mountinfo(text)


def parse_mountinfo(text: str) -> list[tuple[str, str]]:
    """Read /proc/self/mountinfo: the fifth field is the mount point, the first after ` - ` the type."""
    found = []
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if separator and len(fields) >= 5 and rest:
            found.append((_unescape(fields[4]), rest[0]))
    return found


def parse_mount_command(text: str) -> list[tuple[str, str]]:
    """Read what `mount` prints on macOS: `//eve@host/share on /Volumes/share (smbfs, nodev, nosuid)`."""
    return [(match[1], match[2]) for match in re.finditer(r"^.*? on (.*) \(([\w.]+)[,)].*$", text, re.MULTILINE)]


def _mounts_by_command() -> list[tuple[str, str]]:
    try:
        done = subprocess.run(["/sbin/mount"], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_mount_command(done.stdout)


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
