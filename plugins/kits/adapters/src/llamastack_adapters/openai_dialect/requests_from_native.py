"""Native requests -> OpenAI's form."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llamastack.api.common import (
    ImageMedia,
    InterleavedTextMedia,
    Message,
    SamplingParams,
    SamplingStrategy,
    ToolChoice,
    ToolDefinition,
    ToolPromptFormat,
)
from llamastack.provider.errors import InvalidRequestError, NotSupportedError
from llamastack_adapters.chat_request import ChatRequest, CompletionRequest
from llamastack_adapters.openai_dialect.protocols import OpenAIForm
from llamastack_adapters.tool_schemas import parameters_schema

_SAME_NAME: Mapping[str, tuple[object, ...]] = {
    "max_tokens": (0,),
    "repetition_penalty": (1.0,),
    "frequency_penalty": (None,),
    "presence_penalty": (None,),
    "min_p": (None,),
    "logit_bias": (None, {}),
    "stop": (None, []),
    "seed": (None,),
}
"""The sampling parameters that have the same name in OpenAI's form -> their values that ask for nothing."""


def as_json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's `response_format` for a JSON schema."""
    return {"type": "json_schema", "json_schema": {"name": "response", "strict": True, "schema": schema}}


def chat_form(request: ChatRequest, provider_id: str) -> OpenAIForm:
    """A chat in OpenAI's form. Raises InvalidRequestError or NotSupportedError, naming the native parameter."""
    fields: dict[str, Any] = {
        "messages": [_message(message) for message in request.messages],
        **_sampling(request.sampling_params),
    }
    if request.tools:
        if request.tool_prompt_format not in (None, ToolPromptFormat.json):
            raise NotSupportedError(
                f"provider '{provider_id}' does not support tool_prompt_format '{request.tool_prompt_format}'",
                provider_id=provider_id,
                param="tool_prompt_format",
            )
        fields["tools"] = [_tool(tool, f"tools[{place}]") for place, tool in enumerate(request.tools)]
        if request.tool_choice is not None:
            fields["tool_choice"] = request.tool_choice.value
    elif request.tool_choice is ToolChoice.required:
        raise InvalidRequestError("tool_choice 'required' needs at least one tool", param="tool_choice")
    if request.logprobs is not None:
        fields |= {"logprobs": True, "top_logprobs": request.logprobs.top_k}
    if request.response_format is not None:
        fields["response_format"] = as_json_schema(request.response_format.json_schema)
    return OpenAIForm(request.model, fields, request.stream)


def completion_form(request: CompletionRequest, provider_id: str) -> OpenAIForm:
    """A text completion in OpenAI's form. It has no images, so they are refused."""
    prompt = text_only(request.content, provider_id, "content")
    fields: dict[str, Any] = {"prompt": prompt, **_sampling(request.sampling_params)}
    if request.logprobs is not None:
        fields["logprobs"] = request.logprobs.top_k
    if request.response_format is not None:
        fields["response_format"] = as_json_schema(request.response_format.json_schema)
    return OpenAIForm(request.model, fields, request.stream)


def text_only(content: InterleavedTextMedia, provider_id: str, where: str) -> str:
    """The text of a content, parts joined by a line break. Raises NotSupportedError, naming `where`, for images."""
    parts = content if isinstance(content, list) else [content]
    texts: list[str] = []
    for part in parts:
        if not isinstance(part, str):
            raise NotSupportedError(
                f"provider '{provider_id}' does not support images here", provider_id=provider_id, param=where
            )
        texts.append(part)
    return "\n".join(texts)


def _sampling(params: SamplingParams | None) -> dict[str, Any]:
    if params is None:
        return {"temperature": 0.0}
    given = params.model_fields_set
    fields: dict[str, Any] = {}
    if params.strategy is SamplingStrategy.greedy:
        fields["temperature"] = 0.0
    else:
        if "temperature" in given:
            fields["temperature"] = params.temperature
        if params.strategy is SamplingStrategy.top_k:
            fields["top_k"] = params.top_k
        elif given & {"temperature", "top_p"}:
            fields["top_p"] = params.top_p
    for name, nothing in _SAME_NAME.items():
        if name in given and (value := getattr(params, name)) not in nothing:
            fields[name] = value
    return fields


def _content(content: InterleavedTextMedia) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    return [_part(part) for part in parts]


def _part(part: str | ImageMedia) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part.image, str):
        raise InvalidRequestError("an image needs a URL (data: URLs carry the bytes)", param="messages")
    return {"type": "image_url", "image_url": {"url": part.image}}


# perf: llamastack-native. The role tells the kind: a `match` that tries the classes takes twice as long.
def _message(message: Message) -> dict[str, Any]:
    if message.role == "user":
        if message.context is None:
            return {"role": "user", "content": _content(message.content)}
        return {"role": "user", "content": _content([*_as_list(message.content), *_as_list(message.context)])}
    if message.role == "system":
        return {"role": "system", "content": _content(message.content)}
    if message.role == "ipython":
        about = {"tool_call_id": message.call_id, "name": str(message.tool_name)}
        return {"role": "tool", **about, "content": _content(message.content)}
    out: dict[str, Any] = {"role": "assistant", "content": _content(message.content)}
    if message.tool_calls:
        out["tool_calls"] = [
            {
                "id": call.call_id,
                "type": "function",
                "function": {"name": str(call.tool_name), "arguments": json.dumps(call.arguments)},
            }
            for call in message.tool_calls
        ]
    return out


def _as_list(content: InterleavedTextMedia | None) -> list[str | ImageMedia]:
    if content is None:
        return []
    return list(content) if isinstance(content, list) else [content]


def _tool(tool: ToolDefinition, where: str) -> dict[str, Any]:
    function: dict[str, Any] = {"name": str(tool.tool_name), "parameters": parameters_schema(tool, where)}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": function}
