"""The choice of durability: by option, variable or project file, in every connection that writes; nothing else is one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from outlast import Engine, step, transaction, workflow
from outlast.definition import registry
from outlast.doctor import examine
from outlast.errors import InvalidInput
from outlast.store import connection, library

with registry.isolated() as defined:

    @transaction
    def look(db: object) -> int:
        return db.execute("pragma synchronous").fetchone()[0]  # type: ignore[attr-defined,no-any-return]

    @step
    def add(a: int, b: int) -> int:
        return a + b

    @workflow
    def both() -> int:
        return add(look(), 10)


def synchronous(engine: Engine) -> int:
    value: int = engine.store.connection().execute("pragma synchronous").fetchone()[0]
    return value


def test_a_commit_is_fsynced_unless_somebody_says_otherwise(tmp_path: Path) -> None:
    with Engine(tmp_path / "app.db") as engine:
        assert synchronous(engine) == 2


def test_a_commit_without_wal_syncs_the_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "safe", False)
    monkeypatch.setattr(connection, "_warned", True)
    with Engine(tmp_path / "app.db") as engine:
        assert synchronous(engine) == 3
    with Engine(tmp_path / "app.db", durability="normal") as engine:
        assert synchronous(engine) == 2, "less would break the file"


@pytest.mark.parametrize("way", ["option", "variable", "project"])
def test_normal_is_chosen_by_option_variable_or_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[tool.outlast]\ndurability = "normal"\n' if way == "project" else "")
    if way == "variable":
        monkeypatch.setenv("OUTLAST_DURABILITY", "normal")
    with Engine(durability="normal" if way == "option" else None) as engine:
        assert synchronous(engine) == 1
        found = next(one for one in examine(engine.store) if one.name == "journal mode")
    assert found.ok
    assert "normal" in found.detail
    assert "power cut" in found.detail


def test_the_agents_connections_and_transactions_follow_the_choice(tmp_path: Path) -> None:
    with registry.isolated() as current, Engine(tmp_path / "app.db", durability="normal") as engine:
        for definition in (look, add, both):
            current.add(definition)
        with engine.agent():
            assert engine.start(both).result(timeout=20) == 11


@pytest.mark.parametrize("value", ["off", "extra", "", 1, True])
def test_what_is_neither_full_nor_normal_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(InvalidInput, match="durability must be 'full' or 'normal'"):
        Engine(tmp_path / "app.db", durability=value)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_bad_value_in_the_environment_names_the_variable(tmp_path: Path) -> None:
    Engine(tmp_path / "app.db").close()
    done = subprocess.run(
        [sys.executable, "-m", "outlast", "--db", str(tmp_path / "app.db"), "doctor"], cwd=tmp_path, capture_output=True, text=True,
        env={"OUTLAST_DURABILITY": "off", "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 2
    assert "$OUTLAST_DURABILITY must be 'full' or 'normal', not 'off'" in done.stderr


def test_a_doctor_that_expects_full_does_not_take_normal_for_it(tmp_path: Path) -> None:
    with Engine(tmp_path / "app.db") as engine:
        engine.store.connection().execute("pragma synchronous = normal")
        found = next(one for one in examine(engine.store) if one.name == "journal mode")
    assert not found.ok
