"""The config of the ollama provider."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, HttpUrl, SecretStr, StringConstraints

from llamastack_adapters.remote_inference import BackendUrl, RemoteConfig

GoDuration = Annotated[str, StringConstraints(pattern=r"^-?(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+$")]
"""A duration as Ollama takes it: `5m`, `1h30m`."""


class OllamaConfig(RemoteConfig):
    url: BackendUrl = Field(default=HttpUrl("http://127.0.0.1:11434"), description="URL of the Ollama server")
    api_key: SecretStr | None = Field(
        default=None,
        description="Key for Ollama's cloud, or for a proxy in front of the server. Without one, clients may send "
        "their own.",
    )
    allow_pull: bool = Field(
        default=False,
        description="Whether registering a model that Ollama does not have pulls it. Everyone who may register models "
        "can then make Ollama download.",
    )
    keep_alive: float | GoDuration | None = Field(
        default=None,
        description="How long a model stays loaded after a call: seconds, or a text such as `5m`; negative: "
        "forever. By default Ollama's setting.",
    )
    context_length: int | None = Field(
        default=None,
        gt=0,
        description="Tokens that a model is loaded for (Ollama's num_ctx). By default Ollama's setting. Ollama "
        "leaves out the oldest messages of a longer prompt.",
    )


class OllamaProviderData(BaseModel):
    """What a client may send in `X-LlamaStack-ProviderData`."""

    ollama_api_key: SecretStr | None = Field(default=None, description="The client's own key")
