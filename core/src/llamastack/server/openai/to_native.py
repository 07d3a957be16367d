"""OpenAI's requests -> arguments of native calls. What a native call has no word for is refused, by its name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from llamastack.api.common import (
    CompletionMessage,
    ImageMedia,
    InterleavedTextMedia,
    SamplingParams,
    SamplingStrategy,
    StopReason,
    SystemMessage,
    ToolChoice,
    ToolDefinition,
    ToolParamDefinition,
    ToolResponseMessage,
)
from llamastack.api.common import Message as NativeMessage
from llamastack.api.common import ToolCall as NativeToolCall
from llamastack.api.common import UserMessage as NativeUserMessage
from llamastack.api.inference import JsonSchemaResponseFormat, LogProbConfig
from llamastack.provider.errors import InvalidRequestError, NotSupportedError
from llamastack.provider.validation import faults_of
from llamastack.server.openai.requests import (
    AssistantMessage,
    ChatCompletionRequest,
    CompletionRequest,
    Content,
    EmbeddingsRequest,
    FunctionMessage,
    GenerationRequest,
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

WITHOUT_EFFECT = (
    "user",
    "metadata",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prediction",
)
"""Fields that say where and how a request is handled at OpenAI, and change nothing in the answer."""
PASSED_OVER = ("name", "description", "index", "parsed", "parsed_arguments", "include_obfuscation")
"""The same of what is inside the fields; some are there because a client sends back what it has been given."""
NOT_NATIVE = (
    "frequency_penalty", "presence_penalty", "logit_bias", "modalities", "audio", "store", "reasoning_effort",
    "verbosity", "web_search_options", "functions", "function_call", "echo", "suffix", "best_of", "dimensions",
)  # fmt: skip
"""OpenAI's fields that no native call has a word for."""
_INSTEAD = {"functions": "tools", "function_call": "tool_choice"}
# What these say is what happens anyway.
AS_IT_IS: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "store": (False,),
    "echo": (False,),
    "suffix": ("",),
    "best_of": (1,),
    "functions": ([],),
}
CHAT_FIELDS = (
    "model", "messages", "stream", "stream_options", "n", "max_tokens", "max_completion_tokens", "temperature",
    "top_p", "seed", "stop", "tools", "tool_choice", "parallel_tool_calls", "response_format", "logprobs",
    "top_logprobs",
)  # fmt: skip
"""Fields of a chat that can be said natively."""
COMPLETION_FIELDS = (
    "model", "prompt", "stream", "stream_options", "n", "max_tokens", "temperature", "top_p", "seed", "stop",
    "logprobs",
)  # fmt: skip
"""The same of a text completion."""
EMBEDDINGS_FIELDS = ("model", "input", "encoding_format")
"""The same of embeddings."""
_LARGEST_SEED = 2**32 - 1
_HIGHEST_TEMPERATURE = 2


def _unsupported(param: str, what: str | None = None) -> NotSupportedError:
    return NotSupportedError(f"{what or f'{param!r}'} is not supported with this model", param=param)


def _refuse_others(request: OpenAIModel, known: Iterable[str]) -> None:
    for name in (*type(request).model_fields, *(request.model_extra or ())):
        value = getattr(request, name)
        if name in known:
            _refuse_extras(value, name)
        if value is None or name in known or name in WITHOUT_EFFECT or value in AS_IT_IS.get(name, ()):
            continue
        if name not in NOT_NATIVE:
            fault = {"loc": [name], "msg": "unknown field", "type": "extra_forbidden"}
            raise InvalidRequestError(f"{name}: unknown field", param=name, errors=[fault])
        instead = _INSTEAD.get(name)
        raise _unsupported(name, f"'{name}', which '{instead}' has replaced," if instead else None)


def _refuse_extras(part: object, where: str) -> None:
    """Of an object inside a request, and what is in it: replies that are sent back have fields that are empty."""
    if isinstance(part, list):
        for place, one in enumerate(part):
            _refuse_extras(one, f"{where}[{place}]")
    elif isinstance(part, OtherPart):
        raise _unsupported(where, f"a part of type '{part.type}'")
    elif isinstance(part, OpenAIModel):
        for name, value in (part.model_extra or {}).items():
            if name not in PASSED_OVER and value not in (None, [], {}, ""):
                raise _unsupported(f"{where}.{name}")
        for name, value in vars(part).items():
            _refuse_extras(value, f"{where}.{name}")


def chat_arguments(request: ChatCompletionRequest) -> dict[str, Any]:
    """Arguments of `chat_completion` but for `model`, `stream` and the number of answers.

    Raises InvalidRequestError, NotSupportedError, naming the field.
    """
    _refuse_others(request, CHAT_FIELDS)
    arguments: dict[str, Any] = {"messages": list(_messages(request.messages))}
    longest = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
    arguments["sampling_params"] = _sampling(request, longest)
    if request.tools and request.tool_choice != "none":
        arguments |= _tools(request.tools, request.tool_choice)
    elif request.tool_choice not in (None, "none", "auto"):
        raise InvalidRequestError("'tool_choice' needs 'tools'", param="tool_choice")
    if request.temperature is not None and request.temperature > _HIGHEST_TEMPERATURE:
        raise InvalidRequestError(f"must be at most {_HIGHEST_TEMPERATURE}", param="temperature")
    if request.logprobs:
        arguments["logprobs"] = LogProbConfig(top_k=request.top_logprobs or 0)
    elif request.top_logprobs:
        raise InvalidRequestError("'top_logprobs' needs 'logprobs': true", param="top_logprobs")
    response_format = _response_format(request.response_format)
    if response_format is not None:
        arguments["response_format"] = response_format
    return arguments


def completion_arguments(request: CompletionRequest) -> list[dict[str, Any]]:
    """Arguments of `completion` for each prompt, but for `model`, `stream` and the number of answers."""
    _refuse_others(request, COMPLETION_FIELDS)
    prompts = _texts(request.prompt, "prompt")
    if request.max_tokens == 0:
        raise InvalidRequestError("must be at least 1 for this model", param="max_tokens")
    # 16 where it is left out, as OpenAI has it.
    common: dict[str, Any] = {
        "sampling_params": _sampling(request, 16 if request.max_tokens is None else request.max_tokens)
    }
    if request.logprobs is not None:
        common["logprobs"] = LogProbConfig(top_k=request.logprobs)
    return [{"content": prompt, **common} for prompt in prompts]


def embeddings_arguments(request: EmbeddingsRequest) -> dict[str, Any]:
    """Arguments of `embeddings` but for `model`."""
    _refuse_others(request, EMBEDDINGS_FIELDS)
    return {"contents": _texts(request.input, "input")}


def asked_of_chat(request: ChatCompletionRequest) -> dict[str, Any]:
    """The parameters of `chat_completion` that a provider may declare it cannot take, as far as they are asked for."""
    images = [
        ImageMedia(image="data:,")
        for message in request.messages
        for part in _parts(getattr(message, "content", None))
        if isinstance(part, ImagePart)
    ]
    return {
        "stream": request.stream,
        "tools": request.tools,
        "logprobs": request.logprobs,
        "response_format": None if request.response_format is None else request.response_format.type != "text",
        "messages": images,
    }


def asked_of_completion(request: CompletionRequest) -> dict[str, Any]:
    """The same of `completion`."""
    return {"stream": request.stream, "logprobs": request.logprobs is not None}


def _texts(given: object, param: str) -> list[str]:
    if isinstance(given, str):
        return [given]
    texts = given if isinstance(given, list) else []
    if not texts:
        raise InvalidRequestError(f"'{param}' must not be empty", param=param)
    if not all(isinstance(text, str) for text in texts):
        raise _unsupported(param, f"'{param}' as token ids instead of text")
    return texts


# ---- sampling --------------------------------------------------------------------------------------------------------


def _sampling(request: GenerationRequest, longest: int | None) -> SamplingParams:
    given: dict[str, Any] = {"max_tokens": longest or 0}
    if request.temperature == 0:
        given["strategy"] = SamplingStrategy.greedy
    else:
        # 1 and 1 where they are left out, as OpenAI has it.
        given["strategy"] = SamplingStrategy.top_p
        given["temperature"] = 1.0 if request.temperature is None else request.temperature
        given["top_p"] = 1.0 if request.top_p is None else request.top_p
    if request.stop:
        given["stop"] = [request.stop] if isinstance(request.stop, str) else request.stop
    if request.seed is not None:
        if not 0 <= request.seed <= _LARGEST_SEED:
            raise InvalidRequestError(f"must be from 0 to {_LARGEST_SEED} for this model", param="seed")
        given["seed"] = request.seed
    return SamplingParams(**given)


def _response_format(given: ResponseFormat | None) -> JsonSchemaResponseFormat | None:
    if given is None or given.type == "text":
        return None
    if given.type == "json_object":
        return JsonSchemaResponseFormat(json_schema={"type": "object"})
    if given.type != "json_schema":
        raise _unsupported("response_format.type", f"response_format '{given.type}'")
    schema = None if given.json_schema is None else given.json_schema.schema_
    if schema is None:
        raise InvalidRequestError(
            "'response_format.json_schema.schema' is missing", param="response_format.json_schema.schema"
        )
    try:
        return JsonSchemaResponseFormat(json_schema=schema)
    except ValidationError as error:
        fault = faults_of(error, JsonSchemaResponseFormat)[0]
        raise InvalidRequestError(fault["msg"], param="response_format.json_schema.schema") from None


# ---- tools -----------------------------------------------------------------------------------------------------------


def _tools(tools: Sequence[Tool], choice: str | dict[str, Any] | None) -> dict[str, Any]:
    defined = [_tool(tool, f"tools[{place}]") for place, tool in enumerate(tools)]
    if choice is None or choice == "auto":
        return {"tools": defined}
    if choice == "required":
        return {"tools": defined, "tool_choice": ToolChoice.required}
    function = choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
    if not isinstance(function, dict):
        raise InvalidRequestError(
            "must be 'none', 'auto', 'required' or a function; allowed tools and custom tools are not supported",
            param="tool_choice",
        )
    # A model that has one tool and must call one calls this one.
    chosen = [tool for tool in defined if tool.tool_name == function.get("name")]
    if not chosen:
        raise InvalidRequestError(f"there is no tool {function.get('name')!r} in 'tools'", param="tool_choice")
    return {"tools": chosen, "tool_choice": ToolChoice.required}


def _tool(tool: Tool, where: str) -> ToolDefinition:
    if tool.type != "function" or tool.function is None:
        raise _unsupported(f"{where}.type", "a tool that is not a function")
    function = tool.function
    schema = function.parameters or {"type": "object", "properties": {}}
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not all(isinstance(value, dict) for value in properties.values()):
        properties = {}
    required = schema.get("required")
    return ToolDefinition(
        tool_name=function.name,
        description=function.description,
        parameters={
            name: _parameter(value, required=isinstance(required, list) and name in required)
            for name, value in properties.items()
        },
        input_schema=schema,
    )


def _parameter(schema: Mapping[str, Any], *, required: bool) -> ToolParamDefinition:
    kind = schema.get("type")
    description = schema.get("description")
    return ToolParamDefinition(
        # What is no single type (a reference, a choice) stands in the schema of the tool.
        param_type=kind if isinstance(kind, str) else "object",
        description=description if isinstance(description, str) else None,
        required=required,
        default=schema.get("default"),
    )


# ---- messages --------------------------------------------------------------------------------------------------------


def _messages(messages: Sequence[Message]) -> Iterator[NativeMessage]:
    called: dict[str, str] = {}
    for place, message in enumerate(messages):
        where = f"messages[{place}]"
        match message:
            case InstructionMessage():
                yield SystemMessage(content=_content(message.content, where))
            case UserMessage():
                yield NativeUserMessage(content=_content(message.content, where))
            case AssistantMessage():
                calls = [
                    _call(call, f"{where}.tool_calls[{number}]") for number, call in enumerate(message.tool_calls or ())
                ]
                called |= {call.call_id: str(call.tool_name) for call in calls}
                yield CompletionMessage(
                    content=_content(message.content or "", where),
                    stop_reason=StopReason.end_of_message if calls else StopReason.end_of_turn,
                    tool_calls=calls,
                )
            case ToolMessage():
                name = called.get(message.tool_call_id)
                if name is None:
                    raise InvalidRequestError(
                        f"no message before it has a tool call with the id '{message.tool_call_id}'",
                        param=f"{where}.tool_call_id",
                    )
                yield ToolResponseMessage(
                    call_id=message.tool_call_id, tool_name=name, content=_content(message.content, where)
                )
            case FunctionMessage():
                raise _unsupported(f"{where}.role", "role 'function', which 'tool' has replaced,")


def _call(call: Any, where: str) -> NativeToolCall:
    if call.function is None:
        raise _unsupported(where, "a tool call that is not one of a function")
    try:
        arguments = json.loads(call.function.arguments or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise InvalidRequestError("must be a JSON object", param=f"{where}.function.arguments")
    return NativeToolCall(call_id=call.id, tool_name=call.function.name, arguments=arguments)


def _parts(content: Content | None) -> Sequence[Any]:
    return content if isinstance(content, list) else ()


def _content(content: Content, where: str) -> InterleavedTextMedia:
    if isinstance(content, str):
        return content
    made: list[str | ImageMedia] = []
    for place, part in enumerate(content):
        match part:
            case TextPart():
                made.append(part.text)
            case ImagePart():
                made.append(_image(part, f"{where}.content[{place}].image_url.url"))
    return made[0] if len(made) == 1 and isinstance(made[0], str) else made


def _image(part: ImagePart, where: str) -> ImageMedia:
    try:
        return ImageMedia(image=part.image_url.url)
    except ValueError:
        raise InvalidRequestError("must be an http, https or data URL", param=where) from None
