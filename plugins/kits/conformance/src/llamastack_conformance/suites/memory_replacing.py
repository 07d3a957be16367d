"""Checks of documents that are replaced, and of their metadata."""

from __future__ import annotations

import copy
import json
from typing import Any

from llamastack.api.memory import MemoryBankDocument
from llamastack.provider.errors import InvalidRequestError
from llamastack_conformance.checks import CheckFailure, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.suites.memory_calls import MemoryCalls
from llamastack_conformance.suites.memory_own_bank import own_bank
from llamastack_conformance.suites.memory_texts import Ledger, batches, word

_PIECES = 130
_METADATA: dict[str, dict[str, Any]] = {
    "numbers": {"int": 4, "zero": 0, "float": 4.0, "small": 0.1, "large": 2**53 + 1, "negative": -(2**53) - 1},
    "simple": {"yes": True, "no": False, "nothing": None, "empty": "", "text": "1", "word": "true"},
    "nested": {"list": [1, "two", None, [3.5, []]], "dict": {"a": {"b": {"c": [{}, {"d": 1}]}}}},
    "keys": {"größe": 1, "🦙": "llama", "with blank": 1, "a.b": 1, "$set": 1, "": 1, "Case": 1, "case": 2},
    "fields": {
        "document_id": "x",
        "content": "y",
        "text": "z",
        "metadata": {"m": 1},
        "id": 7,
        "token_count": "many",
        "bank_id": "b",
        "score": 9,
        "expires_at": 0,
        "ttl_seconds": 1,
        "chunk_index": -1,
        "vector": [0],
    },
    "none": {},
}


class ReplacingChecks(MemoryCalls):
    """The checks of documents that come again, and of metadata."""

    @check(
        "insert_documents.replaced",
        tier=Tier.live,
        capability="insert_documents",
        mend="remove every earlier chunk of the document, in all batches, and nothing of other documents",
    )
    async def test_insert_documents_replaced(self, subject: Subject) -> None:
        """after a document of 130 chunks is replaced by a short one, nothing of it is found; other documents stay; a
        document that is inserted twice is there once
        """
        async with subject.shared() as running, own_bank(self, running, "replaced", 32) as bank:
            ledger = Ledger("the replaced ledger", _PIECES * (32 if bank.is_vector else 200), first=0)
            other = f"The other one is {word(90_000)} indeed."
            await bank.put({"grown": ledger.text, "other": other})
            await bank.put({"grown": f"The short one is {word(90_001)} now."})
            for query in batches([word(90_001), *ledger.words]):
                for chunk in await bank.chunks(query):
                    if chunk.document_id == "grown" and word(90_001) not in str(chunk.content):
                        raise CheckFailure(f"a chunk of the replaced document is left: {str(chunk.content)[:80]!r}")
            if not await bank.texts(word(90_001), "grown"):
                raise CheckFailure("the new text is not found")
            if await bank.texts(other, "other") != [other]:
                raise CheckFailure("another document is gone")
            await bank.put({"other": other})
            if await bank.texts(other, "other") != [other]:
                raise CheckFailure(f"inserted twice, it is there as {await bank.texts(other, 'other')}")

    @check(
        "delete_documents.long",
        tier=Tier.live,
        capability="delete_documents",
        mend="delete every chunk of the document, in all batches",
    )
    async def test_delete_documents_long(self, subject: Subject) -> None:
        """of a document of 130 chunks that was deleted no chunk is found"""
        async with subject.shared() as running, own_bank(self, running, "deleted", 32) as bank:
            ledger = Ledger("the deleted ledger", _PIECES * (32 if bank.is_vector else 200), first=0)
            await bank.put({"long": ledger.text, "other": f"The other one is {word(90_000)} indeed."})
            await bank.delete("long")
            for query in batches(ledger.words):
                if left := await bank.texts(query, "long"):
                    raise CheckFailure(f"{len(left)} chunks are left, such as {left[0][:80]!r}")
            if "other" not in await bank.found(word(90_000)):
                raise CheckFailure("another document is gone")

    @check(
        "insert_documents.same-id",
        tier=Tier.live,
        capability="insert_documents",
        mend="refuse an id that stands twice in a call, or store its last document only",
    )
    async def test_insert_documents_same_id(self, subject: Subject) -> None:
        """of two documents with one id in a call the last one is stored, or the call is refused with
        InvalidRequestError (400) and nothing is stored; an empty list of documents changes nothing
        """
        first, last = f"At first {word(0)} stood here.", f"At last {word(1)} stood here."
        beside = f"Beside them {word(2)} stood."
        async with subject.shared() as running, own_bank(self, running, "twice") as bank:
            twice = [MemoryBankDocument(document_id="twice", content=text) for text in (first, last)]
            try:
                await bank.insert(twice[0], MemoryBankDocument(document_id="beside", content=beside), twice[1])
            except InvalidRequestError:
                if left := await bank.found(f"{first} {last} {beside}"):
                    raise CheckFailure(f"the call was refused, and {sorted(left)} are stored") from None
                await bank.put({"twice": last, "beside": beside})
            await bank.insert()
            found = {str(chunk.content) for chunk in await bank.chunks(f"{first} {last} {beside}")}
        if found != {last, beside}:
            raise CheckFailure(f"the bank has {sorted(found)}", wanted=f"{[last, beside]}")

    @check(
        "insert_documents.metadata",
        tier=Tier.live,
        capability="insert_documents",
        mend="keep metadata as JSON, apart from the fields of your own, one object for each document",
    )
    async def test_insert_documents_metadata(self, subject: Subject) -> None:
        """metadata comes back unchanged: types, large numbers, null, nested values, any key, also the name of a field;
        the next version of a document has its own
        """
        texts = {name: f"The metadata of {word(place)} is odd." for place, name in enumerate(_METADATA)}
        async with subject.shared() as running, own_bank(self, running, "metadata") as bank:
            documents = [
                MemoryBankDocument(document_id=name, content=texts[name], metadata=copy.deepcopy(metadata))
                for name, metadata in _METADATA.items()
            ]
            await bank.insert(*documents)
            changed = [
                each
                for each in documents
                if (each.content, each.metadata) != (texts[each.document_id], _METADATA[each.document_id])
            ]
            if changed:
                raise CheckFailure(f"the caller's own document became {changed[0]!r}")
            for document in documents:  # what the caller does with its own objects is no change of the bank
                document.metadata.setdefault("list", []).append("later")
            for _ in range(2):
                found = await bank.chunks(" ".join(texts.values()))
                if lost := texts.keys() - {chunk.document_id for chunk in found}:
                    shown = ", ".join(json.dumps(_METADATA[name]) for name in sorted(lost))
                    raise CheckFailure(f"documents with this metadata are not found: {shown}")
                for chunk in found:
                    if chunk.content != texts[chunk.document_id]:
                        shown = json.dumps(_METADATA[chunk.document_id])
                        raise CheckFailure(f"with the metadata {shown} the text is {chunk.content!r}")
                    _check_metadata(chunk.document_id, chunk.metadata)
                    if chunk.metadata:
                        chunk.metadata["later"] = True
                        chunk.metadata.get("list", []).append("later")
            await bank.put({"nested": texts["nested"]})
            (again,) = [c for c in await bank.chunks(texts["nested"]) if c.document_id == "nested"]
            if again.metadata:
                raise CheckFailure(f"a document without metadata has that of its earlier version: {again.metadata}")

    @check(
        "insert_documents.same-text",
        tier=Tier.live,
        capability="insert_documents",
        mend="make the ids of chunks of bank, document and place, never of the text alone",
    )
    async def test_insert_documents_same_text(self, subject: Subject) -> None:
        """documents with equal texts are all found, each with its own metadata; when one is deleted, the others stay"""
        text = f"The copied sentence is {word(91_000)} everywhere."
        wanted = {f"copy{place}": {"place": place} for place in range(3)}
        documents = [
            MemoryBankDocument(document_id=name, content=text, metadata=about) for name, about in wanted.items()
        ]
        async with subject.shared() as running, own_bank(self, running, "same-text") as bank:
            await bank.insert(*documents[:2])
            await bank.insert(documents[2])
            found = {chunk.document_id: chunk.metadata for chunk in await bank.chunks(text)}
            if found != wanted:
                raise CheckFailure(f"three documents with one text are {found}", wanted=f"{wanted}")
            await bank.delete("copy0")
            left = sorted(chunk.document_id for chunk in await bank.chunks(text))
            if left != ["copy1", "copy2"]:
                raise CheckFailure(f"after one of three documents with one text is deleted, {left} are found")

    @check(
        "insert_documents.emptied",
        tier=Tier.live,
        capability="insert_documents",
        mend="remove the earlier version of a document that has no text now, or raise InvalidRequestError",
    )
    async def test_insert_documents_emptied(self, subject: Subject) -> None:
        """a document that is replaced by an empty one is found no more, unless the empty one is refused with a 400"""
        text = f"The text that goes is {word(92_000)} still."
        async with subject.shared() as running, own_bank(self, running, "emptied") as bank:
            for empty in ("", " \n "):
                await bank.put({"emptied": text, "beside": f"Another one is {word(92_001)} too."})
                try:
                    await bank.put({"emptied": empty})
                except InvalidRequestError:
                    continue
                found = [chunk.content for chunk in await bank.chunks(text) if chunk.document_id == "emptied"]
                if any(word(92_000) in str(content) for content in found):
                    raise CheckFailure(f"after {empty!r} replaced it, the document still says {found}")


def _check_metadata(name: str, got: dict[str, Any] | None) -> None:
    # As text, because 1, 1.0 and True are equal in Python.
    wanted, is_ = (json.dumps(each or {}, sort_keys=True) for each in (_METADATA[name], got))
    if wanted != is_:
        raise CheckFailure(f"the metadata is {is_}", wanted=wanted)
