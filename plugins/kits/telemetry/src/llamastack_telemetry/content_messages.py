"""Messages of requests and replies in the shape of the GenAI conventions: a role, and parts.

Shape: https://github.com/open-telemetry/semantic-conventions-genai, v0.1.0, the schemas of `gen_ai.input.messages` and
`gen_ai.output.messages`. Images and other media are replaced by a note of their type and size.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pydantic_core
from pydantic import BaseModel

Part = dict[str, Any]
Message = dict[str, Any]
_DATA_URL = re.compile(r"data:([\w.+/-]{1,100})?(?:;[\w=.-]{1,100})*;base64,([A-Za-z0-9+/=_-]*)")
_ROLES = {"ipython": "tool", "function": "tool", "developer": "system"}
_DATA = b"data:"


def input_messages(method: str, request: object) -> list[Message]:
    """The messages of a request. request: the parsed body in OpenAI's form, or the argument of a native call."""
    asked = _plain(request)
    if isinstance(asked, Mapping) and ("messages" in asked or "prompt" in asked):
        asked = asked.get("messages") if method == "chat_completion" else asked.get("prompt")
    if method != "chat_completion":
        texts = asked if isinstance(asked, list) and all(isinstance(each, str) for each in asked) else [asked]
        return [{"role": "user", "parts": _parts(text)} for text in texts]
    return [_message(each) for each in asked if isinstance(each, Mapping)] if isinstance(asked, list) else []


def output_messages(reply: object) -> list[Message]:
    """The messages of a reply: whole, or the pieces of a stream in a list.

    Raises ValueError for a reply that is no JSON.
    """
    if isinstance(reply, list):
        return _of_pieces(reply)
    whole = _plain(pydantic_core.from_json(reply) if isinstance(reply, bytes) else reply)
    if not isinstance(whole, Mapping):
        return []
    native = whole.get("completion_message")
    if isinstance(native, Mapping):
        return [_output(_message(native), native.get("stop_reason"))]
    return [
        _output(
            _message(_mapping(choice.get("message")) or {"content": choice.get("text")}), choice.get("finish_reason")
        )
        for choice in _mappings(whole.get("choices"))
    ]


def without_data_urls(text: str) -> str:
    """The text with a note in the place of each data URL."""
    if "data:" not in text:
        return text
    return _DATA_URL.sub(lambda found: _note(found[1] or "data", len(found[2]) * 3 // 4), text)


def _note(kind: str, size: int | None = None) -> str:
    return f"[{kind}]" if size is None else f"[{kind}, {size} bytes]"


def _mapping(value: object) -> Mapping[str, Any]:
    """Clients and backends may write anything where an object should be."""
    return value if isinstance(value, Mapping) else {}


def _mappings(value: object) -> list[Mapping[str, Any]]:
    """The same for a list of objects."""
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _plain(value: object) -> Any:
    """Native objects as JSON has them."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _output(message: Message, finish_reason: object) -> Message:
    return {**message, "role": "assistant", "finish_reason": str(finish_reason) if finish_reason else "unknown"}


def _message(given: Mapping[str, Any]) -> Message:
    role = str(given.get("role") or "user")
    role = _ROLES.get(role, role)
    if role == "tool":
        answer = {"type": "tool_call_response", "response": _text_of(given.get("content"))}
        own_id = given.get("tool_call_id") or given.get("call_id")
        return {"role": role, "parts": [{**answer, "id": own_id} if own_id else answer]}
    parts = [*_parts(given.get("content")), *_parts(given.get("context")), *_parts(given.get("refusal"))]
    parts += [_tool_call(call) for call in _mappings(given.get("tool_calls"))]
    return {"role": role, "parts": parts}


def _tool_call(call: Mapping[str, Any]) -> Part:
    function = call.get("function")
    if isinstance(function, Mapping):
        own_id, name, arguments = call.get("id"), function.get("name"), function.get("arguments")
    else:
        own_id, name, arguments = call.get("call_id"), call.get("tool_name"), call.get("arguments")
    return {"type": "tool_call", "id": own_id, "name": name, "arguments": arguments}


def _parts(content: object) -> list[Part]:
    items = content if isinstance(content, list) else [content]
    return [part for item in items if (part := _part(item)) is not None]


def _part(item: object) -> Part | None:
    if isinstance(item, str):
        return {"type": "text", "content": item} if item else None
    if not isinstance(item, Mapping):
        return None if item is None else {"type": "text", "content": _note(type(item).__name__)}
    if isinstance(item.get("text"), str):
        return {"type": "text", "content": item["text"]}
    if isinstance(item.get("refusal"), str):
        return {"type": "text", "content": item["refusal"]}
    return _medium(item)


def _medium(item: Mapping[str, Any]) -> Part:
    """An image, a sound, a file. Only an address is kept as it is."""
    kind = str(item.get("type") or "image").removesuffix("_url").removeprefix("input_")
    held = item.get(f"{kind}_url") or item.get(f"input_{kind}") or item.get(kind) or item.get("image")
    address = held.get("url") or held.get("uri") if isinstance(held, Mapping) else held
    if isinstance(address, str) and address.startswith(("http://", "https://")):
        return {"type": "uri", "modality": kind, "uri": address}
    if isinstance(address, str) and address.startswith("data:"):
        return {"type": "blob", "modality": kind, "content": without_data_urls(address)}
    data = (
        next((len(each) for each in held.values() if isinstance(each, str)), None)
        if isinstance(held, Mapping)
        else None
    )
    return {"type": "blob", "modality": kind, "content": _note(kind, None if data is None else data * 3 // 4)}


def _text_of(content: object) -> str:
    return "\n".join(str(part.get("content") or part.get("uri") or "") for part in _parts(content))


# ---- streams ---------------------------------------------------------------------------------------------------------


class _Choice:
    """One reply of a stream, put together."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.calls: dict[int, dict[str, Any]] = {}
        self.finish: object = None

    def add_openai(self, choice: Mapping[str, Any]) -> None:
        delta = choice.get("delta")
        said = delta if isinstance(delta, Mapping) else {"content": choice.get("text")}
        for text in (said.get("content"), said.get("refusal")):
            if isinstance(text, str):
                self.texts.append(text)
        for call in _mappings(said.get("tool_calls")):
            self._add_call(call)
        self.finish = choice.get("finish_reason") or self.finish

    def _add_call(self, call: Mapping[str, Any]) -> None:
        place = call.get("index")
        known = self.calls.setdefault(
            place if isinstance(place, int) else 0, {"id": None, "name": None, "arguments": ""}
        )
        function = call.get("function")
        known["id"] = call.get("id") or known["id"]
        if isinstance(function, Mapping):
            known["name"] = function.get("name") or known["name"]
            more = function.get("arguments")
            known["arguments"] += more if isinstance(more, str) else ""

    def add_native(self, piece: Mapping[str, Any]) -> None:
        delta = piece.get("delta")
        if isinstance(delta, str):
            self.texts.append(delta)
        elif isinstance(delta, Mapping) and isinstance(delta.get("content"), Mapping):
            self.calls[len(self.calls)] = {**_tool_call(delta["content"])}
        self.finish = piece.get("stop_reason") or self.finish

    def message(self) -> Message:
        text = "".join(self.texts)
        parts: list[Part] = [{"type": "text", "content": text}] if text else []
        parts += [{"type": "tool_call", **call} for _, call in sorted(self.calls.items())]
        return _output({"parts": parts}, self.finish)


def _of_pieces(pieces: list[object]) -> list[Message]:
    choices: dict[int, _Choice] = {}
    for piece in _objects_in(pieces):
        if "choices" in piece:
            for choice in _mappings(piece["choices"]):
                place = choice.get("index")
                choices.setdefault(place if isinstance(place, int) else 0, _Choice()).add_openai(choice)
        elif isinstance(event := piece.get("event", piece), Mapping):
            choices.setdefault(0, _Choice()).add_native(event)
    return [choice.message() for _, choice in sorted(choices.items())]


def _objects_in(pieces: list[object]) -> Iterator[Mapping[str, Any]]:
    """The pieces as JSON has them; those in bytes are server-sent events, which may be cut anywhere."""
    written = b"".join(piece for piece in pieces if isinstance(piece, bytes))
    yield from _events_in(written.splitlines())
    for piece in pieces:
        plain = None if isinstance(piece, bytes) else _plain(piece)
        if isinstance(plain, Mapping):
            yield plain


def _events_in(lines: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        if not line.startswith(_DATA):
            continue
        try:
            found = pydantic_core.from_json(line[len(_DATA) :])
        except ValueError:
            continue  # the end marker, or a line that the end of a stream has cut
        if isinstance(found, Mapping):
            yield found
