"""The configs of backends that speak the OpenAI dialect."""

from __future__ import annotations

from pydantic import Field, SecretStr

from llamastack.api.base import Identifier
from llamastack_adapters.openai_dialect.model_families import FamilyName
from llamastack_adapters.remote_inference import BackendUrl, RemoteConfig


class StreamUsageConfig(RemoteConfig):
    """The config of a backend whose streams can report their usage."""

    stream_usage: bool = Field(
        default=True,
        description="Whether to request the usage of streams with `stream_options`; false for a backend that refuses "
        "that field. Forwarded requests of /v1 are not changed.",
    )


class OpenAIConfig(StreamUsageConfig):
    """The config of a backend that speaks the OpenAI dialect. A subclass may give `url` a default."""

    url: BackendUrl = Field(description="Base URL of the API, as an OpenAI client takes it; most end in /v1")
    api_key: SecretStr | None = Field(
        default=None, description="Key for the backend. Without one, clients send their own as provider data."
    )
    model_families: dict[Identifier, FamilyName] = Field(
        default_factory=dict,
        description="The family of a model whose name does not show it: public or backend's name -> `plain` (takes "
        "all fields), `openai-reasoning` (`max_completion_tokens`, no sampling, role `developer`), `openai-chat` "
        "(`max_completion_tokens`), `openai-first-reasoning` (o1-preview, o1-mini). Names such as o3 and gpt-5 are "
        "known.",
    )
