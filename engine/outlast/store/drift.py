"""Drift: whether a file has the tables, indexes and triggers that its migrations made, and nothing else on them.

Owns the comparison of a file with a schema made anew in memory. Refuses to mend: an index that is missing costs time, a trigger that is
missing costs the guard against illegal moves, and who took it away should say why.
"""

from __future__ import annotations

from functools import cache

from . import migrations
from .library import sqlite3

# An underscore would stand for any character.
_OBJECTS = r"""
select name, sql from sqlite_schema
where (name like 'outlast\_%' escape '\' or tbl_name like 'outlast\_%' escape '\')
  and sql is not null and name not like 'outlast\_migrations%' escape '\'
"""


def differences(connection: sqlite3.Connection) -> list[str]:
    """What of the file's schema is missing, changed, or not ours, in words."""
    wanted = _wanted()
    found = dict(connection.execute(_OBJECTS).fetchall())
    lines = [f"{name} is missing" for name in wanted if name not in found]
    lines += [f"{name} was changed" for name in wanted if name in found and found[name] != wanted[name]]
    lines += [f"{name} is not ours" for name in found if name not in wanted]
    return lines


@cache
def _wanted() -> dict[str, str]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for statement in migrations.statements():
            connection.execute(statement)
        return dict(connection.execute(_OBJECTS).fetchall())
    finally:
        connection.close()
