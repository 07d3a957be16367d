"""Reading request bodies, with a limit for each and one for all that are held at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Receive, Scope

from llamastack.provider.errors import RequestTooLargeError, ServerBusyError
from llamastack_server.connection import connection_of
from llamastack_server.request_cycle import body_at_hand
from llamastack_server.requests import ClientGoneError, header_of

_RETRY_AFTER_S = 2.0
_MOST_DIGITS = 18
# Bodies of up to so many bytes may use the part of the limit that is kept free for them.
_SMALL_BODY = 64 * 2**10
_FOR_SMALL_BODIES = 8


class Bodies:
    """The request bodies that one process holds.

    largest: bytes that one may have. most: bytes that all may have together; an eighth of it is only for small ones,
    so that a few clients that send large ones do not shut out all others. settings: the names of both limits.
    """

    def __init__(
        self, largest: int, most: int, settings: tuple[str, str] = ("max_body_bytes", "max_buffered_bytes")
    ) -> None:
        self.held = 0
        """Bytes of all bodies that were read or are being read, and are not released yet."""
        self._most = most
        self._most_large = most - most // _FOR_SMALL_BODIES
        self._largest = min(largest, self._most_large)
        self._setting_of_all = settings[1]
        self._setting = settings[0] if self._largest == largest else settings[1]

    async def read(self, scope: Scope, receive: Receive) -> bytes:
        """The whole body. Its bytes are held until `let_go` is called with it.

        Raises RequestTooLargeError as soon as it is known to be over the limit, ServerBusyError as soon as all together
        are, ClientGoneError, and RequestTimeoutError where it does not come.
        """
        block, more = body_at_hand(receive), False
        if block is None:
            self._expect(scope)
            block, more = await _next_block(scope, receive)
        if not more:
            self._hold(block, len(block))
            return block
        whole = bytearray()  # not a list: many small blocks would take many times their size
        try:
            while True:
                self._hold(block, len(whole) + len(block))
                whole += block
                if not more:
                    return bytes(whole)
                block, more = await _next_block(scope, receive)
        except BaseException:
            self.held -= len(whole)
            raise

    @asynccontextmanager
    async def streamed(self, scope: Scope, receive: Receive) -> AsyncIterator[AsyncIterator[bytes]]:
        """The blocks of a body that is kept elsewhere, such as on disk. They count until the context ends.

        Iterating over them raises what `read` raises.
        """
        self._expect(scope)
        size = 0

        async def blocks() -> AsyncIterator[bytes]:
            nonlocal size
            more = True
            while more:
                block, more = await _next_block(scope, receive)
                self._hold(block, size + len(block))
                size += len(block)
                yield block

        try:
            yield blocks()
        finally:
            self.held -= size

    def _expect(self, scope: Scope) -> None:
        """Look at the announced size. Raises RequestTooLargeError, ServerBusyError."""
        announced = header_of(scope, b"content-length")
        if announced is not None and announced.isdigit():
            expected = int(announced) if len(announced) < _MOST_DIGITS else 10**_MOST_DIGITS
            if expected > self._largest:
                raise self._too_large()
            # Only received bytes count: else a client could block all others by announcing large bodies.
            if self.held + expected > self._most_large:
                self._check(expected, expected)

    def _hold(self, block: bytes, size: int) -> None:
        """Count a block of a body that has `size` bytes with it. Raises RequestTooLargeError, ServerBusyError."""
        if size > self._largest:
            raise self._too_large()
        if self.held + len(block) > self._most_large:
            self._check(len(block), size)
        self.held += len(block)

    def let_go(self, body: bytes) -> None:
        """Release a body: its request is done."""
        self.held -= len(body)

    def _check(self, more: int, size: int) -> None:
        """Whether `more` bytes can be held for a body that has `size` by then. Raises ServerBusyError."""
        if self.held + more > (self._most if size <= _SMALL_BODY else self._most_large):
            raise ServerBusyError(
                f"the requests in work have {self.held} bytes together, and all may have {self._most} "
                f"(server.{self._setting_of_all})",
                retry_after=_RETRY_AFTER_S,
            )

    def _too_large(self) -> RequestTooLargeError:
        return RequestTooLargeError(f"the body is over the limit of {self._largest} bytes (server.{self._setting})")


async def _next_block(scope: Scope, receive: Receive) -> tuple[bytes, bool]:
    """A part of the body, and whether more follows. Raises ClientGoneError, and what ended the wait for it."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    block: bytes = message.get("body", b"")
    more = message.get("more_body", False)
    if more:
        connection = connection_of(scope)
        if connection is not None and connection.fault is not None:
            raise connection.fault
    return block, more
