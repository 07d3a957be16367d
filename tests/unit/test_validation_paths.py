"""What callers are told of a value that does not fit: paths that they wrote, no words of the library that checks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError
from schema_examples import broken_at, examples_of, paths_in

from llamastack.provider.builtin_apis import BUILTIN_APIS
from llamastack.provider.validation import explain_validation_error, invalid_request
from llamastack.provider.validation_paths import Shape, path_of
from llamastack.stack.config import run_config_model
from llamastack.stack.discovery import default_discovery
from llamastack.stack.plugins import Plugins
from llamastack_openai_api.requests import CHAT, COMPLETION, EMBEDDINGS, MODERATION

REQUESTS: dict[str, TypeAdapter[Any]] = {
    f"{api.name}.{method.name}": TypeAdapter(method.request_model)
    for api in BUILTIN_APIS
    for method in api.methods.values()
    if method.parameters
}
OPENAI = {"chat": CHAT, "completion": COMPLETION, "embeddings": EMBEDDINGS, "moderation": MODERATION}
HOOKS = Plugins(default_discovery())
RUN_CONFIG = {"run config": TypeAdapter(run_config_model(HOOKS.apis(), HOOKS.config_sections()))}
SHAPES: dict[str, TypeAdapter[Any]] = {**REQUESTS, **OPENAI, **RUN_CONFIG}
WRONG: list[Any] = [None, 5, "", "text", [], [None], {}, {"str": 1}, {"zz": None}, True]


def words_of(core: Any) -> Iterator[str]:
    """Names of classes and of pydantic's own that must not be told."""
    if isinstance(core, Mapping):
        if isinstance(core.get("cls"), type) and core["type"] != "enum":
            yield core["cls"].__name__
        for inner in core.values():
            yield from words_of(inner)
    elif isinstance(core, list | tuple):
        for inner in core:
            yield from words_of(inner)


def faults_told(adapter: TypeAdapter[Any], value: Any) -> list[tuple[list[Any], str, str]]:
    """From JSON and from Python objects."""
    reported = []
    for validate in (lambda: adapter.validate_json(json.dumps(value)), lambda: adapter.validate_python(value)):
        try:
            validate()
        except ValidationError as error:
            made = invalid_request(error, adapter)
            assert (made.param or "") == path_of(made.errors[0]["loc"])
            reported += [(fault["loc"], fault["msg"], fault["type"]) for fault in made.errors]
    return reported


def was_written(loc: list[Any], value: Any, kind: str) -> bool:
    """Whether each part of `loc` is in `value`; the last may be what is missing."""
    for place, part in enumerate(loc):
        there = (
            part in value
            if isinstance(value, dict)
            else isinstance(value, list) and isinstance(part, int) and part < len(value)
        )
        if not there:
            return kind == "missing" and place == len(loc) - 1
        value = value[part]
    return True


@pytest.mark.parametrize("name", SHAPES)
def test_paths_are_those_of_the_caller(name: str) -> None:
    adapter = SHAPES[name]
    forbidden = {*words_of(adapter.core_schema), "constrained-", "function-", "union[", "list[", "dict[", "[key]"}
    seen = 0
    for example in examples_of(adapter.json_schema()):
        for path in paths_in(example):
            changes = [broken_at(example, path, wrong) for wrong in WRONG]
            if not isinstance(path[-1], int):
                changes.append(broken_at(example, path))
            for changed in changes:
                for loc, message, kind in faults_told(adapter, changed):
                    seen += 1
                    assert was_written(loc, changed, kind), (changed, loc, message)
                    assert not any(word in message for word in forbidden), message
    assert seen


def reported(adapter: Shape, value: Any) -> dict[str, str]:
    validate = adapter.validate_python if isinstance(adapter, TypeAdapter) else adapter.model_validate
    with pytest.raises(ValidationError) as caught:
        validate(value)
    return {path_of(fault["loc"]): fault["msg"] for fault in explain_validation_error(caught.value, adapter)}


def message(content: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize(
    ("call", "value", "paths"),
    [
        ("inference.chat_completion", message(None), ["messages[0].content"]),
        ("inference.chat_completion", message({"foo": 1}), ["messages[0].content"]),
        ("inference.chat_completion", message({"image": 5}), ["messages[0].content.image"]),
        ("inference.chat_completion", message(["a", None]), ["messages[0].content[1]"]),
        ("inference.chat_completion", message(["a", {"image": None}]), ["messages[0].content[1].image"]),
        ("inference.chat_completion", {"model": "m", "messages": [{"role": "x"}]}, ["messages[0].role"]),
        ("inference.chat_completion", {"model": "m", "messages": [{}]}, ["messages[0].role"]),
        ("inference.chat_completion", {"model": "m", "messages": [None]}, ["messages[0]"]),
        ("inference.chat_completion", {"model": "m", "messages": [{"role": "user"}]}, ["messages[0].content"]),
        (
            "inference.chat_completion",
            message("x") | {"sampling_params": {"repetition_penalty": math.inf, "temperature": math.nan}},
            ["sampling_params.temperature", "sampling_params.repetition_penalty"],
        ),
        (
            "inference.chat_completion",
            message("x") | {"tools": [{"tool_name": "", "parameters": {"user": {"param_type": None}}}]},
            ["tools[0].tool_name", "tools[0].parameters.user.param_type"],
        ),
        (
            "memory_banks.register_memory_bank",
            {"memory_bank": {"type": "vector", "identifier": "b", "chunk_size_in_tokens": 5}},
            ["memory_bank.embedding_model"],
        ),
        ("memory_banks.register_memory_bank", {"memory_bank": None}, ["memory_bank"]),
        (
            "memory_banks.register_memory_bank",
            {"memory_bank": {"type": "vector", "vector": 1, "identifier": "b"}},
            None,
        ),
    ],
)
def test_the_place_that_is_wrong(call: str, value: Any, paths: list[str] | None) -> None:
    found = list(reported(REQUESTS[call], value))
    assert found == (paths or ["memory_bank.embedding_model", "memory_bank.chunk_size_in_tokens", "memory_bank.vector"])


def test_what_a_union_takes_is_told_together() -> None:
    found = reported(REQUESTS["inference.chat_completion"], message({"foo": 1}))
    assert set(found) == {"messages[0].content"}
    with pytest.raises(ValidationError) as caught:
        REQUESTS["inference.chat_completion"].validate_python(message({"foo": 1}))
    assert invalid_request(caught.value, REQUESTS["inference.chat_completion"]).message == (
        "messages[0].content: Input should be a valid string or Input should be an object with 'image' or "
        "Input should be a valid list"
    )


class Left(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["left"]
    value: int | list[int] | dict[str, Left | Right]


class Right(BaseModel):
    value: Annotated[int, Field(alias="other")]


def side(value: Any) -> str | None:
    return value.get("side") if isinstance(value, dict) else None


class Plugin(BaseModel):
    """Types as a package with an API of its own may have them."""

    either: Annotated[Annotated[Left, Tag("l")] | Annotated[Right, Tag("r")], Discriminator(side)] | None = None
    by_number: dict[int, Left | Right] = Field(default_factory=dict)
    pair: tuple[int, Left] | None = None


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ({"either": {}}, ["either"]),
        ({"either": {"side": "l"}}, ["either.kind", "either.value", "either.side"]),
        ({"either": {"side": "r", "other": "x"}}, ["either.other"]),
        ({"by_number": {"x": {"kind": "left", "value": 1}}}, ["by_number.x"]),
        ({"by_number": {"1": {"kind": "left", "value": {"int": {"other": None}}}}}, ["by_number.1.value.int.other"]),
        ({"by_number": {"1": {"kind": "left", "value": "x"}}}, ["by_number.1.value"]),
        ({"pair": [1, {"kind": "left"}]}, ["pair[1].value"]),
    ],
)
def test_types_of_plugins(value: Any, paths: list[str]) -> None:
    assert list(reported(Plugin, value)) == paths
