"""Checks of the documents of a memory provider when the stack stops and starts again, or is killed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import anyio

from llamastack.api.memory import MemoryBankDocument
from llamastack.provider.errors import LlamaStackError
from llamastack_conformance.checks import CheckFailure, Tier, check
from llamastack_conformance.kept_data import KeptData
from llamastack_conformance.provider_process import process_with
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.suites.memory_calls import LLAMA, TTL_OVER_S, TTL_S, MemoryCalls
from llamastack_conformance.suites.restart import another, require_equal, usable

_LASTING = MemoryBankDocument(
    document_id="lasting",
    content="A lighthouse shines for the ships at night.",
    metadata={"height": 42, "open": True, "tags": ["a", "b"], "where": {"x": 1.5}, "note": None, "ü": "ß 🦙"},
)
_BRIEF = MemoryBankDocument(document_id="brief", content="The comet passes the lighthouse tonight.")
_OLD = MemoryBankDocument(document_id="replaced", content="The lighthouse was red.")
_NEW = MemoryBankDocument(document_id="replaced", content="The lighthouse is white.")
_DELETED = MemoryBankDocument(document_id="deleted", content="The lighthouse has no stairs.")
_LIGHTHOUSE = "lighthouse"
_WRITES_BEFORE_KILL = 4
_DOCUMENTS_AT_ONCE = 3


class RestartedDocumentChecks(MemoryCalls):
    """Checks of documents after a restart."""

    @check(
        "restart.documents",
        tier=Tier.live,
        capability="insert_documents",
        mend="keep with each chunk all that a query returns, and when it expires; delete what is deleted or replaced",
    )
    async def test_restart_documents(self, subject: Subject) -> None:
        """after a restart documents have their metadata, and expire in time; what was deleted or replaced stays away"""
        async with subject.kept_folder() as folder:
            async with subject.start(folder=folder) as running:
                kept = KeptData(running, folder)
                bank_id = await self.new_bank(running, "-restarted")
                await self._fill(running, bank_id)
                running.leave()
            kept.require()
            if subject.declares("ttl"):
                await anyio.sleep(TTL_OVER_S)
            async with subject.start(folder=folder) as running:
                await usable(running)
                found = (await self.query(running, _LIGHTHOUSE, bank_id=bank_id, max_chunks=20)).chunks
        texts = {chunk.document_id: chunk.content for chunk in found}
        wanted = {each.document_id: each.content for each in (_LASTING, _NEW)}
        if not subject.declares("delete_documents"):
            wanted["deleted"] = _DELETED.content
        require_equal(wanted, texts, "after a restart")
        metadata = next(chunk.metadata for chunk in found if chunk.document_id == "lasting")
        require_equal(_LASTING.metadata, metadata, "after a restart the metadata of a document")

    async def _fill(self, running: Running, bank_id: str) -> None:
        ttl: dict[str, Any] = {"ttl_seconds": 3600} if running.subject.declares("ttl") else {}
        await self.insert(running, _LASTING, bank_id=bank_id, **ttl)
        await self.insert(running, _OLD, _DELETED, bank_id=bank_id)
        await self.insert(running, _NEW, bank_id=bank_id)
        if running.subject.declares("delete_documents"):
            await self.delete(running, "deleted", bank_id=bank_id)
        if ttl:
            await self.insert(running, _BRIEF, bank_id=bank_id, ttl_seconds=TTL_S)

    @check(
        "restart.other-definition",
        tier=Tier.live,
        capability="registration",
        mend="keep the definition of a bank in the backend, and raise ConflictError for another one under its name",
    )
    async def test_restart_other_definition(self, subject: Subject) -> None:
        """the provider itself refuses another definition under the name of a bank that it has, with an error below 500;
        the bank keeps its documents, after a restart, too
        """
        async with subject.kept_folder() as folder:
            async with subject.start(folder=folder) as running:
                kept = KeptData(running, folder)
                await self.prepare(running)
                content = await self.content(running)
                await self._refuses_others(subject, running)
                require_equal(content, await self.content(running), "after another definition was refused")
                running.leave()
            if not kept.outlives:
                return
            async with subject.start(folder=folder) as running:
                await usable(running)
                await self._refuses_others(subject, running)
                require_equal(content, await self.content(running), "after another definition was refused")

    async def _refuses_others(self, subject: Subject, running: Running) -> None:
        bank = self.bank(running)
        kinds = [each for each in self.unserved_objects(subject) if each.type != bank.type]
        same_name = {"identifier": bank.identifier, "provider_id": running.provider_id}
        others = [another(bank), *kinds]
        for other in (each.model_copy(update=same_name) for each in others if each is not None):
            try:
                await running.register_directly(other)
            except LlamaStackError as error:
                if error.status < 500:
                    continue
                raise
            raise CheckFailure(f"bank '{bank.identifier}' is {bank!r}; the provider took {other!r}")

    @check(
        "restart.killed",
        tier=Tier.failure,
        capability="insert_documents",
        mend="write documents to the disk or the backend before insert_documents returns, and recover at the start",
        not_replayed="how far a process comes until it is killed differs each time",
    )
    async def test_restart_killed(self, subject: Subject) -> None:
        """after SIGKILL during inserts the provider starts, has every document whose insert had returned, whole, and
        takes new ones
        """
        async with subject.kept_folder() as folder:
            async with subject.start(folder=folder) as running:
                kept = KeptData(running, folder)
                await self.prepare(running)
                running.leave()
            kept.require()
            async with process_with(subject, folder, "insert") as process:
                await process.wrote(_WRITES_BEFORE_KILL)
                await process.kill()
                written = list(process.lines())
            async with subject.start(folder=folder) as running:
                await usable(running)
                await self._require_whole(running, written)

    async def insert_until_killed(self, running: Running, say: Callable[[object], None]) -> None:
        """Insert documents again and again, and say the number of each insert that has returned."""
        await usable(running, [self.bank(running).identifier])
        for number in itertools.count(1):
            await self.insert(running, *numbered(number))
            say(number)

    async def _require_whole(self, running: Running, written: list[Any]) -> None:
        for document in (each for number in written for each in numbered(number)):
            found = (await self.query(running, str(document.content), max_chunks=20)).chunks
            texts = [str(chunk.content) for chunk in found if chunk.document_id == document.document_id]
            if texts != [document.content]:
                raise CheckFailure(
                    f"document '{document.document_id}', whose insert had returned before the process was killed, is "
                    f"{texts}",
                    wanted=repr(document.content),
                )
        await self.insert(running, *numbered(0))
        if "llama" not in await self.found(running, str(LLAMA.content)):
            raise CheckFailure("a document from before is gone")


def numbered(number: int) -> list[MemoryBankDocument]:
    """The documents of one insert."""
    return [
        MemoryBankDocument(document_id=f"{number}-{place}", content=f"Ship number{number} has the cargo{place}.")
        for place in range(_DOCUMENTS_AT_ONCE)
    ]
