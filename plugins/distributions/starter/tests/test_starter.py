"""The run config `starter` in process: real models, real vectors in SQLite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from blockbuster import blockbuster_ctx

from llamastack import Stack
from llamastack.api import MemoryBankDocument, SamplingParams, UserMessage, VectorMemoryBank
from llamastack.provider.errors import ObjectNotFoundError
from llamastack.stack.config import load_config
from llamastack.stack.discovery import default_discovery
from llamastack.stack.plugins import Plugins

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("starter")]
CHAT_MODEL = "SmolLM2-135M-Instruct"
QUESTION = [UserMessage(content="What is the capital of France?")]
SHORT = SamplingParams(max_tokens=16)


@pytest.fixture
async def starter(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stack]:
    monkeypatch.setenv("LLAMASTACK_THREADS", "1")
    async with Stack.from_config("starter") as stack:
        yield stack


def test_it_is_found_by_name_and_lies_in_its_own_folder(own_home: Path) -> None:
    found = default_discovery()
    config = load_config("starter", Plugins(found).apis(), found)
    assert config.source.startswith("starter (run.yaml of llamastack-starter")
    assert config.folder == own_home / "starter"


async def test_a_real_model_answers_whole_and_streamed(starter: Stack) -> None:
    reply = await starter.inference.chat_completion(model=CHAT_MODEL, messages=[*QUESTION], sampling_params=SHORT)
    assert "Paris" in str(reply.completion_message.content)
    text = ""
    async for chunk in await starter.inference.chat_completion(
        model=CHAT_MODEL, messages=[*QUESTION], sampling_params=SHORT, stream=True
    ):
        text += str(chunk.event.delta)
    assert text == reply.completion_message.content


async def test_memory_embeds_through_the_stacks_own_inference(starter: Stack) -> None:
    bank = VectorMemoryBank(identifier="facts", embedding_model="all-MiniLM-L6-v2", chunk_size_in_tokens=64)
    await starter.memory_banks.register_memory_bank(bank)
    documents = [
        MemoryBankDocument(document_id="llamas", content="Llamas spit when they are annoyed."),
        MemoryBankDocument(document_id="paris", content="Paris is the capital of France."),
    ]
    await starter.memory.insert_documents(bank_id="facts", documents=documents)
    found = await starter.memory.query_documents(
        bank_id="facts", query="What do angry animals do?", params={"max_chunks": 1}
    )
    assert [chunk.document_id for chunk in found.chunks] == ["llamas"]
    with pytest.raises(ObjectNotFoundError, match="no model 'nope' is served"):
        await starter.memory_banks.register_memory_bank(
            bank.model_copy(update={"identifier": "bad", "embedding_model": "nope"})
        )
    assert await starter.memory_banks.get_memory_bank("bad") is None


async def test_banks_and_documents_survive_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMASTACK_THREADS", "1")
    bank: dict[str, Any] = {"identifier": "kept", "embedding_model": "all-MiniLM-L6-v2", "chunk_size_in_tokens": 64}
    async with Stack.from_config("starter") as stack:
        await stack.memory_banks.register_memory_bank(VectorMemoryBank(**bank))
        document = MemoryBankDocument(document_id="d", content="Llamas hum.")
        await stack.memory.insert_documents(bank_id="kept", documents=[document])
    async with Stack.from_config("starter") as stack:
        kept = await stack.memory_banks.get_memory_bank("kept")
        assert kept is not None
        assert kept.unavailable_reason is None
        found = await stack.memory.query_documents(bank_id="kept", query="humming")
        assert [chunk.content for chunk in found.chunks] == ["Llamas hum."]


async def test_calls_are_traced(starter: Stack, own_home: Path) -> None:
    await starter.inference.chat_completion(model=CHAT_MODEL, messages=[*QUESTION], sampling_params=SHORT)
    with anyio.fail_after(30):
        while not (page := await starter.telemetry.list_traces(name="chat")).data:
            await anyio.sleep(0.05)
    [trace] = page.data
    assert trace.name == f"chat {CHAT_MODEL}"
    assert trace.input_tokens
    assert trace.output_tokens
    assert [*own_home.rglob("traces.sqlite")]


async def test_nothing_blocks_the_event_loop() -> None:
    """From start to stop, over every provider: files, sleeps, locks and sockets stay off the loop."""
    modules = ["llamastack", *(i.value.partition(":")[0] for i in default_discovery().providers())]
    stack = Stack.from_config("starter")
    with blockbuster_ctx(scanned_modules=sorted({m.partition(".")[0] for m in modules})):
        async with stack:
            await stack.inference.chat_completion(model=CHAT_MODEL, messages=[*QUESTION], sampling_params=SHORT)
            bank = VectorMemoryBank(identifier="b", embedding_model="all-MiniLM-L6-v2", chunk_size_in_tokens=64)
            await stack.memory_banks.register_memory_bank(bank)
            document = MemoryBankDocument(document_id="d", content="Llamas hum.")
            await stack.memory.insert_documents(bank_id="b", documents=[document])
            await stack.memory.query_documents(bank_id="b", query="humming")
            await stack.memory_banks.unregister_memory_bank("b")
            assert (await stack.inspect.health()).status == "OK"


async def test_a_cancelled_reply_frees_the_model(starter: Stack) -> None:
    endless = SamplingParams(max_tokens=2000)
    with anyio.move_on_after(0.5) as limit:
        await starter.inference.chat_completion(
            model=CHAT_MODEL, messages=[UserMessage(content="Write a very long story.")], sampling_params=endless
        )
    assert limit.cancelled_caught
    with anyio.fail_after(20):
        await starter.inference.chat_completion(model=CHAT_MODEL, messages=[*QUESTION], sampling_params=SHORT)
