"""Calls hooks in pluggy's order, plugin by plugin, so that a failure names its plugin and stops no other plugin.

The order: `tryfirst` implementations, the others, `trylast`; within each group the last registered comes first.
Wrappers are around all of them, the last one outermost.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple, NoReturn

import pluggy

_LOGGER = logging.getLogger("llamastack.plugins")
FAILURES = (Exception, SystemExit)
"""What code of a plugin may raise by its own fault."""
_Results = list[list[object]]
_GIVES_A_LIST = ("llamastack_apis",)
"""Hooks whose implementations return something, be it empty: None is a forgotten `return`."""
BeginSpan = Callable[[str | None, str], str | None]
"""From the traceparent of the span above and the target to the traceparent of a new span."""
OnFailure = Callable[[str, str, BaseException], None]
"""Takes the plugin, the hook and the error."""


class PluginError(Exception):
    """A plugin failed in a hook whose result is needed. The message names the plugin, the hook and the cause."""


class Implementation(NamedTuple):
    """One plugin's implementation of a hook. call: takes all arguments of the hook, in their order."""

    plugin: str
    hook: str
    call: Callable[..., Any]
    is_wrapper: bool


def implementations(manager: pluggy.PluginManager, hook: str) -> list[Implementation]:
    """The implementations of a hook, in the order in which they are called."""
    caller: pluggy.HookCaller = getattr(manager.hook, hook)
    names = () if caller.spec is None else caller.spec.argnames
    return [
        Implementation(each.plugin_name, hook, _call_of(each, names), each.wrapper)
        for each in reversed(caller.get_hookimpls())
    ]


def _call_of(implementation: pluggy.HookImpl, names: Sequence[str]) -> Callable[..., Any]:
    """An implementation may take fewer arguments than the hook has, in another order."""
    function: Callable[..., Any] = implementation.function
    if implementation.argnames == names:
        return function
    places = [names.index(name) for name in implementation.argnames]
    return lambda *arguments: function(*[arguments[place] for place in places])


def call_all(called: Iterable[Implementation], failed: OnFailure, *arguments: object) -> list[tuple[str, object]]:
    """(plugin, thing) for each thing that the implementations return; without those of an implementation that fails."""
    results: _Results = []
    owners: dict[int, list[str]] = {}  # of one thing that several give, in the order of the results
    wrappers: list[tuple[Implementation, Generator[None, object, Any]]] = []
    for each in called:
        try:
            given = each.call(*arguments)
            if each.is_wrapper:
                if next(given, given) is given:
                    raise RuntimeError("the wrapper did not yield")
                wrappers.append((each, given))
            elif given is not None or each.hook in _GIVES_A_LIST:
                is_list = isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping)
                results.append([*given] if is_list else [given])
                for thing in results[-1]:
                    owners.setdefault(id(thing), []).append(each.plugin)
        except FAILURES as error:
            failed(each.plugin, each.hook, error)
    for each, wrapper in reversed(wrappers):
        try:
            results = _result_of(wrapper, [*results])
        except FAILURES as error:
            failed(each.plugin, each.hook, error)
        for thing in (thing for several in results for thing in several):
            owners.setdefault(id(thing), [each.plugin])
    things = [thing for several in results for thing in several]
    return [(names.pop(0) if len(names) > 1 else names[0], each) for each in things for names in (owners[id(each)],)]


def tell_all(called: Iterable[Implementation], *arguments: object) -> None:
    """The same for a hook that returns nothing and has no wrapper. A failure is logged."""
    for each in called:
        try:
            each.call(*arguments)
        except FAILURES as error:
            log_failure(each.plugin, each.hook, error)


def ask_first(called: Iterable[Implementation], *arguments: object) -> object:
    """The first answer that is not None. A failure is logged, and the next plugin is asked."""
    for each in called:
        try:
            answer = each.call(*arguments)
        except FAILURES as error:
            log_failure(each.plugin, each.hook, error)
            continue
        if answer is not None:
            return answer
    return None


def _result_of(wrapper: Generator[None, _Results, Any], results: _Results) -> _Results:
    try:
        wrapper.send(results)
    except StopIteration as ended:
        return [[*several] for several in ended.value]
    raise RuntimeError("the wrapper yielded twice")


def stop_start(plugin: str, hook: str, error: BaseException) -> NoReturn:
    """For hooks that a stack needs: raises PluginError, or the ConfigError of a plugin that refuses the run config."""
    from llamastack.stack.yaml_source import ConfigError  # it loads YAML, which most commands do without

    if isinstance(error, ConfigError):
        raise error
    raise PluginError(f"plugin {plugin} fails in {hook}: {type(error).__name__}: {error}") from error


def log_failure(plugin: str, hook: str, error: BaseException) -> None:
    """For hooks that report something, which a failure must not affect."""
    _LOGGER.error("a plugin failed in %s: %s", hook, plugin, exc_info=error)


@asynccontextmanager
async def contained_lifespan(plugin: str, lifespan: AbstractAsyncContextManager[object]) -> AsyncIterator[None]:
    """A plugin's context around a running stack. Raises PluginError at entry; a failure at exit is logged."""
    try:
        await lifespan.__aenter__()
    except Exception as error:
        stop_start(plugin, "llamastack_stack_lifespan", error)
    try:
        yield
    finally:
        try:
            await lifespan.__aexit__(None, None, None)
        except Exception:
            _LOGGER.exception("plugin %s failed when its llamastack_stack_lifespan was left", plugin)


def check_hooks(manager: pluggy.PluginManager, plugin: object, name: str) -> None:
    """Raises ValueError for a plugin that implements a hook that there is not, or one as a function of another kind."""
    for caller in manager.get_hookcallers(plugin) or ():
        if caller.spec is None:
            known = sorted(each for each in vars(manager.hook) if getattr(manager.hook, each).spec is not None)
            raise ValueError(f"plugin {name}: there is no hook '{caller.name}'; allowed: {', '.join(known)}")
        is_async = inspect.iscoroutinefunction(caller.spec.function)
        for each in (one for one in caller.get_hookimpls() if one.plugin is plugin):
            what = f"plugin {name}: {caller.name}"
            if is_async and (each.wrapper or not inspect.iscoroutinefunction(each.function)):
                raise ValueError(f"{what} must be 'async def', and no wrapper")
            if not is_async and inspect.iscoroutinefunction(each.function):
                raise ValueError(f"{what} must be a plain function: nothing awaits it")
            if each.hookwrapper:
                raise ValueError(f"{what} is a wrapper of pluggy's older kind; allowed: hookimpl(wrapper=True)")
