"""Payloads at rest under the application's own codec: nothing of them lies plain in the file, and what is missing is named."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import shake_256
from pathlib import Path

import pytest
from run_bench import Bench, effects, eventually

import outlast
from outlast import Retry, step, transaction, workflow
from outlast.codec import payloads
from outlast.codec.payloads import register_payload_codec
from outlast.definition import registry
from outlast.doctor import examine
from outlast.errors import InvalidDefinition, PayloadNotEncoded, PayloadUnreadable, RunHalted, StepTimeout
from outlast.journal.entry import Entry
from outlast.journal.plan import undone as undone_of
from outlast.operations import StrayEnded
from outlast.store.sealing import sealed_or_refused
from outlast.testing import replays

SECRET = "hunter2"
broken: set[str] = set()
"""The codecs that fail."""


class Zlib:
    name = "zlib"

    def encode(self, data: bytes) -> bytes:
        return zlib.compress(data)

    def decode(self, data: bytes) -> bytes:
        return zlib.decompress(data)


class Scrambled:
    """No cipher to use, but as one looks from outside: other bytes each time, and none that tell."""

    def __init__(self, name: str) -> None:
        self.name = name

    def encode(self, data: bytes) -> bytes:
        if self.name in broken:
            raise OSError(f"no key for {data!r}")
        nonce = os.urandom(8)
        return nonce + self._mixed(data, nonce)

    def decode(self, data: bytes) -> bytes:
        if self.name in broken:
            raise OSError("no key")
        return self._mixed(data[8:], data[:8])

    def _mixed(self, data: bytes, nonce: bytes) -> bytes:
        stream = shake_256(self.name.encode() + nonce).digest(len(data))
        return bytes(a ^ b for a, b in zip(data, stream, strict=True))


@pytest.fixture(autouse=True)
def nothing_registered() -> Iterator[None]:
    yield
    payloads.forget_all()
    broken.clear()


@contextmanager
def without_codecs() -> Iterator[None]:
    """As in a process whose code does not register them."""
    known, writer = dict(payloads._codecs), payloads.writer
    payloads.forget_all()
    try:
        yield
    finally:
        payloads._codecs.update(known)
        payloads.writer = writer


with registry.isolated() as elsewhere:

    @workflow
    def far_away() -> str:
        return "from afar"


with registry.isolated() as defined:

    @workflow
    def waits_for_child() -> str:
        try:
            return far_away()
        except Exception as error:
            return f"caught {error}"

    @workflow
    async def waits_for_child_async() -> str:
        try:
            return await far_away.aio()
        except Exception as error:
            return f"caught {error}"

    @step(retry=Retry(2, initial="1ms"))
    def tries(text: str) -> str:
        effects.append(text)
        if effects.count(text) == 1:
            raise ValueError(f"not yet, {text}")
        return f"kept {text}"

    @step
    def book(text: str) -> str:
        effects.append(f"book {text}")
        outlast.emit("steps", text)
        outlast.current().heartbeat(text)
        return text

    @book.compensation
    def unbook(result: str | None, text: str) -> None:
        effects.append(f"unbook {result}")

    @transaction
    def write(db: outlast.sqlite3.Connection, text: str) -> str:
        return text

    @step
    def explode(text: str) -> None:
        raise ValueError(text)

    @workflow
    def child(text: str) -> str:
        return text * 3000

    @workflow
    def all_of_it(text: str) -> list[object]:
        outlast.publish("state", text)
        outlast.emit("lines", text)
        made = [tries(text), write(text), book.submit(text).result(), child(text)[:7]]
        return [*made, outlast.wait_signal("word", str)]

    @workflow
    async def all_of_it_async(text: str) -> list[object]:
        outlast.publish("state", text)
        first = await tries.aio(text)
        return [first, await book.submit(text), await outlast.aio.wait_signal("word", str)]

    @workflow
    def undone(text: str) -> None:
        book(text)
        explode(text)

    @workflow(on_error="halt")
    def halts(text: str) -> None:
        raise ValueError(text)

    @workflow
    def retried(text: str) -> str:
        made = book(text * 1000)
        if "stop" not in effects:
            raise ValueError(text)
        return made[: len(text)]

    @step(timeout="50ms")
    def slow(text: str) -> None:
        effects.append(text)
        eventually(lambda: "free" in effects)
        raise OSError(text)

    @slow.compensation
    def unslow(result: None, text: str) -> None:
        effects.append(outlast.current().undoing.outcome)  # type: ignore[union-attr]

    @workflow
    def overruns(text: str) -> None:
        slow(text)

    @workflow
    def quick(text: str = SECRET) -> str:
        return text


def tell_tales(bench: Bench) -> list[str]:
    """Every column of the file that holds the secret in plain."""
    connection = bench.store.connection()
    tables = [name for (name,) in connection.execute("select name from sqlite_schema where type = 'table'").fetchall()]
    found = []
    for table in tables:
        for row in connection.execute(f"select * from {table}").fetchall():
            found += [
                f"{table}: {value!r:.200}" for value in row if SECRET in (value.decode("latin") if isinstance(value, bytes) else str(value))
            ]
    return found


@pytest.mark.parametrize("flow", [all_of_it, all_of_it_async], ids=["sync", "async"])
def test_nothing_of_any_payload_lies_plain_in_the_file(bench: Bench, flow: object) -> None:
    register_payload_codec(Scrambled("k1"))
    bench.agent()
    run = bench.start(flow, SECRET)
    run.signal("word", SECRET)
    result = run.result(timeout=20)
    assert result[0] == f"kept {SECRET}"
    assert result[-1] == SECRET
    assert run.query("state") == SECRET
    bench.engine.schedule("nightly", quick, outlast.Cron("0 2 * * *"), input={"text": SECRET})
    connection = outlast.sqlite3.connect(bench.store.path)
    bench.engine.start(quick.options(connection=connection), SECRET)
    connection.commit()
    connection.close()
    bad = bench.start(undone, SECRET)
    with pytest.raises(ValueError, match=SECRET):
        bad.result(timeout=20)
    assert f"unbook {SECRET}" in effects
    with pytest.raises(RunHalted) as halted:
        bench.start(halts, SECRET).result(timeout=20)
    assert SECRET not in str(halted.value)
    assert tell_tales(bench) == []
    payloads.forget_all()
    with pytest.raises(PayloadUnreadable, match="'k1'"):
        run.result()


def test_plain_and_several_codecs_stand_side_by_side(bench: Bench) -> None:
    bench.agent()
    old = bench.start(quick)
    old.result(timeout=20)
    register_payload_codec(Zlib())
    mid = bench.start(quick)
    mid.result(timeout=20)
    payloads.forget_all()
    register_payload_codec(Zlib(), writes=False)
    register_payload_codec(Scrambled("k2"))
    new = bench.start(quick)
    assert [run.result(timeout=20) for run in (old, mid, new)] == [SECRET] * 3
    outputs = [bench.one("select output from outlast_outcome where task_id = ?", bench.task_id(run)) for run in (old, mid, new)]
    assert [bytes(data[:6]) for data in outputs] == [b'"hunte', b"\0\4zlib", b"\0\2k2" + outputs[2][4:6]]


def test_a_run_whose_key_is_missing_is_halted_and_goes_on_with_it(bench: Bench) -> None:
    register_payload_codec(Scrambled("k1"))
    begun, fresh = bench.start(all_of_it, SECRET), bench.start(quick)
    with without_codecs():
        bench.agent()
        assert {bench.wait_for(run, "halted") for run in (begun, fresh)} == {"halted"}
        with pytest.raises(RunHalted, match="payload codec 'k1'.*not registered"):
            begun.result()
        assert effects == []
        assert not [finding for finding in examine(bench.store) if not finding.ok and finding.query]
    begun.resume()
    fresh.resume()
    assert fresh.result(timeout=20) == SECRET
    bench.wait_for(begun, "waiting")
    bench.stop()
    # In the middle of its journal, and by what the signal brings.
    with without_codecs(), pytest.raises(PayloadUnreadable):
        begun.signal("word", "plain beside what is sealed")
    begun.signal("word", SECRET)
    with without_codecs():
        bench.agent()
        bench.wait_for(begun, "halted")
    begun.resume()
    assert begun.result(timeout=20)[-1] == SECRET


@pytest.mark.parametrize("flow", [all_of_it, all_of_it_async], ids=["sync", "async"])
def test_a_signal_of_a_key_that_is_missing_halts_its_run(bench: Bench, flow: object) -> None:
    bench.agent()
    run = bench.start(flow, "word")
    bench.wait_for(run, "waiting")
    register_payload_codec(Scrambled("k9"))
    run.signal("word", "from afar")
    payloads.forget_all()
    bench.wait_for(run, "halted")
    register_payload_codec(Scrambled("k9"))
    run.resume()
    assert run.result(timeout=20)[-1] == "from afar"


@pytest.mark.parametrize("flow", [waits_for_child, waits_for_child_async], ids=["sync", "async"])
def test_the_outcome_of_a_child_whose_key_is_missing_halts_its_parent(bench: Bench, flow: object) -> None:
    bench.agent()
    run = bench.start(flow)
    bench.wait_for(run, "waiting")
    bench.stop()
    # The code of the child runs where the key is.
    register_payload_codec(Scrambled("k9"))
    bench.agent(registry=elsewhere)
    eventually(lambda: bench.one("select finished_at from outlast_task where name = 'far_away'"))
    bench.stop()
    payloads.forget_all()
    bench.agent()
    bench.wait_for(run, "halted")
    with pytest.raises(RunHalted, match="'k9'"):
        run.result()
    register_payload_codec(Scrambled("k9"))
    run.resume()
    assert run.result(timeout=20) == "from afar"


def test_a_codec_that_cannot_decode_is_named(bench: Bench) -> None:
    register_payload_codec(Scrambled("k1"))
    run = bench.start(quick)
    broken.add("k1")
    bench.agent()
    bench.wait_for(run, "halted")
    with pytest.raises(RunHalted, match="'k1': it fails by OSError"):
        run.result()


def test_a_codec_that_cannot_encode_stores_nothing_plain_and_fails_no_run(bench: Bench) -> None:
    register_payload_codec(Scrambled("k1"))
    run = bench.start(all_of_it, SECRET)
    done = bench.start(quick)
    writes = payloads.writer
    assert writes is not None
    payloads.writer = type("NoMore", (Scrambled,), {"encode": lambda *_: 1 / 0})("k1")
    with pytest.raises(PayloadNotEncoded, match="'k1' cannot encode: ZeroDivisionError"):
        bench.start(quick)
    bench.agent()
    assert {bench.wait_for(one, "halted") for one in (run, done)} == {"halted"}
    assert tell_tales(bench) == []
    payloads.writer = writes
    run.resume()
    done.resume()
    run.signal("word", SECRET)
    assert run.result(timeout=20)[-1] == SECRET
    assert done.result(timeout=20) == SECRET


def test_the_undo_knows_of_a_sealed_error_that_its_step_may_have_taken_effect(bench: Bench) -> None:
    register_payload_codec(Scrambled("k1"))
    bench.agent()
    run = bench.start(overruns, SECRET)
    eventually(lambda: SECRET in effects)
    bench.wait_for(run, "waiting")
    effects.append("free")
    with pytest.raises(StepTimeout):
        run.result(timeout=20)
    assert effects[-1] == "unknown"
    with without_codecs():
        assert [one.outcome for one in undone_of(bench.journal(run))] == ["unknown"]
    assert run.status == "compensated"


def test_a_retry_knows_equal_input_again_under_a_codec_that_never_writes_the_same(bench: Bench) -> None:
    register_payload_codec(Scrambled("k1"))
    bench.agent()
    run = bench.start(retried, SECRET)
    with pytest.raises(ValueError):
        run.result(timeout=20)
    effects.append("stop")
    assert run.retry(from_step=None).result(timeout=20) == SECRET


def test_a_schedule_is_written_anew_for_another_codec_and_not_else(bench: Bench) -> None:
    def revision() -> int:
        bench.engine.schedule("nightly", quick, outlast.Cron("0 2 * * *"), input={"text": SECRET})
        return bench.one("select revision from outlast_schedule where name = 'nightly'")

    first = revision()
    register_payload_codec(Scrambled("k1"))
    assert [revision(), revision()] == [first + 1, first + 1]
    assert tell_tales(bench) == []


def test_two_codecs_that_would_write_are_refused() -> None:
    register_payload_codec(Scrambled("k1"))
    register_payload_codec(Scrambled("k1"))
    with pytest.raises(InvalidDefinition, match=r"'k1' and 'k2'.*writes=False"):
        register_payload_codec(Scrambled("k2"))


@pytest.mark.parametrize("codec", [object(), type("Nameless", (Zlib,), {"name": ""})(), type("Half", (), {"name": "half"})()])
def test_what_is_no_codec_is_refused(codec: object) -> None:
    with pytest.raises(InvalidDefinition):
        register_payload_codec(codec)  # type: ignore[arg-type]


def test_an_export_is_plain_and_is_replayed_without_the_key(bench: Bench, tmp_path: Path) -> None:
    import json

    import msgspec

    from outlast.store import journal, sealing
    from outlast.views.open_runs import recorded_run

    register_payload_codec(Scrambled("k1"))
    bench.agent()
    run = bench.start(quick)
    run.result(timeout=20)
    claimed = recorded_run(bench.store.connection(), bench.task_id(run))
    claimed.input = payloads.opened(claimed.input)
    entries = sealing.opened(journal.load(bench.store.connection(), bench.task_id(run)))
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"recording": {"claimed": msgspec.to_builtins(claimed), "journal": msgspec.to_builtins(entries)}}))
    payloads.forget_all()
    assert replays(quick, history=file) == []


def test_a_stray_has_ended_even_if_what_came_of_it_cannot_be_encoded() -> None:
    register_payload_codec(Scrambled("k1"))
    broken.add("k1")
    late = StrayEnded(1, 2, "3", Entry(0, "3", "completed", "step", "slow", 0, data=b"1"), 1)
    assert sealed_or_refused(late) == StrayEnded(1, 2, "3", None, 1)
