"""All-or-none inserts for backends without transactions: write chunks that no query finds, then show them all."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import ClassVar

import anyio
from anyio.abc import TaskStatus

from llamastack.provider import LlamaStackError
from llamastack_memory_kit.bank_memory import BankMemory
from llamastack_memory_kit.records import Bank, Insert, StoredChunk

_CLEAN_UP_SECONDS = 5
_PUBLISH_SECONDS = 5


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
        would delete the documents. If the insert is cancelled meanwhile, this goes on for at most five seconds: the
        backend may carry out what it has received, and must not do so after the next insert of the same documents.
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
        await _finish(partial(self.publish, bank, insert))


async def _finish(call: Callable[[], Awaitable[None]]) -> None:
    """Make a call that goes on for some seconds when it is cancelled. Raises what it raises."""
    failure: Exception | None = None
    shield = anyio.CancelScope(shield=True)

    async def limit_when_cancelled(*, task_status: TaskStatus[None]) -> None:
        task_status.started()
        try:
            await anyio.sleep_forever()
        finally:
            shield.deadline = anyio.current_time() + _PUBLISH_SECONDS

    async with anyio.create_task_group() as group:
        await group.start(limit_when_cancelled)
        with shield:
            try:
                await call()
            except Exception as error:  # the group would wrap it
                failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
