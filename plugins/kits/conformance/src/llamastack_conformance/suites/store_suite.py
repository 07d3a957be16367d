"""The base of the suite of stores."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import anyio

from llamastack.provider.store import Record, Store
from llamastack_conformance.checks import Check, CheckFailure, NotApplicable
from llamastack_conformance.store_under_test import STORE, ConfiguredStore, StoreSubject

_T = TypeVar("_T")


class StoreSuite:
    """What the checks of a store share.

    store_type: the name of the store's entry point. config: a run config, a file or a mapping, with the key `store` if
    the store has settings. waivers: a file of waivers.
    """

    api: ClassVar[str] = STORE
    store_type: ClassVar[str]
    config: ClassVar[Path | str | Mapping[str, Any] | None] = {}
    waivers: ClassVar[Path | str | None] = None
    type_attribute: ClassVar[str] = "store_type"

    @classmethod
    def configured(cls, store_type: str) -> ConfiguredStore:
        return ConfiguredStore(store_type, {})

    @classmethod
    def subject(cls, store_type: str, document: Mapping[str, Any], on_run: Callable[[Check], None]) -> StoreSubject:
        made = StoreSubject(store_type, document, on_run=on_run)
        made.check_config()
        return made

    def lock(self, folder: Path) -> AbstractAsyncContextManager[None]:
        """Keep the open store from writing, as another process may. folder: of the store's stack.

        Override it if that can happen to the store.
        """
        raise NotApplicable("the method `lock` of the suite does not say how another process locks the store")

    async def fill(self, store: Store, folder: Path, kind: str, count: int) -> None:
        """Put so many records of a kind into the store. Override it if the store can do it faster."""
        for number in range(count):
            await store.put(kind, f"{number:06}", f'{{"number": {number}}}')


def expect(what: str, got: object, wanted: object) -> None:
    """Raises CheckFailure unless both are the same."""
    if got != wanted:
        raise CheckFailure(f"{what} gave {shown(got)}; right is {shown(wanted)}")


async def in_time(call: Awaitable[_T], limit_s: float) -> _T:
    """What a call gives. Raises CheckFailure if it takes too long."""
    limit = anyio.CancelScope(deadline=anyio.current_time() + limit_s)
    try:
        with limit:
            result = await call
    except Exception:
        if not limit.cancel_called:
            raise
    else:
        if not limit.cancel_called:
            return result
    raise CheckFailure(f"nothing for {limit_s:g} s")  # also where the call went on after its cancellation


def shown(value: object) -> str:
    """A value for people, cut short."""
    if isinstance(value, Record):
        return f"Record({shown(value.key)}, {shown(value.value)}, version {value.version}, expires {value.expires_at})"
    if isinstance(value, list):
        return f"[{', '.join(shown(each) for each in value[:8])}{', ...' if len(value) > 8 else ''}]"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def now_later(record: Record | None, earlier: int, what: str) -> Record:
    """The record, which has a newer version than `earlier`. Raises CheckFailure."""
    if record is None:
        raise CheckFailure(f"{what} gave None")
    if record.version <= earlier:
        raise CheckFailure(f"{what} gave version {record.version}, although {earlier} is in use")
    return record
