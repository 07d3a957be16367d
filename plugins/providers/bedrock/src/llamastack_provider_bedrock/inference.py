"""Inference by Amazon Bedrock."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import anyio

from llamastack.api.common import InterleavedTextMedia
from llamastack.api.inference import EmbeddingsResponse
from llamastack.api.models import Model
from llamastack.provider import Deps, LlamaStackError, PermissionDeniedError
from llamastack.provider.streams import Stream
from llamastack_adapters.openai_dialect import (
    BackendReply,
    Dialect,
    FormChatInference,
    OpenAIForm,
    chat_body,
    embeddings_body,
    embeddings_response,
    understood,
)
from llamastack_adapters.remote_inference import RemoteInference
from llamastack_provider_bedrock.backend import CONTROL, RUNTIME, Bedrock
from llamastack_provider_bedrock.config import BedrockConfig
from llamastack_provider_bedrock.embedders import embedder_of
from llamastack_provider_bedrock.replies import as_chunks, as_reply
from llamastack_provider_bedrock.requests import OWN_FIELDS, converse_request, top_k_field

_CALLS_AT_ONCE = 8


class BedrockInference(FormChatInference, RemoteInference):
    """Serves foundation models with on-demand throughput, and inference profiles."""

    def __init__(self, config: BedrockConfig, deps: Deps) -> None:
        super().__init__(config, deps)
        self._bedrock = Bedrock(config, deps)
        self._dialect = Dialect(deps.provider_id, seed=None, extra=OWN_FIELDS)
        self._behind: dict[str, str] = {}

    async def initialize(self) -> None:
        await self._bedrock.open()

    async def shutdown(self) -> None:
        await self._bedrock.close()

    @property
    def has_key(self) -> bool:
        return self._bedrock.credentials.has_operators

    # ---- what is served ------------------------------------------------------------------------------------------

    async def served(self) -> list[Model]:
        """The models that Bedrock lists; those of the config, if the credentials may call models but not list them."""
        try:
            listed = await self._bedrock.call(CONTROL, "list_foundation_models")
            profiles = [p for kind in ("SYSTEM_DEFINED", "APPLICATION") for p in await self._profiles(kind)]
        except PermissionDeniedError:
            if not self._aliases:
                raise
            return self.named((name, {}) for name in dict.fromkeys(self._aliases.values()))
        with understood(self.provider_id):
            known = {summary["modelArn"].rpartition("/")[2]: summary for summary in listed["modelSummaries"]}
            entries = [
                (name, {"type": "foundation_model", **_about(summary)})
                for name, summary in known.items()
                # Every field about a model is optional.
                if "ON_DEMAND" in summary.get("inferenceTypesSupported", ())
                and summary.get("modelLifecycle", {}).get("status") == "ACTIVE"
                and _is_usable(name, summary)
            ]
            for profile in profiles:
                # AWS takes its own profiles by id, and those of an account only by ARN.
                own = profile["type"] == "APPLICATION"
                name = profile["inferenceProfileArn" if own else "inferenceProfileId"]
                behind = profile["models"][0]["modelArn"].rpartition("/")[2]
                self._behind[name] = behind
                if behind not in known or _is_usable(behind, known[behind]):
                    about = {"type": "inference_profile", "model": behind, **_about(known.get(behind, {}))}
                    entries.append((name, about))
        return self.named(entries)

    async def _profiles(self, kind: str) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        further: dict[str, str] = {}
        while True:
            page = await self._bedrock.call(
                CONTROL, "list_inference_profiles", typeEquals=kind, maxResults=1000, **further
            )
            found += page.get("inferenceProfileSummaries", ())
            if not page.get("nextToken"):
                return found
            further = {"nextToken": page["nextToken"]}

    # ---- calls ---------------------------------------------------------------------------------------------------

    async def send_chat(self, form: OpenAIForm) -> BackendReply:
        if "logprobs" in form.fields:
            raise self._dialect.unsupported("logprobs", "log probabilities")
        name = self.backend_name(form.model)
        behind = self._behind.get(name, name)
        body = chat_body(replace(self._dialect, top_k=top_k_field(behind)), form, name)
        request = converse_request(body, behind)
        if form.stream:
            events = await self._bedrock.stream("converse_stream", **request)
            return Stream(as_chunks(events, self.provider_id), events.aclose)
        reply = await self._bedrock.call(RUNTIME, "converse", **request)
        return as_reply(reply, self.provider_id)

    async def embeddings(self, model: str, contents: list[InterleavedTextMedia]) -> EmbeddingsResponse:
        name = self.backend_name(model)
        texts: list[str] = embeddings_body(self._dialect, model=name, contents=contents)["input"]
        embedder = embedder_of(self._behind.get(name, name))
        if embedder is None:
            raise self._dialect.unsupported("model", f"embeddings by '{name}'")
        vectors: dict[int, Any] = {}
        failed: list[LlamaStackError] = []
        limiter = anyio.CapacityLimiter(_CALLS_AT_ONCE)

        async def embed(start: int) -> None:
            body = json.dumps(embedder.body(texts[start : start + embedder.batch]))
            try:
                async with limiter:
                    answer = await self._bedrock.call(RUNTIME, "invoke_model", modelId=name, body=body)
                with understood(self.provider_id):
                    vectors.update(enumerate(embedder.vectors(json.loads(answer["body"])), start))
            except LlamaStackError as error:
                failed.append(error)
                calls.cancel_scope.cancel()

        async with anyio.create_task_group() as calls:
            for start in range(0, len(texts), embedder.batch):
                calls.start_soon(embed, start)
        if failed:
            raise failed[0]
        data = [{"index": place, "embedding": vector} for place, vector in vectors.items()]
        return embeddings_response({"data": data}, self.provider_id, len(texts))


def _is_usable(name: str, summary: Mapping[str, Any]) -> bool:
    return "TEXT" in summary.get("outputModalities", ()) or embedder_of(name) is not None


def _about(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata that Bedrock reports."""
    about = {
        "provider": summary.get("providerName"),
        "input_modalities": [word.lower() for word in summary.get("inputModalities", ())],
        "output_modalities": [word.lower() for word in summary.get("outputModalities", ())],
        "streaming": summary.get("responseStreamingSupported"),
    }
    return {name: value for name, value in about.items() if value not in (None, [])}


async def get_adapter_impl(config: BedrockConfig, deps: Deps) -> BedrockInference:
    """The provider; `initialize` opens it."""
    return BedrockInference(config, deps)
