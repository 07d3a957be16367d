"""Embeddings of many texts by the stack's inference API: in batches, a few at the same time, in order."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence

import anyio

from llamastack.api.inference import Inference
from llamastack.api.models import Models
from llamastack.provider import BackendError, Deps, LlamaStackError
from llamastack_memory_kit.parallel_calls import call_each
from llamastack_memory_kit.settings import EmbeddingSettings

_DIMENSION_TEXT = "dimension"


class Embedder:
    """Embeds for one provider. It needs `inference` among `deps`; with `models` errors name the model's provider."""

    def __init__(self, settings: EmbeddingSettings, deps: Deps) -> None:
        self._inference: Inference = deps["inference"]
        self._models: Models | None = deps.get("models")
        self._provider_id = deps.provider_id
        self._batch_size = settings.embedding_batch_size
        self._concurrency = settings.embedding_concurrency
        self._slots = anyio.CapacityLimiter(self._concurrency)

    async def embed(self, model: str, texts: Sequence[str]) -> list[Sequence[float]]:
        """One vector for each text, in their order; all have the same length.

        After the first failure, or when the caller is cancelled, no further call is made, and those in flight are
        cancelled. Raises the error of the call, and BackendError for a wrong number of vectors and for wrong vectors.
        """
        vectors: list[Sequence[float]] = [()] * len(texts)

        async def embed_batch(first: int) -> None:
            batch = texts[first : first + self._batch_size]
            async with self._slots:
                vectors[first : first + len(batch)] = await self._call(model, batch)

        await call_each(embed_batch, range(0, len(texts), self._batch_size), self._concurrency)
        lengths = sorted({len(vector) for vector in vectors})
        if len(lengths) > 1:
            raise await self._wrong(model, f"makes vectors of {lengths[0]} and of {lengths[-1]} numbers")
        return vectors

    async def embed_query(self, model: str, text: str) -> Sequence[float]:
        """The vector of one text. It does not wait for the batches of inserts."""
        (vector,) = await self._call(model, [text])
        return vector

    async def dimension(self, model: str) -> int:
        """The length of the model's vectors: no way to learn it but a call works with every inference provider."""
        found = len(await self.embed_query(model, _DIMENSION_TEXT))
        if found == 0:
            raise await self._wrong(model, "makes empty vectors")
        return found

    async def named(self, model: str) -> str:
        """The model and its provider, for errors."""
        provider_id = ""
        if self._models is not None:
            try:
                served = await self._models.get_model(model)
            except LlamaStackError:
                served = None
            provider_id = "" if served is None else served.provider_id
        return f"embedding model '{model}'" + (f" of provider '{provider_id}'" if provider_id else "")

    async def _call(self, model: str, texts: Sequence[str]) -> list[Sequence[float]]:
        reply = await self._inference.embeddings(model=model, contents=list(texts))
        if len(reply.embeddings) != len(texts):
            raise await self._wrong(model, f"made {len(reply.embeddings)} vectors of {len(texts)} texts")
        # An array takes a quarter of a list's memory.
        vectors = [array("d", vector) for vector in reply.embeddings]
        if not all(math.isfinite(sum(vector)) for vector in vectors):
            raise await self._wrong(model, "made a vector with a number that is not finite")
        return [*vectors]

    async def _wrong(self, model: str, what: str) -> BackendError:
        return BackendError(f"{await self.named(model)} {what}", provider_id=self._provider_id)
