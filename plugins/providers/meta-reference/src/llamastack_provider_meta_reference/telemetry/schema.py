"""The SQLite file: how it is opened, its tables, and the upgrade of a file that an older version wrote."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from llamastack.provider.descriptor_shortage import SHORTAGE, is_shortage
from llamastack.provider.private_files import make_private, private_file, private_folder

APPLICATION_ID = 0x6C737472
"""In the file's header (`PRAGMA application_id`): says that it is a file of traces."""
VERSION = 3
"""Of the tables, in the file's header (`PRAGMA user_version`)."""
UPGRADES: Mapping[int, str] = {
    1: """
    ALTER TABLE traces ADD COLUMN costs TEXT;
    UPDATE traces SET costs = json_object('', json_array(1, cost)) WHERE cost IS NOT NULL
    """,
    2: """
    CREATE TABLE shared_attributes (
        id INTEGER PRIMARY KEY, attributes TEXT NOT NULL UNIQUE, last_trace INTEGER NOT NULL
    );
    ALTER TABLE spans ADD COLUMN shared INTEGER
    """,
}
"""A version to the statements, separated by `;`, that make the next version of it."""

# A span's row begins with the small number of its trace, not with the random id, so that new rows go to the end of the
# table: a batch then changes few pages. Numbers grow with the time of arrival, and none is used again.
_TABLES = """
CREATE TABLE traces (
    id INTEGER PRIMARY KEY,
    trace_id TEXT NOT NULL UNIQUE,
    seen_s INTEGER NOT NULL,
    start_ns INTEGER NOT NULL,
    end_ns INTEGER,
    root_rank INTEGER NOT NULL,
    root_start_ns INTEGER NOT NULL,
    root_span_id TEXT NOT NULL,
    name TEXT,
    spans INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    input_tokens INTEGER,
    output_tokens INTEGER,
    costs TEXT
);
CREATE INDEX traces_by_start ON traces (start_ns);
CREATE INDEX failed_traces_by_start ON traces (start_ns) WHERE errors > 0;
CREATE TABLE spans (
    trace INTEGER NOT NULL,
    span_id TEXT NOT NULL,
    parent_id TEXT,
    name TEXT,
    kind TEXT NOT NULL,
    start_ns INTEGER NOT NULL,
    end_ns INTEGER,
    status TEXT NOT NULL,
    message TEXT,
    attributes TEXT NOT NULL,
    shared INTEGER,
    PRIMARY KEY (trace, span_id)
) WITHOUT ROWID;
CREATE TABLE shared_attributes (
    id INTEGER PRIMARY KEY, attributes TEXT NOT NULL UNIQUE, last_trace INTEGER NOT NULL
);
CREATE TABLE events (
    trace INTEGER NOT NULL,
    span_id TEXT NOT NULL,
    time_ns INTEGER NOT NULL,
    name TEXT NOT NULL,
    attributes TEXT NOT NULL
);
CREATE INDEX events_of_spans ON events (trace, span_id, time_ns);
CREATE TABLE upkeep (next_id INTEGER NOT NULL, tidy_at REAL NOT NULL, tidying_until REAL NOT NULL);
INSERT INTO upkeep VALUES (1, 0, 0)
"""
_CAUSES = {
    sqlite3.SQLITE_BUSY: "another process keeps it locked",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk is full or faulty",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: remove it to begin with an empty one",
    sqlite3.SQLITE_NOTADB: "the file is damaged or no SQLite file: remove it, or set another path",
    sqlite3.SQLITE_READONLY: "this process has no right to write the file and its folder",
    sqlite3.SQLITE_CANTOPEN: "this process has no right to open the file, or its folder is gone",
}


def open_file(path: Path, *, own_folder: bool, busy_timeout_s: float) -> sqlite3.Connection:
    """A connection to the file of traces, which is made or upgraded where that is needed. Only its owner can read it.

    own_folder: whether the file's folder holds nothing else, and is closed to others too.
    busy_timeout_s: how long each statement waits for other processes.
    Raises OSError, naming the file and the cause, where it cannot be used.
    """
    connection: sqlite3.Connection | None = None
    try:
        private_folder(path.parent, tighten=own_folder)
        private_file(path)  # SQLite makes the files beside it with the same rights
        for ending in ("-wal", "-shm", "-journal"):
            make_private(path.with_name(path.name + ending))
        connection = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
        _prepare(connection, busy_timeout_s)
    except (sqlite3.Error, OSError) as error:
        if connection is not None:
            connection.close()
        raise OSError(f"the file of traces {path} cannot be used: {cause(error)}") from error
    return connection


def _prepare(connection: sqlite3.Connection, timeout_s: float) -> None:
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # has an effect before the first table alone
    if _version(connection) is not None or not _has_tables(connection):
        _use_wal(connection, timeout_s)
    connection.execute("PRAGMA synchronous = NORMAL")
    # perf: llamastack-v1-sqlite. 16 MiB of log before it is copied into the file: each page is then copied less often.
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    connection.execute("PRAGMA journal_size_limit = 16777216")
    connection.execute("PRAGMA cache_size = -8000")  # KiB
    if _version(connection) == VERSION:
        return
    with transaction(connection):
        version = _version(connection)
        if version is None:
            if _has_tables(connection):
                raise OSError("it is a SQLite file of something else; set another path")
            _run(connection, _TABLES)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            version = VERSION
        while version < VERSION:
            _run(connection, UPGRADES[version])
            version += 1
        connection.execute(f"PRAGMA user_version = {VERSION}")


def _version(connection: sqlite3.Connection) -> int | None:
    """The version of the tables; None if there are none of ours."""
    if _pragma(connection, "application_id") != APPLICATION_ID:
        return None
    version = _pragma(connection, "user_version")
    if version > VERSION:
        raise OSError(
            f"a newer version of the provider wrote it: its tables have version {version}, and {VERSION} is the newest "
            "known here; upgrade llamastack-provider-meta-reference, or set another path"
        )
    return version


def _has_tables(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None


def _run(connection: sqlite3.Connection, statements: str) -> None:
    for statement in statements.split(";"):  # `executescript` would commit
        connection.execute(statement)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _use_wal(connection: sqlite3.Connection, timeout_s: float) -> None:
    """Switch the file to a write-ahead log. SQLite does not wait by itself if several processes switch at once."""
    give_up_at = time.monotonic() + timeout_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                raise
            time.sleep(0.01)
        else:
            return


@contextmanager
def transaction(connection: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    """Commit what the block writes; nothing of it if it fails."""
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # after some errors SQLite has rolled back by itself
            connection.execute("ROLLBACK")
        raise


def cause(error: Exception) -> str:
    """What is wrong, for people, with what they can do."""
    if is_shortage(error):
        return SHORTAGE
    known = _CAUSES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
    return f"{error} ({known})" if known else str(error)
