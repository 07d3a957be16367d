"""Types of tool parameters in all the words that clients have for them, as the JSON schema that backends are sent."""

from __future__ import annotations

import copy
import json
import typing
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_bodies import chat_request
from pydantic import ConfigDict, TypeAdapter, ValidationError

from llamastack.api.common import ToolDefinition, ToolParamDefinition, ToolPromptFormat, UserMessage
from llamastack.api.inference import JsonSchemaResponseFormat
from llamastack.provider.errors import InvalidRequestError, NotSupportedError
from llamastack_adapters.openai_dialect import Dialect
from llamastack_adapters.tool_schemas import parameters_schema, type_schema
from llamastack_provider_ollama.requests import ollama_dialect, tools_of

STRING, INTEGER, ANYTHING = {"type": "string"}, {"type": "integer"}, {"type": "array", "items": {}}


@pytest.mark.parametrize(
    ("words", "schema"),
    [
        ("str", STRING),
        ("string", STRING),
        (" String ", STRING),
        ("<class 'str'>", STRING),
        ("int", INTEGER),
        ("integer", INTEGER),
        ("float", {"type": "number"}),
        ("number", {"type": "number"}),
        ("bool", {"type": "boolean"}),
        ("boolean", {"type": "boolean"}),
        ("None", {"type": "null"}),
        ("null", {"type": "null"}),
        ("Any", {}),
        ("list", ANYTHING),
        ("array", ANYTHING),
        ("List", ANYTHING),
        ("dict", {"type": "object"}),
        ("object", {"type": "object"}),
        ("List[str]", {"type": "array", "items": STRING}),
        ("list[int]", {"type": "array", "items": INTEGER}),
        ("typing.List[ str ]", {"type": "array", "items": STRING}),
        ("array<string>", {"type": "array", "items": STRING}),
        ("string[]", {"type": "array", "items": STRING}),
        ("int[][]", {"type": "array", "items": {"type": "array", "items": INTEGER}}),
        ("(str | int)[]", {"type": "array", "items": {"type": ["string", "integer"]}}),
        ("set[str]", {"type": "array", "items": STRING, "uniqueItems": True}),
        ("tuple[int, ...]", {"type": "array", "items": INTEGER}),
        ("Tuple[int, int]", {"type": "array", "items": INTEGER, "minItems": 2, "maxItems": 2}),
        ("Dict[str, int]", {"type": "object", "additionalProperties": INTEGER}),
        ("Record<string, int>", {"type": "object", "additionalProperties": INTEGER}),
        (
            "dict[str, List[dict[str, Any]]]",
            {
                "type": "object",
                "additionalProperties": {"type": "array", "items": {"type": "object", "additionalProperties": {}}},
            },
        ),
        ("Optional[str]", {"type": ["string", "null"]}),
        ("str | None", {"type": ["string", "null"]}),
        ("Union[int, str]", {"type": ["integer", "string"]}),
        ("Union[int, str, int]", {"type": ["integer", "string"]}),
        ("Union[str]", STRING),
        ("Optional[List[str]]", {"type": ["array", "null"], "items": STRING}),
        ("List[str] | List[int]", {"anyOf": [{"type": "array", "items": s} for s in (STRING, INTEGER)]}),
        ("Optional[Any]", {}),
        ("Literal['a', \"b\"]", {"type": "string", "enum": ["a", "b"]}),
        ("Literal[1, -2]", {"type": "integer", "enum": [1, -2]}),
        ("Literal['a', 1, None]", {"type": ["string", "integer", "null"], "enum": ["a", 1, None]}),
        ("Optional[Literal['a']]", {"type": ["string", "null"], "enum": ["a", None]}),
        ("datetime.datetime", None),
        ("date", {"type": "string", "format": "date"}),
        *((words, None) for words in ("", "strr", "List[str", "Dict[str]", "Optional[str, int]", "str]")),
        *((words, None) for words in ("List[str]]", "str,int", "Literal[]", "Literal[a]", "1", "'a'", "|", "str |")),
        *((words, None) for words in ("[" * 5000, "list[" * 3000, "list[" * 300, "x\n", "\x00", "str; rm", "...")),
        ("list[...]", None),
    ],
)
def test_words_for_types(words: str, schema: dict[str, Any] | None) -> None:
    assert type_schema(words) == schema
    if schema is not None:
        jsonschema.Draft202012Validator.check_schema(schema)


TYPES = st.recursive(
    st.sampled_from(["str", "int", "float", "bool", "None", "Any", "list", "dict", "Literal['a', 1, True, None]"]),
    lambda inner: (
        st.builds("List[{}]".format, inner)
        | st.builds("Dict[str, {}]".format, inner)
        | st.builds("Optional[{}]".format, inner)
        | st.builds("Union[{}, {}]".format, inner, inner)
        | st.builds("tuple[{0}, {0}]".format, inner)
    ),
    max_leaves=8,
)
VALUES: list[Any] = ["a", "b", 1, 1.5, True, None, [], ["a"], [1, "a"], [[None]], {}, {"k": 1}, {"k": ["a"]}]


def fits(words: str, value: Any) -> bool:
    """What Python's own typing says, with JSON's values."""
    try:
        TypeAdapter(eval(words, vars(typing)), config=ConfigDict(strict=True)).validate_json(json.dumps(value))
    except ValidationError:
        return False
    return True


@given(TYPES)
def test_a_schema_takes_what_the_type_takes(words: str) -> None:
    schema = type_schema(words)
    assert schema is not None
    validator = jsonschema.Draft202012Validator(schema)
    for value in VALUES:
        assert validator.is_valid(value) == fits(words, value), (words, schema, value)


@given(st.text(alphabet="strlisdc[]<>|,.'\"() 01OpLn", max_size=60))
def test_any_text_is_read_or_refused(words: str) -> None:
    schema = type_schema(words)
    assert schema is None or isinstance(schema, dict)


def tool(*types: str, name: str = "f", **more: Any) -> ToolDefinition:
    parameters = {f"p{place}": ToolParamDefinition(param_type=words) for place, words in enumerate(types)}
    return ToolDefinition(tool_name=name, parameters=parameters or None, **more)


@pytest.mark.parametrize(
    ("name", "parameter"),
    [("brave_search", "query"), ("wolfram_alpha", "query"), ("photogen", "query"), ("code_interpreter", "code")],
)
def test_built_in_tools_have_their_own_parameters(name: str, parameter: str) -> None:
    schema = parameters_schema(tool(name=name), "tools[0]")
    assert (list(schema["properties"]), schema["required"]) == ([parameter], [parameter])
    assert schema["properties"][parameter]["type"] == "string"
    assert list(parameters_schema(tool("int", name=name), "tools[0]")["properties"]) == ["p0"]
    assert parameters_schema(tool(name="other"), "tools[0]")["properties"] == {}


DIALECTS = {"plain": Dialect("p"), "ollama": ollama_dialect("p")}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_not_understood_is_refused_with_its_path(dialect: str) -> None:
    tools = [tool("str"), tool("str", "Strng")]
    with pytest.raises(InvalidRequestError, match="'Strng' is not understood") as caught:
        chat_request(DIALECTS[dialect], model="m", messages=[UserMessage(content="Hi")], tools=tools)
    assert caught.value.param == "tools[1].parameters.p1.param_type"


def test_a_schema_of_the_whole_goes_before_the_types() -> None:
    schema = {"type": "object", "properties": {"p0": True, "p1": {"default": 1}}}
    given_tool = tool("Strng", input_schema=schema)
    body = chat_request(DIALECTS["ollama"], model="m", messages=[UserMessage(content="Hi")], tools=[given_tool])
    before = copy.deepcopy(schema)
    made = tools_of(body["tools"])
    assert made[0]["function"]["parameters"]["properties"] == {"p0": {}, "p1": {"description": "(default: 1)"}}
    assert given_tool.input_schema == before
    for odd in ({"type": "object"}, {"properties": None}):
        body["tools"][0]["function"]["parameters"] = odd
        assert tools_of(body["tools"]) == [
            {"type": "function", "function": {"name": "f", "parameters": {**odd, "properties": {}}}}
        ]


@pytest.mark.parametrize("form", [*ToolPromptFormat, None])
def test_a_prompt_format_is_of_no_matter_without_tools(form: ToolPromptFormat | None) -> None:
    for tools in (None, []):
        body = chat_request(
            Dialect("p"), model="m", messages=[UserMessage(content="Hi")], tools=tools, tool_prompt_format=form
        )
        assert "tools" not in body
    if form not in (None, ToolPromptFormat.json):
        with pytest.raises(NotSupportedError) as caught:
            chat_request(
                Dialect("p"), model="m", messages=[UserMessage(content="Hi")], tools=[tool()], tool_prompt_format=form
            )
        assert caught.value.param == "tool_prompt_format"


SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}, "schema": {"type": "object"}}}


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (SCHEMA, SCHEMA),
        ({}, {}),
        ({"description": "anything"}, {"description": "anything"}),
        ({"name": "x", "type": "object"}, {"name": "x", "type": "object"}),
        ({"name": "answer", "schema": SCHEMA}, SCHEMA),
        ({"name": "answer", "strict": True, "description": "d", "schema": SCHEMA}, SCHEMA),
        ({"schema": SCHEMA}, SCHEMA),
        ({"name": "answer", "schema": {}}, {}),
    ],
)
def test_a_response_format_in_the_words_of_openai(sent: dict[str, Any], read: dict[str, Any]) -> None:
    made = JsonSchemaResponseFormat.model_validate({"type": "json_schema", "json_schema": sent})
    assert made.json_schema == read
    assert JsonSchemaResponseFormat.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize("sent", [{"name": "answer"}, {"strict": True}, {"name": "a", "schema": None}, {"schema": "x"}])
def test_a_wrapper_without_a_schema_is_refused(sent: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="it holds no JSON schema"):
        JsonSchemaResponseFormat(json_schema=sent)
