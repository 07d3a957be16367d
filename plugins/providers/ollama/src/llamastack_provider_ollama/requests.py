"""Native arguments -> those of Ollama's client."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llamastack.api.common import (
    CompletionMessage,
    ImageMedia,
    InterleavedTextMedia,
    Message,
    SamplingStrategy,
    SystemMessage,
    ToolResponseMessage,
    UserMessage,
)
from llamastack.api.inference import LogProbConfig
from llamastack.provider.errors import InvalidRequestError, NotSupportedError
from llamastack_adapters.data_urls import is_data_url, read_data_url
from llamastack_adapters.openai_dialect import Dialect

_MOST_LOGPROBS = 20
_SAMPLERS = ("frequency_penalty", "presence_penalty", "min_p")
_OPTIONS = ("temperature", "top_p", "top_k", "num_predict", "repeat_penalty", "stop", "seed", *_SAMPLERS)
# Ollama applies all its samplers unless told otherwise; a strategy means its own alone.
_ONLY: dict[SamplingStrategy, dict[str, Any]] = {
    SamplingStrategy.top_p: {"top_k": 0, "min_p": 0.0},
    SamplingStrategy.top_k: {"top_p": 1.0, "min_p": 0.0},
}


def ollama_dialect(provider_id: str) -> Dialect:
    """Ollama's names for what both have. It cannot make a model call a tool."""
    return Dialect(
        provider_id,
        max_tokens="num_predict",
        top_k="top_k",
        repetition_penalty="repeat_penalty",
        tool_choice_required=None,
        only=_ONLY,
        samplers=_SAMPLERS,
    )


def options_of(body: Mapping[str, Any], context_length: int | None) -> dict[str, Any]:
    """Ollama's `options`. body: the request in the words of `ollama_dialect`.

    A repetition penalty is always named: Ollama's own default is to penalize.
    """
    options = {"repeat_penalty": 1.0, **{name: body[name] for name in _OPTIONS if name in body}}
    return options if context_length is None else {**options, "num_ctx": context_length}


def logprobs_arguments(logprobs: LogProbConfig | None) -> dict[str, Any]:
    """`logprobs` and `top_logprobs`. Raises InvalidRequestError for more than Ollama gives."""
    if logprobs is None:
        return {}
    if logprobs.top_k > _MOST_LOGPROBS:
        raise InvalidRequestError(
            f"Ollama gives the log probabilities of at most {_MOST_LOGPROBS} tokens", param="logprobs.top_k"
        )
    return {"logprobs": True, "top_logprobs": logprobs.top_k}


def tools_of(body: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The tools of the request. Ollama passes over the default of a parameter, so the description says it."""
    tools: list[dict[str, Any]] | None = body.get("tools")
    return None if tools is None else [{**tool, "function": _function(tool["function"])} for tool in tools]


def _function(function: Mapping[str, Any]) -> dict[str, Any]:
    schema = function["parameters"]
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        properties = {}
    told = {name: _with_default_in_words(parameter) for name, parameter in properties.items()}
    return {**function, "parameters": {**schema, "properties": told}}


def _with_default_in_words(parameter: Any) -> dict[str, Any]:
    """A JSON schema may be true or false, too; Ollama's client takes objects alone."""
    if not isinstance(parameter, dict):
        return {}
    told = {name: value for name, value in parameter.items() if name != "default"}
    if "default" in parameter:
        default = f"(default: {json.dumps(parameter['default'])})"
        told["description"] = f"{parameter.get('description', '')} {default}".lstrip()
    return told


def messages_of(messages: Sequence[Message], provider_id: str) -> list[dict[str, Any]]:
    """Ollama's messages: text, and the bytes of images beside it. Ollama fetches no images."""
    return [_message(message, provider_id) for message in messages]


def has_images(messages: Sequence[Mapping[str, Any]]) -> bool:
    return any(message.get("images") for message in messages)


def _message(message: Message, provider_id: str) -> dict[str, Any]:
    match message:
        case UserMessage(content=content, context=context):
            return {"role": "user", **_parts([*_as_list(content), *_as_list(context)], provider_id)}
        case SystemMessage(content=content):
            return {"role": "system", **_parts(_as_list(content), provider_id)}
        case ToolResponseMessage(tool_name=name, content=content):
            return {"role": "tool", "tool_name": str(name), **_parts(_as_list(content), provider_id)}
        case CompletionMessage(content=content, tool_calls=calls):
            out = {"role": "assistant", **_parts(_as_list(content), provider_id)}
            if calls:
                out["tool_calls"] = [
                    {"function": {"name": str(call.tool_name), "arguments": call.arguments}} for call in calls
                ]
            return out


def _as_list(content: InterleavedTextMedia | None) -> list[str | ImageMedia]:
    if content is None:
        return []
    return list(content) if isinstance(content, list) else [content]


def _parts(parts: Sequence[str | ImageMedia], provider_id: str) -> dict[str, Any]:
    out: dict[str, Any] = {"content": "\n".join(part for part in parts if isinstance(part, str))}
    images = [_image(part, provider_id) for part in parts if not isinstance(part, str)]
    return {**out, "images": images} if images else out


def _image(part: ImageMedia, provider_id: str) -> bytes:
    """The bytes of an image. Never a text: Ollama's client would take that for the path of a file to send."""
    if not isinstance(part.image, str):
        raise InvalidRequestError("an image needs a URL (data: URLs carry the bytes)", param="messages")
    if not is_data_url(part.image):
        raise NotSupportedError(
            f"provider '{provider_id}' takes images as data: URLs alone: Ollama does not fetch any",
            provider_id=provider_id,
            param="messages",
        )
    data = read_data_url(part.image, "messages").data
    if not data:
        raise InvalidRequestError("the data: URL of an image is empty", param="messages")
    return data
