"""Types that several APIs share: content, messages, tools, sampling."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from llamastack.api.base import WireModel

URL_PATTERN = r"^(https?://|file://|data:)"
_WHOLE_URL = re.compile(r"(?is)(?:https?|file)://\S+|data:[^,\s]*,.*")

URL = Annotated[str, StringConstraints(pattern=URL_PATTERN)]
"""An http(s), file or data URL, as plain text."""


def is_url(text: str) -> bool:
    """Whether document or attachment content names where the content is, rather than being it."""
    return _WHOLE_URL.fullmatch(text) is not None


class ImageDescription(WireModel):
    """An image that is known by its format alone, as older clients send it."""

    format: str | None = None
    format_description: str | None = None


class ImageMedia(WireModel):
    """An image inside a message, by URL (data: URLs carry the bytes)."""

    image: URL | ImageDescription


InterleavedTextMedia = str | ImageMedia | list[str | ImageMedia]
"""Message content: text, an image, or a list of both in reading order."""


def text_of(content: InterleavedTextMedia) -> str:
    """The text of `content`, parts joined by a line break; images are left out."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(part for part in content if isinstance(part, str))
    return ""


class BuiltinTool(StrEnum):
    brave_search = "brave_search"
    wolfram_alpha = "wolfram_alpha"
    photogen = "photogen"
    code_interpreter = "code_interpreter"


class StopReason(StrEnum):
    """Why a generation ended: the model ended its turn, handed over a message (a tool call), or ran out of tokens."""

    end_of_turn = "end_of_turn"
    end_of_message = "end_of_message"
    out_of_tokens = "out_of_tokens"


ToolName = BuiltinTool | Annotated[str, StringConstraints(min_length=1)]
_LARGEST = 2**31 - 1


class ToolCall(WireModel):
    """A model's wish to call a tool."""

    call_id: str
    tool_name: Annotated[ToolName, Field(union_mode="left_to_right")]
    arguments: dict[str, Any]


class ToolParamDefinition(WireModel):
    """One parameter of a tool. `param_type` is a JSON schema type or a Python type name (`str`, `int`, ...)."""

    param_type: str
    description: str | None = None
    required: bool = True
    default: Any | None = None


class ToolDefinition(WireModel):
    """A tool that the model may call."""

    tool_name: Annotated[ToolName, Field(union_mode="left_to_right")]
    description: str | None = None
    parameters: dict[str, ToolParamDefinition] | None = None


class ToolResponse(WireModel):
    """What a tool answered."""

    call_id: str
    tool_name: Annotated[ToolName, Field(union_mode="left_to_right")]
    content: InterleavedTextMedia


class ToolChoice(StrEnum):
    auto = "auto"
    required = "required"


class ToolPromptFormat(StrEnum):
    """How tool calls are written in the prompt, for models that are prompted by text."""

    json = "json"
    function_tag = "function_tag"
    python_list = "python_list"


class UserMessage(WireModel):
    role: Literal["user"] = "user"
    content: InterleavedTextMedia
    context: InterleavedTextMedia | None = None
    """Retrieved context that belongs to this message; it is put after the content."""


class SystemMessage(WireModel):
    role: Literal["system"] = "system"
    content: InterleavedTextMedia


class ToolResponseMessage(WireModel):
    role: Literal["ipython"] = "ipython"
    call_id: str
    tool_name: Annotated[ToolName, Field(union_mode="left_to_right")]
    content: InterleavedTextMedia


class CompletionMessage(WireModel):
    """What the model said. In a request it is an earlier turn of the conversation."""

    role: Literal["assistant"] = "assistant"
    content: InterleavedTextMedia
    stop_reason: StopReason
    tool_calls: list[ToolCall] = Field(default_factory=list)


Message = Annotated[UserMessage | SystemMessage | ToolResponseMessage | CompletionMessage, Field(discriminator="role")]


class SamplingStrategy(StrEnum):
    greedy = "greedy"
    top_p = "top_p"
    top_k = "top_k"


class SamplingParams(WireModel):
    """How the next token is chosen.

    greedy takes the likeliest token; top_p samples from the smallest set of tokens whose probability reaches `top_p`;
    top_k samples from the `top_k` likeliest. `temperature` counts for the two that sample. Zero means "not set" for
    `top_k` and `max_tokens` (the provider's own limit).
    """

    strategy: SamplingStrategy = SamplingStrategy.greedy
    temperature: Annotated[float, Field(ge=0, le=100)] = 0.0
    top_p: Annotated[float, Field(ge=0, le=1)] = 0.95
    top_k: Annotated[int, Field(ge=0, le=_LARGEST)] = 0
    max_tokens: Annotated[int, Field(ge=0, le=_LARGEST)] = 0
    repetition_penalty: Annotated[float, Field(gt=0)] = 1.0
    stop: list[str] | None = None
    """Texts that end the generation; they are not part of the reply."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    """Makes sampling repeatable where the provider can."""
