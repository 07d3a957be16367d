"""The config of the fireworks provider."""

from __future__ import annotations

from pydantic import BaseModel, Field, HttpUrl, SecretStr

from llamastack_adapters.openai_dialect import OpenAIConfig
from llamastack_adapters.remote_inference import BackendUrl


class FireworksConfig(OpenAIConfig):
    url: BackendUrl = Field(default=HttpUrl("https://api.fireworks.ai/inference/v1"), description="Base URL of the API")


class FireworksProviderData(BaseModel):
    """What a client may send in `X-LlamaStack-ProviderData`."""

    fireworks_api_key: SecretStr | None = Field(default=None, description="The client's own key")
