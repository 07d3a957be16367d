"""The OpenAPI document against the HTTP API of release 0.0.41, whose clients must go on working."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from llamastack.api import (
    ChatCompletionResponse,
    ChatCompletionResponseEvent,
    ChatCompletionResponseEventType,
    CompletionMessage,
    CompletionResponseStreamChunk,
    ImageMedia,
    StopReason,
    ToolCallDelta,
    ToolCallParseStatus,
)
from llamastack.provider.builtin_apis import BUILTIN_APIS
from llamastack_server.openapi import native_openapi
from llamastack_server.openapi_parts import merged_document

SEED: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[1] / "data" / "native-http-api-0.0.41.yaml").read_text(encoding="utf-8")
)

# Objects whose name is ours to choose: the wire shows only their fields.
RENAMED = {
    "ModelDefWithProvider": "Model",
    "ShieldDefWithProvider": "Shield",
    "VectorMemoryBankDef": "VectorMemoryBank",
    "KeyValueMemoryBankDef": "KeyValueMemoryBank",
    "KeywordMemoryBankDef": "KeywordMemoryBank",
    "GraphMemoryBankDef": "GraphMemoryBank",
    "CreateAgentSessionRequest": "CreateAgentSessionRequest",
    "DeleteAgentsRequest": "DeleteAgentRequest",
    "DeleteAgentsSessionRequest": "DeleteAgentSessionRequest",
    "GetAgentsSessionRequest": "GetAgentSessionRequest",
}


@cache
def ours() -> dict[str, Any]:
    return merged_document([native_openapi({api.name: api for api in BUILTIN_APIS})])


def our_schema(name: str) -> dict[str, Any] | None:
    """Our component for the seed's, under its own, a renamed, or an input/output-specific name."""
    schemas = ours()["components"]["schemas"]
    wanted = RENAMED.get(name, name)
    for candidate in (wanted, f"{wanted}-Input", f"{wanted}-Output"):
        if candidate in schemas:
            found: dict[str, Any] = schemas[candidate]
            return found
    return None


def enum_of(schema: dict[str, Any]) -> set[Any] | None:
    if "$ref" in schema:
        target = our_schema(schema["$ref"].rpartition("/")[2]) or SEED["components"]["schemas"].get(
            schema["$ref"].rpartition("/")[2], {}
        )
        return enum_of(target)
    if "const" in schema:
        return {schema["const"]}
    if "enum" in schema:
        return set(schema["enum"])
    return None


@pytest.mark.parametrize(
    ("route", "method"), [(route, method) for route, verbs in SEED["paths"].items() for method in verbs]
)
def test_every_route_is_there(route: str, method: str) -> None:
    assert method in ours()["paths"][route]


@pytest.mark.parametrize("name", [n for n, s in SEED["components"]["schemas"].items() if "properties" in s])
def test_every_field_is_there_with_its_default_and_values(name: str) -> None:
    theirs = SEED["components"]["schemas"][name]
    mine = our_schema(name)
    assert mine is not None, f"no schema for {name}"
    for field, schema in theirs["properties"].items():
        assert field in mine["properties"], f"{name}.{field}"
        own = mine["properties"][field]
        if "default" in schema and "default" in own:
            assert own["default"] == schema["default"], f"default of {name}.{field}"
        if enum_of(schema) is not None and enum_of(own) is not None:
            assert enum_of(own) == enum_of(schema), f"values of {name}.{field}"


# GetAgentsSessionRequest: the two ids stand in the query there. HealthInfo: only ever a reply.
MORE_IS_REQUIRED = {"GetAgentsSessionRequest", "HealthInfo"}


@pytest.mark.parametrize(
    "name",
    [n for n, s in SEED["components"]["schemas"].items() if "properties" in s and n not in MORE_IS_REQUIRED],
)
def test_nothing_is_required_of_a_client_that_was_not(name: str) -> None:
    theirs = SEED["components"]["schemas"][name]
    mine = our_schema(name)
    assert mine is not None
    assert set(mine.get("required", ())) <= set(theirs.get("required", ())), name


@pytest.mark.parametrize("name", [n for n, s in SEED["components"]["schemas"].items() if "enum" in s])
def test_every_enum_has_the_same_values(name: str) -> None:
    mine = our_schema(name)
    assert mine is not None, f"no schema for {name}"
    assert set(mine["enum"]) == set(SEED["components"]["schemas"][name]["enum"])


def test_one_operation_id_each() -> None:
    ids = [operation["operationId"] for verbs in ours()["paths"].values() for operation in verbs.values()]
    assert len(ids) == len(set(ids))


def test_a_plain_reply_has_the_fields_of_that_release_and_no_other() -> None:
    """What is told beside them is left out where there is nothing to tell."""
    message = CompletionMessage(content="Hi", stop_reason=StopReason.end_of_turn)
    assert set(ChatCompletionResponse(completion_message=message).to_wire()) <= {"completion_message", "logprobs"}
    for piece in (
        ChatCompletionResponseEvent(event_type=ChatCompletionResponseEventType.progress, delta="Hi"),
        ToolCallDelta(content="{", parse_status=ToolCallParseStatus.in_progress),
        CompletionResponseStreamChunk(delta="Hi"),
    ):
        assert set(piece.to_wire()) <= set(SEED["components"]["schemas"][type(piece).__name__]["properties"])


@pytest.mark.parametrize("form", [lambda url: url, lambda url: {"uri": url}], ids=["text", "object"])
def test_the_case_of_a_scheme_does_not_count(form: Callable[[str], Any]) -> None:
    for url, read in (("DATA:IMAGE/PNG;base64,aGk=", "data:IMAGE/PNG;base64,aGk="), ("HttpS://A/b", "https://A/b")):
        assert ImageMedia.model_validate({"image": form(url)}).image == read
    with pytest.raises(ValidationError):
        ImageMedia.model_validate({"image": form("FTP://a/b")})
