"""How a connection is set for its work: each pragma with its reason.

Owns what a connection is told once it is open. The journal mode is the file's, not the connection's: `connection` sees to it. Refuses
numbers without a measurement: `benchmarks/` shows what each is worth.
"""

from __future__ import annotations

from .. import library
from ..library import sqlite3

_CHECKPOINT_PAGES = 4_000
_CACHE_KIB = 2_048
_CLAIM_CACHE_KIB = 256
_WAL_LIMIT_BYTES = 64 << 20

_SYNCHRONOUS = {"full": "full", "normal": "normal"}


def synchronous(durability: str) -> str:
    """The pragma for each durability; there is no third."""
    # Where there is no WAL, the removal of the journal is the commit: "full" does not sync the folder after it, and a power cut
    # brings the journal back, which undoes what was answered.
    # And "normal" syncs a journal once with its header: what the cut leaves of it may be played back, and break the file.
    if not library.safe:
        return "extra" if durability == "full" else "full"
    return _SYNCHRONOUS[durability]


def set_for_work(connection: sqlite3.Connection, durability: str) -> None:
    # full: each commit is fsynced before its caller is answered. normal: only a checkpoint is; a crash of processes loses nothing.
    connection.execute(f"pragma synchronous = {synchronous(durability)}")
    # The WAL grows to 16 MiB before it is copied into the file: a page that many commits change is then copied once, not each time.
    connection.execute(f"pragma wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    # A WAL that a long reader has let grow beyond this is cut back to it once it starts anew.
    connection.execute(f"pragma journal_size_limit = {_WAL_LIMIT_BYTES}")
    # Statement journals and sorters never touch the disk.
    connection.execute("pragma temp_store = memory")
    # The upper levels of all indexes and the pages of the runs at work. Each thread's connection has its own, filled by whatever passes
    # through it: eight times as much was no faster, since the system keeps the file in memory too, and took 14 MiB of each agent.
    connection.execute(f"pragma cache_size = -{_CACHE_KIB}")
    # A mapped file that somebody truncates kills the process; reads that the cache misses are too few to matter.
    connection.execute("pragma mmap_size = 0")


def set_for_claims(connection: sqlite3.Connection) -> None:
    """For the claims of an idle agent, which its event loop makes: they wait for no lock, and take little memory."""
    connection.execute("pragma busy_timeout = 0")
    # A claim of one task reads some twenty pages, and what others write between two claims makes them void.
    connection.execute(f"pragma cache_size = -{_CLAIM_CACHE_KIB}")
