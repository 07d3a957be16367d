"""Inference providers that are each broken in one way at chats in the form that `/v1` has inside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from broken_inference import Base, answered, broken

from llamastack.provider import InternalError, RateLimitError
from llamastack_adapters.openai_dialect import OpenAIForm


@broken("form.reply")
class AnswersTheFormNatively(Base):
    async def openai_chat(self, form: OpenAIForm) -> Any:
        return answered("Paris")


@broken("form.reply")
class SaysNothingOfTheUsage(Base):
    async def openai_chat(self, form: OpenAIForm) -> Any:
        reply: Any = await super().openai_chat(form)
        return {"choices": reply["choices"]}


@broken("form.reply")
class FinishesInOwnWords(Base):
    async def openai_chat(self, form: OpenAIForm) -> Any:
        reply: Any = await super().openai_chat(form)
        return {**reply, "choices": [{**reply["choices"][0], "finish_reason": "out_of_tokens"}]}


@broken("form.fields")
class LosesTheLimit(Base):
    async def openai_chat(self, form: OpenAIForm) -> Any:
        return await super().openai_chat(form.with_fields(max_tokens=100))


@broken("form.fields")
class LosesTheStops(Base):
    async def openai_chat(self, form: OpenAIForm) -> Any:
        return await super().openai_chat(form.with_fields(stop=[]))


@broken("form.stream")
class AnswersTheFormAtOnce(Base):
    async def openai_chat(self, form: OpenAIForm) -> Any:
        return await super().openai_chat(OpenAIForm(form.model, form.fields))


@broken("form.stream")
class RepeatsTheEnd(Base):
    async def openai_chat(self, form: OpenAIForm) -> Any:
        chunks: Any = await super().openai_chat(form)

        async def repeated() -> AsyncIterator[Any]:
            async for chunk in chunks:
                yield chunk
            yield chunk

        return repeated()


@broken("form.errors")
class FailsOfItself(Base):
    async def openai_chat(self, form: OpenAIForm) -> Any:
        try:
            return await super().openai_chat(form)
        except RateLimitError as error:
            raise InternalError(error.message) from error
