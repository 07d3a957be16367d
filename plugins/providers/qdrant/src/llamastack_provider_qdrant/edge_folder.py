"""A folder of banks on Qdrant's own engine inside this process (https://pypi.org/project/qdrant-edge-py).

    .lock                    held as long as the folder is open
    <collection>/bank.json   what the collection is: a `Description`
    <collection>/shard/      the engine's files
    <collection>/todo.json   operations that were begun; they are repeated when the shard is opened

A collection is made in a folder `.new-...` and then renamed, and renamed to `.gone-...` before it is deleted, so that
it is there whole or not at all. Functions block. Those of the engine raise a plain `Exception` for every failure.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import IO

import portalocker
from pydantic import BaseModel, JsonValue
from qdrant_client import models
from qdrant_edge import (
    Distance,
    EdgeConfig,
    EdgeOptimizersConfig,
    EdgeShard,
    EdgeSparseVectorParams,
    EdgeVectorParams,
    Modifier,
    PayloadSchemaType,
    UpdateOperation,
)

from llamastack.provider.private_files import make_private, make_tree_private, private_file, private_folder
from llamastack_provider_qdrant.edge_points import to_operation
from llamastack_provider_qdrant.filtering import TERMS
from llamastack_provider_qdrant.words import WORDS

_INDEXES = {
    "document_id": PayloadSchemaType.Keyword,
    "expires_at": PayloadSchemaType.Float,
    "generation": PayloadSchemaType.Integer,
    "pending": PayloadSchemaType.Integer,
    TERMS: PayloadSchemaType.Keyword,
}
_NEVER = 10**9
"""So many KB of vectors in one segment get an HNSW index: none. A search looks at every vector, and is exact."""


class Description(BaseModel):
    """What a collection is.

    size: the length of its vectors. distance: how they are compared, such as `Cosine`. words: whether it has sparse
    vectors. metadata: as the provider gave them.
    """

    size: int
    distance: str
    words: bool
    metadata: dict[str, JsonValue] | None


class InUseError(Exception):
    """Another process or another provider has the folder open."""


class OldLayoutError(Exception):
    """The folder was written by the imitation of Qdrant in qdrant-client, which this provider used before."""


class EdgeFolder:
    """The collections in a folder. One thread uses it at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock: IO[bytes] | None = None
        self._shards: dict[str, EdgeShard] = {}

    def open(self) -> None:
        """Make the folder, or open it. Raises InUseError, OldLayoutError and OSError."""
        private_folder(self._path)
        if (self._path / "meta.json").exists() and (self._path / "collection").is_dir():
            raise OldLayoutError
        lock = private_file(self._path / ".lock").open("rb+")
        try:
            portalocker.lock(lock, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
        except portalocker.LockException as error:
            lock.close()
            raise InUseError from error
        self._lock = lock
        for left in (*self._path.glob(".new-*"), *self._path.glob(".gone-*")):
            shutil.rmtree(left)
        make_tree_private(self._path)

    def close(self) -> None:
        """Close all shards; safe to call twice."""
        try:
            for name in [*self._shards]:
                self._shards.pop(name).close()
        finally:
            lock, self._lock = self._lock, None
            if lock is not None:
                lock.close()

    @property
    def is_open(self) -> bool:
        """Whether the folder is open."""
        return self._lock is not None

    def names(self) -> list[str]:
        """The collections, in order."""
        return sorted(file.parent.name for file in self._path.glob("[!.]*/bank.json"))

    def describe(self, name: str) -> Description | None:
        """What a collection is; None if there is none."""
        try:
            return Description.model_validate_json((self._path / name / "bank.json").read_bytes())
        except FileNotFoundError:
            return None

    def create(self, name: str, description: Description) -> None:
        """Make a collection that is not there."""
        made = private_folder(self._path / f".new-{uuid.uuid4().hex}")
        try:
            shard = EdgeShard.create(str(private_folder(made / "shard")), _config(description))
            for field, schema in _INDEXES.items():
                shard.update(UpdateOperation.create_field_index(field, schema))
            shard.flush()
            shard.close()
            _write(made / "bank.json", description.model_dump_json())
            make_tree_private(made)
            made.rename(self._path / name)
            _sync_folder(self._path)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise

    def drop(self, name: str) -> None:
        """Delete a collection."""
        self.release(name)
        gone = self._path / f".gone-{uuid.uuid4().hex}"
        (self._path / name).rename(gone)
        _sync_folder(self._path)
        shutil.rmtree(gone)

    def shard(self, name: str) -> EdgeShard:
        """The shard of a collection. The first call opens it, and repeats what was begun."""
        shard = self._shards.get(name)
        if shard is None:
            shard = self._shards[name] = EdgeShard.load(str(self._path / name / "shard"))
            todo = self._path / name / "todo.json"
            if todo.exists():
                self._carry_out(name, models.UpdateOperations.model_validate_json(todo.read_bytes()))
        return shard

    def count(self, name: str) -> int | None:
        """The points of a collection; None if its shard is not open yet."""
        shard = self._shards.get(name)
        return None if shard is None else shard.info().points_count

    def release(self, name: str) -> None:
        """Close the shard of a collection; the next use opens it again, from what is on the disk."""
        shard = self._shards.pop(name, None)
        if shard is not None:
            shard.close()

    def change(self, name: str, operations: models.UpdateOperations) -> None:
        """Carry out operations that can be repeated: all, or none, also if the process dies. Waits for the disk."""
        self.shard(name)
        _write(self._path / name / "todo.json", operations.model_dump_json(exclude_none=True))
        self._carry_out(name, operations)

    def _carry_out(self, name: str, operations: models.UpdateOperations) -> None:
        shard = self._shards[name]
        for operation in operations.operations:
            shard.update(to_operation(operation))
        shard.flush()
        (self._path / name / "todo.json").unlink()
        # It rewrites a shard of which a fifth was deleted, and returns at once for any other.
        shard.optimize()
        make_tree_private(self._path / name)


def _config(description: Description) -> EdgeConfig:
    vectors = EdgeVectorParams(size=description.size, distance=getattr(Distance, description.distance))
    return EdgeConfig(
        vectors={"": vectors},
        sparse_vectors={WORDS: EdgeSparseVectorParams(modifier=Modifier.Idf)} if description.words else None,
        optimizers=EdgeOptimizersConfig(indexing_threshold=_NEVER, default_segment_number=1),
        max_search_threads=1,  # a shard has one segment, and each bank has its own threads
    )


def _write(file: Path, text: str) -> None:
    """Write a file whole or not at all, and wait for the disk."""
    fresh = file.with_suffix(".new")
    try:
        with fresh.open("w", encoding="utf-8") as written:
            make_private(fresh)
            written.write(text)
            written.flush()
            os.fsync(written.fileno())
        fresh.replace(file)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    _sync_folder(file.parent)


def _sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk; Windows cannot and need not."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
