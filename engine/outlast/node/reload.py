"""Which source files have changed: for `outlast up --reload`.

Owns the walk over the app's folders and over what this process has imported from the project, and their times
of change. Refuses to reload anything in this process: agents are replaced by new ones. Looks twice a second
at the metadata of files; for development.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from .. import clock
from ..definition import registry
from ..settings import find_root

LOOK_SECONDS = 0.5

_OWN_FOLDER = f"{Path(clock.__file__).parent}{os.sep}"


class SourceWatch:
    """The state of the source at its last look."""

    def __init__(self, apps: Sequence[str], *, root: Path | None = None) -> None:
        """`apps`: what was named; a file or folder is looked at whether or not it is imported here."""
        self._root = f"{root or find_root()}{os.sep}"
        self._named = [Path(app) for app in apps if Path(app).exists()]
        self._due_at = 0.0
        self._seen = self._look()

    def is_due(self, now: float) -> bool:
        """Whether it is time for another look; `now` in seconds of `time.monotonic`."""
        if now < self._due_at:
            return False
        self._due_at = now + LOOK_SECONDS
        return True

    def changed(self) -> list[str]:
        """The files that were changed, added or removed since the last look."""
        before, self._seen = self._seen, self._look()
        return sorted({path for path, _ in before.items() ^ self._seen.items()})

    def _look(self) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        for path in self._files():
            try:
                seen = os.stat(path)  # noqa: PTH116 - thousands of them, twice a second
            except OSError:
                continue
            found[path] = (seen.st_mtime_ns, seen.st_size)
        return found

    def _files(self) -> Iterator[str]:
        for place in self._named:
            if place.is_file():
                yield str(place)
                continue
            for folder, folders, names in os.walk(place):
                folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
                yield from (f"{folder}/{name}" for name in names if name.endswith(".py"))
        # Of the folders that define something, also files that are new; of the rest of the project what is
        # imported.
        definitions = [*registry.workflows(), *registry.steps()]
        for directory in {os.path.dirname(definition.file) for definition in definitions}:  # noqa: PTH120
            with suppress(OSError):
                yield from (str(path) for path in Path(directory).glob("*.py"))
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if isinstance(file, str) and file.startswith(self._root) and self._is_ours(file):
                yield file

    def _is_ours(self, file: str) -> bool:
        return not file.startswith(_OWN_FOLDER) and "site-packages" not in file
