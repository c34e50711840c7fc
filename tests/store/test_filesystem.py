"""Network file systems are told from local ones."""

from __future__ import annotations

import pytest

from outlast.errors import NetworkFileSystem
from outlast.store.connection import filesystem

MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:25 / /mnt/my\\040share rw,nosuid shared:9 - nfs4 server:/export rw,vers=4.2
31 22 0:26 / /data rw - autofs systemd-1 rw
32 31 0:27 / /data rw - cifs //server/share rw
33 32 0:28 / /data/local rw - xfs /dev/sdb1 rw
"""


@pytest.fixture
def mounts(monkeypatch):
    monkeypatch.setattr(filesystem, "_mounts", lambda: filesystem.parse_mountinfo(MOUNTINFO))


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/database/app.db", "ext4"),
        ("/mnt/my share/app.db", "nfs4"),
        ("/mnt/my", "ext4"),
        ("/data/app.db", "cifs"),
        ("/data/local/app.db", "xfs"),
    ],
)
def test_the_innermost_and_latest_mount_tells_the_kind(mounts, path, kind):
    assert filesystem.kind_of(path) == kind


def test_a_network_file_system_is_refused_by_name(mounts):
    with pytest.raises(NetworkFileSystem, match=r"\(nfs4\).*OUTLAST_ALLOW_NETWORK"):
        filesystem.refuse_network("/mnt/my share/app.db", allow=False)


def test_whoever_knows_better_may_use_one(mounts):
    filesystem.refuse_network("/mnt/my share/app.db", allow=True)


def test_a_local_file_system_passes(tmp_path):
    filesystem.refuse_network(tmp_path / "new.db", allow=False)


def test_the_mount_command_of_macos_is_read():
    text = "/dev/disk1s1 on / (apfs, local, journaled)\n//eve@nas/work on /Volumes/my work (smbfs, nodev)\n"
    assert filesystem.parse_mount_command(text) == [("/", "apfs"), ("/Volumes/my work", "smbfs")]
