"""Checks of a provider's behaviour at faults, which a tap before the real backend makes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from pydantic import SecretStr

from llamastack.api.inspect import ProviderStatus
from llamastack.provider.context import use_provider_data
from llamastack.provider.errors import (
    AuthenticationError,
    BackendError,
    InvalidRequestError,
    LlamaStackError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
)
from llamastack.provider.redaction import Redactor
from llamastack.provider.streams import close
from llamastack_conformance.backend_tap import Request, answer
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.log_capture import everything_logged, lines_of
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.suites.suite import Suite
from llamastack_conformance.watching import Holdings, becomes, left_after, own_temporary_folder, unclosed

_RECOVERS_BY_S = 20.0
_SEEN_BY_S = 5.0
_GIVES_UP_BY_S = 25.0
_RETRY_AFTER_S = 3600
_CLIENTS_KEY = "9d2c7e-conformance-secret-of-a-client"
_SHORTEST_PART = 8
_LET_GO_BY_S = 3.0
_WORDS = "the moon is in the way"
_ERROR = json.dumps({"error": {"message": _WORDS, "type": "invalid_request_error", "code": None}, "message": _WORDS})


class FailureChecks(Suite):
    """Checks of every provider; those of the connection need a backend with a URL in the config."""

    @check("failure.down-at-start", tier=Tier.failure, mend="need the backend only for health, listings and calls")
    async def test_failure_down_at_start(self, subject: Subject) -> None:
        """if its backend is down, the provider is reported down, calls get a 503, and it recovers when the backend is
        back
        """
        async with subject.start(down=True) as running:
            if running.instance.status is not ProviderStatus.down or not running.instance.reason:
                raise CheckFailure(f"with no backend it is {running.instance.status}: {running.instance.reason}")
            await self._expect(running, ProviderUnavailableError)
            await running.tap.listen()
            if not await running.becomes_healthy(_RECOVERS_BY_S):
                raise CheckFailure(f"{_RECOVERS_BY_S:g} s after the backend came: {running.instance.reason}")
            await self.prepare(running)
            await self.call(running)

    @check("failure.goes-down", tier=Tier.failure, mend="raise ProviderUnavailableError for a refused connection")
    async def test_failure_goes_down(self, subject: Subject) -> None:
        """when the backend goes away, a call gets ProviderUnavailableError (503); when it is back, calls work again"""
        async with self._tapped(subject) as running:
            await running.tap.refuse()
            await self._expect(running, ProviderUnavailableError)
            await running.tap.listen()
            if not await running.becomes_healthy(_RECOVERS_BY_S):
                raise CheckFailure(f"{_RECOVERS_BY_S:g} s after the backend came back: {running.instance.reason}")
            await self.call(running)

    @check("failure.silent-backend", tier=Tier.failure, mend="give every call to the backend a time limit")
    async def test_failure_silent_backend(self, subject: Subject) -> None:
        """if a backend reads a request and never answers, the call fails in time with a 504 or 503"""
        subject.require_backend()
        async with self._tapped(subject, changes=subject.short_timeouts) as running:
            running.tap.disturb(hangs=True)
            with anyio.move_on_after(_GIVES_UP_BY_S) as scope:
                await self._expect(running, ProviderTimeoutError, ProviderUnavailableError)
            if scope.cancelled_caught:
                raise CheckFailure(f"with a time limit of 1 s it still waits after {_GIVES_UP_BY_S:g} s")

    @check(
        "failure.cut-reply", tier=Tier.failure, mend="let the client's error for an incomplete body through, or map it"
    )
    async def test_failure_cut_reply(self, subject: Subject) -> None:
        """a reply that is cut in the middle is an error of the backend (502, 503), never a shorter reply"""
        async with self._tapped(subject) as running:
            running.tap.disturb(cuts=True)
            await self._expect(running, BackendError, ProviderUnavailableError)

    @check(
        "failure.cut-stream",
        tier=Tier.failure,
        mend="treat the end of the connection before the last event as an error",
    )
    async def test_failure_cut_stream(self, subject: Subject) -> None:
        """a stream that is cut in the middle ends with an error of the backend (502, 503), never as complete"""
        async with self._tapped(subject) as running:
            running.tap.disturb(cuts=True)

            async def read() -> None:
                async for _ in await self.stream(running):
                    pass

            await expect_error(running, read, BackendError, ProviderUnavailableError)

    @check("failure.nonsense", tier=Tier.failure, mend="raise BackendError for an answer that cannot be understood")
    async def test_failure_nonsense(self, subject: Subject) -> None:
        """an answer that cannot be understood is BackendError (502)"""
        await self._injected(subject, answer(200, "<html>It works!</html>"), BackendError)

    @check("failure.server-error", tier=Tier.failure, mend="map 5xx of the backend to BackendError")
    async def test_failure_server_error(self, subject: Subject) -> None:
        """a 500 of the backend is BackendError (502)"""
        await self._injected(subject, answer(500, _ERROR), BackendError)

    @check(
        "failure.rate-limit", tier=Tier.failure, mend="map 429 to RateLimitError with retry_after; wait only briefly"
    )
    async def test_failure_rate_limit(self, subject: Subject) -> None:
        """a 429 with a long Retry-After is RateLimitError (429), raised at once, with the backend's seconds"""
        limited = answer(429, _ERROR, retry_after=str(_RETRY_AFTER_S))
        error = await self._injected(subject, limited, RateLimitError)
        if isinstance(error, RateLimitError) and error.retry_after != _RETRY_AFTER_S:
            raise CheckFailure(f"retry_after is {error.retry_after}", wanted=f"retry_after of {_RETRY_AFTER_S} s")

    @check(
        "failure.bad-key",
        tier=Tier.failure,
        mend="map 401 to AuthenticationError whose param names config key or header",
    )
    async def test_failure_bad_key(self, subject: Subject) -> None:
        """a 401 of the backend is AuthenticationError (401)"""
        if not subject.secret_names and subject.client_data("") is None:
            raise NotApplicable("the provider takes no key")
        await self._injected(subject, answer(401, _ERROR), AuthenticationError)

    @check(
        "failure.bad-parameter",
        tier=Tier.failure,
        mend="map 400 to InvalidRequestError, with the backend's message in it",
    )
    async def test_failure_bad_parameter(self, subject: Subject) -> None:
        """a 400 of the backend is InvalidRequestError (400) with the backend's message"""
        error = await self._injected(subject, answer(400, _ERROR), InvalidRequestError)
        if _WORDS not in error.message:
            raise CheckFailure(f"the error says: {error.message}", wanted=f"an error that says: {_WORDS}")

    @check(
        "failure.cancelled-call",
        tier=Tier.failure,
        mend="await the backend in the caller's task, or cancel the task that awaits it",
    )
    async def test_failure_cancelled_call(self, subject: Subject) -> None:
        """when the caller is cancelled during a call, the backend's connection is closed, and it returns nothing"""
        async with self._tapped(subject) as running:
            running.tap.disturb(hangs=True)
            call = asyncio.ensure_future(self.call(running))
            try:
                await becomes(lambda: running.tap.holding or call.done(), _SEEN_BY_S)
                call.cancel()
                await asyncio.wait([call], timeout=_SEEN_BY_S)
            finally:
                call.cancel()
            await _expect_left(running)
            if not call.cancelled():
                got = "does not end" if not call.done() else f"ends with {call.exception() or call.result()!r}"
                raise CheckFailure(f"the call {got[:200]}", wanted="asyncio.CancelledError, which nothing catches")

    @check(
        "failure.cancelled-stream", tier=Tier.failure, mend="close the backend's stream in `finally` or `async with`"
    )
    async def test_failure_cancelled_stream(self, subject: Subject) -> None:
        """when the caller is cancelled while it waits for a piece of a stream, the backend's connection is closed"""
        async with self._tapped(subject) as running:
            running.tap.disturb(holds=True)
            with anyio.move_on_after(_SEEN_BY_S) as caller:
                async with anyio.create_task_group() as group:
                    group.start_soon(_leave_when, lambda: running.tap.holding, caller)
                    pieces = await self.stream(running)
                    try:
                        async for _ in pieces:
                            pass
                    finally:
                        with anyio.CancelScope(shield=True):
                            await close(pieces)
            await _expect_left(running)

    @check(
        "failure.abandoned-stream",
        tier=Tier.failure,
        mend="return a `streams.Stream` with `on_close`, or an async generator",
    )
    async def test_failure_abandoned_stream(self, subject: Subject) -> None:
        """a stream can be closed in its middle, at once and more than once, and the provider still works"""
        async with subject.shared() as running:
            await self.prepare(running)
            pieces = await self.stream(running)
            async for _ in pieces:
                break
            began = anyio.current_time()  # the code that closes may shield itself from cancellation
            await close(pieces)
            await close(pieces)
            if anyio.current_time() - began > _SEEN_BY_S:
                raise CheckFailure(f"closing takes {anyio.current_time() - began:.1f} s")
            await self.call(running)

    @check("failure.shutdown-twice", tier=Tier.failure, mend="let shutdown check whether there is something to close")
    async def test_failure_shutdown_twice(self, subject: Subject) -> None:
        """`shutdown` can be called twice, and before any call"""
        async with subject.start() as running:
            shutdown = getattr(running.provider, "shutdown", None)
            if shutdown is None:
                raise NotApplicable("the provider has no shutdown")
            await shutdown()
            await shutdown()

    @check("failure.leaves-nothing", tier=Tier.failure, mend="close in `shutdown` everything that is listed here")
    async def test_failure_leaves_nothing(self, subject: Subject) -> None:
        """after `shutdown` no task, thread, socket, open file or temporary file of the provider is left"""
        await subject.stop_shared()
        with own_temporary_folder() as folder:
            # The first round is a warm-up: what is loaded once and kept, such as an SDK's modules, is no leak.
            for _ in range(2):
                before, files = Holdings.now(), set(folder.rglob("*"))
                with unclosed() as thrown_away:
                    await self._lived(subject)
            left = await left_after(before, _LET_GO_BY_S)
            left += [f"temporary file {path.relative_to(folder)}" for path in sorted(set(folder.rglob("*")) - files)]
        left += thrown_away
        if left:
            raise CheckFailure(f"left: {', '.join(left)}")

    async def _lived(self, subject: Subject) -> None:
        """Start the provider, use it, and stop it."""
        async with subject.start() as running:
            await self.prepare(running)
            await self.call(running)
            try:
                pieces = await self.stream(running)
            except NotApplicable:
                return
            async for _ in pieces:
                break
            await close(pieces)

    @check(
        "failure.secrets",
        tier=Tier.failure,
        mend="never put a config, a header or a request into an error or a log line",
    )
    async def test_failure_secrets(self, subject: Subject) -> None:
        """no secret of the config or of a client is in any error, log line, repr, listing or health report"""
        secrets = subject.secret_values()
        for name, value in (subject.client_data(_CLIENTS_KEY) or {}).items():
            secrets[f"the client's {name}"] = value
        if not secrets:
            raise NotApplicable("the provider takes no secret")
        tapped = subject.backend_url is not None
        changes = {name: value for name, value in secrets.items() if name in subject.secret_names}
        with everything_logged() as logged:
            async with subject.start(changes=changes, tapped=tapped) as running:
                await self.prepare(running)
                shown = await self._shown(subject, running, tapped)
        shown += logged
        for name, value in secrets.items():
            for part in parts_of(value):
                places = [text for text in shown if part in text]
                if places:
                    shown_text = Redactor(SecretStr(part))(Redactor(SecretStr(value))(places[0]))
                    whole = "" if part == value else "half of "
                    raise CheckFailure(f"{whole}{name} is in: {shown_text[:300]}")

    async def _shown(self, subject: Subject, running: Running, tapped: bool) -> list[str]:
        provider, config = running.provider, subject.config_class.model_validate(running.instance.plan.config)
        shown = [repr(config), str(config), repr(provider), repr(running.instance.plan.config)]

        def echo(request: Request) -> bytes:
            # Some backends repeat the wrong key in their error.
            return answer(401, json.dumps({"error": {"message": f"wrong key in {request.whole.decode('latin-1')}"}}))

        for data in (None, subject.client_data(_CLIENTS_KEY)):
            if tapped:
                running.tap.disturb(inject=echo)
            try:
                with use_provider_data(data):
                    await self.call(running)
            except LlamaStackError as error:
                shown += [str(error), repr(error), json.dumps(error.to_wire()), "".join(lines_of(error))]
            finally:
                if tapped:
                    running.tap.clear()
        inspect = running.stack.api("inspect")
        return [*shown, repr(await inspect.list_providers()), repr(await inspect.health())]

    # ---- how faults are made -------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _tapped(self, subject: Subject, **settings: Any) -> AsyncIterator[Running]:
        async with subject.start(tapped=True, **settings) as running:
            await self.prepare(running)
            yield running
            running.tap.clear()

    async def _injected(self, subject: Subject, injected: bytes, kind: type[LlamaStackError]) -> LlamaStackError:
        async with self._tapped(subject) as running:
            running.tap.disturb(inject=lambda _: injected)
            return await self._expect(running, kind)

    async def _expect(self, running: Running, *kinds: type[LlamaStackError]) -> LlamaStackError:
        return await expect_error(running, lambda: self.call(running), *kinds)


def parts_of(secret: str) -> tuple[str, ...]:
    """A secret and its halves, if these are long enough to be found by nothing else."""
    half = len(secret) // 2
    return (secret, secret[:half], secret[half:]) if half >= _SHORTEST_PART else (secret,)


async def expect_error(running: Running, attempt: Callable[[], Any], *kinds: type[LlamaStackError]) -> LlamaStackError:
    """The error that `attempt` raises. Raises CheckFailure where it is not of these kinds, or names no provider."""
    wanted = " or ".join(f"{kind.__name__} ({kind.status})" for kind in kinds)
    try:
        result = await attempt()
    except LlamaStackError as error:
        described = f"{type(error).__name__} ({error.status}): {error.message}"
        if not isinstance(error, kinds):
            raise CheckFailure(described, wanted=wanted) from None
        if error.provider_id != running.provider_id:
            raise CheckFailure(
                f"it names provider '{error.provider_id}'", wanted="its provider_id in the error"
            ) from None
        return error
    raise CheckFailure(f"no error, but {str(result)[:200]}", wanted=wanted)


async def _leave_when(condition: Callable[[], Any], caller: anyio.CancelScope) -> None:
    if await becomes(condition, _SEEN_BY_S):
        caller.cancel()


async def _expect_left(running: Running) -> None:
    if not running.tap.holding:
        raise CheckFailure("the call ended before the backend had answered")
    if not await becomes(lambda: running.tap.left, _SEEN_BY_S):
        raise CheckFailure(f"the connection is still open {_SEEN_BY_S:g} s after the caller was cancelled")
