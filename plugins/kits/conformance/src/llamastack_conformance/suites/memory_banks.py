"""Checks of banks as they are listed, of their embedding models, and of what is no text or no answer."""

from __future__ import annotations

import uuid
from typing import Any

from llamastack.api.memory import MemoryBankDocument
from llamastack.provider.errors import BackendError, LlamaStackError, NotSupportedError, ProviderUnavailableError
from llamastack_conformance.backend_tap import always, answer
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.suites.failure import expect_error
from llamastack_conformance.suites.inference_calls import DOT
from llamastack_conformance.suites.memory_calls import MemoryCalls
from llamastack_conformance.suites.memory_own_bank import MOST, OwnBank, own_bank
from llamastack_conformance.suites.registration import names

_UNKNOWN_MODEL = "no-such-model-7f3a"
_OF_THE_STACK = {"provider_id", "provider_resource_id", "unavailable_reason"}
_SHORT, _LONG = "A heron stands.", "A heron stands in the shallow river and waits for the small fish that come by."
_NO_REPLIES = {"an empty object": "{}", "null": "null", "nothing": "", "a page": "<html></html>"}


class BankChecks(MemoryCalls):
    """The checks of banks and of what they take."""

    @check(
        "listing.definitions",
        tier=Tier.live,
        capability="registration",
        mend="keep the whole definition of a bank beside it, and list it unchanged",
    )
    async def test_listing_definitions(self, subject: Subject) -> None:
        """a registered bank is listed with all that its definition says, such as sizes of chunks and overlaps"""
        async with subject.shared() as running, own_bank(self, running, "listed", 48) as bank:
            wanted = bank.definition.model_dump(exclude=_OF_THE_STACK)
            for listed in (await running.list_objects(), [*(await running.listed()).values()]):
                found = [item.model_dump(exclude=_OF_THE_STACK) for item in listed if item.identifier == bank.bank_id]
                if found != [wanted]:
                    raise CheckFailure(f"the bank is listed as {found}", wanted=f"{wanted}")

    @check(
        "registration.embedding-model",
        tier=Tier.live,
        capability="registration",
        mend="ask the embedding model for one vector when a bank is registered, and raise UnsupportedMemoryBankError",
    )
    async def test_registration_embedding_model(self, subject: Subject) -> None:
        """a bank of vectors whose embedding model is unknown is refused with a 4xx, and is not listed"""
        async with subject.start() as running:
            bank = self.bank(running, f"-unknown-model-{uuid.uuid4().hex[:8]}")
            if bank.type != "vector":
                raise NotApplicable("x-conformance.objects names no bank of vectors first")
            bank = bank.model_copy(update={"embedding_model": _UNKNOWN_MODEL})
            try:
                await running.register(bank)
            except LlamaStackError as error:
                if error.status >= 500:
                    got = f"it is refused with {type(error).__name__} ({error.status}): {error.message}"
                    raise CheckFailure(got, wanted="UnsupportedMemoryBankError (400)") from None
            else:
                raise CheckFailure(f"a bank with the embedding model '{_UNKNOWN_MODEL}' was registered")
            if bank.identifier in await names(running):
                raise CheckFailure("the bank was refused, and is listed")

    @check(
        "insert_documents.images",
        tier=Tier.live,
        capability="insert_documents",
        mend="raise NotSupportedError or InvalidRequestError for a document with an image that cannot be found",
    )
    async def test_insert_documents_images(self, subject: Subject) -> None:
        """an image in a document is kept as a chunk, or the document is refused with a 4xx or 501, alone and beside a
        text; it is not left out
        """
        async with subject.shared() as running, own_bank(self, running, "images") as bank:
            alone = await _takes(bank, "alone", [DOT])
            beside = await _takes(bank, "beside", ["The picture shows a heron.", DOT])
            if alone and bank.is_vector and "alone" not in await bank.found("a picture", MOST):
                raise CheckFailure("a document that is an image was taken, and has no chunk")
            if beside and not alone:
                raise CheckFailure("an image alone is refused, and beside a text it is left out", wanted="a refusal")

    @check(
        "query_documents.token-count",
        tier=Tier.live,
        capability="query_documents",
        mend="count the tokens of each chunk",
    )
    async def test_query_documents_token_count(self, subject: Subject) -> None:
        """`token_count` is positive, and higher for a chunk of sixteen words than for one of three"""
        async with subject.shared() as running, own_bank(self, running, "tokens") as bank:
            await bank.put({"short": _SHORT, "long": _LONG})
            counts = {chunk.document_id: chunk.token_count for chunk in await bank.chunks("heron stands")}
        if not 0 < counts.get("short", 0) < counts.get("long", 0):
            raise CheckFailure(f"the token counts are {counts}")

    @check(
        "failure.no-reply",
        tier=Tier.failure,
        mend="raise BackendError for an answer without the field that has the result; take no field as empty",
    )
    async def test_failure_no_reply(self, subject: Subject) -> None:
        """a query whose backend answers 200 with nothing in it (nothing, {}, null, a page) is BackendError (502),
        not an empty result, and a listing then fails, too, or is as before
        """
        async with subject.start(tapped=True) as running:
            await self.prepare(running)
            before = sorted(await names(running))
            running.tap.requests.clear()
            await self.query(running)
            if not running.tap.requests:
                raise NotApplicable("a query asks nothing of the backend")
            for name, body in _NO_REPLIES.items():
                running.tap.disturb(inject=always(answer(200, body)))
                try:
                    await expect_error(running, lambda: self.query(running), BackendError, ProviderUnavailableError)
                except CheckFailure as failure:
                    raise CheckFailure(f"a 200 with {name}: {failure.got}", wanted=failure.wanted) from None
                await _lists_as(running, before, name)


async def _takes(bank: OwnBank, name: str, content: Any) -> bool:
    """Whether a document is taken. Raises CheckFailure if its refusal is a failure of the server."""
    try:
        await bank.insert(MemoryBankDocument(document_id=name, content=content))
    except LlamaStackError as error:
        if error.status >= 500 and not isinstance(error, NotSupportedError):
            raise CheckFailure(f"a document with an image: {type(error).__name__}: {error.message}") from None
        return False
    return True


async def _lists_as(running: Running, before: list[str], what: str) -> None:
    try:
        found = sorted(await names(running))
    except LlamaStackError:
        return
    if found != before:
        raise CheckFailure(f"a 200 with {what}: the listing is {found}", wanted=f"an error, or {before}")
