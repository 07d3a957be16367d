"""What families of models take of a chat, by the names of models."""

from __future__ import annotations

from typing import Any

import pytest
from openai_bodies import chat_request
from pydantic import ValidationError

from llamastack.api.common import SamplingParams, SamplingStrategy, SystemMessage, UserMessage
from llamastack.api.inference import LogProbConfig
from llamastack.provider import Deps, NotSupportedError
from llamastack_adapters.openai_dialect import Dialect, OpenAIConfig, OpenAIInference
from llamastack_adapters.openai_dialect.model_families import families

MESSAGES = [SystemMessage(content="Be brief"), UserMessage(content="Hello")]
TABLE = Dialect("p", samplers=Dialect.SAMPLERS, family=families({}))


def body(model: str, dialect: Dialect = TABLE, **arguments: Any) -> dict[str, Any]:
    return chat_request(dialect, model=model, messages=MESSAGES, **arguments)


@pytest.mark.parametrize(
    ("model", "field", "role", "sampled"),
    [
        ("o1", "max_completion_tokens", "developer", False),
        ("o3-mini-2025-01-31", "max_completion_tokens", "developer", False),
        ("openai/o4-mini", "max_completion_tokens", "developer", False),
        ("gpt-5.1", "max_completion_tokens", "developer", False),
        ("GPT-5-nano", "max_completion_tokens", "developer", False),
        ("ft:o4-mini-2025-04-16:acme::x1", "max_completion_tokens", "developer", False),
        ("o1-mini", "max_completion_tokens", "user", False),
        ("o1-preview-2024-09-12", "max_completion_tokens", "user", False),
        ("gpt-5-chat-latest", "max_completion_tokens", "system", True),
        ("gpt-4o", "max_tokens", "system", True),
        ("gpt-4.1-mini", "max_tokens", "system", True),
        ("gpt-oss-120b", "max_tokens", "system", True),
        ("olmo-2", "max_tokens", "system", True),
        ("gpt-50", "max_tokens", "system", True),
    ],
)
def test_the_name_tells_the_family(model: str, field: str, role: str, sampled: bool) -> None:
    made = body(model, sampling_params=SamplingParams(max_tokens=7))
    assert made[field] == 7
    assert {"max_tokens", "max_completion_tokens"} & made.keys() == {field}
    assert made["messages"][0] == {"role": role, "content": "Be brief"}
    assert made.get("temperature") == (0.0 if sampled else None)


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"sampling_params": {"strategy": "top_p", "temperature": 0.7}}, "sampling_params.temperature"),
        ({"sampling_params": {"strategy": "top_p", "temperature": 1, "top_p": 0.5}}, "sampling_params.top_p"),
        ({"sampling_params": {"presence_penalty": 1}}, "sampling_params.presence_penalty"),
        ({"sampling_params": {"stop": ["."]}}, "sampling_params.stop"),
        ({"logprobs": LogProbConfig()}, "logprobs"),
    ],
)
def test_what_a_family_lacks_is_refused_by_name(arguments: dict[str, Any], param: str) -> None:
    if "sampling_params" in arguments:
        arguments = {"sampling_params": SamplingParams(**arguments["sampling_params"])}
    with pytest.raises(NotSupportedError, match="openai-reasoning") as refused:
        body("o3", **arguments)
    assert refused.value.param == param
    assert body("gpt-4o", **arguments)


def test_what_a_family_does_anyway_is_left_out() -> None:
    params = SamplingParams(strategy=SamplingStrategy.top_p, temperature=1, top_p=1, presence_penalty=0)
    assert body("o3", sampling_params=params).keys() == {"model", "messages"}


def test_a_field_that_the_config_names_goes_before_the_family() -> None:
    own = Dialect("p", max_tokens="limit", family=families({}))
    assert body("o3", own, sampling_params=SamplingParams(max_tokens=7))["limit"] == 7


@pytest.mark.anyio
async def test_the_config_goes_before_the_table() -> None:
    class Inference(OpenAIInference):
        key_field = "api_key"

    config = OpenAIConfig.model_validate(
        {
            "url": "http://127.0.0.1:9/v1",
            "models": {"mine": "deployment-7"},
            "model_families": {"mine": "openai-reasoning", "o3-local": "plain"},
        }
    )
    made = Inference(config, Deps(provider_id="p"), Dialect("p"), url=config.url, key=None)
    assert body("deployment-7", made.dialect)["messages"][0]["role"] == "developer"
    assert body("o3-local", made.dialect)["messages"][0]["role"] == "system"
    await made.shutdown()
    with pytest.raises(ValidationError, match="openai-reasoning"):
        OpenAIConfig.model_validate({"url": "http://127.0.0.1:9/v1", "model_families": {"a": "reasoning"}})
