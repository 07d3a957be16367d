"""Requests in OpenAI's form -> those of Ollama: https://docs.ollama.com/api/chat and /api/generate."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from llamastack.api.common import SamplingStrategy
from llamastack.provider.errors import InvalidRequestError, NotSupportedError
from llamastack_adapters.data_urls import is_data_url, read_data_url
from llamastack_adapters.openai_dialect import Dialect, OpenAIForm, as_json_schema

_MOST_LOGPROBS = 20
_SAMPLERS = ("frequency_penalty", "presence_penalty", "min_p")
OWN_OPTIONS = (
    "mirostat", "mirostat_eta", "mirostat_tau", "num_ctx", "num_keep", "penalize_newline", "repeat_last_n", "tfs_z",
    "typical_p",
)  # fmt: skip
"""Options that only Ollama has, which a request of `/v1` may name by themselves; `options` holds any:
https://github.com/ollama/ollama/blob/main/docs/modelfile.mdx
"""
_OPTIONS = (*OWN_OPTIONS, "temperature", "top_p", "top_k", "num_predict", "repeat_penalty", "stop", "seed", *_SAMPLERS)
# Ollama applies all its samplers by default; a strategy uses only its own.
_ONLY: dict[SamplingStrategy, dict[str, Any]] = {
    SamplingStrategy.top_p: {"top_k": 0, "min_p": 0.0},
    SamplingStrategy.top_k: {"top_p": 1.0, "min_p": 0.0},
}


def ollama_dialect(provider_id: str) -> Dialect:
    """The dialect of Ollama. It cannot force a tool call."""
    return Dialect(
        provider_id,
        max_tokens="num_predict",
        top_k="top_k",
        repetition_penalty="repeat_penalty",
        tool_choice_required=None,
        completion_response_format=as_json_schema,
        extra=(*OWN_OPTIONS, "options", "keep_alive", "think"),
        only=_ONLY,
        samplers=_SAMPLERS,
    )


def options_of(body: Mapping[str, Any], context_length: int | None) -> dict[str, Any]:
    """Ollama's `options`. body: the request with the field names of `ollama_dialect`.

    A repetition penalty is always set, because Ollama penalizes by default. Raises InvalidRequestError if a client's
    `options` are not an object.
    """
    options = {"repeat_penalty": 1.0, **{name: body[name] for name in _OPTIONS if name in body}}
    if context_length is not None:
        options.setdefault("num_ctx", context_length)
    own = body.get("options", {})
    if not isinstance(own, dict):
        raise InvalidRequestError("options: must be an object", param="options")
    return {**options, **own} if own else options


def logprobs_fields(form: OpenAIForm) -> dict[str, Any]:
    """`logprobs` and `top_logprobs`. Raises InvalidRequestError for more than Ollama supports."""
    if "logprobs" not in form.fields:
        return {}
    most = form.fields["top_logprobs"] if "messages" in form.fields else form.fields["logprobs"]
    if most > _MOST_LOGPROBS:
        raise InvalidRequestError(
            f"Ollama gives the log probabilities of at most {_MOST_LOGPROBS} tokens", param="logprobs.top_k"
        )
    return {"logprobs": True, "top_logprobs": most}


def tools_of(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The tools of the request. Ollama ignores the default of a parameter, so the description contains it."""
    return [{**tool, "function": _function(tool["function"])} for tool in tools]


def _function(function: Mapping[str, Any]) -> dict[str, Any]:
    schema = function["parameters"]
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        properties = {}
    described = {name: _with_default_in_words(parameter) for name, parameter in properties.items()}
    return {**function, "parameters": {**schema, "properties": described}}


def _with_default_in_words(parameter: Any) -> dict[str, Any]:
    """A JSON schema may also be true or false; Ollama's client takes only objects."""
    if not isinstance(parameter, dict):
        return {}
    described = {name: value for name, value in parameter.items() if name != "default"}
    if "default" in parameter:
        default = f"(default: {json.dumps(parameter['default'])})"
        described["description"] = f"{parameter.get('description', '')} {default}".lstrip()
    return described


def messages_of(messages: Sequence[Mapping[str, Any]], provider_id: str) -> list[dict[str, Any]]:
    """Ollama's messages: text, and the bytes of images beside it. Ollama fetches no images."""
    return [_message(message, provider_id) for message in messages]


def _message(message: Mapping[str, Any], provider_id: str) -> dict[str, Any]:
    content, role = message["content"], message["role"]
    out: dict[str, Any] = {"role": role}
    if isinstance(content, str):
        out["content"] = content
    else:
        out["content"] = "\n".join(part["text"] for part in content if part["type"] == "text")
        images = [_image(part["image_url"]["url"], provider_id) for part in content if part["type"] == "image_url"]
        if images:
            out["images"] = images
    if role == "tool":
        out["tool_name"] = message["name"]
    if "tool_calls" in message:
        if not out["content"]:
            del out["content"]
        out["tool_calls"] = [_call(call["function"]) for call in message["tool_calls"]]
    return out


def _call(function: Mapping[str, Any]) -> dict[str, Any]:
    return {"function": {"name": function["name"], "arguments": json.loads(function["arguments"])}}


def _image(url: str, provider_id: str) -> str:
    """The bytes of an image, in base64."""
    if not is_data_url(url):
        raise NotSupportedError(
            f"provider '{provider_id}' takes images only as data: URLs: Ollama does not fetch any",
            provider_id=provider_id,
            param="messages",
        )
    data = read_data_url(url, "messages").data
    if not data:
        raise InvalidRequestError("the data: URL of an image is empty", param="messages")
    return base64.b64encode(data).decode()
