"""Finding the app and importing it once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlast import application
from outlast.definition import registry
from outlast.errors import BrokenApp, FileMissing, InvalidInput, NotFound

WORKFLOW = "from outlast import workflow\n\n@workflow\ndef {name}() -> None: ...\n"


@pytest.fixture(autouse=True)
def _forget_workflows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests import this repository's own workflows; here their names are free."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "workflows"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture(autouse=True)
def process() -> Iterator[None]:
    """Leave sys.path, sys.modules and the registry as they were."""
    path, modules = list(sys.path), dict(sys.modules)
    with registry.isolated():
        yield
    sys.path[:] = path
    for name in set(sys.modules) - set(modules):
        if not name.startswith("outlast"):
            del sys.modules[name]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text("")
    return tmp_path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def names() -> list[str]:
    return [found.name for found in registry.workflows()]


def load(root: Path, *apps: str, **environ: str) -> list[str]:
    application.load(apps, cwd=root, environ=environ)
    return names()


def test_the_workflows_folder_is_the_app_where_none_is_named(root: Path) -> None:
    write(root / "workflows/orders.py", WORKFLOW.format(name="fulfil"))
    write(root / "workflows/deep/bills.py", WORKFLOW.format(name="bill"))
    write(root / "workflows/__main__.py", "raise SystemExit(3)")
    write(root / "workflows/.hidden/secret.py", "raise SystemExit(3)")
    assert load(root) == ["bill", "fulfil"]
    assert registry.workflow("fulfil").module == "workflows.orders"
    assert registry.workflow("bill").module == "workflows.deep.bills"


def test_without_that_folder_it_is_the_file_of_that_name(root: Path) -> None:
    write(root / "workflows.py", WORKFLOW.format(name="alone"))
    assert load(root) == ["alone"]


def test_no_app_at_all_is_an_empty_one(root: Path) -> None:
    assert load(root) == []


def test_the_root_is_found_from_a_folder_below_it(root: Path) -> None:
    write(root / "workflows/orders.py", WORKFLOW.format(name="fulfil"))
    below = root / "docs"
    below.mkdir()
    assert load(below) == ["fulfil"]


def test_the_root_and_its_src_come_first_on_the_path(root: Path) -> None:
    (root / "src").mkdir()
    load(root)
    load(root)
    assert sys.path[:2] == [str(root), str(root / "src")]
    assert sys.path.count(str(root)) == 1


def test_an_argument_goes_before_the_variable_and_the_variable_before_the_project(root: Path) -> None:
    for name in ("one", "two", "three"):
        write(root / f"{name}_app.py", WORKFLOW.format(name=name))
    (root / "pyproject.toml").write_text('[tool.outlast]\napp = "three_app"\n')
    with registry.isolated():
        assert load(root, "one_app", OUTLAST_APP="two_app") == ["one"]
    with registry.isolated():
        assert load(root, OUTLAST_APP="two_app, one_app.py") == ["two"]
    with registry.isolated():
        assert load(root) == ["three"]


def test_what_the_project_names_is_relative_to_it(root: Path) -> None:
    write(root / "flows/orders.py", WORKFLOW.format(name="fulfil"))
    (root / "pyproject.toml").write_text('[tool.outlast]\napp = ["flows"]\n')
    below = root / "docs"
    below.mkdir()
    assert load(below) == ["fulfil"]


def test_a_package_stands_for_all_its_modules(root: Path) -> None:
    write(root / "src/shop/__init__.py", "")
    write(root / "src/shop/orders.py", WORKFLOW.format(name="fulfil"))
    write(root / "src/shop/back/__init__.py", WORKFLOW.format(name="back"))
    write(root / "src/shop/back/bills.py", "from ..orders import fulfil\n" + WORKFLOW.format(name="bill"))
    assert load(root, "shop") == ["back", "bill", "fulfil"]
    assert registry.workflow("bill").module == "shop.back.bills"
    assert registry.workflow("back").module == "shop.back"


def test_a_file_is_imported_once_whatever_it_is_called_by(root: Path) -> None:
    write(root / "src/shop/__init__.py", "")
    write(root / "src/shop/orders.py", "print('imported')\n" + WORKFLOW.format(name="fulfil"))
    load(
        root,
        "shop.orders",
        "src/shop/orders.py",
        "src/shop",
        str(root / "src" / "shop" / "orders.py"),
        "shop",
    )
    modules = [name for name, module in sys.modules.items() if (getattr(module, "__file__", "") or "").endswith("shop/orders.py")]
    assert modules == ["shop.orders"]


def test_the_script_that_runs_is_not_imported_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = write(root / "script.py", "raise RuntimeError('imported again')")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)
    assert load(root, "script.py") == []


def test_a_file_outside_the_root_is_named_from_its_own_folder(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write(elsewhere / "beside_it.py", "VALUE = 1")
    write(elsewhere / "outside_it.py", "import beside_it\n" + WORKFLOW.format(name="outside"))
    write(elsewhere / "packaged/__init__.py", "")
    write(elsewhere / "packaged/inner.py", WORKFLOW.format(name="inner"))
    load(root, str(elsewhere / "outside_it.py"), str(elsewhere / "packaged" / "inner.py"))
    assert registry.workflow("outside").module == "outside_it"
    assert registry.workflow("inner").module == "packaged.inner"


@pytest.mark.parametrize(
    ("file", "module"),
    [
        ("01-orders.py", "_01_orders"),
        ("flows-2026/new orders.py", "flows_2026.new_orders"),
        ("class.py", "class"),
    ],
)
def test_a_file_with_an_odd_name_gets_a_sane_one(root: Path, file: str, module: str) -> None:
    write(root / file, WORKFLOW.format(name="fulfil"))
    assert load(root, file) == ["fulfil"]
    assert registry.workflow("fulfil").module == module


def test_a_dotted_path_above_the_current_folder_is_understood(root: Path) -> None:
    write(root / "orders.py", WORKFLOW.format(name="fulfil"))
    (root / "docs").mkdir()
    load(root / "docs", "../orders.py")
    assert registry.workflow("fulfil").module == "orders"


def test_a_file_that_shadows_a_loaded_module_is_refused(root: Path) -> None:
    write(root / "json.py", WORKFLOW.format(name="fulfil"))
    with pytest.raises(BrokenApp, match=r"json.py would be the module 'json', which is .* already. Rename the file."):
        load(root, "json.py")


def test_a_missing_file_is_named(root: Path) -> None:
    for app in ("nowhere.py", "no/where", "./nowhere.py"):
        with pytest.raises(FileMissing, match=r"nowhere\.py|no/where") as refused:
            load(root, app)
        assert refused.value.exit_code == 3


def test_a_missing_module_is_named(root: Path) -> None:
    write(root / "shop/__init__.py", "")
    for app in ("nowhere", "shop.nowhere", "shop.nowhere.deeper", "no-where", "sys.nowhere"):
        with pytest.raises(NotFound, match=app):
            load(root, app)


def test_a_module_that_lacks_what_it_imports_is_broken_and_not_missing(root: Path) -> None:
    write(root / "orders.py", "x = 1\nimport nowhere_to_be_found\n")
    write(root / "shop/__init__.py", "import nowhere_to_be_found\n")
    with pytest.raises(BrokenApp, match=r"orders.py, line 2: ModuleNotFoundError: No module named 'nowhere_to_be_found'\.$"):
        load(root, "orders")
    with pytest.raises(BrokenApp, match=r"shop/__init__.py, line 1: ModuleNotFoundError"):
        load(root, "shop.orders")


@pytest.mark.parametrize("app", ["", " ", "a\0b"])
def test_what_can_be_no_app_is_refused(root: Path, app: str) -> None:
    with pytest.raises(InvalidInput, match="An app must be a module, a file or a folder"):
        load(root, app)


def test_an_app_in_the_project_that_is_no_text_is_refused(root: Path) -> None:
    (root / "pyproject.toml").write_text("[tool.outlast]\napp = [1]\n")
    with pytest.raises(InvalidInput, match=r"app in \[tool.outlast\] of .*pyproject.toml"):
        load(root)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def broken(:\n", r"orders.py, line 1: invalid syntax"),
        ("x = 1\n\nraise ValueError('not\\ntoday')\n", r"orders.py, line 3: ValueError: not today\.$"),
        ("assert False\n", r"orders.py, line 1: AssertionError\.$"),
        ("import sys\nsys.exit(3)\n", r"orders.py, line 2: it exits when it is imported\."),
        ("import json\njson.loads('{')\n", r"orders.py, line 2: JSONDecodeError: "),
        ("from outlast import step\n\nstep(lambda: 1)\n", r"orders.py, line 3: @step cannot take a lambda\."),
        ("from outlast import Queue\n\nQueue('q', rate='-3/1m')\n", r"orders.py, line 3: rate of queue 'q' must be"),
        ("x = '\0'\n", r"orders.py, line 1: source code"),
        ("# coding: nonsense\n", r"orders.py, line 1: .*nonsense"),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_sentence_with_its_line(root: Path, text: str, said: str) -> None:
    write(root / "workflows/orders.py", text)
    with pytest.raises(BrokenApp, match=said) as refused:
        load(root)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 2
    assert "workflows.orders" not in sys.modules


def test_the_line_named_is_the_apps_own_where_an_error_comes_from_deeper(root: Path) -> None:
    write(root / "rules.py", "def rule():\n    raise KeyError('x')\n")
    write(root / "workflows/orders.py", "from rules import rule\nrule()\n")
    with pytest.raises(BrokenApp, match=r"rules.py, line 2: KeyError: 'x'\.$"):
        load(root)


def test_two_files_that_define_one_name_are_both_named(root: Path) -> None:
    write(root / "workflows/a.py", WORKFLOW.format(name="fulfil"))
    write(root / "workflows/b.py", WORKFLOW.format(name="fulfil"))
    with pytest.raises(BrokenApp, match=r"Two workflows are named 'fulfil': in .*a\.py:3 and in .*b\.py:3\."):
        load(root)


def test_an_interrupt_stays_one(root: Path) -> None:
    write(root / "workflows/orders.py", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        load(root)


def test_after_a_broken_file_is_mended_it_can_be_loaded(root: Path) -> None:
    file = write(root / "workflows/orders.py", WORKFLOW.format(name="fulfil") + "1 / 0\n")
    with pytest.raises(BrokenApp, match="ZeroDivisionError"):
        load(root)
    file.write_text(WORKFLOW.format(name="fulfil"))
    assert load(root) == ["fulfil"]
