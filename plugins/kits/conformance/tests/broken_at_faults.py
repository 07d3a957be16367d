"""Inference providers that are each broken in one way when things go wrong, or at many calls at once."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import anyio
from broken_inference import IMPATIENT, Base, answered, broken

from llamastack.api import (
    Model,
)
from llamastack.provider import (
    BackendError,
    InternalError,
    InvalidRequestError,
    LlamaStackError,
    RateLimitError,
)
from llamastack.provider.streams import Stream, closing

_LOGGER = logging.getLogger("broken")


@broken("failure.down-at-start")
class IsNeverDown(Base):
    async def list_models(self) -> list[Model]:
        try:
            return await super().list_models()
        except Exception:
            return []


class _Swallows(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().chat_completion(*args, **kwargs)
        except (Exception, LlamaStackError):
            return answered("Sorry.")


@broken("failure.goes-down")
class AnswersWithoutABackend(_Swallows): ...


@broken("failure.cut-reply")
class AnswersWithAPiece(_Swallows): ...


@broken("failure.nonsense")
class MakesSenseOfAnything(_Swallows): ...


@broken("failure.server-error")
class TakesTheBlame(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().chat_completion(*args, **kwargs)
        except BackendError as error:
            raise InternalError("something went wrong") from error


@broken("failure.rate-limit")
class HidesRateLimits(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().chat_completion(*args, **kwargs)
        except RateLimitError as error:
            raise BackendError(error.message) from error


@broken("failure.rate-limit")
class LosesRetryAfter(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().chat_completion(*args, **kwargs)
        except RateLimitError as error:
            raise RateLimitError(error.message) from error


class _Backend(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().chat_completion(*args, **kwargs)
        except LlamaStackError as error:
            raise BackendError("it failed") from error


@broken("failure.bad-key")
class HidesBadKeys(_Backend): ...


@broken("failure.bad-parameter")
class HidesBadParameters(_Backend): ...


@broken("failure.bad-parameter")
class LosesTheBackendsWords(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().chat_completion(*args, **kwargs)
        except InvalidRequestError as error:
            raise InvalidRequestError("the request is wrong") from error


@broken("failure.silent-backend", settings=IMPATIENT)
class WaitsForEver(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        while True:
            try:
                return await super().chat_completion(*args, **kwargs)
            except LlamaStackError:
                await anyio.sleep(0.1)


@broken("failure.silent-backend", settings={**IMPATIENT, "short_timeouts": {}})
class HasNoTimeLimit(WaitsForEver): ...


@broken("failure.cut-stream")
class EndsCutStreamsInPeace(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, **kwargs)
        return self._quiet(reply) if kwargs.get("stream") else reply

    async def _quiet(self, pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async with closing(pieces):
            try:
                async for piece in pieces:
                    yield piece
            except Exception:
                return


@broken("failure.cancelled-call")
class CallsOnWithoutTheCaller(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        done, results = anyio.Event(), []

        async def work() -> None:
            try:
                results.append(await Base.chat_completion(self, *args, **kwargs))
            finally:
                done.set()

        self.deps.task_group.start_soon(work)
        await done.wait()
        return results[0]


@broken("failure.cancelled-stream")
class StreamsOnWithoutTheCaller(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, **kwargs)
        if not kwargs.get("stream"):
            return reply
        send, receive = anyio.create_memory_object_stream[Any](1000)

        async def pump() -> None:
            with send:
                async for piece in reply:
                    await send.send(piece)

        self.deps.task_group.start_soon(pump)
        return self._received(receive)

    async def _received(self, receive: Any) -> AsyncIterator[Any]:
        with receive:
            async for piece in receive:
                yield piece


class _ClosesBadly(Base):
    async def on_close(self) -> None:
        raise NotImplementedError

    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, **kwargs)
        return Stream(reply, self.on_close) if kwargs.get("stream") else reply


@broken("failure.abandoned-stream")
class CannotBeClosed(_ClosesBadly):
    async def on_close(self) -> None:
        raise RuntimeError("closed in the middle")


@broken("failure.abandoned-stream")
class TakesLongToClose(_ClosesBadly):
    async def on_close(self) -> None:
        await anyio.sleep(6)


@broken("failure.shutdown-twice")
class ShutsDownOnce(Base):
    down = False

    async def shutdown(self) -> None:
        if self.down:
            raise RuntimeError("it is down already")
        self.down = True
        await super().shutdown()


@broken("failure.leaves-nothing")
class LeavesAThread(Base):
    async def initialize(self) -> None:
        threading.Thread(target=time.sleep, args=(8,), daemon=True, name="forgotten").start()


@broken("failure.leaves-nothing")
class LeavesASocket(Base):
    kept: ClassVar[list[socket.socket]] = []

    async def initialize(self) -> None:
        self.kept.append(socket.create_server(("127.0.0.1", 0)))


@broken("failure.leaves-nothing")
class LeavesATask(Base):
    kept: ClassVar[list[Any]] = []

    async def initialize(self) -> None:
        import asyncio

        self.kept.append(asyncio.get_running_loop().create_task(asyncio.sleep(8), name="forgotten"))


@broken("failure.secrets")
class LogsItsKey(Base):
    async def initialize(self) -> None:
        key = self.key_of_config
        _LOGGER.debug("using %s", key)

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        self.key_of_config = config.api_key.get_secret_value()


@broken("failure.secrets")
class ShowsItsKey(LogsItsKey):
    async def initialize(self) -> None:
        return

    def __repr__(self) -> str:
        return f"ShowsItsKey({self.key_of_config})"


@broken("failure.secrets")
class RepeatsTheClientsKey(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        data: Any = self.deps.request_data()
        try:
            return await super().chat_completion(*args, **kwargs)
        except LlamaStackError as error:
            key = data.openai_api_key.get_secret_value() if data and data.openai_api_key else ""
            _LOGGER.warning("refused with key %s", key)
            raise error.amend(error.message) from None


@broken("stress.parallel-calls")
class KeepsTheQuestion(Base):
    async def chat_completion(self, model: str, messages: Any, *args: Any, **kwargs: Any) -> Any:
        self.messages = messages
        await anyio.sleep(0.01)
        return await super().chat_completion(model, self.messages, *args, **kwargs)


@broken("stress.provider-data")
class KeepsTheFirstKey(Base):
    data: Any = None

    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        from llamastack.provider.context import current_context, use_provider_data

        self.data = self.data or current_context().provider_data
        with use_provider_data(self.data):
            return await super().chat_completion(*args, **kwargs)


@broken("stress.event-loop")
class BlocksTheLoop(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        time.sleep(0.3)
        return await super().chat_completion(*args, **kwargs)


@broken("failure.secrets", config={"url": "{url}", "api_key": "sk-operator-1234-5678"})
class ShowsHalfAKey(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().chat_completion(*args, **kwargs)
        except LlamaStackError as error:
            raise BackendError(f"refused with the key sk-operator-1234...: {error.message}") from error
