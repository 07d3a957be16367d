"""Inference by Text Generation Inference, on a server of your own or at Hugging Face."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from huggingface_hub import AsyncInferenceClient, InferenceEndpoint, ModelInfo

from llamastack.api.models import Model
from llamastack.provider.context import use_provider_data
from llamastack.provider.deps import Deps
from llamastack.provider.errors import (
    BackendError,
    InvalidRequestError,
    LlamaStackError,
    NotFoundError,
    NotSupportedError,
    ProviderUnavailableError,
)
from llamastack.provider.streams import Stream
from llamastack_adapters.credentials import ApiKey
from llamastack_adapters.openai_dialect import (
    BackendReply,
    Dialect,
    FormChatInference,
    FormCompletionInference,
    OpenAIForm,
    as_json_schema,
    chat_body,
    understood,
)
from llamastack_adapters.remote_inference import RemoteInference
from llamastack_provider_tgi.backend import HuggingFaceBackend, where
from llamastack_provider_tgi.config import EndpointConfig, HuggingFaceConfig, ServerlessConfig, TGIConfig
from llamastack_provider_tgi.dialect import (
    PENALTY,
    chat_arguments,
    chat_chunks,
    chat_reply,
    text_arguments,
    text_chunks,
    text_reply,
)
from llamastack_provider_tgi.stops import stream_without_stop

_T = TypeVar("_T")
_SERVING = ("running", "updating", "updateFailed")
_FRESH_S = 60.0
_NO_ROUTE = (404, 405)


@dataclass(frozen=True)
class Target:
    """The server to call. url: without /v1. model: its public name; called: its name in requests. speaks_tgi: whether
    it has the API of Text Generation Inference; is_tgi: whether it is certain to be one. images: whether it takes
    images.
    """

    url: str
    model: str
    called: str
    speaks_tgi: bool = True
    is_tgi: bool = True
    images: bool = True
    metadata: dict[str, Any] = field(default_factory=dict)


class HuggingFaceInference(FormChatInference, FormCompletionInference, RemoteInference):
    """Serves one model of one server; a subclass finds the server."""

    def __init__(self, config: HuggingFaceConfig, deps: Deps) -> None:
        super().__init__(config, deps)
        self.key = ApiKey(deps, config.api_token, field="huggingface_api_token", config_key="api_token", needed=False)
        self.backend = HuggingFaceBackend(config, self.key)
        self._target: Target | None = None
        self._stream_usage = config.stream_usage

    @property
    def has_key(self) -> bool:
        return self.key.configured

    async def shutdown(self) -> None:
        await self.backend.aclose()

    async def served(self) -> list[Model]:
        target = self._target = await self.find()
        return self.named([(target.model, target.metadata)])

    async def find(self) -> Target:
        """The models that are served now."""
        raise NotImplementedError

    async def after(self) -> None:
        """Called after a failure that may be the server's. Raises a better error if it knows one."""

    async def _target_of_call(self) -> Target:
        if self._target is None:
            self._target = await self.find()
        return self._target

    def _dialect(self, target: Target) -> Dialect:
        return Dialect(
            self.provider_id,
            repetition_penalty=PENALTY if target.is_tgi else None,
            # Other servers ignore the SDK's form.
            response_format=as_json_schema if target.speaks_tgi else None,
            images=target.images,
            stream_usage=self._stream_usage,
        )

    async def send_text(self, form: OpenAIForm) -> BackendReply:
        target = await self._target_of_call()
        if not target.speaks_tgi:
            raise NotSupportedError(
                f"provider '{self.provider_id}' does not support text completion: {where(target.url)} is not Text "
                "Generation Inference",
                provider_id=self.provider_id,
            )
        self._dialect(target).samplers_of(form.fields)  # refuses fields that these arguments lack
        arguments = text_arguments(form)
        stops = arguments["stop"] or ()
        wanted = "logprobs" in form.fields

        async def call(client: AsyncInferenceClient) -> Any:
            # The model is named so that the SDK does not apply what it remembers of other servers.
            return await client.text_generation(
                form.fields["prompt"], stream=form.stream, model=target.url, **arguments
            )

        if form.stream:
            pieces = await self._made(target, "does not complete texts", lambda: self.backend.stream(target.url, call))
            chunks: AsyncIterator[Mapping[str, Any]] = text_chunks(pieces, logprobs=wanted)
            chunks = stream_without_stop(chunks, stops) if stops else chunks
            return Stream(_understood(chunks, self.provider_id), pieces.aclose)
        reply = await self._made(target, "does not complete texts", lambda: self.backend.whole(target.url, call))
        with understood(self.provider_id):
            return text_reply(reply, stops, logprobs=wanted)

    async def send_chat(self, form: OpenAIForm) -> BackendReply:
        target = await self._target_of_call()
        dialect = self._dialect(target)
        if "tools" in form.fields and form.json_schema is not None:
            raise dialect.unsupported("response_format", "a JSON schema together with tools")
        arguments = chat_arguments(chat_body(dialect, form, target.called), tgi=target.speaks_tgi)
        stops = arguments.get("stop") or ()

        async def call(client: AsyncInferenceClient) -> Any:
            return await client.chat_completion(**arguments)

        try:
            if form.stream:
                pieces = await self._made(target, "does not chat", lambda: self.backend.stream(target.url, call))
                chunks = _understood(chat_chunks(pieces), self.provider_id)
                chunks = stream_without_stop(chunks, stops) if stops else chunks
                return Stream(chunks, pieces.aclose)
            reply = await self._made(target, "does not chat", lambda: self.backend.whole(target.url, call))
        except InvalidRequestError as error:
            if form.fields.get("tool_choice") == "required" and "Tool with name required" in error.message:
                # Before version 3 the server takes 'required' for the name of a tool.
                raise dialect.unsupported("tool_choice", "tool_choice 'required': its server is too old") from error
            raise
        with understood(self.provider_id):
            return chat_reply(reply, stops)

    async def _made(self, target: Target, cannot: str, call: Callable[[], Awaitable[_T]]) -> _T:
        """The result of a call. Raises NotSupportedError if the server has no route for it: its model `cannot` do it.

        A server has only the routes of what its model can do. That it says what it serves shows that the URL is right.
        """
        try:
            return await call()
        except (BackendError, NotFoundError, ProviderUnavailableError) as error:
            await self.after()
            if error.backend_status not in _NO_ROUTE or not await self._says_what_it_serves(target):
                raise
            raise NotSupportedError(
                f"'{target.model}' {cannot}: {where(target.url)} says what it serves, but answered "
                f"{error.backend_status}",
                provider_id=self.provider_id,
                param="model",
                backend_status=error.backend_status,
            ) from error

    async def _says_what_it_serves(self, target: Target) -> bool:
        try:
            return await self.backend.info(target.url) is not None
        except LlamaStackError:
            return False  # the error of the call says what is wrong


async def _understood(chunks: AsyncIterator[_T], provider_id: str) -> AsyncIterator[_T]:
    with understood(provider_id):
        async for chunk in chunks:
            yield chunk


def _base(url: object) -> str:
    """A base URL without the slash at its end, and without the /v1 of OpenAI clients."""
    return str(url).rstrip("/").removesuffix("/v1")


def _target(url: str, info: Mapping[str, Any], model: str | None = None) -> Target:
    """A server of Text Generation Inference, by its /info."""
    length = info.get("max_total_tokens")
    metadata = {"context_length": length} if isinstance(length, int) else {}
    longest = info.get("max_input_tokens", info.get("max_input_length"))
    if isinstance(longest, int):
        metadata["max_input_tokens"] = longest
    # A server of a text model puts the URL of an image into its prompt as text.
    images = info.get("model_pipeline_tag") != "text-generation"
    # Any other name chooses an adapter.
    return Target(url, model or info["model_id"], "tgi", images=images, metadata=metadata)


class TGIInference(HuggingFaceInference):
    """A server by its URL."""

    def __init__(self, config: TGIConfig, deps: Deps) -> None:
        super().__init__(config, deps)
        self._url = _base(config.url)

    async def find(self) -> Target:
        info = await self.backend.info(self._url)
        if info is None:
            raise BackendError(f"{self._url} has no /info: is it a text-generation-inference server?")
        return _target(self._url, info)


class ServerlessInference(HuggingFaceInference):
    """A model of the Hub by the serverless service.

    It is called by its URL and not by its name: by name the SDK queries the Hub during a call, which blocks the event
    loop and uses any token that it finds on this machine.
    """

    def __init__(self, config: ServerlessConfig, deps: Deps) -> None:
        super().__init__(config, deps)
        self._repo = config.huggingface_repo
        self._url = f"{_base(config.url)}/models/{self._repo}"
        self._hub = None if config.hub_url is None else _base(config.hub_url)
        self._fresh_until = float("-inf")

    async def find(self) -> Target:
        if self._hub is not None and time.monotonic() >= self._fresh_until:
            await self._look_up(self._hub)
            self._fresh_until = time.monotonic() + _FRESH_S
        return Target(self._url, self._repo, self._repo, is_tgi=False)

    async def _look_up(self, hub: str) -> None:
        answer = await self.backend.get(f"{hub}/api/models/{self._repo}", expand="inferenceProviderMapping")
        if answer is None:
            raise ProviderUnavailableError(f"{where(hub)} has no model '{self._repo}'")
        with understood(self.provider_id):
            known = ModelInfo(**answer)  # type: ignore[no-untyped-call]
            offers = {offer.provider: offer for offer in known.inference_provider_mapping or ()}
        offer = offers.get("hf-inference")
        if offer is None or offer.status != "live":
            state = "not offered" if offer is None else offer.status
            raise ProviderUnavailableError(
                f"'{self._repo}' is {state} at hf-inference; it is live at: "
                + (", ".join(name for name, other in offers.items() if other.status == "live") or "no provider")
            )


class EndpointInference(HuggingFaceInference):
    """A dedicated endpoint, by its URL or by its name.

    A name is not looked up by the SDK's call, which has a fixed address, no time limit, and blocks a thread.
    """

    def __init__(self, config: EndpointConfig, deps: Deps) -> None:
        super().__init__(config, deps)
        self._url = None if config.url is None else _base(config.url)
        self._namespace, self._name = config.place()
        self._endpoints = str(config.endpoints_url).rstrip("/")
        self._hub = _base(config.hub_url)

    async def find(self) -> Target:
        url, model = (self._url, None) if self._url is not None else self._place(await self._look_up())
        info = await self.backend.info(url)
        if info is not None:
            return _target(url, info, model)
        if model is None:
            raise BackendError(f"{url} has no /info, which names its model; set 'endpoint_name' to look it up")
        return Target(url, model, model, speaks_tgi=False, is_tgi=False)

    async def after(self) -> None:
        if self._url is None:
            try:
                endpoint = await self._look_up()
            except LlamaStackError:
                return
            self._place(endpoint)

    async def _look_up(self) -> InferenceEndpoint:
        namespace = self._namespace or await self._own_namespace()
        answer = await self.backend.get(f"{self._endpoints}/endpoint/{namespace}/{self._name}")
        if answer is None:
            raise ProviderUnavailableError(
                f"{where(self._endpoints)} has no Inference Endpoint '{namespace}/{self._name}'"
            )
        with understood(self.provider_id):
            return InferenceEndpoint.from_raw(answer, namespace, token=False)

    def _place(self, endpoint: InferenceEndpoint) -> tuple[str, str]:
        """URL and model. Raises ProviderUnavailableError while the endpoint does not serve."""
        if endpoint.status in _SERVING and endpoint.url:
            return _base(endpoint.url), endpoint.repository
        reason = endpoint.raw["status"].get("message")
        raise ProviderUnavailableError(
            f"Inference Endpoint '{endpoint.namespace}/{endpoint.name}' is {endpoint.status}"
            + (f": {reason}" if reason else "")
        )

    async def _own_namespace(self) -> str:
        with use_provider_data(None):  # the operator's: one endpoint serves all clients
            answer = await self.backend.get(f"{self._hub}/api/whoami-v2")
        if not isinstance(answer, dict) or not isinstance(answer.get("name"), str):
            raise BackendError(f"{where(self._hub)} does not name the owner of the token; set 'namespace'")
        return str(answer["name"])


async def get_adapter_impl(config: HuggingFaceConfig, deps: Deps) -> HuggingFaceInference:
    """The provider; nothing is opened before its first call."""
    match config:
        case TGIConfig():
            return TGIInference(config, deps)
        case ServerlessConfig():
            return ServerlessInference(config, deps)
        case EndpointConfig():
            return EndpointInference(config, deps)
    raise TypeError(type(config).__name__)
