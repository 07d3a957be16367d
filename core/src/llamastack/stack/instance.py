"""One configured provider while the stack runs: started, asked, retried, stopped, all in one task of its own."""

from __future__ import annotations

import logging
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup

from llamastack.api.definition import ApiDefinition
from llamastack.api.inspect import ProviderHealth, ProviderStatus
from llamastack.provider.compliance import faults_of_provider
from llamastack.provider.deps import Deps, Progress
from llamastack.provider.dotted import load_dotted
from llamastack.provider.errors import LlamaStackError, ProviderTimeoutError, ProviderUnavailableError
from llamastack.provider.faults import as_stack_error, reason_of, redactor
from llamastack.stack.resolver import PlannedProvider

_LOGGER = logging.getLogger("llamastack.stack")
_FIRST_RETRY_S = 1.0
_LAST_RETRY_S = 30.0
_STOP_TIMEOUT_S = 10.0
_ASK_TIMEOUT_S = 30.0


class NonCompliantProviderError(LlamaStackError):
    """The object that a factory made is not a provider of its API."""


class Instance:
    """A provider instance. `provider` is None while it is not started.

    served: what it said it serves, by identifier. on_ready: called after each successful start, before it counts as
    healthy. on_refresh: called after each successful round of asking.
    """

    def __init__(
        self,
        plan: PlannedProvider,
        definitions: Mapping[str, ApiDefinition],
        *,
        needs: list[Instance],
        apis: Mapping[str, Any],
        folder: Path | None,
        start_timeout_s: float,
        refresh_interval_s: float,
        on_progress: Callable[[Instance, Progress], None],
    ) -> None:
        self.plan = plan
        self.definition = definitions[plan.api]
        self._definitions = definitions
        self.provider_id = plan.provider_id
        self.provider_type = plan.provider_type
        self.api = plan.api
        self.provider: Any = None
        self.served: dict[str, Any] = {}
        self.status = ProviderStatus.starting
        self.reason: str | None = None
        self.cause: BaseException | None = None
        self.permanent = False
        self.first_attempt = anyio.Event()
        self.stopped = anyio.Event()
        self.on_refresh: Callable[[Instance], Awaitable[None]] | None = None
        self.redact = redactor(plan.config)
        self._needs = needs
        self._apis = apis
        self._folder = folder
        self._start_timeout_s = start_timeout_s
        self._refresh_interval_s = refresh_interval_s
        self._on_progress = on_progress
        self._stop = anyio.Event()
        self._wake = anyio.Event()
        self._retry_at: float | None = None
        self._refreshing: anyio.Event | None = None
        self.refreshed_at = float("-inf")
        self.refused = {name: dict(self._refused_arguments(name)) for name in self.definition.methods}
        """Method -> parameter ("" for the method itself) -> capability that the spec declares as not there."""

    def _refused_arguments(self, name: str) -> list[tuple[str, str]]:
        web = self.definition.methods[name].web
        capabilities = self.plan.spec.capabilities
        wanted = [("", web.capability or ""), *web.argument_capabilities.items()]
        return [(param, capability) for param, capability in wanted if capabilities.refused(capability)]

    # ---- life ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until `stop`. Never raises for a fault of the provider."""
        try:
            for needed in self._needs:
                await needed.first_attempt.wait()
            delay = _FIRST_RETRY_S
            while not self._stop.is_set():
                started = anyio.current_time()
                try:
                    async with anyio.create_task_group() as own:
                        await self._start(own)
                        await self._watch()
                        own.cancel_scope.cancel()
                except Exception as error:
                    self._went_down(error)
                    await self._shut_down()
                    if anyio.current_time() - started > _LAST_RETRY_S:
                        delay = _FIRST_RETRY_S
                    if self.permanent:
                        self.first_attempt.set()
                        await self._stop.wait()
                    else:
                        await self._pause(delay)
                        delay = min(delay * 2, _LAST_RETRY_S)
        finally:
            await self._shut_down()
            self.first_attempt.set()
            self.stopped.set()

    async def stop(self) -> None:
        """End it and wait until it has let go of everything."""
        self._stop.set()
        self._wake.set()
        await self.stopped.wait()

    async def _start(self, own: TaskGroup) -> None:
        plan = self.plan
        if isinstance(plan.config, Exception):
            raise plan.config
        with anyio.move_on_after(self._start_timeout_s) as deadline:

            def report(progress: Progress) -> None:
                deadline.deadline = anyio.current_time() + self._start_timeout_s
                self._on_progress(self, progress)

            spec = plan.spec
            validator = spec.provider_data_validator
            deps = Deps(
                provider_id=plan.provider_id,
                api=self.api,
                definitions=self._definitions,
                apis={
                    name: self._apis[name]
                    for name in (*spec.api_dependencies, *spec.optional_api_dependencies)
                    if name in self._apis
                },
                task_group=own,
                state_dir=self._folder,
                report_progress=report,
                provider_data_validator=None if validator is None else load_dotted(validator),
            )
            # The provider's module may bring a large SDK: importing it must not stop the loop.
            factory = await anyio.to_thread.run_sync(spec.load_factory)
            provider = await factory(plan.config, deps)
            self.provider = provider
            faults = faults_of_provider(self.definition, provider, spec.capabilities)
            if faults:
                self.provider = None
                raise NonCompliantProviderError(
                    f"{spec.factory} made no provider of API '{self.api}': {'; '.join(faults)}"
                )
            initialize = getattr(provider, "initialize", None)
            if initialize is not None:
                await initialize()
        if deadline.cancelled_caught:
            raise TimeoutError(f"did not start within {self._start_timeout_s:g} s")
        await self.refresh()
        if self.status is not ProviderStatus.healthy:
            _LOGGER.warning("%s %s (%s) is down: %s", self.api, self.provider_id, self.provider_type, self.reason)

    async def _watch(self) -> None:
        delay = _FIRST_RETRY_S
        while not self._stop.is_set():
            healthy = self.status is ProviderStatus.healthy
            await self._pause(self._refresh_interval_s if healthy else delay)
            if self._stop.is_set():
                return
            await self.refresh()
            delay = _FIRST_RETRY_S if self.status is ProviderStatus.healthy else min(delay * 2, _LAST_RETRY_S)

    async def _pause(self, seconds: float) -> None:
        """Wait until the time is over, `stop`, or `suspect`."""
        self._retry_at = None if self.status is ProviderStatus.healthy else anyio.current_time() + seconds
        self.first_attempt.set()
        with anyio.move_on_after(seconds):
            await self._wake.wait()
        if not self._stop.is_set():
            self._wake = anyio.Event()
        self._retry_at = None

    async def _shut_down(self) -> None:
        provider, self.provider = self.provider, None
        shutdown = getattr(provider, "shutdown", None)
        if shutdown is None:
            return
        with anyio.CancelScope(shield=True), anyio.move_on_after(_STOP_TIMEOUT_S) as limit:
            try:
                await shutdown()
            except Exception as error:
                _LOGGER.warning("%s %s failed to shut down: %s", self.api, self.provider_id, self.explain(error))
        if limit.cancelled_caught:
            _LOGGER.warning("%s %s did not shut down in %g s", self.api, self.provider_id, _STOP_TIMEOUT_S)

    # ---- health --------------------------------------------------------------------------------------------------

    def suspect(self) -> None:
        """A call just failed as if the backend were down: look at once rather than at the next round."""
        if self.status is ProviderStatus.healthy:
            self._wake.set()

    def explain(self, error: BaseException) -> str:
        return self.redact(reason_of(error))

    def _went_down(self, error: BaseException) -> None:
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        self.permanent = isinstance(error, ImportError | AttributeError | NonCompliantProviderError)
        was = self.status
        self.status = ProviderStatus.down
        self.cause = error
        self.reason = self.explain(error)
        if was is not ProviderStatus.down:
            _LOGGER.warning("%s %s (%s) is down: %s", self.api, self.provider_id, self.provider_type, self.reason)
            _LOGGER.debug("%s", self.redact("".join(traceback.format_exception(error))))

    async def refresh(self, *, anew: bool = False) -> None:
        """Ask the provider how it is and what it serves; callers at the same time share one round of asking.

        anew: do not share a round that began before this call.
        """
        while self._refreshing is not None:
            await self._refreshing.wait()
            if not anew:
                return
        if self.provider is None:
            return
        self._refreshing = done = anyio.Event()
        try:
            # Others share this round, so the caller that began it must not end it by going away.
            with anyio.CancelScope(shield=True):
                await self._ask()
        except Exception as error:
            if self.status is ProviderStatus.healthy:
                _LOGGER.warning("%s %s is down: %s", self.api, self.provider_id, self.explain(error))
            self.status = ProviderStatus.down
            self.reason = self.explain(error)
            self.cause = error
        else:
            if self.status is ProviderStatus.down:
                _LOGGER.info("%s %s is healthy", self.api, self.provider_id)
            self.status = ProviderStatus.healthy
            self.reason = self.cause = None
            if self.on_refresh is not None:
                await self.on_refresh(self)
        finally:
            self.refreshed_at = anyio.current_time()
            self._refreshing = None
            done.set()

    async def _ask(self) -> None:
        with anyio.fail_after(_ASK_TIMEOUT_S):
            health = getattr(self.provider, "health", None)
            if health is not None:
                await health()
            pair = self.definition.pair
            if pair is None:
                return
            listed = await getattr(self.provider, pair.list_hook)()
        # A name that cannot be used, or is there twice, would make the table ambiguous: the first one counts.
        served: dict[str, Any] = {}
        for item in listed:
            own = (
                item
                if item.provider_id == self.provider_id
                else item.model_copy(update={"provider_id": self.provider_id})
            )
            served.setdefault(own.identifier, own)
        self.served = served

    def unavailable(self) -> ProviderUnavailableError:
        """The error for a call that needs this provider while it is not there."""
        message = f"provider '{self.provider_id}' ({self.provider_type}) is down: {self.reason or 'it is starting'}"
        return ProviderUnavailableError(message, provider_id=self.provider_id)

    def describe(self) -> ProviderHealth:
        return ProviderHealth(
            api=self.api,
            provider_id=self.provider_id,
            provider_type=self.provider_type,
            status=self.status,
            reason=self.reason,
            retry_in_s=None if self._retry_at is None else round(max(0.0, self._retry_at - anyio.current_time()), 1),
        )

    # ---- calls ---------------------------------------------------------------------------------------------------

    def failed(self, error: Exception) -> LlamaStackError:
        """What the caller is told about an exception of the provider."""
        told = as_stack_error(error, self.provider_id, self.provider_type, self.redact)
        if isinstance(told, ProviderUnavailableError | ProviderTimeoutError):
            self.suspect()
        return told

    async def guarded(self, pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """The pieces of a stream, its errors translated; closing it closes the provider's stream."""
        try:
            async for piece in pieces:
                yield piece
        except Exception as error:
            told = self.failed(error)
            raise told from (None if told is error else error)
        finally:
            close = getattr(pieces, "aclose", None)
            if close is not None:
                with anyio.CancelScope(shield=True):
                    await close()
