"""Checks of how a store tells what has changed, and of what stays when it is closed."""

from __future__ import annotations

import inspect

from pydantic import BaseModel

from llamastack.api.schema import Schema
from llamastack.provider.store import Store
from llamastack_conformance.checks import CheckFailure, Tier, check
from llamastack_conformance.store_under_test import StoreSubject
from llamastack_conformance.suites.store_suite import StoreSuite, expect, now_later

_METHODS = ("open", "get", "put", "swap", "delete", "scan", "changes_since", "close")
_MANY = 300


class StoreDeclarations(StoreSuite):
    """Checks of the class, without opening a store."""

    @check("store.methods", tier=Tier.static, mend="give the class the methods of llamastack.provider.store.Store")
    async def test_store_methods(self, subject: StoreSubject) -> None:
        """the entry point names a class with every method of Store, async, with its arguments"""
        cls = subject.store_class
        faults = []
        for name in _METHODS:
            found = getattr(cls, name, None)
            if not inspect.iscoroutinefunction(found):
                faults.append(f"{name}: is no async method")
                continue
            wanted = [p.replace(annotation=p.empty, default=p.empty) for p in _parameters(getattr(Store, name))]
            taken = [p.replace(annotation=p.empty, default=p.empty) for p in _parameters(found)]
            if taken != wanted:
                faults.append(f"{name}: takes {', '.join(map(str, taken))}; right is {', '.join(map(str, wanted))}")
        if faults:
            raise CheckFailure("; ".join(faults))

    @check("store.config", tier=Tier.static, mend="write `Field(description=...)`, and `ConfigDict(extra='forbid')`")
    async def test_store_config(self, subject: StoreSubject) -> None:
        """the class has a config_class that describes its fields and refuses a misspelt key"""
        model = getattr(subject.store_class, "config_class", None)
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise CheckFailure(f"config_class is {model!r}; right is a pydantic model")
        bare = [name for name, field in Schema.of(model).fields.items() if not field.description]
        if bare:
            raise CheckFailure(f"without a description: {', '.join(bare)}")
        if model.model_config.get("extra") != "forbid":
            raise CheckFailure(f"{model.__name__} takes any key")


def _parameters(method: object) -> list[inspect.Parameter]:
    return list(inspect.signature(method).parameters.values()) if callable(method) else []


class ChangeChecks(StoreSuite):
    """Checks of every store."""

    @check("changes.since", tier=Tier.live, mend="give each changed record once, as it is now, the oldest change first")
    async def test_changes_since(self, subject: StoreSubject) -> None:
        """changes_since gives the last state of each record that changed after a version, and nothing else"""
        kind, second, other = (subject.new_kind() for _ in range(3))
        async with subject.empty([kind, second]) as store:
            await store.put(kind, "a", "1")
            await store.put(kind, "b", "1")
            before = await store.changes_since(0, [kind, second])
            expect("changes_since(0).complete", before.complete, True)
            await store.put(other, "a", "1")
            c = await store.put(second, "c", "1")
            await store.put(kind, "a", "2")
            a = await store.put(kind, "a", "3")
            changes = await store.changes_since(before.version, [kind, second])
            expect("changes_since() of two kinds", (changes.records, changes.complete), ([c, a], False))
            expect("changes_since() of one", (await store.changes_since(before.version, [kind])).records, [a])
            expect("its version", changes.version >= a.version, True)
            none = await store.changes_since(changes.version, [kind, second])
            expect("changes_since() without a change", (none.records, none.complete), ([], False))

    @check("changes.deleted", tier=Tier.live, mend="keep a tombstone of each deleted record of a kind given to `open`")
    async def test_changes_deleted(self, subject: StoreSubject) -> None:
        """a deleted record of a followed kind is among the changes, with value None, also after many other writes"""
        kind, other = subject.new_kind(), subject.new_kind()
        async with subject.empty([kind]) as store:
            kept = [await store.put(kind, key, "1") for key in ("deleted", "swapped", "back", "stays")]
            before = (await store.changes_since(0, [kind])).version
            await store.delete(kind, "deleted")
            tombstone = await store.swap(kind, "swapped", None, version=kept[1].version)
            await store.delete(kind, "back")
            back = await store.put(kind, "back", "2")
            for number in range(_MANY):
                await store.put(other, str(number), "1")
                await store.delete(other, str(number))
            changes = await store.changes_since(before, [kind])
            expect("complete", changes.complete, False)
            found = [(record.key, record.value) for record in changes.records]
            expect("changes_since()", found, [("deleted", None), ("swapped", None), ("back", "2")])
            expect("what swap() gave", changes.records[1], tombstone)
            whole = await store.changes_since(0, [kind])
            expect("changes_since(0)", whole.records, [kept[3], back])

    @check("shared.at-once", tier=Tier.live, mend="read from what all processes share, not from a copy in memory")
    async def test_shared_at_once(self, subject: StoreSubject) -> None:
        """two stores with the same config see each other's records and deletions at once, and do not share versions"""
        subject.require_shared()
        kind = subject.new_kind()
        with subject.folder() as folder:
            async with subject.opened(folder, [kind]) as first, subject.opened(folder, [kind]) as second:
                newest = 0
                for one, other in ((first, second), (second, first)) * 3:
                    kept = now_later(await one.put(kind, "a", "1"), newest, "put()")
                    expect("get() of the other", await other.get(kind, "a"), kept)
                    changes = await other.changes_since(newest, [kind])
                    expect("changes_since() of the other", changes.records[-1:], [kept])
                    expect("delete() of the other", await other.delete(kind, "a"), True)
                    expect("get()", await one.get(kind, "a"), None)
                    (gone,) = (await one.changes_since(kept.version, [kind])).records
                    newest = now_later(gone, kept.version, "changes_since() after delete()").version

    @check("reopened.keeps", tier=Tier.live, mend="write before a method returns, and take up the counter again")
    async def test_reopened_keeps(self, subject: StoreSubject) -> None:
        """a store that is closed and opened again has its records, tombstones and versions"""
        subject.require_shared()
        kind = subject.new_kind()
        with subject.folder() as folder:
            async with subject.opened(folder, [kind]) as store:
                kept = await store.put(kind, "a", "1")
                await store.put(kind, "b", "1")
                await store.delete(kind, "b")
                newest = (await store.changes_since(0, [kind])).version
            async with subject.opened(folder, [kind]) as store:
                expect("get()", await store.get(kind, "a"), kept)
                changes = await store.changes_since(kept.version, [kind])
                expect("changes_since()", [(r.key, r.value) for r in changes.records], [("b", None)])
                now_later(await store.put(kind, "b", "2"), max(newest, changes.version), "put()")

    @check("life.close-twice", tier=Tier.live, mend="let close check whether there is something to close")
    async def test_life_close_twice(self, subject: StoreSubject) -> None:
        """close can be called twice, and before open; afterwards the store can be opened again"""
        kind = subject.new_kind()
        with subject.folder() as folder:
            store = subject.make(folder)
            await store.close()
            await store.open([kind])
            kept = await store.put(kind, "a", "1")
            await store.close()
            await store.close()
            await store.open([kind])
            expect("get() after open()", await store.get(kind, "a"), kept)
            await store.close()
