"""Opening the file, one connection for each thread, and the one way to write: `transaction`.

Owns the journal mode, the rights of a new file (0600) and the translation of SQLite's errors into ours. Refuses
folders, missing files where the caller may not create, network file systems, and the use of a connection in
another thread or after a fork. Nothing here, or anywhere, `open()`s an existing database file: closing any
descriptor of it drops the locks that SQLite holds for the process.
"""

from __future__ import annotations

import os
import stat
import threading
import time
import warnings
from functools import partial
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from ...errors import FileMissing, NotADatabase, StoreError, StoreFull, StoreReadOnly, StoreReplaced
from .. import descriptor, library
from ..library import sqlite3
from ..translation import BUSY_SECONDS, file_missing, is_lock, is_of_the_file, translate
from ..turn import Turn
from . import over_fork, pragmas
from .filesystem import refuse_network
from .opened_file import Inode, OpenedFile, refuse_other

_STATEMENTS = 512
_TOLERANT = partial(str, encoding="utf-8", errors="replace")

_warned = False


class StoreConnection(sqlite3.Connection):
    """A connection that knows its file, and keeps the other SQLite library away from it while it is open."""

    path: str = ""
    opened: OpenedFile

    def tolerate(self) -> None:
        """Read what is no UTF-8, since somebody or a bad disk has changed it, with a mark instead; each text costs more."""
        self.text_factory = _TOLERANT

    def tolerates(self, error: Exception) -> bool:
        """Whether what failed by such a text can be done again, since one damaged row would fail the claims of all."""
        if self.text_factory is _TOLERANT or "decode to UTF-8" not in str(error):
            return False
        self.tolerate()
        return True

    def close(self) -> None:
        super().close()
        library.release(self.path, self)


def connect(
    path: str | os.PathLike[str],
    *,
    create: bool,
    allow_network: bool = False,
    durability: str = "full",
) -> StoreConnection:
    """Open the file; with `create`, make it if it is not there. Every failure is a typed error, and leaves nothing behind.

    With `durability` "normal" a commit is not fsynced: a power cut can take the last ones.
    """
    name = os.path.abspath(path)  # noqa: PTH100
    # Guarded before it is open, since opening and closing it would already cost the other library its locks.
    opener = _Opener()
    library.guard(name, opener)
    try:
        connection = _open_file(name, create=create, allow_network=allow_network, durability=durability)
    except sqlite3.Error as error:
        raise translate(error, name) from error
    finally:
        library.release(name, opener)
    return connection


class _Opener:
    """Stands for a connection until there is one."""


class transaction:
    """A write transaction: the turn, BEGIN IMMEDIATE, the block, COMMIT; ROLLBACK on whatever leaves it.

    `turn=None` writes without the courtesy. When COMMIT fails, everything is rolled back and the error
    raised. Errors of the file come typed; a constraint's error comes as it is. If the process dies in the
    block, nothing of it was done.
    """

    __slots__ = ("_connection", "_holds_turn", "_timeout_seconds", "_turn")

    def __init__(self, connection: StoreConnection, turn: Turn | None, *, timeout_seconds: float = BUSY_SECONDS) -> None:
        self._connection = connection
        self._turn = turn
        self._timeout_seconds = timeout_seconds
        self._holds_turn = False

    def __enter__(self) -> StoreConnection:
        turn, timeout_seconds = self._turn, self._timeout_seconds
        began = _now()
        # Half of the time at most goes to the courtesy: a holder that is stopped outside SQLite's lock must
        # not lock out others.
        self._holds_turn = turn is not None and turn.acquire(timeout_seconds / 2)
        try:
            if self._holds_turn and timeout_seconds == BUSY_SECONDS:
                self._connection.execute("begin immediate")
            else:
                self._begin_within(max(0.0, timeout_seconds - (_now() - began)))
        except BaseException as error:
            self._let_go()
            if isinstance(error, sqlite3.Error):
                raise translate(error, self._connection.path, seconds=timeout_seconds) from error
            raise
        return self._connection

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                try:
                    self._connection.execute("commit")
                except BaseException as failure:
                    self._roll_back()
                    if isinstance(failure, sqlite3.Error) and is_of_the_file(failure):
                        raise translate(failure, self._connection.path) from failure
                    raise
                return
            self._roll_back()
            if isinstance(error, sqlite3.Error) and is_of_the_file(error):
                raise translate(error, self._connection.path) from error
        finally:
            self._let_go()

    def _begin_within(self, seconds: float) -> None:
        set_busy_seconds(self._connection, seconds)
        try:
            self._connection.execute("begin immediate")
        finally:
            set_busy_seconds(self._connection, BUSY_SECONDS)

    def _roll_back(self) -> None:
        # SQLite itself has rolled back after some errors (a full disk): then there is nothing to undo.
        if self._connection.in_transaction:
            try:
                self._connection.execute("rollback")
            except sqlite3.Error:
                pass

    def _let_go(self) -> None:
        if self._holds_turn and self._turn is not None:
            self._holds_turn = False
            self._turn.release()


class ThreadConnections:
    """The connections of one file: each thread has its own, from its first use until the thread ends."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        create: bool = False,
        allow_network: bool = False,
        durability: str = "full",
        for_claims: bool = False,
        beside: ThreadConnections | None = None,
    ) -> None:
        self.path = os.path.abspath(path)  # noqa: PTH100
        self._create = create
        self._allow_network = allow_network
        self.durability = durability
        self._for_claims = for_claims
        self._inode: list[Inode | None] = beside._inode if beside is not None else []  # Of the first file, once it is open.
        self._local = threading.local()
        self._is_closed = False

    def get(self) -> StoreConnection:
        """The calling thread's connection, to the file that was opened first. One that was inherited by a fork is never used."""
        held: tuple[int, StoreConnection] | None = getattr(self._local, "held", None)
        if held is not None and held[0] == os.getpid() and not self._is_closed:
            try:
                held[1].opened.check()
            except StoreReplaced:
                if held[1].opened.others_write:
                    over_fork.never_close(held[1])
                raise
            return held[1]
        self._drop()
        if self._is_closed:
            raise StoreError(f"{self.path} has been closed here.", hint="Make a new Engine.")
        connection = self._connect()
        if self._for_claims:
            pragmas.set_for_claims(connection)
        self._local.held = (os.getpid(), connection)
        return connection

    def check(self) -> None:
        """Raise `StoreReplaced` where the path does not lead any more to the file that was opened first."""
        if self._inode:
            refuse_other(self.path, self._inode[0])

    def _connect(self) -> StoreConnection:
        # Created once only, and the same file ever after: a thread that comes late would work beside those that still write
        # into the first. Another is not even opened: SQLite would write the first one's WAL into it.
        self.check()
        create = self._create and not self._inode
        connection = connect(self.path, create=create, allow_network=self._allow_network, durability=self.durability)
        self._inode[:] = self._inode or [connection.opened.inode]
        return connection

    def close(self) -> None:
        """Close the calling thread's connection; those of other threads close at their next use, or when the thread ends."""
        self._is_closed = True
        self._drop()

    def _drop(self) -> None:
        held: tuple[int, StoreConnection] | None = self._local.__dict__.pop("held", None)
        if held is not None and held[0] == os.getpid():
            if held[1].opened.is_there() or not held[1].opened.others_write:
                held[1].close()
            else:
                over_fork.never_close(held[1])


def set_busy_seconds(connection: sqlite3.Connection, seconds: float) -> None:
    """How long SQLite itself waits for a lock on this connection."""
    connection.execute(f"pragma busy_timeout = {round(seconds * 1000)}")


def _open_file(name: str, *, create: bool, allow_network: bool, durability: str) -> StoreConnection:
    with over_fork.opening:
        is_new = _prepare(name, create=create, allow_network=allow_network)
        descriptor.occupy_standard()
        connection = sqlite3.connect(
            f"file:{quote(name)}?mode=rw",
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=True,
            factory=StoreConnection,
            cached_statements=_STATEMENTS,
            uri=True,
        )
        connection.path = name
        try:
            library.guard(name, connection)
            over_fork.keep(connection)
            _configure(connection, may_convert=create, is_new=is_new, durability=durability)
            connection.opened = OpenedFile(name)
        except BaseException:
            connection.close()
            raise
    return connection


def _prepare(name: str, *, create: bool, allow_network: bool) -> bool:
    """Check, or create, the file before SQLite opens it; say whether it is new."""
    parent = os.path.dirname(name)  # noqa: PTH120
    try:
        mode = Path(name).stat().st_mode
    except FileNotFoundError:
        if not Path(parent).is_dir():
            raise file_missing(name) from None
        if Path(name).is_symlink():
            raise FileMissing(name, hint=f"It is a link to {Path(name).readlink()}, which is not there.") from None
        if not create:
            raise file_missing(name) from None
        refuse_network(name, allow=allow_network)
        return _create_file(name)
    except NotADirectoryError:
        raise FileMissing(name, hint=f"{parent} is not a folder.") from None
    except OSError as error:
        raise StoreError(f"{name} cannot be opened: {error.strerror}.", hint="Check its path and its rights.") from error
    if not stat.S_ISREG(mode):
        raise NotADatabase(name)
    refuse_network(name, allow=allow_network)
    # Without the right to write into the folder there is no WAL and no shared memory, hence not even reading.
    if not os.access(name, os.W_OK) or not os.access(parent, os.W_OK):
        raise StoreReadOnly(name)
    return False


def _create_file(name: str) -> bool:
    try:
        # Made by us and not by SQLite, so that nobody else can read it at any moment; -wal and -shm inherit its rights.
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    except OSError as error:
        is_full = error.errno in (28, 122)  # ENOSPC, EDQUOT
        raise (StoreFull if is_full else StoreReadOnly)(name) from error
    return True


def _configure(connection: StoreConnection, *, may_convert: bool, is_new: bool, durability: str) -> None:
    if is_new:
        # Before the first page is written: so that room can be given back by and by, without a rewrite of the file.
        connection.execute("pragma auto_vacuum = incremental")
    # The first read of the file: a file that is no database shows here.
    current = connection.execute("pragma journal_mode").fetchone()[0]
    connection.execute("select count(*) from sqlite_schema limit 1").fetchone()
    wanted = "wal" if library.safe else "delete"
    if not library.safe:
        _warn_once()
    # A foreign file, that somebody only looks at, keeps its mode.
    if current != wanted and (is_new or may_convert or _is_ours(connection)):
        _convert(connection, wanted)
    pragmas.set_for_work(connection, durability)


def _convert(connection: StoreConnection, wanted: str) -> None:
    deadline = _now() + BUSY_SECONDS
    while True:
        try:
            connection.execute(f"pragma journal_mode = {wanted}")
            return
        except sqlite3.OperationalError as error:
            # Two processes that open a new file at once: SQLite does not wait here, since waiting could be a deadlock.
            if not is_lock(error):
                raise
            if wanted != "wal":
                return  # Others have it open in WAL, with a library for which that is safe.
            if _now() >= deadline:
                raise
        time.sleep(0.002)


def _is_ours(connection: StoreConnection) -> bool:
    query = "select 1 from sqlite_schema where type = 'table' and name = 'outlast_meta'"
    return connection.execute(query).fetchone() is not None


def _warn_once() -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"SQLite {sqlite3.sqlite_version} has a bug that can damage a WAL file;"
            " outlast uses a slower rollback journal. Install pysqlite3 0.6.1 or later.",
            RuntimeWarning,
            stacklevel=2,
        )


def _now() -> float:
    # A real wait for real processes: neither a test's clock nor freezegun may stop it.
    return time.clock_gettime(time.CLOCK_MONOTONIC)
