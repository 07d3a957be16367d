"""Agents providers that are each broken in one way: in streams, or in what they make of replies and errors."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

from broken_others import idle

from llamastack.api.common import StopReason
from llamastack.provider.errors import BackendError, LlamaStackError
from llamastack.provider.streams import closing
from llamastack_provider_sample.agents import SampleAgents


class _Events(SampleAgents):
    """It changes the payloads of events."""

    def changed(self, payload: Any) -> None:
        raise NotImplementedError

    async def _take_turn(self, *args: Any) -> AsyncIterator[Any]:
        events = super()._take_turn(*args)
        async with closing(events):
            async for event in events:
                self.changed(event.event.payload)
                yield event


@idle("streaming.text")
class StreamsAllSoFar(_Events):
    so_far = ""

    def changed(self, payload: Any) -> None:
        if payload.event_type == "step_start":
            self.so_far = ""
        if payload.event_type == "step_progress":
            self.so_far += payload.model_response_text_delta
            payload.model_response_text_delta = self.so_far


@idle("streaming.text")
class StripsPieces(_Events):
    def changed(self, payload: Any) -> None:
        if payload.event_type == "step_progress":
            payload.model_response_text_delta = payload.model_response_text_delta.strip()


@idle("streaming.ids")
class StartsUnderAnotherId(_Events):
    def changed(self, payload: Any) -> None:
        if payload.event_type == "turn_start":
            payload.turn_id = str(uuid.uuid4())


@idle("streaming.ids")
class NamesEachPiece(_Events):
    def changed(self, payload: Any) -> None:
        if payload.event_type == "step_progress":
            payload.step_id = str(uuid.uuid4())


class _Models(SampleAgents):
    """It changes what its model answers."""

    def _take_turn(self, *args: Any) -> Any:
        if not isinstance(self._inference, _Between):
            self._inference = _Between(self._inference, self)  # type: ignore[assignment]
        return super()._take_turn(*args)

    async def pieces(self, reply: Any) -> AsyncIterator[Any]:
        async with closing(reply):
            async for piece in reply:
                yield piece


class _Between:
    def __init__(self, inference: Any, by: _Models) -> None:
        self._inference = inference
        self._by = by

    async def chat_completion(self, **arguments: Any) -> Any:
        return self._by.pieces(await self._inference.chat_completion(**arguments))


@idle("streaming.closed")
class LeavesTheModelTalking(_Models):
    left: tuple[Any, ...] = ()

    async def pieces(self, reply: Any) -> AsyncIterator[Any]:
        self.left = (*self.left, reply)
        async for piece in reply:
            yield piece


@idle("create_turn.model-fails")
class AnswersNothingForAnError(_Models):
    async def pieces(self, reply: Any) -> AsyncIterator[Any]:
        try:
            async with closing(reply):
                async for piece in reply:
                    yield piece
        except LlamaStackError:
            return


@idle("create_turn.model-fails")
class HasItsOwnError(_Models):
    async def pieces(self, reply: Any) -> AsyncIterator[Any]:
        try:
            async with closing(reply):
                async for piece in reply:
                    yield piece
        except LlamaStackError:
            raise BackendError("the agent has failed") from None


@idle("create_turn.stop-reason")
class AlwaysEndsItsTurn(_Models):
    async def pieces(self, reply: Any) -> AsyncIterator[Any]:
        async with closing(reply):
            async for piece in reply:
                if piece.event.stop_reason:
                    piece.event.stop_reason = StopReason.end_of_turn
                yield piece


@idle("create_turn.text")
class StripsWhatIsSaid(SampleAgents):
    def _take_turn(self, agent_id: str, agent: Any, session: Any, messages: Any) -> Any:
        stripped = [message.model_copy(update={"content": message.content.strip()}) for message in messages]
        return super()._take_turn(agent_id, agent, session, stripped)


@idle("create_turn.text")
class NamesEverySessionAlike(SampleAgents):
    async def create_agent_session(self, agent_id: str, session_name: str) -> Any:
        return await super().create_agent_session(agent_id, "session")


@idle("create_agent.tools")
class IgnoresTools(SampleAgents):
    async def create_agent(self, agent_config: Any, provider_id: str | None = None) -> Any:
        return await super().create_agent(agent_config.model_copy(update={"tools": None}))


@idle("create_agent.tools")
class IgnoresShields(SampleAgents):
    async def create_agent(self, agent_config: Any, provider_id: str | None = None) -> Any:
        fewer = {"input_shields": None, "output_shields": None}
        return await super().create_agent(agent_config.model_copy(update=fewer))


@idle("create_turn.attachments")
class IgnoresAttachments(SampleAgents):
    async def create_agent_turn(
        self, agent_id: str, session_id: str, messages: Any, attachments: Any = None, stream: Any = None
    ) -> Any:
        return await super().create_agent_turn(agent_id, session_id, messages, None, stream)
