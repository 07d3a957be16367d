"""The requests of OpenAI's API that are taken: what they must look like, whoever answers them.

Fields that are not named here are let through to a backend that speaks this API; where a request is translated, each
one that is set is refused by name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, TypeAdapter

Name = Annotated[StrictStr, Field(min_length=1)]


class OpenAIModel(BaseModel):
    """Base: a JSON object that may have more fields than are named."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class TextPart(OpenAIModel):
    type: Literal["text"]
    text: StrictStr


class ImageUrl(OpenAIModel):
    url: StrictStr
    detail: StrictStr | None = None


class ImagePart(OpenAIModel):
    type: Literal["image_url"]
    image_url: ImageUrl


class OtherPart(OpenAIModel):
    """Audio, a file or a refusal: for backends that take them."""

    type: Literal["input_audio", "file", "refusal"]


Part = Annotated[TextPart | ImagePart | OtherPart, Field(discriminator="type")]
Content = StrictStr | list[Part]


class InstructionMessage(OpenAIModel):
    """`developer` is what newer models call `system`."""

    role: Literal["system", "developer"]
    content: Content


class UserMessage(OpenAIModel):
    role: Literal["user"]
    content: Content


class FunctionCall(OpenAIModel):
    name: Name
    arguments: StrictStr
    """JSON, as the model wrote it."""


class ToolCall(OpenAIModel):
    id: StrictStr
    type: StrictStr = "function"
    function: FunctionCall | None = None


class AssistantMessage(OpenAIModel):
    role: Literal["assistant"]
    content: Content | None = None
    tool_calls: list[ToolCall] | None = None


class ToolMessage(OpenAIModel):
    role: Literal["tool"]
    content: Content
    tool_call_id: StrictStr


class FunctionMessage(OpenAIModel):
    """What tools answered before there were `tool` messages."""

    role: Literal["function"]
    name: StrictStr
    content: StrictStr | None


Message = Annotated[
    InstructionMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage, Field(discriminator="role")
]


class Function(OpenAIModel):
    name: Name
    description: StrictStr | None = None
    parameters: dict[str, Any] | None = None
    strict: StrictBool | None = None


class Tool(OpenAIModel):
    type: StrictStr
    function: Function | None = None


class JsonSchema(OpenAIModel):
    name: StrictStr | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: StrictBool | None = None


class ResponseFormat(OpenAIModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(OpenAIModel):
    include_usage: StrictBool | None = None


class GenerationRequest(OpenAIModel):
    """What both kinds of completion take."""

    model: Name
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: int | None = None
    stop: StrictStr | list[StrictStr] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, float] | None = None
    user: StrictStr | None = None


class ChatCompletionRequest(GenerationRequest):
    """https://platform.openai.com/docs/api-reference/chat/create"""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    tools: list[Tool] | None = None
    tool_choice: StrictStr | dict[str, Any] | None = None
    parallel_tool_calls: StrictBool | None = None
    response_format: ResponseFormat | None = None
    logprobs: StrictBool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


class CompletionRequest(GenerationRequest):
    """https://platform.openai.com/docs/api-reference/completions/create"""

    prompt: StrictStr | list[StrictStr] | list[int] | list[list[int]]
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    logprobs: Annotated[int, Field(ge=0)] | None = None
    echo: StrictBool | None = None
    suffix: StrictStr | None = None
    best_of: Annotated[int, Field(ge=1)] | None = None


class EmbeddingsRequest(OpenAIModel):
    """https://platform.openai.com/docs/api-reference/embeddings/create"""

    model: Name
    input: (
        StrictStr
        | Annotated[list[StrictStr], Field(min_length=1)]
        | Annotated[list[int], Field(min_length=1)]
        | Annotated[list[list[int]], Field(min_length=1)]
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: StrictStr | None = None


ModerationPart = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class ModerationRequest(OpenAIModel):
    """https://platform.openai.com/docs/api-reference/moderations/create"""

    input: (
        StrictStr
        | Annotated[list[StrictStr], Field(min_length=1)]
        | Annotated[list[ModerationPart], Field(min_length=1)]
    )
    model: Name | None = None
    """A shield. May be left out where one shield is served."""


CHAT = TypeAdapter(ChatCompletionRequest)
COMPLETION = TypeAdapter(CompletionRequest)
EMBEDDINGS = TypeAdapter(EmbeddingsRequest)
MODERATION = TypeAdapter(ModerationRequest)
