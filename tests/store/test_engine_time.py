"""Engine time goes on through wall clock jumps and reboots, and is one for all processes."""

from __future__ import annotations

import pytest
from freezegun import freeze_time

from outlast import clock
from outlast.clock import SECOND, ManualClock
from outlast.store import engine_time
from outlast.store.connection import connect, transaction

TABLE = """
create table outlast_clock (
  one integer primary key check (one = 1), boot_id text not null, elapsed_offset integer not null,
  wall_at integer not null, engine_at integer not null
) strict
"""


@pytest.fixture
def manual():
    with clock.use(made := ManualClock()):
        yield made


@pytest.fixture
def connection(tmp_path):
    opened = connect(tmp_path / "app.db", create=True)
    opened.execute(TABLE)
    yield opened
    opened.close()


def _adopt(connection):
    with transaction(connection, None):
        return engine_time.load_or_adopt(connection)


def test_it_starts_equal_to_the_wall_clock(connection, manual):
    assert engine_time.load(connection) is None
    time = _adopt(connection)
    assert time.now() == manual.wall()
    assert time.skew() == 0


def test_it_advances_with_elapsed_time(connection, manual):
    time = _adopt(connection)
    began = time.now()
    manual.advance(90)
    assert time.now() - began == 90 * SECOND


@pytest.mark.parametrize("jump", [-3600, 86400])
def test_a_wall_clock_that_jumps_changes_nothing(connection, manual, jump):
    time = _adopt(connection)
    began = time.now()
    manual.jump(jump)
    assert time.now() == began
    assert time.skew() == jump * SECOND
    assert _adopt(connection).now() == began


def test_wall_instants_are_converted_by_the_skew_of_the_moment(connection, manual):
    time = _adopt(connection)
    due = time.now() + 60 * SECOND
    manual.jump(-3600)
    assert time.to_wall(due) == manual.wall() + 60 * SECOND
    assert time.from_wall(manual.wall() + 60 * SECOND) == due
    assert time.from_wall(time.to_wall(due)) == due


def test_processes_of_one_boot_agree(connection, manual, tmp_path):
    one = _adopt(connection)
    manual.advance(5)
    manual.jump(-500)
    other_connection = connect(tmp_path / "app.db", create=False)
    other = engine_time.load(other_connection)
    assert other is not None
    assert other.now() == one.now()
    assert _adopt(other_connection).offset == one.offset
    other_connection.close()


def test_a_reboot_adds_what_the_wall_clock_says_has_passed(connection, manual):
    time = _adopt(connection)
    manual.advance(100)
    time.record(connection)
    before = time.now()
    manual.reboot(down_seconds=600)
    assert not time.is_current()
    assert engine_time.load(connection) is None
    after = _adopt(connection)
    assert after.now() == before + 600 * SECOND
    assert engine_time.load(connection).offset == after.offset


def test_a_reboot_bridges_time_since_the_last_record_too(connection, manual):
    time = _adopt(connection)
    manual.advance(100)
    before = time.now()
    manual.reboot(down_seconds=1)
    assert _adopt(connection).now() == before + SECOND


def test_a_wall_clock_that_was_set_back_during_a_reboot_does_not_take_it_below_the_record(connection, manual):
    time = _adopt(connection)
    manual.advance(100)
    time.record(connection)
    before = time.now()
    manual.jump(-7200)
    manual.reboot(down_seconds=10)
    assert _adopt(connection).now() == before


def test_a_wall_clock_set_ahead_before_a_reboot_counts_only_since_the_record(connection, manual):
    time = _adopt(connection)
    manual.jump(86400)
    time.record(connection)
    before = time.now()
    manual.reboot(down_seconds=10)
    assert _adopt(connection).now() == before + 10 * SECOND


def test_a_process_of_an_earlier_boot_changes_no_record_of_this_one(connection, manual):
    old = _adopt(connection)
    manual.reboot(down_seconds=600)
    _adopt(connection)
    row = connection.execute(engine_time.SELECT).fetchone()
    old.record(connection)
    assert connection.execute(engine_time.SELECT).fetchone() == row


def test_the_second_of_two_processes_that_adopt_takes_over_what_the_first_wrote(connection, manual):
    _adopt(connection)
    manual.reboot(down_seconds=600)
    first = _adopt(connection)
    manual.jump(50)
    second = _adopt(connection)
    assert second.offset == first.offset


def test_where_no_file_names_the_boot_the_system_does_and_not_the_wall_clock(tmp_path):
    named = clock.read_boot_id(tmp_path / "none", ("/bin/echo", "5B0D-77"))

    with freeze_time("2031-01-01"):
        assert clock.read_boot_id(tmp_path / "none", ("/bin/echo", "5B0D-77")) == named == "5B0D-77"


def test_a_boot_has_a_name_where_the_system_does_not_tell_it(tmp_path):
    for command in [str(tmp_path / "none")], ["/bin/echo"], ["/bin/sh", "-c", "exit 1"]:
        assert clock.read_boot_id(tmp_path / "none", command).startswith("boot-")
