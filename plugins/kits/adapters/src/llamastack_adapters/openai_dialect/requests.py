"""OpenAI's form -> the body of a request to a backend that speaks OpenAI's dialect."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from llamastack.api.common import InterleavedTextMedia, SamplingStrategy
from llamastack.provider.errors import InvalidRequestError, NotSupportedError
from llamastack_adapters.openai_dialect.internal_form import as_json_schema, text_only
from llamastack_adapters.openai_dialect.model_families import FamilyOf, no_family
from llamastack_adapters.openai_dialect.protocols import OpenAIForm

__all__ = ["Dialect", "as_json_schema", "chat_body", "completion_body", "embeddings_body"]


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
    extra: fields beside OpenAI's that only this backend knows. A request of `/v1` may have them; they are passed on as
        they are.
    family: finds what is special about a model, by its name.
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
    extra: Collection[str] = frozenset()
    family: FamilyOf = no_family

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

    def samplers_of(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Those of `SAMPLERS` that are asked for. Raises NotSupportedError for one that the backend lacks."""
        given = {name: fields[name] for name in self.SAMPLERS if name in fields}
        for name, value in given.items():
            if name not in self.samplers and value != 0:
                raise self.unsupported(f"sampling_params.{name}", f"'{name}'")
        return {name: value for name, value in given.items() if name in self.samplers}

    def extra_of(self, form: OpenAIForm) -> dict[str, Any]:
        """The fields that only this backend knows. Raises InvalidRequestError for one that it does not know either."""
        for name in form.extra:
            if name not in self.extra:
                raise unknown_field(name)
        return dict(form.extra)

    def unsupported(self, param: str, what: str) -> NotSupportedError:
        """The error for `what`, which the argument `param` asks for."""
        return NotSupportedError(
            f"provider '{self.provider_id}' does not support {what}", provider_id=self.provider_id, param=param
        )


def unknown_field(name: str) -> InvalidRequestError:
    """The error for a field that neither OpenAI's API nor the backend has."""
    fault = {"loc": [name], "msg": "unknown field", "type": "extra_forbidden"}
    return InvalidRequestError(f"{name}: unknown field", param=name, errors=[fault])


def chat_body(dialect: Dialect, form: OpenAIForm, model: str) -> dict[str, Any]:
    """The body of `POST /chat/completions`.

    model: the backend's name for the model. Raises NotSupportedError, naming the native parameter, for what the dialect
    has no word for.
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
        # Not 0: some backends then give none at all, not even that of the chosen token.
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
    if dialect.max_tokens == "max_completion_tokens":  # which is a field of chats alone
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
        if message["role"] == "tool":  # OpenAI's have no name
            message = {name: value for name, value in message.items() if name != "name"}
        out.append(message)
    return out


def has_images(message: Mapping[str, Any]) -> bool:
    """Whether a message in OpenAI's form has an image in it."""
    content = message["content"]
    return isinstance(content, list) and any(part["type"] == "image_url" for part in content)


def sampling_of(dialect: Dialect, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What a request in OpenAI's form says of sampling, in the backend's words."""
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
