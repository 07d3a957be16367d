"""`instructor`: answers as pydantic models, which are validated, and asked for again."""

from __future__ import annotations

from typing import Any, Literal

import instructor
from checks import SETTINGS, check, check_where_translated, equal, raised, user
from instructor.core.exceptions import InstructorRetryException
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, field_validator

ASKED: dict[str, Any] = {"model": SETTINGS.chat_model, "temperature": 0, "max_tokens": 64, "messages": user()}


class City(BaseModel):
    """A city"""

    city: Literal["Paris", "Rome"]


class Picky(City):
    """A city"""

    @field_validator("city")
    @classmethod
    def _never(cls, value: str) -> str:
        raise ValueError("this is no city")


def connect(mode: instructor.Mode) -> Any:
    return instructor.from_openai(OpenAI(base_url=SETTINGS.url, api_key="unused", timeout=60, max_retries=0), mode=mode)


def made_by(mode: instructor.Mode) -> None:
    found, reply = connect(mode).chat.completions.create_with_completion(response_model=City, **ASKED)
    assert isinstance(found, City), found
    assert reply.usage.completion_tokens > 0, reply.usage
    # The mode is what is spoken.
    equal(bool(reply.choices[0].message.tool_calls), mode is instructor.Mode.TOOLS)


@check
def of_a_schema() -> None:
    made_by(instructor.Mode.JSON_SCHEMA)


@check_where_translated
def of_a_tool() -> None:
    made_by(instructor.Mode.TOOLS)


@check_where_translated
def validation() -> None:
    """What does not fit is asked for again, with the fault in the conversation."""
    client = connect(instructor.Mode.JSON_SCHEMA)
    asked: list[list[Any]] = []
    client.on("completion:kwargs", lambda *args, **kwargs: asked.append(list(kwargs["messages"])))
    error = raised(
        InstructorRetryException,
        lambda: client.chat.completions.create(response_model=Picky, max_retries=1, **ASKED),
    )
    assert "this is no city" in str(error), error
    equal(len(asked), 2)
    assert len(asked[1]) > len(asked[0]), asked
    assert "this is no city" in str(asked[1]), asked


@check
async def partial() -> None:
    """Streamed, and with the asynchronous client."""
    connection = AsyncOpenAI(base_url=SETTINGS.url, api_key="unused", timeout=60, max_retries=0)
    client = instructor.from_openai(connection, mode=instructor.Mode.JSON_SCHEMA)
    pieces = [piece async for piece in client.chat.completions.create_partial(response_model=City, **ASKED)]
    assert len(pieces) > 1, pieces
    assert pieces[-1].city in ("Paris", "Rome"), pieces
