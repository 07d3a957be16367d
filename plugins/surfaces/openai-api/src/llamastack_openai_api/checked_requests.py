"""Checks OpenAI's requests and gives each the form that providers take. A field that it lacks is refused by name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from llamastack.api.common import ImageMedia
from llamastack.api.inference import JsonSchemaResponseFormat
from llamastack.provider.errors import InvalidRequestError, NotSupportedError
from llamastack_adapters.openai_dialect import OpenAIForm, as_json_schema, parse_arguments, unknown_field
from llamastack_openai_api.requests import (
    AssistantMessage,
    ChatCompletionRequest,
    CompletionRequest,
    Content,
    EmbeddingsRequest,
    FunctionMessage,
    ImagePart,
    InstructionMessage,
    Message,
    OpenAIModel,
    OtherPart,
    ResponseFormat,
    TextPart,
    Tool,
    ToolMessage,
    UserMessage,
)
from llamastack_openai_api.sampling import chat_logprobs, completion_logprobs, made, sampling

Fields = dict[str, Any]

IGNORED_FIELDS = (
    "user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prediction",
    "store", "reasoning_effort", "verbosity",
)  # fmt: skip
"""Fields about how OpenAI handles a request, or for OpenAI's own models only."""
IGNORED_NESTED_FIELDS = (
    "name", "description", "index", "parsed", "parsed_arguments", "include_obfuscation", "continuous_usage_stats",
    "cache_control", "annotations", "refusal", "reasoning", "reasoning_content", "reasoning_details", "thinking",
    "thinking_blocks", "provider_specific_fields",
)  # fmt: skip
"""The same inside the fields; most come from replies that a client sends back."""
UNTRANSLATABLE_FIELDS = (
    "modalities", "audio", "web_search_options", "functions", "function_call", "echo", "suffix", "best_of",
)  # fmt: skip
"""OpenAI's fields that no native call has."""
_INSTEAD = {"functions": "tools", "function_call": "tool_choice"}
# These values ask for what happens anyway.
NEUTRAL_VALUES: dict[str, tuple[Any, ...]] = {
    "modalities": (["text"],),
    "echo": (False,),
    "suffix": ("",),
    "best_of": (1,),
    "functions": ([],),
    "function_call": ("none", "auto"),
}
_SAMPLING_FIELDS = (
    "n", "max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop", "frequency_penalty",
    "presence_penalty", "repetition_penalty", "logit_bias",
)  # fmt: skip
CHAT_FIELDS = (
    "model", "messages", "stream", "stream_options", *_SAMPLING_FIELDS, "max_completion_tokens", "tools", "tool_choice",
    "parallel_tool_calls", "response_format", "logprobs", "top_logprobs",
)  # fmt: skip
"""Fields of a chat that a native call has."""
COMPLETION_FIELDS = ("model", "prompt", "stream", "stream_options", *_SAMPLING_FIELDS, "logprobs")
"""The same of a text completion."""
EMBEDDINGS_FIELDS = ("model", "input", "encoding_format", "dimensions")
"""The same of embeddings."""


def _unsupported(param: str, what: str | None = None) -> NotSupportedError:
    return NotSupportedError(f"{what or f'{param!r}'} is not supported with this model", param=param)


def _other_fields(request: OpenAIModel, known: Iterable[str]) -> Fields:
    """The fields that OpenAI's API does not have. Raises NotSupportedError for fields that no form has."""
    others: Fields = {}
    for name, value in (*vars(request).items(), *(request.model_extra or {}).items()):
        if value is None:
            continue
        if name in known:
            _refuse_extras(value, name)
            continue
        if name in IGNORED_FIELDS or value in NEUTRAL_VALUES.get(name, ()):
            continue
        if name in UNTRANSLATABLE_FIELDS:
            instead = _INSTEAD.get(name)
            raise _unsupported(name, f"'{name}', which '{instead}' has replaced," if instead else None)
        others[name] = value
    return others


def _refuse_extras(part: object, where: str) -> None:
    """Check an object inside a request, and the objects in it. Replies that a client sends back have empty fields."""
    if isinstance(part, list):
        for place, one in enumerate(part):
            _refuse_extras(one, f"{where}[{place}]")
    elif isinstance(part, OtherPart):
        raise _unsupported(where, f"a part of type '{part.type}'")
    elif isinstance(part, OpenAIModel):
        for name, value in (part.model_extra or {}).items():
            if (
                name not in IGNORED_NESTED_FIELDS
                and value not in (None, [], {}, "")
                and (name, value) != ("type", "function")
            ):
                raise _unsupported(f"{where}.{name}")
        for name, value in vars(part).items():
            if isinstance(value, list | OpenAIModel):
                _refuse_extras(value, f"{where}.{name}")


def chat_form(request: ChatCompletionRequest, messages: list[Fields] | None = None) -> OpenAIForm:
    """A chat with one answer.

    messages: the result of `messages_of`, if it is already there.

    Raises InvalidRequestError, NotSupportedError, naming the field.
    """
    extra = _other_fields(request, CHAT_FIELDS)
    fields: Fields = {"messages": list(messages_of(request.messages)) if messages is None else messages}
    if request.max_completion_tokens is None:
        fields |= sampling(request, request.max_tokens)
    else:
        fields |= sampling(request, request.max_completion_tokens, "max_completion_tokens")
    if request.tools and request.tool_choice != "none":
        fields |= _tools(request.tools, request.tool_choice)
    elif request.tool_choice not in (None, "none", "auto"):
        raise InvalidRequestError("'tool_choice' needs 'tools'", param="tool_choice")
    if request.parallel_tool_calls is False:
        fields["parallel_tool_calls"] = False
    most = chat_logprobs(request)
    if most is not None:
        fields |= {"logprobs": True, "top_logprobs": most}
    schema = _schema(request.response_format)
    if schema is not None:
        fields["response_format"] = as_json_schema(schema)
    return OpenAIForm(request.model, fields, bool(request.stream), extra)


def completion_forms(request: CompletionRequest) -> list[OpenAIForm]:
    """A text completion for each prompt, each with one answer."""
    extra = _other_fields(request, COMPLETION_FIELDS)
    prompts = _texts(request.prompt, "prompt")
    if request.max_tokens == 0:
        raise InvalidRequestError("must be at least 1 for this model", param="max_tokens")
    # OpenAI's default is 16.
    fields = sampling(request, 16 if request.max_tokens is None else request.max_tokens)
    most = completion_logprobs(request)
    if most is not None:
        fields["logprobs"] = most
    return [OpenAIForm(request.model, {"prompt": prompt, **fields}, bool(request.stream), extra) for prompt in prompts]


def embeddings_arguments(request: EmbeddingsRequest) -> Fields:
    """Arguments of `embeddings` without `model`."""
    for name in _other_fields(request, EMBEDDINGS_FIELDS):
        raise unknown_field(name)
    return {"contents": _texts(request.input, "input")}


def requested_capabilities(given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of `chat_completion` in a request that need a capability.

    given: the request, not validated.
    """
    response_format = given.get("response_format")
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    messages = given.get("messages")
    contents = [message.get("content") for message in _objects_of(messages)]
    images = any(part.get("type") == "image_url" for content in contents for part in _objects_of(content))
    return {
        "stream": given.get("stream"),
        "tools": given.get("tools"),
        "logprobs": given.get("logprobs"),
        "response_format": kind not in (None, "text"),
        "messages": [ImageMedia(image="data:,")] if images else [],
    }


def requested_completion_capabilities(given: Mapping[str, Any]) -> dict[str, Any]:
    """The same of `completion`."""
    return {"stream": given.get("stream"), "logprobs": given.get("logprobs") is not None}


def _objects_of(value: object) -> Iterator[dict[str, Any]]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def refuse_tokens(given: object, param: str) -> None:
    """Raises NotSupportedError for token ids instead of text. Only the first is checked: there may be a million."""
    first = given[0] if isinstance(given, list) and given else None
    if isinstance(first, list) or (isinstance(first, int) and not isinstance(first, bool)):
        raise _unsupported(param, f"'{param}' as token ids instead of text")


def _texts(given: object, param: str) -> list[str]:
    if isinstance(given, str):
        return [given]
    texts = given if isinstance(given, list) else []
    if not texts:
        raise InvalidRequestError(f"'{param}' must not be empty", param=param)
    refuse_tokens(texts, param)
    return texts


# ---- forms -----------------------------------------------------------------------------------------------------------


def _schema(given: ResponseFormat | None) -> Fields | None:
    if given is None or given.type == "text":
        return None
    if given.type == "json_object":
        return {"type": "object"}
    if given.type != "json_schema":
        raise _unsupported("response_format.type", f"response_format '{given.type}'")
    schema = None if given.json_schema is None else given.json_schema.schema_
    if schema is None:
        raise InvalidRequestError(
            "'response_format.json_schema.schema' is missing", param="response_format.json_schema.schema"
        )
    return made(
        JsonSchemaResponseFormat, {"json_schema": schema}, {"json_schema": "response_format.json_schema.schema"}
    ).json_schema


# ---- tools -----------------------------------------------------------------------------------------------------------


def _tools(tools: Sequence[Tool], choice: str | Fields | None) -> Fields:
    defined = [_tool(tool, f"tools[{place}]") for place, tool in enumerate(tools)]
    if choice is None or choice == "auto":
        return {"tools": defined}
    if choice == "required":
        return {"tools": defined, "tool_choice": "required"}
    function = choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
    if not isinstance(function, dict):
        raise InvalidRequestError(
            "must be 'none', 'auto', 'required' or a function; allowed tools and custom tools are not supported",
            param="tool_choice",
        )
    # A model that gets only this tool and must call one calls this tool.
    chosen = [tool for tool in defined if tool["function"]["name"] == function.get("name")]
    if not chosen:
        raise InvalidRequestError(f"there is no tool {function.get('name')!r} in 'tools'", param="tool_choice")
    return {"tools": chosen, "tool_choice": "required"}


def _tool(tool: Tool, where: str) -> Fields:
    if tool.type != "function" or tool.function is None:
        raise _unsupported(f"{where}.type", "a tool that is not a function")
    given = tool.function
    function: Fields = {"name": given.name, "parameters": given.parameters or {"type": "object", "properties": {}}}
    if given.description:
        function["description"] = given.description
    return {"type": "function", "function": function}


# ---- messages --------------------------------------------------------------------------------------------------------


def messages_of(messages: Sequence[Message]) -> Iterator[Fields]:
    """The messages of a chat in OpenAI's form."""
    called: dict[str, str] = {}
    for place, message in enumerate(messages):
        where = f"messages[{place}]"
        match message:
            case InstructionMessage():
                yield {"role": "system", "content": _content(message.content, where)}
            case UserMessage():
                yield {"role": "user", "content": _content(message.content, where)}
            case AssistantMessage():
                calls = [
                    _call(call, f"{where}.tool_calls[{number}]") for number, call in enumerate(message.tool_calls or ())
                ]
                called |= {call["id"]: call["function"]["name"] for call in calls}
                content = _content(message.content or _refusal(message), where)
                assistant: Fields = {"role": "assistant", "content": content}
                yield {**assistant, "tool_calls": calls} if calls else assistant
            case ToolMessage():
                name = called.get(message.tool_call_id)
                if name is None:
                    raise InvalidRequestError(
                        f"no message before it has a tool call with the id '{message.tool_call_id}'",
                        param=f"{where}.tool_call_id",
                    )
                answer = _content(message.content, where)
                yield {"role": "tool", "tool_call_id": message.tool_call_id, "name": name, "content": answer}
            case FunctionMessage():
                raise _unsupported(f"{where}.role", "role 'function', which 'tool' has replaced,")


def _refusal(message: AssistantMessage) -> str:
    """The content of a refusal."""
    text = (message.model_extra or {}).get("refusal")
    return text if isinstance(text, str) else ""


def _call(call: Any, where: str) -> Fields:
    if call.function is None:
        raise _unsupported(where, "a tool call that does not name a function")
    arguments = parse_arguments(call.function.arguments or "")
    if arguments is None:
        raise InvalidRequestError("must be a JSON object", param=f"{where}.function.arguments")
    function = {"name": call.function.name, "arguments": json.dumps(arguments)}
    return {"id": call.id, "type": "function", "function": function}


def _content(content: Content, where: str) -> str | list[Fields]:
    if isinstance(content, str):
        return content
    parts: list[Fields] = []
    for place, part in enumerate(content):
        match part:
            case TextPart():
                parts.append({"type": "text", "text": part.text})
            case ImagePart():
                url = _image_url(part, f"{where}.content[{place}].image_url.url")
                parts.append({"type": "image_url", "image_url": {"url": url}})
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _image_url(part: ImagePart, where: str) -> str:
    try:
        return str(ImageMedia(image=part.image_url.url).image)
    except ValueError:
        raise InvalidRequestError("must be an http, https or data URL", param=where) from None
