"""Plugins are called in pluggy's own order, and a plugin that fails is left out by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pluggy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamastack.provider import hookimpl
from llamastack.provider.hookspecs import FinishedRequest
from llamastack.stack.discovery import Discovery
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


def giving(name: str, **options: Any) -> Any:
    def llamastack_cli_commands() -> list[str]:
        return [f"{name}1", f"{name}2"]

    return Plugin(llamastack_cli_commands=hookimpl(**options)(llamastack_cli_commands))


def wrapping(name: str, **options: Any) -> Any:
    def llamastack_cli_commands() -> Iterator[Any]:
        results = yield
        return [*results, [f"{name} saw {len(results)}"]]

    return Plugin(llamastack_cli_commands=hookimpl(wrapper=True, **options)(llamastack_cli_commands))


def old_wrapping(name: str) -> Any:
    def llamastack_cli_commands() -> Iterator[Any]:
        outcome: pluggy.Result[list[Any]] = yield
        outcome.force_result([*outcome.get_result(), [f"{name} saw {len(outcome.get_result())}"]])

    return Plugin(llamastack_cli_commands=hookimpl(hookwrapper=True)(llamastack_cli_commands))


def failing(error: BaseException) -> Any:
    def llamastack_cli_commands() -> list[str]:
        raise error

    return Plugin(llamastack_cli_commands=hookimpl(llamastack_cli_commands))


def collected(hooks: Plugins) -> list[Any]:
    return [thing for _, thing in hooks.collect(HOOK)]


KINDS: dict[str, Callable[[str], Any]] = {
    "plain": giving,
    "first": lambda name: giving(name, tryfirst=True),
    "last": lambda name: giving(name, trylast=True),
    "wrapper": wrapping,
    "outer": lambda name: wrapping(name, tryfirst=True),
    "old": old_wrapping,
}


@given(st.lists(st.sampled_from(sorted(KINDS)), max_size=7))
def test_what_is_collected_comes_in_pluggys_order(kinds: list[str]) -> None:
    hooks = hooks_with(**{f"p{place}": KINDS[kind](f"p{place}") for place, kind in enumerate(kinds)})
    expected = [thing for several in hooks.manager.hook.llamastack_cli_commands() for thing in several]
    found = list(hooks.collect(HOOK))
    assert [thing for _, thing in found] == expected
    assert all(thing.startswith(plugin) for plugin, thing in found)


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
