"""Embedding models of Bedrock: each family has its own body for InvokeModel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Embedder:
    """batch: most texts of one call. body: makes the body of a call. vectors: reads the vectors of its answer."""

    batch: int
    body: Callable[[Sequence[str]], dict[str, Any]]
    vectors: Callable[[Any], list[Any]]


_EMBEDDERS = {
    "amazon.titan-embed-text": Embedder(
        batch=1, body=lambda texts: {"inputText": texts[0]}, vectors=lambda answer: [answer["embedding"]]
    ),
    # It is unknown whether a text is a query or a document; the two differ little.
    "cohere.embed": Embedder(
        batch=96,
        body=lambda texts: {"texts": list(texts), "input_type": "search_document", "embedding_types": ["float"]},
        vectors=lambda answer: answer["embeddings"]["float"],
    ),
}


def embedder_of(model: str) -> Embedder | None:
    """The embedder of a foundation model; None if the model does not embed, or is unknown."""
    return next((embedder for family, embedder in _EMBEDDERS.items() if family in model), None)
