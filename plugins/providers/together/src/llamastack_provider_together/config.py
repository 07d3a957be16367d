"""The config of the together provider."""

from __future__ import annotations

from pydantic import BaseModel, Field, HttpUrl, SecretStr

from llamastack_adapters.openai_dialect import OpenAIConfig
from llamastack_adapters.remote_inference import BackendUrl


class TogetherConfig(OpenAIConfig):
    url: BackendUrl = Field(default=HttpUrl("https://api.together.ai/v1"), description="Base URL of the API")


class TogetherProviderData(BaseModel):
    """What a client may send in `X-LlamaStack-ProviderData`."""

    together_api_key: SecretStr | None = Field(default=None, description="The client's own key")
