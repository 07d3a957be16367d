"""Memory providers that are each broken in one way: in their banks, in what they take, or in what the store answers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import anyio
from breaking import breaker
from broken_memory import VECTORS, VectorsInMemory, make_vectors
from broken_others import forgetful
from broken_requests import hasty
from scripted_memory import RestConfig, RestMemory

from llamastack.api.common import text_of
from llamastack.provider import BackendError, Deps, LlamaStackError
from llamastack_provider_sample.memory import SampleMemory

_LOGGER = logging.getLogger("broken")
vectors = breaker(
    "memory",
    VECTORS,
    make_vectors,
    settings={
        "objects": [
            {"identifier": "bank", "type": "vector", "embedding_model": "hashed-words", "chunk_size_in_tokens": 64}
        ]
    },
    providers={"inference": [{"provider_id": "e", "provider_type": "test-embeddings"}]},
)


@vectors("listing.definitions")
class ListsNoOverlap(VectorsInMemory):
    async def list_memory_banks(self) -> Any:
        return [bank.model_copy(update={"overlap_size_in_tokens": None}) for bank in await super().list_memory_banks()]


@vectors("insert_documents.images")
class DropsImages(VectorsInMemory):
    async def insert_documents(self, bank_id: str, documents: Any, ttl_seconds: Any = None) -> None:
        plain = [document.model_copy(update={"content": text_of(document.content)}) for document in documents]
        await super().insert_documents(bank_id, plain, ttl_seconds)


@vectors("registration.embedding-model")
class TakesAnyEmbeddingModel(VectorsInMemory):
    async def dimension(self, definition: Any) -> int:
        try:
            return await super().dimension(definition)
        except LlamaStackError:
            return 384


@forgetful("insert_documents.images")
class DropsImagesBesideTexts(SampleMemory):
    async def insert_documents(self, bank_id: str, documents: Any, ttl_seconds: Any = None) -> None:
        plain = [
            document.model_copy(update={"content": text_of(document.content) or document.content})
            for document in documents
        ]
        await super().insert_documents(bank_id, plain, ttl_seconds)


@forgetful("query_documents.token-count")
class CountsTheSameEverywhere(SampleMemory):
    async def store(self, bank: Any, insert: Any) -> None:
        await super().store(bank, replace(insert, chunks=[replace(chunk, token_count=64) for chunk in insert.chunks]))


@forgetful("query_documents.parts")
class AsksForTheFirstPart(SampleMemory):
    async def query_documents(self, bank_id: str, query: Any, params: Any = None) -> Any:
        return await super().query_documents(bank_id, query[0] if isinstance(query, list) else query, params)


@vectors("query_documents.score-threshold")
class TakesZeroForNoThreshold(VectorsInMemory):
    async def query_documents(self, bank_id: str, query: Any, params: Any = None) -> Any:
        given = {name: value for name, value in (params or {}).items() if name != "score_threshold" or value}
        return await super().query_documents(bank_id, query, given)


@forgetful("query_documents.during-insert")
class RemovesTheOldVersionFirst(SampleMemory):
    async def store(self, bank: Any, insert: Any) -> None:
        await super().delete(bank, [chunk.document_id for chunk in insert.chunks])
        await anyio.sleep(0.01)
        await super().store(bank, insert)


@hasty("failure.no-reply")
class TakesNoFieldForNothing(RestMemory):
    async def ask(self, call: str, **asked: Any) -> Any:
        found = await super().ask(call, **asked)
        return {"found": [], "definitions": [], "next": None, **(found if isinstance(found, dict) else {})}


@hasty("nth-request.insert")
class ReportsOneFailureAlone(RestMemory):
    reported = False

    async def store(self, bank: Any, insert: Any) -> None:
        try:
            await super().store(bank, insert)
        except BackendError:
            if not self.reported:
                self.reported = True
                raise


@hasty("failure.echoed-secrets")
class LogsWhatTheStoreSays(RestMemory):
    async def ask(self, call: str, **asked: Any) -> Any:
        try:
            return await super().ask(call, **asked)
        except LlamaStackError as error:
            _LOGGER.debug("the store says: %s", error.message)
            raise


@hasty("failure.echoed-secrets")
class KeepsWhatTheStoreSays(RestMemory):
    def __init__(self, config: RestConfig, deps: Deps) -> None:
        super().__init__(config, deps)
        self.file = deps.state_dir / "errors.txt"

    async def store(self, bank: Any, insert: Any) -> None:
        try:
            await super().store(bank, insert)
        except LlamaStackError as error:
            await anyio.Path(self.file).write_text(error.message)
            raise


@hasty("failure.echoed-secrets")
class ShowsHalfItsKeyInARefusal(RestMemory):
    def __init__(self, config: RestConfig, deps: Deps) -> None:
        super().__init__(config, deps)
        self.half = config.api_key.get_secret_value()[:10] if config.api_key else ""

    async def delete(self, bank: Any, document_ids: Sequence[str]) -> None:
        try:
            await super().delete(bank, document_ids)
        except LlamaStackError as error:
            raise error.amend(f"{error.message} (key {self.half}...)") from None


@forgetful("ttl.limits")
class CountsMilliseconds(SampleMemory):
    async def insert_documents(self, bank_id: str, documents: Any, ttl_seconds: Any = None) -> None:
        await super().insert_documents(bank_id, documents, None if ttl_seconds is None else ttl_seconds / 1000)
