"""The vLLM that the stack starts itself.

With a stand-in of its server, whose faults are the tests'. `VLLM_PYTHON` (a Python that has vLLM) and `VLLM_MODEL` (a
folder with an instruction-tuned model) let the first tests run with the real one, `VLLM_ARGUMENTS` and
`VLLM_ENVIRONMENT` (JSON objects) where it needs more; so they were, with vLLM 0.32 on a CPU.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from backends.llama_server import LlamaServer
from pydantic import ValidationError

from llamastack import Stack
from llamastack.api import (
    JsonSchemaResponseFormat,
    LogProbConfig,
    ProviderStatus,
    SamplingParams,
    StopReason,
    UserMessage,
)
from llamastack.provider import BackendError, LlamaStackError, NotFoundError, ProviderUnavailableError
from llamastack_conformance import InferenceConformance
from llamastack_provider_vllm.config import VLLMConfig
from llamastack_provider_vllm.process import command_line

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]
TESTS = Path(__file__).parents[4] / "tests"
REAL = "VLLM_PYTHON" in os.environ
NAME = "SmolLM2-135M-Instruct"
ASK = [UserMessage(content="What is the capital of France?")]
Start = Callable[..., AbstractAsyncContextManager[Stack]]
stand_in_only = pytest.mark.skipif(REAL, reason="the fault is the stand-in's")


def stand_in(llama: LlamaServer, *faults: str) -> dict[str, Any]:
    """The config that starts the stand-in."""
    environment = {
        "PYTHONPATH": str(TESTS / "backends" / "vllm_stand_in"),
        "STAND_IN_TESTS": str(TESTS),
        "STAND_IN_LLAMA": llama.url,
        "STAND_IN_EMBEDDER": llama.embeddings_url,
        "STAND_IN": " ".join(faults),
    }
    return {"python": sys.executable, "environment": environment}


def real() -> dict[str, Any]:
    return {
        "python": os.environ["VLLM_PYTHON"],
        "model": os.environ["VLLM_MODEL"],
        "arguments": json.loads(os.environ.get("VLLM_ARGUMENTS", "{}")),
        "environment": json.loads(os.environ.get("VLLM_ENVIRONMENT", "{}")),
    }


@pytest.fixture
def start(llama: LlamaServer) -> Start:
    """`async with start(*faults, **config) as stack`."""

    @asynccontextmanager
    async def run(*faults: str, **config: Any) -> AsyncIterator[Stack]:
        base = {"model": "/models/smol", "identifier": NAME, "context_length": 1024}
        full = {**base, **(real() if REAL else stand_in(llama, *faults)), **config}
        provider = {"provider_id": "v", "provider_type": "vllm", "config": full}
        async with Stack.from_config({"providers": {"inference": [provider]}, "start_timeout_s": 5}) as stack:
            yield stack

    return run


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def has_ended(pid: int) -> bool:
    with anyio.move_on_after(10):
        while not ended(pid):
            await anyio.sleep(0.05)
    return ended(pid)


def group_of(stack: Stack) -> int:
    """The process group of the running vLLM."""
    pid: int = stack.instances["inference"][0].provider._process._process.pid
    return pid


# ---- with the stand-in or the real one ---------------------------------------------------------------------------


async def test_a_model_is_served_and_the_process_goes_with_the_stack(start: Start) -> None:
    async with start(models={"small": NAME}) as stack:
        pid = group_of(stack)
        assert [model.identifier for model in await stack.models.list_models()] == [NAME, "small"]
        assert (await stack.models.get_model(identifier=NAME)).metadata == {"context_length": 1024}
        arguments: dict[str, Any] = {
            "model": "small",
            "messages": ASK,
            "sampling_params": SamplingParams(max_tokens=16),
        }
        reply = (await stack.inference.chat_completion(**arguments)).completion_message
        assert "Paris" in reply.content
        assert reply.stop_reason is StopReason.end_of_turn
        chunks = [c.event async for c in await stack.inference.chat_completion(**arguments, stream=True)]
        assert "".join(str(c.delta) for c in chunks) == reply.content
        schema = JsonSchemaResponseFormat(
            json_schema={
                "type": "object",
                "properties": {"a": {"type": "boolean"}},
                "required": ["a"],
                "additionalProperties": False,
            }
        )
        held = await stack.inference.chat_completion(
            **{**arguments, "sampling_params": SamplingParams(max_tokens=64)}, response_format=schema
        )
        assert isinstance(json.loads(str(held.completion_message.content))["a"], bool)
        places = (await stack.inference.chat_completion(**arguments, logprobs=LogProbConfig(top_k=2))).logprobs
        assert places is not None
        assert len(places[0].logprobs_by_token) in (2, 3)
        with pytest.raises(LlamaStackError) as caught:
            await stack.inference.chat_completion(model=NAME, messages=[UserMessage(content="x " * 3000)])
        assert caught.value.code == "context_length_exceeded"
    assert await has_ended(pid)


async def test_a_stream_that_is_left_does_not_keep_it_from_ending(start: Start) -> None:
    async with start() as stack:
        pid = group_of(stack)
        stream = await stack.inference.chat_completion(
            model=NAME,
            messages=[UserMessage(content="Count from one to one thousand.")],
            sampling_params=SamplingParams(max_tokens=900),
            stream=True,
        )
        await anext(aiter(stream))
        await stream.aclose()
    assert await has_ended(pid)


# ---- faults of the stand-in --------------------------------------------------------------------------------------


@stand_in_only
async def test_it_is_started_again_after_a_crash(start: Start) -> None:
    async with start("crash", "child") as stack:
        instance = stack.instances["inference"][0]
        pid = group_of(stack)
        child = int(re.findall(r"child (\d+)", "\n".join(instance.provider._process._last))[0])
        with pytest.raises((BackendError, ProviderUnavailableError)):
            await stack.inference.chat_completion(model=NAME, messages=ASK)
        with anyio.fail_after(10):
            while not re.fullmatch(r"vLLM ended with status 0: .*EngineCore died", instance.reason or ""):
                await anyio.sleep(0.01)
        with anyio.fail_after(20):
            while instance.status is not ProviderStatus.healthy:
                await anyio.sleep(0.05)
        assert group_of(stack) != pid
        assert await has_ended(child)


@stand_in_only
async def test_what_it_says_when_it_cannot_load(start: Start) -> None:
    async with start("no-load") as stack:
        instance = stack.instances["inference"][0]
        assert instance.status is ProviderStatus.down
        assert instance.reason == "vLLM ended with status 1: INFO loading | ValueError: no room for the KV cache"


@stand_in_only
async def test_one_that_ignores_the_signal_is_killed(start: Start) -> None:
    async with start("deaf") as stack:
        pid = group_of(stack)
    assert await has_ended(pid)


@stand_in_only
async def test_it_is_given_up_when_loading_takes_too_long(start: Start) -> None:
    async with start(load_timeout_s=0.2) as stack:
        instance = stack.instances["inference"][0]
        assert instance.reason == "vLLM did not load /models/smol within 0.2 s"


async def test_a_python_that_is_not_there(start: Start) -> None:
    async with start(python="/nowhere/python") as stack:
        instance = stack.instances["inference"][0]
        assert instance.reason == "/nowhere/python cannot be run: No such file or directory"


async def test_a_python_without_vllm() -> None:
    provider = {"provider_id": "v", "provider_type": "vllm", "config": {"model": "m"}}
    async with Stack.from_config({"providers": {"inference": [provider]}}) as stack:
        instance = stack.instances["inference"][0]
        assert instance.permanent
        assert "the package vllm is not installed: 'pip install llamastack-provider-vllm[inline]'" in str(
            instance.reason
        )
        with pytest.raises((NotFoundError, ProviderUnavailableError)):
            await stack.inference.chat_completion(model="v/m", messages=ASK)


# ---- config ------------------------------------------------------------------------------------------------------


def test_the_command_line() -> None:
    config = VLLMConfig.model_validate(
        {
            "model": "org/model",
            "python": "/env/bin/python",
            "context_length": 4096,
            "gpu_memory_utilization": 0.8,
            "tool_call_parser": "hermes",
            "chat_template": "t.jinja",
            "arguments": {"enforce-eager": True, "dtype": "float32", "max-num-seqs": 4, "trust-remote-code": False},
        }
    )
    assert command_line(config, Path("/run/x.sock")) == [
        "/env/bin/python",
        "-m",
        "vllm.entrypoints.openai.api_server",
        *("--model", "org/model"),
        *("--served-model-name", "org/model"),
        *("--uds", "/run/x.sock"),
        *("--tensor-parallel-size", "1"),
        *("--max-model-len", "4096"),
        *("--gpu-memory-utilization", "0.8"),
        *("--tool-call-parser", "hermes"),
        "--enable-auto-tool-choice",
        *("--chat-template", "t.jinja"),
        "--enforce-eager",
        *("--dtype", "float32"),
        *("--max-num-seqs", "4"),
    ]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "model"),
        ({"model": ""}, "model"),
        ({"model": "m", "arguments": {"uds": "/x"}}, "'uds' is set by the provider"),
        ({"model": "m", "arguments": {"--dtype": "x"}}, "arguments"),
        ({"model": "m", "gpu_memory_utilization": 2}, "gpu_memory_utilization"),
        ({"model": "m", "url": "http://x"}, "url"),
    ],
)
def test_configs_that_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        VLLMConfig.model_validate(config)


def test_the_environment_is_not_shown() -> None:
    config = VLLMConfig.model_validate({"model": "m", "environment": {"HF_TOKEN": "hf_s3cret"}})
    assert "hf_s3cret" not in f"{config!r} {config.model_dump_json()}"


class TestVLLMConformance(InferenceConformance):
    """The conformance suite against the engine: the real one, or the stand-in over llama.cpp's."""

    provider_type = "vllm"

    @pytest.fixture(scope="class")
    @classmethod
    def llamastack_config(cls, llama: LlamaServer) -> dict[str, Any]:
        config = {"model": "/models/smol", "identifier": NAME, "context_length": 1024}
        config |= real() if REAL else stand_in(llama)
        provider = {"provider_id": "v", "provider_type": cls.provider_type, "config": config}
        settings = {"parallel_calls": 8, "many_texts": 35}
        return {"providers": {"inference": [provider]}, "x-conformance": settings}
