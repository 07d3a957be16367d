"""What stands around every call of a provider: permission, time limit, plugins' hooks, the capability gate, events."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import anyio

from llamastack.provider.context import current_context
from llamastack.provider.errors import InternalError, LlamaStackError, ProviderTimeoutError, raise_translated
from llamastack.provider.hookspecs import Action, Resource
from llamastack.provider.provider_call import ProviderCall
from llamastack.provider.streams import Stream, close, closing
from llamastack.stack.access import AccessControl
from llamastack.stack.call_events import CallEvents
from llamastack.stack.hook_calls import AsyncHook
from llamastack.stack.plugins import Plugins
from llamastack.stack.supervisor import SupervisedProvider

_LOGGER = logging.getLogger("llamastack.plugins")


class Target(NamedTuple):
    """Where a call goes when it has passed the hooks.

    identifier, instance: as the stack chose them. make: calls a provider; awaited once per call.
    choose: the instance for a call whose provider or object a hook has changed, and that call with the object's own
    identifier. Raises what is said about an object that is not served.
    """

    identifier: str
    instance: SupervisedProvider
    make: Callable[[ProviderCall, SupervisedProvider], Awaitable[Any]]
    choose: Callable[[ProviderCall], Awaitable[tuple[ProviderCall, SupervisedProvider]]]


class CallChain:
    """What stands around the calls of one stack's providers."""

    def __init__(self, plugins: Plugins) -> None:
        self.access = AccessControl(
            plugins.async_hooks("llamastack_authenticate"), plugins.async_hooks("llamastack_authorize")
        )
        self._around = plugins.async_hooks("llamastack_around_call")
        self._events = CallEvents(
            plugins.listener("llamastack_call_started"), plugins.listener("llamastack_call_finished")
        )
        self._is_empty = not (self._around or self._events.are_heard or self.access.authorizes)

    def is_empty(self, instance: SupervisedProvider, method: str) -> bool:
        """Whether nothing stands around a call, which can then be made at once."""
        return self._is_empty and instance.gates[method] is None and current_context().deadline is None

    async def run(self, call: ProviderCall, target: Target) -> Any:
        """The reply. Raises what hooks or the provider raise, and ProviderTimeoutError at the deadline."""
        if self.access.authorizes:
            await self.access.check(Action.CALL, Resource(call.api, call.method, call.identifier, call.provider_id))
        deadline = current_context().deadline
        if deadline is None:
            # perf: llamastack-v1-hooks. Each coroutine that only hands on costs what reading a header does.
            return await (self._pass(0, call, target) if self._around else self._make(call, target))
        reply = await _until(deadline, self._pass(0, call, target))
        return Stream(_pieces_until(deadline, reply), lambda: close(reply)) if call.stream else reply

    async def _pass(self, place: int, call: ProviderCall, target: Target) -> Any:
        if place == len(self._around):
            return await self._make(call, target)
        hook = self._around[place]
        streams: list[AsyncIterator[Any]] = []

        async def proceed(changed: ProviderCall) -> Any:
            reply = await self._pass(place + 1, changed, target)
            if isinstance(reply, AsyncIterator):
                streams.append(reply)
            return reply

        try:
            reply = await hook(call=call, proceed=proceed)
            _check_kind(reply, call)
        except BaseException as raised:
            await _close_all(streams)
            raise_translated(raised, _blamed(hook, raised))
        if not call.stream or streams == [reply]:
            return reply
        opened = [*streams, reply]  # a generator that was never begun closes nothing
        return Stream(_pieces_of(hook, reply, opened), lambda: _close_all(opened))

    async def _make(self, call: ProviderCall, target: Target) -> Any:
        instance = target.instance
        if (call.provider_id, call.identifier) != (instance.provider_id, target.identifier):
            call, instance = await target.choose(call)
        gate = instance.gates[call.method]
        if gate is None:
            return await self._answered(call, instance, target)
        return await gate.around_call(call, lambda passed: self._answered(passed, instance, target))

    def _answered(self, call: ProviderCall, instance: SupervisedProvider, target: Target) -> Awaitable[Any]:
        if instance.provider is None:
            raise instance.unavailable()
        answer = instance.answered(target.make(call, instance))
        return self._events.around(call, instance.provider_type, answer) if self._events.are_heard else answer


def _check_kind(reply: object, call: ProviderCall) -> None:
    if isinstance(reply, AsyncIterator) is not call.stream:
        raise TypeError(f"it gave a {type(reply).__name__} as {'a stream' if call.stream else 'a whole reply'}")


def _blamed(hook: AsyncHook, raised: BaseException) -> BaseException:
    """What a hook raised; for a fault of its own an error that names the plugin."""
    if not isinstance(raised, Exception) or isinstance(raised, LlamaStackError):
        return raised
    _LOGGER.error("plugin %s failed in %s", hook.plugin, hook.name, exc_info=raised)
    return InternalError(f"plugin {hook.plugin} failed in {hook.name}; the log says why")


async def _pieces_of(
    hook: AsyncHook, pieces: AsyncIterator[Any], opened: Iterable[AsyncIterator[Any]]
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
