"""Inference by llama.cpp, in this process."""

from __future__ import annotations

from typing import Any

import anyio

from llamastack.api.common import InterleavedTextMedia, SamplingStrategy
from llamastack.api.inference import EmbeddingsResponse, TokenUsage
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
from llamastack.provider.streams import Stream
from llamastack_adapters.openai_dialect import (
    BackendReply,
    Dialect,
    FormChatInference,
    FormCompletionInference,
    OpenAIForm,
    as_json_schema,
    chat_body,
    completion_body,
    embeddings_body,
)
from llamastack_provider_llama_cpp.chunks import calls_from_text, forced_call
from llamastack_provider_llama_cpp.config import LlamaCppConfig
from llamastack_provider_llama_cpp.engine import Engine
from llamastack_provider_llama_cpp.prepare import prepare
from llamastack_provider_llama_cpp.sampling import OWN_FIELDS, sampled

# llama.cpp applies all its samplers by default; a strategy uses only its own.
_ONLY = {
    SamplingStrategy.top_p: {"top_k": 0, "min_p": 0.0},
    SamplingStrategy.top_k: {"top_p": 1.0, "min_p": 0.0},
}


class LlamaCppInference(FormChatInference, FormCompletionInference, ModelsProtocolPrivate):
    """Serves the models of its config; each has its own slots and threads."""

    def __init__(self, config: LlamaCppConfig, deps: Deps) -> None:
        self._config = config
        self._deps = deps
        self.provider_id = deps.provider_id
        self._dialect = Dialect(
            self.provider_id,
            top_k="top_k",
            repetition_penalty="repeat_penalty",
            completion_response_format=as_json_schema,
            images=False,
            samplers=Dialect.SAMPLERS,
            only=_ONLY,
            extra=OWN_FIELDS,
        )
        self._engines: dict[str, Engine] = {}

    async def initialize(self) -> None:
        """Prepare and load every model.

        Raises ProviderUnavailableError if one cannot be prepared or loaded; then none stays loaded.
        """
        try:
            for number, model in enumerate(self._config.models, start=1):
                path = await prepare(model, self._config.cache_dir, self._deps)
                self._engines[model.identifier] = await Engine.load(model, path, self._config, self.provider_id)
                if len(self._config.models) > 1:  # so that the time limit counts for each model
                    self._deps.report_progress(Progress("loading models", number, len(self._config.models), "models"))
        except BaseException:
            await self.shutdown()
            raise

    async def shutdown(self) -> None:
        """Stop running calls and free the models. Safe to call twice."""
        with anyio.CancelScope(shield=True):
            for engine in self._engines.values():
                await engine.close()

    async def health(self) -> None:
        """Raises ProviderUnavailableError unless all models are loaded."""
        if len(self._engines) < len(self._config.models) or any(engine.closed for engine in self._engines.values()):
            raise ProviderUnavailableError(
                f"provider '{self.provider_id}' is not running", provider_id=self.provider_id
            )

    async def list_models(self) -> list[Model]:
        """The loaded models. Metadata: `context_length` in tokens, `embedding_dimension` if it has embeddings."""
        return [self._model(identifier, engine) for identifier, engine in self._engines.items()]

    async def register_model(self, model: Model) -> None:
        if model.identifier not in self._engines:
            raise UnsupportedModelError(model.identifier, available=self._engines, provider_id=self.provider_id)

    async def send_text(self, form: OpenAIForm) -> BackendReply:
        """Continue a text until the model ends it, or `max_tokens` or the context is used up."""
        engine = self._generator(form.model)
        body = sampled(completion_body(self._dialect, form, form.model), form.fields, engine.facts.sampling)
        schema = form.json_schema
        if schema is not None:
            # llama.cpp ignores a constraint that it cannot use, without an error.
            await engine.check_schema(body.pop("response_format"))
            body["json_schema"] = schema
        return await engine.complete(body)

    async def send_chat(self, form: OpenAIForm) -> BackendReply:
        """Answer until the model ends its turn, or `max_tokens` or the context is used up.

        Tools need a chat template that shows them to the model. With `tool_choice` required, the reply is exactly one
        call.
        """
        engine = self._generator(form.model)
        body = sampled(chat_body(self._dialect, form, form.model), form.fields, engine.facts.sampling)
        forced = form.fields.get("tool_choice") == "required"
        if "tools" in form.fields:
            self._check_tools(form, engine, forced=forced)
        reply = await engine.chat(forced_call(body) if forced else body)
        return Stream(calls_from_text(reply, self.provider_id), reply.aclose) if forced else reply

    def _check_tools(self, form: OpenAIForm, engine: Engine, *, forced: bool) -> None:
        if not engine.facts.renders_tools:
            raise NotSupportedError(
                f"the chat template of model '{form.model}' of provider '{self.provider_id}' does not support "
                "tools; set 'chat_template' in its config to one that does",
                provider_id=self.provider_id,
                param="tools",
            )
        if forced and form.json_schema is not None:
            raise InvalidRequestError(
                "response_format cannot be combined with a required tool call",
                provider_id=self.provider_id,
                param="response_format",
            )
        if "logprobs" in form.fields:
            raise NotSupportedError(
                f"provider '{self.provider_id}' gives no logprobs together with tools",
                provider_id=self.provider_id,
                param="logprobs",
            )

    async def embeddings(self, model: str, contents: list[InterleavedTextMedia]) -> EmbeddingsResponse:
        """One vector per content, of length 1.

        Raises ContextLengthExceededError if a content is longer than the model's context.
        """
        engine = self._engine(model)
        body = embeddings_body(self._dialect, model=model, contents=contents)
        if engine.facts.dimension is None:
            raise NotSupportedError(
                f"model '{model}' of provider '{self.provider_id}' is not configured for embeddings "
                "('embedding: true')",
                provider_id=self.provider_id,
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
                f"model '{model}' of provider '{self.provider_id}' is an encoder: it only makes embeddings",
                provider_id=self.provider_id,
                param="model",
            )
        return engine

    def _model(self, identifier: str, engine: Engine) -> Model:
        metadata: dict[str, Any] = {}
        if engine.facts.context_length is not None:
            metadata["context_length"] = engine.facts.context_length
        if engine.facts.dimension is not None:
            metadata["embedding_dimension"] = engine.facts.dimension
        return Model(identifier=identifier, provider_id=self.provider_id, metadata=metadata)


async def get_provider_impl(config: LlamaCppConfig, deps: Deps) -> LlamaCppInference:
    """The provider, not yet started."""
    return LlamaCppInference(config, deps)
