"""The doorbell: who has committed wakes, at once, the processes that wait for news of the same file.

Owns one Unix datagram socket for each listener, in a folder of the user's that is named by the file's real
path. Refuses to matter: a ring is a hint that may be lost or come for nothing, the tables are the truth, and
nothing here raises into its caller. Processes that cannot meet here (another user, another view of the file
system) find each other's commits by `PRAGMA data_version`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import select
import socket
import stat
import time

_LONGEST_NAME = 100
"""Bytes that fit into `sun_path` on every system, the final zero included."""

_SETTLED_SECONDS = 0.02
"""Longer than the coarsest tick that file systems stamp their changes with."""

_SENT = b"!"


class Doorbell:
    """The bell of one file. Threads may share it; it may be used after a fork."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        real = os.path.realpath(path)
        self._name = hashlib.blake2b(os.fsencode(real), digest_size=8).hexdigest()
        self._houses: list[_House] | None = None
        self._socket: socket.socket | None = None
        self._spare: list[Listener] = []
        self._is_closed = False

    def listen(self) -> Listener:
        """Begin to hear rings.

        Where no socket can be had the listener hears nothing, and says so by `fileno() == -1`.
        """
        for house in self._open():
            bound = house.bind()
            if bound is not None:
                return Listener(*bound)
        return Listener(None, "")

    def take_spare(self) -> Listener | None:
        """A listener that was given back, all that was rung until now forgotten; None where there is none.

        Who waits again and again would else make a socket each time, and whoever rings list the folder anew.
        """
        while True:
            try:
                listener = self._spare.pop()
            except IndexError:
                return None
            if listener.is_of_this_process:
                listener.drain()
                return listener
            listener.close()

    def give_back(self, listener: Listener) -> None:
        """Keep a listener for who waits next; a second one is closed. What is rung until then stays in its socket, as far as that
        has room."""
        if self._spare or listener.fileno() < 0:
            listener.close()
        else:
            self._spare.append(listener)
            if self._is_closed:  # By another thread, while this one waited; looked at last, so that one of the two sees it.
                self.close()

    def ring(self) -> None:
        """Wake every listener. Costs about two microseconds where nobody listens."""
        # Nobody waits with a spare one: who takes it from now on looks at the tables after what is rung for was committed.
        # One that came over a fork is the parent's, who may have taken it.
        silent = {spare.name for spare in self._spare if spare.is_of_this_process}
        for house in self._houses if self._houses is not None else self._open():
            for name in house.listeners():
                if name not in silent:
                    self._send(name)

    def close(self) -> None:
        """Free the sending socket and the spare listener; the next ring makes another."""
        self._is_closed = True
        while self._spare:
            try:
                self._spare.pop().close()
            except IndexError:
                break  # Another thread closes too.
        sender, self._socket = self._socket, None
        if sender is not None:
            sender.close()

    def __del__(self) -> None:
        self.close()

    def _open(self) -> list[_House]:
        self._houses = [house for root in _roots() if (house := _House.make(root, self._name)) is not None]
        return self._houses

    def _send(self, name: str) -> None:
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            self._socket.sendto(_SENT, name)
        except ConnectionRefusedError:
            # Its process died without closing. Names are never used twice, so this cannot take away a living
            # one's.
            _unlink(name)
        except OSError:
            # A full buffer has been rung already; a socket that is gone needs no ring.
            pass


class Listener:
    """Hears the rings of one file. Belongs to one thread or event loop."""

    def __init__(self, bound: socket.socket | None, name: str) -> None:
        self._socket = bound
        self.name = name
        self._process = os.getpid()
        self._poll = select.poll()
        if bound is not None:
            self._poll.register(bound, select.POLLIN)

    @property
    def is_of_this_process(self) -> bool:
        """Whether it was not carried over a fork: parent and child would take each other's rings."""
        return self._process == os.getpid()

    def fileno(self) -> int:
        """The descriptor to watch for reading; -1 where there is none."""
        return self._socket.fileno() if self._socket is not None else -1

    def drain(self) -> bool:
        """Take all rings that have come;

        say whether there was one. Drain before looking at the tables, never after.
        """
        rung = False
        while self._socket is not None:
            try:
                self._socket.recv(16)
            except OSError:
                break
            rung = True
        return rung

    def wait(self, timeout_seconds: float | None) -> bool:
        """Wait for a ring and take it; False when none came in time (None waits for ever)."""
        milliseconds = None if timeout_seconds is None else max(0, -int(-timeout_seconds * 1000 // 1))
        if self._socket is None and milliseconds is None:
            raise ValueError("a listener without a socket hears nothing: give wait() a timeout")
        self._poll.poll(milliseconds)
        return self.drain()

    def close(self) -> None:
        """Stop hearing, and remove the socket (not that of a parent process)."""
        bound, self._socket = self._socket, None
        if bound is None:
            return
        bound.close()
        if self._process == os.getpid():
            _unlink(self.name)


class _House:
    """One folder of listeners, and what it held when it was last listed."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._changed_at = -1
        self._seen_at = 0.0
        self._is_settled = False
        self._names: tuple[str, ...] = ()

    @classmethod
    def make(cls, root: str, name: str) -> _House | None:
        folder = f"{root}/{name}"
        if not (_own_folder(root) and _own_folder(folder)):
            return None
        return cls(folder)

    def listeners(self) -> tuple[str, ...]:
        """The sockets in the folder, listed anew only when it has changed."""
        try:
            changed_at = os.stat(self._folder).st_mtime_ns  # noqa: PTH116
        except OSError:
            # Somebody cleaned up; whoever listens next makes the folder again.
            return ()
        if changed_at == self._changed_at and self._is_settled:
            return self._names
        # Two changes within one tick of the file system's clock carry the same stamp: a listener that came
        # just after our listing would stay unseen. So a listing is trusted only when made well after its
        # stamp was first seen.
        seen_at = time.clock_gettime(time.CLOCK_MONOTONIC)
        if changed_at != self._changed_at:
            self._seen_at = seen_at
        self._is_settled = seen_at - self._seen_at > _SETTLED_SECONDS
        self._changed_at = changed_at
        try:
            self._names = tuple(f"{self._folder}/{name}" for name in os.listdir(self._folder))  # noqa: PTH208
        except OSError:
            self._names = ()
        return self._names

    def bind(self) -> tuple[socket.socket, str] | None:
        # A name that is never used twice: a ringer that finds a dead socket unlinks it, and must not hit a
        # new one of the same name.
        name = f"{self._folder}/{os.getpid()}-{os.urandom(4).hex()}"
        if len(os.fsencode(name)) >= _LONGEST_NAME:
            return None
        _own_folder(self._folder)
        bound = None
        try:
            bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            bound.setblocking(False)
            bound.bind(name)
        except OSError:
            if bound is not None:
                bound.close()
            return None
        return bound, name


def _roots() -> list[str]:
    """Where listeners of this user may be, the best first.

    All are rung: a service has no XDG_RUNTIME_DIR while its user's shell has one, and still they must hear
    each other.
    """
    user = os.geteuid()
    roots = []
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        roots.append(f"{runtime.rstrip('/')}/outlast")
    if os.path.isdir(f"/run/user/{user}"):  # noqa: PTH112
        roots.append(f"/run/user/{user}/outlast")
    roots.append(f"/tmp/outlast-{user}")
    return list(dict.fromkeys(roots))


def _own_folder(folder: str) -> bool:
    """Make the folder if need be;

    say whether it is ours alone. In /tmp somebody else may have been there first.
    """
    try:
        os.mkdir(folder, 0o700)  # noqa: PTH102
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno != errno.EROFS:
            return False
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    is_private = stat.S_IMODE(found.st_mode) & 0o077 == 0
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and is_private


def _unlink(name: str) -> None:
    try:
        os.unlink(name)  # noqa: PTH108
    except OSError:
        pass
