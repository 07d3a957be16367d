"""One list of chunks out of two: those found by vectors and those found by words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llamastack_memory_kit.query_params import ReciprocalRank, Weighted
from llamastack_memory_kit.records import FoundChunk, StoredChunk

DEFAULT = Weighted(type="weighted")
"""What a hybrid query without `fusion` does; docs/memory.md has its measured quality."""


def fused(
    by_vector: Sequence[FoundChunk], by_keyword: Sequence[FoundChunk], how: ReciprocalRank | Weighted
) -> list[FoundChunk]:
    """The chunks of both lists, each once, the best first, with scores from 0 to 1.

    Chunks of a document's earlier version are left out: it may have been replaced between the two searches.
    """
    lists = [sorted(found, key=lambda each: -each.score) for found in (by_vector, by_keyword)]
    newest: dict[str, int] = {}
    for each in (*by_vector, *by_keyword):
        newest[each.chunk.document_id] = max(newest.get(each.chunk.document_id, 0), each.chunk.generation)
    if isinstance(how, Weighted):
        parts = [_by_score(how.vector_weight), _by_score(1 - how.vector_weight)]
    else:
        parts = [_by_rank(how.k)] * 2
    chunks: dict[tuple[str, int], StoredChunk] = {}
    scores: dict[tuple[str, int], float] = {}
    for found, part in zip(lists, parts, strict=True):
        current = [each for each in found if each.chunk.generation == newest[each.chunk.document_id]]
        for each, score in zip(current, part([each.score for each in current]), strict=True):
            place = (each.chunk.document_id, each.chunk.index)
            chunks.setdefault(place, each.chunk)
            scores[place] = scores.get(place, 0.0) + score
    return sorted((FoundChunk(chunk, scores[place]) for place, chunk in chunks.items()), key=lambda each: -each.score)


def _by_rank(k: int) -> Callable[[Sequence[float]], list[float]]:
    return lambda scores: [(k + 1) / (k + rank) / 2 for rank in range(1, len(scores) + 1)]


def _by_score(weight: float) -> Callable[[Sequence[float]], list[float]]:
    def part(scores: Sequence[float]) -> list[float]:
        low, high = min(scores, default=0.0), max(scores, default=0.0)
        return [weight * ((score - low) / (high - low) if high > low else 1.0) for score in scores]

    return part
