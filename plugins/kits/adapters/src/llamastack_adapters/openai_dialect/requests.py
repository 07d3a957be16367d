"""OpenAI's form -> the body of a request to a backend that speaks OpenAI's dialect."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from llamastack.api.common import InterleavedTextMedia, SamplingStrategy
from llamastack.provider.errors import InvalidRequestError, NotSupportedError
from llamastack_adapters.openai_dialect.model_families import FamilyOf, no_family
from llamastack_adapters.openai_dialect.protocols import OpenAIForm
from llamastack_adapters.openai_dialect.requests_from_native import as_json_schema, text_only

__all__ = ["Dialect", "as_json_schema", "chat_body", "completion_body", "embeddings_body"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a backend differs. None means that it lacks the field: a request that needs it is refused.

    provider_id: for error messages.
    max_tokens: name of a chat's field for the longest reply; a text completion has `max_tokens`.
    top_k: name of the field for top_k sampling.
    repetition_penalty: name of the field for a repetition penalty.
    seed: name of the field for a seed.
    tool_choice_required: the value of `tool_choice` by which a tool must be called.
    response_format: makes the field `response_format` of a chat out of a JSON schema.
    completion_response_format: the same for a text completion.
    top_logprobs: False if a chat's `logprobs` is itself the number of log probabilities.
    images: whether messages may hold images.
    stream_usage: whether to ask for the usage of streams, by `stream_options`.
    samplers: which of `SAMPLERS` it has, under these names.
    other_names: further fields that it names differently: OpenAI's name -> its own. They are renamed in forwarded
    requests.
    not_forwarded: fields of OpenAI's API that it refuses; a request with one is translated, which leaves it out.
    only: fields that a sampling strategy adds, so that the backend applies no other samplers by default.
    extra: fields that only this backend knows. A request of `/v1` may have them; they are passed on unchanged.
    family: finds the family of a model by its name.
    """

    SAMPLERS: ClassVar[tuple[str, ...]] = ("frequency_penalty", "presence_penalty", "min_p", "logit_bias")
    """The fields of `SamplingParams` that some backends lack."""

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
    extra: Collection[str] = frozenset()
    family: FamilyOf = no_family

    def speaks(self, fields: Collection[str]) -> bool:
        """Whether the backend takes all these fields of OpenAI's API in OpenAI's form, under any name."""
        return not (
            ("logprobs" in fields and not self.top_logprobs)
            or ("seed" in fields and self.seed is None)
            or ("response_format" in fields and self.response_format is not as_json_schema)
            or (bool(self.not_forwarded) and not self.not_forwarded.isdisjoint(fields))
        )

    def renamed(self, fields: Collection[str], route: str = "chat/completions") -> dict[str, str]:
        """The fields among these that the backend names differently -> its names.

        route: as in `OpenAIRequest`. Raises InvalidRequestError if one is given by both names.
        """
        longest = self.max_tokens if route == "chat/completions" else "max_tokens"
        own = {"max_tokens": longest, "seed": self.seed or "seed", **self.other_names}
        others = {name: other for name, other in own.items() if name != other and name in fields}
        for name, other in others.items():
            if other in fields:
                raise InvalidRequestError(f"'{name}' and '{other}' are the same here: give one of them", param=name)
        return others

    def samplers_of(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The requested fields of `SAMPLERS`. Raises NotSupportedError for one that the backend lacks."""
        taken: dict[str, Any] = {}
        for name in self.SAMPLERS:
            if name not in fields:
                continue
            if name in self.samplers:
                taken[name] = fields[name]
            elif fields[name] != 0:
                raise self.unsupported(f"sampling_params.{name}", f"'{name}'")
        return taken

    def extra_of(self, form: OpenAIForm) -> dict[str, Any]:
        """The fields that only this backend knows. Raises InvalidRequestError for an unknown field."""
        for name in form.extra:
            if name not in self.extra:
                raise unknown_field(name)
        return dict(form.extra)

    def unsupported(self, param: str, what: str) -> NotSupportedError:
        """The error for `what`, which the argument `param` requests."""
        return NotSupportedError(
            f"provider '{self.provider_id}' does not support {what}", provider_id=self.provider_id, param=param
        )


def unknown_field(name: str) -> InvalidRequestError:
    """The error for a field that neither OpenAI's API nor the backend has."""
    fault = {"loc": [name], "msg": "unknown field", "type": "extra_forbidden"}
    return InvalidRequestError(f"{name}: unknown field", param=name, errors=[fault])


def chat_body(dialect: Dialect, form: OpenAIForm, model: str) -> dict[str, Any]:
    """The body of `POST /chat/completions`.

    model: the backend's name for the model. Raises NotSupportedError, naming the native parameter, for a field that the
    dialect lacks.
    """
    family = dialect.family(model)
    if family is not None:
        form = family.adapted(form, dialect.provider_id)
        if family.max_tokens is not None and dialect.max_tokens == "max_tokens":
            dialect = replace(dialect, max_tokens=family.max_tokens)
    fields = form.fields
    body: dict[str, Any] = {"model": model, "messages": _messages(dialect, fields["messages"])}
    body.update(sampling_of(dialect, fields))
    if "tools" in fields:
        body["tools"] = fields["tools"]
        choice = fields.get("tool_choice")
        if choice == "required" and dialect.tool_choice_required is None:
            raise dialect.unsupported("tool_choice", "tool_choice 'required'")
        if choice is not None:
            body["tool_choice"] = dialect.tool_choice_required if choice == "required" else choice
    if form.stream:
        body |= _streaming(dialect)
    if "logprobs" in fields:
        # Not 0: some backends then omit even the chosen token's.
        most = max(fields.get("top_logprobs", 0), 1)
        body |= {"logprobs": True, "top_logprobs": most} if dialect.top_logprobs else {"logprobs": most}
    schema = form.json_schema
    if schema is not None:
        if dialect.response_format is None:
            raise dialect.unsupported("response_format", "a JSON schema")
        body["response_format"] = dialect.response_format(schema)
    return body | dialect.extra_of(form) if form.extra else body


def completion_body(dialect: Dialect, form: OpenAIForm, model: str) -> dict[str, Any]:
    """The body of `POST /completions`; as `chat_body`."""
    body: dict[str, Any] = {"model": model, "prompt": form.fields["prompt"]}
    if dialect.max_tokens == "max_completion_tokens":  # only chats have this field
        dialect = replace(dialect, max_tokens="max_tokens")
    body.update(sampling_of(dialect, form.fields))
    if form.stream:
        body |= _streaming(dialect)
    if "logprobs" in form.fields:
        body["logprobs"] = max(form.fields["logprobs"], 1)
    schema = form.json_schema
    if schema is not None:
        if dialect.completion_response_format is None:
            raise dialect.unsupported("response_format", "a JSON schema for a text completion")
        body["response_format"] = dialect.completion_response_format(schema)
    return body | dialect.extra_of(form) if form.extra else body


def embeddings_body(dialect: Dialect, *, model: str, contents: Sequence[InterleavedTextMedia]) -> dict[str, Any]:
    """The body of `POST /embeddings`."""
    texts = [text_only(content, dialect.provider_id, f"contents[{place}]") for place, content in enumerate(contents)]
    return {"model": model, "input": texts, "encoding_format": "float"}


def _streaming(dialect: Dialect) -> dict[str, Any]:
    return {"stream": True, "stream_options": {"include_usage": True}} if dialect.stream_usage else {"stream": True}


def _messages(dialect: Dialect, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for message in messages:
        if not dialect.images and has_images(message):
            raise dialect.unsupported("messages", "images in messages")
        if message["role"] == "tool":  # OpenAI's tool messages have no name
            message = {name: value for name, value in message.items() if name != "name"}
        out.append(message)
    return out


def has_images(message: Mapping[str, Any]) -> bool:
    """Whether a message in OpenAI's form has an image in it."""
    content = message["content"]
    return isinstance(content, list) and any(part["type"] == "image_url" for part in content)


def sampling_of(dialect: Dialect, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling fields of a request in OpenAI's form, under the backend's names."""
    body: dict[str, Any] = {}
    if "top_k" in fields:
        body.update(dialect.only.get(SamplingStrategy.top_k, ()))
    elif "top_p" in fields:
        body.update(dialect.only.get(SamplingStrategy.top_p, ()))
    for name in ("temperature", "top_p"):
        if name in fields:
            body[name] = fields[name]
    if fields.get("top_k"):
        if dialect.top_k is None:
            raise dialect.unsupported("sampling_params.top_k", "top_k sampling")
        body[dialect.top_k] = fields["top_k"]
    if "max_tokens" in fields:
        body[dialect.max_tokens] = fields["max_tokens"]
    if "repetition_penalty" in fields:
        if dialect.repetition_penalty is None:
            raise dialect.unsupported("sampling_params.repetition_penalty", "a repetition penalty")
        body[dialect.repetition_penalty] = fields["repetition_penalty"]
    body |= dialect.samplers_of(fields)
    if "stop" in fields:
        body["stop"] = fields["stop"]
    if "seed" in fields:
        if dialect.seed is None:
            raise dialect.unsupported("sampling_params.seed", "a seed")
        body[dialect.seed] = fields["seed"]
    return body
