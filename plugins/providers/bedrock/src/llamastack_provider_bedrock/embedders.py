"""Embedding models of Bedrock: each family has its own body for InvokeModel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Embedder:
    """batch: texts that one call takes. body: of a call. vectors: those of its answer."""

    batch: int
    body: Callable[[Sequence[str]], dict[str, Any]]
    vectors: Callable[[Any], list[Any]]


_EMBEDDERS = {
    "amazon.titan-embed-text": Embedder(
        batch=1, body=lambda texts: {"inputText": texts[0]}, vectors=lambda answer: [answer["embedding"]]
    ),
    # What is a query and what a document is not known here; the two differ little.
    "cohere.embed": Embedder(
        batch=96,
        body=lambda texts: {"texts": list(texts), "input_type": "search_document", "embedding_types": ["float"]},
        vectors=lambda answer: answer["embeddings"]["float"],
    ),
}


def embedder_of(model: str) -> Embedder | None:
    """The one for a foundation model; None where it embeds nothing, or is not known here."""
    return next((embedder for family, embedder in _EMBEDDERS.items() if family in model), None)
