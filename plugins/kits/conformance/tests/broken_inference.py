"""Inference providers that are each broken in one way. They adapt a backend of the OpenAI dialect."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar

import anyio
from breaking import BROKEN, Broken, breaker, config_class, spec_of
from pydantic import ConfigDict, Field

from llamastack.api import (
    ChatCompletionResponseEventType,
    CompletionMessage,
    Model,
    StopReason,
    SystemMessage,
    ToolCall,
    ToolCallDelta,
    UserMessage,
)
from llamastack.provider import (
    BackendError,
    Deps,
    InternalError,
    InvalidRequestError,
    LlamaStackError,
    NotSupportedError,
    ProviderUnavailableError,
    RateLimitError,
    UnsupportedModelError,
)
from llamastack.provider.streams import Stream, closing
from llamastack_adapters.openai_dialect import Dialect
from llamastack_provider_openai import OPENAI
from llamastack_provider_openai.config import OpenAIProviderConfig
from llamastack_provider_openai.inference import OpenAICompatibleInference

_LOGGER = logging.getLogger("broken")


def made_by(cls: type) -> Callable[..., Any]:
    async def make(config: OpenAIProviderConfig, deps: Deps) -> OpenAICompatibleInference:
        made: OpenAICompatibleInference = cls(
            config, deps, Dialect(deps.provider_id), url=config.url, key=config.api_key
        )
        return made

    make.__annotations__["return"] = cls
    return make


broken = breaker(
    "inference",
    OPENAI,
    made_by,
    config={"url": "{url}", "api_key": "sk-operator-1234"},
    settings={"image_model": "scripted"},
)
Base = OpenAICompatibleInference


def answered(text: str = "", reason: StopReason = StopReason.end_of_turn) -> Any:
    from llamastack.api import ChatCompletionResponse

    return ChatCompletionResponse(completion_message=CompletionMessage(content=text, stop_reason=reason))


# ---- static ----------------------------------------------------------------------------------------------------------


@broken("static.api-version", api_version=">=1.0")
class TakesAnyVersion(Base): ...


@broken("static.dependencies", optional_api_dependencies=("nonsense",))
class DependsOnNonsense(Base): ...


@broken("static.capabilities", without=("tools",))
class SaysNothingOfTools(Base): ...


@broken("static.capabilities", capabilities={"telepathy": "supported"})
class SaysTooMuch(Base): ...


def _blocking(config: OpenAIProviderConfig, deps: Deps) -> Base:
    return Base(config, deps, Dialect(deps.provider_id), url=config.url, key=config.api_key)


async def _unannotated(config: Any, deps: Any):  # type: ignore[no-untyped-def]
    return _blocking(config, deps)


async def _alone(config: OpenAIProviderConfig) -> Base:
    raise NotImplementedError


@broken("static.factory", factory=_blocking)
class FactoryBlocks(Base): ...


@broken("static.factory", factory=_unannotated)
class FactorySaysNothing(Base): ...


@broken("static.factory", factory=_alone)
class FactoryTakesTooLittle(Base): ...


@broken("static.protocol")
class LacksAnArgument(Base):
    async def embeddings(self, model: str) -> Any:  # type: ignore[override]
        raise NotImplementedError


class _Bare(OpenAIProviderConfig):
    region: str = "eu"


class _Lax(OpenAIProviderConfig):
    model_config = ConfigDict(extra="ignore")


class _Open(OpenAIProviderConfig):
    account_token: str = Field(default="", description="Of the account")


@broken("static.config-described", config_class=config_class("Bare", _Bare))
class DescribesNothing(Base): ...


@broken("static.config-strict", config_class=config_class("Lax", _Lax))
class TakesMisspeltKeys(Base): ...


@broken("static.secrets", config_class=config_class("Open", _Open))
class KeepsSecretsInTheOpen(Base): ...


BROKEN.append(
    Broken(
        "static.entry-point",
        "inference",
        "of_another_api",
        spec_of(OPENAI, "of_another_api", made_by(Base), api="safety"),
    )
)

# ---- life, listing, registration -------------------------------------------------------------------------------------


_IMPATIENT = {"time_limit_s": 4}


@broken("life.starts", settings=_IMPATIENT)
class DoesNotStart(Base):
    async def initialize(self) -> None:
        raise RuntimeError("no")


@broken("life.two-instances")
class ClosesForAll(Base):
    _all: ClassVar[list[Base]] = []

    async def initialize(self) -> None:
        self._all.append(self)

    async def shutdown(self) -> None:
        for one in self._all:
            await Base.shutdown(one)


@broken("life.no-shared-state")
class CountsInTheClass(Base):
    seen: ClassVar[list[str]] = []

    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        self.seen.append(kwargs["model"])
        return await super().chat_completion(*args, **kwargs)


_SHARED: dict[str, Any] = {}


@broken("life.no-shared-state")
class HoldsTheSameDict(Base):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cache = _SHARED


@broken("listing.objects")
class ListsTwice(Base):
    async def list_models(self) -> list[Model]:
        return [*await super().list_models(), *await super().list_models()]


@broken("listing.objects")
class ListsForAnother(Base):
    async def list_models(self) -> list[Model]:
        return [m.model_copy(update={"provider_id": "another"}) for m in await super().list_models()]


@broken("listing.steady")
class ListsInAnyOrder(Base):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turn = 0

    async def list_models(self) -> list[Model]:
        self._turn += 1
        return [*await super().list_models(), Model(identifier=f"extra-{self._turn}")]


@broken("registration.listed")
class RegistersOnce(Base):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._taken: set[str] = set()

    async def register_model(self, model: Model) -> None:
        if model.identifier in self._taken:
            raise InvalidRequestError("it is there already")
        self._taken.add(model.identifier)


@broken("registration.unserved")
class TakesAnything(Base):
    async def register_model(self, model: Model) -> None:
        return


@broken("registration.unserved")
class RefusesInOtherWords(Base):
    async def register_model(self, model: Model) -> None:
        raise NotSupportedError("no")


@broken("registration.not-half")
class RegistersByHalves(Base):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._half: list[Model] = []

    async def list_models(self) -> list[Model]:
        return [*await super().list_models(), *self._half]

    async def register_model(self, model: Model) -> None:
        self._half.append(model)
        raise UnsupportedModelError(model.identifier)


@broken("registration.refused")
class TakesWhatItDoesNotDeclare(TakesAnything): ...


@broken("unregister.refused")
class UnregistersWithoutSayingSo(Base):
    gone: str = ""

    async def list_models(self) -> list[Model]:
        return [m for m in await super().list_models() if m.identifier != self.gone]

    async def unregister_model(self, model: Model) -> None:
        self.gone = model.identifier


# ---- failure ---------------------------------------------------------------------------------------------------------


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


@broken("failure.silent-backend", settings=_IMPATIENT)
class WaitsForEver(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        while True:
            try:
                return await super().chat_completion(*args, **kwargs)
            except LlamaStackError:
                await anyio.sleep(0.1)


@broken("failure.silent-backend", settings={**_IMPATIENT, "short_timeouts": {}})
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


# ---- stress ----------------------------------------------------------------------------------------------------------


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
        from llamastack.provider.context import current_provider_data, use_provider_data

        self.data = self.data or current_provider_data()
        with use_provider_data(self.data):
            return await super().chat_completion(*args, **kwargs)


@broken("stress.event-loop")
class BlocksTheLoop(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        time.sleep(0.3)
        return await super().chat_completion(*args, **kwargs)


# ---- what inference is about -----------------------------------------------------------------------------------------


@broken("chat_completion.works")
class SaysNothing(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        return answered("")


@broken("chat_completion.works")
class AnswersWithADict(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        return {"completion_message": {"content": "Hello"}}


@broken("chat_completion.works")
class AnswersOutOfShape(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, **kwargs)
        return reply.model_copy(update={"completion_message": CompletionMessage.model_construct(content=7)})


@broken("chat_completion.conversation")
class RefusesSystemMessages(Base):
    async def chat_completion(self, model: str, messages: Any, *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(message, SystemMessage) for message in messages):
            raise InvalidRequestError("no system messages")
        return await super().chat_completion(model, messages, *args, **kwargs)


@broken("chat_completion.conversation")
class TakesTextAlone(Base):
    async def chat_completion(self, model: str, messages: Any, *args: Any, **kwargs: Any) -> Any:
        said = [UserMessage(content=m.content.strip()) for m in messages]
        return await super().chat_completion(model, said, *args, **kwargs)


@broken("chat_completion.max-tokens")
class AlwaysEndsItsTurn(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, **kwargs)
        reply.completion_message.stop_reason = StopReason.end_of_turn
        return reply


@broken("chat_completion.sampling")
class ChokesOnTopK(Base):
    async def chat_completion(self, *args: Any, sampling_params: Any = None, **kwargs: Any) -> Any:
        if sampling_params and sampling_params.top_k:
            raise ValueError("no such field")
        return await super().chat_completion(*args, sampling_params=sampling_params, **kwargs)


@broken("chat_completion.sampling")
class RefusesTheSeedWithoutItsName(Base):
    async def chat_completion(self, *args: Any, sampling_params: Any = None, **kwargs: Any) -> Any:
        if sampling_params and sampling_params.seed is not None:
            raise NotSupportedError("not that")
        return await super().chat_completion(*args, sampling_params=sampling_params, **kwargs)


@broken("chat_completion.stop")
class IgnoresStop(Base):
    async def chat_completion(self, *args: Any, sampling_params: Any = None, **kwargs: Any) -> Any:
        given = sampling_params and sampling_params.model_copy(update={"stop": None})
        return await super().chat_completion(*args, sampling_params=given, **kwargs)


class _Restreams(Base):
    def pieces_of(self, pieces: list[Any]) -> list[Any]:
        raise NotImplementedError

    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, **kwargs)
        return self._again(reply) if kwargs.get("stream") else reply

    async def completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().completion(*args, **kwargs)
        return self._again(reply) if kwargs.get("stream") else reply

    async def _again(self, reply: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async with closing(reply):
            pieces = [piece async for piece in reply]
        for piece in self.pieces_of(pieces):
            yield piece


@broken("streaming.order")
class NeverCompletes(_Restreams):
    def pieces_of(self, pieces: list[Any]) -> list[Any]:
        return pieces[:-1]


@broken("streaming.order")
class NeverStarts(_Restreams):
    def pieces_of(self, pieces: list[Any]) -> list[Any]:
        return pieces[1:]


@broken("streaming.order")
class StreamsNoText(_Restreams):
    def pieces_of(self, pieces: list[Any]) -> list[Any]:
        return [pieces[0], pieces[-1]]


@broken("streaming.completion")
class StopsAtEachPiece(_Restreams):
    def pieces_of(self, pieces: list[Any]) -> list[Any]:
        return [piece.model_copy(update={"stop_reason": StopReason.end_of_turn}) for piece in pieces]


@broken("streaming.as-it-comes")
class CollectsBeforeItStreams(_Restreams):
    def pieces_of(self, pieces: list[Any]) -> list[Any]:
        return pieces


@broken("completion.works")
class ContinuesNothing(Base):
    async def completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().completion(*args, **kwargs)
        reply.completion_message.content = " "
        return reply


@broken("embeddings.works")
class EmbedsInReverse(Base):
    async def embeddings(self, model: str, contents: Any) -> Any:
        reply = await super().embeddings(model, contents)
        reply.embeddings = [reply.embeddings[i] for i in (1, 0, 2)]
        return reply


@broken("embeddings.works")
class EmbedsOne(Base):
    async def embeddings(self, model: str, contents: Any) -> Any:
        return await super().embeddings(model, contents[:1])


@broken("embeddings.works")
class EmbedsInManyDimensions(Base):
    async def embeddings(self, model: str, contents: Any) -> Any:
        reply = await super().embeddings(model, contents)
        reply.embeddings[1] = reply.embeddings[1][:5]
        return reply


@broken("logprobs.works")
class HasNoLogprobs(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, **kwargs)
        reply.logprobs = None
        return reply


@broken("logprobs.works")
class GivesProbabilities(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, **kwargs)
        for place in reply.logprobs or ():
            place.logprobs_by_token = {token: -value for token, value in place.logprobs_by_token.items()}
        return reply


@broken("json_schema.works")
class TalksAroundTheJson(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, **kwargs)
        if not kwargs.get("stream"):
            reply.completion_message.content = f"Here: {reply.completion_message.content}"
        return reply


@broken("tools.works")
class CallsNoTool(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        return answered("I would rather talk.")


@broken("tools.works")
class CallsWithTextAsArguments(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        reply = await super().chat_completion(*args, **kwargs)
        reply.completion_message.tool_calls = [
            ToolCall.model_construct(call_id="c", tool_name="weather", arguments='{"city": "Paris"}')
        ]
        return reply


@broken("tools.streamed")
class StreamsNoToolCall(_Restreams):
    def pieces_of(self, pieces: list[Any]) -> list[Any]:
        kinds = ChatCompletionResponseEventType
        return [p for p in pieces if p.event.event_type is not kinds.progress or isinstance(p.event.delta, str)]


@broken("tools.streamed")
class NeverSucceeds(_Restreams):
    def pieces_of(self, pieces: list[Any]) -> list[Any]:
        return [
            p for p in pieces if not isinstance(p.event.delta, ToolCallDelta) or p.event.delta.parse_status != "success"
        ]


@broken("images.works")
class SeesNothing(Base):
    async def chat_completion(self, *args: Any, **kwargs: Any) -> Any:
        raise ProviderUnavailableError("no eyes")


# ---- capabilities that are there and not declared --------------------------------------------------------------------

for _name in ("chat_completion", "completion", "embeddings", "images", "json_schema", "logprobs", "streaming", "tools"):

    @broken(f"{_name}.refused", capabilities={_name: "unsupported"})
    class Hides(Base): ...
