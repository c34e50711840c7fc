"""A process is told from every other, and its death is seen."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from outlast import clock
from outlast.clock import ManualClock
from outlast.store import process
from outlast.store.process import ProcessIdentity, is_alive, this_process

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def _identity_of(pid: int) -> ProcessIdentity:
    seen = process._look(pid)
    assert seen is not None
    return replace(this_process(), pid=pid, started=seen.started)


@pytest.fixture
def child():
    started = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    yield started
    started.kill()
    started.communicate()


def test_this_process_is_alive():
    assert is_alive(this_process()) is True


def test_a_running_child_is_alive_and_a_dead_one_is_not(child):
    identity = _identity_of(child.pid)
    assert is_alive(identity) is True
    child.kill()
    child.wait()
    assert is_alive(identity) is False


@linux
def test_a_zombie_is_dead(child):
    identity = _identity_of(child.pid)
    child.kill()
    with open(f"/proc/{child.pid}/stat") as file:
        while ") Z " not in file.read():
            file.seek(0)
    assert is_alive(identity) is False


def test_another_process_with_the_same_pid_is_not_it(child):
    assert is_alive(replace(_identity_of(child.pid), started="1")) is False


def test_an_earlier_boot_has_no_live_process():
    assert is_alive(replace(this_process(), boot_id="another")) is False
    with clock.use(ManualClock()) as manual:
        identity = this_process()
        assert is_alive(identity) is True
        manual.reboot(down_seconds=10)
        assert is_alive(identity) is False


def test_of_another_host_nothing_can_be_said():
    assert is_alive(replace(this_process(), host="elsewhere/0/1")) is None
    assert is_alive(replace(this_process(), host="elsewhere/0/1", boot_id="another")) is None


def test_of_another_container_nothing_can_be_said_until_the_machine_has_restarted():
    machine = this_process().host.rpartition("/")[0]
    other = replace(this_process(), host=f"{machine}/1")
    assert is_alive(other) is None
    assert is_alive(replace(other, boot_id="another")) is False


def test_a_process_without_a_known_start_is_not_taken_for_another():
    assert is_alive(replace(this_process(), started="")) is None


def test_a_name_with_parentheses_and_spaces_does_not_shift_the_fields():
    fields = " ".join(str(number) for number in range(4, 53))
    seen = process.parse_stat(f"42 (a) R (b c) S {fields}\n")
    assert seen.started == "22"
    assert not seen.is_dead
    assert process.parse_stat(f"42 (x) Z {fields}").is_dead
