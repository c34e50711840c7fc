"""The node: real processes that are killed, hang, drain and are orphaned."""

from __future__ import annotations

import faulthandler
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from node_fakes import commands

from outlast import liveness
from outlast import operations as op
from outlast.errors import StoreReplaced
from outlast.liveness import FD_VARIABLE, HANG_VARIABLE, Pulse
from outlast.node import Node
from outlast.node.child import Place, describe_exit
from outlast.node.command import child_environ
from outlast.node.reload import SourceWatch
from outlast.settings import Settings
from outlast.store.process import this_process
from outlast.store.sqlite import SqliteStore

pytestmark = pytest.mark.crash

FAKES = Path(__file__).with_name("node_fakes.py")


def eventually(fact: Callable[[], Any], seconds: float = 15.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := fact()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.005)
    return found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "app.db", create=True)
    yield opened
    opened.close()


class Running:
    """A node in a thread of this process."""

    def __init__(self, store: SqliteStore, mode: str, settings: Settings, **options: Any) -> None:
        self.events: list[tuple[float, str]] = []
        self.store = store
        options.setdefault("command", commands(store.path, mode))
        self.node = Node(store.path, [], settings, on_event=self.hear, **options)
        self.code: int | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.code = self.node.run()
        except StoreReplaced as error:
            self.hear(str(error))

    def hear(self, text: str) -> None:
        self.events.append((time.monotonic(), text))

    def said(self, part: str) -> list[str]:
        return [text for _, text in list(self.events) if part in text]

    def live(self) -> list[int]:
        query = "select pid from outlast_agent where status in ('active', 'draining') order by id"
        return [row[0] for row in self.store.connection().execute(query)]

    def stop(self) -> None:
        if self.thread.is_alive():
            self.node.stop()
            self.thread.join(20)
        assert not self.thread.is_alive()


@pytest.fixture
def run_node(store: SqliteStore) -> Iterator[Callable[..., Running]]:
    begun: list[Running] = []

    def run(mode: str = "plain", settings: Settings | None = None, **options: Any) -> Running:
        begun.append(Running(store, mode, settings or Settings(), **options))
        return begun[-1]

    yield run
    for running in begun:
        running.stop()
    assert psutil.Process().children(recursive=True) == []


def rows(store: SqliteStore, query: str) -> list[tuple[Any, ...]]:
    return list(store.connection().execute(query))


def start(store: SqliteStore, uid: str = "run1") -> None:
    store.commit(op.Start(uid, "run", "w", "workflow:w", "default", b"[]", chain=uid))


def test_a_node_whose_file_was_replaced_ends_and_starts_nobody_on_the_other(store: SqliteStore, run_node: Callable[..., Running]) -> None:
    running = run_node("claims", agents=1)
    eventually(running.live)
    Path(store.path).unlink()
    eventually(lambda: not running.thread.is_alive(), 5)
    assert len(running.said("agent 1 started")) == 1
    assert running.said("was removed while this process had it open")
    assert running.code is None


def test_a_killed_agent_is_replaced_at_once_and_its_tasks_go_back(store: SqliteStore, run_node: Callable[..., Running]) -> None:
    start(store)
    running = run_node("claims", agents=1)
    eventually(lambda: rows(store, "select 1 from outlast_task where status = 'running'"))
    (pid,) = running.live()
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: rows(store, "select 1 from outlast_task where status = 'pending' and suspect = 1"))
    assert time.monotonic() - began < 0.5
    eventually(lambda: running.said("gave back w run1"))
    assert running.said(f"agent 1 (pid {pid}) was killed by SIGKILL; replaced")
    eventually(lambda: running.live() not in ([], [pid]))
    started = [at for at, text in running.events if "agent 1 started" in text]
    assert started[1] - began < 0.5
    assert rows(store, f"select status from outlast_agent where pid = {pid}") == [("crashed",)]


def test_the_delay_grows_only_for_one_that_keeps_dying_young() -> None:
    place = Place("agent 1", 1)
    assert [place.delay_after(1.0) for _ in range(8)] == [0.0, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert place.delay_after(60.0) == 0.0
    assert place.delay_after(0.1) == 0.0


def test_a_child_that_cannot_start_is_tried_later_and_later(run_node: Callable[..., Running]) -> None:
    running = run_node(agents=1, command=lambda number: ["false"])
    eventually(lambda: len(running.said("exited with 1")) >= 4)
    at = [moment for moment, text in running.events if "started" in text][:4]
    assert at[1] - at[0] < 0.15
    assert 0.2 <= at[2] - at[1] < 0.4
    assert 0.4 <= at[3] - at[2] < 0.7


def test_a_command_that_does_not_exist_is_said_and_tried_again(run_node: Callable[..., Running]) -> None:
    running = run_node(agents=1, command=lambda number: ["/no/such/program"])
    eventually(lambda: len(running.said("agent 1 could not be started: No such file")) >= 3)


def test_a_child_that_stops_beating_is_killed_and_counts_as_a_crash(store: SqliteStore, run_node: Callable[..., Running]) -> None:
    running = run_node("hangs", Settings(hang_limit_seconds=1.0), agents=1)
    eventually(lambda: running.said("it hung for"))
    pid = int(running.said("it hung for")[0].split("pid ")[1].split(")")[0])
    eventually(lambda: rows(store, f"select 1 from outlast_agent where pid = {pid} and status = 'crashed'"))
    assert not psutil.pid_exists(pid)
    assert rows(store, "select * from outlast_stray") == []


def test_a_child_that_hangs_with_the_write_lock_is_killed_without_the_database(
    store: SqliteStore, run_node: Callable[..., Running]
) -> None:
    running = run_node("locks", Settings(hang_limit_seconds=1.0), agents=1)
    eventually(lambda: running.said("it hung for"))
    eventually(lambda: rows(store, "select 1 from outlast_agent where status = 'crashed'"))


def test_the_lease_of_a_silent_child_is_renewed_until_the_hang_limit(store: SqliteStore, run_node: Callable[..., Running]) -> None:
    running = run_node("hangs", Settings(lease_seconds=2.0, hang_limit_seconds=60.0), agents=1, grace=0.1)
    eventually(running.live)
    first = rows(store, "select lease_until from outlast_agent")[0][0]
    eventually(lambda: rows(store, f"select 1 from outlast_agent where lease_until >= {first + 3_000_000}"))
    assert store.now() > first
    assert len(running.live()) == 1
    assert rows(store, "select status from outlast_agent") == [("active",)]


def test_a_silent_child_keeps_its_lease_while_it_drains(store: SqliteStore, run_node: Callable[..., Running]) -> None:
    running = run_node("hangs", Settings(lease_seconds=1.8, hang_limit_seconds=60.0), agents=1, grace=3.0)
    eventually(running.live)
    running.stop()
    assert running.said("has drained") or running.said("was killed by SIGTERM") or running.said("did not drain")
    assert not running.said("lost")
    assert rows(store, "select status from outlast_agent") == [("stopped",)]


def test_a_dead_child_is_replaced_while_the_file_is_locked(store: SqliteStore, run_node: Callable[..., Running]) -> None:
    running = run_node(agents=1)
    (pid,) = eventually(running.live)
    with store.transaction():
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(running.said("agent 1 started")) == 2, seconds=1.0)
    eventually(lambda: rows(store, f"select 1 from outlast_agent where pid = {pid} and status = 'crashed'"))


def test_stopping_lets_the_agents_leave_in_good_order(store: SqliteStore, run_node: Callable[..., Running]) -> None:
    running = run_node(agents=3)
    eventually(lambda: len(running.live()) == 3)
    running.stop()
    assert running.code == 143
    assert rows(store, "select distinct status from outlast_agent") == [("stopped",)]
    assert len(running.said("has drained and ended")) == 3


def test_an_agent_that_does_not_drain_in_time_is_killed_and_nobody_is_suspected(
    store: SqliteStore, run_node: Callable[..., Running]
) -> None:
    start(store)
    running = run_node("deaf", agents=1, grace=0.2)
    (pid,) = eventually(running.live)
    agent_id = rows(store, f"select id from outlast_agent where pid = {pid}")[0][0]
    assert store.commit(op.Claim(agent_id, 1, {"workflow:w": "f"}))
    running.stop()
    assert running.said("did not drain within 0.2 s")
    assert rows(store, "select status from outlast_agent") == [("stopped",)]
    assert rows(store, "select status, suspect from outlast_task") == [("pending", 0)]


def test_what_a_dead_child_left_behind_in_its_group_dies_with_it(store: SqliteStore, run_node: Callable[..., Running]) -> None:
    running = run_node("parent", agents=1)
    (pid,) = eventually(running.live)
    (left,) = eventually(lambda: psutil.Process(pid).children())
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not left.is_running() or left.status() == psutil.STATUS_ZOMBIE)


def make_suspect(store: SqliteStore) -> None:
    """A task whose agent died, of which the node knows nothing."""
    start(store, "poison")
    who = replace(this_process(), started="1")
    code = {"workflow:w": "f"}
    register = op.RegisterAgent("dead", who.host, who.boot_id, who.pid, who.started, 1, None, 10**12, code)
    agent_id = store.commit(register)
    assert store.commit(op.Claim(agent_id, 1, code))
    store.commit(op.AgentEnded(agent_id, "crashed", "", 5, True))


def test_suspects_get_an_agent_with_one_slot_beside_the_others(store: SqliteStore, run_node: Callable[..., Running]) -> None:
    running = run_node("plain", agents=1)
    eventually(running.live)
    make_suspect(store)
    eventually(lambda: running.said("solo agent started"))
    eventually(lambda: len(running.live()) == 2)


def test_a_solo_agent_that_finds_nothing_is_not_started_over_and_over(store: SqliteStore, run_node: Callable[..., Running]) -> None:
    make_suspect(store)
    running = run_node("solo", agents=1)
    eventually(lambda: running.said("solo agent started"))
    eventually(lambda: len(running.said("solo agent started")) == 2)
    first, second = (at for at, text in running.events if "solo agent started" in text)
    assert second - first >= 2.0


def test_agents_with_one_slot_need_no_solo_agent(store: SqliteStore, run_node: Callable[..., Running]) -> None:
    make_suspect(store)
    running = run_node("plain", agents=1, concurrency=1)
    eventually(running.live)
    threading.Event().wait(0.8)
    assert running.said("solo") == []


def test_a_reload_replaces_agents_one_for_one(store: SqliteStore, run_node: Callable[..., Running], tmp_path: Path) -> None:
    app = tmp_path / "flows"
    app.mkdir()
    (app / "one.py").write_text("x = 1\n")
    node = Node(store.path, [str(app)], Settings(), agents=1, reload=True, command=commands(store.path, "plain"))
    events: list[str] = []
    node._on_event = events.append
    thread = threading.Thread(target=node.run)
    thread.start()
    try:
        query = "select pid from outlast_agent where status = 'active'"
        ((old,),) = eventually(lambda: rows(store, query))
        (app / "one.py").write_text("x = 22\n")
        eventually(lambda: [pid for (pid,) in rows(store, query)] not in ([], [old]) and len(rows(store, query)) == 1)
        assert any("one.py changed; agents restart" in text for text in events)
        assert rows(store, f"select status from outlast_agent where pid = {old}") == [("stopped",)]
    finally:
        node.stop()
        thread.join(20)
    assert not thread.is_alive()


def test_new_code_that_does_not_come_up_leaves_the_old_agents(store: SqliteStore, run_node: Callable[..., Running], tmp_path: Path) -> None:
    app = tmp_path / "flows"
    app.mkdir()
    good = commands(store.path, "plain")
    node = Node(
        store.path,
        [str(app)],
        Settings(),
        agents=1,
        reload=True,
        command=lambda number: ["false"] if (app / "broken.py").exists() else good(number),
    )
    events: list[str] = []
    node._on_event = events.append
    thread = threading.Thread(target=node.run)
    thread.start()
    try:
        query = "select pid from outlast_agent where status = 'active'"
        ((old,),) = eventually(lambda: rows(store, query))
        (app / "broken.py").write_text("x =\n")
        eventually(lambda: any("the agent with the code as it was goes on" in text for text in events))
        assert rows(store, query) == [(old,)]
    finally:
        node.stop()
        thread.join(20)
    assert not thread.is_alive()


def test_a_source_watch_sees_files_that_change_come_and_go(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    (tmp_path / ".hidden").mkdir()
    watch = SourceWatch([str(tmp_path)], root=tmp_path)
    assert watch.changed() == []
    (tmp_path / "b.py").write_text("2")
    (tmp_path / ".hidden" / "c.py").write_text("3")
    assert watch.changed() == [str(tmp_path / "b.py")]
    (tmp_path / "a.py").unlink()
    assert watch.changed() == [str(tmp_path / "a.py")]


def test_a_source_watch_looks_at_no_module_of_the_engine() -> None:
    package = Path(liveness.__file__).parent
    assert not [path for path in SourceWatch([], root=package.parent)._seen if Path(path).is_relative_to(package)]


class Own:
    """A node in a process of its own, to be sent signals."""

    def __init__(self, store: SqliteStore, mode: str, **options: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(FAKES), "node", store.path, mode, json.dumps(options)],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(self.process.stdout)

    def end(self) -> None:
        """Whatever a failed test left."""
        for child in psutil.Process(self.process.pid).children() if self.process.poll() is None else []:
            child.kill()
        self.process.kill()
        self.process.wait()
        self.reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def children(self, count: int) -> list[psutil.Process]:
        def found() -> list[psutil.Process]:
            children = psutil.Process(self.process.pid).children()
            return children if len(children) == count else []

        children: list[psutil.Process] = eventually(found)
        return children


@pytest.fixture
def own_node(store: SqliteStore) -> Iterator[Callable[..., Own]]:
    begun: list[Own] = []

    def run(mode: str = "plain", **options: Any) -> Own:
        begun.append(Own(store, mode, **options))
        return begun[-1]

    yield run
    for own in begun:
        own.end()


def active(store: SqliteStore, count: int) -> bool:
    return len(rows(store, "select 1 from outlast_agent where status = 'active'")) == count


def are_gone(processes: list[psutil.Process]) -> bool:
    return all(not one.is_running() or one.status() == psutil.STATUS_ZOMBIE for one in processes)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_drains_ends_everything_and_shows_in_the_exit_code(
    store: SqliteStore, own_node: Callable[..., Own], signum: int, code: int
) -> None:
    own = own_node(agents=2)
    eventually(lambda: active(store, 2))
    children = own.children(2)
    own.process.send_signal(signum)
    assert own.process.wait(10) == code
    assert are_gone(children)
    assert rows(store, "select distinct status from outlast_agent") == [("stopped",)]


def test_children_are_out_of_the_terminals_reach(store: SqliteStore, own_node: Callable[..., Own]) -> None:
    own = own_node(agents=2)
    children = own.children(2)
    groups = {os.getpgid(child.pid) for child in children}
    assert groups == {child.pid for child in children}


def test_a_second_signal_kills_at_once(store: SqliteStore, own_node: Callable[..., Own]) -> None:
    own = own_node("deaf", agents=2, grace=60)
    eventually(lambda: active(store, 2))
    children = own.children(2)
    own.process.send_signal(signal.SIGTERM)
    own.reader.join(0.3)
    assert own.process.poll() is None
    began = time.monotonic()
    own.process.send_signal(signal.SIGINT)
    assert own.process.wait(10) == 143
    assert time.monotonic() - began < 3.0
    assert are_gone(children)


def test_the_children_of_a_killed_node_end(store: SqliteStore, own_node: Callable[..., Own]) -> None:
    own = own_node(agents=2)
    eventually(lambda: active(store, 2))
    children = own.children(2)
    own.process.kill()
    eventually(lambda: are_gone(children))
    assert rows(store, "select distinct status from outlast_agent") == [("stopped",)]


def test_an_idle_node_uses_hardly_any_processor_time(store: SqliteStore, own_node: Callable[..., Own]) -> None:
    own = own_node(agents=2)
    eventually(lambda: active(store, 2))
    process = psutil.Process(own.process.pid)
    before = process.cpu_times()
    threading.Event().wait(2.0)
    after = process.cpu_times()
    assert after.user + after.system - before.user - before.system <= 0.06


def test_a_pulse_without_a_node_does_nothing() -> None:
    pulse = Pulse({})
    assert pulse.beat()
    assert not pulse.has_node
    pulse.close()


def test_the_timer_that_ends_a_hung_child_is_put_off_whatever_a_step_makes_of_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    put_off: list[float] = []
    now = 0.0

    def later(seconds: float, **options: Any) -> None:
        faulthandler.dump_traceback_later(seconds, **options)
        put_off.append(now)

    timers = SimpleNamespace(dump_traceback_later=later, cancel_dump_traceback_later=faulthandler.cancel_dump_traceback_later)
    monkeypatch.setattr(liveness, "faulthandler", timers)
    monkeypatch.setattr(liveness, "time", SimpleNamespace(monotonic=lambda: now))
    read, write = os.pipe()
    pulse = Pulse({FD_VARIABLE: str(write), HANG_VARIABLE: "60"})
    try:
        for stderr in (sys.stderr, None, io.StringIO()):
            now += 11
            with monkeypatch.context() as step:
                step.setattr(sys, "stderr", stderr)
                pulse.beat()
    finally:
        pulse.close()
        os.close(read)
    assert put_off == [0, 11, 22, 33]


def test_a_child_finds_the_standard_library_before_the_files_of_the_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "src"), "/usr/lib/python", "/elsewhere"])
    environ = child_environ(Settings(), grace_seconds=1)
    # An app's own `random.py` would else come into every module that the child runs on.
    assert environ["PYTHONPATH"].split(os.pathsep) == ["/usr/lib/python", "/elsewhere", str(tmp_path), str(tmp_path / "src")]


@pytest.mark.parametrize("before", ["/somewhere", None])
def test_what_a_step_of_a_child_starts_does_not_find_the_modules_of_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "tells.py").write_text(
        "import os\nfrom outlast import step, workflow\n@step\ndef path():\n    return os.environ.get('PYTHONPATH')\n"
        "@step(isolate=True)\ndef isolated_path():\n    return os.environ.get('PYTHONPATH')\n"
        "@workflow\ndef tells():\n    return [path(), isolated_path()]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", before) if before else monkeypatch.delenv("PYTHONPATH", raising=False)
    told = subprocess.run(
        [sys.executable, "-P", "-m", "outlast", "run", "tells", "--json"],
        env=child_environ(Settings(), grace_seconds=1), stdout=subprocess.PIPE, check=True, timeout=60,
    )  # fmt: skip
    assert json.loads(told.stdout) == [before, before]


def test_a_pulse_takes_its_pipe_out_of_the_environment() -> None:
    read, write = os.pipe()
    environ = {FD_VARIABLE: str(write)}
    pulse = Pulse(environ)
    assert environ == {}
    assert not os.get_inheritable(write)
    assert pulse.beat()
    assert pulse.beat()
    assert os.read(read, 10) == b"."
    pulse.close()
    assert os.read(read, 10) == b""
    os.close(read)


def test_exits_are_described_by_number_or_signal() -> None:
    assert describe_exit(0) == "exited with 0"
    assert describe_exit(-9) == "was killed by SIGKILL"
    assert describe_exit(-34 - 15) == "was killed by signal 49"
