"""Requests in OpenAI's form -> arguments of native calls, for providers that have only these."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from llamastack.api.common import (
    CompletionMessage,
    ImageMedia,
    InterleavedTextMedia,
    Message,
    SamplingParams,
    SamplingStrategy,
    StopReason,
    SystemMessage,
    ToolCall,
    ToolChoice,
    ToolDefinition,
    ToolParamDefinition,
    ToolResponseMessage,
    UserMessage,
)
from llamastack.api.inference import JsonSchemaResponseFormat, LogProbConfig
from llamastack.provider.errors import InvalidRequestError
from llamastack_adapters.openai_dialect import OpenAIForm, unknown_field

Fields = Mapping[str, Any]


def messages_of(form: OpenAIForm) -> Iterator[Message]:
    """The native messages of a chat, made one by one."""
    return map(_message, form.fields["messages"])


def chat_arguments(form: OpenAIForm, messages: list[Message]) -> dict[str, Any]:
    """Arguments of `chat_completion`. messages: those of `messages_of`.

    Raises InvalidRequestError for a field that no native argument can express.
    """
    arguments = _common(form)
    arguments["messages"] = messages
    if "tools" in form.fields:
        arguments["tools"] = [_tool(tool["function"]) for tool in form.fields["tools"]]
    if "tool_choice" in form.fields:
        arguments["tool_choice"] = ToolChoice(form.fields["tool_choice"])
    if "logprobs" in form.fields:
        arguments["logprobs"] = LogProbConfig(top_k=form.fields["top_logprobs"])
    return arguments


def completion_arguments(form: OpenAIForm) -> dict[str, Any]:
    """Arguments of `completion`; as `chat_arguments`."""
    arguments = {**_common(form), "content": form.fields["prompt"]}
    if "logprobs" in form.fields:
        arguments["logprobs"] = LogProbConfig(top_k=form.fields["logprobs"])
    return arguments


def _common(form: OpenAIForm) -> dict[str, Any]:
    for name in form.extra:
        raise unknown_field(name)
    arguments: dict[str, Any] = {"model": form.model, "sampling_params": _sampling(form.fields)}
    if form.stream:
        arguments["stream"] = True
    if form.json_schema is not None:
        arguments["response_format"] = JsonSchemaResponseFormat(json_schema=form.json_schema)
    return arguments


_SAMPLING = (
    "temperature", "top_p", "top_k", "max_tokens", "stop", "seed", "frequency_penalty", "presence_penalty", "min_p",
    "repetition_penalty", "logit_bias",
)  # fmt: skip


def _sampling(fields: Fields) -> SamplingParams:
    """A parameter that is not given must not be set natively either: the model's defaults count."""
    given = {name: fields[name] for name in _SAMPLING if name in fields}
    if given.get("temperature") == 0:
        given = {name: value for name, value in given.items() if name not in ("temperature", "top_p", "top_k")}
        return SamplingParams(strategy=SamplingStrategy.greedy, **given)
    if "top_k" in given:
        if given.pop("top_p", 1) < 1:
            raise InvalidRequestError("cannot be given together with 'top_p' for this model", param="top_k")
        return SamplingParams(strategy=SamplingStrategy.top_k, **given)
    return SamplingParams(strategy=SamplingStrategy.top_p, **given)


def _message(message: Fields) -> Message:
    content = _content(message["content"])
    match message["role"]:
        case "system":
            return SystemMessage(content=content)
        case "user":
            return UserMessage(content=content)
        case "tool":
            return ToolResponseMessage(call_id=message["tool_call_id"], tool_name=message["name"], content=content)
    calls = [
        ToolCall(
            call_id=call["id"],
            tool_name=call["function"]["name"],
            arguments=json.loads(call["function"]["arguments"]),
        )
        for call in message.get("tool_calls", ())
    ]
    reason = StopReason.end_of_message if calls else StopReason.end_of_turn
    return CompletionMessage(content=content, stop_reason=reason, tool_calls=calls)


def _content(content: str | list[Fields]) -> InterleavedTextMedia:
    if isinstance(content, str):
        return content
    return [part["text"] if part["type"] == "text" else ImageMedia(image=part["image_url"]["url"]) for part in content]


def _tool(function: Fields) -> ToolDefinition:
    schema = function["parameters"]
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not all(isinstance(value, dict) for value in properties.values()):
        properties = {}
    required = schema.get("required")
    return ToolDefinition(
        tool_name=function["name"],
        description=function.get("description"),
        parameters={
            name: _parameter(value, required=isinstance(required, list) and name in required)
            for name, value in properties.items()
        },
        input_schema=schema,
    )


def _parameter(schema: Mapping[str, Any], *, required: bool) -> ToolParamDefinition:
    kind = schema.get("type")
    description = schema.get("description")
    return ToolParamDefinition(
        # A parameter without a single type (a reference, a choice) is described only in the tool's schema.
        param_type=kind if isinstance(kind, str) else "object",
        description=description if isinstance(description, str) else None,
        required=required,
        default=schema.get("default"),
    )
