"""The APIs as callers see them, for type checkers: generated from the Protocols.

Written by `python -m llamastack_conformance.typed_calls`; change the Protocols and run it again.
"""

from __future__ import annotations

from typing import Literal, Protocol, overload

from llamastack.api.agents import (
    AgentConfig,
    AgentCreateResponse,
    AgentSessionCreateResponse,
    AgentStepResponse,
    AgentTurnResponseStreamChunk,
    Attachment,
    Session,
    Turn,
    TurnMessage,
)
from llamastack.api.base import JsonObject
from llamastack.api.common import (
    InterleavedTextMedia,
    Message,
    SamplingParams,
    ToolChoice,
    ToolDefinition,
    ToolPromptFormat,
)
from llamastack.api.inference import (
    ChatCompletionResponse,
    ChatCompletionResponseStreamChunk,
    CompletionResponse,
    CompletionResponseStreamChunk,
    EmbeddingsResponse,
    LogProbConfig,
    ResponseFormat,
)
from llamastack.api.inspect import HealthInfo, ProviderInfo, Readiness, RouteInfo
from llamastack.api.memory import MemoryBankDocument, QueryDocumentsResponse
from llamastack.api.memory_banks import MemoryBank
from llamastack.api.models import Model
from llamastack.api.pagination import Limit, Page
from llamastack.api.safety import RunShieldResponse
from llamastack.api.shields import Shield
from llamastack.api.telemetry import Event, Span, SpanStatus, Timestamp, Trace, TraceSummary
from llamastack.provider.streams import Stream

class InferenceCalls(Protocol):
    """Generate text and embed content."""

    @overload
    async def completion(
        self,
        model: str,
        content: InterleavedTextMedia,
        *,
        sampling_params: SamplingParams | None = None,
        stream: Literal[True],
        logprobs: LogProbConfig | None = None,
        response_format: ResponseFormat | None = None,
    ) -> Stream[CompletionResponseStreamChunk]: ...
    @overload
    async def completion(
        self,
        model: str,
        content: InterleavedTextMedia,
        sampling_params: SamplingParams | None = None,
        stream: Literal[False] | None = None,
        logprobs: LogProbConfig | None = None,
        response_format: ResponseFormat | None = None,
    ) -> CompletionResponse: ...
    @overload
    async def chat_completion(
        self,
        model: str,
        messages: list[Message],
        *,
        sampling_params: SamplingParams | None = None,
        tools: list[ToolDefinition] | None = None,
        tool_choice: ToolChoice | None = None,
        tool_prompt_format: ToolPromptFormat | None = None,
        stream: Literal[True],
        logprobs: LogProbConfig | None = None,
        response_format: ResponseFormat | None = None,
    ) -> Stream[ChatCompletionResponseStreamChunk]: ...
    @overload
    async def chat_completion(
        self,
        model: str,
        messages: list[Message],
        sampling_params: SamplingParams | None = None,
        tools: list[ToolDefinition] | None = None,
        tool_choice: ToolChoice | None = None,
        tool_prompt_format: ToolPromptFormat | None = None,
        stream: Literal[False] | None = None,
        logprobs: LogProbConfig | None = None,
        response_format: ResponseFormat | None = None,
    ) -> ChatCompletionResponse: ...
    async def embeddings(self, model: str, contents: list[InterleavedTextMedia]) -> EmbeddingsResponse: ...

class ModelsCalls(Protocol):
    """The models that the configured inference providers serve."""

    async def list_models(self) -> list[Model]: ...
    async def get_model(self, identifier: str) -> Model | None: ...
    async def register_model(self, model: Model) -> None: ...
    async def unregister_model(self, identifier: str) -> None: ...

class SafetyCalls(Protocol):
    """Check messages against shields."""

    async def run_shield(
        self, shield_type: str, messages: list[Message], params: JsonObject | None = None
    ) -> RunShieldResponse: ...

class ShieldsCalls(Protocol):
    """The shields that the configured safety providers serve."""

    async def list_shields(self) -> list[Shield]: ...
    async def get_shield(self, shield_type: str) -> Shield | None: ...
    async def register_shield(self, shield: Shield) -> None: ...
    async def unregister_shield(self, identifier: str) -> None: ...

class MemoryCalls(Protocol):
    """Store and search documents in memory banks."""

    async def insert_documents(
        self, bank_id: str, documents: list[MemoryBankDocument], ttl_seconds: int | None = None
    ) -> None: ...
    async def query_documents(
        self, bank_id: str, query: InterleavedTextMedia, params: JsonObject | None = None
    ) -> QueryDocumentsResponse: ...
    async def delete_documents(self, bank_id: str, document_ids: list[str]) -> None: ...

class MemoryBanksCalls(Protocol):
    """The memory banks that the configured memory providers serve."""

    async def list_memory_banks(self) -> list[MemoryBank]: ...
    async def get_memory_bank(self, identifier: str) -> MemoryBank | None: ...
    async def register_memory_bank(self, memory_bank: MemoryBank) -> None: ...
    async def unregister_memory_bank(self, identifier: str) -> None: ...

class AgentsCalls(Protocol):
    """Create agents, hold sessions with them, turn by turn."""

    async def create_agent(self, agent_config: AgentConfig, provider_id: str | None = None) -> AgentCreateResponse: ...
    @overload
    async def create_agent_turn(
        self,
        agent_id: str,
        session_id: str,
        messages: list[TurnMessage],
        *,
        attachments: list[Attachment] | None = None,
        stream: Literal[True],
    ) -> Stream[AgentTurnResponseStreamChunk]: ...
    @overload
    async def create_agent_turn(
        self,
        agent_id: str,
        session_id: str,
        messages: list[TurnMessage],
        attachments: list[Attachment] | None = None,
        stream: Literal[False] | None = None,
    ) -> Turn: ...
    async def get_agent_turn(self, agent_id: str, turn_id: str, session_id: str | None = None) -> Turn: ...
    async def get_agent_step(
        self, agent_id: str, turn_id: str, step_id: str, session_id: str | None = None
    ) -> AgentStepResponse: ...
    async def create_agent_session(self, agent_id: str, session_name: str) -> AgentSessionCreateResponse: ...
    async def get_agent_session(self, agent_id: str, session_id: str, turn_ids: list[str] | None = None) -> Session: ...
    async def delete_agent_session(self, agent_id: str, session_id: str) -> None: ...
    async def delete_agent(self, agent_id: str) -> None: ...

class TelemetryCalls(Protocol):
    """Store events and return them as traces."""

    async def log_event(self, event: Event) -> None: ...
    async def get_trace(self, trace_id: str) -> Trace: ...
    async def list_traces(
        self,
        since: Timestamp | None = None,
        status: SpanStatus | None = None,
        name: str | None = None,
        limit: Limit | None = None,
        after: str | None = None,
    ) -> Page[TraceSummary]: ...
    async def list_spans(self, trace_id: str, limit: Limit | None = None, after: str | None = None) -> Page[Span]: ...

class InspectCalls(Protocol):
    """Look at the running stack."""

    async def list_providers(self) -> dict[str, list[ProviderInfo]]: ...
    async def list_routes(self) -> dict[str, list[RouteInfo]]: ...
    async def health(self) -> HealthInfo: ...
    async def ready(self, api: str | None = None, model: str | None = None) -> Readiness: ...

class Apis:
    """The built-in APIs as attributes; which of them are really there depends on the run config."""

    inference: InferenceCalls
    models: ModelsCalls
    safety: SafetyCalls
    shields: ShieldsCalls
    memory: MemoryCalls
    memory_banks: MemoryBanksCalls
    agents: AgentsCalls
    telemetry: TelemetryCalls
    inspect: InspectCalls
