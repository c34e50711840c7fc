"""What a command works on: the file, the code and the settings that the options, the environment and the
project name.

Owns the global options and the rule that a path on the command line is relative to the caller's folder,
whatever the root of the app is. Refuses to open or import anything before a command asks for it.
"""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput, OutlastError, WorkflowNotFound
from . import output

if TYPE_CHECKING:
    from ..definition import Workflow
    from ..definition.registry import Registry
    from ..engine import Engine
    from ..settings import Settings
    from ..store.sqlite import SqliteStore


@dataclass
class Context:
    """The global options of one call of the command line, and what they lead to."""

    db: str | None = None
    apps: tuple[str, ...] = ()
    as_json: bool = False
    as_lines: bool = False
    raw: bool = False
    stores: list[SqliteStore] = field(default_factory=list)
    lent: tuple[str, str | None] | None = None
    """The variable that code reads, and what it was before."""

    @property
    def machine(self) -> bool:
        """Whether a script reads this."""
        return self.as_json or self.as_lines

    @property
    def home(self) -> Path:
        from ..settings import HOME_VARIABLE

        return Path(os.environ.get(HOME_VARIABLE) or ".").absolute()

    @cached_property
    def settings(self) -> Settings:
        from ..settings import resolve

        return resolve(cwd=self.home)

    def settings_with(self, **given: object) -> Settings:
        """The settings, with what this command was given laid over them; None counts as not given."""
        from ..settings import resolve

        return resolve(given, cwd=self.home)

    @cached_property
    def path(self) -> str:
        """The database file, absolute."""
        from ..settings import database_path

        if self.db is not None:
            return database_path(self.db)
        return database_path(cwd=self.home)

    @cached_property
    def app_names(self) -> tuple[str, ...]:
        """What `--app` named; files and folders as absolute paths, since the root may be elsewhere."""
        return tuple(str(Path(app).absolute()) if app and "\0" not in app and Path(app).exists() else app for app in self.apps)

    @cached_property
    def registry(self) -> Registry:
        """The app's definitions; its code is imported here, and finds by `Engine()` the file that `--db` names."""
        from .. import application
        from ..settings import DATABASE_VARIABLE

        if self.db is not None:
            self.lent = (DATABASE_VARIABLE, os.environ.get(DATABASE_VARIABLE))
            os.environ[DATABASE_VARIABLE] = self.path
        # What a module prints while it is imported is no part of the answer.
        with redirect_stdout(sys.stderr):
            return application.load(self.app_names, cwd=self.home)

    def registry_if_whole(self) -> Registry | None:
        """The app's definitions; None, said by the way, where it cannot be loaded: broken code hides nothing of what the file has."""
        try:
            return self.registry
        except OutlastError as error:
            output.note(f"The app cannot be loaded: {error}")
            return None

    def workflow(self, name: str) -> Workflow[..., Any]:
        """The workflow NAME, the newest version of it, or NAME@VERSION; where none at all could be found, the error says where was
        looked.
        """
        registry = self.registry
        name, _, version = name.partition("@")
        try:
            return registry.workflow(name, version or None)
        except WorkflowNotFound as error:
            if not registry.workflows():
                error.hint = f"No workflow is defined at all: {self.looked()}."
            raise

    def looked(self) -> str:
        """Where workflow code was looked for, as the end of a sentence."""
        from ..settings import APP_VARIABLE, find_root, read_project

        root = find_root(self.home)
        if self.apps:
            return f"looked in {', '.join(self.apps)} (--app)"
        if os.environ.get(APP_VARIABLE):
            return f"looked in {os.environ[APP_VARIABLE]} (${APP_VARIABLE}), root {root}"
        project = read_project(root)
        if "app" in project.table:
            return f"looked in {project.table['app']} ({project.file})"
        return f"looked in {root / 'workflows'}; `outlast init` writes a first one, --app names other code"

    def store(self, *, tolerant: bool = True) -> SqliteStore:
        """Open the file. It is closed when the command ends. A `tolerant` one shows damaged texts instead of failing by them."""
        from ..codec import payloads
        from ..store.sqlite import SqliteStore

        self.require_file()
        settings = self.settings
        store = SqliteStore(self.path, allow_network=settings.allow_network, durability=settings.durability)
        self.stores.append(store)
        # A command that needs no code else loads it once it meets a payload of a codec that only code has.
        payloads.look_further = lambda: self.registry
        if tolerant:
            store.connection().tolerate()
        return store

    def warn_of_queues(self) -> None:
        """Say which definitions wait in a queue that neither code nor the file knows: a start of theirs would be refused."""
        from ..store import queues

        if problems := self.registry.undeclared_queues():
            # A file that cannot be read hides no code: who lists that is told of the file elsewhere.
            with suppress(OutlastError):
                store = self.stores[-1] if self.stores else self.store()
                problems = self.registry.undeclared_queues(queues.known(store.connection()))
            for problem in problems:
                output.note(f"{problem} Declare it with Queue(...), or by `outlast queue set`." if problem.endswith(".") else problem)

    def require_file(self) -> None:
        """Raise `FileMissing` where there is no file yet."""
        self.refuse_server()
        if not os.path.lexists(self.path):
            from ..store.translation import file_missing

            raise file_missing(str(self.path))

    def refuse_server(self) -> None:
        """Raise `InvalidInput` for the URL of a server."""
        if "://" in self.path:
            raise InvalidInput(f"{self.path} is not a file; PostgreSQL is not supported yet.", hint="Give the path of a file.")

    def engine(self) -> Engine:
        """The facade over the file, which must be there."""
        from ..engine import Engine

        return Engine.over(self.store(), self.settings)

    def prepare(self, *, migrate: bool) -> list[str]:
        """Make the file where there is none and say so; with `migrate`, bring an old one up to date after a backup."""
        from .schema import bring_up_to_date

        self.refuse_server()
        return bring_up_to_date(self.path, migrate=migrate, allow_network=self.settings.allow_network)

    def find(self, store: SqliteStore, reference: str) -> tuple[int, str]:
        """The run that an id, a prefix of one or WORKFLOW:KEY names."""
        from ..views import find_run

        return find_run(store, reference)

    def close(self) -> None:
        if self.stores:
            from ..codec import payloads

            payloads.look_further = None
        for store in self.stores:
            store.close()
            store.doorbell.close()
        self.stores.clear()
        if self.lent is not None:
            variable, before = self.lent
            if before is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = before

    def answer(self, value: Any) -> None:
        """One JSON document, or lines of them where --jsonl asks and the value is a list."""
        if self.as_lines and isinstance(value, list):
            output.lines(value)
        elif self.as_lines:
            output.lines([value])
        else:
            output.document(value)
