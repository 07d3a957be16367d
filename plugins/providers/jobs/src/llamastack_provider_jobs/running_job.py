"""What the running method reports about its job, and where that is kept."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
from pydantic import JsonValue
from pydantic_core import from_json, to_json

from llamastack.provider import LlamaStackError
from llamastack.provider.redaction import without_known_secrets
from llamastack_provider_jobs.api import JobItem, JobItemStatus, JobProgress
from llamastack_provider_jobs.job_store import BLOCK, Block, Claim, JobStore

_MOST_CHECKPOINT_BYTES = 64 * 1024
_LONGEST_TEXT = 1000


class RunningJob:
    """A `llamastack.provider.jobs.CurrentJob`."""

    def __init__(self, claim: Claim, store: JobStore) -> None:
        self.id, self.attempt = claim.value.job_id, claim.value.attempt
        self.progress = claim.value.progress
        self._checkpoint: JsonValue = claim.value.checkpoint
        self._claim, self._store = claim, store
        self._items: list[JobItem] = []
        self._blocks: dict[int, Block] = {}
        self._changed: set[int] = set()
        self._saving = anyio.Lock()

    async def load(self) -> None:
        """Read the items that an earlier attempt left."""
        self._blocks = dict(enumerate(await self._store.all_blocks(self.id)))
        self._items = [item for block in self._blocks.values() for item in block.value]

    async def save(self) -> bool:
        """Keep the items that have changed. False: the job is no longer this worker's."""
        async with self._saving:
            for place in sorted(self._changed):
                self._changed.discard(place)  # first: a change during the write counts as a new one
                try:
                    items = self._items[place * BLOCK : (place + 1) * BLOCK]
                    written = await self._store.write_block(self._claim, place, self._blocks.get(place), items)
                except BaseException:
                    self._changed.add(place)
                    raise
                if written is None:
                    return False
                self._blocks[place] = written
        return True

    @property
    def kept(self) -> dict[str, object]:
        """What the record of the job has of this."""
        return {"progress": self.progress, "checkpoint": self._checkpoint}

    # ---- for the method ----------------------------------------------------------------------------------------------

    @property
    def checkpoint(self) -> JsonValue:
        return self._checkpoint

    @checkpoint.setter
    def checkpoint(self, value: object) -> None:
        written = to_json(value)
        if len(written) > _MOST_CHECKPOINT_BYTES:
            raise ValueError(f"a checkpoint has at most {_MOST_CHECKPOINT_BYTES:,} bytes of JSON, not {len(written):,}")
        self._checkpoint = from_json(written)

    def report(self, done: float, total: float | None = None, *, unit: str = "", message: str = "") -> None:
        failed = self.progress.failed
        self.progress = JobProgress(
            done=done, total=total, unit=_cut(unit), message=storable_text(message), failed=failed
        )

    def open_items(self, names: Sequence[str], unit: str = "items") -> list[int]:
        kept = [_cut(name) for name in names]
        if [item.name for item in self._items] != kept:
            self._items = [_pending(place, name) for place, name in enumerate(kept)]
            self._changed = set(range((len(kept) + BLOCK - 1) // BLOCK))
        pending = [item.place for item in self._items if item.status is JobItemStatus.pending]
        failed = sum(item.status is JobItemStatus.failed for item in self._items)
        self.progress = JobProgress(done=len(kept) - len(pending), total=len(kept), unit=_cut(unit), failed=failed)
        return pending

    def finish_item(self, place: int, error: LlamaStackError | None = None) -> None:
        if not 0 <= place < len(self._items):
            raise ValueError(f"there is no item {place}: the job has {len(self._items)} items")
        item = self._items[place]
        if item.status is not JobItemStatus.pending:
            raise ValueError(f"item {place} is {item.status} already")
        failed = error is not None
        status = JobItemStatus.failed if failed else JobItemStatus.done
        message = "" if error is None else storable_text(error.message)
        self._items[place] = item.model_copy(update={"status": status, "message": message})
        self._changed.add(place // BLOCK)
        at = self.progress
        self.progress = at.model_copy(update={"done": at.done + 1, "failed": at.failed + failed})


def _pending(place: int, name: str) -> JobItem:
    # Without a validation, which takes most of the time of a job with many items.
    return JobItem.model_construct(place=place, name=name, status=JobItemStatus.pending, message="")


def storable_text(text: str) -> str:
    """A message as it may be kept and shown: without secrets and lone surrogates, and not too long."""
    return _cut(without_known_secrets(text))


def _cut(text: str) -> str:
    return text[:_LONGEST_TEXT].encode(errors="replace").decode()
