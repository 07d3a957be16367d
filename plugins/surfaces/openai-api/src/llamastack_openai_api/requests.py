"""The models of the requests that are translated.

Only the backend checks a request that is forwarded. A field that is null counts as left out.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    Tag,
    TypeAdapter,
)

from llamastack.api.fail_fast_validation import FailFast

Name = Annotated[StrictStr, Field(min_length=1)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""An integer or a float, but no text."""


class OpenAIModel(FailFast):
    """Base: a JSON object that may have further fields."""

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
    """Audio, a file, or another part that a backend may take."""

    type: Name


def _kind_of_part(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else getattr(part, "type", None)
    return kind if kind in ("text", "image_url") else "other"


Part = Annotated[
    Annotated[TextPart, Tag("text")] | Annotated[ImagePart, Tag("image_url")] | Annotated[OtherPart, Tag("other")],
    Discriminator(_kind_of_part),
]
Content = StrictStr | list[Part]


class InstructionMessage(OpenAIModel):
    """Newer models call the role `system` `developer`."""

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
    type: StrictStr | None = None
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
    """The older form of a `tool` message."""

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
    type: Name
    """`text`, `json_object`, `json_schema`, or another type that a backend may take."""
    json_schema: JsonSchema | None = None


class StreamOptions(OpenAIModel):
    include_usage: StrictBool | None = None


class GenerationRequest(OpenAIModel):
    """The fields of both kinds of completion."""

    model: Name
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[StrictInt, Field(ge=1, le=128)] | None = None
    max_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    temperature: Annotated[Number, Field(ge=0)] | None = None
    top_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    seed: StrictInt | None = None
    stop: StrictStr | list[StrictStr] | None = None
    frequency_penalty: Number | None = None
    presence_penalty: Number | None = None
    logit_bias: dict[str, Number] | None = None
    top_k: StrictInt | None = None
    min_p: Number | None = None
    repetition_penalty: Number | None = None
    user: StrictStr | None = None


class ChatCompletionRequest(GenerationRequest):
    """https://platform.openai.com/docs/api-reference/chat/create"""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    tools: list[Tool] | None = None
    tool_choice: StrictStr | dict[str, Any] | None = None
    parallel_tool_calls: StrictBool | None = None
    response_format: ResponseFormat | None = None
    logprobs: StrictBool | None = None
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=100)] | None = None


class CompletionRequest(GenerationRequest):
    """https://platform.openai.com/docs/api-reference/completions/create"""

    prompt: StrictStr | list[StrictStr] | list[StrictInt] | list[list[StrictInt]]
    max_tokens: Annotated[StrictInt, Field(ge=0)] | None = None
    logprobs: Annotated[StrictInt, Field(ge=0)] | None = None
    echo: StrictBool | None = None
    suffix: StrictStr | None = None
    best_of: Annotated[StrictInt, Field(ge=1)] | None = None


class EmbeddingsRequest(OpenAIModel):
    """https://platform.openai.com/docs/api-reference/embeddings/create"""

    model: Name
    input: (
        StrictStr
        | Annotated[list[StrictStr], Field(min_length=1)]
        | Annotated[list[StrictInt], Field(min_length=1)]
        | Annotated[list[list[StrictInt]], Field(min_length=1)]
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[StrictInt, Field(ge=1)] | None = None
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
    """A shield. Optional if one shield is served."""


CHAT = TypeAdapter(ChatCompletionRequest)
COMPLETION = TypeAdapter(CompletionRequest)
EMBEDDINGS = TypeAdapter(EmbeddingsRequest)
MODERATION = TypeAdapter(ModerationRequest)
