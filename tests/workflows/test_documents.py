"""The document pipeline: what it finds, what it leaves alone, and what it says of files that are no text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from shell import Shell, eventually

from outlast import Engine, Fail


@pytest.fixture
def documents(workflow_module: Callable[[str], ModuleType]) -> ModuleType:
    return workflow_module("documents")


@pytest.fixture
def engine(documents: ModuleType, tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path / "documents.db") as engine, engine.agent():
        yield engine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    (folder / "deep").mkdir(parents=True)
    (folder / "bread.txt").write_text("# Bread\n\nFlour and water make dough. Ovens are hot. Dough needs flour and time.\n")
    (folder / "deep" / "crash.txt").write_text("A crash loses nothing that is durable.")
    return folder


def found(engine: Engine, documents: Any, query: str) -> list[str]:
    return [Path(hit.path).name for hit in engine.start(documents.search, query).result(timeout=20)]


def test_every_text_can_be_found_by_its_words(engine: Engine, documents: Any, folder: Path) -> None:
    report = engine.start(documents.index_folder, str(folder)).result(timeout=20)

    assert (report.indexed, report.unchanged, report.failed) == (2, 0, {})
    assert found(engine, documents, "flour") == ["bread.txt"]
    assert found(engine, documents, "durable OR dough") == ["crash.txt", "bread.txt"]
    (hit,) = engine.start(documents.search, "ovens").result(timeout=20)
    assert (hit.title, "[Ovens]" in hit.snippet) == ("Bread", True)
    assert hit.summary == "# Bread Flour and water make dough. Dough needs flour and time."


def test_what_is_no_text_is_named_and_the_others_are_indexed(engine: Engine, documents: Any, folder: Path) -> None:
    (folder / "picture.txt").write_bytes(b"\x89PNG\r\n")

    report = engine.start(documents.index_folder, str(folder)).result(timeout=20)

    assert report.indexed == 2
    assert list(report.failed) == [str(folder / "picture.txt")]
    assert "is not UTF-8 text: byte 0 is 0x89" in report.failed[str(folder / "picture.txt")]


def test_what_has_not_changed_is_left_what_is_gone_is_forgotten(engine: Engine, documents: Any, folder: Path) -> None:
    engine.start(documents.index_folder, str(folder)).result(timeout=20)
    (folder / "deep" / "crash.txt").unlink()
    (folder / "bread.txt").write_text("Rye.")
    (folder / "new.txt").write_text("New.")

    report = engine.start(documents.index_folder, str(folder)).result(timeout=20)
    again = engine.start(documents.index_folder, str(folder)).result(timeout=20)

    assert (report.indexed, report.unchanged, report.removed) == (2, 0, 1)
    assert (again.indexed, again.unchanged, again.removed) == (0, 2, 0)
    assert found(engine, documents, "flour OR durable") == []
    assert found(engine, documents, "rye") == ["bread.txt"]


def test_a_query_that_is_none_and_a_folder_that_is_not_there_are_said(engine: Engine, documents: Any, folder: Path) -> None:
    with pytest.raises(Fail, match="is not a query"):
        found(engine, documents, '"')
    with pytest.raises(Fail, match=r"nowhere is not a folder\."):
        engine.start(documents.index_folder, str(folder / "nowhere")).result(timeout=20)


@pytest.mark.crash
def test_each_document_is_in_the_index_once_while_agents_are_killed(up: Shell) -> None:
    folder = up.folder / "notes"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number}.txt").write_text(f"Number {number} of the same words.")
    run = up.run("start", "index_folder", "folder=notes")

    for _ in range(2):
        eventually(lambda: len(up.live_agents()) == 2, what="two agents")
        up.kill_an_agent()

    assert up.run("result", run, "--wait") != ""
    assert up.json("result", run)["indexed"] + up.json("result", run)["unchanged"] == 30
    hits = up.json("run", "search", "query=words", "limit=100")
    assert sorted(int(Path(hit["path"]).stem) for hit in hits) == list(range(30))
