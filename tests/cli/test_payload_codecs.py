"""Payload codecs at the command line: its commands find the codec in the app, and say so where it is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from outlast.codec import payloads

from .conftest import Call

CODEC = """
import zlib

from outlast import register_payload_codec


class Zlib:
    name = "zlib-1"

    def encode(self, data):
        return zlib.compress(data)

    def decode(self, data):
        return zlib.decompress(data)


register_payload_codec(Zlib())
"""


@pytest.fixture(autouse=True)
def nothing_registered() -> Iterator[None]:
    yield
    payloads.forget_all()


def test_commands_read_and_write_by_the_codec_of_the_app(project: Path, process: Call, outlast: Call) -> None:
    (project / "workflows" / "codecs.py").write_text(CODEC)
    uid = process("start", "waits", "name=a word").out.strip()
    assert process("signal", uid, "a word", '"went well"').code == 0
    assert process("agent", "--once").code == 0
    assert "a word" in outlast("show", uid).out
    assert outlast("result", uid, "--json").json == "went well"
    assert outlast("export", uid).json["output"] == "went well"
    # The same project without it: each reading says what is missing, and what needs no payload goes on.
    (project / "workflows" / "codecs.py").unlink()
    payloads.forget_all()
    missing = outlast("result", uid)
    assert missing.code == 1
    assert "payload codec 'zlib-1': it is not registered here. Register it" in missing.err
    assert "zlib-1" in outlast("show", uid).out
    assert outlast("doctor", "--json").json["checks"]
    assert outlast("prune", "--older-than", "0s", "--yes").code == 0
    assert outlast("show", uid).code == 3


def test_a_signal_to_a_run_under_a_codec_is_never_stored_plain(project: Path, outlast: Call) -> None:
    (project / "workflows" / "codecs.py").write_text(CODEC)
    uid = outlast("start", "waits").out.strip()
    (project / "workflows" / "codecs.py").unlink()
    payloads.forget_all()
    refused = outlast("signal", uid, "go", "1")
    assert refused.code == 1
    assert "zlib-1" in refused.err
    assert outlast("show", uid, "--json").json["status"] == "pending"


ISOLATED = """
from outlast import step, workflow


@step(isolate=True)
def apart(text: str) -> str:
    return text * 2


@workflow
def both(text: str) -> list[str]:
    return [apart(text), apart.submit(text).result()]
"""


def test_isolated_steps_work_under_a_codec(project: Path, process: Call) -> None:
    (project / "workflows" / "codecs.py").write_text(CODEC)
    (project / "workflows" / "apart.py").write_text(ISOLATED)
    assert process("run", "both", "text=ab", "--json").json == ["abab", "abab"]
