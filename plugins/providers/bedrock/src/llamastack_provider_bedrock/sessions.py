"""The HTTP sessions of botocore, with limits on answers, and fresh connections for a second attempt."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import aiohttp
from aiobotocore.httpsession import AIOHTTPSession  # type: ignore[import-untyped]

from llamastack.http.answer_limits import MOST_ERROR_BYTES, beginning_of
from llamastack.http.connections import needs_fresh
from llamastack_adapters.decompression import limited


class BoundedSession(AIOHTTPSession):  # type: ignore[misc]
    """A session that limits the size of answers. botocore requests no compressed answers and decompresses none.

    It limits an event of a stream to 24 MiB.
    """

    most_bytes: ClassVar[int]
    ca_file: ClassVar[Path | None]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._options = options
        self._spare: AIOHTTPSession | None = None

    async def __aexit__(self, *failure: Any) -> None:
        spare, self._spare = self._spare, None
        if spare is not None:
            await spare.__aexit__(*failure)
        await super().__aexit__(*failure)

    def _build_verify_context(self) -> Any:
        context = super()._build_verify_context()
        if self.ca_file is not None:
            context.load_verify_locations(self.ca_file)
        return context

    async def send(self, request: Any) -> Any:
        if needs_fresh.get():
            if self._spare is None:
                kind = type(self)
                self._spare = await kind(**{**self._options, "connector_args": {"force_close": True}}).__aenter__()
            return await self._spare._send(request)
        return await self._send(request)

    async def _send(self, request: Any) -> Any:
        whole, request.stream_output = not request.stream_output, True
        try:
            response = await super().send(request)
        finally:
            request.stream_output = not whole
        if whole:
            response._content = await self._read(response.raw, f"{response.raw.url.origin()}")
        return response

    async def _read(self, response: aiohttp.ClientResponse, where: str) -> bytes:
        async with response:
            if response.status >= 400:
                return await beginning_of(response.content.iter_any(), MOST_ERROR_BYTES)
            return b"".join([block async for block in limited(response.content.iter_any(), self.most_bytes, where)])


def session_class(most_bytes: int, ca_file: Path | None) -> type[BoundedSession]:
    """A class of sessions with this limit on a whole answer, in bytes, and with these additional authorities."""
    return type("Session", (BoundedSession,), {"most_bytes": most_bytes, "ca_file": ca_file})
