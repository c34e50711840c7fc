"""The show of `outlast demo`: two agents, an order, kill -9 in the middle, and the end that had to come.

Owns the processes that it starts, the words on the screen and the verdict. Refuses to claim success by
itself: it looks at the exit status of the process that it killed, at the run, and at what the bank and the
warehouse have written down.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OutlastError
from . import output
from .render import Cell, Line, print_lines
from .tree import is_over, run_lines

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore

_LONGEST_SECONDS = 30.0
_MORAL = """\
Process {pid} died with the card charged and nothing written. The other
agent went on from the journal: the reservation was not made again, and the
bank, asked with the same key, charged once. Shipping failed, so the card was
refunded and the item put back, in reverse order."""
_MODULE = f"{__package__}.demo_workflows"


def perform(*, keep: bool, as_json: bool) -> int:
    """The whole show. Gives 0 only if the kill landed and the order ended as it should."""
    folder = tempfile.mkdtemp(prefix="outlast-demo-")
    try:
        return _Show(folder, silent=as_json).perform()
    finally:
        if keep:
            output.note(f"The folder stays: {folder}; try `outlast show --db {folder}/outlast.db` with the run's id.")
        else:
            shutil.rmtree(folder, ignore_errors=True)


class _Show:
    def __init__(self, folder: str, *, silent: bool) -> None:
        self._folder = folder
        self._silent = silent
        self._began = time.monotonic()
        self._told = 0
        self._agents: list[subprocess.Popen[bytes]] = []

    def perform(self) -> int:
        from ..engine import Engine
        from ..settings import Settings
        from ..store.sqlite import SqliteStore
        from ..supervisor import Supervisor
        from ..views import find_run, show_json

        self._say(
            [
                (
                    "An order is a workflow: reserve an item, charge a card, ship it.",
                    "",
                )
            ]
        )
        path = str(Path(self._folder, "outlast.db"))
        with ExitStack() as stack:
            store = SqliteStore(path, create=True)
            stack.callback(store.close)
            output.note(f"Created {path}.")
            settings = Settings()
            stack.enter_context(self._agents_running(path, count=2))
            supervisor = Supervisor(store, settings, on_change=self._report)
            supervisor.start()
            stack.callback(supervisor.stop)
            self._wait_for_agents(store)
            run = self._start(Engine.over(store, settings))
            task_id, uid = find_run(store, run)
            self._say([("Started the order, run ", ""), (uid, "bold"), (".", "")])
            killed = self._kill_in_the_middle()
            self._until(lambda: is_over(show_json(store, task_id)), "the order did not end")
            self._tell_ledger()
            shown = show_json(store, task_id)
            problems = self._judge(shown, killed)
        if self._silent:
            output.document(
                {
                    "ok": not problems,
                    "problems": problems,
                    "killed_pid": killed.pid,
                    "run": shown,
                    "ledger": self._ledger(),
                }
            )
        else:
            self._conclude(shown, problems, killed)
        return output.FAILED if problems else 0

    def _start(self, engine: Any) -> str:
        from .demo_workflows import order

        started: str = engine.start(order, self._folder, "a lamp", 49).id
        return started

    @contextmanager
    def _agents_running(self, path: str, *, count: int) -> Iterator[None]:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("OUTLAST_")}
        # This package, wherever it was imported from, and this folder as the project: nothing of the caller's
        # matters.
        package = str(Path(__file__).resolve().parents[2])
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, [package, environ.get("PYTHONPATH", "")]))
        environ["OUTLAST_HOME"] = self._folder
        command = [
            sys.executable,
            "-m",
            "outlast",
            "agent",
            "--db",
            path,
            "--app",
            _MODULE,
            "--concurrency",
            "4",
        ]
        log = Path(self._folder, "agents.log").open("wb")  # noqa: SIM115 - closed below, after the agents
        try:
            for _ in range(count):
                self._agents.append(
                    subprocess.Popen(
                        command,
                        env=environ,
                        cwd=self._folder,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                    )
                )
            yield
        finally:
            log.close()
            for agent in self._agents:
                if agent.poll() is None:
                    agent.terminate()
            for agent in self._agents:
                try:
                    agent.wait(5)
                except subprocess.TimeoutExpired:
                    agent.kill()
                    agent.wait()

    def _wait_for_agents(self, store: SqliteStore) -> None:
        from ..views import agents_json

        pids = {agent.pid for agent in self._agents}
        self._until(lambda: pids <= {one["pid"] for one in agents_json(store)}, "the agents did not come up")
        self._say(
            [
                ("Two agents are up, ", ""),
                (", ".join(f"pid {pid}" for pid in sorted(pids)), "bold"),
                (".", ""),
            ]
        )

    def _kill_in_the_middle(self) -> subprocess.Popen[bytes]:
        """Kill the agent that waits for the bank: the card is charged, and nobody has written that down."""

        def waits() -> dict[str, Any] | None:
            self._tell_ledger()
            return next((line for line in self._ledger() if line["what"] == "charged"), None)

        charged = self._until(waits, "the bank was never asked")
        agent = next(agent for agent in self._agents if agent.pid == charged["pid"])
        self._say(
            [
                ("The bank has the money, and the step has not returned yet: the worst moment. ", ""),
                (f"kill -9 {agent.pid}", "bold red"),
            ]
        )
        agent.send_signal(signal.SIGKILL)
        agent.wait()
        return agent

    def _ledger(self) -> list[dict[str, Any]]:
        from .demo_workflows import ledger

        return ledger(self._folder)

    def _tell_ledger(self) -> None:
        for line in self._ledger()[self._told :]:
            self._told += 1
            words: list[Cell] = [
                (f"  {line['who']:<10}", "cyan"),
                (f"{line['what']} {line['which']}", ""),
                (f"  (pid {line['pid']})", "dim"),
            ]
            if line["what"] == "asked again":
                words.append(("  the same key: not charged twice", "green"))
            self._say(words)

    def _report(self, text: str) -> None:
        self._say([("  supervisor ", "yellow"), (text, "")])

    def _until(self, look: Callable[[], Any], problem: str) -> Any:
        deadline = time.monotonic() + _LONGEST_SECONDS
        while True:
            found = look()
            if found:
                return found
            self._tell_ledger()
            if time.monotonic() > deadline:
                raise OutlastError(f"The demo stopped: {problem} within {_LONGEST_SECONDS:g} s.", hint=self._last_words())
            time.sleep(0.02)

    def _last_words(self) -> str:
        lines = Path(self._folder, "agents.log").read_text(errors="replace").splitlines()
        return f"The agents' last line: {lines[-1]}" if lines else "The agents have said nothing."

    def _judge(self, shown: dict[str, Any], killed: subprocess.Popen[bytes]) -> list[str]:
        """What is not as it should be."""
        happened = [(line["who"], line["what"]) for line in self._ledger()]
        wanted = {
            ("warehouse", "reserved"): 1,
            ("bank", "charged"): 1,
            ("bank", "asked again"): 1,
            ("bank", "refunded"): 1,
            ("warehouse", "put back"): 1,
        }
        problems = [
            f"{who} {what} {happened.count((who, what))} times, not {count}"
            for (who, what), count in wanted.items()
            if happened.count((who, what)) != count
        ]
        if killed.returncode != -signal.SIGKILL:
            problems.append(f"the agent ended with {killed.returncode}, it was not killed")
        if shown["status"] != "compensated":
            problems.append(f"the run is {shown['status']}, not compensated")
        if shown["claim"] < 2:
            problems.append("the run was never taken over")
        ends = [what for _, what in happened if what in ("refunded", "put back")]
        if ends != ["refunded", "put back"]:
            problems.append("the undo did not go in reverse order")
        return problems

    def _conclude(self, shown: dict[str, Any], problems: list[str], killed: subprocess.Popen[bytes]) -> None:
        print_lines([[("", "")], *run_lines(shown), [("", "")]])
        if problems:
            print_lines([[("Not as it should be: ", "bold red"), ("; ".join(problems) + ".", "")]])
            return
        print_lines([[(text, "")] for text in _MORAL.format(pid=killed.pid).splitlines()])
        print_lines([[("Next: ", "bold"), ("outlast init", ""), ("  writes your first workflow.", "dim")]])

    def _say(self, line: Line) -> None:
        if not self._silent:
            print_lines([[(f"{time.monotonic() - self._began:5.1f} s  ", "dim"), *line]], hang=11)
            sys.stdout.flush()
