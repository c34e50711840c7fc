"""A disk that remembers every write, and what a power cut would have left of it.

Owns the recording VFS and the images. Until a file is synced, the disk may have of each of its 512-byte sectors any version since the
last sync, whatever it has of the others: so writes are lost, reordered and torn; a sector may also hold rubbish where it was being
written. A file's length, its making and its removal are as uncertain until the file, or its folder, is synced. Refuses what SQLite may
rely on not to happen: bytes change only where somebody writes (its `powersafe overwrite`), and what was synced stays.
"""

from __future__ import annotations

import os
import random
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

SECTOR = 512
_NAME = "outlast-power"
_disks: list[Disk] = []


@dataclass(frozen=True, slots=True)
class Event:
    """Something that reached the disk: `write`, `truncate`, `sync`, `make`, `remove`."""

    what: str
    name: str
    offset: int = 0
    data: bytes = b""
    syncs_folder: bool = False


@dataclass
class _File:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Event] = field(default_factory=list)


class Disk:
    """The events of one folder, in order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[Event] = []
        self.lock = threading.RLock()
        self._new: set[str] = set()

    def __enter__(self) -> Disk:
        assert not _disks, "one at a time"
        _disks.append(self)
        self._vfs = _Recording()
        return self

    def __exit__(self, *_: object) -> None:
        self._vfs.unregister()
        _disks.clear()

    def note(self, event: Event) -> None:
        with self.lock:
            self.events.append(event)

    def made(self, name: str, *, by_sqlite: bool) -> None:
        with self.lock:
            self.note(Event("make", name))
            # SQLite syncs the folder when it first syncs a journal that it has made; nobody does it for other files.
            if by_sqlite and name.endswith(("-wal", "-journal")):
                self._new.add(name)

    def synced(self, name: str) -> None:
        with self.lock:
            self.note(Event("sync", name, syncs_folder=name in self._new))
            self._new.discard(name)

    def place(self) -> int:
        with self.lock:
            return len(self.events)

    def images(self) -> Images:
        return Images(self.events)


class Images:
    """Goes through the events once, in order, and makes images on the way."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events
        self._at = 0
        self._files: list[_File] = []
        self._durable: dict[str, int] = {}
        self._names: dict[str, list[int | None]] = {}
        """What each name has meant since the folder was synced; the last one is what it means."""

    def advance(self, cut: int) -> None:
        """Go on to just before event number `cut`."""
        assert cut >= self._at
        while self._at < cut:
            self._apply(self._events[self._at])
            self._at += 1

    def _apply(self, event: Event) -> None:
        match event.what:
            case "make":
                self._files.append(_File())
                self._names.setdefault(event.name, []).append(len(self._files) - 1)
            case "remove":
                self._names.setdefault(event.name, []).append(None)
            case "sync":
                file = self._file(event.name)
                for one in file.pending:
                    _write(file.durable, one)
                file.pending.clear()
            case _:
                self._file(event.name).pending.append(event)
        if event.syncs_folder:
            for name, history in self._names.items():
                if history[-1] is None:
                    self._durable.pop(name, None)
                else:
                    self._durable[name] = history[-1]
            self._names.clear()

    def _file(self, name: str) -> _File:
        history = self._names.get(name)
        number = history[-1] if history else self._durable[name]
        assert number is not None
        return self._files[number]

    def write(self, folder: Path, seed: int) -> None:
        """What the disk holds if the power fails here. The same seed gives the same image."""
        chance = random.Random(seed)
        mood = chance.choice(("none", "all", "any", "any", "late", "rubbish"))
        for name in sorted({*self._durable, *self._names}):
            versions = [self._durable.get(name), *self._names.get(name, [])]
            number = chance.choice(versions) if mood not in ("none", "all") else versions[0 if mood == "none" else -1]
            if number is not None:
                (folder / os.path.basename(name)).write_bytes(_survivor(self._files[number], chance, mood))


def _write(content: bytearray, event: Event) -> None:
    if event.what == "truncate":
        del content[event.offset :]
        return
    if len(content) < event.offset:
        content.extend(bytes(event.offset - len(content)))
    content[event.offset : event.offset + len(event.data)] = event.data


def _survivor(file: _File, chance: random.Random, mood: str) -> bytes:
    if not file.pending or mood == "none":
        return bytes(file.durable)
    # Each sector's versions since the last sync; a sector that nothing touched has one.
    content = bytearray(file.durable)
    versions: dict[int, list[bytes]] = {}
    lengths = [len(content)]
    for event in file.pending:
        before = len(content)
        end = max(before, len(content)) if event.what == "truncate" else event.offset + len(event.data)
        for number in range(min(event.offset, before) // SECTOR, -(-end // SECTOR)):
            versions.setdefault(number, [bytes(content[number * SECTOR : (number + 1) * SECTOR])])
        _write(content, event)
        lengths.append(len(content))
        for number in range(min(event.offset, before) // SECTOR, -(-end // SECTOR)):
            versions[number].append(bytes(content[number * SECTOR : (number + 1) * SECTOR]))
    if mood == "all":
        return bytes(content)
    survivor = bytearray(file.durable)
    survivor.extend(bytes(max(0, max(lengths) - len(survivor))))
    # "late": nearly everything had reached the disk, and a few sectors had not.
    kept = chance.random() if mood != "late" else 0.95
    for number, found in sorted(versions.items()):
        chosen = found[-1] if chance.random() < kept else chance.choice(found)
        if mood == "rubbish" and chance.random() < 0.2:
            chosen = _rubbish(found, chance)
        survivor[number * SECTOR : number * SECTOR + len(chosen)] = chosen
    length = lengths[-1] if chance.random() < kept else chance.choice(lengths)
    return bytes(survivor[:length])


def _rubbish(versions: list[bytes], chance: random.Random) -> bytes:
    """Random bytes where versions differ: only there was anything being written."""
    length = min(len(one) for one in versions)
    noise = chance.randbytes(length)
    changed = bytes(noise[n] if len({one[n] for one in versions}) > 1 else versions[0][n] for n in range(length))
    return changed + versions[-1][length:]


class _Recording(apsw.VFS):
    """SQLite's own VFS, that is, a real file, with every change noted."""

    def __init__(self) -> None:
        super().__init__(_NAME, base="unix")

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        is_new = path is not None and not os.path.exists(path)
        file = _RecordingFile(name, flags, path)
        if is_new:
            _disks[0].made(path, by_sqlite=True)
        return file

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, False)
        _disks[0].note(Event("remove", filename, syncs_folder=bool(syncdir)))


class _RecordingFile(apsw.VFSFile):
    def __init__(self, name: Any, flags: list[int], path: str) -> None:
        super().__init__("unix", name, flags)
        self._path = path

    def xWrite(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        _disks[0].note(Event("write", self._path, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:
        super().xTruncate(newsize)
        _disks[0].note(Event("truncate", self._path, newsize))

    def xSync(self, flags: int) -> None:
        # The real disk need not be waited for: what counts is that SQLite asked.
        _disks[0].synced(self._path)


def open_recorded(path: str) -> apsw.Connection:
    return apsw.Connection(path, vfs=_NAME, flags=apsw.SQLITE_OPEN_READWRITE, statementcachesize=512)
