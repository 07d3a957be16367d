"""All-or-none inserts for backends without transactions: write chunks that no query finds, then show them all."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import anyio

from llamastack.provider import LlamaStackError
from llamastack_memory_kit.bank_memory import BankMemory
from llamastack_memory_kit.records import Bank, Insert, StoredChunk

_CLEAN_UP_SECONDS = 5


class StagedStorage(BankMemory):
    """`store` in three steps. Derive from it before `VectorMemory`: `class MyMemory(StagedStorage, VectorMemory)`."""

    chunks_per_write: ClassVar[int] = 256
    """The most chunks of one `stage`."""

    @abstractmethod
    async def stage(self, bank: Bank, insert: Insert, chunks: Sequence[StoredChunk]) -> None:
        """Write some of the insert's chunks, under its generation, so that no query finds them."""

    @abstractmethod
    async def publish(self, bank: Bank, insert: Insert) -> None:
        """Let queries find the chunks of the insert's generation, and remove older chunks of its documents.

        Do it in one call of the backend. A failure is not undone: if the backend has completed the call, undoing it
        would delete the documents.
        """

    @abstractmethod
    async def discard(self, bank: Bank, insert: Insert) -> None:
        """Remove what `stage` wrote for the insert."""

    async def store(self, bank: Bank, insert: Insert) -> None:
        """Stage everything, then publish it. If staging fails or is cancelled, the staged chunks are discarded."""
        try:
            for first in range(0, len(insert.chunks), self.chunks_per_write):
                await self.stage(bank, insert, insert.chunks[first : first + self.chunks_per_write])
        except BaseException as error:
            with anyio.move_on_after(_CLEAN_UP_SECONDS, shield=True):
                try:
                    await self.discard(bank, insert)
                except LlamaStackError as second:
                    error.add_note(
                        f"the chunks written so far could not be removed, but queries never find them: {second}"
                    )
            raise
        await self.publish(bank, insert)
