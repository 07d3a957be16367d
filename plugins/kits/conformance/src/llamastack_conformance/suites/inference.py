"""The suite of the API inference."""

from __future__ import annotations

import json
import math
import time
from collections.abc import AsyncIterator
from typing import Any, ClassVar

from llamastack.api.common import (
    CompletionMessage,
    ImageMedia,
    SamplingParams,
    SamplingStrategy,
    StopReason,
    SystemMessage,
    ToolCall,
    ToolChoice,
    ToolDefinition,
    ToolParamDefinition,
    UserMessage,
)
from llamastack.api.inference import (
    ChatCompletionResponse,
    ChatCompletionResponseEventType,
    ChatCompletionResponseStreamChunk,
    CompletionResponse,
    CompletionResponseStreamChunk,
    EmbeddingsResponse,
    JsonSchemaResponseFormat,
    LogProbConfig,
    ToolCallDelta,
    ToolCallParseStatus,
)
from llamastack.provider.errors import NotSupportedError
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.running import Running
from llamastack_conformance.shapes import well_formed, well_formed_piece
from llamastack_conformance.subject import Subject
from llamastack_conformance.suites.forwarding import ForwardingChecks
from llamastack_conformance.suites.provider import RoutedProviderConformance
from llamastack_conformance.suites.suite import Probe, refused

_BRIEF = SamplingParams(max_tokens=4)
_SHORT = SamplingParams(max_tokens=12)
_LONG = SamplingParams(max_tokens=32)
_QUESTION = "What is the capital of France?"
_IS_IT_SUNNY = 'Is it sunny? Answer {"sunny": true} or {"sunny": false}.'
_COUNT = "Count from one to twenty, in words."
_WEATHER = ToolDefinition(
    tool_name="weather",
    description="The weather in a city",
    parameters={"city": ToolParamDefinition(param_type="string", description="Name of the city")},
)
_SUNNY = JsonSchemaResponseFormat(
    json_schema={
        "type": "object",
        "properties": {"sunny": {"type": "boolean"}},
        "required": ["sunny"],
        "additionalProperties": False,
    }
)
# A PNG of one red dot.
_DOT = ImageMedia(
    image="data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
# By the parameter that each value is for.
_SAMPLING: dict[str, dict[str, Any]] = {
    "top_p": {"strategy": SamplingStrategy.top_p, "temperature": 0.7, "top_p": 0.9},
    "top_k": {"strategy": SamplingStrategy.top_k, "temperature": 0.7, "top_k": 20},
    "repetition_penalty": {"repetition_penalty": 1.1},
    "seed": {"strategy": SamplingStrategy.top_p, "temperature": 0.7, "seed": 7},
}
_MOST_TOP_LOGPROBS = 2
_FIRST_PIECE_BY = 0.8
_LEAST_TIME_S = 0.2


class InferenceConformance(RoutedProviderConformance, ForwardingChecks):
    """All checks of an inference provider. Source of the shapes: `llamastack.api.inference`."""

    api: ClassVar[str] = "inference"

    # ---- calls that checks are made of ---------------------------------------------------------------------------

    async def _model(self, running: Running, wanted: str | None = None) -> str:
        name = wanted or running.subject.settings.chat_model
        if name is not None:
            return running.qualified(name)
        return running.qualified(running.first_object())

    async def _chat(self, running: Running, content: Any = _QUESTION, **more: Any) -> Any:
        given = {"messages": [UserMessage(content=content)], "sampling_params": _SHORT, **more}
        model = given.pop("model", None) or await self._model(running)
        return await running.calls.chat_completion(model=model, **given)

    async def _complete(self, running: Running, content: str = "One, two, three,", **more: Any) -> Any:
        given = {"content": content, "sampling_params": _SHORT, **more}
        return await running.calls.completion(model=await self._model(running), **given)

    async def _embed(self, running: Running, contents: list[Any]) -> Any:
        model = await self._model(running, running.subject.settings.embedding_model)
        return await running.calls.embeddings(model=model, contents=contents)

    async def call(self, running: Running, text: str = _QUESTION) -> Any:
        for capability, ask in (("chat_completion", self._chat), ("completion", self._complete)):
            if running.subject.declares(capability):
                return await ask(running, text, sampling_params=_BRIEF)
        return await self._embed(running, [text])

    async def stream(self, running: Running) -> AsyncIterator[Any]:
        subject = running.subject
        if subject.declares("streaming"):
            if subject.declares("chat_completion"):
                chat: AsyncIterator[Any] = await self._chat(running, _COUNT, stream=True, sampling_params=_LONG)
                return chat
            if subject.declares("completion"):
                pieces: AsyncIterator[Any] = await self._complete(running, stream=True, sampling_params=_LONG)
                return pieces
        return await super().stream(running)

    def answers(self, text: str, result: Any) -> bool:
        if isinstance(result, EmbeddingsResponse):
            return len(result.embeddings) == 1
        return isinstance(result, ChatCompletionResponse | CompletionResponse)

    async def probe(self, running: Running, capability: str) -> Probe:
        model = await self._model(running)
        chat = {"model": model, "messages": [UserMessage(content=_QUESTION)], "sampling_params": _SHORT}
        settings = running.subject.settings
        probes = {
            "chat_completion": Probe("chat_completion", chat),
            "completion": Probe("completion", {"model": model, "content": "One, two,", "sampling_params": _SHORT}),
            "embeddings": Probe(
                "embeddings",
                {"model": await self._model(running, settings.embedding_model), "contents": ["a llama"]},
            ),
            "streaming": Probe("chat_completion", {**chat, "stream": True}, lambda r: isinstance(r, AsyncIterator)),
            "logprobs": Probe("chat_completion", {**chat, "logprobs": LogProbConfig()}, lambda r: bool(r.logprobs)),
            "tools": Probe(
                "chat_completion",
                {**chat, "tools": [_WEATHER], "tool_choice": ToolChoice.required},
                lambda r: bool(r.completion_message.tool_calls),
            ),
            "json_schema": Probe(
                "chat_completion",
                {**chat, "response_format": _SUNNY},
                lambda r: _is_sunny(r.completion_message.content),
            ),
            # A reply does not show whether the model saw the image, so a model that is declared to see images is
            # trusted.
            "images": Probe(
                "chat_completion",
                {**chat, "messages": [UserMessage(content=["What is this?", _DOT])]},
                lambda _: settings.image_model is not None,
            ),
        }
        return probes[capability]

    # ---- chat ----------------------------------------------------------------------------------------------------

    @check(
        "chat_completion.works",
        tier=Tier.live,
        capability="chat_completion",
        mend="return a ChatCompletionResponse with a CompletionMessage: text, stop_reason, tool_calls []",
    )
    async def test_chat_completion_works(self, subject: Subject) -> None:
        """the answer to a question is a ChatCompletionResponse with text and a stop_reason, without tool calls and
        logprobs
        """
        async with subject.shared() as running:
            reply = await self._chat(running)
        well_formed(subject.method("chat_completion"), reply)
        _plain_message(reply.completion_message)
        if reply.logprobs is not None:
            raise CheckFailure("logprobs, although the request did not ask for them")

    @check(
        "chat_completion.conversation",
        tier=Tier.live,
        capability="chat_completion",
        mend="take system, user and assistant messages in their order, and content in parts",
    )
    async def test_chat_completion_conversation(self, subject: Subject) -> None:
        """a conversation with a system message, an earlier answer, context and text in parts gets an answer"""
        messages = [
            SystemMessage(content="You are brief."),
            UserMessage(content="Name a city."),
            CompletionMessage(content="Paris", stop_reason=StopReason.end_of_turn),
            UserMessage(content=["And", "another?"], context="Rome is a city."),
        ]
        async with subject.shared() as running:
            reply = await self._chat(running, messages=messages)
        _plain_message(reply.completion_message)

    @check(
        "chat_completion.max-tokens",
        tier=Tier.live,
        capability="chat_completion",
        mend="pass `max_tokens` to the backend, and return StopReason.out_of_tokens if it ended the reply",
    )
    async def test_chat_completion_max_tokens(self, subject: Subject) -> None:
        """a reply that `max_tokens` cuts off has the stop_reason out_of_tokens"""
        async with subject.shared() as running:
            reply = await self._chat(running, _COUNT, sampling_params=SamplingParams(max_tokens=2))
        if reply.completion_message.stop_reason is not StopReason.out_of_tokens:
            raise CheckFailure(f"stop_reason {reply.completion_message.stop_reason} for {_text(reply)!r}")

    @check(
        "chat_completion.stop",
        tier=Tier.live,
        capability="chat_completion",
        mend="pass `stop` to the backend, and leave the text that ended the reply out of it",
    )
    async def test_chat_completion_stop(self, subject: Subject) -> None:
        """a text of `stop` ends the reply and is no part of it"""
        async with subject.shared() as running:
            whole = _text(await self._chat(running))
            # A whole word is used: a backend that compares tokens would not find a part of one.
            words = [word for word in whole.split()[1:] if word not in whole.partition(word)[0] and len(word) > 1]
            if not words:
                raise NotApplicable(f"the model's reply is too short to be stopped: {whole!r}")
            middle = words[len(words) // 2]
            cut = await self._chat(running, sampling_params=SamplingParams(max_tokens=12, stop=[middle]))
        if middle in _text(cut) or len(_text(cut)) >= len(whole):
            raise CheckFailure(f"{_text(cut)!r} with stop [{middle!r}]; without it {whole!r}")

    @check(
        "chat_completion.sampling",
        tier=Tier.live,
        capability="chat_completion",
        mend="pass the parameter to the backend, or raise NotSupportedError with param='sampling_params.<name>'",
    )
    async def test_chat_completion_sampling(self, subject: Subject) -> None:
        """each sampling parameter is accepted, or refused with a NotSupportedError (501) that names it"""
        async with subject.shared() as running:
            for name, given in _SAMPLING.items():
                try:
                    reply = await self._chat(running, sampling_params=SamplingParams(max_tokens=4, **given))
                except NotSupportedError as error:
                    if error.param != f"sampling_params.{name}":
                        raise CheckFailure(f"for {name} param is {error.param!r}: {error.message}") from None
                else:
                    _plain_message(reply.completion_message)

    test_chat_completion_refused = refused("chat_completion")

    # ---- streams -------------------------------------------------------------------------------------------------

    @check(
        "streaming.order",
        tier=Tier.live,
        capability="streaming",
        mend="yield one `start`, then `progress` with the text, then one `complete` with the stop_reason",
    )
    async def test_streaming_order(self, subject: Subject) -> None:
        """a stream is one start, progress with the text, and one complete; only complete has the stop_reason"""
        async with subject.shared() as running:
            pieces = [piece async for piece in await self.stream(running)]
        name = "chat_completion" if subject.declares("chat_completion") else "completion"
        for piece in pieces:
            well_formed_piece(subject.method(name), piece)
        _stops_once(pieces)
        if not _text_of_pieces(pieces).strip():
            raise CheckFailure("the pieces hold no text")
        if name == "chat_completion":
            _in_order(pieces)

    @check(
        "streaming.completion",
        tier=Tier.live,
        capability="streaming",
        mend="yield CompletionResponseStreamChunk: deltas, with the stop_reason only in the last one",
    )
    async def test_streaming_completion(self, subject: Subject) -> None:
        """a streamed text completion is pieces of text, and only the last one has the stop_reason"""
        if not subject.declares("completion"):
            raise NotApplicable("the provider declares no `completion`")
        async with subject.shared() as running:
            pieces = [piece async for piece in await self._complete(running, stream=True)]
        for piece in pieces:
            well_formed_piece(subject.method("completion"), piece)
        _stops_once(pieces)
        if not _text_of_pieces(pieces).strip():
            raise CheckFailure("the pieces hold no text")

    @check(
        "streaming.as-it-comes",
        tier=Tier.live,
        capability="streaming",
        mend="yield each piece when it comes from the backend; read the backend's stream as a stream",
    )
    async def test_streaming_as_it_comes(self, subject: Subject) -> None:
        """the first piece of text arrives before the last one is made"""
        if subject.backend_url is None:
            await self._in_time(subject)
            return
        async with subject.start(tapped=True) as running:
            running.tap.disturb(trickles=True)
            already, at_first = running.tap.handed_on, None
            async for piece in await self.stream(running):
                if at_first is None and _delta(piece):
                    at_first = running.tap.handed_on - already
            total = running.tap.handed_on - already
        if at_first is None or at_first > total * _FIRST_PIECE_BY:
            raise CheckFailure(f"the first text came after {at_first} of the backend's {total} bytes")

    async def _in_time(self, subject: Subject) -> None:
        async with subject.shared() as running:
            began, first = time.monotonic(), None
            async for piece in await self.stream(running):
                if first is None and _delta(piece):
                    first = time.monotonic() - began
            whole = time.monotonic() - began
        if first is None or (whole > _LEAST_TIME_S and first > whole * _FIRST_PIECE_BY):
            raise CheckFailure(f"the first text came after {first} of {whole:.2f} s")

    test_streaming_refused = refused("streaming")

    # ---- completion, embeddings ----------------------------------------------------------------------------------

    @check(
        "completion.works",
        tier=Tier.live,
        capability="completion",
        mend="return a CompletionResponse with a CompletionMessage",
    )
    async def test_completion_works(self, subject: Subject) -> None:
        """the completion of a text is a CompletionResponse with text and a stop_reason"""
        async with subject.shared() as running:
            reply = await self._complete(running)
        well_formed(subject.method("completion"), reply)
        _plain_message(reply.completion_message)

    test_completion_refused = refused("completion")

    @check(
        "embeddings.works",
        tier=Tier.live,
        capability="embeddings",
        mend="return one vector per content, in their order, all of the model's dimension",
    )
    async def test_embeddings_works(self, subject: Subject) -> None:
        """each content gets one vector, in order, of one dimension, finite, and the same for the same text"""
        async with subject.shared() as running:
            reply = await self._embed(running, ["a llama", "an entirely different thing, a car", "a llama"])
        well_formed(subject.method("embeddings"), reply)
        vectors = reply.embeddings
        if len(vectors) != 3:
            raise CheckFailure(f"{len(vectors)} vectors for 3 contents")
        sizes = {len(vector) for vector in vectors}
        if len(sizes) != 1 or sizes == {0}:
            raise CheckFailure(f"vectors of {sorted(sizes)} numbers")
        if not all(math.isfinite(number) for vector in vectors for number in vector):
            raise CheckFailure("numbers that are not finite")
        if _likeness(vectors[0], vectors[2]) <= _likeness(vectors[0], vectors[1]):
            raise CheckFailure("the same text is less like itself than like another", wanted="vectors in order")

    test_embeddings_refused = refused("embeddings")

    # ---- what requests may ask for -------------------------------------------------------------------------------

    @check(
        "logprobs.works",
        tier=Tier.live,
        capability="logprobs",
        mend="return one TokenLogProbs per position, natural logarithms, the chosen token first",
    )
    async def test_logprobs_works(self, subject: Subject) -> None:
        """each position has log probabilities: the chosen token and the likeliest ones, none above 0"""
        config = LogProbConfig(top_k=_MOST_TOP_LOGPROBS)
        async with subject.shared() as running:
            ask = self._chat if subject.declares("chat_completion") else self._complete
            reply = await ask(running, logprobs=config)
        if not reply.logprobs:
            raise CheckFailure(f"logprobs {reply.logprobs}")
        for place in reply.logprobs:
            values = place.logprobs_by_token.values()
            if not 1 <= len(values) <= _MOST_TOP_LOGPROBS + 1 or any(v > 0 or not v < math.inf for v in values):
                raise CheckFailure(f"{place.logprobs_by_token}", wanted="1 to 3 tokens with logarithms of at most 0")

    test_logprobs_refused = refused("logprobs")

    @check(
        "json_schema.works",
        tier=Tier.live,
        capability="json_schema",
        mend="pass the schema in the backend's form, and raise if the backend ignored it",
    )
    async def test_json_schema_works(self, subject: Subject) -> None:
        """a reply to a request with a JSON schema is JSON that fits it, whole and streamed"""
        async with subject.shared() as running:
            asked: dict[str, Any] = {"response_format": _SUNNY, "sampling_params": _LONG}
            texts = [_text(await self._chat(running, _IS_IT_SUNNY, **asked))]
            if subject.declares("streaming"):
                pieces = await self._chat(running, _IS_IT_SUNNY, **asked, stream=True)
                texts.append(_text_of_pieces([piece async for piece in pieces]))
        wrong = [text for text in texts if not _is_sunny(text)]
        if wrong:
            raise CheckFailure(f"{wrong[0]!r}", wanted='{"sunny": true} or {"sunny": false}')

    test_json_schema_refused = refused("json_schema")

    @check(
        "tools.works",
        tier=Tier.live,
        capability="tools",
        mend="pass tools and tool_choice to the backend, and return ToolCall with the arguments as a dict, not as text",
    )
    async def test_tools_works(self, subject: Subject) -> None:
        """a required tool is called: a ToolCall with an id, the tool's name and its arguments"""
        async with subject.shared() as running:
            reply = await self._weather(running)
        well_formed(subject.method("chat_completion"), reply)
        _weather_call(reply.completion_message.tool_calls)
        if reply.completion_message.stop_reason is not StopReason.end_of_message:
            raise CheckFailure(f"stop_reason {reply.completion_message.stop_reason}", wanted="end_of_message")

    @check(
        "tools.streamed",
        tier=Tier.live,
        capability="tools",
        mend="yield ToolCallDelta: started, in_progress with raw text, success with the whole ToolCall",
    )
    async def test_tools_streamed(self, subject: Subject) -> None:
        """a streamed tool call is deltas that begin with started and end with success and the whole ToolCall"""
        if not subject.declares("streaming"):
            raise NotApplicable("the provider declares no `streaming`")
        async with subject.shared() as running:
            events = [piece.event async for piece in await self._weather(running, stream=True)]
        deltas = [event.delta for event in events if isinstance(event.delta, ToolCallDelta)]
        statuses = [delta.parse_status for delta in deltas]
        kinds = ToolCallParseStatus
        if not statuses or statuses[-1] is not kinds.success or statuses[0] is not kinds.started:
            raise CheckFailure(f"tool call deltas of {[str(status) for status in statuses]}")
        _weather_call([delta.content for delta in deltas if delta.parse_status is kinds.success])

    async def _weather(self, running: Running, **more: Any) -> Any:
        given: dict[str, Any] = {
            "model": await self._model(running, running.subject.settings.tool_model),
            "tools": [_WEATHER],
            "sampling_params": SamplingParams(max_tokens=64),
            **more,
        }
        question = "What is the weather in Paris?"
        try:
            return await self._chat(running, question, **given, tool_choice=ToolChoice.required)
        except NotSupportedError as error:
            if error.param != "tool_choice":
                raise
            # The backend supports tools, but the model decides whether to call one.
            return await self._chat(running, question, **given)

    test_tools_refused = refused("tools")

    @check(
        "images.works",
        tier=Tier.live,
        capability="images",
        mend="pass the image's bytes in the backend's form",
    )
    async def test_images_works(self, subject: Subject) -> None:
        """a message with an image in a data: URL gets an answer"""
        if subject.settings.image_model is None:
            raise NotApplicable("name a model that sees images in x-conformance.image_model")
        async with subject.shared() as running:
            model = await self._model(running, subject.settings.image_model)
            reply = await self._chat(running, ["What colour is this?", _DOT], model=model)
        _plain_message(reply.completion_message)

    test_images_refused = refused("images")


def _text(reply: Any) -> str:
    return str(reply.completion_message.content)


def _plain_message(message: CompletionMessage) -> None:
    if not isinstance(message.content, str) or not message.content.strip():
        raise CheckFailure(f"content {message.content!r}", wanted="text")
    if message.tool_calls:
        raise CheckFailure(f"tool calls, though there are no tools: {message.tool_calls}")


def _delta(piece: Any) -> str:
    delta = piece.event.delta if isinstance(piece, ChatCompletionResponseStreamChunk) else piece.delta
    return delta if isinstance(delta, str) else ""


def _text_of_pieces(pieces: list[Any]) -> str:
    return "".join(_delta(piece) for piece in pieces)


def _stops_once(pieces: list[ChatCompletionResponseStreamChunk | CompletionResponseStreamChunk]) -> None:
    reasons = [
        (p.event if isinstance(p, ChatCompletionResponseStreamChunk) else p).stop_reason is not None for p in pieces
    ]
    if not reasons or sum(reasons) != 1 or not reasons[-1]:
        raise CheckFailure(
            f"of {len(reasons)} pieces, those with a stop_reason: {[i for i, has in enumerate(reasons) if has]}",
            wanted="a stop_reason only in the last piece",
        )


def _in_order(pieces: list[ChatCompletionResponseStreamChunk]) -> None:
    kinds = ChatCompletionResponseEventType
    found = [piece.event.event_type for piece in pieces]
    if found != [kinds.start, *[kinds.progress] * (len(found) - 2), kinds.complete]:
        raise CheckFailure(f"events {[str(kind) for kind in found[:3]]} ... {[str(kind) for kind in found[-3:]]}")


def _is_sunny(text: Any) -> bool:
    try:
        found = json.loads(text)
    except (TypeError, ValueError):
        return False
    return isinstance(found, dict) and list(found) == ["sunny"] and isinstance(found["sunny"], bool)


def _weather_call(calls: list[Any]) -> None:
    if len(calls) < 1 or not all(isinstance(call, ToolCall) for call in calls):
        raise CheckFailure(f"tool calls {calls}")
    call = calls[0]
    if call.tool_name != "weather" or not call.call_id or not isinstance(call.arguments.get("city"), str):
        raise CheckFailure(f"{call}", wanted="a call of `weather` with an id and a `city`")


def _likeness(left: list[float], right: list[float]) -> float:
    """Cosine of the angle between two vectors."""
    product = sum(a * b for a, b in zip(left, right, strict=True))
    return product / ((math.hypot(*left) * math.hypot(*right)) or 1.0)
