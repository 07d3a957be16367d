"""Checks of what reaches the backend beside plain chats: tools, schemas, images, the model, and odd texts."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from llamastack.api.common import (
    CompletionMessage,
    ImageMedia,
    Message,
    StopReason,
    ToolCall,
    ToolChoice,
    ToolDefinition,
    ToolParamDefinition,
    ToolResponseMessage,
    UserMessage,
)
from llamastack.api.inference import JsonSchemaResponseFormat
from llamastack.provider.errors import InvalidRequestError, LlamaStackError, NotSupportedError
from llamastack_adapters.chat_request import ChatRequest
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.received import Received
from llamastack_conformance.replaying import replayed
from llamastack_conformance.running import Running
from llamastack_conformance.suites.inference_calls import BRIEF, DOT, OTHER_DOT
from llamastack_conformance.suites.inference_ways import AskingChecks, Way, holding, received
from llamastack_conformance.suites.odd_texts import ENDS, ODD_TEXTS, OddText

_ANSWERED = StopReason.end_of_message
_WEATHER, _MAIL = "qzweather", "qzmail"
_TOOLS = [
    ToolDefinition(
        tool_name=_WEATHER,
        description="The weather, qzabout",
        parameters={
            "qzcity": ToolParamDefinition(param_type="string", description="A city, qzofcity"),
            "qzdays": ToolParamDefinition(param_type="integer", description="Days, qzofdays", required=False),
        },
    ),
    ToolDefinition(
        tool_name=_MAIL,
        description="Sends mail, qzsends",
        input_schema={
            "type": "object",
            "properties": {"qzto": {"type": "array", "items": {"type": "string", "enum": ["qzann", "qzbob"]}}},
            "required": ["qzto"],
        },
    ),
]
_TOOL_WORDS = (_WEATHER, "qzabout", "qzcity", "qzofcity", "qzdays", "qzofdays", _MAIL, "qzsends", "qzto", "qzbob")
_SCHEMA = JsonSchemaResponseFormat(
    json_schema={
        "type": "object",
        "properties": {"qzsunny": {"type": "string", "enum": ["qzyes", "qzno"]}},
        "required": ["qzsunny"],
        "additionalProperties": False,
    }
)
_SCHEMA_WORDS = ("qzsunny", "qzyes", "qzno")
_MOST_MODELS = 3
Call = Callable[[str], Awaitable[Any]]


class ReceivedFeatureChecks(AskingChecks):
    """The checks of what the backend receives of tools, schemas, images and odd texts."""

    @check(
        "received.tools",
        tier=Tier.live,
        capability="tools",
        mend="send every tool with its description and all of its parameters' schema, and send `tool_choice`",
    )
    async def test_received_tools(self, subject: Subject) -> None:
        """the backend receives every tool with its parameters, whether one must be called, and earlier calls with
        their answers
        """
        async with subject.shared(tapped=True) as running:
            model = await self._model(running, subject.settings.tool_model)
            async for way, _ in self.replaying_ways(running, model):
                asked = ChatRequest(model, [UserMessage(content="Say qzt1.")], BRIEF, _TOOLS, ToolChoice.auto)
                free = await self.sent(running, way, asked, "qzt1")
                for sent in free:
                    _holds_all(way, sent, _TOOL_WORDS)
                    _check_schemas(way, sent)
                forced = await self.sent(running, way, asked._replace(tool_choice=ToolChoice.required), "qzt1")
                if forced and [sent.leaves for sent in forced] == [sent.leaves for sent in free]:
                    raise CheckFailure(f"{way.name}: the backend receives the same for `required` as for `auto`")
                called = asked._replace(messages=_called())
                for sent in await self.sent(running, way, called, "qzthen"):
                    _check_earlier_call(way, sent)

    @check(
        "received.response-format",
        tier=Tier.live,
        capability="json_schema",
        mend="pass the whole schema to the backend, whole and streamed",
    )
    async def test_received_response_format(self, subject: Subject) -> None:
        """the backend receives the whole JSON schema of a reply, in every way"""
        async with subject.shared(tapped=True) as running:
            model = await self._model(running)
            async for way, _ in self.replaying_ways(running):
                messages: list[Message] = [UserMessage(content="Say qzf1.")]
                request = ChatRequest(model, messages, BRIEF, response_format=_SCHEMA)
                for sent in await self.sent(running, way, request, "qzf1"):
                    _holds_all(way, sent, _SCHEMA_WORDS)

    @check(
        "received.images",
        tier=Tier.live,
        capability="images",
        mend="send each image of a message once, with the text around it",
    )
    async def test_received_images(self, subject: Subject) -> None:
        """the backend receives each of two images once, with the texts before and after them"""
        if subject.settings.image_model is None:
            raise NotApplicable("name a model that sees images in x-conformance.image_model")
        pictures = [DOT, OTHER_DOT]
        async with subject.shared(tapped=True) as running:
            model = await self._model(running, subject.settings.image_model)
            async for way, _ in self.replaying_ways(running):
                content = ["See qzbefore.", DOT, "and", OTHER_DOT, "Now qzafter."]
                request = ChatRequest(model, [UserMessage(content=content)], BRIEF)
                for sent in await self.sent(running, way, request, "qzafter"):
                    found = [sent.times(str(each.image).partition(",")[2]) for each in pictures]
                    if found != [1, 1] or sent.times("qzbefore") != 1:
                        raise CheckFailure(f"{way.name}: two images arrived {found} times", wanted="each image once")

    @check(
        "received.embedded-images",
        tier=Tier.live,
        capability="embeddings",
        mend="send the images of `contents` to the model, or raise NotSupportedError; leave out none",
    )
    async def test_received_embedded_images(self, subject: Subject) -> None:
        """an image among the contents to embed, alone or beside a text, reaches the backend, or the call is refused
        with a 4xx or 501
        """
        image = ImageMedia(image=DOT.image)
        data = str(DOT.image).partition(",")[2]
        contents: dict[str, Any] = {"an image": [image], "a text with an image": [["See qzdot.", image]]}
        contents["a text, then an image"] = ["See qzdot.", image]
        async with subject.start(tapped=True) as running:
            for name, content in contents.items():
                running.tap.requests.clear()
                try:
                    await self._embed(running, content)
                except LlamaStackError as error:
                    if error.status >= 500 and not isinstance(error, NotSupportedError):
                        raise CheckFailure(f"{name}: {type(error).__name__}: {error.message}") from None
                    continue
                if not any(data in text for request in running.tap.requests for text in Received(request).texts):
                    raise CheckFailure(f"{name} is embedded, and no request to the backend holds the image")

    @check(
        "received.model",
        tier=Tier.live,
        capability="chat_completion",
        mend="send the backend's name of the model that the call names",
    )
    async def test_received_model(self, subject: Subject) -> None:
        """calls of two models reach the backend as calls of two models"""
        async with subject.shared(tapped=True) as running:
            listed = [model for model in await running.list_objects() if model.can_chat]
            own = [model.identifier for model in listed if "alias_of" not in model.metadata][:_MOST_MODELS]
            if len(own) < 2:
                raise NotApplicable("the provider lists fewer than two models that chat")
            async for way, _ in self.replaying_ways(running):
                seen: dict[str, str] = {}
                for name in own:
                    request = ChatRequest(running.qualified(name), [UserMessage(content="Say qzm1.")], BRIEF)
                    try:
                        sent = await self.sent(running, way, request, "qzm1")
                    except LlamaStackError:  # not every listed model chats
                        continue
                    shown = json.dumps([(part.target, part.leaves) for part in sent])
                    if sent and shown in seen:
                        raise CheckFailure(f"{way.name}: '{name}' is called as '{seen[shown]}' is")
                    seen[shown] = name

    @check(
        "received.texts",
        tier=Tier.live,
        mend="pass texts on as they are: no normalisation, no trimming, no other encoding than UTF-8",
    )
    async def test_received_texts(self, subject: Subject) -> None:
        """the backend receives every text unchanged: accents, emoji, right-to-left, spaces, NUL, 20,000 characters"""
        async with subject.shared(tapped=True) as running:
            if subject.declares("chat_completion"):
                model = await self._model(running)
                async for way, _ in self.replaying_ways(running):
                    for odd in ODD_TEXTS:
                        request = ChatRequest(model, [UserMessage(content=odd.text)], BRIEF)
                        _unchanged(way.name, odd, await _tried(odd, self.sent(running, way, request, odd.word)))
            for name, call in self._other_calls(running):
                running.tap.clear()
                await received(running, call("Say qzplain."))
                running.tap.disturb(inject=await replayed(running.tap))
                for odd in ODD_TEXTS:
                    _unchanged(name, odd, await _tried(odd, _sent_by(running, name, call, odd)))

    def _other_calls(self, running: Running) -> Iterator[tuple[str, Call]]:
        subject = running.subject
        if subject.declares("completion"):
            yield "completion", lambda text: self._complete(running, text, sampling_params=BRIEF)
            if subject.declares("streaming"):
                yield (
                    "completion, streamed",
                    lambda text: self._complete(running, text, sampling_params=BRIEF, stream=True),
                )
        if subject.declares("embeddings"):
            yield "embeddings", lambda text: self._embed(running, [text])


async def _sent_by(running: Running, name: str, call: Call, odd: OddText) -> list[Received]:
    result, found = await received(running, call(odd.text))
    return holding(odd.word, found, name, result)


async def _tried(odd: OddText, attempt: Awaitable[list[Received]]) -> list[Received]:
    try:
        return await attempt
    except InvalidRequestError as error:
        if odd.may_be_refused:
            return []
        raise CheckFailure(f"a text with {odd.name} is refused: {error.message}") from None


def _unchanged(name: str, odd: OddText, found: list[Received]) -> None:
    for sent in found:
        texts = [value for _, value in sent.leaves if isinstance(value, str) and odd.word in value]
        if odd.name == ENDS and not any(text.strip() == odd.text.strip() for text in texts):
            texts = [odd.text]  # it is part of a prompt, whose template may trim it
        if not any(odd.text in text for text in texts):
            raise CheckFailure(f"{name}: {odd.text[:60]!r} arrived as {''.join(texts)[:80]!r}")


def _holds_all(way: Way, sent: Received, words: tuple[str, ...]) -> None:
    missing = [word for word in words if word not in sent.words]
    if missing:
        raise CheckFailure(f"{way.name}: {', '.join(missing)} did not reach the backend: {json.dumps(sent.body)[:400]}")


def _check_schemas(way: Way, sent: Received) -> None:
    """The types and the required parameters, where the backend takes JSON schemas."""
    for schema in _objects(sent.body):
        properties = schema.get("properties")
        if not isinstance(properties, Mapping) or "qzcity" not in properties:
            continue
        found = {name: field.get("type") for name, field in properties.items() if isinstance(field, Mapping)}
        if found != {"qzcity": "string", "qzdays": "integer"} or schema.get("required") != ["qzcity"]:
            raise CheckFailure(f"{way.name}: types {found}, required {schema.get('required')}", wanted="as declared")


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
    for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _objects(inner)


def _called() -> list[Message]:
    """A conversation with two tool calls in one message, and their answers."""
    calls = [
        ToolCall(call_id="qzcall1", tool_name=_WEATHER, arguments={"qzcity": "qzparis", "qzdays": 2}),
        ToolCall(call_id="qzcall2", tool_name=_WEATHER, arguments={"qzcity": "qzrome"}),
    ]
    return [
        UserMessage(content="Weather, qzasked?"),
        CompletionMessage(content="", stop_reason=_ANSWERED, tool_calls=calls),
        ToolResponseMessage(call_id="qzcall1", tool_name=_WEATHER, content="qzsun"),
        ToolResponseMessage(call_id="qzcall2", tool_name=_WEATHER, content="qzrain"),
        UserMessage(content="And qzthen?"),
    ]


def _check_earlier_call(way: Way, sent: Received) -> None:
    words = ("qzasked", "qzparis", "qzrome", "qzsun", "qzrain", "qzthen")
    counts = {word: sent.times(word) for word in words}
    if set(counts.values()) != {1}:
        raise CheckFailure(f"{way.name}: how often each part of earlier tool calls arrived: {counts}")
    order = sorted(words, key=sent.place)
    if order != list(words):
        raise CheckFailure(f"{way.name}: the order {order}", wanted=f"the order {list(words)}")
    for path, value in sent.leaves:
        if isinstance(value, str) and '\\"qz' in value:
            raise CheckFailure(
                f"{way.name}: {path} holds JSON within JSON: {value[:200]}", wanted="arguments encoded once"
            )
    ids = [sent.times(name) for name in ("qzcall1", "qzcall2")]
    if ids not in ([0, 0], [2, 2]):
        raise CheckFailure(f"{way.name}: the ids of two calls arrived {ids} times", wanted="each with call and answer")
