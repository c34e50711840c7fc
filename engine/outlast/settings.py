"""Where things are and how they are set: the root, the file and the settings, by one rule for code and CLI.

Owns the order in which a setting is looked for: an explicit option, an `OUTLAST_…` variable, `[tool.outlast]`
of the nearest `pyproject.toml` upwards, the default. Refuses a bad value and an unknown key in one sentence
that says where it came from: a misspelt `leese` would otherwise be a lease of 30 s that nobody asked for.
Nothing is cached: tests and notebooks change folders.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, cast

from .errors import InvalidInput
from .text.duration import seconds

Durability = Literal["full", "normal"]

DATABASE_VARIABLE = "OUTLAST_DB"
APP_VARIABLE = "OUTLAST_APP"
HOME_VARIABLE = "OUTLAST_HOME"
"""Set by the launcher of a checkout: the folder that stands for the current one when root, file and code are
looked for.
"""
DATABASE_NAME = "outlast.db"


@dataclass(frozen=True, slots=True)
class Settings:
    """How an engine and its agents behave. Made by `resolve`; the defaults are the documented ones."""

    lease_seconds: float = 30.0
    """An agent's right to a task; renewed every third of it."""
    grace_seconds: float = 20.0
    """How long a drain, and code that unwinds, may take."""
    park_after_seconds: float = 1.0
    """A wait known to be longer parks at once; others after this long."""
    hang_limit_seconds: float = 60.0
    """`up` kills a child that has been silent for this long."""
    max_payload: int = 1024 * 1024
    """Bytes of one encoded value."""
    max_crashes: int = 5
    """Crashes while alone, after which a task is halted."""
    max_entries: int = 50_000
    """Entries in one journal, over which its run is halted."""
    retention_seconds: float = 30 * 86_400.0
    """How long completed and cancelled runs, and ticks, are kept."""
    durability: Durability = "full"
    """With "full" every commit is fsynced; with "normal" the last ones can be lost with the power."""
    allow_network: bool = False
    """Open a file on a network file system, whose locks you know to work."""


def resolve(
    given: Mapping[str, object] | None = None,
    *,
    cwd: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """The settings for this place.

    `given` are explicit options, by their documented names; None counts as not given. Raises `InvalidInput`
    for a bad value or an unknown name, and says where it came from.
    """
    environ = os.environ if environ is None else environ
    project = read_project(find_root(cwd))
    explicit = given or {}
    for name in explicit:
        if name not in _READERS:
            raise InvalidInput(f"There is no setting {name!r}.", hint=_suggestion(name, _READERS))
    values: dict[str, Any] = {}
    for name, (field, read) in _READERS.items():
        variable = f"OUTLAST_{name.upper()}"
        if explicit.get(name) is not None:
            values[field] = read(explicit[name], name)
        elif environ.get(variable):
            values[field] = read(environ[variable], f"${variable}")
        elif name in project.table:
            values[field] = read(project.table[name], f"{name} in [tool.outlast] of {project.file}")
    return Settings(**values)


def misspelt_variables() -> dict[str, str]:
    """Variables of the environment that nobody reads, by the one that was probably meant."""
    known = ["DB", "APP", *(name.upper() for name in _READERS)]
    found = {}
    for variable in os.environ:
        name = variable.removeprefix(_PREFIX)
        if variable.startswith(_PREFIX) and name not in (*known, *_OF_THE_PROGRAM):
            # What resembles none of ours is somebody else's.
            close = get_close_matches(name, known, n=1, cutoff=0.75)
            if close:
                found[variable] = _PREFIX + close[0]
    return found


_PREFIX = "OUTLAST_"
_OF_THE_PROGRAM = ("DEBUG", "HOME", "LIVENESS_FD", "LIVENESS_HANG", "PYTHONPATH")


def find_root(cwd: str | Path | None = None) -> Path:
    """The folder of the nearest `pyproject.toml` upwards from `cwd`; where there is none, `cwd` itself."""
    start = absolute(cwd or ".")
    for folder in (start, *start.parents):
        if (folder / "pyproject.toml").is_file():
            return folder
    return start


def database_path(
    argument: str | os.PathLike[str] | None = None,
    *,
    cwd: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> str:
    """The file to use, absolute; or the URL of a server, as given.

    The argument, `$OUTLAST_DB`, `db` in `[tool.outlast]` (relative to that file), else `outlast.db` at the
    root. Raises `InvalidInput` for what can be no file. Creates nothing.
    """
    environ = os.environ if environ is None else environ
    folder = absolute(cwd or ".")
    if argument is not None:
        given = os.fspath(argument) if isinstance(argument, os.PathLike) else argument
        return _located(given, folder, "The database")
    if environ.get(DATABASE_VARIABLE):
        return _located(environ[DATABASE_VARIABLE], folder, f"${DATABASE_VARIABLE}")
    root = find_root(folder)
    project = read_project(root)
    if "db" in project.table:
        return _located(project.table["db"], root, f"db in [tool.outlast] of {project.file}")
    return str(root / DATABASE_NAME)


@dataclass(frozen=True, slots=True)
class Project:
    """`[tool.outlast]` of one `pyproject.toml`; an empty table where there is none."""

    file: Path
    table: Mapping[str, object]


def read_project(root: Path) -> Project:
    """Read the table. Raises `InvalidInput`, which names the file, if it is broken or has an unknown key."""
    file = root / "pyproject.toml"
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Project(file, {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read: {error}.") from error
    tool = document.get("tool", {})
    table = tool.get("outlast", {}) if isinstance(tool, dict) else tool
    if not isinstance(table, dict):
        raise InvalidInput(f"[tool.outlast] of {file} must be a table, not {table!r}.")
    known = ["app", "db", *_READERS]
    for key in table:
        if key not in known:
            raise InvalidInput(f"[tool.outlast] of {file} has an unknown key {key!r}.", hint=_suggestion(key, known))
    return Project(file, table)


def absolute(path: str | Path) -> Path:
    """The path without `..`, from the current folder; symbolic links are left as they are."""
    return Path(os.path.normpath(Path(path).absolute()))


def _located(value: object, folder: Path, place: str) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise InvalidInput(f"{place} must be the path of a file, not {value!r}.")
    if "://" in value:
        return value
    if value == ":memory:":
        raise InvalidInput(
            f"{place} cannot be in memory: other processes could not see it, and no crash would be outlived.",
            hint="Name a file; tests can use a temporary one.",
        )
    # Not resolved: a symbolic link is followed by SQLite itself, which keeps its locks under the true name.
    return os.path.normpath(folder / Path(value).expanduser())


def _suggestion(name: object, known: Mapping[str, object] | list[str]) -> str:
    close = get_close_matches(str(name), known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known are {', '.join(known)}."


def _positive_duration(value: object, place: str) -> float:
    length = _any_duration(value, place)
    if length == 0:
        raise InvalidInput(f"{place} must be more than 0 s.")
    return length


def _hang_limit(value: object, place: str) -> float:
    """An agent says that it lives twice a second, at best."""
    length = _any_duration(value, place)
    if length < 1:
        raise InvalidInput(f"{place} must be at least 1 s, not {value!r}: an agent that is alive may be silent for so long.")
    return length


def _lease(value: object, place: str) -> float:
    """It is renewed three times: what is shorter would be lost by who merely waits for the disk."""
    length = _any_duration(value, place)
    if length < 0.1:
        raise InvalidInput(f"{place} must be at least 100 ms, not {value!r}: an agent that is alive may take as long to renew it.")
    return length


def _any_duration(value: object, place: str) -> float:
    return seconds(cast(Any, value), place=place)


def _count(value: object, place: str) -> int:
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9][0-9_,]{0,18}\s*", value):
        value = int(value.replace("_", "").replace(",", ""))
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
        raise InvalidInput(f"{place} must be a whole number of at least 1, not {value!r}.")
    return value


_SIZES = {
    "": 1,
    "b": 1,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
}


def _bytes(value: object, place: str) -> int:
    if isinstance(value, str):
        found = re.fullmatch(r"\s*([0-9][0-9_]{0,15})\s*([a-z]*)\s*", value.lower())
        if found and found[2] in _SIZES:
            value = int(found[1].replace("_", "")) * _SIZES[found[2]]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= 1_000_000_000:
        # SQLite refuses a longer value.
        raise InvalidInput(f'{place} must be a number of bytes up to 1,000,000,000, or as "4 MiB", not {value!r}.')
    return value


def _durability(value: object, place: str) -> str:
    text = value.strip().lower() if isinstance(value, str) else value
    if text not in ("full", "normal"):
        raise InvalidInput(f"{place} must be 'full' or 'normal', not {value!r}.")
    return str(text)


def _flag(value: object, place: str) -> bool:
    known = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in known:
        return known[value.strip().lower()]
    raise InvalidInput(f"{place} must be true or false, not {value!r}.")


_READERS: dict[str, tuple[str, Callable[[object, str], object]]] = {
    "lease": ("lease_seconds", _lease),
    "grace": ("grace_seconds", _any_duration),
    "park_after": ("park_after_seconds", _any_duration),
    "hang_limit": ("hang_limit_seconds", _hang_limit),
    "max_payload": ("max_payload", _bytes),
    "max_crashes": ("max_crashes", _count),
    "max_entries": ("max_entries", _count),
    "retention": ("retention_seconds", _positive_duration),
    "durability": ("durability", _durability),
    "allow_network": ("allow_network", _flag),
}
"""By documented name: the field, and how its value is read."""
