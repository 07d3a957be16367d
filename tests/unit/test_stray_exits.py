"""What a provider raises that is no `Exception` ends its own work, not the stack; what is meant for us still works."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import scripted_fake
from scripted_fake import ScriptedInference
from scripted_stacks import Scripted, Scripts
from served_stack import served_stack

from llamastack.api import Model, ProviderStatus, UserMessage
from llamastack.provider import Deps
from llamastack.provider.errors import InternalError
from llamastack.provider.streams import Stream
from llamastack.stack import Stack, supervisor
from llamastack.stack.discovery import Discovery

pytestmark = pytest.mark.anyio
HELLO = [UserMessage(content="Hello")]


class Odd(BaseException):
    """Of a library that does not want to be caught."""


STRAYS = [SystemExit(3), asyncio.CancelledError("a task of mine"), Odd("odd"), BaseExceptionGroup("g", [Odd("odd")])]
strays = pytest.mark.parametrize("stray", STRAYS, ids=lambda stray: type(stray).__name__)


@pytest.fixture(autouse=True)
def ctrl_c_is_handled() -> Any:
    before = signal.signal(signal.SIGINT, lambda *_: None)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def soon_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that is down is looked at again after 50 ms, not after a second."""
    monkeypatch.setattr(supervisor, "_FIRST_RETRY_S", 0.05)


def raising(monkeypatch: pytest.MonkeyPatch, method: str, provider_id: str, stray: BaseException) -> list[bool]:
    """Have `method` of one instance raise for as long as the list that is given back is empty."""
    original = getattr(ScriptedInference, method)
    over: list[bool] = []

    async def replaced(self: ScriptedInference, *arguments: Any, **named: Any) -> Any:
        if self.name == provider_id and not over:
            raise stray
        return await original(self, *arguments, **named)

    monkeypatch.setattr(ScriptedInference, method, replaced)
    return over


async def answer_of(stack: Stack, model: str, **more: Any) -> Any:
    return await stack.inference.chat_completion(model=model, messages=HELLO, **more)


@strays
@pytest.mark.usefixtures("soon_tried_again")
@pytest.mark.parametrize("method", ["initialize", "list_models"])
async def test_at_start(
    scripted: Scripted, script: Scripts, monkeypatch: pytest.MonkeyPatch, method: str, stray: BaseException
) -> None:
    script("a", serves=["x"])
    script("b", serves=["y"])
    over = raising(monkeypatch, method, "a", stray)
    with anyio.fail_after(10):
        async with scripted("a", "b") as stack:
            down = stack.instances["inference"][0]
            assert down.status is ProviderStatus.down
            assert type(stray).__name__ in (down.reason or "") or "Odd" in (down.reason or "")
            await answer_of(stack, "y")
            over.append(True)
            while down.status is not ProviderStatus.healthy:
                await anyio.sleep(0.02)
            await answer_of(stack, "x")


@strays
@pytest.mark.usefixtures("soon_tried_again")
@pytest.mark.parametrize("starter", ["start_soon", "start"])
async def test_in_a_background_task(
    scripted: Scripted, script: Scripts, monkeypatch: pytest.MonkeyPatch, starter: str, stray: BaseException
) -> None:
    a = script("a", serves=["x"])
    script("b", serves=["y"])
    crash, again = anyio.Event(), anyio.Event()
    made: list[Deps] = []

    async def background(*, task_status: Any = anyio.TASK_STATUS_IGNORED) -> None:
        first = len(made) == 1
        task_status.started()
        if first:
            await crash.wait()
            raise stray

    async def make(config: scripted_fake.Config, deps: Deps) -> ScriptedInference:
        if deps.provider_id == "a":
            made.append(deps)
            if len(made) > 1:
                await again.wait()
            if starter == "start":
                await deps.task_group.start(background)
            else:
                deps.task_group.start_soon(background)
        return ScriptedInference(deps.provider_id, scripted_fake.SCRIPTS[config.script])

    monkeypatch.setattr(scripted_fake, "make", make)
    with anyio.fail_after(10):
        async with scripted("a", "b") as stack:
            await answer_of(stack, "x")
            crash.set()
            down = stack.instances["inference"][0]
            while down.reason is None:
                await anyio.sleep(0.01)
            assert a.shut_down == 1
            await answer_of(stack, "y")
            again.set()
            while down.status is not ProviderStatus.healthy:
                await anyio.sleep(0.02)
            assert len(made) == 2


async def test_a_provider_that_cancels_its_own_task_group(
    scripted: Scripted, script: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = script("a")
    with anyio.fail_after(10):
        async with scripted("a") as stack:
            assert a.deps is not None
            a.deps.task_group.cancel_scope.cancel()
            down = stack.instances["inference"][0]
            while down.reason is None:
                await anyio.sleep(0.01)
            assert "cancelled its own task group" in down.reason
            while down.status is not ProviderStatus.healthy:
                await anyio.sleep(0.02)


@strays
@pytest.mark.parametrize("stream", [False, True])
async def test_in_a_call(
    scripted: Scripted, script: Scripts, monkeypatch: pytest.MonkeyPatch, stream: bool, stray: BaseException
) -> None:
    script("a")
    raising(monkeypatch, "chat_completion", "a", stray)
    async with scripted("a") as stack:
        with pytest.raises(InternalError, match=r"provider 'a' \(scripted\) failed: (SystemExit|Cancel|Odd|Base)"):
            await answer_of(stack, "m", stream=stream)
        assert stack.instances["inference"][0].status is ProviderStatus.healthy


@strays
@pytest.mark.parametrize("place", ["pieces", "closing"])
async def test_in_a_stream(
    scripted: Scripted, script: Scripts, monkeypatch: pytest.MonkeyPatch, place: str, stray: BaseException
) -> None:
    script("a")

    async def chat_completion(self: ScriptedInference, **arguments: Any) -> Any:
        async def pieces() -> AsyncIterator[Any]:
            yield "piece"
            if place == "pieces":
                raise stray

        async def closed() -> None:
            if place == "closing":
                raise stray

        return Stream(pieces(), closed)

    monkeypatch.setattr(ScriptedInference, "chat_completion", chat_completion)
    async with scripted("a") as stack:
        stream = await answer_of(stack, "m", stream=True)
        assert await anext(stream) == "piece"
        with pytest.raises(InternalError):
            await anext(stream)
        stream = await answer_of(stack, "m", stream=True)
        if place == "closing":
            with pytest.raises(InternalError):
                await stream.aclose()
        else:
            await stream.aclose()


@strays
@pytest.mark.parametrize("hook", ["register_model", "unregister_model", "shutdown"])
async def test_in_a_hook(
    scripted: Scripted, script: Scripts, monkeypatch: pytest.MonkeyPatch, hook: str, stray: BaseException
) -> None:
    script("a", serves=[])
    over = raising(monkeypatch, hook, "a", stray)
    async with scripted("a", models=[{"identifier": "declared"}]) as stack:
        if hook == "register_model":
            shown = await stack.models.get_model("declared")
            assert shown is not None
            assert "failed" in (shown.unavailable_reason or "")
            with pytest.raises(InternalError):
                await stack.models.register_model(Model(identifier="m"))
            over.append(True)
        await stack.models.register_model(Model(identifier="m"))
        if hook == "unregister_model":
            with pytest.raises(InternalError):
                await stack.models.unregister_model("m")
        await answer_of(stack, "m")


@strays
async def test_over_http(
    discovery: Discovery, script: Scripts, monkeypatch: pytest.MonkeyPatch, stray: BaseException
) -> None:
    script("a")
    over = raising(monkeypatch, "chat_completion", "a", stray)
    provider = {"provider_id": "a", "provider_type": "scripted", "config": {"script": "a"}}
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    async with served_stack({"providers": {"inference": [provider]}}, discovery) as (_, client):
        for path in ("/inference/chat_completion", "/v1/chat/completions"):
            for stream in (False, True):
                answer = await client.post(path, json={**body, "stream": stream})
                assert answer.status_code == 500
                assert "provider 'a' (scripted) failed" in answer.json()["error"]["message"]
        over.append(True)
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200


async def test_a_cancellation_that_is_meant_is_one(scripted: Scripted, script: Scripts) -> None:
    a = script("a", piece_delay_s=10)
    async with scripted("a") as stack:
        with anyio.move_on_after(0.05) as limit:
            await answer_of(stack, "m")
        assert limit.cancelled_caught
        task = asyncio.create_task(answer_of(stack, "m"))
        await anyio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert a.in_flight == 0


async def test_ctrl_c_is_no_fault_of_a_provider(
    scripted: Scripted, script: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    script("a")
    raising(monkeypatch, "chat_completion", "a", KeyboardInterrupt())
    async with scripted("a") as stack:
        with pytest.raises(InternalError, match="KeyboardInterrupt"):
            await answer_of(stack, "m")


def test_ctrl_c_stops(scripted: Scripted, script: Scripts, monkeypatch: pytest.MonkeyPatch) -> None:
    a = script("a")

    async def pressed(self: ScriptedInference, **_: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await anyio.sleep(10)

    monkeypatch.setattr(ScriptedInference, "chat_completion", pressed)

    async def main() -> None:
        async with scripted("a") as stack:
            await answer_of(stack, "m")

    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert a.shut_down == 1


async def test_a_caller_that_leaves_while_a_thread_works(
    scripted: Scripted, script: Scripts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread learns of the cancellation before the task does, which waits for it."""
    script("a", serves=["x"])
    working = threading.Event()

    def work() -> None:
        working.set()
        while True:
            anyio.from_thread.check_cancelled()
            time.sleep(0.001)

    async def replaced(self: ScriptedInference, *arguments: Any, **named: Any) -> Any:
        await anyio.to_thread.run_sync(work)

    monkeypatch.setattr(ScriptedInference, "chat_completion", replaced)
    with anyio.fail_after(10):
        async with scripted("a") as stack:
            async with anyio.create_task_group() as callers:
                callers.start_soon(answer_of, stack, "x")
                while not working.is_set():
                    await anyio.sleep(0.01)
                callers.cancel_scope.cancel()
            assert not caplog.records
