"""JSON values of any size in the stack's store, which keeps values of limited size."""

from __future__ import annotations

from collections.abc import Iterator

import anyio.to_thread
from pydantic import JsonValue
from pydantic_core import PydanticSerializationError, from_json, to_json

from llamastack.provider import Deps, InvalidRequestError, RequestTooLargeError

# A character takes at most four bytes in the store, whose values have at most 8 MiB.
_PIECE = 2_000_000
_PAGE = 20


class LongValues:
    """Values by key. One value is not written by two callers at the same time."""

    def __init__(self, name: str, deps: Deps, most_bytes: int) -> None:
        self._name, self._most_bytes = name, most_bytes
        self._pieces = deps.kv(name, str)

    async def write(self, key: str, value: object, *, expires_in_s: float | None = None) -> None:
        """Keep a value in place of the earlier one.

        Raises RequestTooLargeError, and InvalidRequestError for what is no JSON; nothing is changed then.
        """
        pieces = await anyio.to_thread.run_sync(self._cut, value)
        await self.delete(key)
        for place, piece in enumerate(pieces):
            await self._pieces.set(_key(key, place), piece, expires_in_s=expires_in_s)

    async def read(self, key: str) -> JsonValue:
        """The value; None if it is not there."""
        pieces, place = [], 0
        while (piece := await self._pieces.get(_key(key, place))) is not None:
            pieces.append(piece)
            place += 1
        return await anyio.to_thread.run_sync(from_json, "".join(pieces)) if pieces else None

    async def expire(self, key: str, seconds: float) -> None:
        """Forget the value later."""
        place = 0
        while (entry := await self._pieces.entry(_key(key, place))) is not None:
            await self._pieces.swap(entry, entry.value, expires_in_s=seconds)
            place += 1

    async def delete(self, key: str) -> None:
        """Forget the value now."""
        while keys := await self._pieces.keys(f"{key}/", limit=_PAGE):
            for each in keys:
                await self._pieces.delete(each)

    def _cut(self, value: object) -> list[str]:
        try:
            written = to_json(value)
        except PydanticSerializationError as error:  # a lone surrogate
            raise InvalidRequestError(f"{self._name}: cannot be kept as JSON: {error}", param=self._name) from None
        if len(written) > self._most_bytes:
            raise RequestTooLargeError(
                f"{self._name}: {len(written):,} bytes of JSON, at most {self._most_bytes:,}", param=self._name
            )
        return list(_pieces(written.decode()))


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), _PIECE):
        yield text[start : start + _PIECE]


def _key(key: str, place: int) -> str:
    return f"{key}/{place:06d}"
