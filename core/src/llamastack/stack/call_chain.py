"""The steps of every call of a provider: time limit, permission, plugins' hooks, the capability gate, events."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any

import anyio

from llamastack.provider.context import current_context
from llamastack.provider.errors import InternalError, LlamaStackError, ProviderTimeoutError, raise_translated
from llamastack.provider.hookspecs import Action, Resource
from llamastack.provider.provider_call import ProviderCall
from llamastack.provider.streams import Stream, close, closing, pieces_in, with_pieces
from llamastack.stack.access import AccessControl
from llamastack.stack.call_events import CallEvents
from llamastack.stack.hook_calls import Implementation
from llamastack.stack.plugins import Plugins
from llamastack.stack.supervisor import SupervisedProvider

_LOGGER = logging.getLogger("llamastack.plugins")
Step = Callable[[ProviderCall], Awaitable[Any]]
"""Makes a call, through the steps after it, and returns the reply. Raises what hooks or the provider raise."""
FindTarget = Callable[[ProviderCall], Awaitable[ProviderCall]]
"""Returns the call with the instance that its ids name. Raises an error if that does not serve the object."""


class CallChain:
    """The steps around the calls of one stack's providers."""

    def __init__(self, plugins: Plugins) -> None:
        self.access = AccessControl(
            plugins.implementations("llamastack_authenticate"), plugins.implementations("llamastack_authorize")
        )
        self._around = plugins.implementations("llamastack_around_call")
        started, finished = (plugins.listener(f"llamastack_call_{what}") for what in ("started", "finished"))
        begin_span = plugins.begin_span()
        self._events = CallEvents(started, finished, begin_span) if started or finished or begin_span else None

    def compose(self, find_target: FindTarget) -> Step:
        """The steps as one function, without those that this stack does not need.

        find_target: used for a call whose provider or object a hook has changed.
        """
        step = _provider_step(find_target, self._events)
        for hook in reversed(self._around):
            step = _hook_step(hook, step)
        if self.access.authorizes:
            step = _permission_step(self.access, step)
        return _time_limit_step(step)

    def compose_check(self) -> Step:
        """The steps that may refuse a call, without the call."""
        return _permission_step(self.access, _gate_step) if self.access.authorizes else _gate_step


async def _gate_step(call: ProviderCall) -> None:
    gate = call.target.gates[call.method] if isinstance(call.target, SupervisedProvider) else None
    if gate is not None:
        gate(call)


# perf: llamastack-v1. A step that only passes a call on is no coroutine: each one costs as much as reading a header.


def _time_limit_step(then: Step) -> Step:
    async def limited(call: ProviderCall, deadline: float) -> Any:
        reply = await _until(deadline, then(call))
        return with_pieces(reply, lambda pieces: Stream(_pieces_until(deadline, pieces), lambda: close(pieces)))

    def step(call: ProviderCall) -> Awaitable[Any]:
        deadline = current_context().deadline
        return then(call) if deadline is None else limited(call, deadline)

    return step


def _permission_step(access: AccessControl, then: Step) -> Step:
    async def step(call: ProviderCall) -> Any:
        resource = Resource(call.api, call.method, call.identifier, call.provider_id)
        if not await access.may(Action.CALL, resource):
            raise access.denied(Action.CALL, resource)
        return await then(call)

    return step


def _hook_step(hook: Implementation, then: Step) -> Step:
    async def step(call: ProviderCall) -> Any:
        streams: list[AsyncIterator[Any]] = []

        async def proceed(changed: ProviderCall) -> Any:
            reply = await then(changed)
            streams.extend(pieces_in(reply))
            return reply

        try:
            reply = await hook.call(call, proceed)
            _check_kind(reply, call)
        except BaseException as raised:
            await _close_all(streams)
            raise_translated(raised, _blamed(hook, raised))
        if streams == pieces_in(reply):
            return reply
        opened = [*streams, *pieces_in(reply)]  # closing a generator that never started closes nothing
        if not pieces_in(reply):
            await _close_all(opened)
        return with_pieces(reply, lambda pieces: Stream(_pieces_of(hook, pieces, opened), lambda: _close_all(opened)))

    return step


def _provider_step(find_target: FindTarget, events: CallEvents | None) -> Step:
    def step(call: ProviderCall) -> Awaitable[Any]:
        instance = call.target
        if not isinstance(instance, SupervisedProvider):
            return redirected(call)
        gate = instance.gates[call.method]
        if gate is not None:
            gate(call)
        if instance.provider is None:
            raise instance.unavailable()
        if events is not None:
            return events.around(call, instance, instance.provider)
        return instance.answer(instance.provider, call)

    async def redirected(call: ProviderCall) -> Any:
        return await step(await find_target(call))

    return step


def _check_kind(reply: object, call: ProviderCall) -> None:
    if isinstance(reply, AsyncIterator) is not call.stream:
        raise TypeError(f"it gave a {type(reply).__name__} as {'a stream' if call.stream else 'a whole reply'}")


def _blamed(hook: Implementation, raised: BaseException) -> BaseException:
    """What a hook raised; an error that names the plugin if it is no error of the family."""
    if not isinstance(raised, Exception) or isinstance(raised, LlamaStackError):
        return raised
    _LOGGER.error("plugin %s failed in %s", hook.plugin, hook.hook, exc_info=raised)
    return InternalError(f"plugin {hook.plugin} failed in {hook.hook}; the log says why")


async def _pieces_of(
    hook: Implementation, pieces: AsyncIterator[Any], opened: Iterable[AsyncIterator[Any]]
) -> AsyncIterator[Any]:
    try:
        try:
            async for piece in pieces:
                yield piece
        finally:
            await _close_all(opened)
    except BaseException as raised:
        raise_translated(raised, _blamed(hook, raised))


async def _close_all(streams: Iterable[AsyncIterator[Any]]) -> None:
    """Each of them, though one may fail and the caller may be cancelled."""
    with anyio.CancelScope(shield=True):
        async with AsyncExitStack() as closing_all:
            for stream in streams:
                closing_all.push_async_callback(close, stream)


async def _until(deadline: float, work: Awaitable[Any]) -> Any:
    with anyio.CancelScope(deadline=deadline):
        return await work
    raise ProviderTimeoutError("the time limit of this request is over")


async def _pieces_until(deadline: float, pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async with closing(pieces):
        end = object()
        while (piece := await _until(deadline, anext(pieces, end))) is not end:
            yield piece
            if anyio.current_time() >= deadline:  # a stream that never pauses is not cancelled
                raise ProviderTimeoutError("the time limit of this request is over")
