"""One context for each request; nothing of it reaches another request, a background task or a log line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from scripted_fake import Script

from llamastack.api.common import UserMessage
from llamastack.provider.context import Principal, RequestContext, current_context, use_context, use_provider_data
from llamastack.provider.errors import ProviderTimeoutError
from llamastack.stack import Stack

pytestmark = pytest.mark.anyio
ASK: dict[str, Any] = {"model": "m", "messages": [UserMessage(content="Hi")]}


def test_a_block_has_its_context_and_leaves_the_one_before() -> None:
    assert current_context().principal is None
    with use_context(principal=Principal("ann"), traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"):
        with use_provider_data({"key": "k"}):
            inner = current_context()
            assert (inner.principal, inner.traceparent) == (
                Principal("ann"),
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            )
            assert inner.provider_data == {"key": "k"}
        assert current_context().provider_data is None
        with use_context(RequestContext(request_id="other")):
            assert (current_context().principal, current_context().request_id) == (None, "other")
    assert current_context().principal is None


def test_nothing_of_it_is_shown_but_the_request_id() -> None:
    context = RequestContext(
        principal=Principal("ann", {"token": "s3cret-1"}), provider_data={"key": "s3cret-2"}, request_id="r-1"
    )
    assert repr(context) == "<RequestContext r-1>"
    assert repr(context.principal) == "Principal(id='ann')"


async def test_concurrent_requests_see_their_own_context_in_calls_and_in_streams(
    scripted: Callable[..., Stack], script: Callable[..., Script]
) -> None:
    seen: dict[str, list[str | None]] = {}
    script("a", piece_delay_s=0.001, pieces=5)

    async def ask(stack: Stack, name: str) -> None:
        with use_context(principal=Principal(name), request_id=name):
            await stack.inference.chat_completion(**ASK)
            stream: Any = await stack.inference.chat_completion(**ASK, stream=True)
            async for _ in stream:
                principal = current_context().principal
                seen.setdefault(name, []).append(principal and principal.id)

    async with scripted("a") as stack, anyio.create_task_group() as group:
        for name in ("ann", "bob", "carl"):
            group.start_soon(ask, stack, name)
    assert {name: set(ids) for name, ids in seen.items()} == {"ann": {"ann"}, "bob": {"bob"}, "carl": {"carl"}}


async def test_a_provider_reads_it_and_its_background_task_does_not(
    scripted: Callable[..., Stack], script: Callable[..., Script]
) -> None:
    own = script("a")
    seen: list[RequestContext] = []

    async def background() -> None:
        seen.append(current_context())

    async with scripted("a") as stack:
        [instance] = stack.instances["inference"]
        provider = instance.provider
        original = provider.chat_completion

        async def chat_completion(**arguments: Any) -> Any:
            seen.append(current_context())
            assert own.deps is not None
            own.deps.task_group.start_soon(background)
            await anyio.sleep(0.01)
            return await original(**arguments)

        provider.chat_completion = chat_completion
        with use_context(principal=Principal("ann"), provider_data={"scripted_api_key": "k"}, request_id="r"):
            await stack.inference.chat_completion(**ASK)
    in_call, in_background = seen
    assert (in_call.principal, in_call.request_id) == (Principal("ann"), "r")
    assert in_background.principal is None
    assert in_background.provider_data is None
    assert in_background.request_id is None


@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_ends_calls_and_streams(
    scripted: Callable[..., Stack], script: Callable[..., Script], stream: bool
) -> None:
    own = script("a", piece_delay_s=30)
    async with scripted("a") as stack:
        with use_context(deadline=anyio.current_time() + 0.05), pytest.raises(ProviderTimeoutError, match="time limit"):
            reply: Any = await stack.inference.chat_completion(**ASK, stream=stream)
            async for _ in reply:
                pass
        assert own.in_flight == 0
        assert own.opened_streams == own.closed_streams


async def test_a_deadline_ends_a_stream_that_never_pauses(
    scripted: Callable[..., Stack], script: Callable[..., Script]
) -> None:
    script("a", always_ready=True, pieces=10_000_000)
    async with scripted("a") as stack:
        with use_context(deadline=anyio.current_time() + 0.05), pytest.raises(ProviderTimeoutError, match="time limit"):
            reply: Any = await stack.inference.chat_completion(**ASK, stream=True)
            async for _ in reply:
                pass
