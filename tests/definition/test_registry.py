"""What a name means in a process: definitions and queues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_definitions import module_of

from outlast import Queue
from outlast.definition import registry
from outlast.errors import (
    InvalidDefinition,
    InvalidInput,
    NotFound,
    QueueNotFound,
    WorkflowNotFound,
)


def test_two_definitions_of_one_name_are_refused_with_both_places(tmp_path: Path) -> None:
    with registry.isolated():
        module_of(tmp_path / "a.py", "@step\ndef pay(): ...\n")
        with pytest.raises(InvalidDefinition, match=r"Two steps are named 'pay': in .*a\.py:3 and in .*b\.py:3\."):
            module_of(tmp_path / "b.py", "@transaction\ndef pay(db): ...\n")
        module_of(tmp_path / "c.py", "@workflow\ndef pay(): ...\n")
        with pytest.raises(InvalidDefinition, match="Two steps are named 'pay'"):
            module_of(tmp_path / "d.py", "@step(name='pay')\ndef other(): ...\n")


def test_the_same_module_and_name_defined_again_replaces(tmp_path: Path) -> None:
    with registry.isolated():
        module_of(tmp_path / "a.py", "@step\ndef pay(): return 1\n")
        module_of(tmp_path / "a.py", "@step\ndef pay(): return 2\n", name="__main__")
        module_of(tmp_path / "cell.py", "@step\ndef pay(): return 3\n", name="__main__")
        assert registry.step("pay").fn() == 3


def test_versions_of_a_workflow_stand_side_by_side(tmp_path: Path) -> None:
    text = "@workflow(name='pay', version='{0}')\ndef pay_{0}(): ...\n"
    with registry.isolated():
        module_of(tmp_path / "a.py", text.format(9) + text.format(10) + "@workflow\ndef pay(): ...\n")
        assert [found.version for found in registry.workflows()] == ["", "9", "10"]
        assert registry.workflow("pay").version == "10"
        assert registry.workflow("pay", "9").version == "9"
        assert registry.workflow("pay", "").version == ""
        with pytest.raises(WorkflowNotFound, match=r"'pay@8'\. Did you mean 'pay@10'"):
            registry.workflow("pay", "8")


def test_a_name_that_is_not_there_is_answered_with_a_close_one(tmp_path: Path) -> None:
    with registry.isolated():
        module_of(tmp_path / "a.py", "@workflow\ndef fulfil(): ...\n@step\ndef charge(): ...\n")
        with pytest.raises(WorkflowNotFound, match="Did you mean 'fulfil'"):
            registry.workflow("fulfill")
        with pytest.raises(NotFound, match="Did you mean 'charge'"):
            registry.step("chrage")
        with pytest.raises(WorkflowNotFound, match="outlast workflows"):
            registry.workflow("zzz")


# Queues


def test_a_queue_is_declared_when_it_is_made() -> None:
    with registry.isolated():
        made = Queue("emails", concurrency=10, rate="100/1m", per_partition=2, hold="unfinished")
        assert (made.rate_count, made.rate_window_seconds) == (100, 60)
        assert registry.queue("emails") is made
        assert set(registry.queues()) == {"default", "emails"}
        assert Path(made.place.partition(":")[0]).name == Path(__file__).name
        with pytest.raises(QueueNotFound, match="Did you mean 'emails'"):
            registry.queue("email")


def test_the_default_queue_can_be_declared_anew() -> None:
    with registry.isolated():
        assert registry.queue("default").concurrency is None
        Queue("default", concurrency=2)
        assert registry.queue("default").concurrency == 2


def test_a_queue_declared_differently_elsewhere_is_refused_with_both_places(tmp_path: Path) -> None:
    with registry.isolated():
        module_of(tmp_path / "a.py", "Queue('emails', concurrency=1)\n")
        module_of(tmp_path / "b.py", "Queue('emails', concurrency=1)\n")
        with pytest.raises(InvalidDefinition, match=r"declared twice: in .*b\.py:3 and in .*c\.py:3"):
            module_of(tmp_path / "c.py", "Queue('emails', concurrency=2)\n")
        module_of(tmp_path / "b.py", "Queue('emails', concurrency=3)\n")


def test_a_queue_declared_otherwise_in_the_same_file_is_refused_with_both_places(tmp_path: Path) -> None:
    with registry.isolated():
        with pytest.raises(InvalidDefinition, match=r"declared twice: in .*a\.py:3 and in .*a\.py:5"):
            module_of(tmp_path / "a.py", "Queue('emails', concurrency=1)\n\nQueue('emails', concurrency=2)\n")
        assert registry.queue("emails").concurrency == 1
        # The file as it was mended and loaded again.
        module_of(tmp_path / "a.py", "\n\nQueue('emails', concurrency=2)\nQueue('emails', concurrency=2)\n")
        assert registry.queue("emails").concurrency == 2


@pytest.mark.parametrize(
    ("rate", "expected"),
    [("5/s", (5, 1)), ("100/1m", (100, 60)), (" 10 / 500ms ", (10, 0.5)), ("1/1h30m", (1, 5400))],
)
def test_a_rate_is_a_count_and_a_window(rate: str, expected: tuple[int, float]) -> None:
    with registry.isolated():
        made = Queue("emails", rate=rate)
    assert (made.rate_count, made.rate_window_seconds) == expected


@pytest.mark.parametrize(
    "given",
    [
        {"name": ""},
        {"name": "two words"},
        {"concurrency": 0},
        {"concurrency": -1},
        {"concurrency": True},
        {"concurrency": 2**40},
        {"per_partition": 0},
        {"rate": "100"},
        {"rate": "0/1m"},
        {"rate": "-1/1m"},
        {"rate": "x/1m"},
        {"rate": "1/0s"},
        {"rate": "1/soon"},
        {"rate": 100},
        {"hold": "forever"},
    ],
)
def test_a_queue_that_makes_no_sense_is_refused_in_one_sentence(given: dict[str, Any]) -> None:
    with registry.isolated(), pytest.raises(InvalidInput, match=r"^[^\n]+$"):
        Queue(**{"name": "emails", **given})
