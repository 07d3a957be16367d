"""Inference providers that are each broken in one way at concurrent or cancelled calls."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import anyio
from broken_inference import Base, broken

from llamastack.provider.streams import closing
from llamastack_adapters.openai_dialect import BackendReply, OpenAIForm


@broken("stress.overlap")
class MakesOneCallAtATime(Base):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lock = anyio.Lock()

    async def send_chat(self, form: OpenAIForm) -> BackendReply:
        async with self.lock:
            return await super().send_chat(form)


@broken("stress.overlap")
class EmbedsOneAtATime(Base):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lock = anyio.Lock()

    async def embeddings(self, model: str, contents: Any) -> Any:
        async with self.lock:
            return await super().embeddings(model, contents)


@broken("stress.connections")
class ConnectsForEachCall(Base):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.given = args, kwargs

    async def send_text(self, form: OpenAIForm) -> BackendReply:
        args, kwargs = self.given
        other = Base(*args, **kwargs)
        try:
            reply = await other.send_text(form)
            if not form.stream:
                return reply
            async with closing(reply):  # type: ignore[type-var]
                chunks = [chunk async for chunk in reply]  # type: ignore[union-attr]
        finally:
            await other.shutdown()

        async def again() -> Any:
            for chunk in chunks:
                yield chunk

        return again()  # type: ignore[no-any-return]


@broken("stress.listing")
class ListsSlowly(Base):
    async def list_models(self) -> Any:
        await anyio.sleep(1.3)
        return await super().list_models()


@broken("stress.each-method")
class BlocksWhileItLists(Base):
    async def list_models(self) -> Any:
        time.sleep(0.25)
        return await super().list_models()


@broken("stress.each-method")
class BlocksWhileItStreams(Base):
    async def completion(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("stream"):
            time.sleep(0.25)
        return await super().completion(*args, **kwargs)


@broken("failure.cancelled-anywhere", settings={"time_limit_s": 15})
class GoesOnEmbedding(Base):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.running: set[Any] = set()

    async def embeddings(self, model: str, contents: Any) -> Any:
        task = asyncio.ensure_future(super().embeddings(model, contents))
        self.running.add(task)
        return await asyncio.shield(task)

    async def shutdown(self) -> None:
        for task in self.running:
            task.cancel()
        await super().shutdown()


@broken("stress.client-keys")
class StreamsWithTheOperatorsKey(Base):
    async def completion(self, *args: Any, **kwargs: Any) -> Any:
        from llamastack.provider.context import use_provider_data

        if not kwargs.get("stream"):
            return await super().completion(*args, **kwargs)
        with use_provider_data(None):
            return await super().completion(*args, **kwargs)


@broken("stress.client-keys")
class KeepsTheLastKey(Base):
    last: Any = None

    def request_headers(self) -> Any:
        headers = super().request_headers()
        if "conformance-key" in str(headers):
            self.last = headers
        return self.last or headers


@broken("stress.own-answers")
class KeepsItsAnswers(Base):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kept: dict[str, Any] = {}

    async def completion(self, model: str, content: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("stream"):
            return await super().completion(model, content, *args, **kwargs)
        if str(content) not in self.kept:
            self.kept[str(content)] = await super().completion(model, content, *args, **kwargs)
        return self.kept[str(content)]


@broken("stress.own-answers")
class GivesTheLatestAnswer(Base):
    latest: Any = None

    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, **kwargs)
        if kwargs.get("stream"):
            return reply
        self.latest = reply
        await anyio.sleep(0.05)
        return self.latest
