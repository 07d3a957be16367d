"""The dialect of Text Generation Inference: how its requests differ, and its replies in OpenAI's form.

Source: https://github.com/huggingface/text-generation-inference, router/src/{lib,chat,server,validation}.rs.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from llamastack.provider.streams import closing
from llamastack_adapters.event_streams import EventStream
from llamastack_adapters.openai_dialect import OpenAIForm, ToolCallAssembler, unknown_field
from llamastack_provider_tgi.stops import without_stop

PENALTY = "repetition_penalty"
OWN_TEXT_FIELDS = frozenset({"adapter_id", "truncate", "typical_p", "watermark"})
"""Parameters that only Text Generation Inference has, for text completions; its chats have none."""
_T = TypeVar("_T")


def chat_arguments(body: dict[str, Any], *, tgi: bool) -> dict[str, Any]:
    """The arguments of the SDK's `chat_completion` for a request in the OpenAI dialect.

    tgi: whether the server is certain to be Text Generation Inference, whose forms may differ from OpenAI's.
    """
    arguments = {**body, "messages": list(_messages(body["messages"], tgi=tgi))}
    if arguments.get("top_p", 0.0) >= 1.0:
        del arguments["top_p"]  # all tokens: here the parameter is left out
    if PENALTY in arguments:
        # A chat's presence_penalty is the repetition penalty, moved down by two.
        arguments["presence_penalty"] = arguments.pop(PENALTY) - 2.0
    return arguments


def _messages(messages: Sequence[dict[str, Any]], *, tgi: bool) -> Iterator[dict[str, Any]]:
    for message in messages:
        content = message.get("content")
        if isinstance(content, list) and all(part["type"] == "text" for part in content):
            # The server would join the parts without a separator.
            content = "\n".join(part["text"] for part in content)
        message = {**message, "content": content}
        if "tool_calls" in message and (tgi or not content):
            # A message has either content or tool calls; the server would ignore the other.
            if content:
                yield {"role": message["role"], "content": content}
            del message["content"]
        yield message


def text_arguments(form: OpenAIForm) -> dict[str, Any]:
    """The arguments of the SDK's `text_generation`."""
    fields = form.fields
    for name in form.extra:
        if name not in OWN_TEXT_FIELDS:
            raise unknown_field(name)
    greedy = fields.get("temperature") == 0 and not fields.keys() & {"top_p", "top_k"}
    top_p = fields.get("top_p", 1.0)
    most = fields.get("logprobs")
    arguments: dict[str, Any] = {
        "details": True,
        "decoder_input_details": False,
        "return_full_text": False,
        # The server refuses a temperature of zero: greedy is to leave sampling out.
        "do_sample": not greedy and fields.get("temperature") != 0,
        "temperature": fields.get("temperature") or None,
        "top_p": top_p if top_p < 1 else None,
        "top_k": fields.get("top_k") or None,
        "max_new_tokens": fields.get("max_tokens"),
        PENALTY: fields.get(PENALTY),
        "stop": fields.get("stop"),
        "seed": fields.get("seed"),
        "top_n_tokens": most or None,
        **form.extra,
    }
    if form.json_schema is not None:
        # As text, because the SDK removes nulls from an object.
        arguments["grammar"] = {"type": "json", "value": json.dumps(form.json_schema)}
    return arguments


def chat_reply(reply: Mapping[str, Any], stops: Sequence[str]) -> Mapping[str, Any]:
    """A whole chat completion in OpenAI's form."""
    for choice in _objects(reply.get("choices")):
        message = choice.get("message")
        if not isinstance(message, dict):
            continue
        finish, text = choice.get("finish_reason"), message.get("content")
        if isinstance(text, str):
            message["content"] = kept = without_stop(text, finish, stops)
            if kept != text and choice.get("logprobs"):
                places = choice["logprobs"]["content"]
                choice["logprobs"]["content"] = list(_up_to(len(kept), places, lambda place: place["token"]))
        if message.get("tool_calls"):
            choice["finish_reason"] = _with_calls(finish)
    return reply


async def chat_chunks(chunks: EventStream[Mapping[str, Any]]) -> AsyncIterator[Mapping[str, Any]]:
    """The chunks of a chat completion in OpenAI's form.

    The server sends no finish reason for a tool call, so one is added when the arguments are complete.
    """
    calls = ToolCallAssembler()
    finished = has_said = False
    async with closing(chunks):
        async for chunk in chunks:
            for choice in _objects(chunk.get("choices")):
                delta = choice.get("delta")
                if isinstance(delta, dict):
                    has_said = has_said or bool(delta.get("content"))
                    calls.add(delta)
                if choice.get("finish_reason"):
                    finished = True
                    choice["finish_reason"] = _with_calls(choice["finish_reason"]) if calls else choice["finish_reason"]
            yield chunk
    if finished:
        return
    made = calls.finish(regular=True)
    if not made.failures and (made.calls or (chunks.done and has_said)):
        yield {"choices": [{"delta": {}, "finish_reason": "tool_calls" if calls else "stop"}]}


def _with_calls(finish: object) -> object:
    return "tool_calls" if finish in ("stop", "eos_token", "stop_sequence") else finish


def text_reply(reply: Mapping[str, Any], stops: Sequence[str], *, logprobs: bool) -> Mapping[str, Any]:
    """A generated text as OpenAI's text completion. Raises TypeError or KeyError for another form."""
    details = reply["details"]
    finish = details["finish_reason"]
    text = without_stop(reply["generated_text"], finish, stops)
    choice: dict[str, Any] = {"text": text, "finish_reason": finish}
    if logprobs:
        tops = details.get("top_tokens") or [[]] * len(details["tokens"])
        places = [(token, top) for token, top in zip(details["tokens"], tops, strict=True) if not token["special"]]
        choice["logprobs"] = _logprobs(list(_up_to(len(text), places, lambda place: place[0]["text"])))
    return {"choices": [choice]}


def _up_to(length: int, places: Sequence[_T], text_of: Callable[[_T], str]) -> Iterator[_T]:
    """The tokens that overlap the first `length` characters."""
    for place in places:
        if length <= 0:
            return
        length -= len(text_of(place))
        yield place


async def text_chunks(pieces: AsyncIterator[Mapping[str, Any]], *, logprobs: bool) -> AsyncIterator[Mapping[str, Any]]:
    """The tokens of a stream as chunks of a text completion of OpenAI's."""
    async with closing(pieces):
        async for piece in pieces:
            token, details = piece["token"], piece.get("details")
            special = token["special"]
            choice: dict[str, Any] = {"text": "" if special else token["text"]}
            if logprobs and not special:
                choice["logprobs"] = _logprobs([(token, piece.get("top_tokens") or ())])
            choice["finish_reason"] = details["finish_reason"] if details else None
            yield {"choices": [choice]}


def _logprobs(places: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    return {
        "tokens": [token["text"] for token, _ in places],
        "token_logprobs": [token["logprob"] for token, _ in places],
        "top_logprobs": [{entry["text"]: entry["logprob"] for entry in top} for _, top in places],
    }


def _objects(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
