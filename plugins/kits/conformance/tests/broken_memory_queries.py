"""Memory providers that are each broken in one way: params and texts of queries, expiry."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import Any

from broken_memory import unlike
from broken_others import forgetful
from vectors_in_memory import VectorsInMemory

from llamastack.api.memory import QueryDocumentsResponse
from llamastack.provider.errors import InvalidRequestError, ProviderUnavailableError
from llamastack_memory_kit import Bank, FoundChunk, Insert, Query
from llamastack_provider_sample.memory import SampleMemory

# ---- params ----------------------------------------------------------------------------------------------------------


class _Params(SampleMemory):
    """Reads other params than those that it gets."""

    def read(self, params: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    async def query_documents(self, bank_id: str, query: Any, params: Any = None) -> Any:
        return await super().query_documents(bank_id, query, self.read(params or {}))


@forgetful("query_documents.score-threshold")
class IgnoresTheThreshold(_Params):
    def read(self, params: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in params.items() if name != "score_threshold"}


@forgetful("query_documents.score-threshold")
class TakesTheThresholdForADistance(SampleMemory):
    async def query_documents(self, bank_id: str, query: Any, params: Any = None) -> Any:
        params = dict(params or {})
        most = params.pop("score_threshold", None)
        found = await super().query_documents(bank_id, query, params)
        pairs = [(c, s) for c, s in zip(found.chunks, found.scores, strict=True) if most is None or s <= most]
        return QueryDocumentsResponse(chunks=[c for c, _ in pairs], scores=[s for _, s in pairs])


@forgetful("query_documents.score-threshold")
class LeavesOutTheThresholdItself(_Params):
    def read(self, params: dict[str, Any]) -> dict[str, Any]:
        least = params.get("score_threshold")
        return params if least is None else {**params, "score_threshold": least + 1e-4}


@unlike("query_documents.score-threshold")
class ScoresAllAlike(VectorsInMemory):
    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        return [FoundChunk(chunk, 1.0) for chunk, _ in await super().search(bank, query)]


@forgetful("query_documents.max-chunks")
class FindsAHundredAtMost(_Params):
    def read(self, params: dict[str, Any]) -> dict[str, Any]:
        if params.get("max_chunks", 3) > 100:
            raise InvalidRequestError("params.max_chunks: at most 100", param="params.max_chunks")
        return params


@forgetful("query_documents.max-chunks")
class FindsOneLess(SampleMemory):
    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        found = await super().search(bank, query)
        return found[:-1] if len(found) == 11 else found


@forgetful("query_documents.max-chunks")
class FindsTheFirstStored(SampleMemory):
    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        found = await super().search(bank, replace(query, max_chunks=1000))
        return sorted(found, key=lambda each: each.chunk.document_id, reverse=True)[: query.max_chunks]

    async def store(self, bank: Bank, insert: Insert) -> None:
        longer = [replace(c, content=f"{c.content} number") if c.index == 0 else c for c in insert.chunks]
        chunks = longer[:1] + [replace(c, content=c.content.replace("number", "place")) for c in insert.chunks[1:]]
        await super().store(bank, replace(insert, chunks=chunks))


@forgetful("query_documents.max-chunks")
class ShortensNumbers(_Params):
    def read(self, params: dict[str, Any]) -> dict[str, Any]:
        most = params.get("max_chunks", 3)
        return {**params, "max_chunks": int(most)} if isinstance(most, float) else params


@forgetful("query_documents.max-chunks")
class FindsTwice(SampleMemory):
    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        found = await super().search(bank, query)
        return [each for each in found for _ in range(2)][: query.max_chunks]


# ---- texts -----------------------------------------------------------------------------------------------------------


@forgetful("query_documents.empty")
class FindsSomethingInNothing(SampleMemory):
    async def query_documents(self, bank_id: str, query: Any, params: Any = None) -> Any:
        found = await super().query_documents(bank_id, query, params)
        return found if found.chunks else QueryDocumentsResponse(chunks=[], scores=[0.0])


@forgetful("query_documents.empty")
class MissesDocumentsOfAnEmptyBank(SampleMemory):
    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        if not self._kept[bank.identifier]:
            raise InvalidRequestError("the bank is empty", param="bank_id")
        return await super().search(bank, query)


@forgetful("query_documents.empty")
class RemembersWhatItFound(SampleMemory):
    async def query_documents(self, bank_id: str, query: Any, params: Any = None) -> Any:
        self.found = getattr(self, "found", {})
        key = (bank_id, str(query), str(params))
        if key not in self.found:
            self.found[key] = await super().query_documents(bank_id, query, params)
        return self.found[key]


@forgetful("query_documents.texts")
class ReadsOperators(SampleMemory):
    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        if re.search(r'["*()]', query.text):
            raise ProviderUnavailableError(f"syntax error near {query.text!r}")
        return await super().search(bank, query)


@forgetful("query_documents.texts")
class FindsNothingAtASyntaxError(SampleMemory):
    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        return [] if query.text.count("'") % 2 else await super().search(bank, query)


@forgetful("query_documents.texts")
class AsksForTheStart(SampleMemory):
    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        return await super().search(bank, replace(query, text=query.text[:1000]))


@forgetful("query_documents.texts")
class BreaksAtAnEmptyQuery(SampleMemory):
    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        if not query.text:
            raise ProviderUnavailableError("the backend refused the query")
        return await super().search(bank, query)


@forgetful("query_documents.parts")
class AsksForTheFirstPart(SampleMemory):
    async def query_documents(self, bank_id: str, query: Any, params: Any = None) -> Any:
        return await super().query_documents(bank_id, query[0] if isinstance(query, list) else query, params)


# ---- expiry ----------------------------------------------------------------------------------------------------------


class _Expires(SampleMemory):
    """Reads another ttl than that which it gets."""

    def read(self, ttl_seconds: int) -> int | None:
        raise NotImplementedError

    async def insert_documents(self, bank_id: str, documents: Any, ttl_seconds: int | None = None) -> None:
        ttl = None if ttl_seconds is None else self.read(ttl_seconds)
        await super().insert_documents(bank_id, documents, ttl)


@forgetful("ttl.limits")
class OverflowsAt32Bits(_Expires):
    def read(self, ttl_seconds: int) -> int | None:
        return ttl_seconds if ttl_seconds < 2**31 else -1


@forgetful("ttl.limits")
class CountsMilliseconds(SampleMemory):
    async def store(self, bank: Bank, insert: Insert) -> None:
        expires_at = insert.expires_at and insert.now + (insert.expires_at - insert.now) / 1000
        await super().store(bank, replace(insert, expires_at=expires_at))


@forgetful("ttl.limits")
class KeepsTheFirstExpiry(SampleMemory):
    async def store(self, bank: Bank, insert: Insert) -> None:
        before = self._kept[bank.identifier].get(insert.document_ids[0])
        await super().store(bank, replace(insert, expires_at=before[0].expires_at) if before else insert)


@forgetful("ttl.limits")
class NeverTakesAnExpiryBack(SampleMemory):
    async def store(self, bank: Bank, insert: Insert) -> None:
        before = self._kept[bank.identifier].get(insert.document_ids[0])
        if insert.expires_at is None and before:
            insert = replace(insert, expires_at=before[0].expires_at)
        await super().store(bank, insert)


@forgetful("ttl.limits")
class LeavesOutExpiredBehindTheSearch(SampleMemory):
    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        found = await super().search(bank, replace(query, now=0.0))
        expires = {name: kept[0].expires_at for name, kept in self._kept[bank.identifier].items() if kept}
        return [each for each in found if (expires[each.chunk.document_id] or query.now + 1) > query.now]


@forgetful("ttl.limits")
class NeverForgetsThatItExpired(SampleMemory):
    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        gone = {name for name, kept in self._kept[bank.identifier].items() if kept and _is_over(kept[0].expires_at)}
        self.gone = getattr(self, "gone", set()) | gone
        return [each for each in await super().search(bank, query) if each.chunk.document_id not in self.gone]


def _is_over(expires_at: float | None) -> bool:
    return expires_at is not None and expires_at <= time.time()


@unlike("query_documents.long-query")
class ReadsTheBeginningOfAQuery(VectorsInMemory):
    async def embed_query(self, bank: Bank, text: str) -> Any:
        return await super().embed_query(bank, text[:64])
