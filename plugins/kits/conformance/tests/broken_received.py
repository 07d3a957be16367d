"""Inference providers that each send something else to the backend than the call says."""

from __future__ import annotations

import unicodedata
from typing import Any

from broken_inference import Base, broken

from llamastack.api import CompletionMessage, SystemMessage, UserMessage
from llamastack_adapters.openai_dialect import BackendReply, OpenAIForm, OpenAIRequest, as_json_schema


class _ChangesMessages(Base):
    def messages_of(self, messages: list[Any]) -> list[Any]:
        raise NotImplementedError

    async def chat_completion(self, model: str, messages: Any, *args: Any, **kwargs: Any) -> Any:
        return await super().chat_completion(model, self.messages_of(list(messages)), *args, **kwargs)


@broken("received.messages")
class SendsTheLastMessage(_ChangesMessages):
    def messages_of(self, messages: list[Any]) -> list[Any]:
        return messages[-1:]


@broken("received.messages")
class SendsNoInstructions(_ChangesMessages):
    def messages_of(self, messages: list[Any]) -> list[Any]:
        return [m for m in messages if not isinstance(m, SystemMessage)]


@broken("received.messages")
class SendsNoAnswers(_ChangesMessages):
    def messages_of(self, messages: list[Any]) -> list[Any]:
        return [m for m in messages if not isinstance(m, CompletionMessage)]


@broken("received.messages")
class SendsNoContext(_ChangesMessages):
    def messages_of(self, messages: list[Any]) -> list[Any]:
        return [m.model_copy(update={"context": None}) if isinstance(m, UserMessage) else m for m in messages]


@broken("received.messages")
class SendsOnePart(_ChangesMessages):
    def messages_of(self, messages: list[Any]) -> list[Any]:
        return [
            m.model_copy(update={"content": m.content[0] if isinstance(m.content, list) else m.content})
            for m in messages
        ]


@broken("received.messages")
class SendsAnswersAsQuestions(_ChangesMessages):
    def messages_of(self, messages: list[Any]) -> list[Any]:
        return [UserMessage(content=m.content) if isinstance(m, CompletionMessage) else m for m in messages]


@broken("received.messages")
class SendsInReverse(_ChangesMessages):
    def messages_of(self, messages: list[Any]) -> list[Any]:
        return messages[::-1]


@broken("received.messages")
class RepeatsTheQuestion(_ChangesMessages):
    def messages_of(self, messages: list[Any]) -> list[Any]:
        return [*messages, messages[-1]]


@broken("received.messages")
class KeepsWhatItWasAsked(Base):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.history: list[Any] = []

    async def chat_completion(self, model: str, messages: Any, *args: Any, **kwargs: Any) -> Any:
        self.history += messages
        return await super().chat_completion(model, self.history[-12:], *args, **kwargs)


@broken("received.messages")
class ChangesTheCallersList(Base):
    async def chat_completion(self, model: str, messages: Any, *args: Any, **kwargs: Any) -> Any:
        messages[0].content = f"{messages[0].content} Be kind."
        return await super().chat_completion(model, messages, *args, **kwargs)


@broken("received.messages")
class AsksTwice(Base):
    async def send_chat(self, form: OpenAIForm) -> BackendReply:
        if not form.stream:
            await super().send_chat(form)
        return await super().send_chat(form)


@broken("received.messages")
class StreamsTheLastMessage(Base):
    async def send_chat(self, form: OpenAIForm) -> BackendReply:
        messages = form.fields["messages"][-1:] if form.stream else form.fields["messages"]
        return await super().send_chat(form.with_fields(messages=messages))


@broken("received.messages")
class ForwardsTheLastMessage(Base):
    async def forward_openai(self, request: OpenAIRequest) -> Any:
        import dataclasses
        import json

        body = json.loads(request.body)
        body["messages"] = body["messages"][-1:]
        return await super().forward_openai(dataclasses.replace(request, body=json.dumps(body).encode()))


class _ChangesFields(Base):
    def fields_of(self, fields: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    async def send_chat(self, form: OpenAIForm) -> BackendReply:
        return await super().send_chat(form._replace(fields=self.fields_of(dict(form.fields))))


class _Loses(_ChangesFields):
    lost = ""

    def fields_of(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in fields.items() if name != self.lost}


for _lost in ("temperature", "top_p", "seed", "stop", "max_tokens", "frequency_penalty"):
    broken("received.sampling")(type(f"Loses_{_lost}", (_Loses,), {"lost": _lost}))


@broken("received.sampling")
class SwapsTemperatureAndTopP(_ChangesFields):
    def fields_of(self, fields: dict[str, Any]) -> dict[str, Any]:
        other = {"temperature": "top_p", "top_p": "temperature"}
        return {other.get(name, name): value for name, value in fields.items()}


@broken("received.sampling")
class SendsTheFirstStop(_ChangesFields):
    def fields_of(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, **({"stop": fields["stop"][:1]} if "stop" in fields else {})}


@broken("received.sampling")
class RoundsTheTemperature(_ChangesFields):
    def fields_of(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, "temperature": round(fields.get("temperature", 0.0), 1)}


@broken("received.sampling")
class LimitsEveryReply(_ChangesFields):
    def fields_of(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, "max_tokens": 4}


@broken("received.sampling")
class IsNeverGreedy(_ChangesFields):
    def fields_of(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, "temperature": fields.get("temperature") or 0.7}


@broken("received.nothing-else")
class KeepsItsLastLimits(Base):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kept: dict[str, Any] = {}

    async def send_chat(self, form: OpenAIForm) -> BackendReply:
        self.kept |= {name: value for name, value in form.fields.items() if name != "messages"}
        return await super().send_chat(form.with_fields(**self.kept))


@broken("received.nothing-else")
class KeepsTheInstructions(Base):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.instructions: list[Any] = []

    async def send_chat(self, form: OpenAIForm) -> BackendReply:
        messages = form.fields["messages"]
        self.instructions = [m for m in messages if m["role"] == "system"] or self.instructions
        others = [m for m in messages if m["role"] != "system"]
        return await super().send_chat(form.with_fields(messages=[*self.instructions, *others]))


@broken("received.tools")
class SendsOneTool(_ChangesFields):
    def fields_of(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, **({"tools": fields["tools"][:1]} if "tools" in fields else {})}


@broken("received.tools")
class NeverRequiresATool(_ChangesFields):
    def fields_of(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, **({"tool_choice": "auto"} if "tool_choice" in fields else {})}


@broken("received.tools")
class RequiresEveryParameter(_ChangesFields):
    def fields_of(self, fields: dict[str, Any]) -> dict[str, Any]:
        for tool in fields.get("tools", ()):
            parameters = tool["function"]["parameters"]
            parameters["required"] = list(parameters["properties"])
        return fields


@broken("received.tools")
class SendsNoEarlierCalls(_ChangesFields):
    def fields_of(self, fields: dict[str, Any]) -> dict[str, Any]:
        for message in fields["messages"]:
            message.pop("tool_calls", None)
        return fields


@broken("received.tools")
class MixesUpTheIds(_ChangesFields):
    def fields_of(self, fields: dict[str, Any]) -> dict[str, Any]:
        for message in fields["messages"]:
            if "tool_call_id" in message:
                message["tool_call_id"] = "qzcall1"
        return fields


@broken("received.response-format")
class SendsNoSchema(_ChangesFields):
    def fields_of(self, fields: dict[str, Any]) -> dict[str, Any]:
        any_object = {"response_format": as_json_schema({"type": "object"})}
        return {**fields, **(any_object if "response_format" in fields else {})}


@broken("received.images")
class SendsNoImages(_ChangesFields):
    def fields_of(self, fields: dict[str, Any]) -> dict[str, Any]:
        for message in fields["messages"]:
            if isinstance(message["content"], list):
                message["content"] = [part for part in message["content"] if part["type"] == "text"]
        return fields


@broken("received.model")
class KnowsOneModel(Base):
    def backend_name(self, identifier: str) -> str:
        return "scripted"


class _ChangesTexts(_ChangesFields):
    def text_of(self, text: str) -> str:
        raise NotImplementedError

    def fields_of(self, fields: dict[str, Any]) -> dict[str, Any]:
        for message in fields["messages"]:
            if isinstance(message["content"], str):
                message["content"] = self.text_of(message["content"])
        return fields


@broken("received.texts")
class Normalises(_ChangesTexts):
    def text_of(self, text: str) -> str:
        return unicodedata.normalize("NFC", text)


@broken("received.texts")
class Trims(_ChangesTexts):
    def text_of(self, text: str) -> str:
        return text.strip()


@broken("received.texts")
class SendsAsciiOnly(_ChangesTexts):
    def text_of(self, text: str) -> str:
        return text.encode("ascii", "replace").decode()


@broken("received.texts")
class CutsLongTexts(_ChangesTexts):
    def text_of(self, text: str) -> str:
        return text[:8000]


@broken("received.texts")
class JoinsSpaces(_ChangesTexts):
    def text_of(self, text: str) -> str:
        return " ".join(part for part in text.split(" ") if part)


@broken("received.texts")
class TrimsWhatItEmbeds(Base):
    async def embeddings(self, model: str, contents: Any) -> Any:
        return await super().embeddings(model, [text.strip() for text in contents])
