"""A stack is started in one task and stopped in another, and leaves nothing behind however that goes."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from scripted_stacks import Scripted, Scripts

from llamastack.api import UserMessage
from llamastack.provider.errors import ProviderUnavailableError
from llamastack.stack import Stack, StackStartError

pytestmark = pytest.mark.anyio
HELLO = [UserMessage(content="Hello")]


async def answer_of(stack: Stack) -> str:
    reply = await stack.inference.chat_completion(model="m", messages=HELLO)
    return str(reply.completion_message.content)


async def in_a_task(work: Any) -> Any:
    return await asyncio.create_task(work)


async def test_opened_in_one_task_and_closed_in_another(scripted: Scripted, script: Scripts) -> None:
    a = script("a")
    stack = scripted("a")
    await in_a_task(stack.__aenter__())
    assert await answer_of(stack) == "a"
    await in_a_task(stack.__aexit__(None, None, None))
    assert a.shut_down == 1
    with pytest.raises(LookupError, match=r"not running: use 'async with', or 'await stack.start\(\)'"):
        stack.api("inference")


async def test_start_and_stop(scripted: Scripted, script: Scripts) -> None:
    a = script("a")
    stack = scripted("a", image_name="kept")
    for round_ in (1, 2):
        await in_a_task(stack.start())
        with pytest.raises(RuntimeError, match="this stack runs already"):
            await stack.start()
        assert await answer_of(stack) == "a"
        await stack.stop()
        await in_a_task(stack.stop())
        assert a.shut_down == round_


@pytest.fixture
async def fixed(scripted: Scripted, script: Scripts) -> AsyncIterator[Stack]:
    script("a")
    async with scripted("a") as stack:
        yield stack


async def test_inside_a_fixture(fixed: Stack) -> None:
    assert await answer_of(fixed) == "a"


async def test_a_start_that_fails_is_told_and_leaves_nothing(scripted: Scripted, script: Scripts) -> None:
    a = script("a", fail_start=ConnectionError("refused"))
    stack = scripted("a", on_provider_error="fail")
    with pytest.raises(StackStartError, match="refused") as caught:
        await stack.start()
    assert isinstance(caught.value.__cause__, ConnectionError)
    with pytest.raises(LookupError, match="not running"):
        stack.api("inference")
    await stack.stop()
    a.fail_start = None
    await stack.start()
    assert await answer_of(stack) == "a"
    await stack.stop()


async def test_a_start_that_is_cancelled_is_undone(scripted: Scripted, script: Scripts) -> None:
    a = script("a", hang_start=True)
    stack = scripted("a")
    with anyio.fail_after(5):
        task = asyncio.create_task(stack.start())
        while not a.order:
            await anyio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with anyio.move_on_after(0.05) as limit:
            await stack.start()
        assert limit.cancelled_caught
        assert a.shut_down == 2
        a.hang_start = False
        async with stack:
            assert await answer_of(stack) == "a"


async def test_one_that_is_stopped_while_it_starts(scripted: Scripted, script: Scripts) -> None:
    a = script("a", hang_start=True)
    stack = scripted("a")
    with anyio.fail_after(5):
        task = asyncio.create_task(stack.start())
        while not a.order:
            await anyio.sleep(0.01)
        await stack.stop()
        with pytest.raises(RuntimeError, match="was stopped while it started"):
            await task
    assert a.shut_down == 1


async def test_an_error_of_the_block_stays_as_it_is(scripted: Scripted, script: Scripts) -> None:
    a = script("a")
    with pytest.raises(ZeroDivisionError):
        async with scripted("a"):
            raise ZeroDivisionError
    assert a.shut_down == 1


async def test_the_callers_context_is_seen_and_not_changed(scripted: Scripted, script: Scripts) -> None:
    script("a")
    mine = contextvars.ContextVar("mine", default=0)
    async with scripted("a") as stack:
        mine.set(1)
        assert await answer_of(stack) == "a"
    assert mine.get() == 1


def test_an_event_loop_that_ends_stops_it(scripted: Scripted, script: Scripts) -> None:
    a = script("a")
    stack = scripted("a")
    asyncio.run(stack.start())
    assert a.shut_down == 1
    asyncio.run(stack.stop())  # nothing to do
    asyncio.run(stack.start())
    assert a.shut_down == 2


def test_another_event_loop_is_told(scripted: Scripted, script: Scripts) -> None:
    script("a")
    stack = scripted("a")
    loop = asyncio.new_event_loop()
    loop.run_until_complete(stack.start())
    with pytest.raises(RuntimeError, match="runs in another event loop; stop it there"):
        asyncio.run(stack.stop())
    loop.run_until_complete(stack.stop())
    loop.close()


async def test_calls_after_the_end_are_refused(scripted: Scripted, script: Scripts) -> None:
    script("a")
    async with scripted("a") as stack:
        inference = stack.inference
    with pytest.raises(ProviderUnavailableError):
        await inference.chat_completion(model="m", messages=HELLO)
