"""Checks of two instances of a memory provider that keep their data in two places."""

from __future__ import annotations

from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.suites.memory_calls import LLAMA, MemoryCalls
from llamastack_conformance.suites.registration import names


class InstanceChecks(MemoryCalls):
    """The checks of two instances."""

    @check(
        "life.apart",
        tier=Tier.live,
        capability="insert_documents",
        mend="keep everything under what the config names: the folder, the prefix, the database; keep no client in a "
        "class or a module",
    )
    async def test_life_apart(self, subject: Subject) -> None:
        """two instances whose configs name two places have nothing in common: a bank of one is not listed by the other,
        and a bank of the same name in the other finds none of its documents
        """
        if not subject.settings.second:
            raise NotApplicable("x-conformance.second names no other place for the data of a second instance")
        if not subject.declares("registration") or not subject.declares("query_documents"):
            raise NotApplicable("the provider does not declare both `registration` and `query_documents`")
        async with subject.start(second=True) as second, subject.start() as first:
            bank = self.bank(first, "-apart")
            await first.register(bank)
            await self.insert(first, LLAMA, bank_id=bank.identifier)
            if bank.identifier in await names(second):
                raise CheckFailure(f"the bank '{bank.identifier}' of one instance is listed by the other")
            await second.register(bank)
            if found := await self.found(second, str(LLAMA.content), bank_id=bank.identifier):
                raise CheckFailure(f"the bank '{bank.identifier}' of the second instance finds {found} of the first")
            if not await self.found(first, str(LLAMA.content), bank_id=bank.identifier):
                raise CheckFailure("since the second instance has a bank of the same name, the first finds nothing")
