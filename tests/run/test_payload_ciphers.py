"""The cipher of docs/payloads.md, where the package `cryptography` is there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_bench import Bench

from outlast import workflow
from outlast.codec import payloads
from outlast.definition import registry
from outlast.errors import RunHalted

pytest.importorskip("cryptography")

PAGE = Path(__file__).parents[2] / "docs" / "payloads.md"

with registry.isolated() as defined:

    @workflow
    def echo(text: str) -> str:
        return text


@pytest.fixture(autouse=True)
def nothing_registered() -> Iterator[None]:
    yield
    payloads.forget_all()


def test_the_cipher_of_the_page_works_and_a_wrong_key_halts(bench: Bench) -> None:
    block = re.search(r"```\n(class Encrypted:.*?)\n\n\nregister", PAGE.read_text(), re.DOTALL)
    assert block is not None
    names: dict[str, type] = {}
    exec(f"import os\nfrom cryptography.hazmat.primitives.ciphers.aead import AESGCM\n{block[1]}", names)
    encrypted = names["Encrypted"]
    payloads.register_payload_codec(encrypted("key-1", os.urandom(32)))
    run = bench.start(echo, "a word")
    assert b"a word" not in bench.one("select data from outlast_input")
    known = dict(payloads._codecs)
    payloads.register_payload_codec(encrypted("key-1", os.urandom(32)))
    bench.agent()
    with pytest.raises(RunHalted, match="'key-1': it fails by InvalidTag"):
        run.result(timeout=20)
    payloads.register_payload_codec(known["key-1"])
    run.resume()
    assert run.result(timeout=20) == "a word"
