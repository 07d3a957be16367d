"""What is special to the sample providers; what every provider does is tested with the core."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from llamastack.api import (
    AgentConfig,
    ChatCompletionResponse,
    CompletionResponse,
    FunctionCallToolDefinition,
    KeywordMemoryBank,
    MemoryBankDocument,
    SamplingParams,
    Shield,
    SpanStartPayload,
    StructuredLogEvent,
    Turn,
    UserMessage,
    VectorMemoryBank,
)
from llamastack.provider import (
    Deps,
    InvalidRequestError,
    NotFoundError,
    NotSupportedError,
    UnsupportedMemoryBankError,
    UnsupportedShieldError,
)
from llamastack.provider.builtin_apis import BUILTIN_APIS
from llamastack.provider.compliance import check_provider
from llamastack_provider_sample import AGENTS, INFERENCE, MEMORY, SAFETY, TELEMETRY

pytestmark = pytest.mark.anyio
DEFINITIONS = {api.name: api for api in BUILTIN_APIS}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def make(spec: Any, **config: Any) -> Any:
    """A provider as the stack makes it."""
    apis = {"inference": await make(INFERENCE)} if spec is AGENTS else {}
    return await spec.load_factory()(spec.load_config_class()(**config), Deps(provider_id="s", apis=apis))


@pytest.mark.parametrize("spec", [INFERENCE, SAFETY, MEMORY, AGENTS, TELEMETRY], ids=lambda spec: spec.api)
async def test_each_is_a_provider_of_its_api(spec: Any) -> None:
    assert check_provider(DEFINITIONS[spec.api], await make(spec), spec.capabilities) == []


async def test_a_reply_is_cut_at_max_tokens() -> None:
    inference = await make(INFERENCE, prefix="You said: ")
    reply = await inference.chat_completion("m", [UserMessage(content="a b")], SamplingParams(max_tokens=3))
    assert isinstance(reply, ChatCompletionResponse)
    assert reply.completion_message.content == "You said: a "
    assert reply.completion_message.stop_reason == "out_of_tokens"


async def test_a_reply_ends_before_the_first_stop() -> None:
    inference = await make(INFERENCE)
    params = SamplingParams(stop=["", "never", "spit", "hum"])
    reply = await inference.completion("m", "llamas hum and spit", params)
    assert isinstance(reply, CompletionResponse)
    assert reply.completion_message.content == "llamas "
    assert reply.completion_message.stop_reason == "end_of_turn"


async def test_a_shield_needs_words() -> None:
    safety = await make(SAFETY)
    for params in ({}, {"words": "x"}, {"words": [""]}):
        with pytest.raises(UnsupportedShieldError, match=r"params\.words must be a list of words"):
            await safety.register_shield(Shield(identifier="bad", type="words", params=params))
    assert [shield.identifier for shield in await safety.list_shields()] == ["sample-words"]


async def test_memory_takes_keyword_banks_alone() -> None:
    memory = await make(MEMORY)
    bank = VectorMemoryBank(identifier="v", embedding_model="e", chunk_size_in_tokens=5)
    with pytest.raises(UnsupportedMemoryBankError, match="keeps banks of type 'keyword', not 'vector'"):
        await memory.register_memory_bank(bank)


async def test_memory_finds_by_words_until_the_ttl_is_over() -> None:
    memory = await make(MEMORY)
    await memory.initialize()
    await memory.register_memory_bank(KeywordMemoryBank(identifier="b"))
    await memory.insert_documents("b", [MemoryBankDocument(document_id="1", content="llamas hum")])
    await memory.insert_documents("b", [MemoryBankDocument(document_id="2", content="llamas spit")], ttl_seconds=1)
    found = await memory.query_documents("b", "llamas spit")
    assert ([c.document_id for c in found.chunks], found.scores) == (["2", "1"], [1.0, 0.5])
    for wrong in (0, -1, "three", 10**9):
        with pytest.raises(InvalidRequestError, match="max_chunks"):
            await memory.query_documents("b", "llamas", {"max_chunks": wrong})
    await anyio.sleep(1.01)
    assert [c.document_id for c in (await memory.query_documents("b", "spit llamas")).chunks] == ["1"]
    await memory.shutdown()


async def test_telemetry_keeps_the_newest_traces() -> None:
    telemetry = await make(TELEMETRY, max_traces=2)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(3):
        for later, parent in ((1, "root"), (0, None)):
            await telemetry.log_event(
                StructuredLogEvent(
                    trace_id=f"t{number}",
                    span_id="root" if parent is None else "child",
                    timestamp=start + timedelta(seconds=later),
                    payload=SpanStartPayload(name="n", parent_span_id=parent),
                )
            )
    trace = await telemetry.get_trace("t2")
    assert (trace.root_span_id, trace.start_time, trace.end_time) == ("root", start, start + timedelta(seconds=1))
    with pytest.raises(NotFoundError, match="no trace 't0' is known"):
        await telemetry.get_trace("t0")


async def test_agents_remember_the_session_and_refuse_what_they_cannot() -> None:
    agents = await make(AGENTS)
    config = AgentConfig(model="m", instructions="i", enable_session_persistence=False)
    tool = FunctionCallToolDefinition(function_name="f", description="d", parameters={})
    with pytest.raises(NotSupportedError) as caught:
        await agents.create_agent(config.model_copy(update={"tools": [tool]}))
    assert caught.value.param == "agent_config.tools"
    agent_id = (await agents.create_agent(config)).agent_id
    session_id = (await agents.create_agent_session(agent_id, "n")).session_id
    turns = [await agents.create_agent_turn(agent_id, session_id, [UserMessage(content=text)]) for text in ("a", "b")]
    assert all(isinstance(turn, Turn) for turn in turns)
    assert (await agents.get_agent_session(agent_id, session_id)).turns == turns
    assert (await agents.get_agent_session(agent_id, session_id, [turns[1].turn_id])).turns == turns[1:]
    await agents.delete_agent_session(agent_id, session_id)
    with pytest.raises(NotFoundError, match="has no session"):
        await agents.get_agent_session(agent_id, session_id)
