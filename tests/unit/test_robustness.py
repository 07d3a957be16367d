"""What a provider, a client, or another worker can do at a bad moment, and what must not come of it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import scripted_fake
from scripted_fake import Script, ScriptedInference
from scripted_stacks import Scripted, Scripts

from llamastack.api import KeywordMemoryBank, MemoryBankDocument, Model, UserMessage
from llamastack.provider import Deps, ProviderSpec
from llamastack.provider.context import current_context, use_provider_data
from llamastack.provider.errors import InvalidRequestError, ProviderUnavailableError
from llamastack.stack import Stack
from llamastack.stack.resources import catalogue, reconciliation
from llamastack_adapters.openai_dialect import chat_stream

pytestmark = pytest.mark.anyio
HELLO = [UserMessage(content="Hello")]


def listings(script: Script) -> int:
    return sum(name == "list" for name, _ in script.calls)


async def test_a_registration_that_cannot_be_replayed_is_not_tried_in_a_hurry(
    scripted: Scripted, script: Scripts
) -> None:
    a = script("a", serves=[], fail_register=ProviderUnavailableError("embeddings are away"))
    async with scripted("a", models=[{"identifier": "m"}]):
        await anyio.sleep(0.5)
    assert listings(a) <= 2


async def test_many_failed_calls_are_one_reason_to_look(scripted: Scripted, script: Scripts) -> None:
    a = script("a", fail_call=ConnectionError("refused"))
    async with scripted("a") as stack:
        for _ in range(200):
            with pytest.raises(ProviderUnavailableError):
                await stack.inference.chat_completion(model="m", messages=[*HELLO])
        assert listings(a) <= 2


async def test_a_register_hook_that_hangs_holds_up_nobody(
    scripted: Scripted, script: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciliation, "HOOK_TIMEOUT_S", 0.3)
    script("a", serves=["m"], hang_register=True)
    with anyio.fail_after(5):
        async with scripted("a", models=[{"identifier": "stuck"}]) as stack:
            found = {m.identifier: m.unavailable_reason for m in await stack.models.list_models()}
            assert found["m"] is None
            assert "did not answer in time" in (found["stuck"] or "")
            await stack.inference.chat_completion(model="m", messages=[*HELLO])


async def test_stopping_does_not_wait_for_a_provider_that_starts(scripted: Scripted, script: Scripts) -> None:
    script("a", hang_start=True)
    with anyio.fail_after(5), anyio.move_on_after(0.2):
        async with scripted("a", start_timeout_s=60):
            pytest.fail("must not be started")


async def test_a_row_that_cannot_be_read_is_left_out(
    scripted: Scripted, script: Scripts, store: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def write(identifier: str, body: str) -> None:
        with sqlite3.connect(tmp_path / "registry.sqlite") as connection:
            connection.execute("INSERT INTO records (kind, key, value) VALUES ('models', ?, ?)", (identifier, body))
        connection.close()

    script("a", serves=[])
    async with scripted("a", store=store) as stack:
        write("odd", '{"identifier": 5}')
        write("good", '{"identifier": "good", "provider_id": "a"}')
        with anyio.fail_after(5):
            while await stack.models.get_model("good") is None:
                await anyio.sleep(0.02)
    assert "models 'odd'" in caplog.text.replace("model '", "models '")
    async with scripted("a", store=store) as stack:
        assert [m.identifier for m in await stack.models.list_models()] == ["good"]


async def test_registering_anew_within_one_round_of_following_loses_nothing() -> None:
    config = {"providers": {"memory": [{"provider_id": "s", "provider_type": "remote::sample"}]}}
    async with Stack.from_config(config) as stack:
        bank = KeywordMemoryBank(identifier="b")
        await stack.memory_banks.register_memory_bank(bank)
        await stack.memory_banks.unregister_memory_bank("b")
        await stack.memory_banks.register_memory_bank(bank)
        documents = [MemoryBankDocument(document_id="d", content="llamas hum")]
        await stack.memory.insert_documents(bank_id="b", documents=documents)
        await anyio.sleep(1.2)
        found = await stack.memory.query_documents(bank_id="b", query="hum")
        assert len(found.chunks) == 1


async def test_no_call_reaches_a_provider_that_is_not_ready(
    scripted: Scripted, script: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = script("a")
    ready = anyio.Event()

    async def initialize(self: ScriptedInference) -> None:
        await ready.wait()

    monkeypatch.setattr(ScriptedInference, "initialize", initialize)
    stack = scripted("a")
    async with anyio.create_task_group() as group:
        done = anyio.Event()

        async def run() -> None:
            async with stack:
                await done.wait()

        group.start_soon(run)
        await anyio.sleep(0.1)
        with pytest.raises(ProviderUnavailableError, match="is starting"):
            await stack._handles["models"].register_model(Model(identifier="m"))
        assert a.calls == []
        ready.set()
        await anyio.sleep(0.1)
        await stack.inference.chat_completion(model="m", messages=[*HELLO])
        done.set()


async def test_what_a_cancelled_registration_began_is_undone(scripted: Scripted, script: Scripts) -> None:
    a = script("a", serves=[])
    async with scripted("a") as stack:
        a.slow_register_s = 5
        with anyio.move_on_after(0.1):
            await stack.models.register_model(Model(identifier="m"))
        assert a.registered == []
        assert await stack.models.get_model("m") is None


async def test_what_is_unregistered_while_it_is_replayed_stays_unregistered(
    scripted: Scripted, script: Scripts, store: dict[str, Any]
) -> None:
    script("a", serves=[])
    async with scripted("a", store=store) as stack:
        await stack.models.register_model(Model(identifier="m"))
    a = script("a", serves=[], slow_register_s=0.5)
    async with scripted("a", store=store) as one, scripted("a", store=store) as two:
        assert a.registered == ["m", "m"]
        await one.models.register_model(Model(identifier="other"))
        await anyio.sleep(0.7)  # the other worker is at it now
        await two.models.unregister_model("other")
        await anyio.sleep(1.0)
        assert a.registered.count("other") == 0
        assert await two.models.get_model("other") is None


async def test_a_provider_that_is_started_anew_is_told_its_registrations_again(
    scripted: Scripted, script: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = script("a", serves=[])
    crash = anyio.Event()

    async def make(config: scripted_fake.Config, deps: Deps) -> ScriptedInference:
        async def background() -> None:
            await crash.wait()
            raise ValueError("crash")

        deps.task_group.start_soon(background)
        return ScriptedInference("a", a)

    monkeypatch.setattr(scripted_fake, "make", make)
    async with scripted("a") as stack:
        await stack.models.register_model(Model(identifier="m"))
        crash.set()
        with anyio.fail_after(5):
            while stack.instances["inference"][0].reason is None:
                await anyio.sleep(0.01)
            crash = anyio.Event()
            while len(a.registered) < 2:
                await anyio.sleep(0.02)
        assert a.registered == ["m", "m"]


async def test_the_same_object_from_two_workers_is_no_conflict(
    scripted: Scripted, script: Scripts, store: dict[str, Any]
) -> None:
    script("a", serves=[])
    async with scripted("a", store=store) as one, scripted("a", store=store) as two:
        async with anyio.create_task_group() as group:
            for stack in (one, two):
                group.start_soon(stack.models.register_model, Model(identifier="m"))
        assert [m.identifier for m in await two.models.list_models()] == ["m"]


async def test_asking_sees_no_requests_provider_data(
    scripted: Scripted, script: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "_SHORTEST_POLL_S", 0.0)  # else what is unknown is not asked for so soon
    script("a")
    seen: list[Any] = []
    original = ScriptedInference.list_models

    async def list_models(self: ScriptedInference) -> list[Model]:
        seen.append(current_context().provider_data)
        return await original(self)

    monkeypatch.setattr(ScriptedInference, "list_models", list_models)
    async with scripted("a") as stack:
        with use_provider_data({"alices_key": "1"}):
            assert await stack.models.get_model("unknown") is None
    assert seen == [None, None]


async def test_a_hanging_listing_delays_a_request_only_so_long(
    scripted: Scripted, script: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llamastack.stack import supervisor as instance

    monkeypatch.setattr(instance, "_LONGEST_WAIT_S", 0.2)
    a = script("a")
    async with scripted("a") as stack:
        a.hang_list = True
        await anyio.sleep(1.05)
        with anyio.fail_after(2):
            assert await stack.models.get_model("unknown") is None
            await stack.inference.chat_completion(model="m", messages=[*HELLO])


async def test_a_background_task_that_fails_is_a_reason_to_start_again(
    scripted: Scripted, script: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = script("a")
    crash = anyio.Event()

    async def make(config: scripted_fake.Config, deps: Deps) -> ScriptedInference:
        async def background() -> None:
            await crash.wait()
            raise AttributeError("a slip in the provider's own task")

        deps.task_group.start_soon(background)
        return ScriptedInference("a", a)

    monkeypatch.setattr(scripted_fake, "make", make)
    async with scripted("a") as stack:
        instance = stack.instances["inference"][0]
        crash.set()
        with anyio.fail_after(5):
            while instance.reason is None:
                await anyio.sleep(0.01)
            assert "a slip in the provider's own task" in instance.reason
            crash = anyio.Event()
            while instance.status != "healthy":
                await anyio.sleep(0.02)
        assert a.order.count("start a") == 2


async def test_a_fault_that_may_pass_is_never_taken_for_a_permanent_one(
    scripted: Scripted, script: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = script("a", fail_start=ProviderUnavailableError("the backend is away"))
    load, seen = ProviderSpec.load_factory, []

    def watched(spec: ProviderSpec) -> Callable[..., Awaitable[object]]:
        """Each attempt loads the factory anew."""
        seen.extend(instance.permanent for instance in stack.instances["inference"])
        a.fail_start = None if len(seen) > 1 else a.fail_start
        return load(spec)

    monkeypatch.setattr(ProviderSpec, "load_factory", watched)
    stack = scripted("a")
    async with stack:
        instance = stack.instances["inference"][0]
        assert (instance.status, instance.permanent) == ("down", False)
        with anyio.fail_after(20):
            while instance.status != "healthy":
                await anyio.sleep(0.02)
    assert seen == [False, False]


async def test_background_tasks_live_until_shutdown_is_over(
    scripted: Scripted, script: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = script("a")

    class Flushing(ScriptedInference):
        async def shutdown(self) -> None:
            self.last_words.set()
            await self.flushed.wait()

    async def make(config: scripted_fake.Config, deps: Deps) -> ScriptedInference:
        provider = Flushing("a", a)
        provider.last_words, provider.flushed = anyio.Event(), anyio.Event()  # type: ignore[attr-defined]

        async def background() -> None:
            await provider.last_words.wait()  # type: ignore[attr-defined]
            a.order.append("flushed")
            provider.flushed.set()  # type: ignore[attr-defined]

        deps.task_group.start_soon(background)
        return provider

    monkeypatch.setattr(scripted_fake, "make", make)
    with anyio.fail_after(5):
        async with scripted("a"):
            pass
    assert a.order[-1] == "flushed"


async def test_an_error_inside_a_providers_task_group_keeps_its_kind(scripted: Scripted, script: Scripts) -> None:
    script("a", fail_call=ExceptionGroup("tasks", [InvalidRequestError("bad", param="x")]))
    async with scripted("a") as stack:
        with pytest.raises(InvalidRequestError, match="bad"):
            await stack.inference.chat_completion(model="m", messages=[*HELLO])


@pytest.mark.parametrize("pieces_read", [0, 1])
async def test_closing_a_stream_closes_its_source_at_once(pieces_read: int) -> None:
    closed: list[str] = []

    async def source() -> AsyncIterator[dict[str, Any]]:
        try:
            while True:
                yield {"choices": [{"delta": {"content": "x"}}]}
        finally:
            closed.append(str(anyio.get_current_task().id))

    inner = source()
    stream = chat_stream(inner, "p")
    for _ in range(pieces_read):
        await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert closed == ([str(anyio.get_current_task().id)] if pieces_read else [])


async def test_a_stream_that_is_closed_unread_is_closed_at_the_provider(
    scripted: Scripted, script: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    script("a")
    closed: list[bool] = []

    class Pieces(AsyncIterator[Any]):
        async def __anext__(self) -> Any:
            raise StopAsyncIteration

        async def aclose(self) -> None:
            closed.append(True)

    monkeypatch.setattr(ScriptedInference, "_pieces", lambda self: Pieces())
    async with scripted("a") as stack:
        stream = await stack.inference.chat_completion(model="m", messages=[*HELLO], stream=True)
        await stream.aclose()
    assert closed
