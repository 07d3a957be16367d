"""Agents: conversations in turns, with tools, memory and shields."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from llamastack.api.base import WireModel
from llamastack.api.common import (
    URL,
    CompletionMessage,
    InterleavedTextMedia,
    SamplingParams,
    ToolCall,
    ToolChoice,
    ToolParamDefinition,
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

    content: InterleavedTextMedia
    mime_type: str


class RestAPIMethod(StrEnum):
    GET = "GET"
    POST = "POST"
    PUT = "PUT"
    DELETE = "DELETE"


class RestAPIExecutionConfig(WireModel):
    url: URL
    method: RestAPIMethod
    params: dict[str, Any] | None = None
    headers: dict[str, Any] | None = None
    body: dict[str, Any] | None = None


class _ToolDefinitionCommon(WireModel):
    input_shields: list[str] | None = None
    output_shields: list[str] | None = None


class _RemoteToolDefinition(_ToolDefinitionCommon):
    remote_execution: RestAPIExecutionConfig | None = None


class SearchEngineType(StrEnum):
    bing = "bing"
    brave = "brave"


class SearchToolDefinition(_RemoteToolDefinition):
    type: Literal["brave_search"] = "brave_search"
    api_key: str = Field(repr=False)
    engine: SearchEngineType = SearchEngineType.brave


class WolframAlphaToolDefinition(_RemoteToolDefinition):
    type: Literal["wolfram_alpha"] = "wolfram_alpha"
    api_key: str = Field(repr=False)


class PhotogenToolDefinition(_RemoteToolDefinition):
    type: Literal["photogen"] = "photogen"


class CodeInterpreterToolDefinition(_RemoteToolDefinition):
    type: Literal["code_interpreter"] = "code_interpreter"
    enable_inline_code_execution: bool = True


class FunctionCallToolDefinition(_RemoteToolDefinition):
    type: Literal["function_call"] = "function_call"
    function_name: str
    description: str
    parameters: dict[str, ToolParamDefinition]


class VectorBankConfig(WireModel):
    type: Literal["vector"] = "vector"
    bank_id: str


class KeyValueBankConfig(WireModel):
    type: Literal["keyvalue"] = "keyvalue"
    bank_id: str
    keys: list[str]


class KeywordBankConfig(WireModel):
    type: Literal["keyword"] = "keyword"
    bank_id: str


class GraphBankConfig(WireModel):
    type: Literal["graph"] = "graph"
    bank_id: str
    entities: list[str]


BankConfig = Annotated[
    VectorBankConfig | KeyValueBankConfig | KeywordBankConfig | GraphBankConfig, Field(discriminator="type")
]


class DefaultQueryGeneratorConfig(WireModel):
    """Join the messages with `sep`."""

    type: Literal["default"] = "default"
    sep: str = " "


class LLMQueryGeneratorConfig(WireModel):
    """Let `model` write the query from `template`."""

    type: Literal["llm"] = "llm"
    model: str
    template: str


class CustomQueryGeneratorConfig(WireModel):
    type: Literal["custom"] = "custom"


QueryGeneratorConfig = Annotated[
    DefaultQueryGeneratorConfig | LLMQueryGeneratorConfig | CustomQueryGeneratorConfig, Field(discriminator="type")
]


class MemoryToolDefinition(_ToolDefinitionCommon):
    type: Literal["memory"] = "memory"
    memory_bank_configs: list[BankConfig]
    query_generator_config: QueryGeneratorConfig = Field(default_factory=DefaultQueryGeneratorConfig)
    max_tokens_in_context: Annotated[int, Field(gt=0)] = 4096
    max_chunks: Annotated[int, Field(gt=0)] = 10


AgentToolDefinition = Annotated[
    SearchToolDefinition
    | WolframAlphaToolDefinition
    | PhotogenToolDefinition
    | CodeInterpreterToolDefinition
    | FunctionCallToolDefinition
    | MemoryToolDefinition,
    Field(discriminator="type"),
]


class AgentConfig(WireModel):
    model: str
    instructions: str
    enable_session_persistence: bool
    max_infer_iters: Annotated[int, Field(gt=0)] = 10
    """The most inference steps in one turn."""
    sampling_params: SamplingParams | None = None
    tools: list[AgentToolDefinition] | None = None
    tool_choice: ToolChoice = ToolChoice.auto
    tool_prompt_format: ToolPromptFormat = ToolPromptFormat.json
    input_shields: list[str] | None = None
    output_shields: list[str] | None = None


class StepType(StrEnum):
    inference = "inference"
    tool_execution = "tool_execution"
    shield_call = "shield_call"
    memory_retrieval = "memory_retrieval"


class _Step(WireModel):
    turn_id: str
    step_id: str
    started_at: datetime | None = None
    completed_at: datetime | None = None


class InferenceStep(_Step):
    step_type: Literal["inference"] = "inference"
    model_response: CompletionMessage


class ToolExecutionStep(_Step):
    step_type: Literal["tool_execution"] = "tool_execution"
    tool_calls: list[ToolCall]
    tool_responses: list[ToolResponse]


class ShieldCallStep(_Step):
    step_type: Literal["shield_call"] = "shield_call"
    violation: SafetyViolation | None = None


class MemoryRetrievalStep(_Step):
    step_type: Literal["memory_retrieval"] = "memory_retrieval"
    memory_bank_ids: list[str]
    inserted_context: InterleavedTextMedia


Step = Annotated[
    InferenceStep | ToolExecutionStep | ShieldCallStep | MemoryRetrievalStep, Field(discriminator="step_type")
]

TurnMessage = Annotated[UserMessage | ToolResponseMessage, Field(discriminator="role")]


class Turn(WireModel):
    """One turn: what came in, the steps, what came out."""

    turn_id: str
    session_id: str
    input_messages: list[TurnMessage]
    steps: list[Step]
    output_message: CompletionMessage
    output_attachments: list[Attachment] = Field(default_factory=list)
    started_at: datetime
    completed_at: datetime | None = None


class Session(WireModel):
    """One conversation with an agent."""

    session_id: str
    session_name: str
    turns: list[Turn]
    started_at: datetime
    memory_bank: MemoryBank | None = None


class AgentTurnResponseStepStartPayload(WireModel):
    event_type: Literal["step_start"] = "step_start"
    step_type: StepType
    step_id: str
    metadata: dict[str, Any] | None = None


class AgentTurnResponseStepProgressPayload(WireModel):
    event_type: Literal["step_progress"] = "step_progress"
    step_type: StepType
    step_id: str
    model_response_text_delta: str | None = None
    tool_call_delta: ToolCallDelta | None = None
    tool_response_text_delta: str | None = None


class AgentTurnResponseStepCompletePayload(WireModel):
    event_type: Literal["step_complete"] = "step_complete"
    step_type: StepType
    step_details: Step


class AgentTurnResponseTurnStartPayload(WireModel):
    event_type: Literal["turn_start"] = "turn_start"
    turn_id: str


class AgentTurnResponseTurnCompletePayload(WireModel):
    event_type: Literal["turn_complete"] = "turn_complete"
    turn: Turn


class AgentTurnResponseEvent(WireModel):
    payload: Annotated[
        AgentTurnResponseStepStartPayload
        | AgentTurnResponseStepProgressPayload
        | AgentTurnResponseStepCompletePayload
        | AgentTurnResponseTurnStartPayload
        | AgentTurnResponseTurnCompletePayload,
        Field(discriminator="event_type"),
    ]


class AgentTurnResponseStreamChunk(WireModel):
    event: AgentTurnResponseEvent


class AgentCreateResponse(WireModel):
    agent_id: str


class AgentSessionCreateResponse(WireModel):
    session_id: str


class AgentStepResponse(WireModel):
    step: Step


class Agents(Protocol):
    """Create agents, hold sessions with them, turn by turn."""

    @webmethod("/agents/create", capability="create_agent")
    async def create_agent(self, agent_config: AgentConfig) -> AgentCreateResponse:
        """Create an agent."""
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
        """Take the next turn. With `stream`, an iterator of events, the last of which has the whole turn."""
        raise not_served()

    @webmethod("/agents/turn/get", methods=("GET", "POST"), capability="get_turn")
    async def get_agent_turn(self, agent_id: str, turn_id: str, session_id: str | None = None) -> Turn:
        """One turn."""
        raise not_served()

    @webmethod("/agents/step/get", methods=("GET", "POST"), capability="get_step")
    async def get_agent_step(
        self, agent_id: str, turn_id: str, step_id: str, session_id: str | None = None
    ) -> AgentStepResponse:
        """One step of a turn."""
        raise not_served()

    @webmethod("/agents/session/create", capability="create_session")
    async def create_agent_session(self, agent_id: str, session_name: str) -> AgentSessionCreateResponse:
        """Begin a session."""
        raise not_served()

    @webmethod("/agents/session/get", methods=("POST", "GET"), capability="get_session")
    async def get_agent_session(self, agent_id: str, session_id: str, turn_ids: list[str] | None = None) -> Session:
        """A session with its turns, or with those of `turn_ids` alone."""
        raise not_served()

    @webmethod("/agents/session/delete", capability="delete_session")
    async def delete_agent_session(self, agent_id: str, session_id: str) -> None:
        """Delete a session with its turns."""
        raise not_served()

    @webmethod("/agents/delete", capability="delete_agent")
    async def delete_agent(self, agent_id: str) -> None:
        """Delete an agent with its sessions."""
        raise not_served()
