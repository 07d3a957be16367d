"""`kept-fake`: keyword banks whose documents are in the stack's store, so that all workers have the same ones.

Storing a document takes a while, and each time is recorded with the process that did it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import anyio

from llamastack.api.memory_banks import KeywordMemoryBank, MemoryBank
from llamastack.provider import Deps, InlineProviderSpec, ObjectNotFoundError
from llamastack_memory_kit import Bank, BankMemory, DocumentSettings, FoundChunk, Insert, Query, StoredChunk

SPEC = InlineProviderSpec(
    api="memory",
    provider_type="kept-fake",
    description="Keyword banks in the stack's store, for tests",
    config_class="kept_memory_fake:KeptConfig",
    factory="kept_memory_fake:get_provider_impl",
)


USER = replace(SPEC, optional_api_dependencies=("jobs",), factory="kept_memory_fake:get_user_of_jobs")


class KeptConfig(DocumentSettings):
    store_s: float = 0.02


class KeptMemory(BankMemory):
    """A search gives one chunk for each time that a document was stored; its metadata have the process."""

    bank_types: ClassVar[tuple[str, ...]] = ("keyword",)

    def __init__(self, config: KeptConfig, deps: Deps) -> None:
        super().__init__(config, deps)
        self._store_s = config.store_s
        self._kept = deps.kv("banks", bool)
        self._stored = deps.kv("stored", list[int])

    async def list_banks(self) -> list[Bank]:
        return [Bank(KeywordMemoryBank(identifier=name)) for name in await self._kept.keys()]

    async def create_bank(self, bank: Bank) -> None:
        await self._kept.set(bank.identifier, True)

    async def drop_bank(self, bank: Bank) -> None:
        await self._kept.delete(bank.identifier)

    async def store(self, bank: Bank, insert: Insert) -> None:
        for document_id in insert.document_ids:
            await anyio.sleep(self._store_s)
            await self._stored.update(f"{bank.identifier}/{document_id}", lambda pids: [*(pids or []), os.getpid()])

    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        entries = await self._stored.scan(f"{bank.identifier}/", limit=1000)
        return [
            FoundChunk(StoredChunk(entry.key.partition("/")[2], "x", 1, {"pid": pid}), 1.0)
            for entry in entries
            for pid in entry.value
        ]

    async def delete(self, bank: Bank, document_ids: Sequence[str]) -> None:
        for document_id in document_ids:
            await self._stored.delete(f"{bank.identifier}/{document_id}")


async def get_provider_impl(config: KeptConfig, deps: Deps) -> KeptMemory:
    return KeptMemory(config, deps)


class UserOfJobs(KeptMemory):
    """Inserts a document into each new bank, by a job."""

    def __init__(self, config: KeptConfig, deps: Deps) -> None:
        super().__init__(config, deps)
        self._deps = deps

    async def register_memory_bank(self, memory_bank: MemoryBank) -> None:
        await super().register_memory_bank(memory_bank)
        self._deps.task_group.start_soon(self._insert_first, memory_bank.identifier)

    async def _insert_first(self, bank_id: str) -> None:
        document = {"document_id": "first", "content": "x", "metadata": {}}
        arguments = {"bank_id": bank_id, "documents": [document]}
        while True:
            try:
                await self._deps["jobs"].create_job(api="memory", method="insert_documents", arguments=arguments)
            except ObjectNotFoundError:  # the stack serves the bank when its registration has ended
                await anyio.sleep(0.02)
            else:
                return


async def get_user_of_jobs(config: KeptConfig, deps: Deps) -> UserOfJobs:
    return UserOfJobs(config, deps)
