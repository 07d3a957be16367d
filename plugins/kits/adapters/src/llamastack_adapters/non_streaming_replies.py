"""Replies in OpenAI's form that are no stream: checks, and conversion into the stream that a client asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import SchemaValidator, core_schema

from llamastack.http import sse
from llamastack.http.lone_surrogates import encode_json
from llamastack_adapters.sse_blocks import DONE_EVENT
from llamastack_adapters.surrogate_pairs import decode_json

_BEGINNINGS_OF_EVENTS = (b"data:", b"event:", b"id:", b"retry:", b":")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_ERROR = {"error": core_schema.typed_dict_field(core_schema.any_schema(), required=False)}
_OBJECT = core_schema.typed_dict_schema({}, extra_behavior="ignore")
_CHOICE = core_schema.typed_dict_schema(dict(_ERROR), extra_behavior="ignore")


def _form_with(field: str, items: core_schema.ListSchema) -> SchemaValidator:
    fields = {field: core_schema.typed_dict_field(items, required=True), **_ERROR}
    return SchemaValidator(core_schema.typed_dict_schema(fields, extra_behavior="ignore"))


# They parse all of the JSON but make almost no objects: 2 microseconds for a short chat, 3 to 5 milliseconds for each
# MiB, half of the time that decoding takes.
_FORMS = {
    "choices": _form_with("choices", core_schema.list_schema(_CHOICE, min_length=1)),
    "data": _form_with("data", core_schema.list_schema(_OBJECT)),
}


def has_form(content: bytes, field: str) -> bool:
    """Whether `content` is a JSON object with a list `field` ("choices" or "data"), and without an error in it.

    There must be at least one choice. The list of vectors may be empty.
    """
    try:
        found = _FORMS[field].validate_json(content)
    except ValidationError:
        return False
    if field == "choices" and any(choice.get("error") for choice in found[field]):
        return False
    return not found.get("error")


def looks_whole(beginning: bytes) -> bool:
    """Whether an answer that begins like this is JSON, and not events."""
    return beginning.removeprefix(BYTE_ORDER_MARK).lstrip()[:1] in (b"{", b"[")


def looks_like_events(beginning: bytes) -> bool:
    """Whether an answer that begins like this is server-sent events."""
    start = beginning.removeprefix(BYTE_ORDER_MARK).lstrip()
    return start.startswith(_BEGINNINGS_OF_EVENTS) or not start


def chunks_of(answer: Mapping[str, Any], *, usage_apart: bool) -> Iterator[dict[str, Any]]:
    """The chunks of a stream that equals a whole completion: all of its text at once, then the finish_reason.

    usage_apart: put the usage into its own chunk, as with `stream_options.include_usage`.
    Raises KeyError, TypeError, ValueError or AttributeError if the answer is no completion.
    """
    choices = [dict(choice) for choice in answer["choices"]]
    if not choices:
        raise ValueError("no choices")
    head = {name: value for name, value in answer.items() if name not in ("choices", "usage", "error")}
    if head.get("object") == "chat.completion":
        head["object"] = "chat.completion.chunk"
    usage = {} if answer.get("usage") is None else {"usage": answer["usage"]}
    ends = []
    for place, choice in enumerate(choices):
        choice.setdefault("index", place)
        ends.append({"index": choice["index"], "finish_reason": choice.get("finish_reason")})
        choice["finish_reason"] = None
        if "message" in choice:
            choice["delta"] = _delta(choice.pop("message"))
            ends[-1]["delta"] = {}
        else:
            ends[-1]["text"] = ""
    yield {**head, "choices": choices}
    yield {**head, "choices": ends, **({} if usage_apart else usage)}
    if usage and usage_apart:
        yield {**head, "choices": [], **usage}


def _delta(message: Mapping[str, Any]) -> dict[str, Any]:
    delta = dict(message)
    if delta.get("tool_calls"):
        delta["tool_calls"] = [{"index": place, **call} for place, call in enumerate(delta["tool_calls"])]
    return delta


def events_of(answer: Mapping[str, Any], *, usage_apart: bool) -> bytes:
    """The same as server-sent events, [DONE] included."""
    return b"".join((*_data_events(answer, usage_apart=usage_apart), DONE_EVENT))


def pieces_of_event(data: bytes) -> list[bytes] | None:
    """The events of a stream for an event whose data is a whole chat completion; None for any other event."""
    if b'"delta"' in data or b'"message"' not in data:
        return None
    try:
        answer = decode_json(data)
        if "message" not in answer["choices"][0]:
            return None
        return _data_events(answer, usage_apart=False)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return None


def _data_events(answer: Mapping[str, Any], *, usage_apart: bool) -> list[bytes]:
    """A stream without the event that ends it."""
    return [sse.encode(encode_json(chunk)) for chunk in chunks_of(answer, usage_apart=usage_apart)]


def wants_usage(body: bytes) -> bool:
    """Whether a request asks for a chunk with the usage."""
    if b'"include_usage"' not in body:
        return False
    try:
        return bool(decode_json(body)["stream_options"]["include_usage"])
    except (ValueError, KeyError, TypeError):
        return False
