"""Serves requests in OpenAI's form by native methods, for providers that have only these."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from llamastack.api.inference import ChatCompletionResponseEvent, ChatCompletionResponseStreamChunk
from llamastack.provider.api_handle import Dispatch
from llamastack.provider.streams import Stream, close, closing
from llamastack_adapters.openai_dialect import (
    OpenAIForm,
    chat_chunks,
    chat_reply,
    completion_chunks,
    completion_reply,
)
from llamastack_openai_api.cooperative_work import in_turns
from llamastack_openai_api.to_native import chat_arguments, completion_arguments, messages_of

Reply = Mapping[str, Any]
FormAnswer = Reply | AsyncIterator[Reply]
"""A reply, or the chunks of a stream, as in `OpenAIProtocolPrivate`."""


async def _chat(call: Dispatch, form: OpenAIForm) -> FormAnswer:
    answer = await call(chat_arguments(form, await in_turns(messages_of(form))))
    if isinstance(answer, AsyncIterator):
        return Stream(chat_chunks(_events(answer), form), lambda: close(answer))
    return chat_reply(answer, form)


async def _completion(call: Dispatch, form: OpenAIForm) -> FormAnswer:
    answer = await call(completion_arguments(form))
    if isinstance(answer, AsyncIterator):
        return Stream(completion_chunks(answer, form), lambda: close(answer))
    return completion_reply(answer, form)


async def _events(
    chunks: AsyncIterator[ChatCompletionResponseStreamChunk],
) -> AsyncIterator[ChatCompletionResponseEvent]:
    async with closing(chunks):
        async for chunk in chunks:
            yield chunk.event


NATIVE: dict[str, Callable[[Dispatch, OpenAIForm], Awaitable[FormAnswer]]] = {
    "chat_completion": _chat,
    "completion": _completion,
}
"""The function that serves a request in OpenAI's form by a native method, by the method's name."""
