"""The config of the openai provider."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, HttpUrl, SecretStr, StringConstraints

from llamastack_adapters.openai_dialect import OpenAIConfig
from llamastack_adapters.remote_inference import BackendUrl

FieldName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class OpenAIProviderConfig(OpenAIConfig):
    url: BackendUrl = Field(
        default=HttpUrl("https://api.openai.com/v1"),
        description="Base URL of the API, as an OpenAI client takes it; most end in /v1",
    )
    max_tokens_field: FieldName = Field(
        default="max_tokens",
        description="The backend's field for `max_tokens`. OpenAI's reasoning models want `max_completion_tokens`.",
    )
    top_k_field: FieldName | None = Field(
        default=None,
        description="The backend's field for `top_k`, such as `top_k`. OpenAI has none; without one it is refused.",
    )
    repetition_penalty_field: FieldName | None = Field(
        default=None,
        description="The backend's field for `repetition_penalty`, such as `repeat_penalty` (llama.cpp, LM Studio) or "
        "`repetition_penalty` (SGLang). OpenAI has none; without one it is refused.",
    )


class OpenAIProviderData(BaseModel):
    """What a client may send in `X-LlamaStack-ProviderData`."""

    openai_api_key: SecretStr | None = Field(default=None, description="The client's own key")
