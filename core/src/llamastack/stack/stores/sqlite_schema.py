"""The tables of the sqlite store, and the upgrade of a file that an older version of llamastack wrote."""

from __future__ import annotations

import sqlite3
import time

from llamastack.provider.store import TOMBSTONE_S

_VERSION = 1
"""In the file as `PRAGMA user_version`. A file without tables has 0."""
_TABLES = """
CREATE TABLE records (
    version INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT,
    expires_at REAL,
    UNIQUE (kind, key)
);
CREATE INDEX records_of_kind ON records (kind);
CREATE INDEX records_that_expire ON records (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE removed (up_to INTEGER NOT NULL);
INSERT INTO removed VALUES (0)
"""
# Version 0 also had registrations in a table of its own.
_COPY_OBJECTS = """
INSERT INTO records (version, kind, key, value, expires_at)
SELECT sequence, kind, identifier, body, CASE WHEN body IS NULL THEN ? END FROM objects
"""


def prepare(connection: sqlite3.Connection, timeout_s: float) -> None:
    """Make or upgrade the tables, in one transaction; other processes may do the same at the same time.

    timeout_s: how long to wait for them.
    Raises OSError for a file of a newer version of llamastack, and sqlite3.Error.
    """
    _use_wal(connection, timeout_s)
    if _version(connection) == _VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if _version(connection) == 0:  # else another process was first
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'objects'").fetchone():
                connection.execute(_COPY_OBJECTS, (time.time() + TOMBSTONE_S,))
                connection.execute("DROP TABLE objects")
            connection.execute(f"PRAGMA user_version = {_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > _VERSION:
        raise OSError(
            f"a newer llamastack wrote it: its schema has version {version}, and {_VERSION} is the newest known here; "
            "install a newer llamastack, or set another store.config.path"
        )
    return version


def _use_wal(connection: sqlite3.Connection, timeout_s: float) -> None:
    """Switch the file to a write-ahead log. SQLite does not wait by itself if several processes switch at once."""
    give_up_at = time.monotonic() + timeout_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                raise
            time.sleep(0.01)
        else:
            return
