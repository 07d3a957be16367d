"""Every kind of call of an inference provider, for checks that hold for all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from typing import Any, NamedTuple

from llamastack.api.common import UserMessage
from llamastack_adapters.chat_request import ChatRequest
from llamastack_conformance.backend_tap import Request, Tap
from llamastack_conformance.gate import Gate
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.suites.inference_calls import PLAIN, read
from llamastack_conformance.suites.inference_ways import ANSWERS, AskingChecks, Way


class Kind(NamedTuple):
    """A kind of call. make: makes one about a text, and reads its result to the end. streamed: it is a stream.

    known_as: the name by which `ANSWERS` knows the backend's answer to it. is_native: it is a method of the API.
    """

    name: str
    make: Callable[[str], Coroutine[Any, Any, Any]]
    streamed: bool
    known_as: str
    is_native: bool = True


class KindChecks(AskingChecks):
    """The kinds of calls that a provider declares."""

    async def kinds(self, running: Running) -> list[Kind]:
        """Chats in every way, text completions, embeddings: whole, and streamed where that exists."""
        subject, found = running.subject, []
        if subject.declares("chat_completion"):
            model = await self._model(running)
            found = [_chat_kind(running, way, model) for way in self.ways(running)]
        if subject.declares("completion"):
            found += self._completions(running, await self._model(running))
        if subject.declares("embeddings"):

            async def embed(text: str) -> Any:
                return await self._embed(running, [text])

            found.append(Kind("embeddings", embed, streamed=False, known_as="embeddings"))
        return found

    async def each_kind(self, running: Running) -> list[tuple[str, Callable[[], Awaitable[Any]]]]:
        return [(kind.known_as, partial(kind.make, "Say hello.")) for kind in await self.kinds(running)]

    async def answers_of(
        self, subject: Subject, tap: Tap, name: str, make: Callable[[], Awaitable[Any]]
    ) -> Callable[[Request], Any] | None:
        await ANSWERS.prime(subject, tap, name, make)
        return tap.inject

    def _completions(self, running: Running, model: str) -> Iterator[Kind]:
        for stream in (False, True) if running.subject.declares("streaming") else (False,):

            async def complete(text: str, stream: bool = stream) -> Any:
                return await read(await self._complete(running, text, sampling_params=PLAIN, stream=stream))

            name = f"completion{', streamed' if stream else ''}"
            yield Kind(name, complete, streamed=stream, known_as=f"{name} of {model}")


def _chat_kind(running: Running, way: Way, model: str) -> Kind:
    async def chat(text: str) -> Any:
        return await read(await way.ask(running, ChatRequest(model, [UserMessage(content=text)], PLAIN)))

    return Kind(way.name, chat, way.streamed, f"{way.name} of {model}", way.native)


async def primed(running: Running, kind: Kind, *, gate: Gate | None = None) -> Any:
    """Make one call, and let the tap answer the later ones in the same way, so that no model computes for them.

    gate: where the later calls wait for each other. Returns the result of the call.
    """
    make = partial(kind.make, "Say qzplain.")
    result = await ANSWERS.prime(running.subject, running.tap, kind.known_as, make)
    running.tap.disturb(inject=running.tap.inject, gate=gate)
    return result
