"""The models that Ollama is pulling: one pull for all calls that wait for a model, with progress."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio

from llamastack.provider import Deps, Progress
from llamastack.provider.errors import BackendError, LlamaStackError, NotFoundError, ProviderUnavailableError
from llamastack.provider.errors_from_wire import error_from_wire
from llamastack.provider.redaction import without_known_secrets
from llamastack_provider_ollama.backend import Backend

_LOGGER = logging.getLogger("llamastack.provider")
_SHORT_WAIT_S = 1.0
_LOG_EVERY_S = 10.0
_AFTER_FAILURE_S = 60.0
_STOP_WAIT_S = 1.0
_UNKNOWN = ("file does not exist", "not found", "invalid model name")


def tagged(name: str) -> str:
    """A model's name with its tag; without a tag Ollama uses `latest`."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


@dataclass(eq=False, slots=True)
class _Pull:
    """waiters: registrations that wait for it. kept: it continues without any. sizes: (completed, total) by layer."""

    name: str
    waiters: int = 0
    kept: bool = False
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    over: anyio.Event = field(default_factory=anyio.Event)
    ended_at: float = 0.0
    failure: LlamaStackError | None = None

    @property
    def done(self) -> int:
        return sum(done for done, _ in self.sizes.values())

    @property
    def total(self) -> int:
        return sum(total for _, total in self.sizes.values())

    def take_in(self, digest: str, done: int, total: int) -> bool:
        """Whether there is progress. A part that is downloaded again counts once."""
        before = self.sizes.get(digest, (0, 0))
        self.sizes[digest] = now = (max(before[0], done), max(before[1], total))
        return now != before

    @property
    def is_wanted(self) -> bool:
        return self.waiters > 0 or self.kept

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the wait of one registration."""
        self.waiters += 1
        try:
            yield
        finally:
            self.waiters -= 1

    def keep(self, kept: bool) -> None:
        self.kept = kept

    def end(self, failure: LlamaStackError | None) -> None:
        self.failure = failure
        self.ended_at = time.monotonic()
        self.over.set()

    def __str__(self) -> str:
        return f"{self.done / self.total:.0%} of {self.total / 1e9:.2f} GB" if self.total else "it has just begun"


class Pulls:
    """All pulls of an instance. They run in its task group."""

    def __init__(self, backend: Backend, deps: Deps) -> None:
        self._backend = backend
        self._deps = deps
        self._id = deps.provider_id
        self._pulls: dict[str, _Pull] = {}

    async def wait_for(self, name: str) -> None:
        """Pull a model, or join its running pull, and wait for the end.

        The pull is cancelled when nobody waits for it any more, unless `look_after` has started it or keeps it. Raises
        NotFoundError for a model that Ollama cannot find, another error of the family for another failure; a later call
        tries again.
        """
        pull = self._running(name) or self._begin(name)
        try:
            with pull.waiting():
                await pull.over.wait()
        finally:
            if not (pull.is_wanted or pull.over.is_set()):
                self._cancel(pull)
        _raise_failure(pull)

    async def look_after(self, name: str) -> None:
        """The same without waiting: raises ProviderUnavailableError with the progress while the pull runs.

        A failed pull is not retried at once.
        """
        pull = self._pulls.get(tagged(name))
        if pull is None or (pull.over.is_set() and time.monotonic() - pull.ended_at > _AFTER_FAILURE_S):
            pull = self._begin(name)
        pull.keep(True)
        with anyio.move_on_after(_SHORT_WAIT_S):
            await pull.over.wait()
        if not pull.over.is_set():
            raise ProviderUnavailableError(
                f"provider '{self._id}' is pulling '{pull.name}': {pull}", provider_id=self._id
            )
        _raise_failure(pull)

    def drop(self, name: str) -> None:
        """Nobody wants the model any more."""
        pull = self._running(name)
        if pull is not None:
            pull.keep(False)
            if not pull.is_wanted:
                self._cancel(pull)

    async def aclose(self) -> None:
        """Cancel all; safe to call twice."""
        pulls = [pull for pull in self._pulls.values() if not pull.over.is_set()]
        for pull in pulls:
            self._cancel(pull)
        with anyio.move_on_after(_STOP_WAIT_S):
            for pull in pulls:
                await pull.over.wait()

    def _running(self, name: str) -> _Pull | None:
        pull = self._pulls.get(tagged(name))
        return None if pull is None or pull.over.is_set() else pull

    def _begin(self, name: str) -> _Pull:
        pull = self._pulls[tagged(name)] = _Pull(name)
        self._deps.task_group.start_soon(self._run, pull)
        return pull

    def _cancel(self, pull: _Pull) -> None:
        pull.scope.cancel()
        self._forget(pull)  # the next caller starts a new pull

    def _forget(self, pull: _Pull) -> None:
        if self._pulls.get(tagged(pull.name)) is pull:
            del self._pulls[tagged(pull.name)]

    async def _run(self, pull: _Pull) -> None:
        failure: LlamaStackError | None = ProviderUnavailableError(
            f"the pull of '{pull.name}' by provider '{self._id}' was stopped", provider_id=self._id
        )
        _LOGGER.info("provider '%s' pulls '%s'", self._id, pull.name)
        try:
            with pull.scope:
                await self._pull(pull)
                failure = None
        except LlamaStackError as error:
            failure = error
        except Exception as error:  # a fault here must not end the provider
            failure = BackendError(f"{type(error).__name__} while pulling '{pull.name}'")
            _LOGGER.exception("provider '%s' failed to pull '%s'", self._id, pull.name)
        finally:
            pull.end(failure)
            if failure is None or not pull.kept:
                self._forget(pull)
        if failure is None:
            _LOGGER.info("provider '%s' has pulled '%s'", self._id, pull.name)
        else:
            why = without_known_secrets(failure.message)  # a backend may repeat the request
            _LOGGER.warning("provider '%s' has not pulled '%s': %s", self._id, pull.name, why)

    async def _pull(self, pull: _Pull) -> None:
        client, logged = self._backend.client, time.monotonic()
        status: str | None = None
        try:
            pieces = await self._backend.stream(lambda: client.pull(pull.name, stream=True))
            try:
                async for piece in pieces:
                    status = piece.status
                    if piece.digest and pull.take_in(piece.digest, piece.completed or 0, piece.total or 0):
                        self._deps.report_progress(Progress(f"pulling {pull.name}", pull.done, pull.total))
                    if time.monotonic() - logged > _LOG_EVERY_S:
                        logged = time.monotonic()
                        _LOGGER.info("provider '%s' pulls '%s': %s", self._id, pull.name, pull)
            finally:
                await pieces.aclose()
        except BackendError as error:
            if any(words in error.message for words in _UNKNOWN):
                raise NotFoundError(error.message) from error
            raise
        if status != "success":
            raise BackendError(f"{self._backend.where} ended the pull of '{pull.name}' before it was complete")


def _raise_failure(pull: _Pull) -> None:
    if pull.failure is not None:
        # A copy for each waiter, because a caller may change an error that it passes on.
        raise error_from_wire(pull.failure.status, pull.failure.to_wire())
