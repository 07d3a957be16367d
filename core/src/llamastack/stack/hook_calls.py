"""Calls of hooks in pluggy's order, plugin by plugin, so that one that fails has a name and stops no other.

The order: `tryfirst` implementations, the others, `trylast`; within each, what was registered last comes first.
Wrappers are around all of them, the last one outermost.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, NoReturn, cast

import pluggy

_LOGGER = logging.getLogger("llamastack.plugins")
_FAILURES = (Exception, SystemExit)
_Failed = Callable[[str, str, BaseException], None]
_Results = list[list[object]]


class PluginError(Exception):
    """A plugin failed in a hook whose result is needed. The message names the plugin, the hook and the cause."""


def collected(
    manager: pluggy.PluginManager, hook: str, arguments: Mapping[str, object], *, required: bool
) -> Iterator[tuple[str, object]]:
    """(plugin, thing) for each thing in the lists that the plugins give.

    required: whether a plugin that fails is a PluginError; otherwise what it gives is left out with a warning.
    """
    failed = _raise if required else _left_out
    implementations = [*reversed(getattr(manager.hook, hook).get_hookimpls())]
    of_plugin: dict[int, str] = {}

    def asked() -> _Results:
        results: _Results = []
        for each in implementations:
            if not _is_wrapper(each):
                try:
                    results.append(_given(manager, hook, each.plugin, arguments))
                except _FAILURES as error:
                    failed(each.plugin_name, hook, error)
                else:
                    of_plugin.update((id(thing), each.plugin_name) for thing in results[-1])
        return [several for several in results if several]

    def around(wrapper: pluggy.HookImpl, inner: Callable[[], _Results]) -> _Results:
        results = _through(wrapper, hook, arguments, failed, inner)
        for thing in (thing for several in results for thing in several):
            of_plugin.setdefault(id(thing), wrapper.plugin_name)
        return results

    call: Callable[[], _Results] = asked
    for each in reversed(implementations):  # the innermost first
        if _is_wrapper(each):
            call = partial(around, each, call)
    for several in call():
        for thing in several:
            yield of_plugin[id(thing)], thing


def _is_wrapper(implementation: pluggy.HookImpl) -> bool:
    return bool(implementation.wrapper or implementation.hookwrapper)


def _given(manager: pluggy.PluginManager, hook: str, plugin: object, arguments: Mapping[str, object]) -> list[object]:
    """What one plugin gives."""
    others = [other for other in manager.get_plugins() if other is not plugin]
    given = manager.subset_hook_caller(hook, others)(**arguments)
    return [thing for several in given for thing in _listed(several)]


def _listed(given: object) -> Iterable[object]:
    """What one implementation gives, as several things: some hooks give one."""
    return given if isinstance(given, Iterable) else [given]


def _raise(plugin: str, hook: str, error: BaseException) -> NoReturn:
    raise PluginError(f"plugin {plugin} fails in {hook}: {type(error).__name__}: {error}") from error


def _left_out(plugin: str, hook: str, error: BaseException) -> None:
    why = error if isinstance(error, Exception) else repr(error)
    _LOGGER.warning("what plugin %s adds by %s is left out: %s", plugin, hook, why)


def _through(
    wrapper: pluggy.HookImpl, hook: str, arguments: Mapping[str, object], failed: _Failed, inner: Callable[[], _Results]
) -> _Results:
    """The results of a wrapper around `inner`. A wrapper that fails changes nothing."""
    running = _wrapping(wrapper, arguments)
    try:
        if next(running, running) is running:
            raise RuntimeError("the wrapper did not yield")
    except _FAILURES as error:
        failed(wrapper.plugin_name, hook, error)
        return inner()
    results = inner()
    try:
        return _ended(running, [*results])
    except _FAILURES as error:
        failed(wrapper.plugin_name, hook, error)
        return results


def _wrapping(wrapper: pluggy.HookImpl, arguments: Mapping[str, object]) -> Generator[None, _Results, _Results]:
    """A wrapper of either kind that pluggy has, as one of the newer kind."""
    function: Callable[..., Generator[None, object, _Results]] = wrapper.function  # type: ignore[assignment]
    running = function(*[arguments[name] for name in wrapper.argnames])
    if wrapper.wrapper:
        return (yield from running)
    next(running)
    outcome = pluggy.Result((yield), None)
    try:
        running.send(outcome)
    except StopIteration:
        return outcome.get_result()
    raise RuntimeError("the wrapper yielded twice")


def _ended(wrapping: Generator[None, _Results, _Results], results: _Results) -> _Results:
    try:
        wrapping.send(results)
    except StopIteration as ended:
        return [list(several) for several in ended.value]
    raise RuntimeError("the wrapper yielded twice")


@asynccontextmanager
async def contained_lifespan(plugin: str, lifespan: AbstractAsyncContextManager[object]) -> AsyncIterator[None]:
    """A plugin's context around a running stack. Raises PluginError at entry; a failure at exit is logged."""
    try:
        await lifespan.__aenter__()
    except Exception as error:
        _raise(plugin, "llamastack_stack_lifespan", error)
    try:
        yield
    finally:
        try:
            await lifespan.__aexit__(None, None, None)
        except Exception:
            _LOGGER.exception("plugin %s failed when its llamastack_stack_lifespan was left", plugin)


def telling(manager: pluggy.PluginManager, hook: str, *, traced: bool) -> Callable[..., None] | None:
    """A function that calls all plugins that implement `hook`; None if there is none. A failure is logged, and the next
    plugin is called.

    traced: call it through pluggy, which prints what it calls.
    """
    caller = getattr(manager.hook, hook)
    implementations = caller.get_hookimpls()
    if not implementations:
        return None
    listeners = [(each.plugin_name, each.function, each.argnames) for each in reversed(implementations)]

    def through(**arguments: object) -> None:
        try:
            caller(**arguments)
        except _FAILURES:
            _LOGGER.exception("a plugin failed in %s", hook)

    def one_by_one(**arguments: object) -> None:
        for plugin, function, names in listeners:
            try:
                function(*[arguments[name] for name in names])
            except _FAILURES:
                _LOGGER.exception("a plugin failed in %s: %s", hook, plugin)

    return through if traced or any(_is_wrapper(each) for each in implementations) else one_by_one


class AsyncHook:
    """One plugin's implementation of an async hook; called with all arguments, of which it gets those that it takes."""

    def __init__(self, implementation: pluggy.HookImpl, name: str) -> None:
        self.plugin: str = implementation.plugin_name
        self.name = name
        self._function: Callable[..., Any] = implementation.function
        self._arguments = implementation.argnames

    def __call__(self, **arguments: object) -> Awaitable[Any]:
        # perf: llamastack-v1-hooks. Most plugins take the arguments that there are, in their order.
        if tuple(arguments) == self._arguments:
            return cast("Awaitable[Any]", self._function(*arguments.values()))
        call: Awaitable[Any] = self._function(*[arguments[name] for name in self._arguments])
        return call


def async_hooks(manager: pluggy.PluginManager, hook: str) -> list[AsyncHook]:
    """The implementations of `hook`, in the order in which they are called."""
    return [AsyncHook(each, hook) for each in reversed(getattr(manager.hook, hook).get_hookimpls())]


def check_async_hooks(manager: pluggy.PluginManager, plugin: object) -> None:
    """Raises PluginValidationError for a plugin that implements an async hook as a plain function or as a wrapper."""
    for caller in manager.get_hookcallers(plugin) or ():
        if caller.spec is None or not inspect.iscoroutinefunction(caller.spec.function):
            continue
        for each in caller.get_hookimpls():
            if each.plugin is plugin and (_is_wrapper(each) or not inspect.iscoroutinefunction(each.function)):
                raise pluggy.PluginValidationError(plugin, f"{caller.name} must be 'async def', and no wrapper")
