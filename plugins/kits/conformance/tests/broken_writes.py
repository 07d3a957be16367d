"""Providers that are each broken in one way when something cannot be written, or is not yet written."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from broken_others import idle
from broken_restarts import FileMemory, kept
from broken_telemetry import broken

from llamastack.api.agents import Turn
from llamastack.api.common import CompletionMessage, StopReason
from llamastack.provider import LlamaStackError
from llamastack_provider_meta_reference.telemetry.provider import MetaReferenceTelemetry
from llamastack_provider_sample.agents import SampleAgents
from llamastack_telemetry import FinishedSpan

# ---- telemetry -------------------------------------------------------------------------------------------------------


class _Swallows(MetaReferenceTelemetry):
    async def log_event(self, event: Any) -> None:
        try:
            await super().log_event(event)
        except LlamaStackError:
            return


@broken("log_event.refused-or-kept")
class SwallowsRefusals(_Swallows): ...


@broken("failure.full-disk")
class SwallowsFailedWrites(_Swallows): ...


@broken("log_event.unread")
class BuffersUntilTheNextRead(MetaReferenceTelemetry):
    waiting: tuple[Any, ...] = ()

    async def log_event(self, event: Any) -> None:
        self.waiting = (*self.waiting, event)

    async def get_trace(self, trace_id: str) -> Any:
        waiting, self.waiting = self.waiting, ()
        for event in waiting:
            await super().log_event(event)
        return await super().get_trace(trace_id)


@broken("export_spans.full-disk")
class SwallowsFailedBatches(MetaReferenceTelemetry):
    async def export_spans(self, spans: Sequence[FinishedSpan]) -> None:
        try:
            await super().export_spans(spans)
        except LlamaStackError:
            return


@broken("export_spans.once")
class KeepsABatchThatComesAgain(MetaReferenceTelemetry):
    last: Any = None

    async def export_spans(self, spans: Sequence[FinishedSpan]) -> None:
        again = spans is self.last
        self.last = spans
        await super().export_spans([replace(s, span_id=f"{s.span_id[:-1]}x") for s in spans] if again else spans)


# ---- memory ----------------------------------------------------------------------------------------------------------


@kept("failure.full-disk")
class IgnoresAFullDisk(FileMemory):
    def write(self) -> None:
        try:
            super().write()
        except OSError:
            return


# ---- agents ----------------------------------------------------------------------------------------------------------


@idle("failure.full-disk")
class AnswersWithoutTheStore(SampleAgents):
    """What cannot be stored is kept here, until it is stored or the process ends."""

    async def create_agent(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().create_agent(*args, **kwargs)
        except LlamaStackError:
            return (await self._nothing()).model_copy(update={"agent_id": str(uuid.uuid4())})

    async def _nothing(self) -> Any:
        from llamastack.api.agents import AgentCreateResponse

        return AgentCreateResponse(agent_id="")

    async def create_agent_session(self, agent_id: str, session_name: str) -> Any:
        from llamastack.api.agents import AgentSessionCreateResponse

        try:
            return await super().create_agent_session(agent_id, session_name)
        except LlamaStackError:
            return AgentSessionCreateResponse(session_id=str(uuid.uuid4()))

    async def create_agent_turn(self, agent_id: str, session_id: str, messages: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().create_agent_turn(agent_id, session_id, messages, *args, **kwargs)
        except LlamaStackError:
            return _empty_turn(session_id, messages, datetime.now(UTC))


def _empty_turn(session_id: str, messages: Any, ended: datetime | None = None) -> Turn:
    message = CompletionMessage(content="", stop_reason=StopReason.end_of_turn)
    return Turn(
        turn_id=str(uuid.uuid4()),
        session_id=session_id,
        input_messages=messages,
        steps=[],
        output_message=message,
        started_at=datetime.now(UTC),
        completed_at=ended,
    )


@idle("create_turn.model-fails")
class GoesOnFromAFailedTurn(SampleAgents):
    async def _take_turn(self, agent_id: str, agent: Any, session: Any, messages: Any) -> AsyncIterator[Any]:
        try:
            async for piece in super()._take_turn(agent_id, agent, session, messages):
                yield piece
        except LlamaStackError:
            await self._add_turn(agent_id, agent, _empty_turn(session.session_id, messages))
            raise


@idle("get_turn.many-sessions")
class LooksInTheFirstPage(SampleAgents):
    async def _sessions_of(self, agent_id: str, session_id: str | None) -> AsyncIterator[Any]:
        count = 0
        async for session in super()._sessions_of(agent_id, session_id):
            count += 1
            if count > 10:
                return
            yield session


@idle("delete_session.during-turn")
class WritesADeletedSessionAgain(SampleAgents):
    async def _take_turn(self, agent_id: str, agent: Any, session: Any, messages: Any) -> AsyncIterator[Any]:
        async for piece in super()._take_turn(agent_id, agent, session, messages):
            if piece.event.payload.event_type == "step_complete":
                await self._sessions.set(f"{agent_id}/{session.session_id}", session)
            yield piece
