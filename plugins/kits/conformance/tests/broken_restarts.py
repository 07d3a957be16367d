"""Memory and safety providers that are each broken in what is there after a restart."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from breaking import breaker
from broken_others import forgetful, idle, unsafe

from llamastack.provider import ConflictError, Deps, NotFoundError, UnsupportedShieldError
from llamastack_provider_sample import MEMORY
from llamastack_provider_sample.agents import SampleAgents
from llamastack_provider_sample.memory import SampleMemory
from llamastack_provider_sample.safety import SampleSafety


def replaying() -> bool:
    """Whether the stack registers again what was registered before."""
    return Deps(provider_id="any").replaying


class FileMemory(SampleMemory):
    """The sample provider with its banks in a file, which is written before a call returns."""

    place: Path

    async def open(self) -> None:
        if self.place.exists():
            self._kept = pickle.loads(self.place.read_bytes())

    def write(self) -> None:
        self.place.write_bytes(pickle.dumps(self._kept))

    async def create_bank(self, bank: Any) -> None:
        await super().create_bank(bank)
        self.write()

    async def drop_bank(self, bank: Any) -> None:
        await super().drop_bank(bank)
        self.write()

    async def store(self, bank: Any, insert: Any) -> None:
        await super().store(bank, insert)
        self.write()

    async def delete(self, bank: Any, document_ids: Any) -> None:
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


kept = breaker("memory", MEMORY, made_with_file, settings={"objects": [{"identifier": "bank", "type": "keyword"}]})


# ---- what is kept ----------------------------------------------------------------------------------------------------


@kept("restart.content")
class EmptiesEveryBankAtTheStart(FileMemory):
    async def register_memory_bank(self, memory_bank: Any) -> None:
        if replaying():
            self._kept.pop(memory_bank.identifier, None)
        await super().register_memory_bank(memory_bank)


@kept("restart.content")
class WritesNothing(FileMemory):
    def write(self) -> None:
        self.place.write_bytes(pickle.dumps({name: {} for name in self._kept}))


@kept("restart.content")
class LosesMetadataInTheFile(FileMemory):
    async def open(self) -> None:
        await super().open()
        for bank in self._kept.values():
            for chunks in bank.values():
                for each in chunks:
                    object.__setattr__(each.chunk, "metadata", None)


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
        if not replaying() and memory_bank.identifier in self._kept:
            raise ConflictError(f"there is a bank '{memory_bank.identifier}'")
        await super().register_memory_bank(memory_bank)


@kept("restart.new-registry")
class EmptiesWhatTheBackendHas(FileMemory):
    async def register_memory_bank(self, memory_bank: Any) -> None:
        if not replaying():
            self._kept.pop(memory_bank.identifier, None)
        await super().register_memory_bank(memory_bank)


@kept("restart.unregistered")
class UnregistersInMemoryOnly(FileMemory):
    async def drop_bank(self, bank: Any) -> None:
        self._kept.pop(bank.identifier, None)
