"""Agents: conversations in turns, with tools, memory and shields."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, Protocol

from pydantic import Field

from llamastack.api.agent_tools import AgentToolDefinition
from llamastack.api.base import JsonObject, WireModel
from llamastack.api.common import (
    CompletionMessage,
    DocumentContent,
    InterleavedTextMedia,
    SamplingParams,
    ToolCall,
    ToolChoice,
    ToolPromptFormat,
    ToolResponse,
    ToolResponseMessage,
    UserMessage,
)
from llamastack.api.inference import ToolCallDelta
from llamastack.api.memory_banks import MemoryBank
from llamastack.api.safety import SafetyViolation
from llamastack.api.webmethod import not_served, webmethod


class Attachment(WireModel):
    """Something handed over with a message: content itself, or a URL of it."""

    content: DocumentContent
    """The content itself, or where it is: a URL as plain text, or as `{"uri": ...}`."""
    mime_type: str
    """Its media type, such as `text/plain`."""


class AgentConfig(WireModel):
    """What an agent is."""

    model: str
    """The model that it asks."""
    instructions: str
    """The system message of every turn."""
    enable_session_persistence: bool
    """Whether its sessions are to outlive the provider's process."""
    max_infer_iters: Annotated[int, Field(gt=0)] = 10
    """The most inference steps in one turn."""
    sampling_params: SamplingParams | None = None
    """How its model chooses tokens."""
    tools: list[AgentToolDefinition] | None = None
    """What it may use."""
    tool_choice: ToolChoice = ToolChoice.auto
    """Whether its model may call a tool, or must."""
    tool_prompt_format: ToolPromptFormat = ToolPromptFormat.json
    """How tool calls are written in the prompt."""
    input_shields: list[str] | None = None
    """Shields to run over what the user says."""
    output_shields: list[str] | None = None
    """Shields to run over what the agent says."""


class StepType(StrEnum):
    """What is done in a step."""

    inference = "inference"
    tool_execution = "tool_execution"
    shield_call = "shield_call"
    memory_retrieval = "memory_retrieval"


class _Step(WireModel):
    turn_id: str
    """The turn that it belongs to."""
    step_id: str
    """Its own id."""
    started_at: datetime | None = None
    """When it began."""
    completed_at: datetime | None = None
    """When it ended; None while it has not."""


class InferenceStep(_Step):
    """The model was asked."""

    step_type: Literal["inference"] = "inference"
    model_response: CompletionMessage
    """What it said."""


class ToolExecutionStep(_Step):
    """Tools were called."""

    step_type: Literal["tool_execution"] = "tool_execution"
    tool_calls: list[ToolCall]
    """The calls."""
    tool_responses: list[ToolResponse]
    """The answers, in the same order."""


class ShieldCallStep(_Step):
    """Shields were run."""

    step_type: Literal["shield_call"] = "shield_call"
    violation: SafetyViolation | None = None
    """What they found; None when the messages passed."""


class MemoryRetrievalStep(_Step):
    """Context was retrieved."""

    step_type: Literal["memory_retrieval"] = "memory_retrieval"
    memory_bank_ids: list[str]
    """The banks that were looked into."""
    inserted_context: InterleavedTextMedia
    """What was put into the prompt."""


Step = Annotated[
    InferenceStep | ToolExecutionStep | ShieldCallStep | MemoryRetrievalStep, Field(discriminator="step_type")
]
"""A step of any kind; `step_type` tells which."""

TurnMessage = Annotated[UserMessage | ToolResponseMessage, Field(discriminator="role")]
"""A message that a turn may begin with."""


class Turn(WireModel):
    """One turn: what came in, the steps, what came out."""

    turn_id: str
    """Its id."""
    session_id: str
    """The session that it belongs to."""
    input_messages: list[TurnMessage]
    """What came in."""
    steps: list[Step]
    """What was done, in order."""
    output_message: CompletionMessage
    """What came out."""
    output_attachments: list[Attachment] = Field(default_factory=list)
    """Files that came out, too."""
    started_at: datetime
    """When it began."""
    completed_at: datetime | None = None
    """When it ended; None while it has not."""


class Session(WireModel):
    """One conversation with an agent."""

    session_id: str
    """Its id."""
    session_name: str
    """For people."""
    turns: list[Turn]
    """Its turns, in order."""
    started_at: datetime
    """When it began."""
    memory_bank: MemoryBank | None = None
    """The bank that its attachments are kept in, where there is one."""


class AgentTurnResponseStepStartPayload(WireModel):
    """A step has begun."""

    event_type: Literal["step_start"] = "step_start"
    step_type: StepType
    """What is done in it."""
    step_id: str
    """Its id."""
    metadata: JsonObject | None = None
    """More about it; the provider says what."""


class AgentTurnResponseStepProgressPayload(WireModel):
    """A step goes on; one of the deltas is set."""

    event_type: Literal["step_progress"] = "step_progress"
    step_type: StepType
    """What is done in it."""
    step_id: str
    """Its id."""
    model_response_text_delta: str | None = None
    """More of what the model says."""
    tool_call_delta: ToolCallDelta | None = None
    """More of a tool call."""
    tool_response_text_delta: str | None = None
    """More of a tool's answer."""


class AgentTurnResponseStepCompletePayload(WireModel):
    """A step has ended."""

    event_type: Literal["step_complete"] = "step_complete"
    step_type: StepType
    """What was done in it."""
    step_details: Step
    """The whole step."""


class AgentTurnResponseTurnStartPayload(WireModel):
    """A turn has begun."""

    event_type: Literal["turn_start"] = "turn_start"
    turn_id: str
    """Its id."""


class AgentTurnResponseTurnCompletePayload(WireModel):
    """A turn has ended."""

    event_type: Literal["turn_complete"] = "turn_complete"
    turn: Turn
    """The whole turn."""


class AgentTurnResponseEvent(WireModel):
    """One event of a streamed turn: turn_start, then for each step step_start, step_progress... and step_complete, then
    turn_complete.

    """

    payload: Annotated[
        AgentTurnResponseStepStartPayload
        | AgentTurnResponseStepProgressPayload
        | AgentTurnResponseStepCompletePayload
        | AgentTurnResponseTurnStartPayload
        | AgentTurnResponseTurnCompletePayload,
        Field(discriminator="event_type"),
    ]
    """What has happened."""


class AgentTurnResponseStreamChunk(WireModel):
    """A piece of a streamed turn."""

    event: AgentTurnResponseEvent
    """The event in it."""


class AgentCreateResponse(WireModel):
    """A new agent."""

    agent_id: str
    """The id that later calls use."""


class AgentSessionCreateResponse(WireModel):
    """A new session."""

    session_id: str
    """The id that later calls use."""


class AgentStepResponse(WireModel):
    """One step of a turn."""

    step: Step
    """The step."""


class Agents(Protocol):
    """Create agents, hold sessions with them, turn by turn."""

    @webmethod("/agents/create", creates="agent_id", capability="create_agent")
    async def create_agent(self, agent_config: AgentConfig, provider_id: str | None = None) -> AgentCreateResponse:
        """Create an agent, under an id that the provider chooses.

        provider_id: the provider that is to have it; where it is left out, the first one that is healthy.
        """
        raise not_served()

    @webmethod("/agents/turn/create", capability="create_turn", argument_capabilities={"stream": "streaming"})
    async def create_agent_turn(
        self,
        agent_id: str,
        session_id: str,
        messages: Annotated[list[TurnMessage], Field(min_length=1)],
        attachments: list[Attachment] | None = None,
        stream: bool | None = None,
    ) -> Turn | AsyncIterator[AgentTurnResponseStreamChunk]:
        """Take the next turn. With `stream`, an iterator of events, the last of which has the whole turn.

        messages: what comes in: from the user, or answers of tools that the turn before asked for.
        attachments: files and texts for the messages.

        A turn that fails is not kept as complete, and later turns go on without it: their model gets nothing of it. A
        session or an agent that is deleted during a turn stays deleted.

        Raises NotFoundError for an agent or a session that is not there.
        """
        raise not_served()

    @webmethod("/agents/turn/get", methods=("GET", "POST"), capability="get_turn")
    async def get_agent_turn(self, agent_id: str, turn_id: str, session_id: str | None = None) -> Turn:
        """One turn, looked for in all sessions of the agent where `session_id` is left out.

        Raises NotFoundError when it is not there.
        """
        raise not_served()

    @webmethod("/agents/step/get", methods=("GET", "POST"), capability="get_step")
    async def get_agent_step(
        self, agent_id: str, turn_id: str, step_id: str, session_id: str | None = None
    ) -> AgentStepResponse:
        """One step of a turn, looked for in all sessions of the agent where `session_id` is left out.

        Raises NotFoundError when it is not there.
        """
        raise not_served()

    @webmethod("/agents/session/create", capability="create_session")
    async def create_agent_session(self, agent_id: str, session_name: str) -> AgentSessionCreateResponse:
        """Begin a session. Raises NotFoundError for an agent that is not there."""
        raise not_served()

    @webmethod("/agents/session/get", methods=("POST", "GET"), capability="get_session")
    async def get_agent_session(self, agent_id: str, session_id: str, turn_ids: list[str] | None = None) -> Session:
        """A session with its turns, or with only those of `turn_ids`.

        Raises NotFoundError for an agent or a session that is not there.
        """
        raise not_served()

    @webmethod("/agents/session/delete", capability="delete_session")
    async def delete_agent_session(self, agent_id: str, session_id: str) -> None:
        """Delete a session with its turns. Raises NotFoundError when it is not there."""
        raise not_served()

    @webmethod("/agents/delete", capability="delete_agent")
    async def delete_agent(self, agent_id: str) -> None:
        """Delete an agent with its sessions. Raises NotFoundError when it is not there."""
        raise not_served()
