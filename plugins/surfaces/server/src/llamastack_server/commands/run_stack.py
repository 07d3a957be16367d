"""Serves a stack in this process until a signal arrives, and shows the state of its providers."""

from __future__ import annotations

import asyncio
import json
import math
import shlex
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from types import FrameType

import anyio

from llamastack.api.inspect import ProviderHealth, ProviderStatus
from llamastack.api.pagination import all_listed
from llamastack.api.webmethod import ResourceAction
from llamastack.provider.commands import CommandOutput, ProgressDisplay, WrongInputError
from llamastack.stack import Stack
from llamastack.stack.discovery import default_discovery
from llamastack_server.logs import log_packages, set_up_logging
from llamastack_server.plugin_packages import packages_of, packages_of_plugins
from llamastack_server.settings import ServerConfig
from llamastack_server.uvicorn_server import raise_file_limit, serve, url_of

_MOST_NAMES = 3
SIGNALS = (signal.SIGTERM, signal.SIGINT)

OnStarted = Callable[[Stack, str], Awaitable[Callable[[], None]]]
"""Called with the started stack and its URL. Returns a function to call once requests are accepted."""


def set_up_log() -> None:
    """Set up the log of this process. Raises WrongInputError if its settings are wrong."""
    try:
        set_up_logging(packages=packages_of_plugins(default_discovery()))
    except ValueError as error:
        raise WrongInputError(str(error)) from None


def serving_line(url: str, workers: int = 1) -> str:
    """The line that shows that requests are accepted."""
    return f"Serving on {url}{f'   ({workers} workers)' if workers > 1 else ''}   (docs: /docs   OpenAI: /v1)"


async def show_stack(stack: Stack, url: str, output: CommandOutput) -> list[str]:
    """Show the state of a stack's providers. Returns lines to copy, to show once it serves."""
    await _show_providers(stack, output)
    return await _to_try(stack, url)


def run_stack(
    stack: Stack,
    listening: socket.socket,
    output: CommandOutput,
    report: ProgressDisplay,
    introduce: OnStarted | None = None,
    when_running: Callable[[], None] | None = None,
    *,
    start_wait_s: float | None = None,
) -> None:
    """Start and serve until SIGTERM or SIGINT. Raises StackStartError.

    introduce: by default shows the providers, then the URL once requests are accepted. when_running: called in the
    event loop, before anything else. start_wait_s: by default the config's.
    """

    async def show(stack: Stack, url: str) -> Callable[[], None]:
        lines = [serving_line(url), *await show_stack(stack, url, output)]
        return partial(output.say, "\n".join(lines))

    log_packages(packages_of(planned.spec.factory for planned in stack.plan.providers))
    if start_wait_s is None:
        start_wait_s = stack.config.section("server", ServerConfig).start_wait_s
    wait_s = math.inf if start_wait_s is None else start_wait_s
    options = {"use_uvloop": find_spec("uvloop") is not None}
    raise_file_limit()
    try:
        with SignalCancellation() as stopping:
            anyio.run(
                _run,
                stack,
                wait_s,
                listening,
                report,
                introduce or show,
                when_running,
                stopping,
                backend_options=options,
            )
    finally:
        listening.close()


class SignalCancellation:
    """SIGTERM and SIGINT cancel the scope that was entered last, while the server does not handle them itself."""

    def __init__(self) -> None:
        self._cancels: list[Callable[[], object]] = []
        self._came = False

    def __enter__(self) -> SignalCancellation:
        self._before = {number: signal.signal(number, self._stop) for number in SIGNALS}
        if hasattr(signal, "pthread_sigmask"):
            # A worker process starts with these signals blocked.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._came = True
        if self._cancels:
            self._cancels[-1]()

    @contextmanager
    def scope(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        with anyio.CancelScope() as scope:
            # Scheduled in the loop, because a signal can interrupt the loop anywhere.
            self._cancels.append(partial(loop.call_soon_threadsafe, scope.cancel))
            if self._came:
                scope.cancel()
            try:
                yield
            finally:
                self._cancels.pop()


async def _run(
    stack: Stack,
    wait_s: float,
    listening: socket.socket,
    report: ProgressDisplay,
    introduce: OnStarted,
    when_running: Callable[[], None] | None,
    stopping: SignalCancellation,
) -> None:
    if when_running is not None:
        when_running()
    with stopping.scope():
        async with AsyncExitStack() as running:
            with report.waiting():
                await stack.start(wait_s=wait_s)
            running.push_async_callback(stack.stop)
            # A scope of its own, so that a signal cancels the serving and not the orderly close after it.
            with stopping.scope():
                await serve(stack, listening, await introduce(stack, url_of(listening)))


async def _to_try(stack: Stack, url: str) -> list[str]:
    """A line to copy, if a model can chat."""
    usable = [model for model in await stack.models.list_models() if model.can_chat] if "models" in stack.apis else []
    if not usable:
        return []
    body = {"model": usable[0].identifier, "messages": [{"role": "user", "content": "What is the capital of Italy?"}]}
    json_body = shlex.quote(json.dumps(body))
    return [f"Try: curl -s {url}/inference/chat_completion -H 'Content-Type: application/json' -d {json_body}"]


async def _show_providers(stack: Stack, output: CommandOutput) -> None:
    health = await stack.api("inspect").health()
    served = await _served(stack, health.providers)
    rows = []
    for provider in health.providers:
        is_starting = provider.status is ProviderStatus.starting
        known = (None if is_starting else served.get((provider.api, provider.provider_id)), provider.note)
        what = provider.shown_reason or "; ".join(part for part in known if part)
        rows.append((provider.api, provider.provider_id, provider.provider_type, provider.shown_status, what))
    output.table((), rows)


async def _served(stack: Stack, providers: list[ProviderHealth]) -> dict[tuple[str, str], str]:
    """By API and provider: the names that it serves, or their number if they are many."""
    found: dict[tuple[str, str], str] = {}
    for api in dict.fromkeys(provider.api for provider in providers):
        pair = stack.apis[api].pair
        if pair is None:
            continue
        names: dict[str, list[str]] = {}
        method = stack.apis[pair.resource_api].method_for(ResourceAction.LIST).name
        async for item in all_listed(stack.api(pair.resource_api).methods[method]):
            if item.unavailable_reason is None:
                names.setdefault(item.provider_id, []).append(item.identifier)
        for provider in (p for p in providers if p.api == api):
            own = names.get(provider.provider_id, [])
            few = 0 < len(own) <= _MOST_NAMES
            found[api, provider.provider_id] = ", ".join(own) if few else f"{len(own)} {pair.label}s"
    return found
