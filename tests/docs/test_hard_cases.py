"""The page of hard cases names a test for each, and each test that it names is there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "hard-cases.md"
NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


@cache
def names_of_tests(file: Path) -> set[str]:
    """The names of the test functions of a file."""
    return {
        node.name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_test_that_the_page_of_hard_cases_names_is_there() -> None:
    missing = [
        f"{file}::{name}"
        for file, name in NAMED_TEST.findall(PAGE.read_text())
        if not (ROOT / file).is_file() or name not in names_of_tests(ROOT / file)
    ]
    assert not missing


def test_every_hard_case_names_a_test() -> None:
    cases = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and not line.startswith(("| behaviour", "| ---"))]
    assert not [line for line in cases if not NAMED_TEST.search(line)]
