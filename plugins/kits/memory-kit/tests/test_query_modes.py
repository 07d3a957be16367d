"""Modes, filters, fusion and reranking of queries: one meaning for all memory providers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import anyio
import pytest
from bank_memory_fake import Embeddings, Kept

from llamastack.api import ChatCompletionResponse, MemoryBankDocument, VectorMemoryBank
from llamastack.api.common import CompletionMessage, StopReason
from llamastack.api.inference import TokenLogProbs
from llamastack.provider import BackendError, Deps, InvalidRequestError, NotSupportedError
from llamastack_memory_kit import Bank, EmbeddingSettings, FoundChunk, Query, SearchMode, StoredChunk, matches
from llamastack_memory_kit.filters import filter_of
from llamastack_memory_kit.fusion import fused
from llamastack_memory_kit.query_params import ReciprocalRank, Weighted, read_query_params

pytestmark = pytest.mark.anyio
BANK = VectorMemoryBank(identifier="b", embedding_model="m", chunk_size_in_tokens=50)
RANKS = ReciprocalRank(type="reciprocal_rank")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Searched(Kept):
    """Keeps the queries that it gets. Both modes; a keyword score is how often the query's text is in the chunk."""

    modes: ClassVar[Mapping[str, Sequence[SearchMode]]] = {"vector": ("vector", "keyword")}
    filters = True
    keyword_scores = "count"

    def __init__(self, config: EmbeddingSettings, deps: Deps) -> None:
        super().__init__(config, deps)
        self.queries: list[Query] = []

    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        self.queries.append(query)
        if query.mode == "vector":
            return await super().search(bank, query)
        counted = [FoundChunk(c, float(c.content.count(query.text))) for c, _ in await super().search(bank, query)]
        return [each for each in counted if each.score]


class Judge(Embeddings):
    """A chat model that says what a test wants of each passage."""

    def __init__(self, verdicts: dict[str, Any], *, logprobs: bool = True) -> None:
        super().__init__()
        self.verdicts = verdicts
        self.logprobs = logprobs

    async def chat_completion(self, model: str, messages: Any, logprobs: Any = None, **_: Any) -> Any:
        await anyio.sleep(0.001)  # so that several calls are on their way at once
        if logprobs is not None and not self.logprobs:
            raise NotSupportedError("no log probabilities")
        [verdict] = [said for text, said in self.verdicts.items() if f"Passage: {text}" in messages[-1].content]
        said = verdict if isinstance(verdict, str) else "yes"
        answer = CompletionMessage(content=said, stop_reason=StopReason.end_of_turn)
        tops = None if logprobs is None or isinstance(verdict, str) else [TokenLogProbs(logprobs_by_token=verdict)]
        return ChatCompletionResponse(completion_message=answer, logprobs=tops)


async def started(kind: type[Kept] = Searched, inference: Embeddings | None = None) -> Any:
    deps = Deps(provider_id="p", apis={"inference": inference or Embeddings()})
    memory = kind(EmbeddingSettings(), deps)
    await memory.initialize()
    await memory.register_memory_bank(BANK)
    texts = {"one": "aa", "two": "aa aa", "none": "zzzz"}
    await memory.insert_documents("b", [MemoryBankDocument(document_id=n, content=t) for n, t in texts.items()])
    return memory


async def test_the_mode_reaches_the_backend_and_names_the_scores() -> None:
    memory = await started()
    plain = await memory.query_documents("b", "aa")
    assert (plain.scored_by, memory.queries[-1].mode) == ("cosine_similarity", "vector")
    found = await memory.query_documents("b", "aa", {"mode": "keyword"})
    assert [chunk.document_id for chunk in found.chunks] == ["two", "one"]
    assert (found.scored_by, memory.queries[-1].mode, memory.queries[-1].vector) == ("count", "keyword", ())


async def test_a_hybrid_query_asks_for_more_and_fuses() -> None:
    memory = await started()
    found = await memory.query_documents("b", "aa", {"mode": "hybrid", "max_chunks": 2, "fusion": RANKS.model_dump()})
    assert [query.mode for query in memory.queries] == ["vector", "keyword"]
    assert {query.max_chunks for query in memory.queries} == {50}
    assert (found.scored_by, len(found.chunks)) == ("reciprocal_rank", 2)


async def test_a_bank_refuses_what_it_lacks() -> None:
    memory = await started(Kept)
    wanted = {"type": "eq", "key": "k", "value": 1}
    for params, param in (
        ({"mode": "hybrid"}, "mode"),
        ({"mode": "keyword"}, "mode"),
        ({"filters": wanted}, "filters"),
    ):
        with pytest.raises(NotSupportedError) as caught:
            await memory.query_documents("b", "aa", params)
        assert caught.value.param == f"params.{param}"
    assert "it has: vector" in str(caught.value) or param == "filters"


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"mode": "fuzzy"}, "params.mode"),
        ({"fusion": {"type": "weighted"}}, "params.fusion"),
        ({"mode": "vector", "fusion": {"type": "reciprocal_rank"}}, "params.fusion"),
        ({"filters": {"type": "eq", "key": "k", "value": [1]}}, "params.filters.value"),
        ({"filters": {"type": "gt", "key": "k", "value": True}}, "params.filters.value"),
        ({"filters": {"type": "in", "key": "k", "value": []}}, "params.filters.value"),
        ({"filters": {"type": "and", "filters": []}}, "params.filters.filters"),
        ({"filters": {"type": "like", "key": "k", "value": "x"}}, "params.filters.type"),
        ({"filters": {"type": "eq", "key": "k"}}, "params.filters.value"),
        ({"max_tokens_in_context": 0}, "params.max_tokens_in_context"),
        ({"rerank": {}}, "params.rerank.model"),
    ],
)
async def test_wrong_params_are_refused(params: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read_query_params(params, "p")
    assert caught.value.param == param


async def test_filters_have_limits() -> None:
    deep: dict[str, Any] = {"type": "eq", "key": "k", "value": 1}
    for _ in range(2000):
        deep = {"type": "and", "filters": [deep]}
    wide = {"type": "or", "filters": [{"type": "eq", "key": "k", "value": n} for n in range(300)]}
    for wanted, why in ((deep, "nested at most 16 deep"), (wide, "at most 256 comparisons")):
        with pytest.raises(InvalidRequestError, match=why):
            read_query_params({"filters": wanted}, "p")
    fine = {"type": "or", "filters": wide["filters"][:256]}
    assert read_query_params({"filters": fine}, "p").filters is not None


def test_what_a_filter_means() -> None:
    def fits(wanted: dict[str, Any], metadata: dict[str, Any]) -> bool:
        read = read_query_params({"filters": wanted}, "p").filters
        assert read is not None
        return matches(filter_of(read), metadata)

    assert fits({"type": "eq", "key": "k", "value": 1}, {"k": 1.0})
    assert not fits({"type": "eq", "key": "k", "value": 1}, {"k": True})
    assert fits({"type": "ne", "key": "k", "value": 1}, {})
    assert not fits({"type": "lt", "key": "k", "value": 1}, {"k": None})
    assert fits({"type": "in", "key": "k", "value": ["a", 2]}, {"k": ["x", 2]})
    assert not fits({"type": "nin", "key": "k", "value": ["a", 2]}, {"k": ["x", 2]})
    assert fits({"type": "gte", "key": "k", "value": "b"}, {"k": ["a", "b"]})


def found(*names: str, generation: int = 0, step: float = 0.1) -> list[FoundChunk]:
    return [FoundChunk(StoredChunk(n, n, 1, {}, generation=generation), 1 - step * p) for p, n in enumerate(names)]


@pytest.mark.parametrize("how", [RANKS, Weighted(type="weighted", vector_weight=0.5)])
def test_what_is_found_twice_comes_first(how: Any) -> None:
    best = fused(found("a", "b", "c", "x"), found("c", "d", "b", "y"), how)
    assert {each.chunk.document_id for each in best} == {*"abcdxy"}
    assert best[0].chunk.document_id in ("b", "c")
    assert all(0 <= each.score <= 1 for each in best)
    alone = fused(found("a", "b"), [], how)
    assert [each.chunk.document_id for each in alone] == ["a", "b"]
    assert fused(found("a"), found("a"), how)[0].score == 1


def test_two_versions_of_a_document_are_not_mixed() -> None:
    best = fused(found("a", "b", generation=1), found("a", generation=2), RANKS)
    assert [(each.chunk.document_id, each.chunk.generation) for each in best] == [("b", 1), ("a", 2)]


async def test_a_model_sorts_what_was_found() -> None:
    verdicts = {
        "aa\n": {"yes": -3.0, "no": -0.1},
        "aa aa": {" Yes": -0.2, "no": -2.0},
        "zzzz": {"yes": -9.0, "no": -0.01},
    }
    memory = await started(inference=Judge(verdicts))
    found = await memory.query_documents("b", "aa", {"rerank": {"model": "chat"}})
    assert [chunk.document_id for chunk in found.chunks] == ["two", "one", "none"]
    assert (found.scored_by, found.scores == sorted(found.scores, reverse=True)) == ("rerank", True)
    few = await memory.query_documents("b", "aa", {"rerank": {"model": "chat"}, "score_threshold": 0.5})
    assert [chunk.document_id for chunk in few.chunks] == ["two"]


async def test_a_model_without_log_probabilities_says_yes_or_no() -> None:
    verdicts = {"aa\n": "No.", "aa aa": "No", "zzzz": "Yes."}
    memory = await started(inference=Judge(verdicts, logprobs=False))
    found = await memory.query_documents("b", "aa", {"rerank": {"model": "chat"}})
    assert (found.chunks[0].document_id, found.scores) == ("none", [1.0, 0.0, 0.0])
    memory = await started(inference=Judge({**verdicts, "zzzz": "Perhaps"}, logprobs=False))
    with pytest.raises(BackendError, match="'perhaps' where it had to say yes or no"):
        await memory.query_documents("b", "aa", {"rerank": {"model": "chat"}})


async def test_tokens_in_context_leave_out_what_does_not_fit() -> None:
    memory = await started()
    whole = await memory.query_documents("b", "aa")
    counts: Sequence[int] = [chunk.token_count for chunk in whole.chunks]
    found = await memory.query_documents("b", "aa", {"max_tokens_in_context": min(counts)})
    assert sum(chunk.token_count for chunk in found.chunks) <= min(counts)
    assert found.chunks
