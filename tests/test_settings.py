"""Where a setting, the root and the file are looked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from outlast import settings
from outlast.errors import InvalidInput
from outlast.settings import Settings


def project(folder: Path, text: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(text)
    return folder


def test_the_defaults_are_the_documented_ones(tmp_path: Path) -> None:
    found = settings.resolve(cwd=project(tmp_path), environ={})
    assert found == Settings()
    assert (found.lease_seconds, found.grace_seconds, found.park_after_seconds) == (30, 20, 1)
    assert (found.hang_limit_seconds, found.max_payload, found.max_crashes) == (60, 1_048_576, 5)
    assert (found.max_entries, found.retention_seconds) == (50_000, 30 * 86_400)
    assert (found.durability, found.allow_network) == ("full", False)


def test_an_option_goes_before_a_variable_and_a_variable_before_the_file(tmp_path: Path) -> None:
    project(tmp_path, '[tool.outlast]\nlease = "3s"\ngrace = "4s"\npark_after = 5\n')
    environ = {"OUTLAST_LEASE": "6s", "OUTLAST_GRACE": "7s"}
    found = settings.resolve({"lease": "8s", "grace": None}, cwd=tmp_path, environ=environ)
    assert (found.lease_seconds, found.grace_seconds, found.park_after_seconds) == (8, 7, 5)


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    project(tmp_path)
    assert settings.resolve(cwd=tmp_path, environ={"OUTLAST_LEASE": ""}).lease_seconds == 30
    path = settings.database_path(cwd=tmp_path, environ={"OUTLAST_DB": ""})
    assert path == str(tmp_path / "outlast.db")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("max_payload", "4 MiB", 4 * 1024**2),
        ("max_payload", "2_000", 2000),
        ("max_entries", "1_000", 1000),
        ("allow_network", "1", True),
        ("allow_network", "off", False),
        ("durability", "Normal", "normal"),
    ],
)
def test_variables_are_read_as_their_kind(tmp_path: Path, name: str, text: str, value: object) -> None:
    found = settings.resolve(cwd=project(tmp_path), environ={f"OUTLAST_{name.upper()}": text})
    assert getattr(found, name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lease", "0s"),
        ("lease", "99ms"),
        ("hang_limit", "1ms"),
        ("lease", "soon"),
        ("lease", -1),
        ("grace", True),
        ("max_payload", "a lot"),
        ("max_payload", 0),
        ("max_payload", 10**10),
        ("max_crashes", 0),
        ("max_entries", 1.5),
        ("retention", "0"),
        ("durability", "off"),
        ("allow_network", "perhaps"),
    ],
)
def test_a_bad_value_is_refused_in_one_sentence_that_names_it(tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=rf"^{name}[^\n]+$"):
        settings.resolve({name: value}, cwd=project(tmp_path), environ={})


def test_a_bad_value_names_where_it_came_from(tmp_path: Path) -> None:
    project(tmp_path, '[tool.outlast]\nlease = "never"\n')
    with pytest.raises(InvalidInput, match=r"lease in \[tool.outlast\] of .*pyproject.toml"):
        settings.resolve(cwd=tmp_path, environ={})
    with pytest.raises(InvalidInput, match=r"^\$OUTLAST_LEASE must"):
        settings.resolve(cwd=tmp_path, environ={"OUTLAST_LEASE": "never"})


def test_an_unknown_name_is_refused_with_what_may_have_been_meant(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="Did you mean 'lease'"):
        settings.resolve({"leese": 1}, cwd=tmp_path, environ={})
    project(tmp_path, "[tool.outlast]\nmax_payloads = 1\n")
    with pytest.raises(InvalidInput, match=r"unknown key 'max_payloads'\. Did you mean 'max_payload'"):
        settings.resolve(cwd=tmp_path, environ={})


@pytest.mark.parametrize("text", ["[tool", "tool = 3", "[tool]\noutlast = 3", "\x00"])
def test_a_broken_project_file_is_named(tmp_path: Path, text: str) -> None:
    project(tmp_path, text)
    with pytest.raises(InvalidInput, match=r"pyproject\.toml"):
        settings.database_path(cwd=tmp_path, environ={})


def test_a_project_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    project(tmp_path)
    (tmp_path / "pyproject.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match=r"pyproject\.toml cannot be read"):
        settings.resolve(cwd=tmp_path, environ={})


def test_the_root_is_the_folder_of_the_nearest_project_file(tmp_path: Path) -> None:
    project(tmp_path)
    inner = project(tmp_path / "a" / "inner")
    deep = inner / "b" / "c"
    deep.mkdir(parents=True)
    assert settings.find_root(deep) == inner
    assert settings.find_root(tmp_path / "a") == tmp_path


def test_without_a_project_file_the_root_is_the_current_folder(tmp_path: Path) -> None:
    if settings.find_root(tmp_path.parent) == tmp_path.parent:
        assert settings.find_root(tmp_path) == tmp_path


def test_the_file_is_found_by_argument_then_variable_then_project_then_beside_it(tmp_path: Path) -> None:
    project(tmp_path, '[tool.outlast]\ndb = "data/app.db"\n')
    sub = tmp_path / "sub"
    sub.mkdir()
    environ = {"OUTLAST_DB": "env.db"}
    assert settings.database_path("x.db", cwd=sub, environ=environ) == str(sub / "x.db")
    assert settings.database_path(Path("x.db"), cwd=sub, environ=environ) == str(sub / "x.db")
    assert settings.database_path(cwd=sub, environ=environ) == str(sub / "env.db")
    assert settings.database_path(cwd=sub, environ={}) == str(tmp_path / "data" / "app.db")
    project(tmp_path)
    assert settings.database_path(cwd=sub, environ={}) == str(tmp_path / "outlast.db")
    assert not list(tmp_path.rglob("*.db"))


def test_the_url_of_a_server_is_left_as_it_is(tmp_path: Path) -> None:
    url = "postgresql://host/name"
    assert settings.database_path(url, cwd=tmp_path, environ={}) == url


@pytest.mark.parametrize("argument", ["", "  ", ":memory:", "a\0b", 3])
def test_what_can_be_no_file_is_refused(tmp_path: Path, argument: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^The database"):
        settings.database_path(argument, cwd=tmp_path, environ={})
