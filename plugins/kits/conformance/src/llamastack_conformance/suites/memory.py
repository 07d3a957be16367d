"""The suite of the API memory."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import anyio

from llamastack.api.memory import MemoryBankDocument, QueryDocumentsResponse
from llamastack.provider.errors import InvalidRequestError, LlamaStackError
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import SECOND, Subject
from llamastack_conformance.running import Running
from llamastack_conformance.shapes import well_formed
from llamastack_conformance.suites.provider import RoutedProviderConformance
from llamastack_conformance.suites.registration import new_object
from llamastack_conformance.suites.suite import Probe, refused

_LLAMA = MemoryBankDocument(
    document_id="llama", content="Llamas graze in the mountains of Peru.", metadata={"animal": "llama", "legs": 4}
)
_BOAT = MemoryBankDocument(document_id="boat", content="The boat sails across the northern sea.")
_ASKED = "Where do llamas graze?"
_KINDS = ("vector", "keyvalue", "keyword", "graph")
_TTL_S = 1
_TTL_OVER_S = 2.5


class MemoryConformance(RoutedProviderConformance):
    """All checks of a memory provider. Source of the shapes: `llamastack.api.memory`."""

    api: ClassVar[str] = "memory"

    def _bank(self, running: Running) -> Any:
        bank = new_object(running.subject)
        # Names are unique in the stack, so the second instance needs other names.
        second = running.provider_id.endswith(SECOND)
        return bank.model_copy(update={"identifier": bank.identifier + SECOND}) if second else bank

    async def prepare(self, running: Running) -> None:
        await running.register(self._bank(running))
        if running.subject.declares("insert_documents"):
            await self._insert(running, _LLAMA, _BOAT)

    async def _insert(self, running: Running, *documents: MemoryBankDocument, **more: Any) -> None:
        bank_id = self._bank(running).identifier
        await running.calls.insert_documents(bank_id=bank_id, documents=list(documents), **more)

    async def _query(self, running: Running, query: str = _ASKED, **params: Any) -> QueryDocumentsResponse:
        found = await running.calls.query_documents(
            bank_id=running.qualified(self._bank(running).identifier),
            query=query,
            **({"params": params} if params else {}),
        )
        well_formed(running.subject.method("query_documents"), found)
        return found  # type: ignore[no-any-return]

    async def _found(self, running: Running, query: str = _ASKED) -> list[str]:
        return [chunk.document_id for chunk in (await self._query(running, query, max_chunks=20)).chunks]

    async def call(self, running: Running, text: str = _ASKED) -> Any:
        return await self._query(running, text, max_chunks=1)

    async def prepare_questions(self, running: Running, texts: list[str]) -> None:
        await self._insert(running, *(MemoryBankDocument(document_id=text, content=text) for text in texts))

    def answers(self, text: str, result: Any) -> bool:
        return [chunk.document_id for chunk in result.chunks] == [text]

    async def probe(self, running: Running, capability: str) -> Probe:
        bank = {"bank_id": self._bank(running).identifier}

        async def vanishes(_: Any) -> bool:
            await anyio.sleep(_TTL_OVER_S)
            return "boat" not in await self._found(running, str(_BOAT.content))

        probes = {
            "insert_documents": Probe("insert_documents", {**bank, "documents": [_LLAMA]}, lambda _: True),
            "query_documents": Probe("query_documents", {**bank, "query": _ASKED}, lambda r: bool(r.chunks)),
            "delete_documents": Probe("delete_documents", {**bank, "document_ids": ["no-such"]}, lambda _: True),
            "ttl": Probe("insert_documents", {**bank, "documents": [_BOAT], "ttl_seconds": _TTL_S}, vanishes),
        }
        return probes[capability]

    def unserved_objects(self, subject: Subject) -> list[Any]:
        """Banks of the types that the settings do not name."""
        taken = {item.get("type", "vector") for item in subject.settings.objects}
        fields = {"vector": {"embedding_model": "no-such-model-7f3a", "chunk_size_in_tokens": 64}}
        return [
            subject.pair.adapter.validate_python(
                {"identifier": f"{subject.settings.unserved}-{kind}", "type": kind, **fields.get(kind, {})}
            )
            for kind in _KINDS
            if kind not in taken
        ]

    # ---- documents -----------------------------------------------------------------------------------------------

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
            if "llama" not in await self._found(running):
                raise CheckFailure(f"{_ASKED!r} finds {await self._found(running)}", wanted="the document about llamas")
            await self._insert(running, MemoryBankDocument(document_id="llama", content="A lantern in the cellar."))
            found = (await self._query(running, "A lantern in the cellar.", max_chunks=20)).chunks
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
            await self._insert(running, document)
            found = await self._query(running, "A zeppelin lands quietly.", max_chunks=20)
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
                await self._insert(running, good, bad)
            except LlamaStackError:
                pass
            else:
                raise CheckFailure(f"{bad.content} was taken", wanted="an error for a URL that cannot be fetched")
            if "good" in await self._found(running, "The violin is out of tune."):
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
            found = await self._query(running)
        if not found.chunks or found.chunks[0].document_id != "llama":
            raise CheckFailure(f"{_ASKED!r} finds {[c.document_id for c in found.chunks]}")
        best = found.chunks[0]
        if best.metadata != _LLAMA.metadata:
            raise CheckFailure(f"metadata {best.metadata}", wanted=f"{_LLAMA.metadata}")
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
        async with subject.start() as running:
            await self.prepare(running)
            await self._insert(running, *many)
            for asked, most in (({}, 3), ({"max_chunks": 2}, 2), ({"max_chunks": 4}, 4)):
                got = len((await self._query(running, "llamas graze hill", **asked)).chunks)
                if got != most:
                    raise CheckFailure(f"{got} chunks with params {asked}", wanted=f"{most}")
            for wrong in (0, -1, "many"):
                try:
                    await self._query(running, max_chunks=wrong)
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
            bank = self._bank(running)
            other = bank.model_copy(update={"identifier": f"{bank.identifier}-other"})
            await running.register(other)
            found = await running.calls.query_documents(bank_id=other.identifier, query=_ASKED)
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
            bank_id = self._bank(running).identifier
            await running.calls.delete_documents(bank_id=bank_id, document_ids=["llama", "never-there"])
            left = await self._found(running)
            others = await self._found(running, str(_BOAT.content))
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
            await self._insert(running, brief, ttl_seconds=3600)
            if "brief" not in await self._found(running, str(brief.content)):
                raise CheckFailure("with ttl_seconds 3600 it is not found at all")
            await self._insert(running, brief, ttl_seconds=_TTL_S)
            await anyio.sleep(_TTL_OVER_S)
            if "brief" in await self._found(running, str(brief.content)):
                raise CheckFailure(f"with ttl_seconds {_TTL_S} it is still found after {_TTL_OVER_S} s")
            if "llama" not in await self._found(running):
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
            bank = self._bank(running)
            await running.unregister(bank.identifier)
            await running.register(bank)
            if found := await self._found(running):
                raise CheckFailure(f"the new bank finds {found}")
