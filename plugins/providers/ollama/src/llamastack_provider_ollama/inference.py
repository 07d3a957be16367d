"""Inference by an Ollama server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anyio
from ollama import ListResponse, ProcessResponse, ShowResponse

from llamastack.api.common import InterleavedTextMedia
from llamastack.api.inference import EmbeddingsResponse, TokenUsage
from llamastack.api.models import Model
from llamastack.provider import (
    BackendError,
    Deps,
    InvalidRequestError,
    LlamaStackError,
    NotFoundError,
    NotSupportedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    UnsupportedModelError,
)
from llamastack.provider.streams import Stream
from llamastack_adapters.credentials import ApiKey
from llamastack_adapters.openai_dialect import (
    BackendReply,
    FormChatInference,
    FormCompletionInference,
    OpenAIForm,
    chat_body,
    completion_body,
    embeddings_body,
)
from llamastack_adapters.remote_inference import RemoteInference
from llamastack_provider_ollama.backend import Backend
from llamastack_provider_ollama.config import OllamaConfig
from llamastack_provider_ollama.pulls import Pulls, tagged
from llamastack_provider_ollama.replies import chunks_of, whole_of
from llamastack_provider_ollama.requests import (
    logprobs_fields,
    messages_of,
    ollama_dialect,
    options_of,
    tools_of,
)

_SHOWN_AT_ONCE = 4
_LATEST = ":latest"


@dataclass(frozen=True, slots=True)
class _Facts:
    """Ollama's information about a model. capabilities: None if Ollama does not report them."""

    capabilities: tuple[str, ...] | None = None
    context_length: int | None = None
    embedding_length: int | None = None


class OllamaInference(FormChatInference, FormCompletionInference, RemoteInference):
    """Serves the models of an Ollama server."""

    def __init__(self, config: OllamaConfig, deps: Deps) -> None:
        super().__init__(config, deps)
        self._key = ApiKey(deps, config.api_key, field="ollama_api_key", needed=False)
        self._config = config
        self._dialect = ollama_dialect(deps.provider_id)
        self._backend = Backend(config, self._key)
        self._client = self._backend.client
        self._pulls = Pulls(self._backend, deps)
        self._facts: dict[str, _Facts] = {}
        self._digests: dict[str, str] = {}

    @property
    def has_key(self) -> bool:
        return self._key.configured

    async def shutdown(self) -> None:
        """Cancel the pulls and close the connections; safe to call twice."""
        await self._pulls.aclose()
        await self._backend.aclose()

    # ---- what is served ------------------------------------------------------------------------------------------

    async def served(self) -> list[Model]:
        """Ollama's models; a model `name:latest` also as `name`, because Ollama takes both.

        Metadata: `loaded`, `size_bytes`, and if Ollama reports it: `context_length` in tokens, as the model is loaded
        or configured, `max_context_length`, `embedding_dimension`, `capabilities`.
        """
        listed = {model.model: model for model in (await self._backend.whole(self._client.list)).models if model.model}
        loaded = {model.model: model for model in await self._loaded()}
        await self._learn(listed)
        entries: list[tuple[str, dict[str, Any]]] = []
        for name, entry in listed.items():
            metadata = self._metadata(entry, loaded.get(name))
            entries.append((name, metadata))
            if name.endswith(_LATEST):
                entries.append((name.removesuffix(_LATEST), {**metadata, "alias_of": name}))
        return self.named(entries)

    async def _loaded(self) -> list[ProcessResponse.Model]:
        try:
            return list((await self._backend.whole(self._client.ps)).models)
        except (NotFoundError, BackendError):  # older versions and the cloud have no such list
            return []

    async def _learn(self, listed: Mapping[str, ListResponse.Model]) -> None:
        """Query the models that are new or have changed."""
        self._digests = {name: entry.digest or name for name, entry in listed.items()}
        names = {digest: name for name, digest in self._digests.items()}
        self._facts = {digest: facts for digest, facts in self._facts.items() if digest in names}
        limit = anyio.CapacityLimiter(_SHOWN_AT_ONCE)

        async def ask(digest: str) -> None:
            try:
                async with limit:
                    shown = await self._backend.whole(lambda: self._client.show(names[digest]))
                self._facts[digest] = _facts_of(shown)
            except (ProviderUnavailableError, ProviderTimeoutError):
                pass  # asked again next time
            except LlamaStackError:
                self._facts[digest] = _Facts()

        async with anyio.create_task_group() as group:
            for digest in names.keys() - self._facts.keys():
                group.start_soon(ask, digest)

    def _metadata(self, entry: ListResponse.Model, running: ProcessResponse.Model | None) -> dict[str, Any]:
        facts = self._facts.get(entry.digest or entry.model or "", _Facts())
        length, most = self._config.context_length, facts.context_length
        if running is not None and running.context_length:
            length = running.context_length
        elif length is not None and most is not None:
            length = min(length, most)
        embeds = facts.capabilities is not None and "embedding" in facts.capabilities
        known = {
            "size_bytes": None if entry.size is None else int(entry.size),
            "context_length": length,
            "max_context_length": most,
            "embedding_dimension": facts.embedding_length if embeds else None,
            "capabilities": None if facts.capabilities is None else list(facts.capabilities),
        }
        return {"loaded": running is not None, **{name: value for name, value in known.items() if value is not None}}

    async def register_model(self, model: Model) -> None:
        """Raises UnsupportedModelError for a model that Ollama does not have and may not or cannot pull.

        The call waits for a pull. During the replay at the start, the pull runs in the background instead, and
        ProviderUnavailableError says so until it ends.
        """
        name = self.backend_name(model.identifier)
        if self.is_trusted(model.identifier):
            return
        try:
            await self._backend.whole(lambda: self._client.show(name))
        except NotFoundError:
            pass
        else:
            return
        if not self._config.allow_pull:
            raise UnsupportedModelError(
                model.identifier,
                available=[m.identifier for m in await self.list_models() if not _is_short(m)],
                reason=f"Ollama does not have it; fetch it with 'ollama pull {name}', or set 'allow_pull: true'",
                provider_id=self.provider_id,
            )
        try:
            if self.deps.replaying:
                await self._pulls.look_after(name)
            else:
                await self._pulls.wait_for(name)
        except NotFoundError as error:
            raise UnsupportedModelError(model.identifier, reason=error.message, provider_id=self.provider_id) from error

    async def unregister_model(self, model: Model) -> None:
        """Stop its pull, if any. Ollama keeps models that it has."""
        self._pulls.drop(self.backend_name(model.identifier))

    async def forget_model(self, model: Model) -> None:
        await self.unregister_model(model)

    # ---- calls ---------------------------------------------------------------------------------------------------

    async def send_text(self, form: OpenAIForm) -> BackendReply:
        """Continue a text as it is, without the model's template."""
        if not form.fields["prompt"]:
            raise InvalidRequestError("Ollama cannot continue an empty text", param="content")
        body = self._body(form, completion_body(self._dialect, form, form.model))
        body |= {"prompt": form.fields["prompt"], "raw": True}
        return await self._answer("/api/generate", body, stream=form.stream)

    async def send_chat(self, form: OpenAIForm) -> BackendReply:
        """Always streamed, because the model's thinking is then separate from its reply, also in logprobs."""
        given = chat_body(self._dialect, form, form.model)
        body = self._body(form, given)
        body["messages"] = messages_of(form.fields["messages"], self.provider_id)
        if "tools" in given:
            body["tools"] = tools_of(given["tools"])
        if any("images" in message for message in body["messages"]):
            self._refuse_blind(form.model)
        return await self._answer("/api/chat", body, stream=form.stream)

    async def _answer(self, path: str, body: dict[str, Any], *, stream: bool) -> BackendReply:
        http, cut_short = self._backend.http, self._backend.cut_short
        if not stream:
            return whole_of(await http.all_lines(path, body, _is_last), cut_short, self.provider_id)
        replies = await http.lines(path, body)
        return Stream(chunks_of(replies, cut_short, self.provider_id), replies.aclose)

    async def embeddings(self, model: str, contents: list[InterleavedTextMedia]) -> EmbeddingsResponse:
        """One vector per content. Raises ContextLengthExceededError for one that is too long."""
        texts = embeddings_body(self._dialect, model=model, contents=contents)["input"]
        length = self._config.context_length
        reply = await self._backend.whole(
            lambda: self._client.embed(
                model=self.backend_name(model),
                input=texts,
                truncate=False,
                options=None if length is None else {"num_ctx": length},
                keep_alive=self._config.keep_alive,
            )
        )
        if len(reply.embeddings) != len(texts):
            raise BackendError(
                f"{self._backend.where} answered {len(reply.embeddings)} embeddings for {len(texts)} contents"
            )
        read = reply.prompt_eval_count
        usage = None if read is None else TokenUsage(prompt_tokens=read)
        return EmbeddingsResponse(embeddings=[list(vector) for vector in reply.embeddings], usage=usage)

    def _body(self, form: OpenAIForm, given: Mapping[str, Any]) -> dict[str, Any]:
        """The common fields of chats and text completions. given: the request with the dialect's field names."""
        body = {
            "model": self.backend_name(form.model),
            "stream": True,
            "options": options_of(given, self._config.context_length),
            **logprobs_fields(form),
        }
        if form.json_schema is not None:
            body["format"] = form.json_schema
        keep_alive = given.get("keep_alive", self._config.keep_alive)
        if keep_alive is not None:
            body["keep_alive"] = keep_alive
        return {**body, "think": given["think"]} if "think" in given else body

    def _refuse_blind(self, model: str) -> None:
        """Ollama ignores images, without an error, for a model that cannot see them."""
        digest = self._digests.get(tagged(self.backend_name(model)), "")
        capabilities = self._facts.get(digest, _Facts()).capabilities
        if capabilities is not None and "vision" not in capabilities:
            raise NotSupportedError(
                f"model '{model}' of provider '{self.provider_id}' does not take images",
                provider_id=self.provider_id,
                param="messages",
            )


def _is_last(reply: Mapping[str, Any]) -> bool:
    return bool(reply.get("done"))


def _is_short(model: Model) -> bool:
    return model.metadata.get("alias_of") == f"{model.identifier}{_LATEST}"


def _facts_of(shown: ShowResponse) -> _Facts:
    info = shown.modelinfo or {}
    architecture = info.get("general.architecture")
    lengths = [info.get(f"{architecture}.{name}_length") for name in ("context", "embedding")]
    context_length, embedding_length = (length if isinstance(length, int) else None for length in lengths)
    return _Facts(None if shown.capabilities is None else tuple(shown.capabilities), context_length, embedding_length)


async def get_adapter_impl(config: OllamaConfig, deps: Deps) -> OllamaInference:
    """The provider; nothing is opened before its first call."""
    return OllamaInference(config, deps)
