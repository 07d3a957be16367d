"""OpenAI's requests read and made into native arguments; what cannot be said natively is refused by its name."""

from __future__ import annotations

import math
from typing import Any

import pytest
from openai_bodies import chat_request
from pydantic import ValidationError

from llamastack.api.common import (
    CompletionMessage,
    ImageMedia,
    SamplingParams,
    SamplingStrategy,
    StopReason,
    SystemMessage,
    ToolChoice,
    ToolResponseMessage,
    UserMessage,
)
from llamastack.provider.errors import InvalidRequestError, LlamaStackError, NotSupportedError
from llamastack_adapters.openai_dialect import Dialect
from llamastack_openai_api.checked_requests import (
    chat_form,
    completion_forms,
    embeddings_arguments,
    requested_capabilities,
)
from llamastack_openai_api.requests import CHAT, COMPLETION, EMBEDDINGS
from llamastack_openai_api.to_native import chat_arguments, completion_arguments, messages_of

HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "A city"},
                "unit": {"enum": ["C", "F"]},
                "when": {"$ref": "#/$defs/When"},
            },
            "required": ["place"],
            "$defs": {"When": {"type": "object", "properties": {"day": {"type": "integer"}}}},
        },
        "strict": True,
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}


def native(messages: list[dict[str, Any]] | None = None, **fields: Any) -> dict[str, Any]:
    form = chat_form(CHAT.validate_python({"model": "m", "messages": messages or HELLO, **fields}))
    return {name: value for name, value in chat_arguments(form, list(messages_of(form))).items() if name != "model"}


def test_every_kind_of_message() -> None:
    messages = native(
        [
            {"role": "developer", "content": "Be brief"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look:"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "annotations": [],
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"place": "Rome"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "rain"},
            {"role": "assistant", "content": [{"type": "text", "text": "It rains"}]},
        ]
    )["messages"]
    assert messages[0] == SystemMessage(content="Be brief")
    assert messages[1] == UserMessage(content=["Look:", ImageMedia(image="data:image/png;base64,AA==")])
    called = messages[2]
    assert isinstance(called, CompletionMessage)
    assert (called.content, called.stop_reason) == ("", StopReason.end_of_message)
    assert [(c.call_id, c.tool_name, c.arguments) for c in called.tool_calls] == [("c1", "weather", {"place": "Rome"})]
    assert messages[3] == ToolResponseMessage(call_id="c1", tool_name="weather", content="rain")
    assert messages[4] == CompletionMessage(content="It rains", stop_reason=StopReason.end_of_turn)


@pytest.mark.parametrize("text", ["{", "7", "[]", '{"a":' * 3000, '{"a":' * 3000 + "1" + "}" * 3000, '{"a": NaN}'])
def test_arguments_of_a_call_in_the_history_that_are_no_json_object(text: str) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": text}}
    with pytest.raises(InvalidRequestError) as caught:
        native([{"role": "assistant", "tool_calls": [call]}])
    assert caught.value.param == "messages[0].tool_calls[0].function.arguments"


@pytest.mark.parametrize(
    ("given", "strategy", "temperature", "top_p"),
    [
        ({}, SamplingStrategy.top_p, None, None),
        ({"temperature": 0}, SamplingStrategy.greedy, None, None),
        ({"temperature": 0, "top_p": 0.5, "top_k": 3}, SamplingStrategy.greedy, None, None),
        ({"temperature": 0.3}, SamplingStrategy.top_p, 0.3, 1.0),
        ({"top_p": 0.5}, SamplingStrategy.top_p, None, 0.5),
        ({"temperature": 0.3, "top_p": 0.5}, SamplingStrategy.top_p, 0.3, 0.5),
        ({"top_k": 5, "top_p": 1}, SamplingStrategy.top_k, None, None),
        ({"top_k": -1}, SamplingStrategy.top_p, None, None),
    ],
)
def test_sampling(
    given: dict[str, Any], strategy: SamplingStrategy, temperature: float | None, top_p: float | None
) -> None:
    """What a client does not say is not said to the provider either: there the model's own defaults count."""
    params = native(**given)["sampling_params"]
    chosen = {name: value for name, value in params if name in params.model_fields_set}
    assert (params.strategy, chosen.get("temperature"), chosen.get("top_p")) == (strategy, temperature, top_p)
    assert SamplingParams(**params.to_wire()).model_fields_set & {"temperature", "top_p"} == (
        chosen.keys() & {"temperature", "top_p"}
        if strategy is not SamplingStrategy.greedy
        else {"temperature", "top_p"}
    )


def test_the_other_sampling_parameters() -> None:
    params = native(max_tokens=5, max_completion_tokens=7, stop="END", seed=3)["sampling_params"]
    assert (params.max_tokens, params.stop, params.seed) == (7, ["END"], 3)
    assert native(stop=["a", "b"], max_tokens=5)["sampling_params"].stop == ["a", "b"]
    penalties = {"frequency_penalty": 0.5, "presence_penalty": -2, "min_p": 0.1, "repetition_penalty": 1.1}
    params = native(**penalties, logit_bias={"5": -100}, top_k=7)["sampling_params"]
    assert params.to_wire().items() >= {**penalties, "top_k": 7, "strategy": "top_k", "logit_bias": {"5": -100}}.items()


@pytest.mark.parametrize("stop", ["", [""], ["", ""], []])
def test_empty_stops_are_passed_over(stop: object) -> None:
    assert native(stop=stop)["sampling_params"].stop is None
    assert native(stop=["", "END", ""])["sampling_params"].stop == ["END"]
    assert SamplingParams(stop=["", "END"]).stop == ["END"]


@pytest.mark.parametrize("seed", [0, 1, -1, 2**32 - 1, 2**32, 2**63 - 1, -(2**63), 2**64 - 1])
def test_a_seed_of_64_bits_is_a_seed(seed: int) -> None:
    params = native(seed=seed)["sampling_params"]
    assert 0 <= params.seed < 2**32 - 1
    assert (
        params
        == native(seed=seed)["sampling_params"]
        != native(seed=seed + 1 if seed < 2**63 else 7)["sampling_params"]
    )


def test_a_tool_keeps_its_whole_schema() -> None:
    arguments = native(tools=[WEATHER])
    tool = arguments["tools"][0]
    assert "tool_choice" not in arguments
    assert {name: (p.param_type, p.required) for name, p in tool.parameters.items()} == {
        "place": ("string", True),
        "unit": ("object", False),
        "when": ("object", False),
    }
    sent = chat_request(Dialect("p"), model="m", **arguments)["tools"][0]["function"]
    assert sent["parameters"] == WEATHER["function"]["parameters"]  # type: ignore[index]


def test_tool_choices() -> None:
    tools = [WEATHER, CLOCK]
    assert "tools" not in native(tools=tools, tool_choice="none")
    assert native(tools=tools, tool_choice="required")["tool_choice"] is ToolChoice.required
    chosen = native(tools=tools, tool_choice={"type": "function", "function": {"name": "clock"}})
    assert ([tool.tool_name for tool in chosen["tools"]], chosen["tool_choice"]) == (["clock"], ToolChoice.required)


def test_response_formats() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert "response_format" not in native(response_format={"type": "text"})
    assert native(response_format={"type": "json_object"})["response_format"].json_schema == {"type": "object"}
    wrapped = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}}
    assert native(response_format=wrapped)["response_format"].json_schema == schema


def test_log_probabilities() -> None:
    assert "logprobs" not in native(logprobs=False)
    assert native(logprobs=True)["logprobs"].top_k == 0
    assert native(logprobs=True, top_logprobs=3)["logprobs"].top_k == 3


def test_what_changes_nothing_in_the_answer_is_taken() -> None:
    given = {
        "user": "u",
        "metadata": {"a": "b"},
        "store": True,
        "verbosity": "low",
        "reasoning_effort": "high",
        "service_tier": "flex",
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "logit_bias": {},
        "function_call": "auto",
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    assert native(**given) == native()
    part = {"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}
    for prompt in ("Hello", [part]):
        assert native([{"role": "user", "content": prompt, "name": "Ann", "cache_control": {}}]) == native()
    tool = {**CLOCK, "cache_control": {"type": "ephemeral"}}
    function = {"name": "clock", "type": "function", "strict": None, "description": None, "parameters": None}
    assert native(tools=[tool]) == native(tools=[CLOCK]) == native(tools=[{"type": "function", "function": function}])


def test_what_a_client_sends_back_of_a_reply_is_passed_over() -> None:
    more = {
        "reasoning_content": "I think",
        "reasoning_details": [{"type": "reasoning.text"}],
        "annotations": [{"type": "url_citation"}],
        "refusal": None,
        "audio": None,
        "function_call": None,
        "tool_calls": None,
        "provider_specific_fields": {"a": 1},
    }
    plain = [*HELLO, {"role": "assistant", "content": "Hi"}, *HELLO]
    assert native([*HELLO, {"role": "assistant", "content": "Hi", **more}, *HELLO]) == native(plain)
    refused = [*HELLO, {"role": "assistant", "content": None, "refusal": "Hi"}, *HELLO]
    assert native(refused) == native(plain)
    call = {"id": "c1", "type": None, "function": {"name": "clock", "arguments": "{}"}, "index": 0}
    assert native([{"role": "assistant", "content": "", "tool_calls": [call]}])["messages"][0].tool_calls


@pytest.mark.parametrize(
    ("fields", "param", "kind"),
    [
        ({"frequency_penalty": 2.5}, "frequency_penalty", InvalidRequestError),
        ({"presence_penalty": -3}, "presence_penalty", InvalidRequestError),
        ({"logit_bias": {"5": 101}}, "logit_bias.5", InvalidRequestError),
        ({"min_p": 2}, "min_p", InvalidRequestError),
        ({"repetition_penalty": 0}, "repetition_penalty", InvalidRequestError),
        ({"top_k": 2**31}, "top_k", InvalidRequestError),
        ({"top_k": 5, "top_p": 0.5}, "top_k", InvalidRequestError),
        ({"max_tokens": 2**31}, "max_tokens", InvalidRequestError),
        ({"max_completion_tokens": 2**31}, "max_completion_tokens", InvalidRequestError),
        ({"temperature": 101}, "temperature", InvalidRequestError),
        ({"web_search_options": {"a": 1}}, "web_search_options", NotSupportedError),
        ({"no_such_thing": 1}, "no_such_thing", InvalidRequestError),
        ({"functions": [{"name": "f"}]}, "functions", NotSupportedError),
        ({"temperature": 2.5}, "temperature", InvalidRequestError),
        ({"response_format": {"type": "grammar", "grammar": "x"}}, "response_format.grammar", NotSupportedError),
        ({"response_format": {"type": "regex"}}, "response_format.type", NotSupportedError),
        ({"tools": [{**CLOCK, "defer_loading": True}]}, "tools[0].defer_loading", NotSupportedError),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "suffix": {"a": 1}}]}]},
            "messages[0].content[0].suffix",
            NotSupportedError,
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "video_url", "video_url": {"url": "x"}}]}]},
            "messages[0].content[0]",
            NotSupportedError,
        ),
        ({"seed": 2**64}, "seed", InvalidRequestError),
        ({"top_logprobs": 2}, "top_logprobs", InvalidRequestError),
        ({"tool_choice": "required"}, "tool_choice", InvalidRequestError),
        ({"tools": [CLOCK], "tool_choice": "clock"}, "tool_choice", InvalidRequestError),
        (
            {"tools": [CLOCK], "tool_choice": {"type": "function", "function": {"name": "other"}}},
            "tool_choice",
            InvalidRequestError,
        ),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].custom", NotSupportedError),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema", InvalidRequestError),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, "messages[0].audio", NotSupportedError),
        (
            {"messages": [{"role": "tool", "tool_call_id": "gone", "content": "x"}]},
            "messages[0].tool_call_id",
            InvalidRequestError,
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
            "messages[0].content[0]",
            NotSupportedError,
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "ftp://x"}}]}]},
            "messages[0].content[0].image_url.url",
            InvalidRequestError,
        ),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "[1]"}}]}
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
            InvalidRequestError,
        ),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0].role", NotSupportedError),
    ],
)
def test_what_cannot_be_said_is_refused(fields: dict[str, Any], param: str, kind: type[LlamaStackError]) -> None:
    with pytest.raises(kind) as refused:
        native(**fields)
    assert refused.value.param == param


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": []},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "nobody", "content": "x"}]},
        {"n": 0},
        {"max_tokens": 0},
        {"temperature": -1},
        {"temperature": "0.5"},
        {"temperature": math.inf},
        {"repetition_penalty": math.inf},
        {"max_tokens": "5"},
        {"stream": "yes"},
        {"model": ""},
    ],
)
def test_requests_that_do_not_fit(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CHAT.validate_python({"model": "m", "messages": HELLO, **fields})


def test_what_is_asked_of_a_provider_by_a_request_that_is_forwarded() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    asked = requested_capabilities(
        {
            "model": "m",
            "messages": [{"role": "user", "content": [image]}],
            "tools": [CLOCK],
            "response_format": {"type": "text"},
            "stream": True,
        }
    )
    assert {name for name, value in asked.items() if value} == {"messages", "tools", "stream"}
    odd = requested_capabilities({"messages": ["x", {"content": [1, {"type": 5}]}], "response_format": "json"})
    assert not any(odd.values())


def test_prompts_of_a_text_completion() -> None:
    forms = completion_forms(COMPLETION.validate_python({"model": "m", "prompt": ["a", "b"], "logprobs": 2}))
    arguments = [completion_arguments(form) for form in forms]
    assert [each["content"] for each in arguments] == ["a", "b"]
    assert arguments[0]["sampling_params"].max_tokens == 16
    assert arguments[0]["logprobs"].top_k == 2
    for fields, param in (
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": "a", "echo": True}, "echo"),
        ({"prompt": []}, "prompt"),
        ({"prompt": "a", "logprobs": 101}, "logprobs"),
        ({"prompt": "a", "max_tokens": 2**40}, "max_tokens"),
        ({"prompt": "a", "temperature": 101}, "temperature"),
        ({"prompt": "a", "best_of": 2}, "best_of"),
        ({"prompt": "a", "suffix": "z"}, "suffix"),
    ):
        with pytest.raises(LlamaStackError) as refused:
            completion_forms(COMPLETION.validate_python({"model": "m", **fields}))
        assert refused.value.param == param


def test_inputs_of_embeddings() -> None:
    assert embeddings_arguments(EMBEDDINGS.validate_python({"model": "m", "input": "a"})) == {"contents": ["a"]}
    assert embeddings_arguments(EMBEDDINGS.validate_python({"model": "m", "input": ["a", "b"]}))["contents"] == [
        "a",
        "b",
    ]
    for fields, param in (({"input": [[1, 2]]}, "input"),):
        with pytest.raises(NotSupportedError) as refused:
            embeddings_arguments(EMBEDDINGS.validate_python({"model": "m", **fields}))
        assert refused.value.param == param
