"""Checks of what becomes of every failure of the backend, in every kind of call: the right error, without secrets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import anyio

from llamastack.provider.errors import (
    AuthenticationError,
    BackendError,
    ConflictError,
    InvalidRequestError,
    LlamaStackError,
    NotFoundError,
    PermissionDeniedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
)
from llamastack_conformance.backend_tap import Injected, Request, always, answer
from llamastack_conformance.checks import CheckFailure, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.suites.failure import expect_error
from llamastack_conformance.suites.inference_kinds import Kind, KindChecks, primed
from llamastack_conformance.watching import unclosed

_DOWN = (ProviderUnavailableError, BackendError)
_EXPECTED: Mapping[int, tuple[type[LlamaStackError], ...]] = {
    400: (InvalidRequestError,),
    401: (AuthenticationError,),
    403: (PermissionDeniedError, AuthenticationError),
    404: (NotFoundError, BackendError),
    409: (ConflictError, InvalidRequestError, *_DOWN),
    422: (InvalidRequestError,),
    429: (RateLimitError,),
    500: (BackendError,),
    502: _DOWN,
    503: (ProviderUnavailableError,),
}
_BODIES = {
    "an error": json.dumps({"error": {"message": "no luck", "type": "error", "code": None}, "message": "no luck"}),
    "text": "no luck",
    "a page": "<html><body><h1>no luck</h1></body></html>",
    "nothing": "",
}
_NO_REPLIES = {
    "nothing": "",
    "an empty object": "{}",
    "an empty list": "[]",
    "null": "null",
    "a page": _BODIES["a page"],
}
_NO_LISTS = (
    answer(500, _BODIES["an error"]),
    answer(503, _BODIES["nothing"]),
    answer(200, _BODIES["a page"]),
    answer(200, "{}"),
)
_CLIENTS_KEY = "9d2c7e-conformance-secret-of-a-client"
_GIVES_UP_BY_S = 25.0
_HELD = "qzheld"


class StatusChecks(KindChecks):
    """The checks of failures in every kind of call."""

    @check(
        "failure.statuses",
        tier=Tier.failure,
        mend="map each status of the backend to its error, in one place that all calls and streams use",
    )
    async def test_failure_statuses(self, subject: Subject) -> None:
        """in every kind of call, 400 and 422 are a 400, 401 a 401, 403 a 403, 404 a 404, 429 a 429, 500 a 502, 503 a
        503, whether the body is JSON, text, a page or empty
        """
        async with subject.start(tapped=True) as running:
            kinds = await self.kinds(running)
            for status, allowed in _EXPECTED.items():
                for body_name, body in _BODIES.items():
                    if body_name == "a page" and status in (401, 403):
                        allowed = (*allowed, BackendError)  # a proxy's own page may be taken as that
                    injected = answer(status, body, retry_after="3600")
                    running.tap.disturb(inject=always(injected))
                    for kind in kinds:
                        await _expect(f"{kind.name}, {status} with {body_name}", running, kind.make, allowed)

    @check(
        "failure.no-reply",
        tier=Tier.failure,
        mend="raise BackendError for an answer without what a reply needs; never make an empty reply of it",
    )
    async def test_failure_no_reply(self, subject: Subject) -> None:
        """in every kind of call, a 200 without a reply in it (nothing, {}, [], null, a page) is BackendError (502), and
        a listing that fails lists not nothing
        """
        async with subject.start(tapped=True) as running:
            kinds = await self.kinds(running)
            for name, body in _NO_REPLIES.items():
                for media_type in ("application/json", "text/html", "text/event-stream"):
                    injected = answer(200, body, media_type=media_type)
                    running.tap.disturb(inject=always(injected))
                    for kind in kinds:
                        where = f"{kind.name}, a 200 of {media_type} with {name}"
                        await _expect(where, running, kind.make, _DOWN)
            running.tap.clear()
            if not await running.list_objects():
                return
            for injected in _NO_LISTS:
                running.tap.disturb(inject=always(injected))
                await _lists_something(running, injected)

    @check(
        "failure.cut-each",
        tier=Tier.failure,
        mend="treat the end of a connection before the end of the answer as an error, in every kind of call",
    )
    async def test_failure_cut_each(self, subject: Subject) -> None:
        """in every kind of call, an answer that is cut in the middle is an error of the backend (502, 503), and its
        connection is closed, not dropped
        """
        async with subject.start(tapped=True) as running:
            for kind in await self.kinds(running):
                await primed(running, kind)
                running.tap.disturb(inject=running.tap.inject, cuts=True)
                with unclosed() as thrown_away:
                    await _expect(f"{kind.name}, cut", running, kind.make, _DOWN)
                if thrown_away:
                    raise CheckFailure(f"{kind.name}, cut: {thrown_away[0]}", wanted="what is opened is closed")

    @check(
        "failure.silent-each",
        tier=Tier.failure,
        mend="give every call a time limit, and every wait for the next piece of a stream",
    )
    async def test_failure_silent_each(self, subject: Subject) -> None:
        """in every kind of call, a backend that says nothing, or nothing more in the middle of a stream, ends the call
        in time with a 504, 503 or 502
        """
        subject.require_backend()
        allowed = (ProviderTimeoutError, *_DOWN)
        async with subject.start(tapped=True, changes=subject.short_timeouts) as running:
            kinds = await self.kinds(running)
            running.tap.disturb(inject=await _streams_held(running, kinds), hangs=True, holds=True)
            with anyio.move_on_after(_GIVES_UP_BY_S) as scope:
                async with anyio.create_task_group() as group:
                    for kind in kinds:
                        group.start_soon(_expect, f"{kind.name}, silent", running, kind.make, allowed)
                        if kind.streamed:
                            held = partial(kind.make, f"Say {_HELD}.")
                            group.start_soon(_expect, f"{kind.name}, held", running, lambda _, h=held: h(), allowed)
            if scope.cancelled_caught:
                raise CheckFailure(f"with a time limit of 1 s a call still waits after {_GIVES_UP_BY_S:g} s")


async def _streams_held(running: Running, kinds: Sequence[Kind]) -> Callable[[Request], Injected]:
    """The backend's answers to streams, for requests whose text has `_HELD`."""
    known = []
    for kind in kinds:
        if kind.streamed:
            with suppress(LlamaStackError):  # with the short time limit a slow backend may not answer in time
                await primed(running, kind)
                known.append(running.tap.inject)

    def inject(request: Request) -> Injected:
        if _HELD.encode() not in request.body:
            return None
        return next((found for one in known if one is not None and (found := one(request)) is not None), None)

    return inject


async def _expect(where: str, running: Running, make: Any, kinds: tuple[type[LlamaStackError], ...]) -> None:
    try:
        await expect_error(running, lambda: make("Say hello."), *kinds)
    except CheckFailure as failure:
        raise CheckFailure(f"{where}: {failure.got}", wanted=failure.wanted) from None


async def _lists_something(running: Running, injected: bytes) -> None:
    try:
        listed = await running.list_objects()
    except LlamaStackError:
        return  # the stack then keeps what was listed before
    if not listed:
        status = injected.partition(b"\r\n")[0].decode()
        raise CheckFailure(f"an empty list, when the backend answers {status}", wanted="an error")
