"""Agents that answer each turn with one inference call, without tools or shields."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
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

_TRANSIENT_S = 3600.0
"""How long a session of an agent without `enable_session_persistence` is kept after its last turn."""
_PAGE = 10


class SampleAgents(Agents):
    """Agents and sessions are in the stack's store: they survive a restart, and every worker finds them."""

    def __init__(self, config: SampleAgentsConfig, deps: Deps) -> None:
        self._inference: Inference = deps["inference"]
        self._kept_s = config.session_idle_s
        self._agents = deps.kv("agents", AgentConfig)
        self._sessions = deps.kv("sessions", Session)

    async def create_agent(self, agent_config: AgentConfig, provider_id: str | None = None) -> AgentCreateResponse:
        for name in ("tools", "input_shields", "output_shields"):
            if getattr(agent_config, name):
                raise NotSupportedError(f"sample agents have no {name}", param=f"agent_config.{name}")
        agent_id = str(uuid.uuid4())
        await self._agents.set(agent_id, agent_config)
        return AgentCreateResponse(agent_id=agent_id)

    async def create_agent_session(self, agent_id: str, session_name: str) -> AgentSessionCreateResponse:
        agent = await self._agent(agent_id)
        session = Session(
            session_id=str(uuid.uuid4()), session_name=session_name, turns=[], started_at=datetime.now(UTC)
        )
        key = _key(agent_id, session.session_id)
        await self._sessions.set(key, session, expires_in_s=self._lasts_s(agent))
        if await self._agents.get(agent_id) is None:  # deleted meanwhile, perhaps before this session could be found
            await self._sessions.delete(key)
            raise _no_agent(agent_id)
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
        agent, session = await self._agent(agent_id), await self._session(agent_id, session_id)
        events = self._take_turn(agent_id, agent, session, messages)
        if stream:
            return events
        async with closing(events):
            async for chunk in events:
                payload = chunk.event.payload
                if isinstance(payload, AgentTurnResponseTurnCompletePayload):
                    return payload.turn
        raise RuntimeError("a turn ended without its last event")

    async def _take_turn(
        self, agent_id: str, agent: AgentConfig, session: Session, messages: list[TurnMessage]
    ) -> AsyncIterator[AgentTurnResponseStreamChunk]:
        turn_id, step_id, started_at = str(uuid.uuid4()), str(uuid.uuid4()), datetime.now(UTC)
        yield _chunk(AgentTurnResponseTurnStartPayload(turn_id=turn_id))
        yield _chunk(AgentTurnResponseStepStartPayload(step_type=StepType.inference, step_id=step_id))
        history: list[Message] = [SystemMessage(content=agent.instructions)]
        for turn in session.turns:
            history += [*turn.input_messages, turn.output_message]
        text, reason = "", StopReason.end_of_turn
        reply = await self._inference.chat_completion(
            model=agent.model,
            messages=[*history, *messages],
            sampling_params=agent.sampling_params,
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
        await self._add_turn(agent_id, agent, turn)
        yield _chunk(AgentTurnResponseTurnCompletePayload(turn=turn))

    async def _add_turn(self, agent_id: str, agent: AgentConfig, turn: Turn) -> None:
        def with_turn(session: Session | None) -> Session | None:
            return None if session is None else session.model_copy(update={"turns": [*session.turns, turn]})

        key = _key(agent_id, turn.session_id)
        if await self._sessions.update(key, with_turn, expires_in_s=self._lasts_s(agent)) is None:
            raise _no_session(agent_id, turn.session_id)  # deleted during the turn

    async def get_agent_turn(self, agent_id: str, turn_id: str, session_id: str | None = None) -> Turn:
        await self._agent(agent_id)
        async for session in self._sessions_of(agent_id, session_id):
            for turn in session.turns:
                if turn.turn_id == turn_id:
                    return turn
        raise NotFoundError(f"agent '{agent_id}' has no turn '{turn_id}'", param="turn_id")

    async def _sessions_of(self, agent_id: str, session_id: str | None) -> AsyncIterator[Session]:
        """All sessions of an agent, or the one."""
        if session_id is not None:
            session = await self._sessions.get(_key(agent_id, session_id))
            if session is not None:
                yield session
            return
        after = ""
        while page := await self._sessions.scan(_key(agent_id, ""), after, limit=_PAGE):
            for entry in page:
                yield entry.value
            after = page[-1].key

    async def get_agent_step(
        self, agent_id: str, turn_id: str, step_id: str, session_id: str | None = None
    ) -> AgentStepResponse:
        turn = await self.get_agent_turn(agent_id, turn_id, session_id)
        for step in turn.steps:
            if step.step_id == step_id:
                return AgentStepResponse(step=step)
        raise NotFoundError(f"turn '{turn_id}' has no step '{step_id}'", param="step_id")

    async def get_agent_session(self, agent_id: str, session_id: str, turn_ids: list[str] | None = None) -> Session:
        await self._agent(agent_id)
        session = await self._session(agent_id, session_id)
        if turn_ids is None:
            return session
        return session.model_copy(update={"turns": [turn for turn in session.turns if turn.turn_id in turn_ids]})

    async def delete_agent_session(self, agent_id: str, session_id: str) -> None:
        await self._agent(agent_id)
        if not await self._sessions.delete(_key(agent_id, session_id)):
            raise _no_session(agent_id, session_id)

    async def delete_agent(self, agent_id: str) -> None:
        # The agent goes first, so that it gets no session after these. Sessions that an earlier call left go, too.
        found = await self._agents.delete(agent_id)
        while keys := await self._sessions.keys(_key(agent_id, ""), limit=_PAGE):
            for key in keys:
                await self._sessions.delete(key)
        if not found:
            raise _no_agent(agent_id)

    def _lasts_s(self, agent: AgentConfig) -> float | None:
        if agent.enable_session_persistence:
            return self._kept_s
        return _TRANSIENT_S if self._kept_s is None else min(_TRANSIENT_S, self._kept_s)

    async def _agent(self, agent_id: str) -> AgentConfig:
        agent = await self._agents.get(agent_id)
        if agent is None:
            raise _no_agent(agent_id)
        return agent

    async def _session(self, agent_id: str, session_id: str) -> Session:
        session = await self._sessions.get(_key(agent_id, session_id))
        if session is None:
            raise _no_session(agent_id, session_id)
        return session


def _key(agent_id: str, session_id: str) -> str:
    return f"{agent_id}/{session_id}"


def _no_agent(agent_id: str) -> NotFoundError:
    return NotFoundError(f"there is no agent '{agent_id}'", param="agent_id")


def _no_session(agent_id: str, session_id: str) -> NotFoundError:
    return NotFoundError(f"agent '{agent_id}' has no session '{session_id}'", param="session_id")


def _chunk(
    payload: AgentTurnResponseTurnStartPayload
    | AgentTurnResponseStepStartPayload
    | AgentTurnResponseStepProgressPayload
    | AgentTurnResponseStepCompletePayload
    | AgentTurnResponseTurnCompletePayload,
) -> AgentTurnResponseStreamChunk:
    return AgentTurnResponseStreamChunk(event=AgentTurnResponseEvent(payload=payload))


async def get_adapter_impl(config: SampleAgentsConfig, deps: Deps) -> SampleAgents:
    return SampleAgents(config, deps)
