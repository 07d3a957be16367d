"""Optional methods of an inference provider, which take requests in OpenAI's form."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from llamastack_adapters.openai_dialect.json_members import renamed, with_string


# perf: llamastack-v1. Not frozen, because that makes an instance take three times as long. Nobody changes one.
@dataclass(slots=True)
class OpenAIRequest:
    """A request to `/v1`, as the client wrote it.

    Format: https://platform.openai.com/docs/api-reference.
    """

    route: str
    """Below `/v1/`: `chat/completions`, `completions` or `embeddings`."""
    model: str
    """The identifier of the model, as the stack knows it."""
    body: bytes
    """The JSON text. Its `model` may be another name of the same model, such as `provider_id/identifier`."""
    given: Collection[str]
    """Names of its fields that have a value."""
    stream: bool
    """Whether the client wants a stream."""
    named: str
    """The `model` in the body."""

    def body_for(self, name: str, others: Mapping[str, str] | None = None) -> bytes:
        """The body for a backend that calls the model `name`; the client's own bytes if it uses that name.

        others: fields of the body -> the backend's names for them.
        """
        body = self.body if name == self.named else with_string(self.body, "model", name)
        for field_name, other in (others or {}).items():
            body = renamed(body, field_name, other)
        return body


class OpenAIForm(NamedTuple):
    """A valid chat or text completion in OpenAI's form, which `/v1` uses internally.

    Format: https://platform.openai.com/docs/api-reference/chat/create and /completions/create.
    """

    model: str
    """The identifier of the model, as the stack knows it."""
    fields: Mapping[str, Any]
    """OpenAI's fields without `model`, `stream` and `n`. No field is null or has its default:

    - `messages` of the roles system, user, assistant and tool, each with `content`: a text, or parts of the types
      `text` and `image_url`. An assistant's may have `tool_calls`; a tool's has `tool_call_id`, and the `name` of the
      tool. A text completion has `prompt` instead, a text.
    - `temperature`, `top_p`, `top_k`, `min_p`, `repetition_penalty`, `frequency_penalty`, `presence_penalty`,
      `logit_bias`, `seed`, `stop` (a list), `max_tokens` (for `max_completion_tokens`, too). Without `temperature`,
      `top_p` and `top_k` the model's defaults count. With `top_p` or `top_k`, only the named samplers are applied.
    - `tools` of the type `function`, each with `parameters`, and `tool_choice`: `auto` or `required`.
    - `parallel_tool_calls`, only if it is false.
    - `logprobs` (true) and `top_logprobs` of a chat; `logprobs`, a number, of a text completion.
    - `response_format` of the type `json_schema`.
    """
    stream: bool = False
    """Whether the client wants chunks."""
    extra: Mapping[str, Any] = MappingProxyType({})
    """Fields that OpenAI's API does not have, as the client wrote them. The backend may know them."""

    @property
    def json_schema(self) -> dict[str, Any] | None:
        """The JSON schema that the reply must fit."""
        given = self.fields.get("response_format")
        schema: dict[str, Any] | None = None if given is None else given["json_schema"]["schema"]
        return schema

    def with_fields(self, **fields: Any) -> OpenAIForm:
        """The same request with other values of some fields."""
        return self._replace(fields={**self.fields, **fields})


class OpenAIProtocolPrivate(Protocol):
    """Optional methods of an inference provider; each can be implemented alone. `/v1` tries `forward_openai` first,
    then the form, then the native method.
    """

    async def takes_openai(self, request: OpenAIRequest) -> bool:
        """Whether `forward_openai` can answer this request; without this method it can answer all.

        False if the backend differs from OpenAI's API in a given field: `/v1` then continues as if the provider lacked
        `forward_openai`.
        """
        ...

    async def forward_openai(self, request: OpenAIRequest) -> bytes | AsyncIterator[bytes]:
        """The unchanged answer of a backend that speaks OpenAI's API: JSON, or for a stream blocks of one or several
        whole events.

        An iterator must not end before `data: [DONE]`, and raises if the backend breaks off. Raises what the native
        methods raise.
        """
        ...

    async def openai_chat(self, form: OpenAIForm) -> Mapping[str, Any] | AsyncIterator[Mapping[str, Any]]:
        """Answer a chat: `{"choices": [choice], "usage": ...}`, or chunks of that form, of one choice each.

        A choice has `message` (in a chunk `delta`), `logprobs` and `finish_reason` as OpenAI has them; `usage` is null
        if it is unknown; in a stream the last chunk has it. The server adds the rest. Raises what the native methods
        raise; fields of `extra` that the backend does not know are InvalidRequestErrors.
        """
        ...

    async def openai_completion(self, form: OpenAIForm) -> Mapping[str, Any] | AsyncIterator[Mapping[str, Any]]:
        """Continue a text; as `openai_chat`, but a choice has `text`, in chunks too."""
        ...
