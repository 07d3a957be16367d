"""The indexes of all vector banks: caches of what the SQLite file has, kept up to date and saved in snapshots."""

from __future__ import annotations

import logging
import threading
import time
from itertools import islice
from pathlib import Path
from typing import cast

import faiss
import numpy as np
from apsw import Connection

from llamastack_memory_kit.sqlite import BankRow
from llamastack_provider_meta_reference.memory.vector_index import DamagedSnapshotError, VectorIndex, write_snapshot

_LOGGER = logging.getLogger("llamastack.memory")
_PAUSE_S = 0.001
_AT_ONCE = 4096
"""Vectors that are read at once: more of them would need much memory beside the index."""


class BehindError(Exception):
    """The index already holds a later state of the bank than the reader sees."""


class Indexes:
    """Every method runs in a thread."""

    def __init__(self, path: Path, exact_up_to: int) -> None:
        """path: of the SQLite file; snapshots are beside it. exact_up_to: vectors up to which there is no graph."""
        self._path = path
        self._exact_up_to = exact_up_to
        self._indexes: dict[int, VectorIndex] = {}
        self._making = threading.Lock()
        self._stopping = threading.Event()
        self._growing: set[int] = set()

    def current(self, db: Connection, row: BankRow) -> VectorIndex:
        """The index of a bank. The caller brings it up to date and searches it while it holds its lock."""
        with self._making:
            index = self._indexes.get(row.id)
            if index is None:
                index = self._loaded(db, row)
                self._indexes[row.id] = index
            return index

    def forget(self, bank_id: int) -> None:
        """A bank is gone."""
        with self._making:
            self._indexes.pop(bank_id, None)
        self._file(bank_id).unlink(missing_ok=True)

    def claim(self, bank_id: int) -> bool:
        """Whether nobody else calls `grow` for a bank; the caller does it then."""
        with self._making:
            is_free = bank_id not in self._growing and not self._stopping.is_set()
            if is_free:
                self._growing.add(bank_id)
            return is_free

    def grow(self, bank_id: int, uid: str) -> None:
        """Move vectors into the graph, if many are outside, and save it. Stops at `stop`. Call it after `claim`."""
        try:
            self._grow(bank_id, uid)
        except Exception:
            _LOGGER.exception("%s: the index cannot grow, so queries compare all vectors", self._file(bank_id))
        finally:
            self._growing.discard(bank_id)

    def _grow(self, bank_id: int, uid: str) -> None:
        index = self._indexes.get(bank_id)
        if index is None or not index.must_grow:
            return
        is_left = True
        while is_left and not self._stopping.is_set():
            with index.lock:
                is_left = index.grow()
            time.sleep(_PAUSE_S)  # a lock is not fair: a query would wait for many steps
        with index.lock:
            if not index.in_graph:
                return
            content = index.snapshot(uid)
        try:
            write_snapshot(self._file(bank_id), content)
        except OSError as error:
            _LOGGER.warning("%s: cannot be written, so the next start takes longer: %s", self._file(bank_id), error)

    def stop(self) -> None:
        """End `grow`."""
        self._stopping.set()

    def _loaded(self, db: Connection, row: BankRow) -> VectorIndex:
        index, file = VectorIndex(row.dimension, self._exact_up_to), self._file(row.id)
        uid = db.execute("SELECT uid FROM vector_banks WHERE bank = ?", (row.id,)).get
        try:
            index.load(file.read_bytes(), str(uid))
        except FileNotFoundError:
            pass
        except (OSError, DamagedSnapshotError, RuntimeError) as error:
            _LOGGER.warning("%s: the index is built again: %s", file, error)
            index = VectorIndex(row.dimension, self._exact_up_to)
        return index

    def _file(self, bank_id: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{bank_id}.faiss")


def bring_up_to_date(index: VectorIndex, db: Connection, row: BankRow) -> None:
    """Take over what has changed in the file since. Raises BehindError if the index is newer."""
    if index.changes > row.changes:
        raise BehindError
    if index.changes == row.changes:
        return
    removals = db.execute("SELECT removals FROM vector_banks WHERE bank = ?", (row.id,)).get
    if removals != index.removals:
        there = db.execute("SELECT chunk FROM vectors WHERE bank = ?", (row.id,)).fetchall()
        index.keep_only(np.array(there, np.int64).reshape(-1))
    faiss.omp_set_num_threads(1)
    sql = "SELECT chunk, vector FROM vectors WHERE bank = ? AND chunk > ? ORDER BY chunk"
    new = iter(db.execute(sql, (row.id, index.last_id)))
    while some := [*islice(new, _AT_ONCE)]:
        vectors = b"".join(cast(bytes, vector) for _, vector in some)
        ids = np.array([chunk for chunk, _ in some], np.int64)
        index.add(ids, np.frombuffer(vectors, "<f4").reshape(len(some), -1))
    index.is_at(row.changes, int(str(removals)))
