"""Converse and ConverseStream for the stand-in of Bedrock: requests -> what llama.cpp's server takes, replies back."""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from backends.bedrock_wire import event, validation
from backends.held_calls import call_schema

STOPS = {"eos": "end_turn", "word": "stop_sequence", "limit": "max_tokens"}
"""llama.cpp's word for why it ended -> Bedrock's."""
_IMAGES = {"png": b"\x89PNG", "jpeg": b"\xff\xd8\xff", "gif": b"GIF8", "webp": b"RIFF"}


class RefusedError(Exception):
    """The request is refused with `answer`."""

    def __init__(self, answer: Response) -> None:
        self.answer = answer


def prompt_messages(body: Any) -> list[dict[str, Any]]:
    """The conversation as llama.cpp's template takes it. Raises for what Bedrock refuses."""
    out = [{"role": "system", "content": block["text"]} for block in body.get("system") or ()]
    roles = [message["role"] for message in body["messages"]]
    if not roles or roles[0] != "user":
        raise RefusedError(validation("A conversation must start with a user message. Try again with one."))
    if any(one == other for one, other in itertools.pairwise(roles)):
        raise RefusedError(validation("A conversation must alternate between user and assistant roles."))
    pending: set[str] = set()
    for place, message in enumerate(body["messages"]):
        blocks = message["content"]
        where = f"messages.{place}.content"
        answered = {block["toolResult"]["toolUseId"] for block in blocks if "toolResult" in block}
        if answered != pending:
            expected = f"Expected toolResult blocks at {where} for the following Ids: {', '.join(sorted(pending))}"
            raise RefusedError(validation(expected))
        pending = {block["toolUse"]["toolUseId"] for block in blocks if "toolUse" in block}
        if (answered or pending) and "toolConfig" not in body:
            message = "The toolConfig field must be defined when using toolUse and toolResult content blocks."
            raise RefusedError(validation(message))
        for index, block in enumerate(blocks):
            out += _engine_message(message["role"], block, f"{where}.{index}")
    return out


def _engine_message(role: str, block: Any, where: str) -> list[dict[str, Any]]:
    match block:
        case {"text": str(text)}:
            if not text.strip():
                blank = f"The text field in the ContentBlock object at {where} is blank. Add text to the text field."
                raise RefusedError(validation(blank))
            return [{"role": role, "content": text}]
        case {"image": {"format": kind, "source": {"bytes": data}}}:
            try:
                good = base64.b64decode(data, validate=True).startswith(_IMAGES[kind])
            except (KeyError, binascii.Error):
                good = False
            if not good:
                raise RefusedError(validation(f"The image at {where} is no {kind}."))
            return []
        case {"toolUse": {"toolUseId": _, "name": str(name), "input": dict(given)}}:
            return [{"role": role, "content": json.dumps({"name": name, "arguments": given})}]
        case {"toolResult": {"toolUseId": str(key), "content": list(inner)}}:
            answers = [m for i, b in enumerate(inner) for m in _engine_message("tool", b, f"{where}.{i}")]
            return [{**answer, "tool_call_id": key} for answer in answers]
    raise RefusedError(validation(f"The content block at {where} is not known here."))


def sampling(body: Any) -> dict[str, Any]:
    config = body.get("inferenceConfig") or {}
    for name, least, most in (("temperature", 0, 1), ("topP", 0, 1), ("maxTokens", 1, 2**31)):
        if name in config and not least <= config[name] <= most:
            message = f"Value '{config[name]}' at 'inferenceConfig.{name}' failed to satisfy constraint: Member must "
            raise RefusedError(validation(message + f"have value between {least} and {most}"))
    more = body.get("additionalModelRequestFields") or {}
    job = {
        "n_predict": config.get("maxTokens", 512),
        "temperature": config.get("temperature", 1.0),
        "top_p": config.get("topP", 1.0),
        "top_k": more.get("top_k", more.get("inferenceConfig", {}).get("topK", 0)),
        "stop": config.get("stopSequences") or [],
    }
    text_format = (body.get("outputConfig") or {}).get("textFormat")
    if text_format is not None:
        job["json_schema"] = json.loads(text_format["structure"]["jsonSchema"]["schema"])
    return job


def forced_tools(body: Any) -> list[Any]:
    """The tools of which one must be called."""
    config = body.get("toolConfig") or {}
    specs = [tool["toolSpec"] for tool in config.get("tools") or ()]
    choice = config.get("toolChoice") or {"auto": {}}
    if "any" in choice:
        return specs
    return [spec for spec in specs if spec["name"] == choice["tool"]["name"]] if "tool" in choice else []


def call_of(specs: list[Any]) -> dict[str, Any]:
    """The JSON schema of a call of one of these tools."""
    return call_schema((spec["name"], spec["inputSchema"]["json"]) for spec in specs)


def reply_content(text: str, reason: str, tools: list[Any]) -> tuple[list[dict[str, Any]], str]:
    """The content of the reply, and why it ended."""
    if not tools:
        return [{"text": text}], reason
    if reason != "end_turn":
        return [], reason
    call = json.loads(text)
    use = {"toolUseId": f"tooluse_{uuid.uuid4().hex[:22]}", "name": call["name"], "input": call["arguments"]}
    return [{"toolUse": use}], "tool_use"


def call_events(content: list[dict[str, Any]], reason: str, counts: dict[str, Any]) -> bytes:
    out = event("messageStart", {"role": "assistant"})
    for index, block in enumerate(content):
        use = dict(block["toolUse"])
        text = json.dumps(use.pop("input"))
        place = {"contentBlockIndex": index}
        out += event("contentBlockStart", {**place, "start": {"toolUse": use}})
        for start in range(0, len(text), 7):
            out += event("contentBlockDelta", {**place, "delta": {"toolUse": {"input": text[start : start + 7]}}})
        out += event("contentBlockStop", place)
    return out + event("messageStop", {"stopReason": reason}) + event("metadata", counts)


def counts(reply: Mapping[str, Any], started: float) -> dict[str, Any]:
    asked, made = reply["tokens_evaluated"], reply["tokens_predicted"]
    usage = {"inputTokens": asked, "outputTokens": made, "totalTokens": asked + made}
    return {"usage": usage, "metrics": {"latencyMs": round((time.monotonic() - started) * 1000)}}
