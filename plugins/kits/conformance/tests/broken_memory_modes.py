"""Memory providers that are each broken in one way: the modes of queries, and filters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from broken_memory import unlike
from broken_others import forgetful
from vectors_in_memory import VectorsInMemory

from llamastack_memory_kit import Bank, Combination, Comparison, Filter, FoundChunk, Query, SearchMode
from llamastack_provider_sample.memory import SampleMemory


@unlike("keyword_search.works")
class SearchesWordsByVectors(VectorsInMemory):
    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        vector = query.vector or await self.embed_query(bank, query.text)
        return await super().search(bank, replace(query, mode="vector", vector=vector))


@unlike("keyword_search.works")
class CallsWordCountsCosines(VectorsInMemory):
    keyword_scores = "cosine_similarity"


@unlike("keyword_search.works")
class WantsEveryWord(VectorsInMemory):
    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        found = await super().search(bank, query)
        words = query.text.lower().split()
        if query.mode == "vector":
            return found
        return [each for each in found if all(word in each.chunk.content.lower() for word in words)]


@unlike("vector_search.works")
class NamesScoresByDistance(VectorsInMemory):
    def score_name(self, bank: Bank, mode: SearchMode) -> str:
        return "distance" if mode == "vector" else super().score_name(bank, mode)


@unlike("hybrid_search.works")
class FusesOneList(VectorsInMemory):
    async def search_both(self, bank: Bank, query: Query) -> tuple[Sequence[FoundChunk], Sequence[FoundChunk]]:
        return (), (await super().search_both(bank, query))[1]


@unlike("hybrid_search.works")
class FusesEachChunkTwice(VectorsInMemory):
    async def search_both(self, bank: Bank, query: Query) -> tuple[Sequence[FoundChunk], Sequence[FoundChunk]]:
        by_vector, by_word = await super().search_both(bank, query)
        return by_vector, [FoundChunk(replace(chunk, index=chunk.index + 1), score) for chunk, score in by_word]


class _Filters(SampleMemory):
    """Reads other filters than those that it gets."""

    def read(self, wanted: Comparison) -> Filter:
        raise NotImplementedError

    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        wanted = query.filter
        return await super().search(bank, replace(query, filter=None if wanted is None else self._read(wanted)))

    def _read(self, wanted: Filter) -> Filter:
        if isinstance(wanted, Combination):
            return Combination(wanted.operator, tuple(map(self._read, wanted.parts)))
        return self.read(wanted)


@forgetful("filters.works")
class TakesEqualForAtLeast(_Filters):
    def read(self, wanted: Comparison) -> Filter:
        return replace(wanted, operator="gte") if wanted.operator == "gt" else wanted


@forgetful("filters.works")
class TakesOneForTrue(_Filters):
    def read(self, wanted: Comparison) -> Filter:
        if wanted.operator == "eq" and wanted.value is True:
            return Combination("or", (wanted, replace(wanted, value=1)))
        return wanted


@forgetful("filters.works")
class FindsNothingUnlessTheKeyIsThere(_Filters):
    def read(self, wanted: Comparison) -> Filter:
        if wanted.operator not in ("ne", "nin"):
            return wanted
        there: tuple[Filter, ...] = tuple(Comparison(wanted.key, "gte", least) for least in ("", -(2**60)))
        return Combination("and", (wanted, Combination("or", there)))


@forgetful("filters.works")
class TakesOrForAnd(_Filters):
    def _read(self, wanted: Filter) -> Filter:
        return Combination("and", wanted.parts) if isinstance(wanted, Combination) else wanted


@forgetful("filters.works")
class IgnoresFilters(SampleMemory):
    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        return await super().search(bank, replace(query, filter=None))


@forgetful("filters.before-limit")
class FiltersWhatTheLimitLeaves(SampleMemory):
    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        fitting = await super().search(bank, replace(query, max_chunks=1000))
        first = await super().search(bank, replace(query, filter=None))
        return [each for each in fitting if any(each.chunk == other.chunk for other in first)]


@unlike("filters.works")
class FiltersOneModeAlone(VectorsInMemory):
    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        return await super().search(bank, query if query.mode == "vector" else replace(query, filter=None))


for _name in ("keyword_search", "filters"):

    @forgetful(f"{_name}.refused", capabilities={_name: "not implemented"})
    class HidesAMode(SampleMemory): ...


for _name in ("vector_search", "hybrid_search"):

    @unlike(f"{_name}.refused", capabilities={_name: "unsupported"})
    class HidesAVectorMode(VectorsInMemory): ...
