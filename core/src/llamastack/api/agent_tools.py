"""The tools that an agent may use."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from llamastack.api.base import JsonObject, WireModel
from llamastack.api.common import URL, ToolParamDefinition


class RestAPIMethod(StrEnum):
    """HTTP methods."""

    GET = "GET"
    POST = "POST"
    PUT = "PUT"
    DELETE = "DELETE"


class RestAPIExecutionConfig(WireModel):
    """A call over HTTP that stands for a tool."""

    url: URL
    """Where to call."""
    method: RestAPIMethod
    """How to call."""
    params: JsonObject | None = None
    """Parameters of the query."""
    headers: JsonObject | None = None
    """HTTP headers."""
    body: JsonObject | None = None
    """The body, sent as JSON."""


class _ToolDefinitionCommon(WireModel):
    input_shields: list[str] | None = None
    """Shields to run over what goes in."""
    output_shields: list[str] | None = None
    """Shields to run over what comes out."""


class _RemoteToolDefinition(_ToolDefinitionCommon):
    remote_execution: RestAPIExecutionConfig | None = None
    """What to call in place of the tool itself."""


class SearchEngineType(StrEnum):
    """Search engines."""

    bing = "bing"
    brave = "brave"


class SearchToolDefinition(_RemoteToolDefinition):
    """Search the web."""

    type: Literal["brave_search"] = "brave_search"
    api_key: str = Field(repr=False)
    """The search engine's key."""
    engine: SearchEngineType = SearchEngineType.brave
    """The search engine to ask."""


class WolframAlphaToolDefinition(_RemoteToolDefinition):
    """Ask Wolfram Alpha."""

    type: Literal["wolfram_alpha"] = "wolfram_alpha"
    api_key: str = Field(repr=False)
    """Wolfram Alpha's key."""


class PhotogenToolDefinition(_RemoteToolDefinition):
    """Make an image."""

    type: Literal["photogen"] = "photogen"


class CodeInterpreterToolDefinition(_RemoteToolDefinition):
    """Run code that the model writes."""

    type: Literal["code_interpreter"] = "code_interpreter"
    enable_inline_code_execution: bool = True
    """Whether the code is run at once; otherwise the caller gets it."""


class FunctionCallToolDefinition(_RemoteToolDefinition):
    """A function of the caller. The turn ends so that the caller can run it."""

    type: Literal["function_call"] = "function_call"
    function_name: str
    """The name that the model calls it by."""
    description: str
    """What it does, for the model."""
    parameters: dict[str, ToolParamDefinition]
    """By name."""


class _BankConfig(WireModel):
    bank_id: str
    """Its identifier."""


class VectorBankConfig(_BankConfig):
    """Look into a vector bank."""

    type: Literal["vector"] = "vector"


class KeyValueBankConfig(_BankConfig):
    """Look into a key-value bank."""

    type: Literal["keyvalue"] = "keyvalue"
    keys: list[str]
    """The keys to look up."""


class KeywordBankConfig(_BankConfig):
    """Look into a keyword bank."""

    type: Literal["keyword"] = "keyword"


class GraphBankConfig(_BankConfig):
    """Look into a graph bank."""

    type: Literal["graph"] = "graph"
    entities: list[str]
    """The entities to look up."""


BankConfig = Annotated[
    VectorBankConfig | KeyValueBankConfig | KeywordBankConfig | GraphBankConfig, Field(discriminator="type")
]
"""A bank to look into; `type` tells the kind."""


class DefaultQueryGeneratorConfig(WireModel):
    """Join the messages with `sep`."""

    type: Literal["default"] = "default"
    sep: str = " "
    """What is put between two messages."""


class LLMQueryGeneratorConfig(WireModel):
    """Let `model` write the query from `template`."""

    type: Literal["llm"] = "llm"
    model: str
    """The model to ask."""
    template: str
    """The prompt, into which the messages are put."""


class CustomQueryGeneratorConfig(WireModel):
    """Let a query generator of the provider write the query."""

    type: Literal["custom"] = "custom"


QueryGeneratorConfig = Annotated[
    DefaultQueryGeneratorConfig | LLMQueryGeneratorConfig | CustomQueryGeneratorConfig, Field(discriminator="type")
]
"""How a query is made; `type` tells the kind."""


class MemoryToolDefinition(_ToolDefinitionCommon):
    """Retrieve context from memory banks."""

    type: Literal["memory"] = "memory"
    memory_bank_configs: list[BankConfig]
    """The banks to look into."""
    query_generator_config: QueryGeneratorConfig = Field(default_factory=DefaultQueryGeneratorConfig)
    """How the query is made out of the messages."""
    max_tokens_in_context: Annotated[int, Field(gt=0)] = 4096
    """The longest context that is put into the prompt, in tokens."""
    max_chunks: Annotated[int, Field(gt=0)] = 10
    """The most pieces that are put into the prompt."""


AgentToolDefinition = Annotated[
    SearchToolDefinition
    | WolframAlphaToolDefinition
    | PhotogenToolDefinition
    | CodeInterpreterToolDefinition
    | FunctionCallToolDefinition
    | MemoryToolDefinition,
    Field(discriminator="type"),
]
"""A tool of an agent; `type` tells the kind."""
