"""Samplers, defaults and schemas that the real default model is held to."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from backends.llama_model import default_model

from llamastack.api.common import SamplingParams, SamplingStrategy, ToolCall, ToolChoice, ToolDefinition, UserMessage
from llamastack.api.inference import ChatCompletionResponse, LogProbConfig
from llamastack.provider import Deps, InvalidRequestError, NotSupportedError
from llamastack_adapters.openai_dialect import OpenAIForm
from llamastack_provider_llama_cpp.config import LlamaCppConfig
from llamastack_provider_llama_cpp.inference import LlamaCppInference, get_provider_impl
from llamastack_provider_llama_cpp.sampling import defaults_of_file, sampled

# One process loads the model.
pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("llama_cpp_sampling")]
SMOL = "SmolLM2-135M-Instruct"
QUESTION = "What is the capital of Italy?"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def provider(anyio_backend: str) -> AsyncIterator[LlamaCppInference]:
    config = LlamaCppConfig(models=[default_model()], threads=1, parallel=1)
    made = await get_provider_impl(config, Deps(provider_id="local"))
    await made.initialize()
    yield made
    await made.shutdown()


async def answer_of(provider: LlamaCppInference, question: str = QUESTION, tokens: int = 20, **params: Any) -> str:
    reply = await provider.chat_completion(
        SMOL, [UserMessage(content=question)], sampling_params=SamplingParams(max_tokens=tokens, **params)
    )
    assert isinstance(reply, ChatCompletionResponse)
    assert isinstance(reply.completion_message.content, str)
    return reply.completion_message.content


async def test_the_question_of_the_documentation_is_answered_well(provider: LlamaCppInference) -> None:
    packaged = await get_provider_impl(LlamaCppConfig(threads=1), Deps(provider_id="as users have it"))
    await packaged.initialize()
    try:
        for asked in (packaged, provider):
            assert await answer_of(asked) == "The capital of Italy is Rome."
    finally:
        await packaged.shutdown()


async def test_who_says_nothing_gets_the_same_good_answer_each_time(provider: LlamaCppInference) -> None:
    assert {await answer_of(provider, strategy=SamplingStrategy.top_p) for _ in range(3)} == {
        "The capital of Italy is Rome."
    }


async def test_the_samplers_of_llama_cpp(provider: LlamaCppInference) -> None:
    plain = await answer_of(provider, "Count from one to ten.", 40)
    for penalty in ("frequency_penalty", "presence_penalty"):
        assert await answer_of(provider, "Count from one to ten.", 40, **{penalty: 2.0}) != plain
    assert "The" not in await answer_of(provider, logit_bias={"504": -100})
    hot = {"strategy": SamplingStrategy.top_p, "temperature": 5.0, "top_p": 1.0, "seed": 3}
    assert await answer_of(provider, min_p=0.9, **hot) == await answer_of(provider)
    assert await answer_of(provider, **hot) != await answer_of(provider)


async def test_every_seed_makes_sampling_repeatable(provider: LlamaCppInference) -> None:
    hot = {"strategy": SamplingStrategy.top_p, "temperature": 3.0, "top_p": 1.0}
    for seed in (0, 2**32 - 2, 2**32 - 1):  # llama.cpp takes the last for a random one
        assert len({await answer_of(provider, seed=seed, **hot) for _ in range(2)}) == 1


NODE = {
    "type": "object",
    "properties": {"on": {"$ref": "#/$defs/Flag"}},
    "required": ["on"],
    "additionalProperties": False,
}
FLAG = {"type": "boolean"}
SCHEMAS: dict[str, dict[str, Any]] = {
    "defs": {**NODE, "$defs": {"Flag": FLAG}},
    "defs in defs": {
        **NODE,
        "properties": {"on": {"$ref": "#/$defs/A"}},
        "$defs": {"A": {"$ref": "#/$defs/Flag"}, "Flag": FLAG},
    },
    "definitions": {**NODE, "properties": {"on": {"$ref": "#/definitions/F"}}, "definitions": {"F": FLAG}},
    "a property": {
        **NODE,
        "properties": {"on": FLAG, "off": {"$ref": "#/properties/on"}},
        "required": ["on", "off"],
    },
    "no reference but its name": {
        **NODE,
        "properties": {"on": FLAG, "$ref": {"const": {"$ref": "#/x"}}},
        "required": ["on"],
    },
    "recursive": {
        **NODE,
        "properties": {"on": FLAG, "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}},
        "$defs": {"Node": {**NODE, "properties": {"on": FLAG}}},
    },
}


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
@pytest.mark.parametrize("others", [0, 1])
async def test_a_schema_with_references_holds_a_call(
    provider: LlamaCppInference, schema: dict[str, Any], others: int
) -> None:
    tools = [ToolDefinition(tool_name="set_light", description="Switch the light", input_schema=schema)]
    tools += [ToolDefinition(tool_name=f"other{n}", input_schema=SCHEMAS["definitions"]) for n in range(others)]
    reply = await provider.chat_completion(
        SMOL,
        [UserMessage(content="Switch the light on")],
        sampling_params=SamplingParams(max_tokens=100),
        tools=tools,
        tool_choice=ToolChoice.required,
    )
    assert isinstance(reply, ChatCompletionResponse)
    [call] = reply.completion_message.tool_calls
    assert isinstance(call, ToolCall)
    assert isinstance(call.arguments["on"], bool)


@pytest.mark.parametrize("choice", [None, ToolChoice.auto, ToolChoice.required])
async def test_log_probabilities_beside_tools_are_refused_in_our_words(
    provider: LlamaCppInference, choice: ToolChoice | None
) -> None:
    tools = [ToolDefinition(tool_name="f", input_schema=SCHEMAS["defs"])]
    with pytest.raises(NotSupportedError, match="gives no logprobs together with tools") as caught:
        await provider.chat_completion(
            SMOL, [UserMessage(content="x")], tools=tools, tool_choice=choice, logprobs=LogProbConfig()
        )
    assert caught.value.param == "logprobs"


# ---- defaults --------------------------------------------------------------------------------------------------------


def number(key: bytes, kind: int, form: str, value: float) -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + struct.pack(form, value)


def test_what_a_file_says_of_sampling(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 4)
    file.write_bytes(
        head
        + number(b"general.sampling.temp", 6, "<f", 0.7)
        + number(b"general.sampling.top_k", 5, "<i", 20)
        + number(b"general.sampling.top_p", 6, "<f", 0.8)
    )
    assert defaults_of_file(file) == {"temperature": 0.7, "top_k": 20, "top_p": 0.8}
    file.write_bytes(head + number(b"general.sampling.temp", 6, "<f", 0.7)[:-3])
    assert defaults_of_file(file) == {}
    file.write_bytes(b"")
    assert defaults_of_file(file) == {}


def test_defaults_count_where_nothing_is_said() -> None:
    own = {"temperature": 0.6, "top_k": 20}
    assert sampled({"max_tokens": 5}, {}, {}) == {"temperature": 0.0, "max_tokens": 5}
    assert sampled({}, {}, own) == own
    assert sampled({"top_p": 0.5}, {"top_p": 0.5}, own) == {"temperature": 0.6, "top_p": 0.5}
    whole = {"temperature": 1.0, "top_p": 0.95}
    assert sampled(whole, whole, own) == whole
    assert sampled({"temperature": 0.0}, {"temperature": 0.0}, own) == {"temperature": 0.0}


async def form_reply(provider: LlamaCppInference, extra: dict[str, Any] | None = None, **fields: Any) -> str:
    messages = [{"role": "user", "content": QUESTION}]
    form = OpenAIForm(SMOL, {"messages": messages, "max_tokens": 20, **fields}, extra=extra or {})
    reply = await provider.openai_chat(form)
    assert isinstance(reply, dict)
    return str(reply["choices"][0]["message"]["content"])


async def test_samplers_of_llama_cpp_in_openais_form(provider: LlamaCppInference) -> None:
    plain = "The capital of Italy is Rome."
    assert await form_reply(provider) == plain
    assert "The" not in await form_reply(provider, logit_bias={"504": -100})
    hot = {"temperature": 5.0, "top_p": 1.0, "seed": 3}
    assert await form_reply(provider, **hot) != plain
    assert await form_reply(provider, **hot, min_p=0.9) == plain
    assert await form_reply(provider, **hot, top_k=1) == plain


async def test_fields_that_only_llama_cpp_has_reach_it(provider: LlamaCppInference) -> None:
    assert await form_reply(provider, {"grammar": 'root ::= "Roma"'}) == "Roma"
    hot = {"temperature": 5.0, "top_p": 1.0, "seed": 3}
    assert await form_reply(provider, {"typical_p": 0.01}, **hot) != await form_reply(provider, **hot)
    assert await form_reply(provider, {"mirostat": 2, "mirostat_tau": 0.1}, **hot) != await form_reply(provider, **hot)
    with pytest.raises(InvalidRequestError, match="grammar"):
        await form_reply(provider, {"grammar": "root ::= ("})
    with pytest.raises(InvalidRequestError) as refused:
        await form_reply(provider, {"id_slot": 0})
    assert refused.value.param == "id_slot"


def test_the_config_goes_before_the_file() -> None:
    config = LlamaCppConfig.model_validate(
        {"models": [{"identifier": "m", "path": "m.gguf", "sampling": {"temperature": 0.2, "min_p": 0.1}}]}
    )
    given = config.models[0].sampling.model_dump(exclude_none=True)
    assert {"temperature": 0.7, "top_k": 20} | given == {"temperature": 0.2, "top_k": 20, "min_p": 0.1}
