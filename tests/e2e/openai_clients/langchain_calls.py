"""`langchain-openai`."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import openai
from checks import QUESTION, SETTINGS, check, check_where_translated, equal, raised
from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, ConfigDict, SecretStr


def chat(**settings: Any) -> ChatOpenAI:
    defaults: dict[str, Any] = {"model": SETTINGS.chat_model, "temperature": 0, "max_completion_tokens": 4}
    return ChatOpenAI(base_url=SETTINGS.url, api_key=SecretStr("unused"), timeout=60, **(defaults | settings))


class City(BaseModel):
    """A city"""

    model_config = ConfigDict(extra="forbid")

    city: Literal["Paris", "Rome"]


@tool
def get_weather(city: Literal["Paris", "Rome"]) -> str:
    """Weather of a city"""
    return f"Sunny in {city}."


@check
def invoke_and_stream() -> None:
    asked = [SystemMessage("Answer briefly."), HumanMessage(QUESTION)]
    reply = chat().invoke(asked)
    assert reply.content
    equal(reply.response_metadata["finish_reason"], "length")
    assert reply.response_metadata["model_name"], reply.response_metadata
    assert reply.usage_metadata is not None
    equal(reply.usage_metadata["output_tokens"], 4)
    assert reply.usage_metadata["input_tokens"] > 0
    equal(reply.usage_metadata["total_tokens"], reply.usage_metadata["input_tokens"] + 4)

    chunks = list(chat(stream_usage=True).stream(asked))
    assert len([chunk for chunk in chunks if chunk.content]) > 2, chunks
    merged: Any = chunks[0]
    for chunk in chunks[1:]:
        merged += chunk
    assert isinstance(merged, AIMessageChunk)
    equal(merged.content, reply.content)
    equal(merged.response_metadata["finish_reason"], "length")
    assert merged.usage_metadata is not None
    counts = ("input_tokens", "output_tokens", "total_tokens")
    usage: dict[str, Any] = dict(merged.usage_metadata)
    equal([usage[name] for name in counts], [dict(reply.usage_metadata)[name] for name in counts])


# The class keeps its connections beyond the event loop that they belong to, so once is all it can be done.
@check_where_translated
async def asynchronous() -> None:
    reply = await chat().ainvoke(QUESTION)
    assert reply.content
    equal("".join([str(chunk.content) async for chunk in chat().astream(QUESTION)]), reply.content)


@check
def parameters() -> None:
    """`stop`, `seed`, `top_p`, `logprobs`, `n`, as the class sends them."""
    whole = str(chat().invoke(QUESTION).content)
    word = whole.split()[2]
    reply = chat(stop_sequences=[word], seed=1, top_p=1.0, logprobs=True, top_logprobs=2).invoke(QUESTION)
    equal(reply.content, whole[: whole.index(word)])
    equal(reply.response_metadata["finish_reason"], "stop")
    assert reply.response_metadata["logprobs"]["content"], reply.response_metadata
    several = chat(n=2, temperature=1, max_completion_tokens=1).generate([[HumanMessage(QUESTION)]])
    equal(len(several.generations[0]), 2)


@check_where_translated
def tools() -> None:
    bound = chat(max_completion_tokens=64).bind_tools([get_weather], tool_choice="get_weather")
    asked: list[Any] = [HumanMessage("Weather in Paris?")]
    merged: Any = None
    for chunk in bound.stream(asked):
        merged = chunk if merged is None else merged + chunk
    (call,) = merged.tool_calls
    equal((call["name"], list(call["args"])), ("get_weather", ["city"]))
    assert call["id"], call
    equal(merged.response_metadata["finish_reason"], "tool_calls")
    answer = get_weather.invoke(call)
    assert isinstance(answer, ToolMessage)
    assert chat(max_completion_tokens=1).invoke([*asked, merged, answer]).content  # both go back


@check
def structured_output() -> None:
    found = chat(max_completion_tokens=64).with_structured_output(City).invoke(QUESTION)
    assert isinstance(found, City), found


@check
def embeddings() -> None:
    model = OpenAIEmbeddings(
        model=SETTINGS.embedding_model,
        base_url=SETTINGS.url,
        api_key=SecretStr("unused"),
        check_embedding_ctx_length=False,
    )
    llama, paris, alpaca = model.embed_documents(["A llama spits.", "Paris is a city.", "An alpaca spits."])
    equal(len(llama), SETTINGS.dimension)
    query = model.embed_query("A llama spits.")
    assert math.dist(query, llama) < min(math.dist(query, paris), math.dist(query, alpaca))


def streamed(model: ChatOpenAI) -> list[Any]:
    return list(model.stream(QUESTION))


@check
def refusals() -> None:
    cases: list[tuple[ChatOpenAI, type[openai.APIStatusError]]] = [(chat(model="nope"), openai.NotFoundError)]
    if not SETTINGS.forwarded:  # where the backend judges
        cases.append((chat(top_p=1.5), openai.BadRequestError))
    for model, kind in cases:
        assert raised(kind, partial(model.invoke, QUESTION)).request_id
        assert raised(kind, partial(streamed, model)).request_id
