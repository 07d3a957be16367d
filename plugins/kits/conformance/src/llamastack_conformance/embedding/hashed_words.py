"""Embeddings without a model, for tests: each word of a text adds to a few numbers of its vector."""

from __future__ import annotations

import functools
import hashlib
import math
import re

import anyio.to_thread

from llamastack.api.common import ImageMedia, InterleavedTextMedia, text_of
from llamastack.api.inference import EmbeddingsResponse, TokenUsage
from llamastack.api.models import Model
from llamastack.provider import Deps, InvalidRequestError, ObjectNotFoundError, UnsupportedModelError
from llamastack_conformance.embedding.config import TestEmbeddingsConfig

IDENTIFIER = "hashed-words"
_PLACES_PER_WORD = 8
_WORD = re.compile(r"\w+|[^\w\s]")
_BATCH = 64


class HashedWords:
    """The inference provider. It serves only embeddings of `hashed-words`."""

    def __init__(self, config: TestEmbeddingsConfig, provider_id: str) -> None:
        self._dimension = config.dimension
        self._provider_id = provider_id

    async def list_models(self) -> list[Model]:
        """The one model."""
        return [Model(identifier=IDENTIFIER, metadata={"embedding_dimension": self._dimension})]

    async def register_model(self, model: Model) -> None:
        """Accept the only model, which is always served.

        Raises UnsupportedModelError for any other model.
        """
        if model.identifier != IDENTIFIER:
            raise UnsupportedModelError(model.identifier, available=[IDENTIFIER], provider_id=self._provider_id)

    async def embeddings(self, model: str, contents: list[InterleavedTextMedia]) -> EmbeddingsResponse:
        """One vector of length 1 for each content, the same in every process.

        Raises ObjectNotFoundError for another model, InvalidRequestError for an image (`param` is `contents[i]`).
        """
        if model != IDENTIFIER:
            raise ObjectNotFoundError("model", model, available=[IDENTIFIER], param="model")
        texts = [self._text(content, place) for place, content in enumerate(contents)]
        vectors: list[list[float]] = []
        words = 0
        # In batches, so that a cancelled call ends soon.
        for first in range(0, len(texts), _BATCH):
            batch = texts[first : first + _BATCH]
            made, counted = await anyio.to_thread.run_sync(_embedded, batch, self._dimension)
            vectors += made
            words += counted
        return EmbeddingsResponse(embeddings=vectors, usage=TokenUsage(prompt_tokens=words))

    def _text(self, content: InterleavedTextMedia, place: int) -> str:
        parts = content if isinstance(content, list) else [content]
        if any(isinstance(part, ImageMedia) for part in parts):
            raise InvalidRequestError(
                f"contents[{place}]: {IDENTIFIER} embeds text, not images",
                param=f"contents[{place}]",
                provider_id=self._provider_id,
            )
        return text_of(content)


def _embedded(texts: list[str], dimension: int) -> tuple[list[list[float]], int]:
    """The vectors, and how many words were read for them."""
    vectors, counted = [], 0
    for text in texts:
        words = _WORD.findall(text.casefold())
        vectors.append(_vector(set(words), dimension))
        counted += len(words)
    return vectors, counted


def _vector(words: set[str], dimension: int) -> list[float]:
    """The cosine of two of these is about the number of shared words by the root of the product of both numbers."""
    vector = [0.0] * dimension
    for word in words:
        for place in _places(word, dimension):
            vector[abs(place) - 1] += 1.0 if place > 0 else -1.0
    length = math.sqrt(sum(number * number for number in vector))
    if length == 0.0:  # a text without words
        vector[0] = length = 1.0
    return [number / length for number in vector]


@functools.lru_cache(maxsize=1 << 16)
def _places(word: str, dimension: int) -> tuple[int, ...]:
    """Where a word counts, from 1 to `dimension`; below 0 where it counts negatively."""
    digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=4 * _PLACES_PER_WORD).digest()
    numbers = [int.from_bytes(digest[at : at + 4]) for at in range(0, len(digest), 4)]
    return tuple((number // 2 % dimension + 1) * (1 if number % 2 else -1) for number in numbers)


async def get_provider_impl(config: TestEmbeddingsConfig, deps: Deps) -> HashedWords:
    """Make the provider; it needs no start."""
    return HashedWords(config, deps.provider_id)
