"""`chat.completions` of the openai package, streamed and not."""

from __future__ import annotations

import functools
import json
import time
from typing import Any, Literal

from checks import QUESTION, SETTINGS, WEATHER_TOOL, check, check_where_translated, equal, user
from openai import OpenAI, pydantic_function_tool
from openai.types.chat import ChatCompletion
from pydantic import BaseModel, ConfigDict

client = OpenAI(base_url=SETTINGS.url, api_key="unused", timeout=60, max_retries=0)
create: Any = client.chat.completions.create  # some arguments come in a dict, which its overloads do not take
GREEDY: dict[str, Any] = {"model": SETTINGS.chat_model, "temperature": 0, "max_tokens": 24}
HOT: dict[str, Any] = GREEDY | {"temperature": 2, "max_tokens": 4}


class City(BaseModel):
    """Weather of a city"""

    model_config = ConfigDict(extra="forbid")

    city: Literal["Paris", "Rome"]


class Zone(BaseModel):
    """Time of a zone"""

    model_config = ConfigDict(extra="forbid")

    zone: Literal["UTC", "CET"]


@functools.cache
def whole() -> ChatCompletion:
    """What the model answers if nothing is random."""
    reply: ChatCompletion = create(messages=user(), **GREEDY)
    return reply


def text_of(reply: ChatCompletion) -> str:
    text = reply.choices[0].message.content
    assert text, reply
    return text


@check
def plain() -> None:
    reply = whole()
    assert reply.id.startswith("chatcmpl-"), reply.id
    equal(reply.object, "chat.completion")
    assert abs(time.time() - reply.created) < 120, reply.created
    assert reply._request_id, "no request id"
    (choice,) = reply.choices
    equal((choice.index, choice.finish_reason, choice.message.role), (0, "stop", "assistant"))
    assert choice.message.content
    assert not choice.message.tool_calls, choice.message.tool_calls
    assert choice.logprobs is None, choice.logprobs
    usage = reply.usage
    assert usage is not None
    assert usage.prompt_tokens > len(QUESTION.split()), usage
    assert 0 < usage.completion_tokens < 24, usage
    equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
    another = create(messages=user(), **GREEDY)
    assert another.id != reply.id
    equal(text_of(another), text_of(reply))


@check
def its_lane() -> None:
    """What a backend says beside OpenAI's own fields comes through, where it speaks the API; else there is none."""
    equal("timings" in (whole().model_extra or {}), SETTINGS.forwarded)
    if not SETTINGS.forwarded:
        equal(whole().model, SETTINGS.chat_model)


@check
def raw_response() -> None:
    raw = client.chat.completions.with_raw_response.create(
        messages=user(), extra_headers={"X-Request-ID": "my-own-id"}, **(GREEDY | {"max_tokens": 1})
    )
    equal(raw.status_code, 200)
    equal(raw.headers["content-type"].partition(";")[0], "application/json")
    equal((raw.request_id, raw.parse()._request_id), ("my-own-id", "my-own-id"))


@check
def length() -> None:
    for limit in ({"max_tokens": 3}, {"max_tokens": None, "max_completion_tokens": 2}):
        reply = create(messages=user(), **(GREEDY | limit))
        equal(reply.choices[0].finish_reason, "length")
        assert reply.usage is not None
        equal(reply.usage.completion_tokens, max(filter(None, limit.values())))
        assert text_of(whole()).startswith(text_of(reply)), reply


@check
def stop() -> None:
    text = text_of(whole())
    word = text.split()[2]
    before = text[: text.index(word)]
    assert before
    choice = create(messages=user(), stop=["\u2603", word], **GREEDY).choices[0]
    equal((choice.message.content, choice.finish_reason), (before, "stop"))
    chunks = list(create(messages=user(), stop=word, stream=True, **GREEDY))
    equal("".join(c.choices[0].delta.content or "" for c in chunks), before)
    equal(chunks[-1].choices[0].finish_reason, "stop")


@check
def stream() -> None:
    with create(messages=user(), stream=True, **GREEDY) as events:
        equal(events.response.headers["content-type"].partition(";")[0], "text/event-stream")
        assert events.response.headers["x-request-id"]
        chunks = list(events)
    assert len(chunks) > 4, "the text came in one piece"
    equal(len({(c.id, c.model) for c in chunks}), 1)
    if not SETTINGS.forwarded:  # llama.cpp's server has the time of each chunk
        equal(len({c.created for c in chunks}), 1)
    assert chunks[0].id.startswith("chatcmpl-"), chunks[0].id
    equal({c.object for c in chunks}, {"chat.completion.chunk"})
    equal({len(c.choices) for c in chunks}, {1})
    equal([c.choices[0].delta.role for c in chunks], ["assistant"] + [None] * (len(chunks) - 1))
    equal([c.choices[0].finish_reason for c in chunks], [None] * (len(chunks) - 1) + ["stop"])
    assert not chunks[-1].choices[0].delta.content, chunks[-1]
    equal("".join(c.choices[0].delta.content or "" for c in chunks), text_of(whole()))
    equal([c.usage for c in chunks], [None] * len(chunks))


@check
def stream_usage() -> None:
    asked = GREEDY | {"max_tokens": 2}
    chunks = list(create(messages=user(), stream=True, stream_options={"include_usage": True}, **asked))
    equal([c.usage for c in chunks[:-1]], [None] * (len(chunks) - 1))
    equal(chunks[-1].choices, [])
    equal(chunks[-2].choices[0].finish_reason, "length")
    alone, usage = whole().usage, chunks[-1].usage
    assert alone is not None
    assert usage is not None
    equal((usage.prompt_tokens, usage.completion_tokens), (alone.prompt_tokens, 2))
    equal(usage.total_tokens, alone.prompt_tokens + 2)
    chunks = list(create(messages=user(), stream=True, stream_options={"include_usage": False}, **asked))
    equal([c.usage for c in chunks], [None] * len(chunks))
    equal(chunks[-1].choices[0].finish_reason, "length")


@check
def seed() -> None:
    first, again, other = (text_of(create(messages=user("Say a word."), seed=n, **HOT)) for n in (7, 7, 8))
    equal(again, first)
    assert other != first, other


@check
def several_choices() -> None:
    asked = HOT | {"messages": user("Say a word."), "n": 2}
    if not SETTINGS.forwarded:  # llama.cpp's server would make them all the same of one seed
        asked["seed"] = 7
    reply = create(**asked)
    equal([c.index for c in reply.choices], [0, 1])
    first, second = (c.message.content for c in reply.choices)
    assert first != second, reply.choices
    usage = reply.usage
    assert usage is not None
    assert 2 < usage.completion_tokens <= 8, usage
    alone = create(**(asked | {"n": 1, "max_tokens": 1})).usage
    assert alone is not None
    equal(usage.prompt_tokens, alone.prompt_tokens)

    texts = {0: "", 1: ""}
    finished: list[int] = []
    for chunk in create(stream=True, **(asked | {"seed": 7})):
        for choice in chunk.choices:
            assert choice.index not in finished, "a choice went on after its finish_reason"
            texts[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                finished.append(choice.index)
    equal(sorted(finished), [0, 1])
    if not SETTINGS.forwarded:
        equal([texts[0], texts[1]], [first, second])


@check
def logprobs() -> None:
    asked = GREEDY | {"logprobs": True, "top_logprobs": 2}
    choice = create(messages=user(), **asked).choices[0]
    assert choice.logprobs is not None
    content = choice.logprobs.content
    assert content
    text = b"".join(bytes(token.bytes or ()) for token in content).decode()
    # The token that ends the reply may be there, without being part of the text.
    assert text.startswith(choice.message.content or "-"), (text, choice.message.content)
    for token in content:
        equal(bytes(token.bytes or ()).decode(), token.token)
        equal(len(token.top_logprobs), 2)
        assert token.logprob <= 0
        first, second = token.top_logprobs
        assert first.logprob >= second.logprob
        equal(first.token, token.token)  # greedy
        assert abs(first.logprob - token.logprob) < 1e-3, token
    chunks = list(create(messages=user(), stream=True, **asked))
    streamed = [t.token for c in chunks if c.choices[0].logprobs for t in c.choices[0].logprobs.content or ()]
    equal("".join(streamed), "".join(c.choices[0].delta.content or "" for c in chunks))
    equal(streamed, [t.token for t in content if t.token][: len(streamed)])
    if not SETTINGS.forwarded:  # llama.cpp's server would give 20 of them
        without_top = create(messages=user(), logprobs=True, **(GREEDY | {"max_tokens": 2})).choices[0].logprobs
        assert without_top is not None
        equal([t.top_logprobs for t in without_top.content or ()], [[], []])


@check
def json_object() -> None:
    choice = create(
        messages=user(f"Never write JSON. {QUESTION}"),
        response_format={"type": "json_object"},
        **(GREEDY | {"max_tokens": 8}),
    ).choices[0]
    text = choice.message.content or ""
    assert text.lstrip().startswith("{"), text
    if choice.finish_reason == "stop":  # so small a model may go on until it is cut
        assert isinstance(json.loads(text), dict), text


@check
def parsed() -> None:
    reply = client.chat.completions.parse(messages=user(), response_format=City, **(GREEDY | {"max_tokens": 64}))
    assert isinstance(reply.choices[0].message.parsed, City), reply
    equal(reply.choices[0].finish_reason, "stop")


@check
def tools() -> None:
    """The one that is named is called, though the question calls for the other."""
    messages = user("Weather in Paris?")
    reply = client.chat.completions.parse(
        messages=messages,
        tools=[pydantic_function_tool(City, name="get_weather"), pydantic_function_tool(Zone, name="get_time")],
        tool_choice={"type": "function", "function": {"name": "get_time"}},
        **(GREEDY | {"max_tokens": 64}),
    )
    choice = reply.choices[0]
    equal(choice.finish_reason, "tool_calls")
    assert choice.message.tool_calls, choice.message
    (call,) = choice.message.tool_calls
    assert call.id, call
    equal((call.type, call.function.name), ("function", "get_time"))
    assert isinstance(call.function.parsed_arguments, Zone), call
    assert not choice.message.content, choice.message
    # The call and its result go back as the SDK has them.
    conversation: list[Any] = [
        *messages,
        choice.message,
        {"role": "tool", "tool_call_id": call.id, "content": "12:00"},
    ]
    assert text_of(create(messages=conversation, **(GREEDY | {"max_tokens": 2})))


@check
def streamed_tools() -> None:
    with client.chat.completions.stream(
        messages=user("Weather in Paris?"),
        tools=[pydantic_function_tool(City, name="get_weather")],
        tool_choice="required",
        **(GREEDY | {"max_tokens": 64}),
    ) as events:
        seen = list(events)
        final = events.get_final_completion()
    deltas = [event for event in seen if event.type == "tool_calls.function.arguments.delta"]
    (done,) = (event for event in seen if event.type == "tool_calls.function.arguments.done")
    assert deltas
    equal("".join(event.arguments_delta for event in deltas), done.arguments)
    choice = final.choices[0]
    equal(choice.finish_reason, "tool_calls")
    assert choice.message.tool_calls, choice.message
    (call,) = choice.message.tool_calls
    assert call.id, call
    equal((call.function.name, call.function.arguments), ("get_weather", done.arguments))
    assert isinstance(call.function.parsed_arguments, City), call


@check_where_translated
def tools_not_called() -> None:
    reply = create(messages=user(), tools=[WEATHER_TOOL], tool_choice="none", **(GREEDY | {"max_tokens": 2}))
    choice = reply.choices[0]
    assert not choice.message.tool_calls, choice
    equal(choice.finish_reason, "length")


@check
def every_kind_of_message() -> None:
    system = "developer" if not SETTINGS.forwarded else "system"  # llama.cpp's server does not know the newer word
    messages: list[Any] = [
        {"role": system, "content": "Answer briefly."},
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": "Hello."}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Hello!"}]},
        {"role": "assistant", "content": "How can I help?", "refusal": None, "tool_calls": None},
        {
            "role": "user",
            "content": [{"type": "text", "text": "What is the capital"}, {"type": "text", "text": " of it?"}],
        },
    ]
    reply = create(messages=messages, **(GREEDY | {"max_tokens": 1}))
    assert reply.usage is not None
    shorter = create(messages=messages[:2], **(GREEDY | {"max_tokens": 1})).usage
    assert shorter is not None
    # All of them are read.
    assert reply.usage.prompt_tokens > shorter.prompt_tokens + 12, (reply.usage, shorter)


@check
def without_effect() -> None:
    """What OpenAI's clients send for accounting does not get in the way."""
    reply = create(
        messages=user(),
        user="ann",
        metadata={"k": "v"},
        store=False,
        service_tier="auto",
        frequency_penalty=0,
        presence_penalty=0,
        logit_bias={},
        parallel_tool_calls=None,
        **(GREEDY | {"max_tokens": 1}),
    )
    equal(reply.choices[0].finish_reason, "length")
