"""A folder of text files becomes a full-text index: each file extracted, summarised and indexed by a run of its own.

    outlast run index_folder folder=~/notes
    outlast run search query="durable AND crash"

The index is SQLite's own full-text search, in tables beside Outlast's in the same file: a document and the journal entry that
says so are one transaction, so a crash leaves neither half a document nor two. A file that cannot be read fails its own run
and is named in the report; the others go on. A file that has not changed since it was indexed is left as it is.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from outlast import Fail, OutlastError, Retry, current, publish, sqlite3, step, transaction, workflow

LARGEST = 20_000_000
"""Bytes of a file. What is larger is hardly a document."""


@dataclass(frozen=True)
class Document:
    """What is known of one file. Its text stays in the file and in the index: journals are for small values."""

    path: str
    digest: str
    title: str
    words: int


@dataclass(frozen=True)
class Report:
    folder: str
    indexed: int = 0
    unchanged: int = 0
    removed: int = 0
    words: int = 0
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Hit:
    path: str
    title: str
    summary: str
    snippet: str


@workflow
def index_folder(folder: str, pattern: str = "**/*.txt", sentences: int = 2) -> Report:
    """Index every file of a folder that fits the pattern; `**/*.md`, say, for Markdown."""
    paths = find(folder, pattern)
    children = [(path, index_document.start(path, sentences)) for path in paths]
    indexed = unchanged = words = 0
    failed: dict[str, str] = {}
    for path, child in children:
        try:
            found = child.result()
        except (Unreadable, OutlastError) as error:
            failed[path] = str(error)
        else:
            indexed += found is not None
            unchanged += found is None
            words += found or 0
        publish("progress", {"done": indexed + unchanged + len(failed), "of": len(children)})
    removed = forget_missing(folder, pattern, paths)
    return Report(folder, indexed, unchanged, removed, words, failed)


@workflow
def index_document(path: str, sentences: int = 2) -> int | None:
    """Index one file; gives its number of words, or None where the index has it as it is."""
    document = extract(path)
    if is_indexed(document):
        return None
    return index(document, summarise(path, sentences))


@workflow
def search(query: str, limit: int = 10) -> list[Hit]:
    """Look into the index. The query is SQLite's: words, "a phrase", AND, OR, NOT, a prefix by `*`."""
    return look_up(query, limit)


class Unreadable(Fail):
    """The file is no text, or not there: trying again does not help."""


@step
def find(folder: str, pattern: str) -> list[str]:
    """The files of a folder, by name."""
    root = Path(folder).expanduser().resolve()
    if not root.is_dir():
        raise Unreadable(f"{root} is not a folder.")
    return sorted(str(path) for path in root.glob(pattern) if path.is_file())


@step(retry=Retry(3, on=OSError, unless=FileNotFoundError, initial="200ms"), timeout="1m")
def extract(path: str) -> Document:
    """Read a file and say what it is."""
    text = _text(path)
    first = next((line.strip(" #\t") for line in text.splitlines() if line.strip(" #\t")), "")
    return Document(path, _digest(text), first[:200] or Path(path).stem, len(_words(text)))


@step(timeout="1m")
def summarise(path: str, sentences: int) -> str:
    """The sentences that have most of the document's frequent words, in their order."""
    text = " ".join(_text(path).split())
    found = [one for one in re.split(r"(?<=[.!?])\s+", text) if len(_words(one)) > 2]
    weight = Counter(word for word in _words(text) if len(word) > 3)

    def score(sentence: str) -> float:
        words = _words(sentence)
        return sum(weight[word] for word in words) / (len(words) + 5)

    best = sorted(sorted(range(len(found)), key=lambda number: -score(found[number]))[:sentences])
    return " ".join(found[number] for number in best)[:2000]


@transaction
def is_indexed(db: sqlite3.Connection, document: Document) -> bool:
    """Whether the index has this very text."""
    _make_tables(db)
    row = db.execute("select digest from document where path = ?", (document.path,)).fetchone()
    return row is not None and row[0] == document.digest


@transaction
def index(db: sqlite3.Connection, document: Document, summary: str) -> int:
    """Put a document into the index, in the place of an older form of it."""
    text = _text(document.path)
    if _digest(text) != document.digest:
        raise Unreadable(f"{document.path} changed while it was indexed; index it again.")
    _remove(db, document.path)
    number = db.execute(
        "insert into document (path, digest, title, summary, words, indexed_by) values (?, ?, ?, ?, ?, ?)",
        (document.path, document.digest, document.title, summary, document.words, current().run_id),
    ).lastrowid
    db.execute("insert into document_text (rowid, title, text) values (?, ?, ?)", (number, document.title, text))
    return document.words


@transaction
def forget_missing(db: sqlite3.Connection, folder: str, pattern: str, paths: list[str]) -> int:
    """Take out of the index what the pattern would find in the folder, were it still there; gives how many."""
    _make_tables(db)
    root, there = Path(folder).expanduser().resolve(), set(paths)
    known = [path for (path,) in db.execute("select path from document")]
    gone = [path for path in known if path not in there and root in Path(path).parents and Path(path).match(pattern)]
    for path in gone:
        _remove(db, path)
    return len(gone)


@transaction
def look_up(db: sqlite3.Connection, query: str, limit: int) -> list[Hit]:
    """The best hits first."""
    _make_tables(db)
    try:
        rows = db.execute(
            "select d.path, d.title, d.summary, snippet(document_text, 1, '[', ']', ' … ', 16) from document_text "
            "join document d on d.id = document_text.rowid where document_text match ? order by rank limit ?",
            (query, limit),
        ).fetchall()
    except sqlite3.OperationalError as error:
        raise Fail(f"{query!r} is not a query: {error}.") from None
    return [Hit(*row) for row in rows]


def _make_tables(db: sqlite3.Connection) -> None:
    db.execute(
        "create table if not exists document (id integer primary key, path text not null unique, digest text not null, "
        "title text not null, summary text not null, words integer not null, indexed_by text not null)"
    )
    db.execute("create virtual table if not exists document_text using fts5 (title, text)")


def _remove(db: sqlite3.Connection, path: str) -> None:
    for (number,) in db.execute("select id from document where path = ?", (path,)).fetchall():
        db.execute("delete from document_text where rowid = ?", (number,))
        db.execute("delete from document where id = ?", (number,))


def _text(path: str) -> str:
    file = Path(path)
    try:
        if file.stat().st_size > LARGEST:
            raise Unreadable(f"{path} has more than {LARGEST:,} bytes.")
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise Unreadable(f"{path} is not there.") from None
    except UnicodeDecodeError as error:
        raise Unreadable(f"{path} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}.") from None
    if "\0" in text:
        raise Unreadable(f"{path} is not text: it has NUL characters.")
    return text


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
