"""Plugins are called in pluggy's own order, and a plugin that fails is left out by name."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from installed_fakes import entry_points_in, install

from llamastack.provider import hookimpl
from llamastack.provider.commands import CliCommand
from llamastack.provider.hookspecs import FinishedRequest
from llamastack.provider.routes import Route
from llamastack.stack.discovery import Discovery
from llamastack.stack.hook_calls import PluginError
from llamastack.stack.plugins import Plugins

HOOK = "llamastack_cli_commands"


class Plugin:
    """An object with the hooks that are given."""

    def __init__(self, **hooks: Callable[..., Any]) -> None:
        vars(self).update(hooks)


def hooks_with(**plugins: Any) -> Plugins:
    hooks = Plugins(Discovery(lambda: ()))
    for name, plugin in plugins.items():
        hooks.manager.register(plugin, name=name)
    return hooks


def thing(text: str) -> CliCommand:
    return CliCommand(text, "", "")


def giving(name: str, **options: Any) -> Any:
    def llamastack_cli_commands() -> list[CliCommand]:
        return [thing(f"{name}1"), thing(f"{name}2")]

    return Plugin(llamastack_cli_commands=hookimpl(**options)(llamastack_cli_commands))


def wrapping(name: str, **options: Any) -> Any:
    def llamastack_cli_commands() -> Iterator[Any]:
        results = yield
        return [*results, [thing(f"{name} saw {len(results)}")]]

    return Plugin(llamastack_cli_commands=hookimpl(wrapper=True, **options)(llamastack_cli_commands))


def failing(error: BaseException) -> Any:
    def llamastack_cli_commands() -> list[str]:
        raise error

    return Plugin(llamastack_cli_commands=hookimpl(llamastack_cli_commands))


def collected(hooks: Plugins) -> list[Any]:
    return [each.name for _, each in hooks.collect(HOOK)]


KINDS: dict[str, Callable[[str], Any]] = {
    "plain": giving,
    "first": lambda name: giving(name, tryfirst=True),
    "last": lambda name: giving(name, trylast=True),
    "wrapper": wrapping,
    "outer": lambda name: wrapping(name, tryfirst=True),
}


@given(st.lists(st.sampled_from(sorted(KINDS)), max_size=7))
def test_what_is_collected_comes_in_pluggys_order(kinds: list[str]) -> None:
    hooks = hooks_with(**{f"p{place}": KINDS[kind](f"p{place}") for place, kind in enumerate(kinds)})
    expected = [each for several in hooks.manager.hook.llamastack_cli_commands() for each in several]
    found = list(hooks.collect(HOOK))
    assert [each for _, each in found] == expected
    assert all(each.name.startswith(plugin) for plugin, each in found)


def test_the_first_is_outermost() -> None:
    hooks = hooks_with(a=giving("a", trylast=True), b=giving("b"), c=giving("c"), d=giving("d", tryfirst=True))
    assert collected(hooks) == ["d1", "d2", "c1", "c2", "b1", "b2", "a1", "a2"]


@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit(1)])
def test_one_that_fails_is_left_out_by_name(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    def before() -> Iterator[Any]:
        raise error
        yield

    def after() -> Iterator[Any]:
        yield
        raise error

    def never() -> Iterator[Any]:
        yield from ()

    def twice() -> Iterator[Any]:
        yield
        yield

    broken = {
        f"wrapper-{function.__name__}": Plugin(llamastack_cli_commands=hookimpl(wrapper=True)(function))
        for function in (before, after, never, twice)
    }
    for function in (before, after, never, twice):
        function.__name__ = HOOK
    hooks = hooks_with(a=giving("a"), bad=failing(error), w=wrapping("w"), **broken)
    assert collected(hooks) == ["a1", "a2", "w saw 1"]
    for name in ("bad", *broken):
        assert f"what plugin {name} adds by llamastack_cli_commands is left out: " in caplog.text


def hearing(heard: list[str], name: str, error: BaseException | None = None, **options: Any) -> Any:
    def llamastack_request_finished(request: FinishedRequest) -> None:
        heard.append(f"{name} {request.status}")
        if error is not None:
            raise error

    return Plugin(llamastack_request_finished=hookimpl(**options)(llamastack_request_finished))


def test_all_are_told_in_order_although_one_fails(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []
    hooks = hooks_with(
        a=hearing(heard, "a", trylast=True),
        b=hearing(heard, "b"),
        c=hearing(heard, "c", SystemExit(1)),
        d=hearing(heard, "d", tryfirst=True),
    )
    hooks.notify("llamastack_request_finished", FinishedRequest("id", "GET", "/", 200, 0.1))
    assert heard == ["d 200", "c 200", "b 200", "a 200"]
    assert [r.message for r in caplog.records if r.levelno == logging.ERROR] == [
        "a plugin failed in llamastack_request_finished: c"
    ]
    assert hooks.listener("llamastack_object_registered") is None


# ---- wrong implementations -------------------------------------------------------------------------------------------


async def awaited(**arguments: Any) -> Any: ...


async def without_arguments() -> Any: ...


def plain() -> Any: ...


def generator() -> Iterator[Any]:
    yield


def nonsense(nonsense: str) -> Any: ...


@pytest.mark.parametrize(
    ("hook", "function", "options", "says"),
    [
        ("llamastack_routes", without_arguments, {}, "llamastack_routes must be a plain function: nothing awaits it"),
        ("llamastack_call_finished", without_arguments, {}, "llamastack_call_finished must be a plain function"),
        ("llamastack_around_call", plain, {}, "llamastack_around_call must be 'async def', and no wrapper"),
        ("llamastack_rutes", plain, {}, "there is no hook 'llamastack_rutes'; allowed: llamastack_apis, llamastack_a"),
        (
            HOOK,
            generator,
            {"hookwrapper": True},
            "is a wrapper of pluggy's older kind; allowed: hookimpl(wr",
        ),
        (HOOK, nonsense, {}, "Argument(s) {'nonsense'} are declared in the hookimpl but can not be found"),
    ],
)
def test_a_wrong_implementation_is_told_with_its_plugin(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    hook: str,
    function: Any,
    options: Any,
    says: str,
) -> None:
    module = ModuleType("wrong_fake")
    setattr(module, hook, hookimpl(specname=hook, **options)(function))
    monkeypatch.setitem(sys.modules, "wrong_fake", module)
    install(tmp_path, "acme", {"llamastack.plugins": {"wrong": "wrong_fake"}})
    hooks = Plugins(Discovery(entry_points_in(tmp_path, real=False)))
    (broken,) = hooks.broken
    assert says in broken.cause
    assert "acme:wrong" in broken.cause
    assert "\n" not in broken.cause
    assert caplog.messages == [f"plugin left out: {broken.cause}"]
    assert not hooks.manager.has_plugin("acme:wrong")


@pytest.mark.parametrize(
    ("hook", "given", "says"),
    [
        ("llamastack_routes", [Route("/a", awaited)], "gives a Route; allowed: RouteGroup"),
        ("llamastack_middleware", awaited, "gives a function; allowed: Middleware"),
        ("llamastack_config_sections", [("name", CliCommand)], "gives a tuple; allowed: ConfigSection"),
        ("llamastack_stack_lifespan", "name", "gives a str; allowed: AbstractAsyncContextManager"),
    ],
)
def test_a_wrong_thing_stops_the_start_with_the_name_of_its_plugin(hook: str, given: Any, says: str) -> None:
    hooks = hooks_with(bad=Plugin(**{hook: hookimpl(specname=hook)(lambda: given)}))
    with pytest.raises(PluginError) as error:
        hooks.collect(hook, *([] if hook == "llamastack_config_sections" else [None]), required=True)
    assert str(error.value) == f"plugin bad fails in {hook}: TypeError: it {says}"


@pytest.mark.parametrize("hook", ["llamastack_cli_commands", "llamastack_apis"])
def test_a_wrong_thing_is_left_out_by_name(hook: str, caplog: pytest.LogCaptureFixture) -> None:
    hooks = hooks_with(bad=Plugin(**{hook: hookimpl(specname=hook)(lambda: [Plugin, 5])}))
    assert hooks.collect(hook) == []
    assert f"what plugin bad adds by {hook} is left out: it gives a type and a int; allowed: " in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.parametrize("given", ["nonsense", b"nonsense", {"speech": Plugin, "voices": Plugin}])
def test_what_is_no_list_is_one_wrong_thing(given: Any, caplog: pytest.LogCaptureFixture) -> None:
    hooks = hooks_with(bad=Plugin(**{HOOK: hookimpl(specname=HOOK)(lambda: given)}))
    assert hooks.collect(HOOK) == []
    (said,) = caplog.messages
    assert said.endswith(f"it gives a {type(given).__name__}; allowed: CliCommand")


def test_one_thing_of_two_plugins_is_each_ones_own() -> None:
    shared = thing("shared")
    hooks = hooks_with(**{name: Plugin(**{HOOK: hookimpl(specname=HOOK)(lambda: [shared])}) for name in "ab"})
    assert hooks.collect(HOOK) == [("b", shared), ("a", shared)]
