"""One query of a bank: by vectors, by words or both, fused, reranked, and cut to what the caller wants."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal

from llamastack.api.inference import Inference
from llamastack.api.memory import MemoryChunk, QueryDocumentsResponse
from llamastack.provider import NotSupportedError
from llamastack_memory_kit.filters import Filter, filter_of
from llamastack_memory_kit.fusion import DEFAULT, fused
from llamastack_memory_kit.query_params import QueryParams
from llamastack_memory_kit.records import Bank, FoundChunk, Query, SearchMode, StoredChunk
from llamastack_memory_kit.reranking import reranked

if TYPE_CHECKING:
    from llamastack_memory_kit.bank_memory import BankMemory

_FUSED_FROM_TIMES = 5
_FUSED_FROM_LEAST = 50
_MOST_CANDIDATES = 1000


async def search_bank(
    memory: BankMemory,
    bank: Bank,
    text: str,
    wanted: QueryParams,
    inference: Inference | None,
    in_backend: Callable[[], AbstractContextManager[None]],
) -> QueryDocumentsResponse:
    """The best chunks for a query.

    in_backend: what surrounds a call of the backend. inference: the API of the model that reranks.

    Raises NotSupportedError, naming the param, for what the bank cannot do, and the errors of the models.
    """
    scored_by: str
    mode = _mode(memory, bank, wanted)
    needed = wanted.max_chunks if wanted.rerank is None else max(wanted.max_chunks, wanted.rerank.candidates)
    asked = _Asked(memory, bank, text, _filter(memory, bank, wanted), in_backend)
    if mode == "hybrid":
        found = await asked.both(wanted, needed)
        scored_by = (wanted.fusion or DEFAULT).type
    else:
        # A threshold is for the scores of the reply.
        least = wanted.score_threshold if wanted.rerank is None else None
        found = await asked.one(mode, needed, least)
        scored_by = memory.score_name(bank, mode)
    found = sorted(found, key=lambda each: -each.score)[:needed]
    if wanted.rerank is not None:
        if inference is None:
            raise _not_supported(memory, bank, "rerank", "'rerank': the provider has no inference API")
        found = await reranked(inference, wanted.rerank.model, text, found[: wanted.rerank.candidates])
        scored_by = "rerank"
    best = _cut(found, wanted)
    return QueryDocumentsResponse(
        chunks=[_memory_chunk(each.chunk) for each in best],
        scores=[each.score for each in best],
        scored_by=scored_by,
    )


class _Asked:
    """What a backend is asked for."""

    def __init__(
        self,
        memory: BankMemory,
        bank: Bank,
        text: str,
        only: Filter | None,
        in_backend: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._memory = memory
        self._bank = bank
        self._text = text
        self._filter = only
        self._in_backend = in_backend

    async def one(self, mode: SearchMode, most: int, least: float | None) -> list[FoundChunk]:
        vector = await self._memory.embed_query(self._bank, self._text) if mode == "vector" else ()
        with self._in_backend():
            return [*await self._memory.search(self._bank, self._query(vector, mode, most, least))]

    async def both(self, wanted: QueryParams, needed: int) -> list[FoundChunk]:
        most = min(max(_FUSED_FROM_TIMES * needed, _FUSED_FROM_LEAST), _MOST_CANDIDATES)
        query = self._query(await self._memory.embed_query(self._bank, self._text), "vector", most)
        with self._in_backend():
            by_vector, by_keyword = await self._memory.search_both(self._bank, query)
        return fused(by_vector, by_keyword, wanted.fusion or DEFAULT)

    def _query(self, vector: Sequence[float], mode: SearchMode, most: int, least: float | None = None) -> Query:
        return Query(self._text, vector, most, least, time.time(), mode, self._filter)


def _mode(memory: BankMemory, bank: Bank, wanted: QueryParams) -> SearchMode | Literal["hybrid"]:
    modes = memory.modes_of(bank)
    if wanted.mode is None:
        return modes[0] if modes else "keyword"
    allowed = [*modes, *(["hybrid"] if {"vector", "keyword"} <= {*modes} else [])]
    if wanted.mode not in allowed:
        raise _not_supported(memory, bank, "mode", f"mode '{wanted.mode}'; it has: {', '.join(allowed) or 'none'}")
    return wanted.mode


def _filter(memory: BankMemory, bank: Bank, wanted: QueryParams) -> Filter | None:
    if wanted.filters is None:
        return None
    if not memory.filters:
        raise _not_supported(memory, bank, "filters", "'filters'")
    return filter_of(wanted.filters)


def _not_supported(memory: BankMemory, bank: Bank, param: str, what: str) -> NotSupportedError:
    return NotSupportedError(
        f"provider '{memory.provider_id}' does not support, in {bank.definition.type} bank '{bank.identifier}', {what}",
        provider_id=memory.provider_id,
        param=f"params.{param}",
    )


def _cut(found: Sequence[FoundChunk], wanted: QueryParams) -> list[FoundChunk]:
    least, room = wanted.score_threshold, wanted.max_tokens_in_context
    best: list[FoundChunk] = []
    for each in found:
        if len(best) == wanted.max_chunks or (least is not None and each.score < least):
            break
        if room is not None:
            if each.chunk.token_count > room:
                continue
            room -= each.chunk.token_count
        best.append(each)
    return best


def _memory_chunk(chunk: StoredChunk) -> MemoryChunk:
    return MemoryChunk(
        content=chunk.content,
        token_count=chunk.token_count,
        document_id=chunk.document_id,
        metadata=chunk.metadata,
    )
