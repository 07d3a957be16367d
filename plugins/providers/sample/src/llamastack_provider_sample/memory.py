"""Memory by shared words."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

from anyio.lowlevel import checkpoint

from llamastack.api.common import InterleavedTextMedia, text_of
from llamastack.api.memory import Memory, MemoryBankDocument, MemoryChunk, QueryDocumentsResponse
from llamastack.api.memory_banks import KeywordMemoryBank, MemoryBank
from llamastack.provider import (
    Deps,
    InvalidRequestError,
    MemoryBanksProtocolPrivate,
    ObjectNotFoundError,
    UnsupportedMemoryBankError,
)
from llamastack_adapters.http_client import http_client
from llamastack_memory_kit.documents import document_text
from llamastack_provider_sample.config import SampleMemoryConfig

_DEFAULT_MAX_CHUNKS = 3
_BLOCK = 65_536  # characters
_SPACE = re.compile(r"\s")


@dataclass(frozen=True, slots=True)
class _Stored:
    text: str
    words: frozenset[str]
    length: int
    """In words."""
    metadata: dict[str, Any]
    expires_at: float | None


class SampleMemory(Memory, MemoryBanksProtocolPrivate):
    """Keyword banks whose documents are not cut: a chunk is a whole document, its score the share of query words."""

    def __init__(self) -> None:
        self._banks: dict[str, dict[str, _Stored]] = {}
        self._http = http_client()

    async def shutdown(self) -> None:
        await self._http.aclose()

    async def list_memory_banks(self) -> list[MemoryBank]:
        return [KeywordMemoryBank(identifier=name) for name in self._banks]

    async def register_memory_bank(self, memory_bank: MemoryBank) -> None:
        if not isinstance(memory_bank, KeywordMemoryBank):
            raise UnsupportedMemoryBankError(
                memory_bank.identifier,
                reason=f"type '{memory_bank.type}' is not 'keyword', the only type of this provider",
            )
        self._banks.setdefault(memory_bank.identifier, {})

    async def unregister_memory_bank(self, memory_bank: MemoryBank) -> None:
        self._banks.pop(memory_bank.identifier, None)

    async def forget_memory_bank(self, memory_bank: MemoryBank) -> None:
        await self.unregister_memory_bank(memory_bank)

    async def insert_documents(
        self, bank_id: str, documents: list[MemoryBankDocument], ttl_seconds: int | None = None
    ) -> None:
        bank = self._bank(bank_id)
        # Every text is read before the first document is stored: all or none.
        texts = [
            await document_text(
                document.content, self._http, mime_type=document.mime_type, param=f"documents[{place}].content"
            )
            for place, document in enumerate(documents)
        ]
        expires_at = None if ttl_seconds is None else time.monotonic() + ttl_seconds
        for document, text in zip(documents, texts, strict=True):
            bank[document.document_id] = _Stored(text, *(await _words(text)), document.metadata, expires_at)

    async def query_documents(
        self, bank_id: str, query: InterleavedTextMedia, params: dict[str, Any] | None = None
    ) -> QueryDocumentsResponse:
        limit = (params or {}).get("max_chunks", _DEFAULT_MAX_CHUNKS)
        if not isinstance(limit, int) or not 1 <= limit <= 1000:
            raise InvalidRequestError("params.max_chunks must be a whole number from 1 to 1000", param="params")
        now = time.monotonic()
        wanted, _ = await _words(text_of(query))
        scored = [
            (len(wanted & stored.words) / len(wanted), document_id, stored)
            for document_id, stored in self._bank(bank_id).items()
            if wanted & stored.words and (stored.expires_at is None or stored.expires_at > now)
        ]
        best = sorted(scored, key=lambda entry: (-entry[0], entry[1]))[:limit]
        return QueryDocumentsResponse(
            chunks=[
                MemoryChunk(
                    content=stored.text,
                    token_count=stored.length,
                    document_id=document_id,
                    metadata=stored.metadata,
                )
                for _, document_id, stored in best
            ],
            scores=[score for score, _, _ in best],
        )

    async def delete_documents(self, bank_id: str, document_ids: list[str]) -> None:
        bank = self._bank(bank_id)
        for document_id in document_ids:
            bank.pop(document_id, None)

    def _bank(self, bank_id: str) -> dict[str, _Stored]:
        bank = self._banks.get(bank_id)
        if bank is None:
            raise ObjectNotFoundError("memory bank", bank_id, available=self._banks, param="bank_id")
        return bank


async def _words(text: str) -> tuple[frozenset[str], int]:
    """The words of a text, and their number. Other tasks run in between: a text may have millions of words."""
    found: set[str] = set()
    count = at = 0
    while at < len(text):
        space = _SPACE.search(text, at + _BLOCK)
        end = space.start() if space is not None else len(text)
        words = text[at:end].lower().split()
        found.update(words)
        count, at = count + len(words), end
        await checkpoint()
    return frozenset(found), count


async def get_adapter_impl(config: SampleMemoryConfig, deps: Deps) -> SampleMemory:
    return SampleMemory()
