"""Memory providers that are each broken in one way: calls at once, and calls that are cancelled."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import anyio
from breaking import breaker, config_class
from broken_memory import make_vectors
from broken_others import BANK, forgetful
from pydantic import Field

from llamastack.provider import Deps
from llamastack.provider.errors import ProviderUnavailableError
from llamastack_adapters.http_client import http_client
from llamastack_memory_kit import Bank, FoundChunk, Insert, Query
from llamastack_provider_sample import MEMORY
from llamastack_provider_sample.config import SampleMemoryConfig
from llamastack_provider_sample.memory import SampleMemory, _Kept, _words

# ---- calls at once ---------------------------------------------------------------------------------------------------


class _Unlocked(SampleMemory):
    """Writes to a bank at the same time as others."""

    def _write_lock(self, bank_id: str) -> anyio.Lock:
        return anyio.Lock()


async def _store_one_by_one(memory: SampleMemory, bank: Bank, insert: Insert) -> None:
    for name in insert.document_ids:
        memory._kept[bank.identifier][name] = []
    for chunk in insert.chunks:
        kept = _Kept(chunk, await _words(chunk.content), insert.expires_at)
        memory._kept[bank.identifier].setdefault(chunk.document_id, []).append(kept)
        await anyio.sleep(0.001)


@forgetful("insert_documents.at-once")
class MixesVersions(_Unlocked):
    async def store(self, bank: Bank, insert: Insert) -> None:
        await _store_one_by_one(self, bank, insert)


@forgetful("insert_documents.at-once")
class LosesBothVersions(_Unlocked):
    async def store(self, bank: Bank, insert: Insert) -> None:
        await super().store(bank, insert)
        for name in insert.document_ids:
            mine = self._kept[bank.identifier][name]
            await anyio.sleep(0.02)
            if self._kept[bank.identifier].get(name) is not mine:
                self._kept[bank.identifier].pop(name, None)


@forgetful("delete_documents.at-once")
class DeletesAHalf(_Unlocked):
    async def store(self, bank: Bank, insert: Insert) -> None:
        await _store_one_by_one(self, bank, insert)

    async def delete(self, bank: Bank, document_ids: Sequence[str]) -> None:
        await anyio.sleep(0.001)
        await super().delete(bank, document_ids)


@forgetful("insert_documents.parallel")
class WritesTheWholeBank(_Unlocked):
    async def insert_documents(self, bank_id: str, documents: Any, ttl_seconds: int | None = None) -> None:
        before = dict(self._kept[bank_id])
        await super().insert_documents(bank_id, documents, ttl_seconds)
        self._kept[bank_id] = before | {each.document_id: self._kept[bank_id][each.document_id] for each in documents}


@forgetful("registration.at-once")
class RegistersIntoACopy(SampleMemory):
    async def register_memory_bank(self, memory_bank: Any) -> None:
        before = dict(self._kept)
        await anyio.sleep(0.005)
        self._kept = before | {memory_bank.identifier: before.get(memory_bank.identifier, {})}


# ---- calls that are cancelled ----------------------------------------------------------------------------------------


@forgetful("insert_documents.cancelled")
class StoresChunkByChunk(SampleMemory):
    async def store(self, bank: Bank, insert: Insert) -> None:
        await _store_one_by_one(self, bank, insert)


@forgetful("insert_documents.cancelled")
class DeletesBeforeItStores(SampleMemory):
    async def store(self, bank: Bank, insert: Insert) -> None:
        await self.delete(bank, insert.document_ids)
        await anyio.sleep(0.02)
        await super().store(bank, insert)


@forgetful("insert_documents.cancelled")
class KeepsItsLock(SampleMemory):
    async def store(self, bank: Bank, insert: Insert) -> None:
        self.own = getattr(self, "own", anyio.Semaphore(1))
        await self.own.acquire()
        await anyio.sleep(0.02)
        await super().store(bank, insert)
        self.own.release()


# ---- blocking --------------------------------------------------------------------------------------------------------


@forgetful("stress.each-method")
class BlocksAtInserts(SampleMemory):
    async def store(self, bank: Bank, insert: Insert) -> None:
        time.sleep(0.3)
        await super().store(bank, insert)


@forgetful("stress.each-method")
class BlocksAtDeletes(SampleMemory):
    async def delete(self, bank: Bank, document_ids: Sequence[str]) -> None:
        time.sleep(0.3)
        await super().delete(bank, document_ids)


@forgetful("stress.each-method")
class BlocksAtListings(SampleMemory):
    async def list_banks(self) -> list[Bank]:
        time.sleep(0.3)
        return await super().list_banks()


# ---- a backend -------------------------------------------------------------------------------------------------------


class WithBackend(SampleMemoryConfig):
    url: str = Field(description="URL of a backend that is asked before each search.")


class AsksABackend(SampleMemory):
    """Sound: it asks a backend before each search."""

    def __init__(self, config: WithBackend, deps: Deps) -> None:
        super().__init__(config, deps)
        self.url = config.url
        self.client = http_client()

    async def open(self) -> None:
        self.client = http_client()

    async def close(self) -> None:
        await self.client.aclose()

    async def ask(self) -> None:
        reply = await self.client.get(f"{self.url}/models")
        if reply.status_code != 200:
            raise ProviderUnavailableError(f"the backend answered {reply.status_code}")

    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        await self.ask()
        return await super().search(bank, query)


BACKED = replace(MEMORY, config_class=config_class("WithBackend", WithBackend))
alone = breaker("memory", BACKED, make_vectors, config={"url": "{url}"}, settings={"objects": [BANK]})


@alone("stress.overlap")
class AsksOneAtATime(AsksABackend):
    async def ask(self) -> None:
        async with self._registering:
            await super().ask()


@alone("stress.connections")
class AsksThroughNewConnections(AsksABackend):
    async def ask(self) -> None:
        async with http_client() as client:
            await client.get(f"{self.url}/models")
