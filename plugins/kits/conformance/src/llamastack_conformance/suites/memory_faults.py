"""Checks of a memory provider whose backend, or embedding model, fails at one request of many."""

from __future__ import annotations

from typing import Any

from llamastack.api.memory import MemoryBankDocument
from llamastack.provider.errors import LlamaStackError
from llamastack_conformance.breakage import Fault
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.failing_calls import failing_calls
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.suites.memory_calls import MemoryCalls
from llamastack_conformance.trials import Trial, break_each_request

_SENTENCES = 24
_ASKED = "bird river"
_CHUNKS = 200


def _document(name: str, version: str) -> MemoryBankDocument:
    """A document of several chunks; each has words of the query."""
    sentences = (
        f"In {version} the {name}, a bird of the river, was seen {n} times below the bridge." for n in range(_SENTENCES)
    )
    return MemoryBankDocument(document_id=name, content=" ".join(sentences))


_OLD = _document("swan", "autumn")
_NEW = (_document("swan", "spring"), _document("heron", "spring"))
_State = dict[str, list[str]]
"""The contents of the chunks of each document, in order."""


class _Bank:
    """One bank, and what the documents in it look like when nothing goes wrong."""

    def __init__(self, suite: FaultChecks, running: Running, bank_id: str) -> None:
        self.suite, self.running, self.bank_id = suite, running, bank_id
        self.old: _State = {}
        self.new: _State = {}

    async def state(self) -> _State:
        found = await self.suite.query(self.running, _ASKED, bank_id=self.bank_id, max_chunks=_CHUNKS)
        made: _State = {document.document_id: [] for document in _NEW}
        for chunk in found.chunks:
            made.setdefault(chunk.document_id, []).append(str(chunk.content))
        return {name: sorted(contents) for name, contents in made.items()}

    async def measure(self) -> None:
        await self.insert_old()
        self.old = await self.state()
        await self.insert_new()
        self.new = await self.state()
        if not self.old["swan"] or not all(self.new.values()) or self.old["swan"] == self.new["swan"]:
            raise CheckFailure(f"with nothing wrong, {_ASKED!r} finds {_brief(self.old)}, then {_brief(self.new)}")

    async def insert_old(self) -> None:
        if self.running.subject.declares("delete_documents"):
            await self.suite.delete(self.running, "heron", bank_id=self.bank_id)
        else:
            self.bank_id = await self.suite.new_bank(self.running, "-faults")
        await self.suite.insert(self.running, _OLD, bank_id=self.bank_id)

    async def insert_new(self) -> None:
        await self.suite.insert(self.running, *_NEW, bank_id=self.bank_id)

    async def inserted(self, failure: LlamaStackError | None) -> None:
        """Raise CheckFailure unless all is new, or, after a failure, all is old."""
        found = await self.state()
        if found != self.new and (failure is None or found != self.old):
            raise CheckFailure(
                f"the insert {'failed' if failure else 'succeeded'}, and {_ASKED!r} finds {_brief(found)}",
                wanted=f"{_brief(self.new)}{f', or {_brief(self.old)}' if failure else ''}",
            )
        if failure is not None:
            await self.insert_new()
            await self.inserted(None)

    async def delete(self) -> None:
        await self.suite.delete(self.running, "swan", "heron", bank_id=self.bank_id)

    async def deleted(self, failure: LlamaStackError | None) -> None:
        """Raise CheckFailure unless all is gone, or, after a failure, each document is whole or gone."""
        found = await self.state()
        for name, contents in found.items():
            if contents and (failure is None or contents != self.new[name]):
                raise CheckFailure(
                    f"the deletion {'failed' if failure else 'succeeded'}, and {_ASKED!r} finds {_brief(found)}"
                )
        if failure is not None:
            await self.delete()
            await self.deleted(None)


def _brief(state: _State) -> str:
    shown = [f"{len(contents)} chunks of '{name}' ({_versions(contents)})" for name, contents in state.items()]
    return ", ".join(shown)


def _versions(contents: list[str]) -> str:
    words = {"autumn": "the old version", "spring": "the new version"}
    found = [said for word, said in words.items() if any(word in content for content in contents)]
    return " and ".join(found) or "none"


class FaultChecks(MemoryCalls):
    """Each request goes wrong once: nothing is swallowed, and nothing is left half done."""

    async def works_as_new(self, running: Running, item: Any) -> None:
        subject = running.subject
        if not (subject.declares("insert_documents") and subject.declares("query_documents")):
            return
        if found := await self.found(running, bank_id=item.identifier):
            raise CheckFailure(f"the new bank '{item.identifier}' finds {found}")
        await self.insert(running, _NEW[1], bank_id=item.identifier)
        if set(await self.found(running, _ASKED, bank_id=item.identifier)) != {"heron"}:
            raise CheckFailure(f"the new bank '{item.identifier}' does not find what was inserted")

    async def _bank_of_trials(self, running: Running) -> _Bank:
        made = _Bank(self, running, await self.new_bank(running, "-faults"))
        await made.measure()
        return made

    @check(
        "nth-request.insert",
        tier=Tier.failure,
        capability="insert_documents",
        mend="write chunks that no query finds, then show all in one request: llamastack_memory_kit.StagedStorage",
    )
    async def test_nth_request_insert(self, subject: Subject) -> None:
        """if one request of an insert fails, the insert fails or is complete; all documents of the call are old or all
        are new, and a second attempt succeeds
        """
        async with subject.start(tapped=True) as running:
            bank = await self._bank_of_trials(running)
            await break_each_request(
                running, Trial("insert", bank.insert_new, before=bank.insert_old, after=bank.inserted)
            )

    @check(
        "nth-request.delete",
        tier=Tier.failure,
        capability="delete_documents",
        mend="raise the error of the backend; delete all chunks of a document in one request",
    )
    async def test_nth_request_delete(self, subject: Subject) -> None:
        """if one request of a deletion fails, the deletion fails or is complete; each document is whole or gone, and a
        second attempt succeeds
        """
        async with subject.start(tapped=True) as running:
            bank = await self._bank_of_trials(running)
            await break_each_request(running, Trial("delete", bank.delete, before=bank.insert_new, after=bank.deleted))

    @check(
        "embedding.fails",
        tier=Tier.failure,
        capability="insert_documents",
        mend="embed every chunk before the first is stored, and let the error of the inference API through",
    )
    async def test_embedding_fails(self, subject: Subject) -> None:
        """if the embedding model fails at one of several requests, inserts, queries and registrations fail with its
        error; nothing is half stored, and a second attempt succeeds
        """
        async with subject.start() as running:
            with failing_calls(running, "inference", "embeddings") as calls:
                bank = await self._bank_of_trials(running)
                if not calls.sent:
                    raise NotApplicable("the provider uses no embedding model")
                faults = (Fault.error,)
                await break_each_request(
                    running,
                    Trial("insert", bank.insert_new, before=bank.insert_old, after=bank.inserted, faults=faults),
                    Trial("query", bank.state, good=lambda found: found == bank.new, faults=faults),
                    at=calls,
                )
