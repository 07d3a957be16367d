"""Inference by llama.cpp, in this process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, TypeVar, cast

import anyio

from llamastack.api.common import (
    InterleavedTextMedia,
    Message,
    SamplingParams,
    SamplingStrategy,
    ToolChoice,
    ToolDefinition,
    ToolPromptFormat,
)
from llamastack.api.inference import (
    ChatCompletionResponse,
    ChatCompletionResponseStreamChunk,
    CompletionResponse,
    CompletionResponseStreamChunk,
    EmbeddingsResponse,
    Inference,
    LogProbConfig,
    ResponseFormat,
    TokenUsage,
)
from llamastack.api.models import Model
from llamastack.provider import (
    Deps,
    InvalidRequestError,
    ModelsProtocolPrivate,
    NotSupportedError,
    ObjectNotFoundError,
    Progress,
    ProviderUnavailableError,
    UnsupportedModelError,
)
from llamastack_adapters.openai_dialect import (
    Dialect,
    chat_request,
    chat_stream,
    completion_request,
    completion_stream,
    embeddings_request,
)
from llamastack_adapters.reply_checks import ReplyChecks
from llamastack_provider_llama_cpp.chunks import (
    calls_from_text,
    collect_chat,
    collect_completion,
    forced_call,
)
from llamastack_provider_llama_cpp.config import LlamaCppConfig
from llamastack_provider_llama_cpp.engine import Engine, Reply
from llamastack_provider_llama_cpp.prepare import prepare
from llamastack_provider_llama_cpp.sampling import sampled

# llama.cpp applies all its samplers unless told otherwise; a strategy means its own alone.
_ONLY = {
    SamplingStrategy.top_p: {"top_k": 0, "min_p": 0.0},
    SamplingStrategy.top_k: {"top_p": 1.0, "min_p": 0.0},
}

Piece = TypeVar("Piece")


class _Stream(AsyncIterator[Piece]):
    """A native stream that stops the generation at once when it is closed or dropped, even if never begun."""

    def __init__(self, pieces: AsyncIterator[Piece], reply: Reply) -> None:
        self._pieces = cast("AsyncGenerator[Piece]", pieces)
        self._reply = reply

    async def __anext__(self) -> Piece:
        return await anext(self._pieces)

    async def aclose(self) -> None:
        self._reply.cancel()
        await self._pieces.aclose()


class LlamaCppInference(Inference, ModelsProtocolPrivate):
    """Serves the models of its config; each has its own slots and threads."""

    def __init__(self, config: LlamaCppConfig, deps: Deps) -> None:
        self._config = config
        self._deps = deps
        self._id = deps.provider_id
        self._dialect = Dialect(
            self._id,
            top_k="top_k",
            repetition_penalty="repeat_penalty",
            images=False,
            samplers=Dialect.SAMPLERS,
            only=_ONLY,
        )
        self._engines: dict[str, Engine] = {}

    async def initialize(self) -> None:
        """Prepare and load every model.

        Raises ProviderUnavailableError when one cannot be prepared or loaded; nothing stays loaded then.
        """
        try:
            for number, model in enumerate(self._config.models, start=1):
                path = await prepare(model, self._config.cache_dir, self._deps)
                self._engines[model.identifier] = await Engine.load(model, path, self._config, self._id)
                if len(self._config.models) > 1:  # so that each of several has the time that one has
                    self._deps.report_progress(Progress("loading models", number, len(self._config.models), "models"))
        except BaseException:
            await self.shutdown()
            raise

    async def shutdown(self) -> None:
        """Stop what is running and free the models. May be called again."""
        with anyio.CancelScope(shield=True):
            for engine in self._engines.values():
                await engine.close()

    async def health(self) -> None:
        """Raises ProviderUnavailableError unless all models are loaded."""
        if len(self._engines) < len(self._config.models) or any(engine.closed for engine in self._engines.values()):
            raise ProviderUnavailableError(f"provider '{self._id}' is not running", provider_id=self._id)

    async def list_models(self) -> list[Model]:
        """The loaded models. Metadata: `context_length` in tokens, `embedding_dimension` where there are embeddings."""
        return [self._model(identifier, engine) for identifier, engine in self._engines.items()]

    async def register_model(self, model: Model) -> None:
        if model.identifier not in self._engines:
            raise UnsupportedModelError(model.identifier, available=self._engines, provider_id=self._id)

    async def completion(
        self,
        model: str,
        content: InterleavedTextMedia,
        sampling_params: SamplingParams | None = None,
        stream: bool | None = None,
        logprobs: LogProbConfig | None = None,
        response_format: ResponseFormat | None = None,
    ) -> CompletionResponse | AsyncIterator[CompletionResponseStreamChunk]:
        """Continue a text, until the model ends it, `max_tokens` are there, or the context is full."""
        engine = self._generator(model)
        body = completion_request(
            self._dialect, model=model, content=content, sampling_params=sampling_params, logprobs=logprobs
        )
        body = sampled(body, sampling_params, engine.facts.sampling)
        if response_format is not None:
            schema = response_format.json_schema
            await engine.check_schema({"type": "json_schema", "json_schema": {"schema": schema}})
            body["json_schema"] = schema
        reply = await engine.complete(body)
        # llama.cpp drops a constraint that it cannot use, without a word.
        checks = ReplyChecks.of(
            self._id, sampling_params=sampling_params, logprobs=logprobs, response_format=response_format
        )
        pieces = checks.completion_pieces(completion_stream(reply, self._id, logprobs=logprobs))
        return _Stream(pieces, reply) if stream else await collect_completion(pieces)

    async def chat_completion(
        self,
        model: str,
        messages: list[Message],
        sampling_params: SamplingParams | None = None,
        tools: list[ToolDefinition] | None = None,
        tool_choice: ToolChoice | None = None,
        tool_prompt_format: ToolPromptFormat | None = None,
        stream: bool | None = None,
        logprobs: LogProbConfig | None = None,
        response_format: ResponseFormat | None = None,
    ) -> ChatCompletionResponse | AsyncIterator[ChatCompletionResponseStreamChunk]:
        """Answer, until the model ends its turn, `max_tokens` are there, or the context is full.

        Tools need a chat template that shows them to the model. With `tool_choice` required, the reply is exactly one
        call.
        """
        engine = self._generator(model)
        body = chat_request(
            self._dialect,
            model=model,
            messages=messages,
            sampling_params=sampling_params,
            tools=tools,
            tool_choice=tool_choice,
            tool_prompt_format=tool_prompt_format,
            logprobs=logprobs,
            response_format=response_format,
        )
        body = sampled(body, sampling_params, engine.facts.sampling)
        if tools and not engine.facts.renders_tools:
            raise NotSupportedError(
                f"the chat template of model '{model}' of provider '{self._id}' has no place for tools; "
                "'chat_template' in its config can give it one",
                provider_id=self._id,
                param="tools",
            )
        forced = bool(tools) and tool_choice is ToolChoice.required
        if forced and response_format is not None:
            raise InvalidRequestError(
                "a response_format cannot be held by a reply that must be a tool call",
                provider_id=self._id,
                param="response_format",
            )
        if tools and logprobs is not None:
            raise NotSupportedError(
                f"provider '{self._id}' gives no logprobs beside tools",
                provider_id=self._id,
                param="logprobs",
            )
        reply = await engine.chat(forced_call(body) if forced else body)
        checks = ReplyChecks.of(
            self._id,
            sampling_params=sampling_params,
            tool_choice=tool_choice,
            logprobs=logprobs,
            response_format=response_format,
        )
        chunks = calls_from_text(reply, self._id) if forced else reply
        events = checks.chat_events(chat_stream(chunks, self._id, logprobs=logprobs))
        return _Stream(events, reply) if stream else await collect_chat(events)

    async def embeddings(self, model: str, contents: list[InterleavedTextMedia]) -> EmbeddingsResponse:
        """One vector per content, of length 1.

        Raises ContextLengthExceededError when a content is longer than the model's context.
        """
        engine = self._engine(model)
        body = embeddings_request(self._dialect, model=model, contents=contents)
        if engine.facts.dimension is None:
            raise NotSupportedError(
                f"model '{model}' of provider '{self._id}' is not configured for embeddings ('embedding: true')",
                provider_id=self._id,
                param="model",
            )
        vectors, tokens = await engine.embed(body["input"])
        return EmbeddingsResponse(embeddings=vectors, usage=TokenUsage(prompt_tokens=tokens))

    def _engine(self, model: str) -> Engine:
        engine = self._engines.get(model)
        if engine is None:
            raise ObjectNotFoundError("model", model, available=self._engines, param="model")
        return engine

    def _generator(self, model: str) -> Engine:
        engine = self._engine(model)
        if engine.facts.context_length is None:
            raise NotSupportedError(
                f"model '{model}' of provider '{self._id}' is an encoder: it can only be asked for embeddings",
                provider_id=self._id,
                param="model",
            )
        return engine

    def _model(self, identifier: str, engine: Engine) -> Model:
        metadata: dict[str, Any] = {}
        if engine.facts.context_length is not None:
            metadata["context_length"] = engine.facts.context_length
        if engine.facts.dimension is not None:
            metadata["embedding_dimension"] = engine.facts.dimension
        return Model(identifier=identifier, provider_id=self._id, metadata=metadata)


async def get_provider_impl(config: LlamaCppConfig, deps: Deps) -> LlamaCppInference:
    """The provider, not yet started."""
    return LlamaCppInference(config, deps)
