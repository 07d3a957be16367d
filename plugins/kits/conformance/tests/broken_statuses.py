"""Inference providers that are each broken in one way at failures of the backend, in one kind of call or in all."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

from broken_inference import Base, answered, broken

from llamastack.api import CompletionMessage, CompletionResponse, StopReason
from llamastack.provider import BackendError, InvalidRequestError, ProviderTimeoutError
from llamastack.provider.errors import (
    AuthenticationError,
    LlamaStackError,
    PermissionDeniedError,
    ProviderUnavailableError,
)
from llamastack.provider.streams import closing
from llamastack_adapters.openai_dialect import OpenAIForm, OpenAIRequest

_LOGGER = logging.getLogger("broken")


@broken("failure.statuses")
class TakesAPageForAReply(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().chat_completion(*args, **kwargs)
        except PermissionDeniedError as error:
            return answered(error.message)


@broken("failure.statuses")
class IsAlwaysTheBackendsFault(Base):
    async def completion(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().completion(*args, **kwargs)
        except InvalidRequestError as error:
            raise BackendError(error.message) from None


@broken("failure.statuses")
class IsAlwaysTheCallersFault(Base):
    async def embeddings(self, model: str, contents: Any) -> Any:
        try:
            return await super().embeddings(model, contents)
        except LlamaStackError as error:
            raise InvalidRequestError(error.message) from None


@broken("failure.statuses")
class CallsEveryFailureAnOutage(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().chat_completion(*args, **kwargs)
        except (AuthenticationError, PermissionDeniedError) as error:
            raise ProviderUnavailableError(error.message) from None


@broken("failure.statuses")
class StreamsEndAtAFailure(Base):
    async def completion(self, *args: Any, **kwargs: Any) -> Any:
        if not kwargs.get("stream"):
            return await super().completion(*args, **kwargs)

        async def pieces() -> AsyncIterator[Any]:
            try:
                async with closing(await super(StreamsEndAtAFailure, self).completion(*args, **kwargs)) as inner:
                    async for piece in inner:
                        yield piece
            except LlamaStackError:
                return

        return pieces()


@broken("failure.statuses")
class ForwardsFailures(Base):
    async def forward_openai(self, request: OpenAIRequest) -> Any:
        try:
            return await super().forward_openai(request)
        except LlamaStackError as error:
            return error.message.encode()


@broken("failure.no-reply")
class MakesAnEmptyReply(Base):
    async def completion(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().completion(*args, **kwargs)
        except BackendError:
            return CompletionResponse(
                completion_message=CompletionMessage(content="", stop_reason=StopReason.end_of_turn)
            )


@broken("failure.no-reply")
class ListsNothingAtAFailure(Base):
    async def list_models(self) -> Any:
        try:
            return await super().list_models()
        except LlamaStackError:
            return []


@broken("failure.no-reply")
class AnswersTheFormWithNothing(Base):
    async def openai_chat(self, form: OpenAIForm) -> Any:
        try:
            return await super().openai_chat(form)
        except BackendError:
            return {"choices": [], "usage": None}


@broken("failure.cut-each")
class CompletesWhatWasCut(Base):
    async def completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().completion(*args, **kwargs)
        if not kwargs.get("stream"):
            return reply

        async def pieces() -> AsyncIterator[Any]:
            try:
                async with closing(reply) as inner:
                    async for piece in inner:
                        yield piece
            except BackendError:
                return

        return pieces()


@broken("failure.silent-each")
class WaitsLongForVectors(Base):
    async def embeddings(self, model: str, contents: Any) -> Any:
        while True:
            try:
                return await super().embeddings(model, contents)
            except ProviderTimeoutError:
                continue


@broken("failure.echoed-secrets")
class LogsWhatTheBackendSays(Base):
    async def embeddings(self, model: str, contents: Any) -> Any:
        try:
            return await super().embeddings(model, contents)
        except LlamaStackError as error:
            _LOGGER.debug("embeddings failed: %s", error.message)
            raise


@broken("failure.echoed-secrets")
class ShowsItsKeyInItsRepr(Base):
    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.request_headers()})"
