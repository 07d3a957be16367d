"""The asynchronous client of the openai package."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Literal

from checks import LONG, SETTINGS, check, equal, user
from openai import AsyncOpenAI, BadRequestError
from pydantic import BaseModel, ConfigDict

ASKED: dict[str, Any] = {"model": SETTINGS.chat_model, "temperature": 0, "max_tokens": 3}


def connect() -> AsyncOpenAI:
    return AsyncOpenAI(base_url=SETTINGS.url, api_key="unused", timeout=60, max_retries=0)


def only(word: str) -> dict[str, Any]:
    """Of a request to which the answer can be nothing but this."""
    format = {"type": "json_schema", "json_schema": {"name": "word", "schema": {"enum": [word]}}}
    return ASKED | {"messages": user(), "max_tokens": 16, "response_format": format}


@check
async def at_the_same_time() -> None:
    """Answers, streams and refusals do not get into each other."""
    async with connect() as client:
        create = client.chat.completions.create

        async def streamed(word: str) -> str:
            ids: set[str] = set()
            text = ""
            async for chunk in await create(stream=True, **only(word)):
                ids.add(chunk.id)
                text += "".join(choice.delta.content or "" for choice in chunk.choices)
            equal(text, f'"{word}"')
            equal(len(ids), 1)
            return "".join(ids)

        async def whole(word: str) -> str:
            reply = await create(**only(word))
            equal(reply.choices[0].message.content, f'"{word}"')
            return str(reply.id)

        async def refused() -> str:
            try:
                await create(messages=user("word " * (SETTINGS.context_length + 100)), **ASKED)
            except BadRequestError as error:
                equal(error.code, "context_length_exceeded")
                return error.request_id or ""
            raise AssertionError("was not refused")

        names = await asyncio.gather(streamed("one"), streamed("two"), whole("three"), whole("four"), refused())
    assert all(names), names
    equal(len(set(names)), 5)


class City(BaseModel):
    model_config = ConfigDict(extra="forbid")

    city: Literal["Paris", "Rome"]


@check
async def parsed_stream() -> None:
    asked = ASKED | {"max_tokens": 64}
    async with (
        connect() as client,
        client.chat.completions.stream(messages=user(), response_format=City, **asked) as events,
    ):
        seen = [event async for event in events]
        final = await events.get_final_completion()
    deltas = [event.delta for event in seen if event.type == "content.delta"]
    assert len(deltas) > 1, seen
    equal(seen[-1].type, "content.done")
    (choice,) = final.choices
    equal(choice.message.content, "".join(deltas))
    assert isinstance(choice.message.parsed, City), choice
    equal(choice.finish_reason, "stop")


@check
async def cancelled() -> None:
    """A call that is given up frees the model at once."""
    started = time.monotonic()
    async with connect() as client:
        for _ in range(4):
            call = asyncio.create_task(client.chat.completions.create(**LONG))
            await asyncio.sleep(0.15)
            assert not call.done()
            call.cancel()
        reply = await client.chat.completions.create(messages=user(), **ASKED)
        equal(reply.choices[0].finish_reason, "length")
    assert time.monotonic() - started < 12, time.monotonic() - started
