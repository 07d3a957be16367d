"""Native arguments -> the body of a request in the OpenAI dialect."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from llamastack.api.common import (
    CompletionMessage,
    ImageMedia,
    InterleavedTextMedia,
    Message,
    SamplingParams,
    SamplingStrategy,
    SystemMessage,
    ToolChoice,
    ToolDefinition,
    ToolPromptFormat,
    ToolResponseMessage,
    UserMessage,
)
from llamastack.api.inference import LogProbConfig, ResponseFormat
from llamastack.provider.errors import InvalidRequestError, NotSupportedError
from llamastack_adapters.tool_schemas import parameters_schema


def as_json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's `response_format` for a JSON schema."""
    return {"type": "json_schema", "json_schema": {"name": "response", "strict": True, "schema": schema}}


@dataclass(frozen=True, slots=True)
class Dialect:
    """Where backends differ. None means that the backend cannot do it: asking for it is refused.

    provider_id: of the provider, for error messages.
    max_tokens: name of a chat's field for the longest reply; a text completion has `max_tokens`.
    top_k: name of the field for top_k sampling.
    repetition_penalty: name of the field for a repetition penalty.
    seed: name of the field for a seed.
    tool_choice_required: the value of `tool_choice` by which a tool must be called.
    response_format: makes the field `response_format` of a chat out of a JSON schema.
    completion_response_format: the same for a text completion.
    top_logprobs: False where a chat's `logprobs` is the number of log probabilities itself.
    images: whether messages may hold images.
    stream_usage: whether streams are asked for their usage, by `stream_options`.
    samplers: which of `SAMPLERS` it has, by these names.
    other_names: further fields of OpenAI's API that it calls otherwise: OpenAI's name -> its own. They are found in
        requests that are forwarded.
    not_forwarded: fields of OpenAI's API that it refuses; a request that has one is translated, which does without.
    only: fields that a strategy adds, where the backend would apply other samplers of its own accord, too.
    """

    SAMPLERS: ClassVar[tuple[str, ...]] = ("frequency_penalty", "presence_penalty", "min_p", "logit_bias")
    """The fields of `SamplingParams` that not every backend has."""

    provider_id: str
    max_tokens: str = "max_tokens"
    top_k: str | None = None
    repetition_penalty: str | None = None
    seed: str | None = "seed"
    tool_choice_required: str | None = "required"
    response_format: Callable[[dict[str, Any]], dict[str, Any]] | None = as_json_schema
    completion_response_format: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    top_logprobs: bool = True
    images: bool = True
    stream_usage: bool = True
    samplers: Collection[str] = frozenset()
    other_names: Mapping[str, str] = field(default_factory=dict)
    not_forwarded: frozenset[str] = frozenset()
    only: Mapping[SamplingStrategy, Mapping[str, Any]] = field(default_factory=dict)

    def speaks(self, fields: Collection[str]) -> bool:
        """Whether the backend takes each of these fields of OpenAI's API in OpenAI's own form, under whatever name."""
        return not (
            ("logprobs" in fields and not self.top_logprobs)
            or ("seed" in fields and self.seed is None)
            or ("response_format" in fields and self.response_format is not as_json_schema)
            or (bool(self.not_forwarded) and not self.not_forwarded.isdisjoint(fields))
        )

    def renamed(self, fields: Collection[str], route: str = "chat/completions") -> dict[str, str]:
        """Which of these fields of OpenAI's API the backend calls otherwise, and how.

        route: as `OpenAIRequest` has it.
        Raises InvalidRequestError where one is given by both names.
        """
        longest = self.max_tokens if route == "chat/completions" else "max_tokens"
        own = {"max_tokens": longest, "seed": self.seed or "seed", **self.other_names}
        others = {name: other for name, other in own.items() if name != other and name in fields}
        for name, other in others.items():
            if other in fields:
                raise InvalidRequestError(f"'{name}' and '{other}' are the same here: give one of them", param=name)
        return others

    def samplers_of(self, params: SamplingParams) -> dict[str, Any]:
        """Those of `SAMPLERS` that are asked for. Raises NotSupportedError for one that the backend lacks."""
        given = {name: getattr(params, name) for name in self.SAMPLERS}
        given = {name: value for name, value in given.items() if value not in (None, {})}
        for name, value in given.items():
            if name not in self.samplers and value != 0:
                raise self.unsupported(f"sampling_params.{name}", f"'{name}'")
        return {name: value for name, value in given.items() if name in self.samplers}

    def unsupported(self, param: str, what: str) -> NotSupportedError:
        """The error for `what`, which the argument `param` asks for."""
        return NotSupportedError(
            f"provider '{self.provider_id}' does not support {what}", provider_id=self.provider_id, param=param
        )


def chat_request(
    dialect: Dialect,
    *,
    model: str,
    messages: Sequence[Message],
    sampling_params: SamplingParams | None = None,
    tools: Sequence[ToolDefinition] | None = None,
    tool_choice: ToolChoice | None = None,
    tool_prompt_format: ToolPromptFormat | None = None,
    stream: bool | None = None,
    logprobs: LogProbConfig | None = None,
    response_format: ResponseFormat | None = None,
) -> dict[str, Any]:
    """The body of `POST /chat/completions`.

    Raises NotSupportedError, naming the parameter, for what the dialect has no word for.
    """
    body: dict[str, Any] = {"model": model, "messages": [_message(dialect, message) for message in messages]}
    body.update(_sampling(dialect, sampling_params))
    if tools:
        if tool_prompt_format not in (None, ToolPromptFormat.json):
            raise dialect.unsupported("tool_prompt_format", f"tool_prompt_format '{tool_prompt_format}'")
        body["tools"] = [_tool(tool, f"tools[{place}]") for place, tool in enumerate(tools)]
        if tool_choice is ToolChoice.required and dialect.tool_choice_required is None:
            raise dialect.unsupported("tool_choice", "tool_choice 'required'")
        if tool_choice is not None:
            required = tool_choice is ToolChoice.required
            body["tool_choice"] = dialect.tool_choice_required if required else tool_choice.value
    elif tool_choice is ToolChoice.required:
        raise InvalidRequestError("tool_choice 'required' needs at least one tool", param="tool_choice")
    if stream:
        body |= _streaming(dialect)
    if logprobs is not None:
        # Not 0: some backends then give none at all, not even that of the chosen token.
        most = max(logprobs.top_k, 1)
        body |= {"logprobs": True, "top_logprobs": most} if dialect.top_logprobs else {"logprobs": most}
    if response_format is not None:
        if dialect.response_format is None:
            raise dialect.unsupported("response_format", "a JSON schema")
        body["response_format"] = dialect.response_format(response_format.json_schema)
    return body


def completion_request(
    dialect: Dialect,
    *,
    model: str,
    content: InterleavedTextMedia,
    sampling_params: SamplingParams | None = None,
    stream: bool | None = None,
    logprobs: LogProbConfig | None = None,
    response_format: ResponseFormat | None = None,
) -> dict[str, Any]:
    """The body of `POST /completions`. Images are refused: a text completion has no place for them."""
    body: dict[str, Any] = {"model": model, "prompt": _text_only(dialect, content, "content")}
    body.update(_sampling(replace(dialect, max_tokens="max_tokens"), sampling_params))
    if stream:
        body |= _streaming(dialect)
    if logprobs is not None:
        body["logprobs"] = max(logprobs.top_k, 1)
    if response_format is not None:
        if dialect.completion_response_format is None:
            raise dialect.unsupported("response_format", "a JSON schema for a text completion")
        body["response_format"] = dialect.completion_response_format(response_format.json_schema)
    return body


def embeddings_request(dialect: Dialect, *, model: str, contents: Sequence[InterleavedTextMedia]) -> dict[str, Any]:
    """The body of `POST /embeddings`."""
    texts = [_text_only(dialect, content, f"contents[{place}]") for place, content in enumerate(contents)]
    return {"model": model, "input": texts, "encoding_format": "float"}


def _streaming(dialect: Dialect) -> dict[str, Any]:
    return {"stream": True, "stream_options": {"include_usage": True}} if dialect.stream_usage else {"stream": True}


def _text_only(dialect: Dialect, content: InterleavedTextMedia, where: str) -> str:
    parts = content if isinstance(content, list) else [content]
    texts: list[str] = []
    for part in parts:
        if not isinstance(part, str):
            raise dialect.unsupported(where, "images here")
        texts.append(part)
    return "\n".join(texts)


def _content(dialect: Dialect, content: InterleavedTextMedia) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    return [_part(dialect, part) for part in parts]


def _part(dialect: Dialect, part: str | ImageMedia) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not dialect.images:
        raise dialect.unsupported("messages", "images in messages")
    if not isinstance(part.image, str):
        raise InvalidRequestError("an image needs a URL (data: URLs carry the bytes)", param="messages")
    return {"type": "image_url", "image_url": {"url": part.image}}


def _message(dialect: Dialect, message: Message) -> dict[str, Any]:
    match message:
        case UserMessage(content=content, context=None):
            return {"role": "user", "content": _content(dialect, content)}
        case UserMessage(content=content, context=context):
            parts = [*_as_list(content), *_as_list(context)]
            return {"role": "user", "content": _content(dialect, parts)}
        case SystemMessage(content=content):
            return {"role": "system", "content": _content(dialect, content)}
        case ToolResponseMessage(call_id=call_id, content=content):
            return {"role": "tool", "tool_call_id": call_id, "content": _content(dialect, content)}
        case CompletionMessage(content=content, tool_calls=calls):
            out: dict[str, Any] = {"role": "assistant", "content": _content(dialect, content)}
            if calls:
                out["tool_calls"] = [
                    {
                        "id": call.call_id,
                        "type": "function",
                        "function": {"name": str(call.tool_name), "arguments": json.dumps(call.arguments)},
                    }
                    for call in calls
                ]
            return out


def _as_list(content: InterleavedTextMedia | None) -> list[str | ImageMedia]:
    if content is None:
        return []
    return list(content) if isinstance(content, list) else [content]


def _sampling(dialect: Dialect, params: SamplingParams | None) -> dict[str, Any]:
    if params is None:
        return {"temperature": 0.0}
    given = params.model_fields_set
    own_defaults = params.strategy is SamplingStrategy.top_p and not given & {"temperature", "top_p"}
    body: dict[str, Any] = {} if own_defaults else {**dialect.only.get(params.strategy, {})}
    if params.strategy is SamplingStrategy.greedy:
        body["temperature"] = 0.0
    elif "temperature" in given:
        body["temperature"] = params.temperature
    if params.strategy is SamplingStrategy.top_p and not own_defaults:
        body["top_p"] = params.top_p
    if params.strategy is SamplingStrategy.top_k and params.top_k:
        if dialect.top_k is None:
            raise dialect.unsupported("sampling_params.top_k", "top_k sampling")
        body[dialect.top_k] = params.top_k
    if params.max_tokens:
        body[dialect.max_tokens] = params.max_tokens
    if params.repetition_penalty != 1.0:
        if dialect.repetition_penalty is None:
            raise dialect.unsupported("sampling_params.repetition_penalty", "a repetition penalty")
        body[dialect.repetition_penalty] = params.repetition_penalty
    body |= dialect.samplers_of(params)
    if params.stop:
        body["stop"] = params.stop
    if params.seed is not None:
        if dialect.seed is None:
            raise dialect.unsupported("sampling_params.seed", "a seed")
        body[dialect.seed] = params.seed
    return body


def _tool(tool: ToolDefinition, where: str) -> dict[str, Any]:
    function: dict[str, Any] = {"name": str(tool.tool_name), "parameters": parameters_schema(tool, where)}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": function}
