"""Whether the store of a run config can be opened, without a change to it or to what is beside it."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from llamastack.stack.config import LoadedConfig
from llamastack_cli.doctor.report import Check, Outcome, Place

_ADVICE = "check `store.config.path`, and the rights of the file and its folder"
_DAMAGED = "the file is damaged or not a store: restore a copy, or move it away"
_TIMEOUT_S = 2.0
_KERNEL_FOLDERS = ("/proc", "/sys")
"""No program can make files in them, although an administrator seems to have the right."""


def check_store(config: LoadedConfig) -> Check:
    """The check of the configured store. Only the built-in ones are looked at; others could not be without a change."""
    configured = config.run.store
    kind = configured.type if configured else ("sqlite" if config.folder else "memory")
    if kind == "memory":
        return Check(name="store", about=kind, outcome=Outcome.OK, message="forgets everything at the end")
    if kind != "sqlite":
        return Check(name="store", about=kind, outcome=Outcome.SKIPPED, message="not opened: it could change")
    given = configured.config.get("path") if configured else None
    file = Path(str(given)).expanduser() if given else Path(str(config.folder)) / "registry.sqlite"
    fault, advice = file_fault(file), _ADVICE
    if fault is None and file.exists():
        fault, advice = _database_fault(file)
    place = Place.of(
        config.source, config.line_of(("store",)) if configured else None, ("store",) if configured else ()
    )
    if fault is not None:
        about, message = f"{kind} {file}", f"cannot be opened: {fault}"
        return Check(name="store", about=about, outcome=Outcome.FAIL, message=message, place=place, advice=advice)
    message = "can be opened" if file.exists() else "is not there yet; the first start makes it"
    return Check(name="store", about=f"{kind} {file}", outcome=Outcome.OK, message=message)


def file_fault(file: Path) -> str | None:
    """Why this process could not read and write a file or folder, or make it; None if it could."""
    try:
        if file.exists():
            need = os.R_OK | os.W_OK | (os.X_OK if file.is_dir() else 0)
            return None if os.access(file, need) else "this process has no right to read and write it"
        folder = next(parent for parent in file.parents if parent.exists())
        if not stat.S_ISDIR(folder.stat().st_mode):
            return f"{folder} is a file, not a folder"
        if _is_of_kernel(folder):
            return f"nobody can make a file or folder in {folder}"
        return None if os.access(folder, os.W_OK | os.X_OK) else f"this process has no right to write in {folder}"
    except OSError as error:
        return error.strerror or type(error).__name__


def _is_of_kernel(folder: Path) -> bool:
    return any(os.path.ismount(each) and folder.stat().st_dev == os.stat(each).st_dev for each in _KERNEL_FOLDERS)


def sqlite_fault(file: Path, header: Mapping[str, object]) -> str | None:
    """Why a provider cannot use a SQLite file that is there, as its header says; None if it can.

    header: `application_id` of the provider's files, and the newest `user_version` that it knows.
    """
    try:
        with closing(_opened(file)) as connection:
            has_tables = connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None
            [application_id] = connection.execute("PRAGMA application_id").fetchone()
            [version] = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.DatabaseError as error:
        return str(error)
    newest = header.get("user_version")
    if application_id != header.get("application_id", application_id):
        return "it is a SQLite file of something else" if has_tables else None
    if isinstance(newest, int) and version > newest:
        return f"a newer version of the provider wrote it: version {version}, and {newest} is the newest known here"
    return None


def _opened(file: Path) -> sqlite3.Connection:
    """For reading. Nothing is written: a file that is in use has all files beside it.

    SQLite makes the files beside a database that is not in use even for reading. `immutable` keeps it from that.
    """
    in_use = all(file.with_name(file.name + ending).exists() for ending in ("-wal", "-shm"))
    uri = f"file:{quote(str(file.resolve()))}?mode=ro{'' if in_use else '&immutable=1'}"
    return sqlite3.connect(uri, uri=True, timeout=_TIMEOUT_S)


def _database_fault(file: Path) -> tuple[str | None, str]:
    """(why SQLite cannot read it, what to do)."""
    if not file.is_file():
        return "it is not a file", _ADVICE
    try:
        with closing(_opened(file)) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "records" in names:
                connection.execute("SELECT kind, key, version FROM records LIMIT 1").fetchall()
    except sqlite3.DatabaseError as error:
        damaged = error.sqlite_errorcode in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
        return str(error), _DAMAGED if damaged else _ADVICE
    return None, ""
