"""A project in a temporary folder, and the command line called inside this process or as a process of its
own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from outlast.definition import registry

REPOSITORY = Path(__file__).resolve().parents[2]

WORKFLOWS = '''
"""Workflows of the tests of the command line."""

import logging
import os
from decimal import Decimal

from outlast import Retry, continue_as_new, emit, publish, sleep, step, wait_signal, workflow


@step
def double(number: int) -> int:
    return number * 2


@step(retry=Retry(2, initial="1ms"))
def explode(text: str) -> None:
    raise ValueError(text)


@step
def take(thing: str) -> str:
    return f"took {thing}"


@take.compensation
def give_back(taken: str | None, thing: str) -> None:
    pass


@workflow
def add(a: int, b: int = 1, *, note: str = "") -> dict[str, object]:
    """Double a, add b."""
    publish("progress", {"at": 50})
    emit("log", "begin")
    emit("log", "end")
    return {"sum": double(a) + b, "note": note, "price": Decimal("1.50")}


@workflow
def fails(text: str = "no luck") -> None:
    """Fail with a text."""
    explode(text)


@workflow(on_error="halt")
def halts() -> None:
    """Fail, and stay."""
    explode("for a person")


@workflow
def undone(thing: str = "a lamp") -> None:
    """Take something, then fail."""
    take(thing)
    explode("after taking")


@workflow(queue="default", timeout="1d")
def waits(name: str = "go") -> object:
    """Wait for a signal."""
    take("a seat")
    return wait_signal(name)


@step(on_unknown="halt")
def risks(number: int) -> int:
    if not os.path.exists("crashed"):
        open("crashed", "w").close()
        os.kill(os.getpid(), 9)
    return number


@workflow
def risky(number: int = 1, submitted: bool = False) -> int:
    """Take its agent down, once."""
    return risks.submit(number).result() if submitted else risks(number)


@workflow
async def risky_later(number: int = 1) -> int:
    """The same in async code."""
    return await risks.aio(number)


@step
def says(number: int) -> None:
    logging.getLogger("shop").info("number %s", number)


@workflow
def endless(number: int = 1, until: int = 3) -> int:
    """Go on as new runs."""
    double.submit(number).result()
    publish("number", number)
    emit("numbers", number)
    says(number)
    emit("numbers", 10 * number)
    if number < until:
        continue_as_new(number + 1, until)
    return number


@workflow
def naps() -> None:
    sleep("1h")


@workflow
def talks() -> str:
    """Print, as a program would."""
    print("printed")
    os.system("echo echoed")
    return "value"


@workflow
def parent(a: int) -> object:
    """Start a child."""
    return add(a)
'''


@dataclass
class Result:
    """What a call of the command line has led to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The JSON object of an error; the code in it must be the exit code."""
        found: dict[str, Any] = json.loads(self.err.splitlines()[-1])
        assert found["exit_code"] == self.code
        assert set(found["error"]) == {"type", "message", "hint"}
        return found["error"]  # type: ignore[no-any-return]


Call = Callable[..., Result]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder: a project with workflows, and no database yet."""
    for name in list(os.environ):
        if name.startswith("OUTLAST_") or name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name)
    (tmp_path / "pyproject.toml").write_text("[tool.outlast]\n")
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "flows.py").write_text(WORKFLOWS)
    monkeypatch.chdir(tmp_path)
    modules, path = dict(sys.modules), list(sys.path)
    with registry.isolated():
        yield tmp_path
    for name, module in list(sys.modules.items()):
        if name not in modules and str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
    sys.modules.pop("workflows", None)
    sys.path[:] = path


@pytest.fixture
def outlast(project: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Call]:
    """Call the command line in this process."""
    from outlast.cli.main import call

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        code = call(arguments)
        out, err = capsys.readouterr()
        return Result(code, out, err)

    before = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def process(project: Path) -> Call:
    """Call the command line as a process of its own."""

    def run(*arguments: str, program: tuple[str, ...] = ("-m", "outlast"), stdin: str = "", **environ: str) -> Result:
        done = subprocess.run(
            [sys.executable, *program, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env=environment(**environ),
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run


def environment(**more: str) -> dict[str, str]:
    """The environment of a process: this checkout's engine, and nothing else of ours."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("OUTLAST_")}
    return {**found, "PYTHONPATH": str(REPOSITORY / "engine"), **more}


@pytest.fixture
def started(outlast: Call) -> str:
    """The id of a run that nobody works on."""
    return outlast("start", "waits").out.strip()
