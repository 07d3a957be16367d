"""Calls of a memory provider, from which the checks of its suite are made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, ClassVar

import anyio

from llamastack.api.memory import MemoryBankDocument, QueryDocumentsResponse
from llamastack_conformance.checks import NotApplicable
from llamastack_conformance.provider_under_test import SECOND, Subject
from llamastack_conformance.running import Running
from llamastack_conformance.shapes import well_formed
from llamastack_conformance.suites.provider import RoutedProviderConformance
from llamastack_conformance.suites.registration import new_object
from llamastack_conformance.suites.suite import Probe

LLAMA = MemoryBankDocument(
    document_id="llama", content="Llamas graze in the mountains of Peru.", metadata={"animal": "llama", "legs": 4}
)
BOAT = MemoryBankDocument(document_id="boat", content="The boat sails across the northern sea.")
WRITTEN = MemoryBankDocument(document_id="written", content="A lighthouse stands at the northern cape.")
ASKED = "Where do llamas graze?"
TTL_S = 1
TTL_OVER_S = 2.5
_KINDS = ("vector", "keyvalue", "keyword", "graph")


class MemoryCalls(RoutedProviderConformance):
    """The calls of a suite of the API memory. Source of the shapes: `llamastack.api.memory`."""

    api: ClassVar[str] = "memory"
    sends_text: ClassVar[bool] = False

    def bank(self, running: Running, suffix: str = "") -> Any:
        """A bank of the settings. suffix: is appended to its name."""
        bank = new_object(running.subject)
        # Names are unique in the stack, so the second instance needs other names.
        second = SECOND if running.provider_id.endswith(SECOND) else ""
        return bank.model_copy(update={"identifier": bank.identifier + suffix + second})

    async def prepare(self, running: Running) -> None:
        await running.register(self.bank(running))
        if running.subject.declares("insert_documents"):
            await self.insert(running, LLAMA, BOAT)

    async def content(self, running: Running) -> Any:
        """The chunks of the documents of `prepare`, without their scores."""
        if not running.subject.declares("insert_documents") or not running.subject.declares("query_documents"):
            raise NotApplicable("the provider does not declare both `insert_documents` and `query_documents`")
        found = await self.query(running, f"{LLAMA.content} {BOAT.content}", max_chunks=20)
        chunks = [chunk.model_dump(mode="json") for chunk in found.chunks]
        return sorted(chunks, key=lambda chunk: (chunk["document_id"], str(chunk["content"])))

    async def write(self, running: Running) -> None:
        """Insert another document into the bank of `prepare`."""
        await self.insert(running, WRITTEN)

    async def written(self, running: Running) -> Any:
        return WRITTEN.document_id in await self.found(running, str(WRITTEN.content))

    async def new_bank(self, running: Running, suffix: str) -> str:
        """Register a bank for one check, empty also where another run left its documents. Returns its name."""
        bank = self.bank(running, suffix)
        await running.register(bank)
        if running.subject.declares("unregister"):
            await running.unregister(bank.identifier)
            await running.register(bank)
        return str(bank.identifier)

    async def insert(
        self, running: Running, *documents: MemoryBankDocument, bank_id: str | None = None, **more: Any
    ) -> None:
        """Insert documents into a bank: that of `prepare` by default."""
        bank_id = bank_id or self.bank(running).identifier
        await running.calls.insert_documents(bank_id=bank_id, documents=list(documents), **more)

    async def query(
        self, running: Running, query: Any = ASKED, *, bank_id: str | None = None, **params: Any
    ) -> QueryDocumentsResponse:
        """Query a bank: that of `prepare` by default. Raises CheckFailure if the reply has a wrong form."""
        found = await running.calls.query_documents(
            bank_id=running.qualified(bank_id or self.bank(running).identifier),
            query=query,
            **({"params": params} if params else {}),
        )
        well_formed(running.subject.method("query_documents"), found)
        return found  # type: ignore[no-any-return]

    async def found(self, running: Running, query: Any = ASKED, *, bank_id: str | None = None) -> list[str]:
        """The documents of the best 20 chunks."""
        found = await self.query(running, query, bank_id=bank_id, max_chunks=20)
        return [chunk.document_id for chunk in found.chunks]

    async def delete(self, running: Running, *document_ids: str, bank_id: str | None = None) -> None:
        """Delete documents of a bank: that of `prepare` by default."""
        bank_id = bank_id or self.bank(running).identifier
        await running.calls.delete_documents(bank_id=bank_id, document_ids=list(document_ids))

    async def call(self, running: Running, text: str = ASKED) -> Any:
        return await self.query(running, text, max_chunks=1)

    async def each_kind(self, running: Running) -> list[tuple[str, Callable[[], Awaitable[Any]]]]:
        found = await super().each_kind(running)
        if running.subject.declares("insert_documents"):
            found.append(("an insert", partial(self.insert, running, WRITTEN)))
        return found

    async def more_kinds(self, running: Running) -> list[tuple[str, Callable[[], Awaitable[Any]]]]:
        """Deletions and registrations, which fail in the checks that use them."""
        bank = self.bank(running)
        other = self.bank(running, "-other")
        found: list[tuple[str, Callable[[], Awaitable[Any]]]] = []
        if running.subject.declares("delete_documents"):
            found.append(("a deletion", partial(self.delete, running, "no-such", bank_id=bank.identifier)))
        if running.subject.declares("registration"):
            found.append(("a registration", partial(running.register, other)))
        if running.subject.declares("unregister"):
            found.append(("unregistering", partial(running.unregister, other.identifier)))
        return found

    async def prepare_questions(self, running: Running, texts: list[str]) -> None:
        await self.insert(running, *(MemoryBankDocument(document_id=text, content=text) for text in texts))

    def answers(self, text: str, result: Any) -> bool:
        return [chunk.document_id for chunk in result.chunks] == [text]

    async def probe(self, running: Running, capability: str) -> Probe:
        bank = {"bank_id": self.bank(running).identifier}

        async def vanishes(_: Any) -> bool:
            await anyio.sleep(TTL_OVER_S)
            return "boat" not in await self.found(running, str(BOAT.content))

        probes = {
            "insert_documents": Probe("insert_documents", {**bank, "documents": [LLAMA]}, lambda _: True),
            "query_documents": Probe("query_documents", {**bank, "query": ASKED}, lambda r: bool(r.chunks)),
            "delete_documents": Probe("delete_documents", {**bank, "document_ids": ["no-such"]}, lambda _: True),
            **{f"{mode}_search": _search(mode, bank) for mode in ("vector", "keyword", "hybrid")},
            "filters": Probe(
                "query_documents",
                {**bank, "query": ASKED, "params": {"filters": {"type": "eq", "key": "no-such", "value": 1}}},
                lambda found: not found.chunks,
            ),
            "ttl": Probe("insert_documents", {**bank, "documents": [BOAT], "ttl_seconds": TTL_S}, vanishes),
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


def _search(mode: str, bank: Mapping[str, str]) -> Probe:
    scores = {"vector": {"cosine_similarity"}, "hybrid": {"reciprocal_rank", "weighted"}}

    def worked(found: Any) -> bool:
        by = found.scored_by
        return by in scores[mode] if mode in scores else by not in {None}.union(*scores.values())

    return Probe("query_documents", {**bank, "query": ASKED, "params": {"mode": mode}}, worked)
