"""Memory and safety providers that are each broken in what is there after a restart."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from breaking import breaker
from broken_others import forgetful, idle, unsafe

from llamastack.provider import ConflictError, Deps, InvalidRequestError, NotFoundError, UnsupportedShieldError
from llamastack_provider_sample import MEMORY
from llamastack_provider_sample.agents import SampleAgents
from llamastack_provider_sample.memory import SampleMemory
from llamastack_provider_sample.safety import SampleSafety


def replaying() -> bool:
    """Whether the stack registers again what was registered before."""
    return Deps(provider_id="any").replaying


class FileMemory(SampleMemory):
    """The sample provider with its banks in a file, which is read before and written at the end of every call."""

    place: Path
    started = False

    def read(self) -> None:
        self._kept = pickle.loads(self.place.read_bytes()) if self.place.exists() else {}

    def write(self) -> None:
        part = self.place.with_suffix(".part")
        part.write_bytes(pickle.dumps(self._kept))
        part.replace(self.place)  # in one step: the process may be killed at any time

    def write_once(self) -> None:
        """Write what the first reading has changed."""
        if not self.started:
            self.started = True
            self.write()

    def require(self, bank: Any) -> None:
        self.read()
        if bank.identifier not in self._kept:
            raise NotFoundError(f"no bank '{bank.identifier}'")

    async def list_banks(self) -> Any:
        self.read()
        return await super().list_banks()

    async def create_bank(self, bank: Any) -> None:
        self.read()
        await super().create_bank(bank)
        self.write()

    async def drop_bank(self, bank: Any) -> None:
        self.read()
        await super().drop_bank(bank)
        self.write()

    async def forget_memory_bank(self, memory_bank: Any) -> None:
        """The file is that of all workers: nothing is to be forgotten."""

    async def store(self, bank: Any, insert: Any) -> None:
        self.require(bank)
        await super().store(bank, insert)
        self.write()

    async def search(self, bank: Any, query: Any) -> Any:
        self.require(bank)
        return await super().search(bank, query)

    async def delete(self, bank: Any, document_ids: Any) -> None:
        self.require(bank)
        await super().delete(bank, document_ids)
        self.write()


def made_with_file(cls: type) -> Callable[..., Any]:
    async def make(config: Any, deps: Deps) -> Any:
        made = await MEMORY.load_factory()(config, deps)
        made.__class__ = cls
        made.place = deps.state_dir / "banks.pickle"
        return made

    make.__annotations__["return"] = cls
    return make


SHARED_MEMORY = replace(MEMORY, single_process=False)
kept = breaker(
    "memory", SHARED_MEMORY, made_with_file, settings={"objects": [{"identifier": "bank", "type": "keyword"}]}
)


# ---- what is kept ----------------------------------------------------------------------------------------------------


@kept("restart.content")
class EmptiesEveryBankAtTheStart(FileMemory):
    async def register_memory_bank(self, memory_bank: Any) -> None:
        if replaying():
            await self.drop_bank(memory_bank)
        await super().register_memory_bank(memory_bank)


@kept("restart.content")
class WritesNothing(FileMemory):
    def read(self) -> None:
        if not self._kept:
            super().read()

    def write(self) -> None:
        self.place.write_bytes(pickle.dumps({name: {} for name in self._kept}))


@kept("restart.content")
class LosesMetadataWhenItStarts(FileMemory):
    def read(self) -> None:
        super().read()
        for bank in self._kept.values() if not self.started else ():
            for chunks in bank.values():
                for each in chunks:
                    object.__setattr__(each.chunk, "metadata", None)
        self.write_once()


@idle("restart.content")
class RemembersSessionsOfItsProcess(SampleAgents):
    mine: set[str]

    async def create_agent_session(self, agent_id: str, session_name: str) -> Any:
        made = await super().create_agent_session(agent_id, session_name)
        self.mine = {*getattr(self, "mine", ()), made.session_id}
        return made

    async def get_agent_session(self, agent_id: str, session_id: str, turn_ids: Any = None) -> Any:
        if session_id not in getattr(self, "mine", ()):
            raise NotFoundError(f"no session '{session_id}'")
        return await super().get_agent_session(agent_id, session_id, turn_ids)


# ---- resources -------------------------------------------------------------------------------------------------------


@unsafe("restart.objects")
class RefusesWhatWasRegisteredBefore(SampleSafety):
    async def register_shield(self, shield: Any) -> None:
        if replaying():
            raise UnsupportedShieldError(shield.identifier)
        await super().register_shield(shield)


@unsafe("restart.objects")
class IgnoresWhatWasRegisteredBefore(SampleSafety):
    async def register_shield(self, shield: Any) -> None:
        if not replaying():
            await super().register_shield(shield)


@forgetful("restart.again")
class EmptiesTheBankWhenItIsRegisteredAgain(SampleMemory):
    async def register_memory_bank(self, memory_bank: Any) -> None:
        self._kept.pop(memory_bank.identifier, None)
        await super().register_memory_bank(memory_bank)


@unsafe("restart.again")
class ListsEachRegistration(SampleSafety):
    again = 0

    async def register_shield(self, shield: Any) -> None:
        self.again += shield.identifier in {each.identifier for each in await super().list_shields()}
        await super().register_shield(shield)

    async def list_shields(self) -> Any:
        listed = await super().list_shields()
        return [*listed, *listed[-1:] * self.again]


@kept("restart.new-registry")
class RefusesWhatTheBackendHas(FileMemory):
    async def register_memory_bank(self, memory_bank: Any) -> None:
        if not replaying() and await self.find_bank(memory_bank.identifier):
            raise ConflictError(f"there is a bank '{memory_bank.identifier}'")
        await super().register_memory_bank(memory_bank)


@kept("restart.new-registry")
class EmptiesWhatTheBackendHas(FileMemory):
    async def register_memory_bank(self, memory_bank: Any) -> None:
        if not replaying():
            await self.drop_bank(memory_bank)
        await super().register_memory_bank(memory_bank)


@kept("restart.unregistered")
class UnregistersInMemoryOnly(FileMemory):
    gone: frozenset[str] = frozenset()

    async def list_banks(self) -> Any:
        return [bank for bank in await super().list_banks() if bank.identifier not in self.gone]

    async def drop_bank(self, bank: Any) -> None:
        self.gone |= {bank.identifier}


# ---- other processes -------------------------------------------------------------------------------------------------


class Caches(FileMemory):
    """Reads its file when it starts, and writes it when it stops."""

    is_read = False

    def read(self) -> None:
        if not self.is_read:
            super().read()
            self.is_read = True

    def write(self) -> None:
        return

    async def close(self) -> None:
        super().write()


@kept("restart.stored")
class WritesAtTheEnd(Caches): ...


@kept("restart.behind-its-back")
class AnswersAsIfEmpty(FileMemory):
    async def search(self, bank: Any, query: Any) -> Any:
        try:
            return await super().search(bank, query)
        except NotFoundError:
            return []


@kept("restart.behind-its-back")
class BlamesTheCaller(FileMemory):
    def require(self, bank: Any) -> None:
        self.read()
        if bank.identifier not in self._kept:
            raise InvalidRequestError("the bank cannot be read")


@kept("restart.behind-its-back")
class ListsWhatItHasSeen(FileMemory):
    """It neither notices that a bank is gone nor makes it again."""

    async def list_banks(self) -> Any:
        self.seen = {**getattr(self, "seen", {}), **{bank.identifier: bank for bank in await super().list_banks()}}
        return list(self.seen.values())


# ---- documents -------------------------------------------------------------------------------------------------------


@kept("restart.documents")
class LosesTheTtlWhenItStarts(FileMemory):
    def read(self) -> None:
        super().read()
        for bank in self._kept.values() if not self.started else ():
            for chunks in bank.values():
                for each in chunks:
                    object.__setattr__(each, "expires_at", None)
        self.write_once()


@kept("restart.documents")
class KeepsFlatMetadata(FileMemory):
    async def store(self, bank: Any, insert: Any) -> None:
        for chunk in insert.chunks:
            flat = {name: str(value) for name, value in (chunk.metadata or {}).items()}
            object.__setattr__(chunk, "metadata", flat)
        await super().store(bank, insert)


@kept("restart.documents")
class DeletesInMemoryOnly(FileMemory):
    gone: frozenset[str] = frozenset()

    async def delete(self, bank: Any, document_ids: Any) -> None:
        self.gone |= {*document_ids}

    async def search(self, bank: Any, query: Any) -> Any:
        return [each for each in await super().search(bank, query) if each.chunk.document_id not in self.gone]


@kept("restart.other-definition")
class TakesAnyType(FileMemory):
    async def register_memory_bank(self, memory_bank: Any) -> None:
        if await self.find_bank(memory_bank.identifier) is None:
            await super().register_memory_bank(memory_bank)


@kept("restart.forgotten")
class RemovesWhatItForgets(FileMemory):
    async def forget_memory_bank(self, memory_bank: Any) -> None:
        await self.unregister_memory_bank(memory_bank)
