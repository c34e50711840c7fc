"""Which code runs here: finding the workflow files, and importing each once under its real dotted name.

Owns the root on `sys.path`, the order in which the app is looked for (`--app`, `$OUTLAST_APP`, `app` in
`[tool.outlast]`, else `workflows/`, or `workflows.py`) and the sentence that says why a file cannot be imported. Refuses to
import a file under a second name: two copies of its classes would not be equal, and `except ThatError` would
not match.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from .definition import registry
from .definition.source import shown
from .errors import BrokenApp, FileMissing, InvalidInput, NotFound, OutlastError
from .settings import APP_VARIABLE, absolute, find_root, read_project

DEFAULT_APP = "workflows"

_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_PACKAGE = str(Path(__file__).parent)
_LIBRARY = str(Path(os.__file__).parent)

T = TypeVar("T")


def load(apps: Sequence[str] = (), *, cwd: str | Path | None = None, environ: Mapping[str, str] | None = None) -> registry.Registry:
    """Import the app and give what it defines.

    `apps` are modules (`pkg.mod`), files or folders; a package or a folder stands for all its modules. What
    is imported already is not imported again. Raises `BrokenApp` with file and line for code that cannot be
    imported, `FileMissing` or `NotFound` for what is not there; no app at all is an empty one.
    """
    environ = os.environ if environ is None else environ
    folder = absolute(cwd or ".")
    root = find_root(folder)
    places = _search(root)
    for name, near in _wanted(list(apps), folder, root, environ):
        _load_one(name, near, places)
    return registry.current()


def _search(root: Path) -> list[Path]:
    """Put the root and its `src` first on `sys.path`, and give both."""
    places = [place for place in (root, root / "src") if place.is_dir()]
    paths = [str(place) for place in places]
    sys.path[:] = [*paths, *(path for path in sys.path if path not in paths)]
    return places


def _wanted(apps: list[str], folder: Path, root: Path, environ: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """What to import, and the folder that it is relative to."""
    variable = environ.get(APP_VARIABLE, "")
    project = read_project(root)
    if apps:
        yield from ((app, folder) for app in apps)
    elif variable.strip():
        yield from ((app.strip(), folder) for app in re.split(f"[,{os.pathsep}]", variable) if app.strip())
    elif "app" in project.table:
        named = project.table["app"]
        names = [named] if isinstance(named, str) else named
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InvalidInput(f"app in [tool.outlast] of {project.file} must be a text or a list of them, not {named!r}.")
        yield from ((name, root) for name in names)
    elif (root / DEFAULT_APP).is_dir():
        yield DEFAULT_APP, root
    elif (root / f"{DEFAULT_APP}.py").is_file():
        # One file, before it is outgrown.
        yield f"{DEFAULT_APP}.py", root


def _load_one(name: str, near: Path, places: list[Path]) -> None:
    if not name.strip() or "\0" in name:
        raise InvalidInput(f"An app must be a module, a file or a folder, not {name!r}.")
    path = absolute(near / Path(name).expanduser())
    if path.is_file() and (path.suffix == ".py" or not _DOTTED.fullmatch(name)):
        _import_file(path, places)
    elif path.is_dir():
        _import_folder(path, places)
    elif name.endswith(".py") or "/" in name or os.sep in name:
        raise FileMissing(shown(str(path)), hint="An app is a module, a file or a folder.")
    elif not _DOTTED.fullmatch(name):
        raise NotFound(f"There is no app {name!r}.", hint="An app is a module, a file or a folder.")
    else:
        _import_module(name, places)


def _import_module(name: str, places: list[Path]) -> None:
    """Import a module by its dotted name; of a package all modules."""
    importlib.invalidate_caches()
    try:
        spec = _guarded(name, lambda: importlib.util.find_spec(name))
    except BrokenApp as error:
        if isinstance(error.__cause__, ModuleNotFoundError) and _names_it(error.__cause__, name):
            spec = None
        else:
            raise
    if spec is None:
        raise NotFound(
            f"There is no module, file or folder {name!r}.",
            hint=f"Looked in {' and '.join(shown(str(place)) for place in places)}, and on sys.path.",
        )
    _guarded(name, lambda: importlib.import_module(name))
    for folder in spec.submodule_search_locations or []:
        for file in _files(Path(folder)):
            _import_file(file, places, within=(Path(folder), name))


def _import_folder(folder: Path, places: list[Path]) -> None:
    for file in _files(folder):
        _import_file(file, places)


def _files(folder: Path) -> Iterator[Path]:
    """The Python files of a folder, in a stable order, without what is hidden and `__main__.py`."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise BrokenApp(f"{shown(str(folder))} cannot be read: {error.strerror}.") from error
    for path in paths:
        if path.name.startswith(".") or path.name in ("__pycache__", "__main__.py"):
            continue
        if path.is_dir() and not (path / "pyvenv.cfg").exists():
            yield from _files(path)
        elif path.suffix == ".py" and path.is_file():
            yield path


def _import_file(file: Path, places: list[Path], *, within: tuple[Path, str] | None = None) -> None:
    """Import a file under its real dotted name, unless it is imported already, as a script that runs is."""
    if _imported(file):
        return
    name = _dotted_name(file, places) if within is None else _joined(within[1], _parts(file, within[0]))
    found = sys.modules.get(name)
    if found is not None:
        raise BrokenApp(
            f"{shown(str(file))} would be the module {name!r}, which is {_origin(found)} already.",
            hint="Rename the file.",
        )
    importlib.invalidate_caches()
    if _importable(name, file):
        _guarded(name, lambda: importlib.import_module(name), file)
    else:
        _guarded(name, lambda: _execute(name, file), file)


def _dotted_name(file: Path, places: list[Path]) -> str:
    """The name that `import` would use: from the root, `src`, or above the file's topmost package."""
    for path in (file, file.resolve()):
        for place in reversed(places):
            if path.is_relative_to(place):
                return _joined("", _parts(path, place)) or _sane(place.name)
    top = file.parent
    while (top / "__init__.py").exists() and top != top.parent:
        top = top.parent
    if str(top) not in sys.path:
        sys.path.append(str(top))
    return _joined("", _parts(file, top)) or _sane(top.name)


def _parts(file: Path, place: Path) -> list[str]:
    parts = list(file.relative_to(place).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


def _joined(package: str, parts: list[str]) -> str:
    return ".".join(filter(None, [package, *map(_sane, parts)]))


def _sane(part: str) -> str:
    """An identifier for a file that has an odd name: `01-orders` becomes `_01_orders`."""
    identifier = re.sub(r"\W", "_", part)
    return identifier if identifier[:1].isidentifier() else f"_{identifier}"


def _imported(file: Path) -> bool:
    for module in list(sys.modules.values()):
        known = getattr(module, "__file__", None)
        if isinstance(known, str) and Path(known).name == file.name and _same_file(known, file):
            return True
    return False


def _importable(name: str, file: Path) -> bool:
    """Whether `import name` would find this very file."""
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        return not _names_it(error, name)
    except (Exception, SystemExit):  # noqa: BLE001 - a package above it is broken; importing it tells where
        return True
    return spec is not None and spec.origin is not None and _same_file(spec.origin, file)


def _execute(name: str, file: Path) -> None:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError("it is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise


def _guarded(name: str, action: Callable[[], T], file: Path | None = None) -> T:
    """Do it; what the app's code raises becomes one sentence with its file and line."""
    try:
        return action()
    except BrokenApp:
        raise
    except SyntaxError as error:
        where = shown(error.filename) if error.filename else shown(str(file or name))
        raise BrokenApp(f"{where}, line {error.lineno or 1}: {_one_line(error.msg)}.") from error
    except SystemExit as error:
        raise BrokenApp(
            f"{_where(error, name, file)}: it exits when it is imported.",
            hint='Put what runs the program under `if __name__ == "__main__":`.',
        ) from error
    except OutlastError as error:
        raise BrokenApp(f"{_where(error, name, file)}: {_one_line(error.message)}", hint=error.hint) from error
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        # Code that is imported may raise any class, as pytest's `skip` does; the end by a signal is ours.
        if not isinstance(error, Exception) and type(error).__module__.startswith(f"{__package__}."):
            raise
        text = _one_line(_said(error)).rstrip(".")
        kind = type(error).__name__
        raise BrokenApp(f"{_where(error, name, file)}: {f'{kind}: {text}' if text else kind}.") from error


def _said(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a `__str__` that raises
        return ""


def _where(error: BaseException, name: str, file: Path | None) -> str:
    """The innermost line of the app's own code that the error went through."""
    found = None
    traceback = error.__traceback__
    while traceback is not None:
        place = traceback.tb_frame.f_code.co_filename
        if not _is_foreign(place):
            found = f"{shown(place)}, line {traceback.tb_lineno}"
        traceback = traceback.tb_next
    return found or (shown(str(file)) if file is not None else f"Module {name}")


def _is_foreign(place: str) -> bool:
    return place.startswith(("<", _PACKAGE + os.sep, _LIBRARY + os.sep)) or "site-packages" in place


def _one_line(text: str) -> str:
    joined = " ".join(text.split())
    return joined if len(joined) <= 500 else f"{joined[:500]}…"


def _origin(module: ModuleType) -> str:
    file = getattr(module, "__file__", None)
    return shown(file) if isinstance(file, str) else "built into Python"


def _same_file(known: str, file: Path) -> bool:
    try:
        return file.samefile(known)
    except OSError:
        return False


def _names_it(error: ModuleNotFoundError, name: str) -> bool:
    """Whether the module or a package above it is what was not found; not something that it imports."""
    return error.name is not None and f"{name}.".startswith(f"{error.name}.")
