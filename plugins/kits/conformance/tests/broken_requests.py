"""Providers that go wrong when one request of many fails. They are sound else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import httpx
from breaking import breaker
from broken_inference import Base, answered, broken
from scripted_memory import REST_MEMORY, RestConfig, RestMemory

from llamastack.api import Model
from llamastack.api.inference import EmbeddingsResponse
from llamastack.api.memory import QueryDocumentsResponse
from llamastack.provider import BackendError, ConflictError, Deps, LlamaStackError, NotFoundError
from llamastack_memory_kit import Bank, FoundChunk, Insert, Query, StoredChunk

# ---- memory ----------------------------------------------------------------------------------------------------------


def made_by(cls: type) -> Any:
    async def make(config: RestConfig, deps: Deps) -> RestMemory:
        made: RestMemory = cls(config, deps)
        return made

    make.__annotations__["return"] = cls
    return make


class LetsErrorsOfHttpxThrough(RestMemory):
    """Sound: the stack translates these errors."""

    async def ask(self, call: str, **asked: Any) -> dict[str, Any]:
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{self.backend.url}/{call}", json=asked)
        if answer.status_code == 404:
            raise NotFoundError(answer.text)
        if answer.is_error:
            raise BackendError(f"the store answered {answer.status_code}")
        found: dict[str, Any] = answer.json()
        return found


BANK = {"identifier": "bank", "type": "keyword"}
hasty = breaker(
    "memory",
    REST_MEMORY,
    made_by,
    config={"url": "{url}/memory/{name}", "api_key": "sk-operator-1234"},
    settings={"objects": [BANK]},
)


PLACES = {
    "config": {"url": "{url}/memory", "place": "/{name}"},
    "settings": {"objects": [BANK], "second": {"place": "/another"}},
}


@hasty("life.apart", **PLACES)
class IgnoresItsPlace(RestMemory):
    def __init__(self, config: RestConfig, deps: Deps) -> None:
        super().__init__(config, deps)
        self.place = "/the-place-of-all"


@hasty("nth-request.list")
class ListsWhatItCouldRead(RestMemory):
    async def list_banks(self) -> list[Bank]:
        try:
            return await super().list_banks()
        except LlamaStackError:
            return list(self._banks.values())[:0]


@hasty("nth-request.register")
class TakesABankThatWasNotMade(RestMemory):
    async def create_bank(self, bank: Bank) -> None:
        with suppress(LlamaStackError):
            await super().create_bank(bank)


@hasty("nth-request.register")
class CannotTryAgain(RestMemory):
    async def create_bank(self, bank: Bank) -> None:
        tried = self.__dict__.setdefault("tried", set())
        if bank.identifier in tried:
            raise ConflictError(f"bank '{bank.identifier}' is being made")
        tried.add(bank.identifier)
        await super().create_bank(bank)
        tried.clear()


@hasty("nth-request.register")
class BlamesTheClient(RestMemory):
    async def create_bank(self, bank: Bank) -> None:
        try:
            await super().create_bank(bank)
        except LlamaStackError as error:
            raise ConflictError("the bank cannot be made") from error


@hasty("nth-request.unregister")
class KeepsABankThatWasNotDropped(RestMemory):
    async def drop_bank(self, bank: Bank) -> None:
        with suppress(LlamaStackError):
            await super().drop_bank(bank)


@hasty("nth-request.unregister")
class NeverDropsAgain(RestMemory):
    async def unregister_memory_bank(self, memory_bank: Any) -> None:
        dropped = self.__dict__.setdefault("dropped", set())
        if memory_bank.identifier in dropped:
            dropped.discard(memory_bank.identifier)
            raise NotFoundError("it was dropped")
        dropped.add(memory_bank.identifier)
        await super().unregister_memory_bank(memory_bank)
        dropped.discard(memory_bank.identifier)


@hasty("nth-request.insert")
class LosesAPart(RestMemory):
    async def stage(self, bank: Bank, insert: Insert, chunks: Sequence[StoredChunk]) -> None:
        with suppress(LlamaStackError):
            await super().stage(bank, insert, chunks)


@hasty("nth-request.insert")
class ForgetsToPublish(RestMemory):
    async def publish(self, bank: Bank, insert: Insert) -> None:
        with suppress(LlamaStackError):
            await super().publish(bank, insert)


@hasty("nth-request.insert")
class DeletesFirst(RestMemory):
    async def store(self, bank: Bank, insert: Insert) -> None:
        await self.delete(bank, insert.document_ids)
        await super().store(bank, insert)


@hasty("nth-request.insert")
class PublishesPartByPart(RestMemory):
    async def store(self, bank: Bank, insert: Insert) -> None:
        for document_id in insert.document_ids:
            mine = [chunk for chunk in insert.chunks if chunk.document_id == document_id]
            part = replace(insert, document_ids=[document_id], chunks=mine, generation=insert.generation * 10)
            await super().store(bank, part)


@hasty("nth-request.delete")
class DeletesIfItCan(RestMemory):
    async def delete(self, bank: Bank, document_ids: Sequence[str]) -> None:
        for document_id in document_ids:
            with suppress(LlamaStackError):
                await super().delete(bank, [document_id])


@hasty("nth-request.call")
class FindsNothingInstead(RestMemory):
    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        try:
            return await super().search(bank, query)
        except LlamaStackError:
            return []


@hasty("nth-request.call")
class TakesAMissingBankForAnEmptyOne(RestMemory):
    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        try:
            return await super().search(bank, query)
        except NotFoundError:
            return []


@hasty("nth-request.call")
class AnswersFromBefore(RestMemory):
    async def query_documents(self, bank_id: str, query: Any, params: Any = None) -> QueryDocumentsResponse:
        known = self.__dict__.setdefault("known", {})
        try:
            known[bank_id, query] = await super().query_documents(bank_id, query, params)
        except LlamaStackError:
            if (bank_id, query) not in known:
                raise
        found: QueryDocumentsResponse = known[bank_id, query]
        return found


EMBEDS = {"api_dependencies": ("inference",)}
MODEL = "hashed-words"


class _Embeds(RestMemory):
    """Asks for the vectors of all texts, a few at a time, and makes no use of them."""

    def __init__(self, config: RestConfig, deps: Deps) -> None:
        super().__init__(config, deps)
        self._inference: Any = deps["inference"]

    async def _vectors(self, texts: Sequence[str]) -> list[list[float]]:
        vectors: list[list[float]] = []
        for first in range(0, len(texts), 2):
            reply = await self._inference.embeddings(model=MODEL, contents=list(texts[first : first + 2]))
            vectors += reply.embeddings
        return vectors


embedding = breaker(
    "memory",
    REST_MEMORY,
    made_by,
    config={"url": "{url}/memory/{name}"},
    settings={"objects": [BANK]},
    providers={"inference": [{"provider_id": "e", "provider_type": "test-embeddings"}]},
)


@embedding("embedding.fails", **EMBEDS)
class StoresWhatWasNotEmbedded(_Embeds):
    async def embed(self, bank: Bank, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        with suppress(LlamaStackError):
            return await self._vectors(texts)
        return [()] * len(texts)


@embedding("embedding.fails", **EMBEDS)
class EmbedsAsItStores(_Embeds):
    async def store(self, bank: Bank, insert: Insert) -> None:
        for document_id in insert.document_ids:
            mine = [chunk for chunk in insert.chunks if chunk.document_id == document_id]
            await self._vectors([chunk.content for chunk in mine])
            part = replace(insert, document_ids=[document_id], chunks=mine, generation=insert.generation * 10)
            await super().store(bank, part)


# ---- inference -------------------------------------------------------------------------------------------------------


@broken("nth-request.call")
class ApologizesAtTheSecondFailure(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().chat_completion(*args, **kwargs)
        except LlamaStackError:
            failed = self.__dict__["failed"] = self.__dict__.get("failed", 0) + 1
            if failed > 1:
                return answered("I am sorry.")
            raise


@broken("nth-request.call")
class EmbedsWhatItCan(Base):
    async def embeddings(self, model: str, contents: Any) -> Any:
        vectors: list[list[float]] = []
        for first in range(0, len(contents), 32):
            part = contents[first : first + 32]
            try:
                vectors += (await super().embeddings(model, part)).embeddings
            except LlamaStackError:
                if not vectors:
                    raise
                vectors += [[0.0] * len(vectors[0])] * len(part)
        return EmbeddingsResponse(embeddings=vectors)


@broken("nth-request.stream")
class StreamsNothingInstead(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().chat_completion(*args, **kwargs)
        except LlamaStackError:
            if not kwargs.get("stream"):
                raise
            return self._nothing()

    async def _nothing(self) -> AsyncIterator[Any]:
        for piece in ():
            yield piece


@broken("nth-request.list")
class ListsNothingInstead(Base):
    async def list_models(self) -> list[Model]:
        try:
            return await super().list_models()
        except LlamaStackError:
            return []
