"""Every command with generated arguments: it succeeds, or says one sentence with a documented exit code and leaves the file alone."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outlast import sqlite3
from outlast.cli.group import program

from .conftest import Call

EXAMPLES = int(os.environ.get("OUTLAST_TEST_EXAMPLES", "200"))
"""The long form is OUTLAST_TEST_EXAMPLES=5000."""

ENDLESS = {"demo", "run", "up", "agent", "supervisor", "scheduler", "completion", "init"}
WAITS = {"follow", "watch", "wait", "help", "interactive"}
CODES = {0, 1, 2, 3, 4, 5, 6, 7}


def commands() -> list[tuple[tuple[str, ...], click.Command]]:
    """Every command that comes to an end, with its name."""
    root = program()
    context = click.Context(root)
    found: list[tuple[tuple[str, ...], click.Command]] = []

    def walk(group: Any, names: tuple[str, ...]) -> None:
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if isinstance(command, click.Group):
                walk(command, (*names, name))
            elif name not in ENDLESS:
                found.append(((*names, name), command))

    walk(root, ())
    return found


COMMANDS = commands()

TEXTS = st.one_of(
    st.text(st.characters(exclude_characters="\0"), max_size=20),
    st.sampled_from(
        ["", " ", "-", "--", "-x", "\udcff", "\x1b[2J", "a" * 5_000, "🂡", "' or 1=1 --", "../../etc/passwd", "@", "@missing.json"]
    ),
)
NAMES = st.sampled_from(
    ["waits", "add", "fails", "undone", "parent", "nobody", "default", "emails", "nightly", "go", "progress", "log", "LAST"]
)
IDS = st.sampled_from(["RUN", "FAILED", "0rw" + "0" * 15, "0", "RUN0", "run"])
TIMES = st.sampled_from(
    [
        *("1s", "-1s", "1e9d", "0", "5m30s", "1.5h", "nan", "inf", "9" * 30 + "d", "2026-01-01", "2026-02-30T00:00", "now", "yesterday"),
        *("9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "2026-03-29T02:30:00[Europe/Berlin]", "@1", "1970-01-01T00:00:00Z"),
    ]
)
NUMBERS = st.one_of(st.integers().map(str), st.sampled_from(["1e5", "0x10", "１", "٣", "1_000", "+1", "-0", "1.0", "9" * 400]))
CRONS = st.one_of(
    st.sampled_from(["* * * * *", "0 2 * * *", "@daily", "@reboot", "*/0 * * * *", "0 0 31 2 *", "* * * * mon-sun/2", "0 0 L * *"]),
    st.lists(st.sampled_from(["*", "*/5", "1-", "-1", "1,,2", "59", "60", "jan", "7", "0-7", "5-1", "?", "L", "#", "1/2"]), max_size=7).map(
        " ".join
    ),
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSONS = st.one_of(
    st.recursive(LEAVES, lambda part: st.lists(part, max_size=3), max_leaves=6).map(json.dumps),
    st.sampled_from(["{", "[", '{"a": 1', '{"a": 1, "a": 2}', '{"$t": "tuple"}', '{"$t":"date","v":"x"}', "{}"]),
    st.sampled_from(["[" * 3_000, "1e999", "NaN", '"\\ud800"']),
)
KEYS = st.sampled_from(["a", "b", "note", "name", "text", "", "ä", "__class__", "self"])
PAIRS = st.tuples(KEYS, st.sampled_from(["=", ":=", ""]), TEXTS | NUMBERS | JSONS).map("".join)
FILTERS = st.sampled_from(
    ["status=failed", "running", "failed,completed", "a=b", "=", "a=", "=b", "a=b=c", "all", "100/1m", "1/0s", "x/1m", "per", "1"]
)
VALUES = st.one_of(TEXTS, NAMES, IDS, TIMES, NUMBERS, CRONS, JSONS, PAIRS, FILTERS)


@st.composite
def calls(draw: st.DrawFn) -> list[str]:
    names, command = draw(st.sampled_from(COMMANDS))
    words: list[str] = list(names)
    for parameter in command.params:
        if parameter.name in WAITS:
            continue
        if isinstance(parameter, click.Argument):
            if parameter.nargs == -1:
                words += draw(st.lists(VALUES, max_size=2))
            elif draw(st.integers(0, 9)):
                words.append(draw(st.one_of(IDS, NAMES, VALUES)))
        elif draw(st.integers(0, 3)) == 0:
            assert isinstance(parameter, click.Option)
            words.append(draw(st.sampled_from([*parameter.opts, *parameter.secondary_opts])))
            if not parameter.is_flag:
                choices = getattr(parameter.type, "choices", None)
                words.append(draw(st.sampled_from(sorted(map(str, choices))) | VALUES if choices else VALUES))
    if draw(st.booleans()):
        words.append("--json")
    if not draw(st.integers(0, 19)):
        words.insert(draw(st.integers(0, len(words))), draw(TEXTS))
    return words


@pytest.fixture
def prepared(outlast: Call, project: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A file with runs in several states."""
    import outlast as product

    outlast("workflows")
    runs = {"RUN": outlast("start", "waits").out.strip(), "LAST": outlast("start", "add", "a=1").out.strip()}
    outlast("start", "fails")
    with product.Engine(project / "outlast.db") as engine, engine.agent():
        runs["FAILED"] = outlast("start", "fails").out.strip()
        with pytest.raises(ValueError, match="no luck"):
            engine.get(runs["FAILED"]).result(timeout=20)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    return runs


def test_whatever_it_is_given_it_does_it_or_says_one_sentence_and_leaves_the_file(
    outlast: Call, prepared: dict[str, str], project: Path
) -> None:
    watch = sqlite3.connect(project / "outlast.db")

    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=EXAMPLES <= 200, suppress_health_check=list(HealthCheck))
    @given(calls())
    def check(words: list[str]) -> None:
        words = [prepared.get(word, word) for word in words]
        before = watch.execute("pragma data_version").fetchone()
        done = outlast(*words)
        assert done.code in CODES, (words, done)
        assert "Traceback" not in done.err, (words, done)
        assert "a bug in outlast" not in done.err, (words, done)
        if done.code not in (0, 1):
            assert done.err.strip(), (words, done)
            assert done.err.count("\n") <= 6, (words, done)
            # Of several runs, those that it could do are on stdout.
            assert done.out or watch.execute("pragma data_version").fetchone() == before, (words, done)

    try:
        check()
    finally:
        watch.close()
    assert outlast("doctor", "--json").json["checks"]
