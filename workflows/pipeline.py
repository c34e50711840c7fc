"""A pipeline for a git repository: check out, run a matrix of commands side by side, ask, deploy, roll back if need be.

    outlast start pipeline repository=. checks:='[{"name": "lint", "command": "ruff check ."}]' --key build-1
    outlast logs pipeline:build-1 --follow
    outlast signal pipeline:build-1 approval '{"by": "eve"}'

Each command runs in a process group of its own that a timeout or a cancel kills at once, grandchildren included; what it
prints can be followed while it runs. A check that fails lets the others end first. A deploy is a folder `releases/<commit>`
and a link `current` that moves to it at once; when the command that looks after it fails, the link moves back.
All folders are below `$PIPELINE_FOLDER`, or `pipeline/` where the agents run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from outlast import Fail, Retry, current, gather, publish, step, wait_signal, workflow

TAIL = 20
"""Lines of a command's output that are kept with its outcome; all of them are in the log."""


@dataclass(frozen=True)
class Check:
    name: str
    command: str
    timeout: str = "10m"


@dataclass(frozen=True)
class Approval:
    """The payload of the signal `approval`."""

    by: str
    granted: bool = True


@dataclass(frozen=True)
class Passed:
    """What a check that passed took, and the last that it said."""

    seconds: float
    tail: str


@dataclass(frozen=True)
class Source:
    """A checkout."""

    folder: str
    commit: str


@dataclass(frozen=True)
class Deployed:
    commit: str
    previous: str | None
    approved_by: str


class ChecksFailed(Exception):
    """Some checks did not pass."""


class Refused(Exception):
    """A person said no."""


@workflow(timeout="7d")
def pipeline(
    repository: str,
    checks: list[Check],
    revision: str = "HEAD",
    site: str = "site",
    after: str | None = None,
    approval_within: str = "2d",
) -> Deployed:
    """Check a revision out, run the checks side by side, ask for an approval, deploy; `after` is a command that must then succeed."""
    publish("state", "checking out")
    source = check_out(repository, revision)
    publish("state", f"checking {source.commit[:12]}")
    outcomes = gather(*[run_check.options(timeout=check.timeout).submit(source.folder, check) for check in checks], return_exceptions=True)
    failed = {check.name: outcome for check, outcome in zip(checks, outcomes, strict=True) if isinstance(outcome, BaseException)}
    publish("checks", {check.name: "failed" if check.name in failed else "passed" for check in checks})
    if failed:
        raise ChecksFailed("; ".join(f"{name}: {str(error).splitlines()[0]}" for name, error in failed.items()))
    publish("state", "waits for an approval")
    approval = wait_signal("approval", Approval, timeout=approval_within)
    if not approval.granted:
        raise Refused(f"{approval.by} refused {source.commit[:12]}.")
    publish("state", "deploying")
    previous = released(site)
    deploy(source.folder, source.commit, site, previous)
    if after is not None:
        run_check(str(_folder() / site / "current"), Check("after the deploy", after))
    clear(source.folder)
    publish("state", "deployed")
    return Deployed(source.commit, previous, approval.by)


@step(retry=Retry(3, initial="1s", unless=Fail), timeout="5m", isolate=True)
def check_out(repository: str, revision: str) -> Source:
    """A clone of the repository at a revision, in a folder of this run's own. A second try begins anew."""
    folder = _folder() / "sources" / current().run_id
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    origin = Path(repository).expanduser().resolve()
    if not origin.is_dir():
        raise Fail(f"{origin} is not a folder.")
    commit = _git("-C", str(origin), "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if commit is None:
        raise Fail(f"{origin} has no revision {revision!r}, or is not a git repository.")
    _run(["git", "clone", "--quiet", "--no-checkout", str(origin), str(folder)])
    _run(["git", "-C", str(folder), "checkout", "--quiet", "--detach", commit])
    return Source(str(folder), commit)


@check_out.compensation
def remove_checkout(source: Source | None, repository: str, revision: str) -> None:
    """The folder goes with a run that did not get to its end."""
    shutil.rmtree(_folder() / "sources" / current().run_id, ignore_errors=True)


@step(isolate=True)
def run_check(folder: str, check: Check) -> Passed:
    """Run a command by the shell; what it prints is printed here, and so in the run's log."""
    began = time.monotonic()
    lines: list[str] = []
    with subprocess.Popen(
        check.command, shell=True, cwd=folder, text=True, errors="replace", stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            print(f"{check.name}: {line.rstrip()}", flush=True)
            lines = [*lines[1 - TAIL :], line]
    tail = "".join(lines)[-4000:].rstrip()
    if process.returncode:
        raise Fail(f"{check.command!r} ended with {process.returncode}.\n{tail}".rstrip())
    return Passed(round(time.monotonic() - began, 3), tail)


@step
def released(site: str) -> str | None:
    """The commit that `current` points to. A step of its own, so that every try of the deploy knows what was there before the first."""
    link = _folder() / site / "current"
    return link.readlink().name if link.is_symlink() else None


@step(timeout="5m")
def deploy(folder: str, commit: str, site: str, previous: str | None) -> None:
    """Make the release and let `current` point to it. Repeating it changes nothing."""
    releases = _folder() / site / "releases"
    releases.mkdir(parents=True, exist_ok=True)
    if not (releases / commit).exists():
        building = releases / f".{commit}-{current().run_id}"
        shutil.rmtree(building, ignore_errors=True)
        shutil.copytree(folder, building, symlinks=True, ignore=shutil.ignore_patterns(".git"))
        building.rename(releases / commit)
    _point(site, commit)


@deploy.compensation(retry=Retry(10, initial="200ms"))
def roll_back(_: None, folder: str, commit: str, site: str, previous: str | None) -> None:
    """Let `current` point to what it did before, unless a later deploy has moved it since."""
    if released.fn(site) != commit:
        return
    if previous is not None:
        _point(site, previous)
    else:
        (_folder() / site / "current").unlink()


@step
def clear(folder: str) -> None:
    """Remove the checkout."""
    shutil.rmtree(folder, ignore_errors=True)


def _folder() -> Path:
    return Path(os.environ.get("PIPELINE_FOLDER", "pipeline")).resolve()


def _point(site: str, commit: str) -> None:
    new = _folder() / site / f".current-{os.getpid()}"
    new.unlink(missing_ok=True)
    new.symlink_to(Path("releases") / commit)
    new.rename(_folder() / site / "current")


def _git(*arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:2])} ended with {done.returncode}: {done.stderr.strip()}")
