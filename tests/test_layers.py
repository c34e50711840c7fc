"""The layers of the package: imports go downwards only, roles do not know each other, and what no module may do."""

from __future__ import annotations

import ast
import re
import symtable
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import outlast

ROOT = Path(outlast.__file__).parent

LAYERS = (
    # 0: no I/O; the one place that reads the time.
    r"errors|clock|codec(\..+)?|text(\..+)?",
    # 1: pure; what a workflow file sees, and what the roles ask of a store, as values.
    r"states|model|handles|settings|caller|aio|durable"
    r"|operations(\..+)?|journal(\..+)?|signature(\..+)?|definition(\..+)?|timetable(\..+)?",
    # 2: SQL.
    r"store(\..+)?",
    # 3: the roles, and what happens inside a run.
    r"run(\..+)?|agent(\..+)?|scheduler(\..+)?|scheduling(\..+)?|starts|supervisor(\..+)?|loop|liveness",
    # 4: what people and programs hold in hand.
    r"engine(\..+)?|application|checking|doctor(\..+)?|why(\..+)?|node(\..+)?|child_path|views(\..+)?|testing(\..+)?|web(\..+)?",
    # 5: the command line, and the public names.
    r"cli(\..+)?|__main__|",
)

ROLES = (
    r"agent(\..+)?|run(\..+)?",
    r"scheduler(\..+)?",
    r"supervisor(\..+)?",
)

# Over 350 lines, each for a reason: one state machine or one table that would be harder to read in two places.
LONG = {
    "errors",
}


@cache
def modules() -> dict[str, Path]:
    """Every module by its name within the package; the package itself is ''."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text())


def test_every_module_has_one_layer() -> None:
    for name in modules():
        assert sum(bool(re.fullmatch(layer, name)) for layer in LAYERS) == 1, f"give {name!r} a layer"


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_imports_only_downwards(name: str) -> None:
    upwards = {other for other in imports(name) if layer_of(other) > layer_of(name)}
    assert not upwards, f"{name} (layer {layer_of(name)}) imports {sorted(upwards)}"


def test_roles_never_import_each_other() -> None:
    for name in modules():
        own = [role for role in ROLES if re.fullmatch(role, name)]
        foreign = [role for role in ROLES if role not in own] if own else []
        met = {other for other in imports(name) for role in foreign if re.fullmatch(role, other)}
        assert not met, f"{name} imports {sorted(met)}"


def test_no_modules_import_each_other_when_they_are_loaded() -> None:
    """A cycle of imports at load time works or not by who comes first."""
    edges = {name: {other for other in imports(name, lazy=False) if other != name} for name in modules()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            cycle = trail[trail.index(name) :]
            # A package and its own modules are one thing.
            assert len({one.split(".")[0] for one in cycle}) == 1, " -> ".join(cycle)
            return
        if name not in done:
            for other in sorted(edges[name]):
                visit(other, (*trail, name))
            done.add(name)

    for name in modules():
        visit(name, ())


@pytest.mark.parametrize("name", sorted(set(modules()) - LONG))
def test_a_module_is_short(name: str) -> None:
    assert len(modules()[name].read_text().splitlines()) <= 350


@pytest.mark.parametrize("package", sorted(name for name, path in modules().items() if path.name == "__init__.py"))
def test_a_package_names_nothing_as_one_of_its_modules(package: str) -> None:
    """The import of a module binds its name in its package, over whatever had that name there."""
    symbols = symtable.symtable(modules()[package].read_text(), package, "exec").get_symbols()
    own = {alias.asname or alias.name for node in _nodes(tree(package), lazy=False) if _from_itself(node) for alias in node.names}
    bound = {one.get_name() for one in symbols if one.is_assigned() or one.is_imported()} - own
    inside = {name.rpartition(".")[2] for name in modules() if name and name.rpartition(".")[0] == package}
    assert not bound & inside


FORBIDDEN = {
    r"datetime\('now'|current_timestamp|strftime\('": "`now` is bound, never read by SQL",
    r"^\s*(import|from) (pickle|marshal|shelve|dill)\b|\bpickle\.loads?\b": "what the file holds is data, never code",
    r"(?<![\w.\"'])(eval|exec)\(": "what the file holds is data, never code",
}


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_what_no_module_may_contain(pattern: str) -> None:
    met = [
        f"{name}:{number}: {line.strip()}"
        for name, path in modules().items()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(pattern, line)
    ]
    assert not met, f"{FORBIDDEN[pattern]}:\n" + "\n".join(met)


def test_nothing_is_named_by_a_word_that_the_engine_has_another_for() -> None:
    other = re.compile(r"(^|[._])(job|worker|attempt|manager|helper|util|base|common)s?([._]|$)", re.IGNORECASE)
    defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for name in modules():
        names = [node.name for node in ast.walk(tree(name)) if isinstance(node, defined)]
        assert not [one for one in (name, *names) if other.search(one)], name


def test_only_the_clock_reads_the_wall_clock() -> None:
    readings = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
    met = {name for name in modules() for node in ast.walk(tree(name)) if isinstance(node, ast.Call) and ast.unparse(node.func) in readings}
    assert met == {"clock"}


def test_the_schema_reads_no_clock() -> None:
    for path in (ROOT / "store" / "schema").glob("*.sql"):
        text = re.sub(r"--.*", "", path.read_text())
        assert not re.search(r"'now'|current_time", text, re.IGNORECASE), path.name


def layer_of(name: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if re.fullmatch(layer, name))


@cache
def imports(name: str, *, lazy: bool = True) -> frozenset[str]:
    """What a module imports of the package; with `lazy`, inside functions too. Never what only type checkers see."""
    path = modules()[name]
    package = ["outlast", *filter(None, name.split("."))]
    if path.name != "__init__.py":
        package.pop()
    found = set()
    for node in _nodes(tree(name), lazy=lazy):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        else:
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            targets = [f"{source}.{alias.name}" for alias in node.names]
        for target in targets:
            if target.split(".")[0] == "outlast":
                inner = target.partition(".")[2]
                found.add(inner if inner in modules() else inner.rpartition(".")[0])
    return frozenset(found & set(modules()))


def _from_itself(node: ast.Import | ast.ImportFrom) -> bool:
    return isinstance(node, ast.ImportFrom) and node.level == 1 and not node.module


def _nodes(node: ast.AST, *, lazy: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield from _nodes(other, lazy=lazy)
        elif lazy or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _nodes(child, lazy=lazy)
