"""An insert that is cancelled while it shows its chunks: the next insert waits for the backend, but not for long."""

import anyio
import pytest
from bank_memory_fake import Staged, documents, start, stored

from llamastack.provider import BackendError
from llamastack_memory_kit import Bank, Insert, staged_storage

pytestmark = pytest.mark.anyio


class SlowToPublish(Staged):
    """Begins to publish, and ends when `release` is set. `cancelled`: how often that was cancelled."""

    release: anyio.Event
    begun: anyio.Event
    cancelled = 0

    async def publish(self, bank: Bank, insert: Insert) -> None:
        self.begun.set()
        try:
            await self.release.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        await super().publish(bank, insert)


async def started() -> SlowToPublish:
    memory, _ = await start(SlowToPublish)
    assert isinstance(memory, SlowToPublish)
    memory.release, memory.begun = anyio.Event(), anyio.Event()
    return memory


async def cancel_while_publishing(memory: SlowToPublish) -> anyio.CancelScope:
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(memory.insert_documents, "b", documents(a="first"))
            await memory.begun.wait()
            scope.cancel()
    return scope


async def test_the_next_insert_waits_for_what_a_cancelled_one_has_sent() -> None:
    memory = await started()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancel_while_publishing, memory)
        await memory.begun.wait()
        tasks.start_soon(memory.insert_documents, "b", documents(a="second"))
        await anyio.wait_all_tasks_blocked()
        assert stored(memory) == {}
        memory.release.set()
    assert stored(memory) == {"a": "second"}
    assert memory.pending == {}
    assert memory.cancelled == 0
    await memory.shutdown()


async def test_a_cancelled_insert_does_not_wait_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staged_storage, "_PUBLISH_SECONDS", 0.05)
    memory = await started()
    with anyio.fail_after(5):
        scope = await cancel_while_publishing(memory)
    assert scope.cancelled_caught
    assert memory.cancelled == 1
    memory.release.set()
    await memory.insert_documents("b", documents(a="second"))
    assert stored(memory) == {"a": "second"}
    await memory.shutdown()


async def test_an_insert_that_is_not_cancelled_waits_as_long_as_the_backend_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(staged_storage, "_PUBLISH_SECONDS", 0.01)
    memory = await started()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(memory.insert_documents, "b", documents(a="first"))
        await memory.begun.wait()
        await anyio.sleep(0.1)
        memory.release.set()
    assert stored(memory) == {"a": "first"}
    assert memory.cancelled == 0
    await memory.shutdown()


async def test_the_failure_of_publishing_is_raised_as_it_is() -> None:
    memory = await started()
    memory.release.set()
    memory.failures._at = memory.failures.calls + 1  # after one `stage`
    with pytest.raises(BackendError, match="the disk is full"):
        await memory.insert_documents("b", documents(a="first"))
    await memory.shutdown()
