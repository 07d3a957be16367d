"""Inference providers that are each broken in one way at embeddings, or at counting tokens."""

from __future__ import annotations

from typing import Any

from broken_inference import Base, broken

from llamastack.api import EmbeddingsResponse, SamplingParams, TokenUsage
from llamastack.provider import InternalError
from llamastack_adapters.openai_dialect import OpenAIForm


class _ChangesVectors(Base):
    def vectors_of(self, contents: list[Any], vectors: list[list[float]]) -> list[list[float]]:
        raise NotImplementedError

    async def embeddings(self, model: str, contents: Any) -> Any:
        reply = await super().embeddings(model, contents)
        reply.embeddings = self.vectors_of(contents, reply.embeddings)
        return reply


@broken("vectors.order")
class SortsByText(_ChangesVectors):
    def vectors_of(self, contents: list[Any], vectors: list[list[float]]) -> list[list[float]]:
        return [vectors[place] for place in sorted(range(len(contents)), key=contents.__getitem__)]


@broken("vectors.order")
class DropsEqualTexts(Base):
    async def embeddings(self, model: str, contents: Any) -> Any:
        return await super().embeddings(model, list(dict.fromkeys(contents)))


@broken("vectors.order")
class TurnsBatches(_ChangesVectors):
    def vectors_of(self, contents: list[Any], vectors: list[list[float]]) -> list[list[float]]:
        return [vector for at in range(0, len(vectors), 8) for vector in vectors[at : at + 8][::-1]]


@broken("vectors.batches")
class TurnsWhatFollowsThe64th(_ChangesVectors):
    def vectors_of(self, contents: list[Any], vectors: list[list[float]]) -> list[list[float]]:
        return vectors[:64] + vectors[64:][::-1]


@broken("vectors.batches")
class SwapsHalves(_ChangesVectors):
    def vectors_of(self, contents: list[Any], vectors: list[list[float]]) -> list[list[float]]:
        half = len(vectors) // 2 if len(vectors) > 64 else 0
        return vectors[half:] + vectors[:half]


@broken("vectors.batches")
class RepeatsTheFirst128(_ChangesVectors):
    def vectors_of(self, contents: list[Any], vectors: list[list[float]]) -> list[list[float]]:
        return vectors[:128] + vectors[: max(0, len(vectors) - 128)]


@broken("vectors.many")
class PutsBatchesTogetherInReverse(_ChangesVectors):
    def vectors_of(self, contents: list[Any], vectors: list[list[float]]) -> list[list[float]]:
        batches = [vectors[at : at + 500] for at in range(0, len(vectors), 500)]
        return [vector for batch in batches[::-1] for vector in batch]


@broken("vectors.many")
class EmbedsAtMostAThousand(Base):
    async def embeddings(self, model: str, contents: Any) -> Any:
        return await super().embeddings(model, contents[:1000])


@broken("vectors.many")
class RepeatsABatch(Base):
    async def embeddings(self, model: str, contents: Any) -> Any:
        reply = await super().embeddings(model, contents[:512])
        while len(reply.embeddings) < len(contents):
            reply.embeddings += reply.embeddings[: len(contents) - len(reply.embeddings)]
        return reply


@broken("vectors.odd-texts")
class LeavesOutEmptyTexts(Base):
    async def embeddings(self, model: str, contents: Any) -> Any:
        return await super().embeddings(model, [text for text in contents if text])


@broken("vectors.odd-texts")
class HasZerosForEmptyTexts(_ChangesVectors):
    def vectors_of(self, contents: list[Any], vectors: list[list[float]]) -> list[list[float]]:
        return [v if text else [0.0] * len(v) for text, v in zip(contents, vectors, strict=True)]


@broken("vectors.odd-texts")
class FailsAtNul(Base):
    async def embeddings(self, model: str, contents: Any) -> Any:
        if any("\0" in text for text in contents):
            raise InternalError("embedded null byte")
        return await super().embeddings(model, contents)


class _Counts(Base):
    def counted(self, usage: Any) -> Any:
        raise NotImplementedError

    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, **kwargs)
        if not kwargs.get("stream"):
            reply.usage = self.counted(reply.usage)
        return reply

    async def completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().completion(*args, **kwargs)
        if not kwargs.get("stream"):
            reply.usage = self.counted(reply.usage)
        return reply

    async def embeddings(self, model: str, contents: Any) -> EmbeddingsResponse:
        reply = await super().embeddings(model, contents)
        reply.usage = self.counted(reply.usage)
        return reply


@broken("usage.chat")
class SwapsTheCounts(_Counts):
    def counted(self, usage: Any) -> Any:
        return TokenUsage(prompt_tokens=usage.completion_tokens, completion_tokens=usage.prompt_tokens)


@broken("usage.chat")
class CountsNothing(_Counts):
    def counted(self, usage: Any) -> Any:
        return TokenUsage(prompt_tokens=0, completion_tokens=0)


@broken("usage.chat")
class CountsBelowZero(_Counts):
    def counted(self, usage: Any) -> Any:
        return TokenUsage.model_construct(prompt_tokens=-1, completion_tokens=-1)


@broken("usage.chat")
class AddsUpOverCalls(_Counts):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.made = 0

    def counted(self, usage: Any) -> Any:
        self.made += usage.prompt_tokens * 40
        return TokenUsage(prompt_tokens=self.made, completion_tokens=usage.completion_tokens)


@broken("usage.chat")
class CountsTheLastMessage(Base):
    async def chat_completion(self, model: str, messages: Any, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(model, messages, *args, **kwargs)
        if not kwargs.get("stream"):
            tokens = len(str(messages[-1].content).split())
            reply.usage = TokenUsage(prompt_tokens=tokens, completion_tokens=reply.usage.completion_tokens)
        return reply


@broken("usage.chat")
class KeepsNoLimit(Base):
    async def chat_completion(self, *args: Any, sampling_params: Any = None, **kwargs: Any) -> Any:
        given = (sampling_params or SamplingParams()).model_copy(update={"max_tokens": 100})
        return await super().chat_completion(*args, sampling_params=given, **kwargs)


@broken("usage.completion")
class CountsCharacters(_Counts):
    def counted(self, usage: Any) -> Any:
        return TokenUsage(prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens * 6)


@broken("usage.completion")
class LimitsNoCompletion(Base):
    async def openai_completion(self, form: OpenAIForm) -> Any:
        return await super().openai_completion(form.with_fields(max_tokens=100))

    async def send_text(self, form: OpenAIForm) -> Any:
        return await super().send_text(form.with_fields(max_tokens=100))


@broken("usage.embeddings")
class CountsOneText(_Counts):
    def counted(self, usage: Any) -> Any:
        return TokenUsage(prompt_tokens=min(usage.prompt_tokens, 9), completion_tokens=0)


@broken("usage.embeddings")
class MakesTokensOfEmbeddings(_Counts):
    def counted(self, usage: Any) -> Any:
        return TokenUsage(prompt_tokens=usage.prompt_tokens, completion_tokens=usage.prompt_tokens)


class _Lists(Base):
    metadata: dict[str, Any] = {}  # noqa: RUF012 - each class has its own

    async def list_models(self) -> Any:
        return [model.model_copy(update={"metadata": self.metadata}) for model in await super().list_models()]


@broken("listing.metadata")
class ListsAWrongDimension(_Lists):
    metadata = {"embedding_dimension": 768}  # noqa: RUF012


@broken("listing.metadata")
class ChatsWithAnEmbedder(_Lists):
    metadata = {"embedding_dimension": 32}  # noqa: RUF012


@broken("listing.lacks", settings={"lacks": ["embeddings"]})
class HasWhatItIsToLack(Base): ...


@broken("listing.lacks", settings={"lacks": ["embeddings"]})
class HasNoVectors(_ChangesVectors):
    def vectors_of(self, contents: list[Any], vectors: list[list[float]]) -> list[list[float]]:
        return []
