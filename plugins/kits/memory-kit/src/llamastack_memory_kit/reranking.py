"""Chunks in the order in which a chat model judges that they answer the query."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llamastack.api.common import SamplingParams, SystemMessage, UserMessage, text_of
from llamastack.api.inference import ChatCompletionResponse, Inference, LogProbConfig
from llamastack.provider import BackendError, NotSupportedError
from llamastack_memory_kit.parallel_calls import call_each
from llamastack_memory_kit.records import FoundChunk

_AT_ONCE = 4
_MOST_CHARACTERS = 4000
"""Of a chunk and of the query: more of them do not change the judgement, but overrun models with a short context."""
_TASK = "You judge search results. Say whether the passage answers the query. Answer with one word: yes or no."


async def reranked(inference: Inference, model: str, query: str, found: Sequence[FoundChunk]) -> list[FoundChunk]:
    """The same chunks, the best first. Scores are 0 to 1: how sure the model is that the chunk answers the query.

    It makes one call of the model for each chunk. If the model's provider has no log probabilities, scores are 0 or 1,
    and chunks with one score keep their order. Raises the errors of the model, and BackendError for an answer that is
    neither yes nor no.
    """
    scores = [0.0] * len(found)
    judge = _Judge(inference, model, query)

    async def score(place: int) -> None:
        scores[place] = await judge.score(found[place].chunk.indexed_text)

    await call_each(score, range(len(found)), _AT_ONCE)
    judged = [FoundChunk(each.chunk, score) for each, score in zip(found, scores, strict=True)]
    return sorted(judged, key=lambda each: -each.score)


class _Judge:
    def __init__(self, inference: Inference, model: str, query: str) -> None:
        self._inference = inference
        self._model = model
        self._query = query[:_MOST_CHARACTERS]
        self._logprobs: LogProbConfig | None = LogProbConfig(top_k=5)

    async def score(self, passage: str) -> float:
        logprobs = self._logprobs
        try:
            return self._read(await self._ask(passage, logprobs))
        except NotSupportedError:
            if logprobs is None:
                raise
            self._logprobs = None  # other calls may be on their way with it, and then come here, too
            return self._read(await self._ask(passage, None))

    async def _ask(self, passage: str, logprobs: LogProbConfig | None) -> ChatCompletionResponse:
        asked = f"Query: {self._query}\n\nPassage: {passage[:_MOST_CHARACTERS]}\n\nDoes the passage answer the query?"
        answer = await self._inference.chat_completion(
            model=self._model,
            messages=[SystemMessage(content=_TASK), UserMessage(content=asked)],
            sampling_params=SamplingParams(max_tokens=2),
            logprobs=logprobs,
        )
        assert isinstance(answer, ChatCompletionResponse)  # no stream was asked for
        return answer

    def _read(self, answer: ChatCompletionResponse) -> float:
        for token in answer.logprobs or ():
            by_answer = {"yes": 0.0, "no": 0.0}
            for text, logprob in token.logprobs_by_token.items():
                word = text.strip(" ▁Ġ.").lower()
                if word in by_answer:
                    by_answer[word] += math.exp(logprob)
            if total := sum(by_answer.values()):
                return by_answer["yes"] / total
        said = text_of(answer.completion_message.content).strip().lower()
        if said.startswith(("yes", "no")):
            return 1.0 if said.startswith("yes") else 0.0
        raise BackendError(f"model '{self._model}' answered {said[:40]!r} where it had to say yes or no")
