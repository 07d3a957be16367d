"""`litellm` as a client."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import litellm
from checks import CITY_SCHEMA, SETTINGS, WEATHER_TOOL, check, check_where_translated, equal, raised, user

AT: dict[str, Any] = {"api_base": SETTINGS.url, "api_key": "unused", "timeout": 60, "max_retries": 0}
ASKED: dict[str, Any] = {"model": f"openai/{SETTINGS.chat_model}", "temperature": 0, "max_tokens": 4, **AT}
client: Any = litellm  # whose types leave open what it answers
client.telemetry = False


@check
async def completion() -> None:
    whole = client.completion(messages=user(), **ASKED)
    choice = whole.choices[0]
    assert choice.message.content
    equal(choice.finish_reason, "length")
    assert whole.id.startswith("chatcmpl-"), whole.id
    assert whole.usage.prompt_tokens > 0
    equal(whole.usage.completion_tokens, 4)

    options = {"include_usage": True}
    stream = await client.acompletion(messages=user(), stream=True, stream_options=options, **ASKED)
    chunks = [chunk async for chunk in stream]
    (usage,) = (chunk.usage for chunk in chunks if getattr(chunk, "usage", None))
    equal((usage.prompt_tokens, usage.completion_tokens), (whole.usage.prompt_tokens, 4))
    equal("".join(c.choices[0].delta.content or "" for c in chunks if c.choices), choice.message.content)
    equal([c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason], ["length"])
    built = client.stream_chunk_builder(chunks, messages=user())
    equal(built.choices[0].message.content, choice.message.content)


@check
def text_completion() -> None:
    asked = ASKED | {"model": f"text-completion-openai/{SETTINGS.chat_model}"}
    reply = client.text_completion(prompt="The capital of France is", **asked)
    assert reply.choices[0].text, reply
    equal(reply.choices[0].finish_reason, "length")


@check_where_translated
def tools() -> None:
    chunks = list(
        client.completion(
            messages=user("Weather in Paris?"),
            tools=[WEATHER_TOOL],
            tool_choice="required",
            stream=True,
            **(ASKED | {"max_tokens": 64}),
        )
    )
    choice = client.stream_chunk_builder(chunks).choices[0]
    equal(choice.finish_reason, "tool_calls")
    (call,) = choice.message.tool_calls
    equal((call.type, call.function.name), ("function", "get_weather"))
    equal(list(json.loads(call.function.arguments)), ["city"])
    assert call.id


@check
def json_schema() -> None:
    format = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY_SCHEMA, "strict": True}}
    reply = client.completion(messages=user(), response_format=format, **(ASKED | {"max_tokens": 64}))
    equal(list(json.loads(reply.choices[0].message.content)), ["city"])


@check
def embedding() -> None:
    reply = client.embedding(model=f"openai/{SETTINGS.embedding_model}", input=["a llama", "an alpaca"], **AT)
    equal([len(entry["embedding"]) for entry in reply.data], [SETTINGS.dimension] * 2)
    equal([entry["index"] for entry in reply.data], [0, 1])
    assert reply.usage.prompt_tokens > 0, reply.usage


@check
def moderation() -> None:
    reply = client.moderation(input="Llamas spit.", model=SETTINGS.shield, api_base=SETTINGS.url, api_key="unused")
    equal([result.flagged for result in reply.results], [True])


@check
def refusals() -> None:
    too_long = user("word " * (SETTINGS.context_length + 100))
    cases: list[tuple[Any, dict[str, Any]]] = [
        (client.NotFoundError, {"model": "openai/nope"}),
        (client.ContextWindowExceededError, {"messages": too_long}),
    ]
    if not SETTINGS.forwarded:  # where the backend judges
        cases.append((client.BadRequestError, {"top_p": 1.5}))
    for kind, asked in cases:
        error = raised(kind, partial(client.completion, **({"messages": user()} | ASKED | asked)))
        equal(type(error), kind)
