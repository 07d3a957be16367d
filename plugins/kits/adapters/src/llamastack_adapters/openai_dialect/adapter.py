"""The base of adapters for backends that speak the OpenAI dialect."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

from pydantic import SecretStr

from llamastack.api.common import InterleavedTextMedia
from llamastack.api.inference import EmbeddingsResponse
from llamastack.api.models import Model
from llamastack.provider.deps import Deps
from llamastack.provider.errors import BackendError, InvalidRequestError, LlamaStackError, NotSupportedError
from llamastack.provider.redaction import without_known_secrets
from llamastack.provider.streams import Stream
from llamastack_adapters.backend import HttpBackend
from llamastack_adapters.credentials import ApiKey
from llamastack_adapters.event_streams import EventStream
from llamastack_adapters.openai_dialect.config import OpenAIConfig, StreamUsageConfig
from llamastack_adapters.openai_dialect.model_families import families
from llamastack_adapters.openai_dialect.openai_form_inference import (
    BackendReply,
    FormChatInference,
    FormCompletionInference,
)
from llamastack_adapters.openai_dialect.protocols import OpenAIForm, OpenAIRequest
from llamastack_adapters.openai_dialect.replies import embeddings_response
from llamastack_adapters.openai_dialect.requests import Dialect, chat_body, completion_body, embeddings_body
from llamastack_adapters.openai_dialect.streams import forwarded
from llamastack_adapters.remote_inference import RemoteConfig, RemoteInference

_LOGGER = logging.getLogger("llamastack.provider")
_MOST_FIELDS = 10  # of an entry, in an error
_USAGE_REFUSED = re.compile("stream_options|include_usage")
_NO_ROUTE = (404, 405)
_CANNOT = {
    "chat/completions": "does not chat",
    "completions": "does not complete texts",
    "embeddings": "does not embed",
}
_T = TypeVar("_T")


class OpenAIInference(FormChatInference, FormCompletionInference, RemoteInference):
    """Serves models of a backend that speaks the OpenAI dialect.

    A subclass states how its backend differs: by the class variables, its `Dialect`, and the listing of models.
    """

    key_field: ClassVar[str | None] = None
    """Field of the provider data that holds a client's own key; None if clients send none."""
    key_name: ClassVar[str] = "api_key"
    """Key of the config that holds the operator's key."""
    key_in_header: ClassVar[str | None] = None
    """The name of the header that holds the key alone, such as `X-Api-Key`; None: `Authorization: Bearer`."""
    key_needed: ClassVar[bool] = True
    """Whether the backend is known to refuse calls without a key."""
    api_path: ClassVar[str] = ""
    """The path between the URL and `/chat/completions`."""

    def __init__(
        self,
        config: RemoteConfig,
        deps: Deps,
        dialect: Dialect,
        *,
        url: object,
        key: SecretStr | ApiKey | None,
        **options: Any,
    ) -> None:
        """Nothing is opened before the first call.

        config: its aliases, time limits and retries count.
        deps: what the factory received.
        dialect: how the backend differs.
        url: base URL of the backend's API, as configured.
        key: the operator's key, as configured; an `ApiKey` if the class variables about the key do not fit.
        options: for `http_client`.
        """
        super().__init__(config, deps)
        if isinstance(config, StreamUsageConfig) and not config.stream_usage:
            dialect = replace(dialect, stream_usage=False)
        overrides = config.model_families if isinstance(config, OpenAIConfig) else {}
        family = families({self.backend_name(name): chosen for name, chosen in overrides.items()})
        self.dialect = replace(dialect, family=family)
        """How the backend differs."""
        if not isinstance(key, ApiKey):
            key = ApiKey(
                deps,
                key,
                field=self.key_field,
                config_key=self.key_name,
                needed=self.key_needed,
                header=self.key_in_header,
            )
        self.key = key
        """The key of requests."""
        self.backend = HttpBackend(
            str(url), config, headers=self.request_headers, explained=self.key.explained, **options
        )
        """The connection to the backend."""

    @property
    def has_key(self) -> bool:
        return self.key.configured or not self.key.from_clients

    def request_headers(self) -> Mapping[str, str]:
        """The headers of each request: the key. Raises as `ApiKey.value` does."""
        return self.key.headers()

    def path_of(self, route: str, model: str = "") -> str:
        """The path of `route`, such as `chat/completions`, below the URL.

        model: the backend's name of the model; "" if the route needs none.
        """
        return f"{self.api_path}/{route}"

    async def shutdown(self) -> None:
        await self.backend.aclose()

    async def served(self) -> list[Model]:
        return self.models_of(await self.listed(self.path_of("models")))

    async def listed(self, path: str) -> list[Mapping[str, Any]]:
        """The entries of the list at `path`: `{"data": [...]}` or a bare list. Raises BackendError for anything else.

        `models_of` reads the entries, so that they need no `id` if a subclass overrides it, or `name_of`.
        """
        answer = await self.backend.get(path)
        entries = answer.get("data") if isinstance(answer, dict) else answer
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise BackendError(f"{self.backend.where} answered something else than a list of models at {path}")
        return entries

    def models_of(self, entries: Iterable[Mapping[str, Any]]) -> list[Model]:
        """The models of a list. Metadata: `context_length` in tokens, if the backend reports it."""
        return self.named((self.name_of(entry), _about(entry)) for entry in entries)

    def name_of(self, entry: Mapping[str, Any]) -> str:
        """The backend's name for the model of an entry: its `id`. Raises BackendError if it has none."""
        name = entry.get("id")
        if not isinstance(name, str):
            fields = ", ".join(sorted(map(str, entry))[:_MOST_FIELDS]) or "none"
            raise BackendError(
                f"{self.backend.where} lists a model without a text in 'id' (its fields: {fields:.200}); if another "
                "field has the name, the provider must override 'name_of'"
            )
        return name

    async def send_chat(self, form: OpenAIForm) -> BackendReply:
        body = chat_body(self.dialect, form, self.backend_name(form.model))
        if form.stream:
            return await self._events("chat/completions", body)
        return await self._whole("chat/completions", body)

    async def send_text(self, form: OpenAIForm) -> BackendReply:
        body = completion_body(self.dialect, form, self.backend_name(form.model))
        if form.stream:
            return await self._events("completions", body)
        return await self._whole("completions", body)

    async def _whole(self, route: str, body: dict[str, Any]) -> Mapping[str, Any]:
        reply = await self._answered(route, body["model"], self.backend.post(self.path_of(route, body["model"]), body))
        return reply if isinstance(reply, dict) else {}  # which is then found to have no choices

    async def _answered(self, route: str, model: str, call: Awaitable[_T]) -> _T:
        """The answer of the backend at `route`. Raises NotSupportedError if it has no such route for `model`.

        A server has only the routes of what its model can do: one vLLM generates or embeds, never both. That it lists
        its models shows that the URL is right.
        """
        try:
            return await call
        except BackendError as error:
            if error.backend_status not in _NO_ROUTE or not await self._lists():
                raise
            path = self.path_of(route, model).partition("?")[0]
            raise NotSupportedError(
                f"'{model}' {_CANNOT.get(route, 'cannot do this')}: {self.backend.where} lists its models, but "
                f"answered {error.backend_status} at {path}",
                param="model",
                backend_status=error.backend_status,
            ) from error

    async def _lists(self) -> bool:
        """Whether the backend lists models at its URL."""
        try:
            return bool(await self.served())
        except LlamaStackError:
            return False  # the error of the call says what is wrong

    async def _events(self, route: str, body: dict[str, Any]) -> EventStream[Any]:
        """The events of a stream. If a backend refuses `stream_options`, later requests leave it out."""
        path = self.path_of(route, body["model"])
        try:
            return await self._answered(route, body["model"], self.backend.events(path, body))
        except (InvalidRequestError, NotSupportedError) as error:
            if "stream_options" not in body or _USAGE_REFUSED.search(f"{error.param} {error.message}") is None:
                raise
            refused = error.message
        _LOGGER.warning(
            "provider '%s': streams have no usage, because the backend refuses 'stream_options' "
            "('stream_usage: false' in its config says so from the start): %s",
            self.provider_id,
            without_known_secrets(refused),  # a backend may repeat the request
        )
        self.dialect = replace(self.dialect, stream_usage=False)
        del body["stream_options"]
        return await self.backend.events(path, body)

    async def embeddings(self, model: str, contents: list[InterleavedTextMedia]) -> EmbeddingsResponse:
        body = embeddings_body(self.dialect, model=self.backend_name(model), contents=contents)
        path = self.path_of("embeddings", body["model"])
        reply = await self._answered("embeddings", body["model"], self.backend.post(path, body))
        return embeddings_response(reply, self.provider_id, len(contents))

    async def takes_openai(self, request: OpenAIRequest) -> bool:
        """As `OpenAIProtocolPrivate` describes it."""
        return self.dialect.speaks(request.given)

    async def forward_openai(self, request: OpenAIRequest) -> bytes | AsyncIterator[bytes]:
        """As `OpenAIProtocolPrivate` describes it."""
        name = self.backend_name(request.model)
        path = self.path_of(request.route, name)
        body = request.body_for(name, self.dialect.renamed(request.given, request.route))
        if not request.stream:
            return await self._answered(request.route, name, self.backend.forward(path, body))
        blocks = await self._answered(request.route, name, self.backend.forward_events(path, body))
        return Stream(forwarded(blocks, self.provider_id), blocks.aclose)


def _about(entry: Mapping[str, Any]) -> dict[str, Any]:
    lengths = (entry.get(name) for name in ("max_model_len", "context_length", "context_window"))
    length = next((length for length in lengths if isinstance(length, int)), None)
    return {} if length is None else {"context_length": length}
