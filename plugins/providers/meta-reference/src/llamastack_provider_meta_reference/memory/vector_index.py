"""The vectors of one bank in FAISS: all compared in small banks, an HNSW graph in large ones."""

from __future__ import annotations

import os
import threading
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faiss
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LINKS = 32
_BUILD_BREADTH = 120
_SEARCH_BREADTH = 192
_STEP = 32
"""Vectors that one step of `grow` takes; a query waits for at most one step."""
_FEW = 0.1
"""A part of the vectors that is compared one by one, because HNSW would look at most of the others in vain."""
_TAIL = 0.05
"""A part of the vectors that may be outside the graph before it grows."""
_DEAD = 0.3
"""A part of removed vectors after which the graph is built again."""
_LEAST = 1024
_MAGIC = b"LSFAISS1"
_UID = 32


class DamagedSnapshotError(Exception):
    """A snapshot that cannot be used. Its text says why."""


class VectorIndex:
    """The vectors of a bank, by the ids of their chunks. Ids only grow.

    Vectors have length 1, so that the inner product is the cosine. New vectors go into a list that is compared
    one by one; `grow` moves them into the graph. Its methods block; those that change it or search need `lock`.
    """

    def __init__(self, dimension: int, exact_up_to: int) -> None:
        """dimension: numbers of a vector. exact_up_to: vectors up to which there is no graph."""
        self.lock = threading.Lock()
        """Held while the index is searched or changed."""
        self.changes = -1
        """The state of the bank that it holds: `BankRow.changes`; -1: none."""
        self.removals = -1
        """How often chunks had been removed from the bank then; -1: not known."""
        self._dimension = dimension
        self._exact_up_to = exact_up_to
        self._ids: NDArray[np.int64] = np.empty(0, np.int64)
        self._alive: NDArray[np.bool_] = np.empty(0, np.bool_)
        self._graph: Any = None
        self._tail: Any = faiss.IndexFlatIP(dimension)
        self._tail_from = 0

    @property
    def ids(self) -> NDArray[np.int64]:
        """The ids of the chunks that are there, in order."""
        return self._ids[self._alive]

    @property
    def last_id(self) -> int:
        """The largest id that it ever had; 0 if none."""
        return int(self._ids[-1]) if len(self._ids) else 0

    @property
    def in_graph(self) -> int:
        """How many vectors the graph has, removed ones too."""
        return int(self._graph.ntotal) if self._graph is not None else 0

    def is_at(self, changes: int, removals: int) -> None:
        """The state of the bank that it holds from now on."""
        self.changes, self.removals = changes, removals

    def add(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Add vectors of shape (n, dimension) and length 1. ids: of their chunks, larger than `last_id`."""
        if len(ids):
            self._tail.add(vectors)
            self._ids = np.concatenate([self._ids, ids])
            self._alive = np.concatenate([self._alive, np.ones(len(ids), np.bool_)])

    def keep_only(self, ids: NDArray[np.int64]) -> None:
        """Remove all chunks but these."""
        self._alive &= np.isin(self._ids, ids)
        dead = len(self._ids) - int(self._alive.sum())
        if dead > max(_LEAST, _DEAD * len(self._ids)):
            self._compact()

    def search(self, vector: NDArray[np.float32], most: int, only: NDArray[np.int64] | None) -> list[tuple[int, float]]:
        """The ids of the nearest chunks with their cosines, the nearest first.

        vector: of shape (dimension,). only: the ids that may be found; None: all.
        """
        faiss.omp_set_num_threads(1)
        fits = self._alive if only is None else self._alive & np.isin(self._ids, only)
        asked = of_length_1(vector.reshape(1, -1))
        found: list[tuple[int, float]] = []
        end = self.in_graph
        if end:
            found += self._in_graph(asked, most, fits[:end])
        tail = fits[self._tail_from :].copy()
        tail[: end - self._tail_from if end > self._tail_from else 0] = False
        found += self._exactly(self._tail, asked, most, tail, self._tail_from)
        return sorted(found, key=lambda each: -each[1])[:most]

    def _in_graph(self, asked: NDArray[np.float32], most: int, fits: NDArray[np.bool_]) -> list[tuple[int, float]]:
        count = int(fits.sum())
        if count <= max(_LEAST, _FEW * len(fits)):
            return self._exactly(self._graph.storage, asked, most, fits, 0)
        params = faiss.SearchParametersHNSW(efSearch=max(_SEARCH_BREADTH, 2 * most))
        bits = np.packbits(fits, bitorder="little")
        selector = faiss.IDSelectorBitmap(bits)
        if count < len(fits):
            params.sel = selector
        scores, places = self._graph.search(asked, min(most, count), params=params)
        return self._named(scores, places, 0)

    def _exactly(
        self, index: Any, asked: NDArray[np.float32], most: int, fits: NDArray[np.bool_], first: int
    ) -> list[tuple[int, float]]:
        count = int(fits.sum())
        if not count:
            return []
        if count == len(fits):
            scores, places = index.search(asked, min(most, count))
        else:
            selector = faiss.IDSelectorBitmap(np.packbits(fits, bitorder="little"))
            scores, places = index.search(asked, min(most, count), params=faiss.SearchParameters(sel=selector))
        return self._named(scores, places, first)

    def _named(self, scores: NDArray[np.float32], places: NDArray[np.int64], first: int) -> list[tuple[int, float]]:
        kept = places[0] >= 0
        ids = self._ids[places[0][kept] + first]
        cosines = np.clip(scores[0][kept].astype(np.float64), -1, 1)
        return list(zip(ids.tolist(), cosines.tolist(), strict=True))

    # ---- the graph ------------------------------------------------------------------------------------------------

    @property
    def must_grow(self) -> bool:
        """Whether so many vectors are outside the graph that `grow` is to be called until it returns False."""
        outside = len(self._ids) - self.in_graph
        return len(self._ids) > self._exact_up_to and outside > max(_LEAST, _TAIL * self.in_graph)

    def grow(self) -> bool:
        """Move a few vectors into the graph. Returns whether more are left."""
        faiss.omp_set_num_threads(1)
        if self._graph is None:
            self._graph = faiss.IndexHNSWFlat(self._dimension, _LINKS, faiss.METRIC_INNER_PRODUCT)
            faiss.ParameterSpace().set_index_parameter(self._graph, "efConstruction", _BUILD_BREADTH)
        first = self.in_graph
        count = min(_STEP, len(self._ids) - first)
        if count:
            self._graph.add(self._tail.reconstruct_n(first - self._tail_from, count))
        if first + count < len(self._ids):
            return True
        self._tail, self._tail_from = faiss.IndexFlatIP(self._dimension), len(self._ids)
        return False

    def _compact(self) -> None:
        """Forget removed vectors, and the graph with them."""
        parts = []
        if self.in_graph:
            parts.append(self._graph.storage.reconstruct_n(0, self.in_graph))
        start = self.in_graph - self._tail_from
        if self._tail.ntotal > start:
            parts.append(self._tail.reconstruct_n(start, self._tail.ntotal - start))
        vectors = np.concatenate(parts)[self._alive]
        self._ids, self._graph, self._tail_from = self.ids, None, 0
        self._alive = np.ones(len(self._ids), np.bool_)
        self._tail = faiss.IndexFlatIP(self._dimension)
        self._tail.add(vectors)

    # ---- snapshots ------------------------------------------------------------------------------------------------

    def snapshot(self, uid: str) -> bytes:
        """The graph, without what is outside it. uid: 32 characters of ASCII that no other bank has.

        The form: the name of the form, the CRC-32 of the rest (4 bytes), uid, the number of vectors (8 bytes), their
        ids (8 bytes each), and FAISS's own form of the index. Numbers are little-endian.
        """
        ids = self._ids[: self.in_graph].astype("<i8")
        rest = b"".join(
            (uid.encode(), len(ids).to_bytes(8, "little"), ids.tobytes(), faiss.serialize_index(self._graph).tobytes())
        )
        return _MAGIC + zlib.crc32(rest).to_bytes(4, "little") + rest

    def load(self, snapshot: bytes, uid: str) -> None:
        """Begin with a snapshot; the index must be empty. Raises DamagedSnapshotError, and stays empty then."""
        head, rest = snapshot[: len(_MAGIC) + 4], memoryview(snapshot)[len(_MAGIC) + 4 :]
        if head[: len(_MAGIC)] != _MAGIC or zlib.crc32(rest) != int.from_bytes(head[len(_MAGIC) :], "little"):
            raise DamagedSnapshotError("it is damaged")
        if bytes(rest[:_UID]) != uid.encode():
            raise DamagedSnapshotError("it is of another bank")
        count = int.from_bytes(rest[_UID : _UID + 8], "little")
        end = _UID + 8 + 8 * count
        graph = faiss.deserialize_index(np.frombuffer(rest[end:], np.uint8))
        if graph.d != self._dimension or graph.ntotal != count:
            raise DamagedSnapshotError("it has other vectors than it says")
        self._graph = graph
        self._ids = np.frombuffer(rest[_UID + 8 : end], "<i8").astype(np.int64)
        self._alive = np.ones(count, np.bool_)
        self._tail_from = count


def write_snapshot(path: Path, content: bytes) -> None:
    """Replace a file as a whole, for its owner alone. Raises OSError, after which the old file is still there."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with open(os.open(new, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def of_length_1(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of shape (n, dimension), of the same directions. A vector of zeros has none, and stays."""
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.ascontiguousarray(wide / np.where(lengths == 0, 1, lengths), np.float32)
