"""What an inference provider may implement beside the native API, to take requests in OpenAI's form as they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from llamastack_adapters.openai_dialect.json_members import renamed, with_string


# perf: llamastack-v1. Not frozen, as that makes each take three times as long; nobody changes one.
@dataclass(slots=True)
class OpenAIRequest:
    """A request to the OpenAI-compatible surface, as the client wrote it.

    Format: https://platform.openai.com/docs/api-reference.
    """

    route: str
    """Below `/v1/`: `chat/completions`, `completions` or `embeddings`."""
    model: str
    """The identifier of the model, as the stack knows it."""
    body: bytes
    """JSON, whose `model` may be another name of the same model, such as `provider_id/identifier`."""
    given: Collection[str]
    """Names of the fields in it that have a value."""
    stream: bool
    """Whether the client wants events."""
    named: str
    """The `model` of the body."""

    def body_for(self, name: str, others: Mapping[str, str] | None = None) -> bytes:
        """The body for a backend that calls the model `name`: the client's own bytes where it does so too.

        others: names of other fields that it has, and what the backend calls them.
        """
        body = self.body if name == self.named else with_string(self.body, "model", name)
        for field_name, other in (others or {}).items():
            body = renamed(body, field_name, other)
        return body


@dataclass(frozen=True, slots=True)
class OpenAIForm:
    """A chat or a text completion in the one form that `/v1` has for it inside: OpenAI's, found valid.

    Format: https://platform.openai.com/docs/api-reference/chat/create and /completions/create.
    """

    model: str
    """The identifier of the model, as the stack knows it."""
    fields: Mapping[str, Any]
    """OpenAI's fields but for `model`, `stream` and `n`. None is null, and each says something:

    - `messages` of the roles system, user, assistant and tool, each with `content`: a text, or parts of the types
      `text` and `image_url`. An assistant's may have `tool_calls`; a tool's has `tool_call_id`, and the `name` of the
      tool. A text completion has `prompt` instead, a text.
    - `temperature`, `top_p`, `top_k`, `min_p`, `repetition_penalty`, `frequency_penalty`, `presence_penalty`,
      `logit_bias`, `seed`, `stop` (a list), `max_tokens` (for `max_completion_tokens`, too). Where none of
      `temperature`, `top_p` and `top_k` is there, the model's own defaults count. With `top_p` or `top_k`, no sampler
      is applied that is not named.
    - `tools` of the type `function`, each with `parameters`, and `tool_choice`: `auto` or `required`.
    - `parallel_tool_calls`, only where it is false.
    - `logprobs` (true) and `top_logprobs` of a chat; `logprobs`, a number, of a text completion.
    - `response_format` of the type `json_schema`.
    """
    stream: bool = False
    """Whether the client wants chunks."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields that OpenAI's API does not have, as the client wrote them: the backend may know them."""

    @property
    def json_schema(self) -> dict[str, Any] | None:
        """The JSON schema that the reply must fit."""
        given = self.fields.get("response_format")
        schema: dict[str, Any] | None = None if given is None else given["json_schema"]["schema"]
        return schema

    def with_fields(self, **fields: Any) -> OpenAIForm:
        """The same request with other values of some fields."""
        return replace(self, fields={**self.fields, **fields})


class OpenAIProtocolPrivate(Protocol):
    """May be implemented by an inference provider, each method by itself. `/v1` asks for `forward_openai` first, then
    for the form, and calls the native method where the provider has neither.
    """

    async def takes_openai(self, request: OpenAIRequest) -> bool:
        """Whether `forward_openai` can answer it; without this it can answer all.

        False where this backend differs from OpenAI's API in one of the fields that are given: `/v1` then goes on as if
        the provider lacked `forward_openai`.
        """
        ...

    async def forward_openai(self, request: OpenAIRequest) -> bytes | AsyncIterator[bytes]:
        """The answer of a backend that speaks OpenAI's API, as it came: JSON, or for a stream blocks of one or several
        whole events.

        An iterator must not end before `data: [DONE]`, and raises where the backend breaks off. Raises what the native
        methods raise.
        """
        ...

    async def openai_chat(self, form: OpenAIForm) -> Mapping[str, Any] | AsyncIterator[Mapping[str, Any]]:
        """Answer a chat: `{"choices": [choice], "usage": ...}`, or chunks of that form, of one choice each.

        A choice has `message` (in a chunk `delta`), `logprobs` and `finish_reason` as OpenAI has them; `usage` is null
        where it is not known, and in a stream stands in the last chunk. The server adds the rest. Raises what the
        native methods raise; fields of `extra` that the backend does not know are InvalidRequestErrors.
        """
        ...

    async def openai_completion(self, form: OpenAIForm) -> Mapping[str, Any] | AsyncIterator[Mapping[str, Any]]:
        """Continue a text; as `openai_chat`, but a choice has `text`, in chunks too."""
        ...
