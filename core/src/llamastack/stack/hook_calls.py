"""Calls of hooks in pluggy's order, plugin by plugin, so that one that fails has a name and stops no other.

The order: `tryfirst` implementations, the others, `trylast`; within each, what was registered last comes first.
Wrappers are around all of them, the last one outermost.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NoReturn

import pluggy

_LOGGER = logging.getLogger("llamastack.plugins")
_FAILURES = (Exception, SystemExit)
_Failed = Callable[[str, str, BaseException], None]


class PluginError(Exception):
    """A plugin failed in a hook whose result is needed. The message names the plugin, the hook and the cause."""


def collected(
    manager: pluggy.PluginManager, hook: str, arguments: Mapping[str, object], *, required: bool
) -> Iterator[tuple[str, object]]:
    """(plugin, thing) for each thing in the lists that the plugins give.

    required: whether a plugin that fails is a PluginError; otherwise what it gives is left out with a warning.
    """
    failed = _raise if required else _left_out
    implementations = getattr(manager.hook, hook).get_hookimpls()
    plain = [each for each in reversed(implementations) if not _is_wrapper(each)]
    wrappers: list[_Wrapping] = []
    for each in reversed(implementations):  # the outermost begins
        if _is_wrapper(each):
            wrapping = _Wrapping(each, hook, arguments, failed)
            if wrapping.begin():
                wrappers.append(wrapping)
    results: list[Any] = []
    of_plugin: dict[int, str] = {}
    for each in plain:
        given = _given(manager, hook, each, arguments, failed)
        if given:
            results.append(given)
            of_plugin.update((id(thing), each.plugin_name) for thing in given)
    for wrapping in reversed(wrappers):
        before = results
        results = wrapping.end(results)
        if results is not before:
            for thing in (thing for several in results for thing in several):
                of_plugin.setdefault(id(thing), wrapping.plugin)
    for several in results:
        for thing in several:
            yield of_plugin[id(thing)], thing


def _is_wrapper(implementation: pluggy.HookImpl) -> bool:
    return bool(implementation.wrapper or implementation.hookwrapper)


def _given(
    manager: pluggy.PluginManager,
    hook: str,
    implementation: pluggy.HookImpl,
    arguments: Mapping[str, object],
    failed: _Failed,
) -> list[object]:
    others = [plugin for plugin in manager.get_plugins() if plugin is not implementation.plugin]
    try:
        given = manager.subset_hook_caller(hook, others)(**arguments)
        return [thing for several in given for thing in _listed(several)]
    except _FAILURES as error:
        failed(implementation.plugin_name, hook, error)
        return []


def _listed(given: object) -> Iterable[object]:
    """What one implementation gives, as several things: some hooks give one."""
    return given if isinstance(given, Iterable) else [given]


def _raise(plugin: str, hook: str, error: BaseException) -> NoReturn:
    raise PluginError(f"plugin {plugin} fails in {hook}: {type(error).__name__}: {error}") from error


def _left_out(plugin: str, hook: str, error: BaseException) -> None:
    why = error if isinstance(error, Exception) else repr(error)
    _LOGGER.warning("what plugin %s adds by %s is left out: %s", plugin, hook, why)


class _Wrapping:
    """One wrapper around a call, of either kind that pluggy has. A wrapper that fails changes nothing."""

    def __init__(
        self, implementation: pluggy.HookImpl, hook: str, arguments: Mapping[str, object], failed: _Failed
    ) -> None:
        self.plugin: str = implementation.plugin_name
        self._arguments = arguments
        self._failed = failed
        self._implementation = implementation
        self._hook = hook
        self._running: Any = None

    def begin(self) -> bool:
        try:
            self._running = self._implementation.function(
                *[self._arguments[name] for name in self._implementation.argnames]
            )
            next(self._running)
        except StopIteration:
            self._failed(self.plugin, self._hook, RuntimeError("the wrapper did not yield"))
            return False
        except _FAILURES as error:
            self._failed(self.plugin, self._hook, error)
            return False
        return True

    def end(self, results: list[object]) -> list[Any]:
        old = self._implementation.hookwrapper
        outcome: pluggy.Result[list[Any]] = pluggy.Result(list(results), None)
        try:
            try:
                self._running.send(outcome if old else list(results))
            except StopIteration as ended:
                made = outcome.get_result() if old else ended.value
                return [list(several) for several in made]
            raise RuntimeError("the wrapper yielded twice")
        except _FAILURES as error:
            self._failed(self.plugin, self._hook, error)
            return results


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
    if traced or any(_is_wrapper(each) for each in implementations):
        return _Through(hook, caller)
    return _OneByOne(hook, [(each.plugin_name, each.function, each.argnames) for each in reversed(implementations)])


class _Through:
    def __init__(self, hook: str, caller: Callable[..., object]) -> None:
        self._hook = hook
        self._caller = caller

    def __call__(self, **arguments: object) -> None:
        try:
            self._caller(**arguments)
        except _FAILURES:
            _LOGGER.exception("a plugin failed in %s", self._hook)


class _OneByOne:
    def __init__(self, hook: str, listeners: list[tuple[str, Callable[..., object], tuple[str, ...]]]) -> None:
        self._hook = hook
        self._listeners = listeners

    def __call__(self, **arguments: object) -> None:
        for plugin, function, names in self._listeners:
            try:
                function(*[arguments[name] for name in names])
            except _FAILURES:
                _LOGGER.exception("a plugin failed in %s: %s", self._hook, plugin)


class AsyncHook:
    """One plugin's implementation of an async hook; called with all arguments, of which it gets those that it takes."""

    def __init__(self, implementation: pluggy.HookImpl, name: str) -> None:
        self.plugin: str = implementation.plugin_name
        self.name = name
        self._function: Callable[..., Any] = implementation.function
        self._arguments = implementation.argnames

    def __call__(self, **arguments: object) -> Awaitable[Any]:
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
