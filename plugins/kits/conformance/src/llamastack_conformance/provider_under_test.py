"""The provider under test: starts stacks with it, and runs checks on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from llamastack.stack import ConfigError, Stack
from llamastack.stack.discovery import Discovery
from llamastack_conformance.backend_tap import Tap, tap
from llamastack_conformance.cassettes.session import CassetteSession
from llamastack_conformance.check_runner import CheckRunner
from llamastack_conformance.checks import Body, Check, CheckFailure, NotApplicable, NotUsable
from llamastack_conformance.configured import ConfiguredProvider, merged, nested
from llamastack_conformance.never_healthy import NeverHealthy, Way, not_healthy
from llamastack_conformance.running import Running
from llamastack_conformance.stack_folder import StackFolder, new_stack_folder

_STARTED_BY_S = 30.0
_CLEAN_UP_S = 10.0
SECOND = "-2"
"""The end of the `provider_id` of the second instance."""


@dataclass(frozen=True, slots=True)
class _Shared:
    running: Running
    stopping: anyio.Event
    stopped: anyio.Event


class Subject(ConfiguredProvider, CheckRunner):
    """A provider under test, and the event loop of its checks."""

    def __init__(
        self,
        api: str,
        provider_type: str,
        document: Mapping[str, Any],
        *,
        discovery: Discovery | None = None,
        on_run: Callable[[Check], None] = lambda _: None,
    ) -> None:
        ConfiguredProvider.__init__(self, api, provider_type, document, discovery=discovery)
        CheckRunner.__init__(self, on_run)
        self._group: TaskGroup | None = None
        self._shared: _Shared | None = None
        self._left: _Shared | None = None
        self._never_healthy = NeverHealthy()
        self._cassette: CassetteSession | None = None

    def use_cassette(self, cassette: CassetteSession) -> None:
        """Let the checks record or replay. Call it before the first check."""
        self._cassette = cassette

    def run(self, described: Check, body: Body[Any], suite: Any) -> None:
        """Run a check to its end, with the cassette if there is one. Raises CheckFailure or NotApplicable."""
        with nullcontext() if self._cassette is None else self._cassette.check(described):
            super().run(described, body, suite)

    def require(self, described: Check) -> None:
        """Raise NotApplicable for a capability that this instance lacks."""
        if described.capability in self.settings.lacks:
            raise NotApplicable(f"x-conformance.lacks names `{described.capability}`")

    # ---- starting stacks -----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def start(
        self,
        *,
        changes: Mapping[str, Any] | None = None,
        second: bool = False,
        tapped: bool = False,
        down: bool = False,
        folder: StackFolder | None = None,
        beside: StackFolder | None = None,
    ) -> AsyncIterator[Running]:
        """Start a separate stack.

        changes: to the provider's config. second: start the second instance, with another id. tapped: put a tap before
        the backend; raises NotApplicable if that is impossible. down: the backend cannot be reached until
        `tap.listen()`. folder: of `kept_folder`, with what the stack before has left. beside: of a stack that runs;
        this one is another worker of it, and leaves to it what is registered. The shared stack is stopped
        first. Raises CheckFailure if the provider does not become healthy, unless `down`; and at once if it did not in
        an earlier check.
        """
        if not second:  # the shared stack may hold something exclusive: a folder, a port, a GPU's memory
            await self.stop_shared()
        elif self._cassette is not None and self.has_other_backend(self.settings.second):
            raise NotApplicable("not with a cassette: the second instance has another backend")
        provider_id = str(self.entry.get("provider_id") or "under-test") + (SECOND if second else "")
        async with AsyncExitStack() as opened:
            made: Tap | None = None
            change = merged(changes or {}, self.settings.second if second else {})
            again = folder is not None and folder.starts > 0
            way = Way(second, tapped, down, repr(change), again, beside is not None)
            if tapped or down:
                made = await opened.enter_async_context(tap(self.require_backend(), listens=not down))
                change = merged(change, nested(self.backend_url_field or "", made.url))
            self._never_healthy.raise_if(way)
            used = folder or beside or opened.enter_context(new_stack_folder())
            with self._never_healthy.remembered(way, self.settings.time_limit_s):
                stack = self._assemble(provider_id, change, used, is_kept=used in (folder, beside))
                await anyio.to_thread.run_sync(self.require_code)
                running = Running(self, stack, provider_id, made, folder)
                await opened.enter_async_context(stack)
                if not down and not await running.becomes_healthy(_STARTED_BY_S):
                    raise not_healthy(f"the provider is {running.instance.status}: {running.instance.reason}")
            try:
                yield running
            finally:
                with anyio.CancelScope(shield=True), anyio.move_on_after(_CLEAN_UP_S):
                    await running.clean_up(unregisters=beside is None)

    def _assemble(self, provider_id: str, change: Mapping[str, Any], folder: StackFolder, *, is_kept: bool) -> Stack:
        """A stack that is not started. Raises NotUsable if it does not accept its run config."""
        _ = self.spec  # if the provider cannot be loaded, every check has the same reason
        document = self.run_config(provider_id, change)
        folder.use()
        if is_kept:
            document["store"] = folder.store
        try:
            return Stack.from_config(document, discovery=self.discovery, folder=folder.path)
        except ConfigError as error:
            raise NotUsable(
                str(error), wanted="a run config that the stack accepts", mend="correct the run config"
            ) from None

    @asynccontextmanager
    async def kept_folder(self) -> AsyncIterator[StackFolder]:
        """A folder for stacks that start one after the other.

        What the last one leaves registered is unregistered in the end, by another stack.
        """
        with new_stack_folder() as folder:
            try:
                yield folder
            finally:
                if folder.registered:
                    with anyio.CancelScope(shield=True), anyio.move_on_after(_CLEAN_UP_S), suppress(CheckFailure):
                        async with self.start(folder=folder):
                            pass

    @asynccontextmanager
    async def shared(self, *, tapped: bool = False) -> AsyncIterator[Running]:
        """The stack for all checks that change nothing for other checks.

        tapped: with a tap before the backend, whose faults end with the block; raises NotApplicable if that is
        impossible. After a check that fails with a tap, the next one gets another stack.
        """
        if self._shared is not None and self._shared.running.is_tapped is not tapped:
            await self.stop_shared()
        if self._shared is None:
            if self._group is None:
                raise RuntimeError("a check runs while its subject is open")
            self._shared = await self._group.start(self._hold_shared, tapped)
        shared = self._shared
        try:
            yield shared.running
        except NotApplicable:
            raise
        except BaseException:
            if tapped and self._shared is shared:
                self._left, self._shared = shared, None
                shared.stopping.set()
            raise
        finally:
            if tapped:
                shared.running.tap.clear()

    async def _hold_shared(self, tapped: bool, *, task_status: TaskStatus[_Shared]) -> None:
        # A separate task: cancel scopes must close in the task that opened them.
        stopped = anyio.Event()
        try:
            async with self.start(tapped=tapped) as running:
                shared = _Shared(running, anyio.Event(), stopped)
                task_status.started(shared)
                await shared.stopping.wait()
        finally:
            stopped.set()

    async def stop_shared(self) -> None:
        """Stop the shared stack if it runs; the next check that needs it starts it again."""
        shared, self._shared = self._shared, None
        left, self._left = self._left, None
        for one in (shared, left):
            if one is not None:
                one.stopping.set()
                await one.stopped.wait()

    @asynccontextmanager
    async def _tasks(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as self._group:
            try:
                yield
            finally:
                await self.stop_shared()
        self._group = None
