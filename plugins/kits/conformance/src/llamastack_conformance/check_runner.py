"""What runs the checks of a suite: an event loop of its own, a time limit for each, and what their errors mean."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from llamastack.provider.error_translation import unwrapped
from llamastack.provider.errors import InternalError, LlamaStackError
from llamastack_conformance.checks import Body, Check, CheckFailure, NotApplicable
from llamastack_conformance.settings import Settings
from llamastack_conformance.stray_exits import contained


def _nobody_watches(_: Check) -> None:
    """A check that runs."""


class CheckRunner:
    """The event loop of the checks of one provider or store.

    settings: those of the suite. on_run: called when a check begins.
    """

    settings: Settings

    def __init__(self, on_run: Callable[[Check], None] = _nobody_watches) -> None:
        self._portal: BlockingPortal | None = None
        self._on_run = on_run

    @contextmanager
    def open(self) -> Iterator[Self]:
        """Run an event loop in a separate thread while the block lasts."""
        with start_blocking_portal("asyncio", name="llamastack-conformance") as portal:
            self._portal = portal
            tasks = portal.wrap_async_context_manager(self._tasks())
            tasks.__enter__()
            try:
                yield self
            finally:
                # This happens in order even if the block failed: the tasks did not cause its error.
                tasks.__exit__(None, None, None)
                self._portal = None

    @asynccontextmanager
    async def _tasks(self) -> AsyncIterator[None]:
        """What runs beside the checks."""
        yield

    def run(self, described: Check, body: Body[Any], suite: Any) -> None:
        """Run a check to its end. Raises CheckFailure or NotApplicable."""
        if self._portal is None:
            raise RuntimeError("a check runs while its subject is open")
        self._on_run(described)
        self._portal.call(self._bounded, described, body, suite)

    def require(self, described: Check) -> None:
        """Raise NotApplicable if this configuration cannot have what the check is about."""

    async def _bounded(self, described: Check, body: Body[Any], suite: Any) -> None:
        self.require(described)
        limit = self.settings.time_limit_s
        try:
            with anyio.move_on_after(limit) as scope:
                await contained(body(suite, self))
        except (CheckFailure, NotApplicable):
            raise
        except Exception as error:
            raise _as_failure(error) from error
        if scope.cancelled_caught:
            raise CheckFailure(
                f"nothing for {limit:g} s", mend="find the call that never returns; x-conformance.time_limit_s"
            )


def _as_failure(error: Exception) -> Exception:
    """The failure of a check whose call raised an unexpected error."""
    error = unwrapped(error)
    if isinstance(error, CheckFailure | NotApplicable):
        return error
    if isinstance(error, LlamaStackError) and not isinstance(error, InternalError):
        return CheckFailure(f"{type(error).__name__} ({error.status}): {error.message}")
    # The error is unexpected, so its traceback is shown.
    trace = "".join(traceback.format_exception(error)).rstrip()
    return CheckFailure(f"{type(error).__name__}: {error}\n{trace}")
