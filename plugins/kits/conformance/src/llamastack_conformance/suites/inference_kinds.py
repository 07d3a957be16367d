"""Every kind of call of an inference provider, for checks that hold for all of them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any, NamedTuple

from llamastack.api.common import SamplingParams, UserMessage
from llamastack_adapters.chat_request import ChatRequest
from llamastack_conformance.running import Running
from llamastack_conformance.suites.inference_ways import AskingChecks, Way, read

_PARAMS = SamplingParams(max_tokens=8)


class Kind(NamedTuple):
    """A kind of call. make: makes one about a text, and reads its result to the end. streamed: it is a stream."""

    name: str
    make: Callable[[str], Coroutine[Any, Any, Any]]
    streamed: bool


class KindChecks(AskingChecks):
    """The kinds of calls that a provider declares."""

    async def kinds(self, running: Running) -> list[Kind]:
        """Chats in every way, text completions, embeddings: whole, and streamed where that exists."""
        subject, found = running.subject, []
        if subject.declares("chat_completion"):
            model = await self._model(running)
            found = [_chat_kind(running, way, model) for way in self.ways(running)]
        found += self._completions(running)
        if subject.declares("embeddings"):

            async def embed(text: str) -> Any:
                return await self._embed(running, [text])

            found.append(Kind("embeddings", embed, streamed=False))
        return found

    def _completions(self, running: Running) -> Iterator[Kind]:
        if not running.subject.declares("completion"):
            return
        for stream in (False, True) if running.subject.declares("streaming") else (False,):

            async def complete(text: str, stream: bool = stream) -> Any:
                return await read(await self._complete(running, text, sampling_params=_PARAMS, stream=stream))

            yield Kind(f"completion{', streamed' if stream else ''}", complete, streamed=stream)


def _chat_kind(running: Running, way: Way, model: str) -> Kind:
    async def chat(text: str) -> Any:
        return await read(await way.ask(running, ChatRequest(model, [UserMessage(content=text)], _PARAMS)))

    return Kind(way.name, chat, streamed="streamed" in way.name)
