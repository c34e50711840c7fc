"""Many rows as one.

Owns the form of a query whose rows come as one JSON value, and its reading. Exists because Python's SQLite modules let the interpreter's
lock go and take it back for every row: beside threads that execute runs, a claim of 256 tasks would wait for it 256 times. Refuses blobs,
which JSON cannot hold: ask for `hex(...)` of short ones, and for long ones by a query of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec.json import Decoder, Encoder

from .transaction import Transaction

_decode = Decoder(list[list[Any]]).decode
_encode = Encoder().encode


def as_one_row(columns: str, rest: str) -> str:
    """`select columns rest`, its rows as one. They come in no order."""
    return f"select json_group_array(json_array({columns})) {rest}"


def rows_of(transaction: Transaction, sql: str, parameters: dict[str, Any]) -> list[list[Any]]:
    """The rows of a query made by `as_one_row`."""
    found: str
    (found,) = transaction.execute(sql, parameters).fetchone()
    return _decode(found)


def decoded(rows: str) -> list[list[Any]]:
    """The rows of a part of a query in which they are one value."""
    return _decode(rows)


def ids_of(ids: Iterable[int]) -> str:
    """Many ids as one parameter, for `json_each`."""
    return _encode(list(ids)).decode()
