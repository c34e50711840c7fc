"""The names that `import outlast` gives, and what it costs."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys

import pytest

import outlast


def test_the_public_names_are_these() -> None:
    promised = [
        *("workflow", "step", "transaction", "NOT_DONE", "Retry", "Queue", "register_type", "register_payload_codec", "aio", "sqlite3"),
        *(
            "sleep",
            "wait_signal",
            "signal_handle",
            "gather",
            "first",
            "publish",
            "emit",
            "now",
            "uuid4",
            "rng",
        ),
        *("patched", "continue_as_new", "current", "Cron", "Every", "At", "Schedule"),
        *("Engine", "Run", "Handle"),
    ]
    errors = [
        name
        for name, value in vars(importlib.import_module("outlast.errors")).items()
        if isinstance(value, type)
        and issubclass(value, Exception | outlast.errors.Unwinding)
        and value.__module__ == "outlast.errors"
        and name not in ("Unwinding", "Parked", "Cancelled")
    ]
    assert sorted(outlast.__all__) == sorted([*promised, *errors])


@pytest.mark.parametrize("name", outlast.__all__)
def test_each_public_name_is_there(name: str) -> None:
    assert getattr(outlast, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'engin'"):
        outlast.engin  # noqa: B018


def test_importing_outlast_imports_nothing_heavy() -> None:
    code = "import sys, outlast; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {
        "asyncio",
        "apscheduler",
        "rich",
        "click",
        "sqlite_utils",
        "cronsim",
        "msgspec",
        "tomllib",
        "sqlite3",
    }
    assert heavy & set(loaded) == set()


@pytest.mark.parametrize("name", [name for name in outlast.__all__ if name not in ("NOT_DONE", "sqlite3")])
def test_each_public_name_is_documented_by_itself(name: str) -> None:
    value = getattr(outlast, name)
    assert (vars(value) if isinstance(value, type) else {"__doc__": value.__doc__}).get("__doc__")


@pytest.mark.parametrize("kind", [outlast.Engine, outlast.Run, outlast.Handle, outlast.Retry])
def test_each_public_method_is_documented(kind: type) -> None:
    methods = {
        name: value for name, value in vars(kind).items() if not name.startswith("_") and (callable(value) or hasattr(value, "fget"))
    }
    assert [name for name, value in methods.items() if not value.__doc__] == []
