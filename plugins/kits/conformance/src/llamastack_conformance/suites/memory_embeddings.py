"""Checks of a memory provider whose embedding model fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from llamastack.provider.errors import BackendError, LlamaStackError
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.suites.memory_calls import MemoryCalls
from llamastack_conformance.suites.memory_contents import whole_version
from llamastack_conformance.suites.memory_own_bank import OwnBank, own_bank
from llamastack_conformance.suites.memory_texts import Ledger
from llamastack_conformance.suspensions import spread

_CHUNK_TOKENS = 32
_PIECES = 100  # more than fit into one call of most models
_FAILURES = 3


class _Faults:
    """What goes wrong at the calls of the embedding models of a stack. calls: how many there were."""

    def __init__(self) -> None:
        self.calls = 0
        self._fails_at = 0
        self._lacks_one = False

    def at(self, number: int, *, lacks_one: bool = False) -> None:
        """Fail at the call of this number from now on; 0: at none. lacks_one: leave a vector out instead."""
        self.calls, self._fails_at, self._lacks_one = 0, number, lacks_one

    def around(self, embeddings: Any) -> Any:
        """A method `embeddings` that fails as it is said here."""

        async def faulty(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            fails = self.calls == self._fails_at
            if fails and not self._lacks_one:
                raise BackendError("the embedding model is out of order")
            reply = await embeddings(*args, **kwargs)
            return reply.model_copy(update={"embeddings": reply.embeddings[:-1]}) if fails else reply

        return faulty


@contextmanager
def _faulty_models(running: Running) -> Iterator[_Faults]:
    """Let the embedding models of the stack fail, as the result says, while the block lasts."""
    faults = _Faults()
    with ExitStack() as patched:
        for instance in running.stack.instances.get("inference", ()):
            own = getattr(instance.provider, "embeddings", None)
            if own is not None:
                patched.enter_context(mock.patch.object(instance.provider, "embeddings", faults.around(own)))
        yield faults


class EmbeddingFaultChecks(MemoryCalls):
    """The checks of a model that fails."""

    @check(
        "insert_documents.embeddings-fail",
        tier=Tier.failure,
        capability="insert_documents",
        mend="embed all chunks before the first is stored, count the vectors, and let errors of the model through",
    )
    async def test_insert_documents_embeddings_fail(self, subject: Subject) -> None:
        """if the embedding model fails at any call of an insert, or gives too few vectors, the insert fails and the
        earlier version stays whole; if it fails at a query, the query fails
        """
        old, new = Ledger("the old version", 200, 0), Ledger("the new version", _PIECES * _CHUNK_TOKENS, 500_000)
        async with subject.shared() as running, own_bank(self, running, "models", _CHUNK_TOKENS) as bank:
            with _faulty_models(running) as faults:
                faults.at(0)
                await bank.put({"embedded": new.text})
                calls = faults.calls
                if not calls:
                    raise NotApplicable("the provider embeds by no model of this stack")
                await bank.put({"embedded": old.text})
                for number in spread(calls, _FAILURES):
                    await _check_insert(bank, faults, number, [old, new])
                faults.at(1)
                try:
                    found = await bank.chunks(old.words[0])
                except LlamaStackError:
                    pass
                else:
                    raise CheckFailure(f"the model failed, and the query finds {len(found)} chunks")
                faults.at(0)
                await bank.put({"embedded": new.text})
                if await whole_version(bank, "embedded", [old, new]) is not new:
                    raise CheckFailure("when the model works again, an insert does not replace the document")


async def _check_insert(bank: OwnBank, faults: _Faults, number: int, versions: list[Ledger]) -> None:
    """Raise CheckFailure unless an insert of the second version fails without any effect."""
    for lacks_one in (False, True):
        what = f"at call {number} the model {'gave too few vectors' if lacks_one else 'failed'}"
        faults.at(number, lacks_one=lacks_one)
        try:
            await bank.put({"embedded": versions[1].text})
        except LlamaStackError:
            pass
        else:
            raise CheckFailure(f"{what}, and the insert succeeded")
        faults.at(0)
        if await whole_version(bank, "embedded", versions) is not versions[0]:
            raise CheckFailure(f"{what}, and the earlier version is gone")
