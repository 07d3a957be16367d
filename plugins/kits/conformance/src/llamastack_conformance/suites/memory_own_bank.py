"""A bank for one check of a memory provider, and the calls of it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

from llamastack.api.memory import MemoryBankDocument, MemoryChunk
from llamastack_conformance.checks import NotApplicable
from llamastack_conformance.running import Running

if TYPE_CHECKING:
    from llamastack_conformance.suites.memory_calls import MemoryCalls

_POLL_S = 0.1
MOST = 1000
"""The highest `max_chunks` that every provider takes."""


@dataclass(frozen=True)
class OwnBank:
    """A bank that one check fills. definition: as it is registered."""

    calls: MemoryCalls
    running: Running
    definition: Any

    @property
    def bank_id(self) -> str:
        """Its name."""
        return str(self.definition.identifier)

    @property
    def is_vector(self) -> bool:
        """Whether a query with a high `max_chunks` finds every chunk, whatever its text."""
        return bool(self.definition.type == "vector")

    async def insert(self, *documents: MemoryBankDocument, **more: Any) -> None:
        """Insert documents."""
        await self.calls.insert(self.running, *documents, bank_id=self.bank_id, **more)

    async def put(self, texts: Mapping[str, str], **more: Any) -> None:
        """Insert a document for each text, in one call. texts: by the id of the document."""
        await self.insert(*(MemoryBankDocument(document_id=name, content=text) for name, text in texts.items()), **more)

    async def chunks(self, query: Any, most: int = MOST) -> list[MemoryChunk]:
        """At most `most` chunks for a query."""
        return (await self.calls.query(self.running, query, bank_id=self.bank_id, max_chunks=most)).chunks

    async def found(self, query: Any, most: int = MOST) -> set[str]:
        """The documents of these chunks."""
        return {chunk.document_id for chunk in await self.chunks(query, most)}

    async def loses(self, query: Any, document_ids: set[str], within_s: float) -> set[str]:
        """Which of the documents a query still finds, as soon as it finds none, or after a time."""
        until = anyio.current_time() + within_s
        while (left := document_ids & await self.found(query)) and anyio.current_time() < until:  # noqa: ASYNC110
            await anyio.sleep(_POLL_S)
        return left

    async def texts(self, query: Any, document_id: str) -> list[str]:
        """The texts of the chunks of one document that a query finds."""
        return [str(chunk.content) for chunk in await self.chunks(query) if chunk.document_id == document_id]

    async def delete(self, *document_ids: str) -> None:
        """Delete documents."""
        await self.calls.delete(self.running, *document_ids, bank_id=self.bank_id)


@asynccontextmanager
async def own_bank(calls: MemoryCalls, running: Running, topic: str, chunk_tokens: int = 64) -> AsyncIterator[OwnBank]:
    """A new, empty bank, which is unregistered in the end; the bank of the settings if none can be registered.

    topic: is in its name. chunk_tokens: tokens in a chunk, if the bank says it. Raises NotApplicable if the provider
    does not both store and find documents.
    """
    subject = running.subject
    for capability in ("insert_documents", "query_documents"):
        if not subject.declares(capability):
            raise NotApplicable(f"the provider declares no `{capability}`")
    if not subject.declares("registration"):
        await running.register(calls.bank(running))
        yield OwnBank(calls, running, calls.bank(running))
        return
    # Nothing is in a bank with a random name: a server may still have the banks of a run that was killed.
    made = calls.bank(running, f"-{topic}-{uuid.uuid4().hex[:8]}")
    if made.type == "vector":
        made = made.model_copy(
            update={"chunk_size_in_tokens": chunk_tokens, "overlap_size_in_tokens": chunk_tokens // 4}
        )
    await running.register(made)
    yield OwnBank(calls, running, made)
    # After a failure the stack's clean-up does it: an error here would hide the failure.
    if subject.declares("unregister"):
        await running.unregister(made.identifier)


def require(subject: Any, *capabilities: str) -> None:
    """Raise NotApplicable unless the provider declares all of these."""
    for capability in capabilities:
        if not subject.declares(capability):
            raise NotApplicable(f"the provider declares no `{capability}`")
