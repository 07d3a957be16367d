"""Replies against the HTTP API of release 0.0.41: every field that it has is in the JSON, null where it is not set."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter
from schema_examples import examples_of, paths_in

from llamastack.api.models import Model
from llamastack.provider.builtin_apis import BUILTIN_APIS
from llamastack_server.encoding import json_by

SEED: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parents[1] / "data" / "native-http-api-0.0.41.yaml").read_text(encoding="utf-8")
)
METHODS = {method.web.route: method for api in BUILTIN_APIS for method in api.methods.values()}
Schema = Mapping[str, Any]
# The schema describes the stream alone; the whole reply is what its last event has.
MORE = [("/agents/turn/create", SEED["components"]["schemas"]["Turn"])]


def resolved(schema: Schema) -> Schema:
    return SEED["components"]["schemas"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def alternatives(schema: Schema) -> Iterator[Schema]:
    schema = resolved(schema)
    for choice in schema.get("oneOf", ()):
        yield from alternatives(choice)
    if "oneOf" not in schema:
        yield schema


REPLIES = MORE + [
    (route, schema)
    for route, verbs in SEED["paths"].items()
    for operation in verbs.values()
    for content in operation["responses"]["200"].get("content", {}).values()
    for schema in alternatives(content["schema"])
    # Health and the lists of providers and routes are told otherwise, in more detail.
    if "properties" in schema and route not in ("/health", "/providers/list", "/routes/list")
]


def adapters(route: str) -> Iterator[TypeAdapter[Any]]:
    method = METHODS[route]
    yield method.result
    if method.piece is not None:
        yield method.piece


def missing_fields(value: Any, schema: Schema, path: str) -> Iterator[str]:
    """What the old schema has, and `value` has not; and what is null although the schema knows nothing of it."""
    choices = list(alternatives(schema))
    if isinstance(value, list):
        for choice in choices:
            for place, inner in enumerate(value if choice.get("type") == "array" else ()):
                yield from missing_fields(inner, choice["items"], f"{path}[{place}]")
    if not isinstance(value, dict):
        return
    objects = [choice for choice in choices if "properties" in choice]
    fitting = [choice for choice in objects if all(name in value for name in choice.get("required", ()))] or objects
    # Of several kinds that which has most of it, as their own type fields are constants.
    named = [
        c for c in fitting if all(s.get("const", value.get(n)) == value.get(n) for n, s in c["properties"].items())
    ]
    for choice in (named or fitting)[:1]:
        yield from (
            f"{path}.{n} is new, and null" for n in value.keys() - choice["properties"].keys() if value[n] is None
        )
        for name, inner in choice["properties"].items():
            if name not in value:
                yield f"{path}.{name}"
            else:
                yield from missing_fields(value[name], inner, f"{path}.{name}")


def least_values(adapter: TypeAdapter[Any]) -> Iterator[Any]:
    """Replies in which no optional field is set, as far as the type allows."""
    for example in examples_of(adapter.json_schema()):
        candidate = example
        for path in sorted(paths_in(example), key=len, reverse=True):
            at = candidate
            for part in path[:-1]:
                at = at[part]
            if isinstance(at, dict) and path[-1] in at:
                kept = at.pop(path[-1])
                try:
                    adapter.validate_python(candidate)
                except ValueError:
                    at[path[-1]] = kept
        yield candidate


@pytest.mark.parametrize("route", sorted({route for route, _ in REPLIES}))
def test_every_old_field_is_in_the_reply(route: str) -> None:
    schemas = [schema for other, schema in REPLIES if other == route]
    seen = 0
    for adapter in adapters(route):
        for least in least_values(adapter):
            if least is None or least == []:
                continue
            written = json.loads(json_by(adapter, adapter.validate_python(least)))
            for one in written if isinstance(written, list) else [written]:
                seen += 1
                found = [list(missing_fields(one, schema, "")) for schema in schemas]
                assert [] in found, (one, found)
    assert seen


def test_new_fields_are_left_out_where_they_are_not_set() -> None:
    written = json.loads(json_by(METHODS["/models/list"].result, [Model(identifier="m")]))
    assert written == [{"identifier": "m", "provider_id": "", "llama_model": "m", "metadata": {}}]


def test_a_model_is_the_same_with_and_without_its_llama_model() -> None:
    assert Model(identifier="m") == Model(identifier="m", llama_model="m")
    assert Model(identifier="m", llama_model="Llama3.1-8B-Instruct").llama_model == "Llama3.1-8B-Instruct"
    assert Model.model_validate_json(Model(identifier="m").model_dump_json(exclude_none=True)) == Model(identifier="m")
