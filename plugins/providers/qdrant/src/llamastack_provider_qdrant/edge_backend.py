"""Calls to Qdrant's own engine inside this process. Failures become llamastack errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from qdrant_client import models
from qdrant_client.http.models import QueryResponse
from qdrant_edge import EdgeShard, QueryBatchRequest, UpdateOperation

from llamastack.provider import ConflictError, LlamaStackError, NotFoundError, ProviderUnavailableError
from llamastack_provider_qdrant import edge_points
from llamastack_provider_qdrant.edge_folder import Description, EdgeFolder, InUseError, OldLayoutError

Result = TypeVar("Result")


class EdgeBackend:
    """The banks of a folder. It has the methods of `QdrantClient` that the provider uses; one runs at a time."""

    has_indexes = False  # a collection is made with them

    def __init__(self, path: Path, provider_id: str) -> None:
        self._where = f"folder {path}"
        self._provider_id = provider_id
        self._folder = EdgeFolder(path)
        self._turn = anyio.CapacityLimiter(1)
        self._methods: dict[str, Callable[..., Any]] = {
            "get_collections": self._get_collections,
            "get_collection": self._get_collection,
            "create_collection": self._create_collection,
            "delete_collection": self._delete_collection,
            "upsert": self._upsert,
            "batch_update_points": self._batch_update_points,
            "delete": self._delete,
            "query_batch_points": self._query_batch_points,
        }

    async def open(self) -> None:
        """Open the folder. Raises ProviderUnavailableError if it is in use, cannot be written, or has an old layout."""
        try:
            await self._in_thread(self._folder.open)
        except InUseError as error:
            raise self._unavailable(
                "is in use by another process or provider; only one can open it at a time, a server (url) serves many"
            ) from error
        except OldLayoutError as error:
            raise self._unavailable(
                "was written by an earlier version of this provider, which this one does not read; allowed: a new "
                "folder, into which the documents are inserted again"
            ) from error

    async def close(self) -> None:
        """Close the folder; safe to call twice, and without `open`."""
        with anyio.CancelScope(shield=True):
            await self._in_thread(self._folder.close)

    async def call(self, method: str, **arguments: Any) -> Any:
        """As `QdrantClient.<method>(**arguments)`; see `Backend.call` for the errors."""

        def run() -> Any:
            if not self._folder.is_open:
                raise self._unavailable("is not open")
            return self._methods[method](**arguments)

        return await self._in_thread(run, arguments.get("collection_name"))

    async def _in_thread(self, function: Callable[[], Result], name: str | None = None) -> Result:
        def run() -> Result:
            try:
                return function()
            except (LlamaStackError, InUseError, OldLayoutError):
                raise
            except BaseException as error:
                # The engine raises a plain Exception, or, where its code does not expect a failure, a PanicException.
                if type(error) is not Exception and type(error).__name__ != "PanicException":
                    if isinstance(error, OSError):
                        raise self._unavailable(f"cannot be read or written: {error}") from error
                    raise
                if name is not None:
                    self._folder.release(name)
                raise self._unavailable(f"cannot be read or written: {error}") from error

        return await anyio.to_thread.run_sync(run, limiter=self._turn)

    def _unavailable(self, what: str) -> ProviderUnavailableError:
        return ProviderUnavailableError(f"qdrant {self._where} {what}", provider_id=self._provider_id)

    # ---- the methods; they run in a thread --------------------------------------------------------------------------

    def _get_collections(self) -> models.CollectionsResponse:
        return models.CollectionsResponse(
            collections=[models.CollectionDescription(name=name) for name in self._folder.names()]
        )

    def _get_collection(self, collection_name: str) -> models.CollectionInfo:
        found = self._described(collection_name)
        params = models.CollectionParams(
            vectors=models.VectorParams(size=found.size, distance=models.Distance(found.distance)),
            sparse_vectors={"words": models.SparseVectorParams()} if found.words else None,
        )
        # The settings of a server are left out.
        config: dict[str, Any] = {"params": params, "metadata": found.metadata}
        info: dict[str, Any] = {
            "config": models.CollectionConfig.model_construct(**config),
            "points_count": self._folder.count(collection_name),
        }
        return models.CollectionInfo.model_construct(**info)

    def _create_collection(
        self,
        collection_name: str,
        vectors_config: models.VectorParams,
        sparse_vectors_config: dict[str, models.SparseVectorParams] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> bool:
        if self._folder.describe(collection_name) is not None:
            raise ConflictError(f"Collection {collection_name} already exists", provider_id=self._provider_id)
        description = Description(
            size=vectors_config.size,
            distance=vectors_config.distance.value,
            words=bool(sparse_vectors_config),
            metadata=metadata,
        )
        self._folder.create(collection_name, description)
        return True

    def _delete_collection(self, collection_name: str) -> bool:
        self._described(collection_name)
        self._folder.drop(collection_name)
        return True

    def _upsert(self, collection_name: str, points: list[models.PointStruct]) -> None:
        made = [edge_points.to_point(point) for point in points]
        self._shard(collection_name).update(UpdateOperation.upsert_points(made))

    def _batch_update_points(self, collection_name: str, update_operations: list[models.UpdateOperation]) -> None:
        self._described(collection_name)
        self._folder.change(collection_name, models.UpdateOperations(operations=update_operations))

    def _delete(self, collection_name: str, points_selector: models.FilterSelector) -> None:
        self._batch_update_points(collection_name, [models.DeleteOperation(delete=points_selector)])

    def _query_batch_points(self, collection_name: str, requests: list[models.QueryRequest]) -> list[QueryResponse]:
        batch = QueryBatchRequest([edge_points.to_request(request) for request in requests])
        found = self._shard(collection_name).query_batch(batch)
        return [QueryResponse(points=[edge_points.from_scored(point) for point in each]) for each in found]

    def _described(self, name: str) -> Description:
        found = self._folder.describe(name)
        if found is None:
            self._folder.release(name)
            raise NotFoundError(f"Collection {name} not found", provider_id=self._provider_id)
        return found

    def _shard(self, name: str) -> EdgeShard:
        self._described(name)
        return self._folder.shard(name)
