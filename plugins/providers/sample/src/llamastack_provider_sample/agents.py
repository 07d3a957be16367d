"""Agents that answer each turn with one inference call, without tools or shields."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from llamastack.api.agents import (
    AgentConfig,
    AgentCreateResponse,
    Agents,
    AgentSessionCreateResponse,
    AgentStepResponse,
    AgentTurnResponseEvent,
    AgentTurnResponseStepCompletePayload,
    AgentTurnResponseStepProgressPayload,
    AgentTurnResponseStepStartPayload,
    AgentTurnResponseStreamChunk,
    AgentTurnResponseTurnCompletePayload,
    AgentTurnResponseTurnStartPayload,
    Attachment,
    InferenceStep,
    Session,
    StepType,
    Turn,
    TurnMessage,
)
from llamastack.api.common import CompletionMessage, Message, StopReason, SystemMessage
from llamastack.api.inference import ChatCompletionResponseEventType, Inference
from llamastack.provider import Deps, NotFoundError, NotSupportedError
from llamastack.provider.streams import closing
from llamastack_provider_sample.config import SampleAgentsConfig


@dataclass(slots=True)
class _Agent:
    config: AgentConfig
    sessions: dict[str, Session] = field(default_factory=dict)


class SampleAgents(Agents):
    """Agents and sessions live in memory."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference
        self._agents: dict[str, _Agent] = {}

    async def create_agent(self, agent_config: AgentConfig) -> AgentCreateResponse:
        for name in ("tools", "input_shields", "output_shields"):
            if getattr(agent_config, name):
                raise NotSupportedError(f"sample agents have no {name}", param=f"agent_config.{name}")
        agent_id = str(uuid.uuid4())
        self._agents[agent_id] = _Agent(agent_config)
        return AgentCreateResponse(agent_id=agent_id)

    async def create_agent_session(self, agent_id: str, session_name: str) -> AgentSessionCreateResponse:
        session = Session(
            session_id=str(uuid.uuid4()), session_name=session_name, turns=[], started_at=datetime.now(UTC)
        )
        self._agent(agent_id).sessions[session.session_id] = session
        return AgentSessionCreateResponse(session_id=session.session_id)

    async def create_agent_turn(
        self,
        agent_id: str,
        session_id: str,
        messages: list[TurnMessage],
        attachments: list[Attachment] | None = None,
        stream: bool | None = None,
    ) -> Turn | AsyncIterator[AgentTurnResponseStreamChunk]:
        if attachments:
            raise NotSupportedError("sample agents take no attachments", param="attachments")
        agent, session = self._agent(agent_id), self._session(agent_id, session_id)
        events = self._take_turn(agent, session, messages)
        if stream:
            return events
        async with closing(events):
            async for chunk in events:
                payload = chunk.event.payload
                if isinstance(payload, AgentTurnResponseTurnCompletePayload):
                    return payload.turn
        raise RuntimeError("a turn ended without its last event")

    async def _take_turn(
        self, agent: _Agent, session: Session, messages: list[TurnMessage]
    ) -> AsyncIterator[AgentTurnResponseStreamChunk]:
        turn_id, step_id, started_at = str(uuid.uuid4()), str(uuid.uuid4()), datetime.now(UTC)
        yield _chunk(AgentTurnResponseTurnStartPayload(turn_id=turn_id))
        yield _chunk(AgentTurnResponseStepStartPayload(step_type=StepType.inference, step_id=step_id))
        history: list[Message] = [SystemMessage(content=agent.config.instructions)]
        for turn in session.turns:
            history += [*turn.input_messages, turn.output_message]
        text, reason = "", StopReason.end_of_turn
        reply = await self._inference.chat_completion(
            model=agent.config.model,
            messages=[*history, *messages],
            sampling_params=agent.config.sampling_params,
            stream=True,
        )
        if not isinstance(reply, AsyncIterator):
            raise TypeError("inference did not stream")
        async with closing(reply):
            async for chunk in reply:
                event = chunk.event
                if event.event_type is ChatCompletionResponseEventType.progress and isinstance(event.delta, str):
                    text += event.delta
                    yield _chunk(
                        AgentTurnResponseStepProgressPayload(
                            step_type=StepType.inference, step_id=step_id, model_response_text_delta=event.delta
                        )
                    )
                reason = event.stop_reason or reason
        message = CompletionMessage(content=text, stop_reason=reason)
        now = datetime.now(UTC)
        step = InferenceStep(
            turn_id=turn_id, step_id=step_id, started_at=started_at, completed_at=now, model_response=message
        )
        yield _chunk(AgentTurnResponseStepCompletePayload(step_type=StepType.inference, step_details=step))
        turn = Turn(
            turn_id=turn_id,
            session_id=session.session_id,
            input_messages=messages,
            steps=[step],
            output_message=message,
            started_at=started_at,
            completed_at=now,
        )
        session.turns.append(turn)
        yield _chunk(AgentTurnResponseTurnCompletePayload(turn=turn))

    async def get_agent_turn(self, agent_id: str, turn_id: str, session_id: str | None = None) -> Turn:
        for session in self._agent(agent_id).sessions.values():
            for turn in session.turns:
                if turn.turn_id == turn_id and session_id in (None, session.session_id):
                    return turn
        raise NotFoundError(f"agent '{agent_id}' has no turn '{turn_id}'", param="turn_id")

    async def get_agent_step(
        self, agent_id: str, turn_id: str, step_id: str, session_id: str | None = None
    ) -> AgentStepResponse:
        turn = await self.get_agent_turn(agent_id, turn_id, session_id)
        for step in turn.steps:
            if step.step_id == step_id:
                return AgentStepResponse(step=step)
        raise NotFoundError(f"turn '{turn_id}' has no step '{step_id}'", param="step_id")

    async def get_agent_session(self, agent_id: str, session_id: str, turn_ids: list[str] | None = None) -> Session:
        session = self._session(agent_id, session_id)
        if turn_ids is None:
            return session
        return session.model_copy(update={"turns": [turn for turn in session.turns if turn.turn_id in turn_ids]})

    async def delete_agent_session(self, agent_id: str, session_id: str) -> None:
        self._session(agent_id, session_id)
        del self._agent(agent_id).sessions[session_id]

    async def delete_agent(self, agent_id: str) -> None:
        self._agent(agent_id)
        del self._agents[agent_id]

    def _agent(self, agent_id: str) -> _Agent:
        agent = self._agents.get(agent_id)
        if agent is None:
            raise NotFoundError(f"there is no agent '{agent_id}'", param="agent_id")
        return agent

    def _session(self, agent_id: str, session_id: str) -> Session:
        session = self._agent(agent_id).sessions.get(session_id)
        if session is None:
            raise NotFoundError(f"agent '{agent_id}' has no session '{session_id}'", param="session_id")
        return session


def _chunk(
    payload: AgentTurnResponseTurnStartPayload
    | AgentTurnResponseStepStartPayload
    | AgentTurnResponseStepProgressPayload
    | AgentTurnResponseStepCompletePayload
    | AgentTurnResponseTurnCompletePayload,
) -> AgentTurnResponseStreamChunk:
    return AgentTurnResponseStreamChunk(event=AgentTurnResponseEvent(payload=payload))


async def get_adapter_impl(config: SampleAgentsConfig, deps: Deps) -> SampleAgents:
    return SampleAgents(deps["inference"])
