"""A copy of the file that is whole, made while others write.

Owns the one way to copy: SQLite's backup API, within one read transaction, so that the copy is one instant of
the source and no writer makes it begin again. Refuses to overwrite, and never shows half a copy: it grows
under another name in the target's folder and takes its own only when it is complete and on disk.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from ..errors import AlreadyExists, FileMissing, NotADatabase, StoreDamaged, StoreError, StoreFull, StoreReadOnly
from .connection import connect
from .library import sqlite3
from .translation import translate

_PAGES = 2_000
"""Pages copied between two calls of `progress`."""


def backup(
    source_path: str | os.PathLike[str],
    target_path: str | os.PathLike[str],
    *,
    allow_network: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Copy the database to a new file with rights 0600. `progress` is given the pages done and the pages in
    all.

    If the process dies on the way, nothing has the target's name; a hidden `.part` file may be left.
    """
    source_name = os.path.abspath(source_path)  # noqa: PTH100
    target_name = os.path.abspath(target_path)  # noqa: PTH100
    folder, file_name = os.path.split(target_name)
    if os.path.lexists(target_name):
        raise AlreadyExists(f"{target_name} exists already.", hint="Name a file that does not exist yet.")
    if not os.path.isdir(folder):  # noqa: PTH112
        raise FileMissing(target_name, hint=f"Its folder {folder} does not exist; create it first.")
    part = f"{folder}/.{file_name}.{os.getpid()}-{os.urandom(4).hex()}.part"
    source = connect(source_name, create=False, allow_network=allow_network)
    try:
        _create(part, target_name)
        try:
            _copy(source, part, source_name, target_name, progress)
            _give_name(part, target_name)
        finally:
            for left in (part, f"{part}-journal", f"{part}-wal", f"{part}-shm"):
                _unlink(left)
        _sync_folder(folder)
    finally:
        source.close()


def _copy(
    source: sqlite3.Connection,
    part: str,
    source_name: str,
    target_name: str,
    progress: Callable[[int, int], None] | None,
) -> None:
    target = sqlite3.connect(part, isolation_level=None)
    try:
        # On disk before it gets its name: the API syncs as the connection does.
        target.execute("pragma synchronous = full")
        source.execute("begin")
        try:
            source.execute("select 1 from sqlite_schema limit 1").fetchone()
            source.backup(target, pages=_PAGES, progress=_counted(progress), sleep=0.01)
        finally:
            source.execute("rollback")
        _verify(target, source_name)
    except sqlite3.Error as error:
        found = translate(error, target_name)
        # The target is new: only the source can be damaged.
        raise (translate(error, source_name) if isinstance(found, StoreDamaged | NotADatabase) else found) from error
    finally:
        target.close()


def _counted(progress: Callable[[int, int], None] | None) -> Callable[[int, int, int], None] | None:
    if progress is None:
        return None
    return lambda _status, remaining, total: progress(total - remaining, total)


def _verify(target: sqlite3.Connection, source_name: str) -> None:
    """Read the copy. It is page for page what the source is, so damage in it is the source's."""
    # An empty source gives an empty copy, of which there is nothing to verify.
    found = target.execute("pragma quick_check(1)").fetchone()
    if found is not None and found[0] != "ok":
        raise StoreDamaged(source_name, " ".join(str(found[0]).split()))


def _create(part: str, target_name: str) -> None:
    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise _refusal(error, target_name) from error


def _give_name(part: str, target_name: str) -> None:
    """Rename without overwriting: a link fails where the name is taken by now, a rename would replace it."""
    try:
        os.link(part, target_name)
    except FileExistsError:
        raise _refusal(FileExistsError(errno.EEXIST, "exists"), target_name) from None
    except OSError:
        # A file system without links: take the name first, then replace the empty file that is ours.
        try:
            os.close(os.open(target_name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            os.replace(part, target_name)  # noqa: PTH105
        except OSError as error:
            raise _refusal(error, target_name) from error


def _refusal(error: OSError, target_name: str) -> Exception:
    match error.errno:
        case errno.EEXIST:
            return AlreadyExists(f"{target_name} exists already.", hint="Name a file that does not exist yet.")
        case errno.ENOSPC | errno.EDQUOT:
            return StoreFull(target_name)
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return StoreReadOnly(target_name)
        case _:
            return StoreError(f"{target_name} cannot be written: {error.strerror}.", hint="Name another folder.")


def _sync_folder(folder: str) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def _unlink(name: str) -> None:
    try:
        os.unlink(name)  # noqa: PTH108
    except OSError:
        pass
