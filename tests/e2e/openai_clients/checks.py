"""What the scripts share: the settings of their run, and checks that are all made, whichever fail."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """One lane of the server.

    url: of the server, with `/v1`.
    chat_model: its name; forwarded: whether its backend speaks OpenAI's API itself.
    embedding_model, dimension: a model of the same lane, and the length of its vectors.
    context_length: tokens of prompt and reply that the chat model takes.
    shield: what moderations are made by, of texts with the word `spit`.
    owner: id of the provider of the models.
    """

    url: str
    chat_model: str
    forwarded: bool
    embedding_model: str
    dimension: int
    context_length: int
    shield: str
    owner: str


SETTINGS = Settings(**json.loads(os.environ["LANE"]))
QUESTION = "Capital of France?"
CITY_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Weather of a city", "parameters": CITY_SCHEMA},
}
# It cannot end before its limit, which takes half a minute, whatever the model.
LONG: dict[str, Any] = {
    "model": SETTINGS.chat_model,
    "messages": [{"role": "user", "content": "Count."}],
    "temperature": 0,
    "max_tokens": 1500,
    "response_format": {
        "type": "json_schema",
        "json_schema": {
            "name": "numbers",
            "strict": True,
            "schema": {"type": "array", "items": {"type": "integer"}, "minItems": 1000},
        },
    },
}
_checks: list[Callable[[], Any]] = []


def user(text: str = QUESTION) -> list[Any]:
    """A conversation that begins with this."""
    return [{"role": "user", "content": text}]


def check(function: Callable[[], Any]) -> Callable[[], Any]:
    """Add a check, async or not: it fails by raising."""
    _checks.append(function)
    return function


def check_where_translated(function: Callable[[], Any]) -> Callable[[], Any]:
    """Add a check of the lane in which this server, not a backend, makes OpenAI's answers."""
    return function if SETTINGS.forwarded else check(function)


def equal(seen: object, expected: object) -> None:
    """Fail with both values."""
    assert seen == expected, f"{seen!r} is not {expected!r}"


def raised(kind: type[Exception], call: Callable[[], object]) -> Any:
    """The error, which is of this kind."""
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


def make_checks() -> tuple[int, int]:
    """Make all checks in their order; gives how many there were, and how many failed."""
    failures = 0
    for function in _checks:
        started = time.monotonic()
        try:
            if inspect.iscoroutinefunction(function):
                asyncio.run(function())
            else:
                function()
        except Exception:
            failures += 1
            print(f"FAILED {function.__name__}\n{traceback.format_exc(limit=-4)}", flush=True)
        else:
            print(f"ok {time.monotonic() - started:5.1f} s  {function.__name__}", flush=True)
    return len(_checks), failures
