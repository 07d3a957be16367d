"""Inference providers that send prompts as chats, show them, misread a prompt that is too long, or keep a listing."""

from __future__ import annotations

import logging
from typing import Any

from broken_inference import Base, broken

from llamastack.api import CompletionResponse, Model, UserMessage
from llamastack.api.common import text_of
from llamastack.provider import BackendError, InvalidRequestError
from llamastack.provider.errors import LlamaStackError

_LOGGER = logging.getLogger("broken")


@broken("received.prompt")
class CompletesByChat(Base):
    async def completion(self, model: str, content: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("stream"):
            return await super().completion(model, content, *args, **kwargs)
        reply = await self.chat_completion(model, [UserMessage(content=content)], *args, **kwargs)
        return CompletionResponse(completion_message=reply.completion_message, usage=reply.usage)


@broken("failure.prompts")
class LogsWhatFailed(Base):
    async def chat_completion(self, model: str, messages: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().chat_completion(model, messages, *args, **kwargs)
        except LlamaStackError:
            _LOGGER.warning("the chat %s failed", messages)
            raise


@broken("failure.prompts")
class RaisesWhatFailed(Base):
    async def completion(self, model: str, content: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().completion(model, content, *args, **kwargs)
        except BackendError as error:
            raise BackendError(f"{error.message}: {content}") from None


@broken("failure.too-long")
class TakesALongPromptForAFault(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().chat_completion(*args, **kwargs)
        except InvalidRequestError as error:
            raise BackendError(error.message) from None


@broken("failure.too-long")
class HidesTheLimit(Base):
    async def completion(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().completion(*args, **kwargs)
        except InvalidRequestError:
            raise InvalidRequestError("the prompt is too long") from None


class _KeepsAList(Base):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kept: list[Model] = []


@broken("listing.fresh")
class ListsWhatItHadWhenDown(_KeepsAList):
    async def list_models(self) -> list[Model]:
        try:
            self.kept = await super().list_models()
        except LlamaStackError:
            if not self.kept:
                raise
        return self.kept


@broken("listing.fresh")
class ListsWhatItHadBefore(_KeepsAList):
    async def list_models(self) -> list[Model]:
        found = await super().list_models()
        self.kept = self.kept or found
        return self.kept


@broken("listing.fresh")
class AsksForModelsOnce(_KeepsAList):
    async def list_models(self) -> list[Model]:
        if not self.kept:
            self.kept = await super().list_models()
        return self.kept


@broken("failure.prompts")
class LogsEveryChat(Base):
    async def chat_completion(self, model: str, messages: Any, *args: Any, **kwargs: Any) -> Any:
        found = await super().chat_completion(model, messages, *args, **kwargs)
        _LOGGER.info("the chat %s was answered", messages)
        return found


@broken("received.embedded-images")
class EmbedsNoImages(Base):
    async def embeddings(self, model: str, contents: Any) -> Any:
        return await super().embeddings(model, [text_of(content) for content in contents])


@broken("received.embedded-images")
class EmbedsTheTextBesideAnImage(Base):
    async def embeddings(self, model: str, contents: Any) -> Any:
        plain = [text_of(content) if isinstance(content, list) else content for content in contents]
        return await super().embeddings(model, plain)
