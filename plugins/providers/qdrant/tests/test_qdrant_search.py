"""Filters and words: a filter finds what `matches` says, words find as BM25 says, old banks say what they lack."""

from __future__ import annotations

import math
import time
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import models

from llamastack.api.memory_banks import VectorMemoryBank
from llamastack.provider import Deps, NotSupportedError
from llamastack_memory_kit import Bank, Combination, Comparison, Insert, Query, StoredChunk, matches
from llamastack_provider_qdrant.config import QdrantConfig
from llamastack_provider_qdrant.memory import QdrantMemory, get_adapter_impl
from llamastack_provider_qdrant.points import collection_name, to_metadata
from llamastack_provider_qdrant.words import words_of

pytestmark = pytest.mark.anyio

DEFINITION = VectorMemoryBank(identifier="notes", embedding_model="all-MiniLM-L6-v2", chunk_size_in_tokens=64)
BANK = Bank(DEFINITION, 2)
DEPS = Deps(provider_id="docs", apis={"inference": object()})  # vectors are given here, none is made

KEYS = st.sampled_from(["a", "a.b", 'q"x', "l[0]", "l[]", "", "ключ", "expires_at", "terms"])
NUMBERS = st.sampled_from([0, 1, 1.0, -1, 0.5, 2**53, 2**53 + 1, -(2**63), 2**63 - 1, 1e300, -0.0])
SCALARS = st.one_of(NUMBERS, st.booleans(), st.sampled_from(["", "1", "true", "a", "b", "ä", "z\U0001f600", "zz"]))
METADATA = st.dictionaries(
    KEYS, st.one_of(SCALARS, st.none(), st.lists(SCALARS, max_size=3), st.just({"b": 1})), max_size=4
)
COMPARISONS = st.one_of(
    st.builds(Comparison, KEYS, st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte"]), SCALARS),
    st.builds(Comparison, KEYS, st.sampled_from(["in", "nin"]), st.lists(SCALARS, min_size=1, max_size=3).map(tuple)),
)
FILTERS = st.recursive(
    COMPARISONS,
    lambda parts: st.builds(
        Combination, st.sampled_from(["and", "or"]), st.lists(parts, min_size=1, max_size=3).map(tuple)
    ),
    max_leaves=5,
)


async def opened(**config: Any) -> QdrantMemory:
    memory = await get_adapter_impl(QdrantConfig.model_validate(config), DEPS)
    await memory.open()
    await memory.create_bank(BANK)
    return memory


def insert(*documents: tuple[str, dict[str, Any]]) -> Insert:
    """Documents of one chunk each: (text, metadata); their ids are their places."""
    chunks = [
        StoredChunk(str(place), text, 2, metadata, vector=(1.0, place / 10))
        for place, (text, metadata) in enumerate(documents)
    ]
    return Insert([chunk.document_id for chunk in chunks], chunks, time.time_ns() // 1000, time.time(), None)


def asked(text: str = "", most: int = 100, **more: Any) -> Query:
    return Query(text, (1.0, 0.0), most, None, time.time(), **more)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(metadata=st.lists(METADATA, min_size=1, max_size=8), wanted=FILTERS, most=st.integers(1, 4))
def test_a_filter_finds_exactly_what_it_means(
    place: dict[str, Any], metadata: list[dict[str, Any]], wanted: Any, most: int
) -> None:
    async def run() -> None:
        memory = await opened(**place)
        try:
            await memory.store(BANK, insert(*(("quoll", each) for each in metadata)))
            fit = [str(number) for number, each in enumerate(metadata) if matches(wanted, each)]
            for number in (most, 100):
                found = await memory.search(BANK, asked(most=number, filter=wanted))
                assert [each.chunk.document_id for each in found] == fit[:number]
                both = await memory.search_both(BANK, asked("quoll", number, filter=wanted))
                assert [each.chunk.document_id for each in both[0]] == fit[:number]
                assert len(both[1]) == len(fit[:number])
                assert {each.chunk.document_id for each in both[1]} <= {*fit}
            assert [each.chunk.metadata for each in found] == [metadata[int(each.chunk.document_id)] for each in found]
        finally:
            await memory.drop_bank(BANK)
            await memory.close()

    anyio.run(run)


async def test_scores_of_words_are_bm25(place: dict[str, Any]) -> None:
    memory = await opened(**place)
    texts = ["quoll", "The quoll sees a QUOLL.", "ferry to the bay", "a numbat"]
    await memory.store(BANK, insert(*((text, {}) for text in texts)))
    found = await memory.search(BANK, asked("Quoll, ferry!", mode="keyword"))
    await memory.close()

    def bm25(text: str) -> float:
        total = 0.0
        for word in ("quoll", "ferry"):
            holding, times = sum(word in words_of(each) for each in texts), words_of(text).count(word)
            rarity = math.log((len(texts) - holding + 0.5) / (holding + 0.5) + 1)
            total += rarity * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * len(words_of(text)) / 64))
        return total

    expected = sorted(((bm25(text), text) for text in texts if bm25(text)), reverse=True)
    assert [each.chunk.content for each in found] == [text for _, text in expected]
    assert [each.score for each in found] == pytest.approx([score for score, _ in expected], rel=1e-5)


async def test_a_query_of_signs_alone_finds_nothing(place: dict[str, Any]) -> None:
    memory = await opened(**place)
    await memory.store(BANK, insert(("quoll", {})))
    for text in ("", " ", "?!", '"', "_", "words:", "\ud800"):
        assert await memory.search(BANK, asked(text, mode="keyword")) == []
    await memory.close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The QUOLL's café, nº 5_x", ["the", "quoll", "s", "cafe", "no", "5", "x"]),
        ("猫は寝る cat", ["猫", "は", "寝", "る", "cat"]),
        ("Straße ДОМ", ["strasse", "дом"]),
        ("— !", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert words_of(text) == words


async def test_the_prefix_of_a_chunk_is_searched_and_kept(place: dict[str, Any]) -> None:
    memory = await opened(**place)
    chunk = StoredChunk("d", "It sleeps.", 3, {}, vector=(1.0, 0.0), prefix="Numbats")
    await memory.store(BANK, Insert(["d"], [chunk], 7, time.time(), None))
    (found,) = await memory.search(BANK, asked("numbats", mode="keyword"))
    assert (found.chunk.content, found.chunk.prefix, found.chunk.generation) == ("It sleeps.", "Numbats", 7)
    await memory.close()


async def test_a_bank_without_sparse_vectors_is_searched_by_vectors_alone() -> None:
    memory = await get_adapter_impl(QdrantConfig(location=":memory:"), DEPS)
    await memory.open()
    vectors = models.VectorParams(size=2, distance=models.Distance.COSINE)
    name = collection_name("llamastack_", "notes")
    await memory._backend.call(
        "create_collection", collection_name=name, vectors_config=vectors, metadata=to_metadata(DEFINITION)
    )
    assert await memory.find_bank("notes") == BANK
    await memory.store(BANK, insert(("quoll", {"a": 1})))
    assert [each.chunk.content for each in await memory.search(BANK, asked())] == ["quoll"]
    for query, param in (
        (asked("quoll", mode="keyword"), "params.mode"),
        (asked(filter=Comparison("a", "eq", 1)), "params.filters"),
    ):
        with pytest.raises(NotSupportedError, match="'notes' was made before .*; register a new bank") as caught:
            await memory.search(BANK, query)
        assert caught.value.param == param
    await memory.close()
