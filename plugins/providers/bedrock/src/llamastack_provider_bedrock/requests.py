"""Requests in the OpenAI dialect -> those of Converse."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from llamastack.provider import InvalidRequestError
from llamastack_adapters.data_urls import is_data_url, read_data_url

_FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
# Converse has no top_k; these families have their own field for it.
_TOP_K: dict[str, Callable[[int], dict[str, Any]]] = {
    "anthropic.": lambda k: {"top_k": k},
    "amazon.nova": lambda k: {"inferenceConfig": {"topK": k}},
}
_EMPTY = "(empty)"
_OWN = {
    "additional_model_request_fields": "additionalModelRequestFields",
    "guardrail_config": "guardrailConfig",
    "performance_config": "performanceConfig",
    "request_metadata": "requestMetadata",
}
OWN_FIELDS = frozenset({*_OWN, *_OWN.values()})
"""Fields that only Converse has, in its own spelling or in snake case. All are objects:
https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""


def top_k_field(model: str) -> str | None:
    """The field for `top_k` in the OpenAI dialect; None if the model takes none."""
    return "top_k" if _top_k(model) is not None else None


def _top_k(model: str) -> Callable[[int], dict[str, Any]] | None:
    return next((make for family, make in _TOP_K.items() if family in model), None)


def converse_request(body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The arguments of Converse and ConverseStream.

    body: the request in the OpenAI dialect. model: the foundation model behind its name. Raises InvalidRequestError for
    a conversation that Bedrock does not take.
    """
    system = [block for m in body["messages"] if m["role"] == "system" for block in _blocks(m["content"])]
    out: dict[str, Any] = {"modelId": body["model"], "messages": _turns(body["messages"])}
    if any("text" not in block for block in system):
        raise InvalidRequestError("a system message takes no images", param="messages")
    if system:
        out["system"] = system
    names = {"max_tokens": "maxTokens", "temperature": "temperature", "top_p": "topP", "stop": "stopSequences"}
    out["inferenceConfig"] = {to: body[name] for name, to in names.items() if name in body}
    own_top_k = _top_k(model)
    if own_top_k is not None and "top_k" in body:
        out["additionalModelRequestFields"] = own_top_k(body["top_k"])
    if body.get("tools"):
        out["toolConfig"] = {"tools": [{"toolSpec": _tool(tool["function"])} for tool in body["tools"]]}
        if "tool_choice" in body:
            out["toolConfig"]["toolChoice"] = {"any" if body["tool_choice"] == "required" else "auto": {}}
    if "response_format" in body:
        given = body["response_format"]["json_schema"]
        schema = {"schema": json.dumps(given["schema"]), "name": given["name"]}
        out["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": schema}}}
    return _with_own_fields(out, body)


def _with_own_fields(out: dict[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    for name in body.keys() & OWN_FIELDS:
        if not isinstance(body[name], dict):
            raise InvalidRequestError(f"{name}: must be an object", param=name)
        there = _OWN.get(name, name)
        out[there] = {**out.get(there, {}), **body[name]}
    return out


def _tool(function: Mapping[str, Any]) -> dict[str, Any]:
    spec = {"name": function["name"], "inputSchema": {"json": function["parameters"]}}
    return {**spec, "description": function["description"]} if function.get("description") else spec


def _turns(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """User and assistant alternate, as Bedrock requires: adjacent messages of one role are joined, and tool results are
    the user's.
    """
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "system":
            continue
        role = "assistant" if message["role"] == "assistant" else "user"
        blocks = list(_content(message))
        if not blocks and role == "user":
            raise InvalidRequestError("Bedrock takes no user message without content", param="messages")
        if blocks and turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    if not turns or turns[0]["role"] != "user":
        raise InvalidRequestError("Bedrock requires a conversation to begin with a user message", param="messages")
    return turns


def _content(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    blocks = _blocks(message["content"])
    if message["role"] == "tool":
        yield {"toolResult": {"toolUseId": message["tool_call_id"], "content": blocks or [{"text": _EMPTY}]}}
        return
    yield from blocks
    for call in message.get("tool_calls") or ():
        function = call["function"]
        given = {"name": function["name"], "input": json.loads(function["arguments"])}
        yield {"toolUse": {"toolUseId": call["id"], **given}}


def _blocks(content: str | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The parts without blank texts, which Bedrock refuses."""
    parts: Sequence[Mapping[str, Any]] = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [
        {"text": part["text"]} if part["type"] == "text" else {"image": _image(part["image_url"]["url"])}
        for part in parts
        if part["type"] != "text" or part["text"].strip()
    ]


def _image(url: str) -> dict[str, Any]:
    if not is_data_url(url):
        raise InvalidRequestError("Bedrock fetches no images: give the bytes in a data: URL", param="messages")
    media_type, _, data = read_data_url(url, "messages")
    image_format = _FORMATS.get(media_type)
    if image_format is None:
        raise InvalidRequestError(
            f"an image of type '{media_type[:100]}': Bedrock takes PNG, JPEG, GIF and WebP", param="messages"
        )
    return {"format": image_format, "source": {"bytes": data}}
