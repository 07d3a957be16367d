"""Types that several APIs share: content, messages, tools, sampling."""

from __future__ import annotations

import re
from enum import StrEnum
from operator import attrgetter
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetPydanticSchema,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
)

from llamastack.api.base import JsonObject, WireModel

URL_PATTERN = r"^(https?://|file://|data:)"
_WHOLE_URL = re.compile(r"(?i)(?:https?|file)://\S+")
# With spaces before parameters, as headers have them, where a media type shows that it is no sentence.
_DATA_URL_HEAD = re.compile(r"(?i)data:(?:[^,\s]*|[\w.+-]+/[\w.+-]+(?:;[ \t]*[\w.+-]+(?:=[^,;\s]*)?)+),")


_SCHEME = re.compile(r"(?i)(?:https?|file|data):")


def _plain_scheme(url: object) -> object:
    """The same with its scheme in lower case, because its case does not count (RFC 3986, 3.1)."""
    found = _SCHEME.match(url) if isinstance(url, str) else None
    if found is None or found[0].islower():
        return url
    return f"{found[0].lower()}{found.string[found.end() :]}"


def is_url(text: str) -> bool:
    """Whether the content of a document or an attachment is the URL of the content."""
    return _DATA_URL_HEAD.match(text) is not None or _WHOLE_URL.fullmatch(text) is not None


def _whole_url(uri: str) -> str:
    if uri.startswith("data:"):
        head, comma, data = uri.partition(",")
        uri = "".join(head.split()) + comma + data
    if not is_url(uri):
        raise ValueError("Input should be a whole URL")
    return uri


class UrlObject(WireModel):
    """A URL as the types of release 0.0.41 write it. It is read as the URL itself."""

    uri: Annotated[
        str, StringConstraints(pattern=URL_PATTERN), AfterValidator(_whole_url), BeforeValidator(_plain_scheme)
    ]
    """An http(s), file or data URL."""


def _read_as(kind: Any) -> GetPydanticSchema:
    """Marks a text that is read as `kind` and written as the text that it has become."""
    read = Annotated[kind, BeforeValidator(_plain_scheme), PlainSerializer(str, return_type=str)]
    return GetPydanticSchema(lambda _, handler: handler(read))


_FromObject = Annotated[UrlObject, AfterValidator(attrgetter("uri"))]
URL = Annotated[str, _read_as(Annotated[str, StringConstraints(pattern=URL_PATTERN)] | _FromObject)]
"""An http(s), file or data URL, as plain text; in requests also as `{"uri": ...}`."""
UrlInPlaceOfContent = Annotated[str, _read_as(_FromObject)]
"""The URL of content, distinct from the content itself: `{"uri": ...}` in requests, plain text afterwards."""


class ImageDescription(WireModel):
    """An image of which only the format is known, as older clients send it."""

    format: str | None = None
    """The name of the format, such as `PNG`."""
    format_description: str | None = None
    """A description of the format."""


class ImageMedia(WireModel):
    """An image inside a message, by URL (data: URLs carry the bytes)."""

    image: URL | ImageDescription
    """Where the image is."""


InterleavedTextMedia = str | ImageMedia | list[str | ImageMedia]
"""Message content: text, an image, or a list of both in reading order."""
DocumentContent = InterleavedTextMedia | UrlInPlaceOfContent
"""Content of a document, or the URL of it."""


def holds_images(content: object) -> bool:
    """Whether content, a message, or a list of either has an image in it."""
    if isinstance(content, list):
        return any(holds_images(part) for part in content)
    if isinstance(content, WireModel) and not isinstance(content, ImageMedia):
        return holds_images(getattr(content, "content", None)) or holds_images(getattr(content, "context", None))
    return isinstance(content, ImageMedia)


def text_of(content: InterleavedTextMedia) -> str:
    """The text of `content`, parts joined by a line break; images are left out."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(part for part in content if isinstance(part, str))
    return ""


class BuiltinTool(StrEnum):
    """Tools that Llama models know by name, without a definition."""

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
"""A built-in tool, or one that the request defines."""
_LARGEST = 2**31 - 1


class ToolCall(WireModel):
    """A model's wish to call a tool."""

    call_id: str
    """The id of this call; the answer of the tool has the same id."""
    tool_name: Annotated[ToolName, Field(union_mode="left_to_right")]
    """As in the definition of the tool."""
    arguments: JsonObject
    """The values by the name of the parameter."""


class ToolParamDefinition(WireModel):
    """One parameter of a tool."""

    param_type: str
    """A type of JSON Schema, such as `string`, or of Python: `str`, `list[int]`, `dict[str, float]`, `Optional[bool]`,
    `Literal['a', 'b']`. A provider that needs to know it refuses what it does not understand.
    """
    description: str | None = None
    """What it is, for the model."""
    required: bool = True
    """Whether the model must give it."""
    default: Any | None = None
    """Its value when the model does not give it."""


class ToolDefinition(WireModel):
    """A tool that the model may call."""

    tool_name: Annotated[ToolName, Field(union_mode="left_to_right")]
    """The name that the model calls it by."""
    description: str | None = None
    """What it does, for the model."""
    parameters: dict[str, ToolParamDefinition] | None = None
    """The parameters by name."""
    input_schema: JsonObject | None = None
    """The JSON schema of all parameters, an object, where `parameters` cannot say all of it. It goes before them, for a
    provider whose backend takes schemas.
    """


class _ToolAnswer(WireModel):
    call_id: str
    """The id of the call."""
    tool_name: Annotated[ToolName, Field(union_mode="left_to_right")]
    """The tool that was called."""
    content: InterleavedTextMedia
    """The answer."""


class ToolResponse(_ToolAnswer):
    """What a tool answered."""


class ToolChoice(StrEnum):
    """Whether the model may call a tool (`auto`) or must (`required`)."""

    auto = "auto"
    required = "required"


class ToolPromptFormat(StrEnum):
    """How tool calls are written in the prompt, for models that are prompted by text."""

    json = "json"
    function_tag = "function_tag"
    python_list = "python_list"


class UserMessage(WireModel):
    """What the user said."""

    role: Literal["user"] = "user"
    content: InterleavedTextMedia
    """The message itself."""
    context: InterleavedTextMedia | None = None
    """Retrieved context that belongs to this message; it is put after the content."""


class SystemMessage(WireModel):
    """Instructions to the model about its task."""

    role: Literal["system"] = "system"
    content: InterleavedTextMedia
    """The message itself."""


class ToolResponseMessage(_ToolAnswer):
    """A tool's answer to a call of the model."""

    role: Literal["ipython"] = "ipython"


class CompletionMessage(WireModel):
    """What the model said. In a request it is an earlier turn of the conversation."""

    role: Literal["assistant"] = "assistant"
    content: InterleavedTextMedia
    """The text; empty if the model only called tools."""
    stop_reason: StopReason
    """Why it ended."""
    tool_calls: list[ToolCall] = Field(default_factory=list)
    """The tools that it asks to call, in order."""


Message = Annotated[UserMessage | SystemMessage | ToolResponseMessage | CompletionMessage, Field(discriminator="role")]
"""A message of any kind; `role` tells which."""


def texts_of(message: Message) -> list[str]:
    """Each text of a message by itself: the parts of its content, then those of a user's context."""
    contents = (message.content, getattr(message, "context", None))
    parts = [part for content in contents for part in (content if isinstance(content, list) else [content])]
    return [part for part in parts if isinstance(part, str)]


class SamplingStrategy(StrEnum):
    """How the next token is chosen; see `SamplingParams`."""

    greedy = "greedy"
    top_p = "top_p"
    top_k = "top_k"


class SamplingParams(WireModel):
    """How the next token is chosen.

    greedy takes the likeliest token; top_p samples from the smallest set of tokens whose probability reaches `top_p`;
    top_k samples from the `top_k` likeliest. `temperature` counts for the two that sample. Zero means "not set" for
    `top_k` and `max_tokens` (the provider's own limit). With top_p, and neither `temperature` nor `top_p` given, the
    model's own defaults count. A provider refuses by name what it cannot do.
    """

    strategy: SamplingStrategy = SamplingStrategy.greedy
    """Which of the fields below count."""
    temperature: Annotated[float, Field(ge=0, le=100)] = 0.0
    """The higher, the more even the probabilities become; 1 leaves them as they are."""
    top_p: Annotated[float, Field(ge=0, le=1)] = 0.95
    """The probability that the set of tokens must reach."""
    top_k: Annotated[int, Field(ge=0, le=_LARGEST)] = 0
    """How many tokens are sampled from."""
    max_tokens: Annotated[int, Field(ge=0, le=_LARGEST)] = 0
    """The longest reply."""
    repetition_penalty: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Above 1, tokens that occur in the text become less likely; 1 changes nothing."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Above 0, a token becomes less likely with each occurrence in the text."""
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    """Above 0, a token becomes less likely once it occurs in the text."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Tokens that are less likely than this fraction of the likeliest token are left out."""
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    """The number to add to the logit of a token, by the number of the token as text; -100 bans the token."""
    stop: Annotated[list[str], AfterValidator(lambda texts: [text for text in texts if text])] | None = None
    """Texts that end the generation; they are not part of the reply. Empty texts are ignored."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    """Makes sampling repeatable where the provider can."""

    @model_serializer(mode="wrap")
    def _as_given(self, handler: SerializerFunctionWrapHandler):  # type: ignore[no-untyped-def]  # for its schema
        # Fields that were not given are not sent on, so that the model's own defaults apply.
        wire = handler(self)
        if self.strategy is not SamplingStrategy.greedy:
            for name in ("temperature", "top_p"):
                if name not in self.model_fields_set:
                    wire.pop(name, None)
        return wire
