"""Checks of the documents of a memory bank: inserted, found, replaced, deleted, expired."""

from __future__ import annotations

import math
from typing import Any

from llamastack.api.memory import MemoryBankDocument
from llamastack.provider.errors import InvalidRequestError, LlamaStackError
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.suites.memory_calls import ASKED, BOAT, LLAMA, TTL_OVER_S, TTL_S, MemoryCalls
from llamastack_conformance.suites.memory_own_bank import OwnBank
from llamastack_conformance.suites.suite import refused


class DocumentChecks(MemoryCalls):
    """The checks of single documents."""

    @check(
        "insert_documents.works",
        tier=Tier.live,
        capability="insert_documents",
        mend="store the documents before insert_documents returns; replace one whose document_id is known",
    )
    async def test_insert_documents_works(self, subject: Subject) -> None:
        """inserted documents are found at once; one with a known document_id replaces the earlier one"""
        async with subject.start() as running:
            await self.prepare(running)
            if "llama" not in await self.found(running):
                raise CheckFailure(f"{ASKED!r} finds {await self.found(running)}", wanted="the document about llamas")
            await self.insert(running, MemoryBankDocument(document_id="llama", content="A lantern in the cellar."))
            found = (await self.query(running, "A lantern in the cellar.", max_chunks=20)).chunks
        texts = [str(chunk.content) for chunk in found if chunk.document_id == "llama"]
        if not texts or any("Peru" in text for text in texts):
            raise CheckFailure(f"after being replaced the document says {texts}")

    @check(
        "insert_documents.data-url",
        tier=Tier.live,
        capability="insert_documents",
        mend="read the text of a URL with llamastack_memory_kit.documents.document_text",
    )
    async def test_insert_documents_data_url(self, subject: Subject) -> None:
        """for content that is a data: URL, the bank stores the text in the URL"""
        document = MemoryBankDocument(
            document_id="url", content="data:text/plain;base64,QSB6ZXBwZWxpbiBsYW5kcyBxdWlldGx5Lg=="
        )
        async with subject.start() as running:
            await self.prepare(running)
            await self.insert(running, document)
            found = await self.query(running, "A zeppelin lands quietly.", max_chunks=20)
        texts = [str(chunk.content) for chunk in found.chunks if chunk.document_id == "url"]
        if not any("zeppelin" in text for text in texts):
            raise CheckFailure(f"the document says {texts}", wanted="A zeppelin lands quietly.")

    @check(
        "insert_documents.all-or-none",
        tier=Tier.live,
        capability="insert_documents",
        mend="read and check every document before the first is stored",
    )
    async def test_insert_documents_all_or_none(self, subject: Subject) -> None:
        """if one of several documents cannot be read, none is stored"""
        good = MemoryBankDocument(document_id="good", content="The violin is out of tune.")
        bad = MemoryBankDocument(document_id="bad", content="http://127.0.0.1:1/nothing-listens-here")
        async with subject.start() as running:
            await self.prepare(running)
            try:
                await self.insert(running, good, bad)
            except LlamaStackError:
                pass
            else:
                raise CheckFailure(f"{bad.content} was taken", wanted="an error for a URL that cannot be fetched")
            if "good" in await self.found(running, "The violin is out of tune."):
                raise CheckFailure("the other document was stored")

    test_insert_documents_refused = refused("insert_documents")

    @check(
        "query_documents.works",
        tier=Tier.live,
        capability="query_documents",
        mend="return QueryDocumentsResponse: chunks with the metadata of their document and a score each, best first",
    )
    async def test_query_documents_works(self, subject: Subject) -> None:
        """the nearest chunk to the query comes first, with the metadata of its document, and the scores are finite and
        falling
        """
        async with subject.start() as running:
            await self.prepare(running)
            found = await self.query(running)
        if not found.chunks or found.chunks[0].document_id != "llama":
            raise CheckFailure(f"{ASKED!r} finds {[c.document_id for c in found.chunks]}")
        best = found.chunks[0]
        if best.metadata != LLAMA.metadata:
            raise CheckFailure(f"metadata {best.metadata}", wanted=f"{LLAMA.metadata}")
        if "llamas" not in str(best.content).lower() or best.token_count < 1:
            raise CheckFailure(f"content {best.content!r} of {best.token_count} tokens")
        if len(found.scores) != len(found.chunks) or found.scores != sorted(found.scores, reverse=True):
            raise CheckFailure(f"{len(found.chunks)} chunks with scores {found.scores}")
        if not all(math.isfinite(score) for score in found.scores):
            raise CheckFailure(f"scores {found.scores}")

    @check(
        "query_documents.params",
        tier=Tier.live,
        capability="query_documents",
        mend="read `max_chunks` from params (3 by default) and refuse invalid values",
    )
    async def test_query_documents_params(self, subject: Subject) -> None:
        """`max_chunks` (3 by default) limits the result; an invalid value is InvalidRequestError (400)"""
        words = ("first", "second", "third", "fourth", "fifth")
        many = [MemoryBankDocument(document_id=w, content=f"Llamas graze on the {w} hill.") for w in words]
        counts: list[tuple[dict[str, Any], int]] = [({}, 3), ({"max_chunks": 2}, 2), ({"max_chunks": 4}, 4)]
        async with subject.start() as running:
            await self.prepare(running)
            await self.insert(running, *many)
            for asked, most in counts:
                got = len((await self.query(running, "llamas graze hill", **asked)).chunks)
                if got != most:
                    raise CheckFailure(f"{got} chunks with params {asked}", wanted=f"{most}")
            for wrong in (0, -1, "many"):
                try:
                    await self.query(running, max_chunks=wrong)
                except InvalidRequestError:
                    continue
                raise CheckFailure(f"max_chunks {wrong!r} was taken")

    @check(
        "query_documents.other-bank",
        tier=Tier.live,
        capability="query_documents",
        mend="keep each bank's documents apart",
    )
    async def test_query_documents_other_bank(self, subject: Subject) -> None:
        """a query of one bank finds nothing of another bank"""
        async with subject.start() as running:
            await self.prepare(running)
            other = self.bank(running, "-other")
            await running.register(other)
            found = await running.calls.query_documents(bank_id=other.identifier, query=ASKED)
        if found.chunks:
            raise CheckFailure(f"another bank finds {[c.document_id for c in found.chunks]}")

    test_query_documents_refused = refused("query_documents")

    @check(
        "delete_documents.works",
        tier=Tier.live,
        capability="delete_documents",
        mend="remove every chunk of the documents; unknown ids are no error",
    )
    async def test_delete_documents_works(self, subject: Subject) -> None:
        """a deleted document is not found any more, the others are; unknown ids are no error"""
        async with subject.start() as running:
            await self.prepare(running)
            await self.delete(running, "llama", "never-there")
            left = await self.found(running)
            others = await self.found(running, str(BOAT.content))
        if "llama" in left:
            raise CheckFailure("the deleted document is still found")
        if "boat" not in others:
            raise CheckFailure("a document that was not deleted is gone")

    test_delete_documents_refused = refused("delete_documents")

    @check(
        "ttl.works",
        tier=Tier.live,
        capability="ttl",
        mend="leave documents that are older than their ttl_seconds out of queries",
    )
    async def test_ttl_works(self, subject: Subject) -> None:
        """a document with ttl_seconds is found until they are over, and not after; other documents stay"""
        brief = MemoryBankDocument(document_id="brief", content="The comet passes tonight.")
        async with subject.start() as running:
            await self.prepare(running)
            await self.insert(running, brief, ttl_seconds=3600)
            if "brief" not in await self.found(running, str(brief.content)):
                raise CheckFailure("with ttl_seconds 3600 it is not found at all")
            await self.insert(running, brief, ttl_seconds=TTL_S)
            bank = OwnBank(self, running, self.bank(running))
            if await bank.loses(str(brief.content), {"brief"}, TTL_OVER_S):
                raise CheckFailure(f"with ttl_seconds {TTL_S} it is still found after {TTL_OVER_S} s")
            if "llama" not in await self.found(running):
                raise CheckFailure("a document without ttl_seconds is gone, too")

    test_ttl_refused = refused("ttl")

    @check(
        "unregister.documents",
        tier=Tier.live,
        capability="unregister",
        mend="delete the bank's documents with the bank",
    )
    async def test_unregister_documents(self, subject: Subject) -> None:
        """a bank that was unregistered and registered again is empty"""
        if not subject.declares("registration"):
            raise NotApplicable("the provider declares no `registration`")
        async with subject.start() as running:
            await self.prepare(running)
            bank = self.bank(running)
            await running.unregister(bank.identifier)
            await running.register(bank)
            if found := await self.found(running):
                raise CheckFailure(f"the new bank finds {found}")
