"""Memory providers for a process of its own: a sound one, and some that lose what they had not written when killed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from broken_restarts import SHARED_MEMORY, Caches, FileMemory, made_with_file

from llamastack.provider import Deps, ProviderSpec


def _spec(name: str) -> ProviderSpec:
    return replace(SHARED_MEMORY, provider_type=f"remote::{name}", factory=f"{__name__}:make_{name}")


class WritesInBatches(FileMemory):
    """It writes after many inserts."""

    inserts = 0

    def read(self) -> None:
        if not self._kept:
            super().read()

    async def store(self, bank: Any, insert: Any) -> None:
        self.inserts += 1
        await super().store(bank, insert)

    def write(self) -> None:
        if self.inserts % 10_000 == 0:
            super().write()


class DoesNotRecover(FileMemory):
    """It leaves a lock that only its shutdown removes."""

    is_open = False

    async def open(self) -> None:
        self.place.with_suffix(".lock").open("x").close()
        self.is_open = True

    async def close(self) -> None:
        if self.is_open:
            self.place.with_suffix(".lock").unlink(missing_ok=True)


async def make_sound(config: Any, deps: Deps) -> FileMemory:
    return await made_with_file(FileMemory)(config, deps)  # type: ignore[no-any-return]


async def make_caches(config: Any, deps: Deps) -> Caches:
    return await made_with_file(Caches)(config, deps)  # type: ignore[no-any-return]


async def make_batches(config: Any, deps: Deps) -> WritesInBatches:
    return await made_with_file(WritesInBatches)(config, deps)  # type: ignore[no-any-return]


async def make_locks(config: Any, deps: Deps) -> DoesNotRecover:
    return await made_with_file(DoesNotRecover)(config, deps)  # type: ignore[no-any-return]


SOUND, CACHES, BATCHES, LOCKS = (_spec(name) for name in ("sound", "caches", "batches", "locks"))
