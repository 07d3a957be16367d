"""Safety, memory, telemetry and agents providers that are each broken in one way. They are the sample ones else."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
from breaking import breaker

from llamastack.api.agents import Turn
from llamastack.api.memory import QueryDocumentsResponse
from llamastack.api.safety import RunShieldResponse, SafetyViolation, ViolationLevel
from llamastack.api.telemetry import Trace
from llamastack.provider import Deps, ProviderSpec
from llamastack.provider.streams import closing
from llamastack_provider_sample import AGENTS, MEMORY, SAFETY, TELEMETRY
from llamastack_provider_sample.agents import SampleAgents
from llamastack_provider_sample.memory import SampleMemory
from llamastack_provider_sample.safety import SampleSafety
from llamastack_provider_sample.telemetry import SampleTelemetry

BANK = {"identifier": "bank", "type": "keyword"}
SHIELD = {"identifier": "own", "type": "words", "params": {"words": ["forbidden"]}}


def made_from(spec: ProviderSpec) -> Callable[[type], Callable[..., Any]]:
    def factory_of(cls: type) -> Callable[..., Any]:
        async def make(config: Any, deps: Deps) -> Any:
            made = await spec.load_factory()(config, deps)
            made.__class__ = cls
            return made

        make.__annotations__["return"] = cls
        return make

    return factory_of


SAMPLE_MODEL = {"inference": [{"provider_id": "s", "provider_type": "remote::sample"}]}
unsafe = breaker("safety", SAFETY, made_from(SAFETY), settings={"unsafe": "this is forbidden", "objects": [SHIELD]})
forgetful = breaker("memory", MEMORY, made_from(MEMORY), settings={"objects": [BANK]})
deaf = breaker("telemetry", TELEMETRY, made_from(TELEMETRY))
idle = breaker("agents", AGENTS, made_from(AGENTS), providers=SAMPLE_MODEL)

_VIOLATION = RunShieldResponse(violation=SafetyViolation(violation_level=ViolationLevel.error))

# ---- safety, and registration where it is supported ------------------------------------------------------------------


@unsafe("registration.works")
class ForgetsWhatItTook(SampleSafety):
    async def register_shield(self, shield: Any) -> None:
        return


@unsafe("unregister.works")
class NeverLetsGo(SampleSafety):
    async def unregister_shield(self, shield: Any) -> None:
        return


@unsafe("run_shield.passes")
class ObjectsToAll(SampleSafety):
    async def run_shield(self, shield_type: str, messages: Any, params: Any = None) -> Any:
        return _VIOLATION


@unsafe("run_shield.objects")
class ReadsTheLastMessageAlone(SampleSafety):
    async def run_shield(self, shield_type: str, messages: Any, params: Any = None) -> Any:
        return await super().run_shield(shield_type, messages[-1:], params)


@unsafe("run_shield.objects")
class MindsNothing(SampleSafety):
    async def run_shield(self, shield_type: str, messages: Any, params: Any = None) -> Any:
        return RunShieldResponse()


@unsafe("run_shield.each-its-own")
class JudgesTheLastOneToCome(SampleSafety):
    async def run_shield(self, shield_type: str, messages: Any, params: Any = None) -> Any:
        self.messages = messages
        await anyio.sleep(0.01)
        return await super().run_shield(shield_type, self.messages, params)


@unsafe("run_shield.refused", capabilities={"run_shield": "not implemented"})
class RunsWhatItHides(SampleSafety): ...


# ---- memory ----------------------------------------------------------------------------------------------------------


@forgetful("insert_documents.works")
class KeepsTheFirstOfAnId(SampleMemory):
    async def insert_documents(self, bank_id: str, documents: Any, ttl_seconds: int | None = None) -> None:
        known = self._kept.get(bank_id, {})
        await super().insert_documents(bank_id, [d for d in documents if d.document_id not in known])


@forgetful("insert_documents.works")
class StoresLater(SampleMemory):
    async def insert_documents(self, bank_id: str, documents: Any, ttl_seconds: int | None = None) -> None:
        return


@forgetful("insert_documents.data-url")
class TakesUrlsForText(SampleMemory):
    async def insert_documents(self, bank_id: str, documents: Any, ttl_seconds: int | None = None) -> None:
        as_text = [d.model_copy(update={"content": f" {d.content}"}) for d in documents]
        await super().insert_documents(bank_id, as_text, ttl_seconds)


@forgetful("insert_documents.all-or-none")
class StoresOneByOne(SampleMemory):
    async def insert_documents(self, bank_id: str, documents: Any, ttl_seconds: int | None = None) -> None:
        for document in documents:
            await super().insert_documents(bank_id, [document], ttl_seconds)


class _Requeries(SampleMemory):
    def again(self, found: QueryDocumentsResponse) -> Any:
        raise NotImplementedError

    async def query_documents(self, bank_id: str, query: Any, params: Any = None) -> Any:
        return self.again(await super().query_documents(bank_id, query, params))


@forgetful("query_documents.works")
class LosesMetadata(_Requeries):
    def again(self, found: QueryDocumentsResponse) -> Any:
        for chunk in found.chunks:
            chunk.metadata = None
        return found


@forgetful("query_documents.works")
class ScoresUpwards(_Requeries):
    def again(self, found: QueryDocumentsResponse) -> Any:
        return QueryDocumentsResponse(chunks=found.chunks, scores=[*found.scores, 2.0])


@forgetful("query_documents.works")
class FindsOtherThings(_Requeries):
    def again(self, found: QueryDocumentsResponse) -> Any:
        return QueryDocumentsResponse(chunks=[], scores=[])


@forgetful("query_documents.params")
class FindsAll(SampleMemory):
    async def query_documents(self, bank_id: str, query: Any, params: Any = None) -> Any:
        return await super().query_documents(bank_id, query, {"max_chunks": 20})


@forgetful("query_documents.params")
class TakesAnyNumber(SampleMemory):
    async def query_documents(self, bank_id: str, query: Any, params: Any = None) -> Any:
        most = (params or {}).get("max_chunks", 3)
        return await super().query_documents(bank_id, query, {"max_chunks": most if str(most) in "1234" else 3})


@forgetful("query_documents.other-bank")
class HasOneBankForAll(SampleMemory):
    async def register_memory_bank(self, memory_bank: Any) -> None:
        await super().register_memory_bank(memory_bank)
        self._kept[memory_bank.identifier] = next(iter(self._kept.values()))


@forgetful("delete_documents.works")
class DeletesNothing(SampleMemory):
    async def delete_documents(self, bank_id: str, document_ids: Any) -> None:
        return


@forgetful("delete_documents.works")
class DeletesAll(SampleMemory):
    async def delete_documents(self, bank_id: str, document_ids: Any) -> None:
        self._kept[bank_id].clear()


@forgetful("ttl.works")
class NeverExpires(SampleMemory):
    async def insert_documents(self, bank_id: str, documents: Any, ttl_seconds: int | None = None) -> None:
        await super().insert_documents(bank_id, documents)


@forgetful("unregister.documents")
class KeepsTheDocuments(SampleMemory):
    async def unregister_memory_bank(self, memory_bank: Any) -> None:
        self.kept_by_bank = {memory_bank.identifier: self._kept[memory_bank.identifier]}
        await super().unregister_memory_bank(memory_bank)

    async def register_memory_bank(self, memory_bank: Any) -> None:
        await super().register_memory_bank(memory_bank)
        self._kept.update(getattr(self, "kept_by_bank", {}))


@forgetful("stress.parallel-calls")
class AnswersTheLastToCome(SampleMemory):
    async def query_documents(self, bank_id: str, query: Any, params: Any = None) -> Any:
        self.query = query
        await anyio.sleep(0.01)
        return await super().query_documents(bank_id, self.query, params)


for _name in ("insert_documents", "query_documents", "delete_documents", "ttl"):

    @forgetful(f"{_name}.refused", capabilities={_name: "not implemented"})
    class HidesMemory(SampleMemory): ...


# ---- telemetry -------------------------------------------------------------------------------------------------------


@deaf("log_event.works")
class TakesLogLinesAlone(SampleTelemetry):
    async def log_event(self, event: Any) -> None:
        if event.type == "metric":
            raise NotImplementedError
        await super().log_event(event)


@deaf("get_trace.works")
class TakesTheLastSpanForTheRoot(SampleTelemetry):
    async def get_trace(self, trace_id: str) -> Trace:
        return (await super().get_trace(trace_id)).model_copy(update={"root_span_id": "child"})


@deaf("get_trace.works")
class LosesTheEnd(SampleTelemetry):
    async def get_trace(self, trace_id: str) -> Trace:
        return (await super().get_trace(trace_id)).model_copy(update={"end_time": None})


@deaf("get_trace.unknown")
class KnowsEveryTrace(SampleTelemetry):
    async def get_trace(self, trace_id: str) -> Trace:
        return next(iter(self._traces.values()), None) or Trace.model_construct(trace_id=trace_id)


for _name in ("log_event", "get_trace"):

    @deaf(f"{_name}.refused", capabilities={_name: "unsupported"})
    class HidesTelemetry(SampleTelemetry): ...


# ---- agents ----------------------------------------------------------------------------------------------------------


@idle("create_agent.works")
class HasOneAgent(SampleAgents):
    async def create_agent(self, agent_config: Any) -> Any:
        made = await super().create_agent(agent_config)
        return made.model_copy(update={"agent_id": "the-agent"})


@idle("create_session.works")
class HasSessionsOfNobody(SampleAgents):
    async def create_agent_session(self, agent_id: str, session_name: str) -> Any:
        from llamastack.api.agents import AgentSessionCreateResponse

        return AgentSessionCreateResponse(session_id=str(uuid.uuid4()))


class _Turns(SampleAgents):
    def again(self, turn: Turn) -> Turn:
        raise NotImplementedError

    async def create_agent_turn(self, *args: Any, **kwargs: Any) -> Any:
        made = await super().create_agent_turn(*args, **kwargs)
        return self.again(made) if isinstance(made, Turn) else made


@idle("create_turn.works")
class DoesNothing(_Turns):
    def again(self, turn: Turn) -> Turn:
        return turn.model_copy(update={"steps": []})


@idle("create_turn.works")
class NeverEnds(_Turns):
    def again(self, turn: Turn) -> Turn:
        return turn.model_copy(update={"completed_at": None})


@idle("create_turn.works")
class MixesUpSessions(_Turns):
    def again(self, turn: Turn) -> Turn:
        return turn.model_copy(update={"session_id": "another"})


@idle("streaming.order")
class StreamsStartsAlone(SampleAgents):
    async def create_agent_turn(self, *args: Any, **kwargs: Any) -> Any:
        made = await super().create_agent_turn(*args, **kwargs)
        return self._fewer(made) if isinstance(made, AsyncIterator) else made

    async def _fewer(self, pieces: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async with closing(pieces):
            async for piece in pieces:
                if piece.event.payload.event_type != "step_complete":
                    yield piece


@idle("get_turn.works")
class RemembersTurnsBadly(SampleAgents):
    async def get_agent_turn(self, *args: Any, **kwargs: Any) -> Any:
        turn = await super().get_agent_turn(*args, **kwargs)
        return turn.model_copy(update={"steps": []})


@idle("get_step.works")
class RemembersStepsBadly(SampleAgents):
    async def get_agent_step(self, *args: Any, **kwargs: Any) -> Any:
        found = await super().get_agent_step(*args, **kwargs)
        return found.model_copy(update={"step": found.step.model_copy(update={"step_id": "x"})})


@idle("get_session.works")
class TellsSessionsBackwards(SampleAgents):
    async def get_agent_session(self, *args: Any, **kwargs: Any) -> Any:
        session = await super().get_agent_session(*args, **kwargs)
        return session.model_copy(update={"turns": session.turns[::-1]})


@idle("delete_session.works")
class KeepsSessions(SampleAgents):
    async def delete_agent_session(self, *args: Any, **kwargs: Any) -> None:
        return


@idle("delete_agent.works")
class KeepsAgents(SampleAgents):
    async def delete_agent(self, *args: Any, **kwargs: Any) -> None:
        return


for _name in (
    "create_agent",
    "create_session",
    "create_turn",
    "streaming",
    "get_turn",
    "get_step",
    "get_session",
    "delete_session",
    "delete_agent",
):

    @idle(f"{_name}.refused", capabilities={_name: "unsupported"})
    class HidesAgents(SampleAgents): ...
