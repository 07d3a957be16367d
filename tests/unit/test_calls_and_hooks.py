"""`llamastack_around_call` and call events in process: what plugins see of calls, change, hold and refuse."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from access_fake import AROUND, LISTENING
from installed_fakes import install
from scripted_stacks import Scripts

from llamastack.api.common import CompletionMessage, StopReason, UserMessage
from llamastack.api.inference import ChatCompletionResponse, TokenUsage
from llamastack.provider import hookimpl
from llamastack.provider.context import Principal, use_context
from llamastack.provider.errors import (
    InternalError,
    NotSupportedError,
    ObjectNotFoundError,
    PermissionDeniedError,
    ProviderUnavailableError,
)
from llamastack.provider.provider_call import CallEvent, Proceed, ProviderCall
from llamastack.stack import Stack
from llamastack.stack.discovery import Discovery, DiscoveryError

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("calls_plugin")]
ASK: dict[str, Any] = {"model": "m", "messages": [UserMessage(content="Hi")]}


def answered(text: str) -> ChatCompletionResponse:
    return ChatCompletionResponse(
        completion_message=CompletionMessage(content=text, stop_reason=StopReason.end_of_turn),
        usage=TokenUsage(prompt_tokens=5, completion_tokens=7),
    )


def statuses() -> list[tuple[str, str]]:
    return [(event.provider_id, event.status) for event in LISTENING.events]


async def test_it_sees_every_call_and_its_principal(scripted: Callable[..., Stack], script: Scripts) -> None:
    script("a")
    async with scripted("a") as stack:
        with use_context(principal=Principal("ann")):
            await stack.inference.chat_completion(**ASK)
        await stack.inference.completion(model="a/m", content="Hi")
        await stack.inference.embeddings(model="m", contents=["Hi"])
    seen = [(call.api, call.method, call.identifier, call.provider_id, call.stream) for call in AROUND.calls]
    assert seen == [
        ("inference", "chat_completion", "m", "a", False),
        ("inference", "completion", "m", "a", False),
        ("inference", "embeddings", "m", "a", False),
    ]
    assert AROUND.principals == ["ann", None, None]
    assert AROUND.calls[0].request["messages"] == [UserMessage(content="Hi")]


async def test_it_changes_the_request(scripted: Callable[..., Stack], script: Scripts) -> None:
    own = script("a")

    async def louder(call: ProviderCall, proceed: Proceed) -> Any:
        return await proceed(call.replaced(request={**call.request, "messages": [UserMessage(content="HI")]}))

    AROUND.does = louder
    async with scripted("a") as stack:
        await stack.inference.chat_completion(**ASK)
    assert own.last("chat_completion")["messages"] == [UserMessage(content="HI")]


async def test_it_chooses_another_instance_when_one_is_down(scripted: Callable[..., Stack], script: Scripts) -> None:
    script("a", fail_call=ConnectionError("gone"))
    other = script("b", serves=["m", "n"])

    async def elsewhere(call: ProviderCall, proceed: Proceed) -> Any:
        try:
            return await proceed(call)
        except ProviderUnavailableError:
            return await proceed(call.replaced(provider_id="b", identifier="n"))

    AROUND.does = elsewhere
    async with scripted("a", "b") as stack:
        reply: Any = await stack.inference.chat_completion(**ASK)
        AROUND.does = lambda call, proceed: proceed(call.replaced(provider_id="b", identifier="none"))
        with pytest.raises(ObjectNotFoundError, match="no model 'b/none' is served"):
            await stack.inference.chat_completion(**ASK)
    assert reply.completion_message.content == "b"
    assert other.last("chat_completion")["model"] == "n"
    assert statuses() == [("a", "started"), ("a", "error"), ("b", "started"), ("b", "ok")]


async def test_it_answers_itself_and_refuses(scripted: Callable[..., Stack], script: Scripts) -> None:
    own = script("a")

    async def cached(call: ProviderCall, proceed: Proceed) -> Any:
        return answered("from the cache")

    async def refusing(call: ProviderCall, proceed: Proceed) -> Any:
        raise PermissionDeniedError("not on Sundays")

    async with scripted("a") as stack:
        AROUND.does = cached
        reply: Any = await stack.inference.chat_completion(**ASK)
        assert reply.completion_message.content == "from the cache"
        AROUND.does = refusing
        with pytest.raises(PermissionDeniedError, match="not on Sundays"):
            await stack.inference.chat_completion(**ASK)
    assert not [name for name, _ in own.calls if name == "chat_completion"]
    assert LISTENING.events == []


async def test_it_holds_a_stream_and_closes_it(scripted: Callable[..., Stack], script: Scripts) -> None:
    own = script("a", pieces=4)

    async def every_other(call: ProviderCall, proceed: Proceed) -> Any:
        pieces = await proceed(call)

        async def fewer() -> AsyncIterator[Any]:
            number = 0
            async for piece in pieces:
                number += 1
                if number % 2:
                    yield piece

        return fewer()

    AROUND.does = every_other
    async with scripted("a") as stack:
        stream: Any = await stack.inference.chat_completion(**ASK, stream=True)
        assert len([piece async for piece in stream]) == 3
        unread: Any = await stack.inference.chat_completion(**ASK, stream=True)
        await unread.aclose()
        begun: Any = await stack.inference.chat_completion(**ASK, stream=True)
        await anext(begun)
        await begun.aclose()
    assert (own.opened_streams, own.closed_streams) == (3, 3)
    assert [event.status for event in LISTENING.events] == ["started", "ok", *["started", "cancelled"] * 2]


async def test_a_stream_that_a_refusing_hook_has_opened_is_closed(
    scripted: Callable[..., Stack], script: Scripts
) -> None:
    own = script("a")

    async def late(call: ProviderCall, proceed: Proceed) -> Any:
        await proceed(call)
        raise PermissionDeniedError("the reply is not for you")

    AROUND.does = late
    async with scripted("a") as stack:
        with pytest.raises(PermissionDeniedError):
            await stack.inference.chat_completion(**ASK, stream=True)
        assert (own.opened_streams, own.closed_streams) == (1, 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hook_that_fails_is_an_error_that_names_its_plugin(
    scripted: Callable[..., Stack], script: Scripts, stream: bool
) -> None:
    own = script("a")

    async def failing(call: ProviderCall, proceed: Proceed) -> Any:
        if not call.stream:
            raise ValueError("its own fault")
        pieces = await proceed(call)

        async def broken() -> AsyncIterator[Any]:
            yield await anext(pieces)
            raise ValueError("its own fault")

        return broken()

    AROUND.does = failing
    async with scripted("a") as stack:
        with pytest.raises(InternalError, match="plugin acme-calls:around failed in llamastack_around_call"):
            reply: Any = await stack.inference.chat_completion(**ASK, stream=stream)
            async for _ in reply:
                pass
        assert own.opened_streams == own.closed_streams


async def test_a_hook_that_gives_something_else_than_a_stream_is_named(
    scripted: Callable[..., Stack], script: Scripts
) -> None:
    script("a")

    async def whole(call: ProviderCall, proceed: Proceed) -> Any:
        return answered("whole")

    AROUND.does = whole
    async with scripted("a") as stack:
        with pytest.raises(InternalError, match="acme-calls:around"):
            await stack.inference.chat_completion(**ASK, stream=True)


async def test_a_stream_that_is_dropped_unread_is_reported_as_cancelled(
    scripted: Callable[..., Stack], script: Scripts
) -> None:
    script("a", pieces=4)
    async with scripted("a") as stack:
        unread: Any = await stack.inference.chat_completion(**ASK, stream=True)
        assert statuses() == [("a", "started")]
        del unread
        gc.collect()
        assert statuses() == [("a", "started"), ("a", "cancelled")]
        read: Any = await stack.inference.chat_completion(**ASK, stream=True)
        assert len([piece async for piece in read]) == 6
        del read
        gc.collect()
    assert statuses()[2:] == [("a", "started"), ("a", "ok")]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cancelled_caller_cancels_the_provider_through_hooks(
    scripted: Callable[..., Stack], script: Scripts, stream: bool
) -> None:
    own = script("a", piece_delay_s=30)
    passed: list[str] = []

    async def watching(call: ProviderCall, proceed: Proceed) -> Any:
        try:
            return await proceed(call)
        except Exception:
            passed.append("an error")
            raise
        except BaseException:
            passed.append("a cancellation")
            raise

    AROUND.does = watching
    async with scripted("a") as stack:
        with anyio.move_on_after(0.05):
            reply: Any = await stack.inference.chat_completion(**ASK, stream=stream)
            async with reply_closing(reply):
                async for _ in reply:
                    pass
        assert own.in_flight == 0
        assert own.opened_streams == own.closed_streams
    assert passed == ([] if stream else ["a cancellation"])
    assert [event.status for event in LISTENING.events] == ["started", "cancelled"]


def reply_closing(reply: Any) -> Any:
    from llamastack.provider.streams import closing

    return closing(reply)


async def test_the_capability_gate_stands_behind_the_hooks(discovery: Discovery, script: Scripts) -> None:
    script("a")
    no_tools = {"provider_id": "plain", "provider_type": "no-tools", "config": {"script": "a"}}
    AROUND.does = lambda call, proceed: proceed(
        call.replaced(request={**call.request, "tools": [{"tool_name": "f", "parameters": {}}]})
    )
    async with Stack.from_config({"providers": {"inference": [no_tools]}}, discovery=discovery) as stack:
        with pytest.raises(NotSupportedError, match="does not support 'tools' of chat_completion"):
            await stack.inference.chat_completion(**ASK)
    assert LISTENING.events == []


async def test_events_tell_of_replies_failures_and_what_is_inside(
    scripted: Callable[..., Stack], script: Scripts
) -> None:
    own = script("a")
    async with scripted("a") as stack:
        [instance] = stack.instances["inference"]
        provider = instance.provider

        async def embeddings(model: str, contents: list[Any]) -> Any:
            return await stack.inference.chat_completion(**ASK)

        async def chat_completion(**arguments: Any) -> Any:
            return answered("Hi")

        provider.embeddings, provider.chat_completion = embeddings, chat_completion
        with use_context(request_id="r-1"):
            await stack.inference.embeddings(model="m", contents=["Hi"])
        outer, inner, inner_end, outer_end = LISTENING.events
        assert (outer.method, inner.method) == ("embeddings", "chat_completion")
        assert (outer.parent, inner.parent) == (None, outer.call_id)
        assert (outer_end.call_id, inner_end.call_id) == (outer.call_id, inner.call_id)
        assert (inner_end.input_tokens, inner_end.output_tokens) == (5, 7)
        assert {event.request_id for event in LISTENING.events} == {"r-1"}
        assert (inner_end.provider_type, inner_end.identifier, inner_end.first_piece_s) == ("scripted", "m", None)
        assert inner_end.duration_s is not None
        assert outer_end.duration_s is not None
        assert 0 <= inner_end.duration_s <= outer_end.duration_s
        LISTENING.events.clear()
        del provider.chat_completion
        own.fail_call = PermissionDeniedError("no")
        with pytest.raises(PermissionDeniedError):
            await stack.inference.chat_completion(**ASK)
        assert [(event.status, event.error_code) for event in LISTENING.events] == [
            ("started", None),
            ("error", "permission_denied"),
        ]


async def test_a_stream_is_one_call_with_the_time_to_its_first_piece(
    scripted: Callable[..., Stack], script: Scripts
) -> None:
    script("a", pieces=2, piece_delay_s=0.01)
    async with scripted("a") as stack:
        stream: Any = await stack.inference.chat_completion(**ASK, stream=True)
        assert [event.status for event in LISTENING.events] == ["started"]
        async for _ in stream:
            pass
        await stream.aclose()
    _, ended = LISTENING.events
    assert ended.status == "ok"
    assert ended.first_piece_s is not None
    assert ended.duration_s is not None
    assert ended.first_piece_s < ended.duration_s


async def test_a_stream_that_breaks_is_an_error(scripted: Callable[..., Stack], script: Scripts) -> None:
    script("a", fail_after_pieces=1)
    async with scripted("a") as stack:
        stream: Any = await stack.inference.chat_completion(**ASK, stream=True)
        with pytest.raises(InternalError):
            async for _ in stream:
                pass
    assert [(event.status, event.error_code) for event in LISTENING.events][1] == ("error", "internal_error")


async def test_a_plain_function_is_no_async_hook(discovery: Discovery, tmp_path: Path) -> None:
    install(tmp_path / "site-packages", "acme-plain", {"llamastack.required_plugins": {"plain": "access_fake:PLAIN"}})
    with pytest.raises(DiscoveryError, match="llamastack_authorize must be 'async def'"):
        Stack.from_config({"providers": {}}, discovery=discovery)


def test_an_event_is_not_changed_by_a_listener() -> None:
    event = CallEvent("1", None, "inference", "completion", "m", "a", "scripted", None)
    with pytest.raises(AttributeError):
        event.status = "ok"  # type: ignore[misc]
    assert hookimpl is not None
