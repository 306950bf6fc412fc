"""Moves a sandbox's rows from SQLite to PostgreSQL: seals are over what a row says, not over where it is."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from tests.support.sandbox import Installation, copy_sandbox

from trien_server.store.mapping import ColumnType, tables

_BOOLEANS = {column.name for columns in tables().values() for column in columns if column.type is ColumnType.BOOLEAN}
"""SQLite keeps them as integers."""


def move_to_postgresql(database: Path, url: str) -> int:
    """Copies all rows of an SQLite file into the migrated, empty database of `url`; returns how many."""
    moved = 0
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as source, psycopg.connect(url) as target:
        names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        for (table,) in source.execute(names).fetchall():
            if table == "alembic_version":
                continue
            rows = source.execute(f"SELECT * FROM {table}")
            columns = [column[0] for column in rows.description]
            statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                sql.Identifier(table),
                sql.SQL(", ").join(map(sql.Identifier, columns)),
                sql.SQL(", ").join([sql.Placeholder()] * len(columns)),
            )
            for row in rows.fetchall():
                values = [
                    bool(value) if column in _BOOLEANS else value for column, value in zip(columns, row, strict=True)
                ]
                target.execute(statement, values)
                moved += 1
    if moved == 0:
        raise AssertionError(f"{database} holds no rows")
    return moved


@contextmanager
def running_on_postgresql(directory: Path, url: str, *settings: str, **environment: str) -> Iterator[Installation]:
    """Copies the sandbox, moves its rows into the migrated, empty database of `url`, and runs it there."""
    installation = Installation(copy_sandbox(directory), f"store.url={url}", *settings, **environment)
    move_to_postgresql(installation.database, url)
    installation.database.unlink()
    try:
        installation.start()
        yield installation
    finally:
        installation.kill()
