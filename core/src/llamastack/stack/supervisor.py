"""One configured provider while the stack runs: started, asked, retried, stopped, all in one task of its own."""

from __future__ import annotations

import logging
import math
import traceback
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from llamastack.api.base import RoutedObject
from llamastack.api.definition import ApiDefinition
from llamastack.api.inspect import ProviderHealth, ProviderProgress, ProviderStatus
from llamastack.provider.api_handle import ApiHandle
from llamastack.provider.backoff import pause_s
from llamastack.provider.compliance import check_provider
from llamastack.provider.context import STACK_ITSELF, use_own_context
from llamastack.provider.deps import Deps, Progress
from llamastack.provider.descriptor_shortage import is_shortage
from llamastack.provider.error_translation import log_traceback, reason_of, shortened, unwrapped
from llamastack.provider.errors import LlamaStackError, ProviderTimeoutError, ProviderUnavailableError
from llamastack.provider.import_path import load_dotted
from llamastack.provider.redaction import struck_error
from llamastack.provider.store import Store
from llamastack.stack.capability_gate import capability_gate
from llamastack.stack.fault_isolation import ContainedCalls, ContainedTasks, as_exception
from llamastack.stack.in_turns import in_turns
from llamastack.stack.resolver import PlannedProvider

_LOGGER = logging.getLogger("llamastack.stack")
_FIRST_RETRY_S = 1.0
_LAST_RETRY_S = 30.0
_STOP_TIMEOUT_S = 10.0
_ASK_TIMEOUT_S = 30.0
_LONGEST_WAIT_S = 5.0
_SHORTEST_POLL_S = 1.0
_PROGRESS_COUNTS_S = 10.0


class SupervisedProvider(ContainedCalls):
    """A provider instance.

    provider: the provider while it is ready for calls, else None. served: what it last said that it serves, by
    identifier. on_polled: called in the instance's own task after each poll that worked.

    All polls happen in the instance's own task. It belongs to no request: it sees no request's provider data, and a
    request that gives up waiting ends nothing for the others.
    """

    permanent = False
    """Whether it is down and no further attempt would help, as its config is wrong or a module is not there."""
    stop_fault: str | None = None
    """How its last shutdown failed; None if it did not."""

    def __init__(
        self,
        plan: PlannedProvider,
        definitions: Mapping[str, ApiDefinition],
        *,
        needs: list[SupervisedProvider],
        apis: Mapping[str, ApiHandle],
        folder: Path | None,
        store: Store,
        start_timeout_s: float,
        refresh_interval_s: float,
        on_progress: Callable[[SupervisedProvider, Progress], None],
        on_polled: Callable[[SupervisedProvider], Awaitable[None]],
    ) -> None:
        super().__init__(plan)
        self.api, self.plan, self.definition = plan.api, plan, definitions[plan.api]
        self._definitions = definitions
        self.provider: object = None
        self.served: dict[str, RoutedObject] = {}
        self.status = ProviderStatus.starting
        self.reason: str | None = None
        self.cause: BaseException | None = None
        self.note: str | None = None
        """What people should know of it although it is healthy, such as that it lists nothing without a key."""
        self.first_attempt, self.stopped = anyio.Event(), anyio.Event()
        self._needs = needs
        self._apis = apis
        self._folder, self._store = folder, store
        self._start_timeout_s = start_timeout_s
        self._refresh_interval_s = refresh_interval_s
        self._on_progress = on_progress
        self._on_polled = on_polled
        self._progress: Progress | None = None
        self._progress_at = -math.inf
        self._is_late = False
        self._stopping = False
        self._running, self._starting, self._pausing = (anyio.CancelScope() for _ in range(3))
        self._next_look_at = math.inf
        self._current_poll: anyio.Event | None = None
        self._next_poll = anyio.Event()
        self.polled_at = -math.inf
        """When it was last asked what it serves, by the event loop's clock."""
        self.gates = {name: capability_gate(plan, method) for name, method in self.definition.methods.items()}
        """Method -> what refuses uses of it that need a capability which the spec declares as not there."""

    # ---- life ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until `stop`. Never raises for a fault of the provider."""
        with use_own_context(STACK_ITSELF):  # whatever the task that starts the stack is about
            await self._run()

    async def _run(self) -> None:
        failures = 0
        try:
            while not self._stopping:
                pause = pause_s(failures, _FIRST_RETRY_S, _LAST_RETRY_S)
                begins_at = anyio.current_time() + pause
                failure = await self._run_once(math.inf if self.permanent else pause)
                if failure is None:
                    break
                self._went_down(failure)
                failures = 1 if anyio.current_time() - begins_at > _LAST_RETRY_S else failures + 1
        finally:
            self.first_attempt.set()
            self.stopped.set()

    async def _run_once(self, pause: float) -> Exception | None:
        """One life, from start to shutdown. Returns what ended it, None for `stop`."""
        made: list[object] = []
        failure: Exception | None = None
        try:
            async with anyio.create_task_group() as own:
                try:
                    with anyio.CancelScope() as self._running:
                        for needed in self._needs:
                            await needed.first_attempt.wait()
                        if pause:
                            await self._pause(pause)
                        await self._start(own, made)
                        await self._watch()
                except BaseException as raised:
                    failure = as_exception(raised)
                finally:
                    self.provider = None
                    # While its background tasks still run: it may need them to end in order.
                    await self._shut_down(made)
                own.cancel_scope.cancel()
        except BaseException as raised:  # of one of its background tasks
            failure = as_exception(raised)
        if failure is None and not self._stopping:
            failure = RuntimeError("it cancelled its own task group")
        return failure

    async def stop(self) -> None:
        """End it and wait until it has released everything, even if the caller is cancelled."""
        self._stopping = True
        self._running.cancel()
        with anyio.CancelScope(shield=True):
            await self.stopped.wait()

    async def _start(self, own: TaskGroup, made: list[object]) -> None:
        spec, config = self.plan.spec, self.plan.config
        self.permanent = isinstance(config, Exception)
        if isinstance(config, Exception):
            raise config
        validator = spec.provider_data_validator
        try:  # modules may bring a large SDK: importing them must not stop the loop
            data_model = await anyio.to_thread.run_sync(load_dotted, validator) if validator else None
            factory = await anyio.to_thread.run_sync(spec.load_factory)
        except BaseException:
            self.permanent = True
            raise
        deps = Deps(
            provider_id=self.provider_id,
            api=self.api,
            definitions=self._definitions,
            apis={name: api for name, api in self._apis.items() if self.plan.may_call(name)},
            task_group=ContainedTasks(own),
            state_dir=self._folder,
            store=self._store,
            report_progress=self._report,
            provider_data_validator=data_model,
        )
        with anyio.move_on_after(self._start_timeout_s) as self._starting:
            try:
                provider = await factory(config, deps)
            except ImportError:
                self.permanent = True
                raise
            made.append(provider)
            faults = check_provider(self.definition, provider, spec.capabilities)
            if faults:
                self.permanent = True
                raise TypeError(f"{spec.factory} made no provider of API '{self.api}': {'; '.join(faults)}")
            initialize = getattr(provider, "initialize", None)
            if initialize is not None:
                await initialize()
            self.provider = provider
        if self._starting.cancelled_caught:
            raise TimeoutError(f"did not start within {self._start_timeout_s:g} s{self._named_backend()}")
        await self._poll()

    async def _watch(self) -> None:
        failures = 0
        while True:
            failures = 0 if self.status is ProviderStatus.healthy else failures + 1
            await self._pause(pause_s(failures, _FIRST_RETRY_S, _LAST_RETRY_S) or self._refresh_interval_s)
            await self._poll()

    async def _pause(self, seconds: float) -> None:
        """Wait until the time is over, or somebody wants a look earlier."""
        self._look_at(anyio.current_time() + seconds)
        self.first_attempt.set()
        with anyio.CancelScope(deadline=self._next_look_at) as self._pausing:
            await anyio.sleep_forever()
        self._next_look_at = math.inf

    def _look_at(self, time: float) -> None:
        """Have the next look at the provider no later than `time`."""
        self._next_look_at = self._pausing.deadline = min(self._next_look_at, time)

    async def _shut_down(self, made: list[object]) -> None:
        shutdown = getattr(made.pop(), "shutdown", None) if made else None
        self.stop_fault = None
        if shutdown is None:
            return
        with anyio.move_on_after(_STOP_TIMEOUT_S, shield=True) as limit:
            try:
                await shutdown()
            except BaseException as raised:
                if limit.cancel_called and isinstance(raised, anyio.get_cancelled_exc_class()):
                    raise
                # Any other cancellation is the provider's own: the scope shields from those of the stack.
                error = raised if isinstance(raised, anyio.get_cancelled_exc_class()) else as_exception(raised)
                self.stop_fault = f"failed to shut down: {self.explain(error)}"
        if limit.cancelled_caught:
            self.stop_fault = f"did not shut down in {_STOP_TIMEOUT_S:g} s"
        if self.stop_fault is not None:
            _LOGGER.warning("%s %s %s", self.api, self.provider_id, self.stop_fault)

    # ---- health --------------------------------------------------------------------------------------------------

    def explain(self, error: BaseException) -> str:
        return shortened(self.redact(reason_of(error)))

    def _went_down(self, error: Exception) -> None:
        error = unwrapped(error)
        self._is_down(error)
        trace = self.redact("".join(traceback.format_exception(error)))
        log_traceback(_LOGGER, logging.DEBUG, f"why {self.api} {self.provider_id} is down", trace)
        self._poll_is_over()

    def tell_late_start(self) -> None:
        """Log that the stack runs without this provider, if its first attempt goes on; later, that it is healthy."""
        self._is_late = not self.first_attempt.is_set()
        if self._is_late:
            _LOGGER.info("%s %s (%s) is still starting", self.api, self.provider_id, self.provider_type)

    def _is_down(self, error: Exception) -> None:
        was = self.status
        self.status = ProviderStatus.down
        self.note = None
        self.cause = struck_error(error, self.redact)
        self.reason = self.explain(error)
        if was is not ProviderStatus.down:
            _LOGGER.warning("%s %s (%s) is down: %s", self.api, self.provider_id, self.provider_type, self.reason)

    def _take_note(self) -> None:
        note = getattr(self.provider, "note", None)
        before, self.note = self.note, shortened(self.redact(note)) if isinstance(note, str) and note else None
        if self.note is not None and self.note != before:
            _LOGGER.warning("%s %s %s", self.api, self.provider_id, self.note)

    def _report(self, progress: Progress) -> None:
        self._progress, self._progress_at = progress, anyio.current_time()
        self._starting.deadline = self._progress_at + self._start_timeout_s
        self._on_progress(self, progress)

    async def refresh(self, *, force: bool = False) -> None:
        """Have the provider asked how it is and what it serves, and wait for that, though not for long.

        force: a poll that has begun already does not count.
        """
        if self.provider is None or not self.first_attempt.is_set():
            return
        over = self._next_poll if force or self._current_poll is None else self._current_poll
        if over is self._next_poll:
            self.wake()
        with anyio.move_on_after(_LONGEST_WAIT_S):
            await over.wait()

    def wake(self) -> None:
        """Have a poll begin now."""
        self._look_at(anyio.current_time())

    def expire(self) -> None:
        """What it serves has changed: the provider is asked again when somebody asks for it next."""
        self.polled_at = -math.inf
        self._take_note()

    def drop(self, identifier: str) -> None:
        """It serves this object no more, as far as is known before the next poll."""
        self.served.pop(identifier, None)

    async def _poll(self) -> None:
        """Ask the provider how it is and what it serves."""
        self._current_poll, self._next_poll = self._next_poll, anyio.Event()
        try:
            await self._ask_in_time()
        except BaseException as raised:
            error = as_exception(raised)
            if is_shortage(error) and self.status is ProviderStatus.healthy:
                # It goes on serving: a shortage in this process is no fault of the provider.
                _LOGGER.warning("%s %s cannot be asked: %s", self.api, self.provider_id, self.explain(error))
            else:
                self._is_down(error)
        else:
            if self.status is ProviderStatus.down or self._is_late:
                self._is_late = False
                _LOGGER.info("%s %s is healthy", self.api, self.provider_id)
            self.status = ProviderStatus.healthy
            self.reason = self.cause = None
            self._take_note()
        self._poll_is_over()
        if self.status is ProviderStatus.healthy:
            await self._on_polled(self)
            self._take_note()

    def _poll_is_over(self) -> None:
        self.polled_at = anyio.current_time()
        if self._current_poll is not None:
            self._current_poll.set()
            self._current_poll = None

    async def _ask_in_time(self) -> None:
        with anyio.move_on_after(_ASK_TIMEOUT_S) as limit:
            await self._ask()
        if limit.cancelled_caught:
            raise TimeoutError(f"did not say within {_ASK_TIMEOUT_S:g} s what it serves{self._named_backend()}")

    def _named_backend(self) -> str:
        url = getattr(self.plan.config, "url", None)
        return f" (its backend: {url})" if url else ""

    async def _ask(self) -> None:
        health = getattr(self.provider, "health", None)
        if health is not None:
            await health()
        pair = self.definition.pair
        if pair is None:
            return
        listed = await getattr(self.provider, pair.list_hook)()
        # Where the provider lists a name twice, the first one counts.
        served: dict[str, RoutedObject] = {}
        async for item in in_turns([*listed]):
            if item.identifier not in served:
                is_own = item.provider_id == self.provider_id
                served[item.identifier] = item if is_own else item.model_copy(update={"provider_id": self.provider_id})
        self.served = served

    def unavailable(self) -> ProviderUnavailableError:
        """The error for a call that needs this provider while it is not there."""
        state = f"is down: {self.reason}" if self.reason else "is starting"
        message = f"provider '{self.provider_id}' ({self.provider_type}) {state}"
        return ProviderUnavailableError(message, provider_id=self.provider_id)

    def describe(self) -> ProviderHealth:
        return ProviderHealth(
            api=self.api,
            provider_id=self.provider_id,
            provider_type=self.provider_type,
            status=self.status,
            reason=self.reason,
            retry_in_s=self._retry_in_s(),
            progress=self._current_progress(),
            note=self.note,
        )

    def _retry_in_s(self) -> float | None:
        if self.status is not ProviderStatus.down or math.isinf(self._next_look_at):
            return None
        return round(max(0.0, self._next_look_at - anyio.current_time()), 1)

    def _current_progress(self) -> ProviderProgress | None:
        """Work that was not reported for a while has ended, one way or the other."""
        at = self._progress
        if at is None or at.done == at.total or anyio.current_time() - self._progress_at > _PROGRESS_COUNTS_S:
            return None
        return ProviderProgress(task=at.task, done=at.done, total=at.total, unit=at.unit)

    def failed(self, raised: BaseException) -> LlamaStackError:
        """The error for a user's call. When the backend seems to be down, the next poll comes early."""
        error = self.translate_error(raised)
        down = isinstance(error, ProviderUnavailableError | ProviderTimeoutError)
        if down and error.provider_id == self.provider_id and self.provider is not None and not self._current_poll:
            # Many calls fail at once, and one poll is enough for all.
            self._look_at(self.polled_at + _SHORTEST_POLL_S)
        return error
