"""The configs of the three provider types."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, Field, HttpUrl, SecretStr, StringConstraints, model_validator

from llamastack_adapters.openai_dialect import StreamUsageConfig
from llamastack_adapters.remote_inference import BackendUrl

HUB = HttpUrl("https://huggingface.co")
ROUTER = HttpUrl("https://router.huggingface.co/hf-inference")
ENDPOINTS = HttpUrl("https://api.endpoints.huggingface.cloud/v2")

_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]*"
RepoId = Annotated[str, StringConstraints(pattern=rf"^({_WORD}/)?{_WORD}$")]
Name = Annotated[str, StringConstraints(pattern=rf"^{_WORD}$")]


class HuggingFaceConfig(StreamUsageConfig):
    """The common fields of the three."""

    api_token: SecretStr | None = Field(
        default=None,
        description="Token for the backend. Without one, clients may send their own as provider data. A token "
        "that is stored on this machine or in its environment is never used.",
    )


class TGIConfig(HuggingFaceConfig):
    url: BackendUrl = Field(description="Base URL of the server, such as http://localhost:8080")


class ServerlessConfig(HuggingFaceConfig):
    huggingface_repo: RepoId = Field(description="The model, by its repository on the Hub: owner/name")
    url: BackendUrl = Field(
        default=ROUTER, description="Base URL of the service; the model is called at /models/owner/name below it"
    )
    hub_url: BackendUrl | None = Field(
        default=HUB,
        description="URL of the Hub, which tells whether the service has the model. Null: no check.",
    )


class EndpointConfig(HuggingFaceConfig):
    url: BackendUrl | None = Field(
        default=None, description="Base URL of the endpoint. Either this or `endpoint_name` is needed."
    )
    endpoint_name: RepoId | None = Field(
        default=None, description="Name of the endpoint, or namespace/name. Its URL and its model are looked up."
    )
    namespace: Name | None = Field(
        default=None, description="User or organisation that owns the endpoint; by default the owner of `api_token`"
    )
    endpoints_url: BackendUrl = Field(
        default=ENDPOINTS, description="Base URL of the API of endpoints, with its version"
    )
    hub_url: BackendUrl = Field(default=HUB, description="URL of the Hub, which tells the owner of the token")

    @model_validator(mode="after")
    def _one_way_to_find_it(self) -> Self:
        if (self.url is None) == (self.endpoint_name is None):
            raise ValueError("needs either 'url' or 'endpoint_name'")
        if self.namespace is not None and (self.endpoint_name is None or "/" in self.endpoint_name):
            raise ValueError("'namespace' belongs to an 'endpoint_name' without one")
        if self.endpoint_name is not None and self.place()[0] is None and not self.api_token:
            raise ValueError(
                "an 'endpoint_name' needs a namespace or an 'api_token', whose owner is then the namespace"
            )
        return self

    def place(self) -> tuple[str | None, str]:
        """Namespace and name; the namespace is None if it is the token owner's."""
        namespace, _, name = (self.endpoint_name or "").rpartition("/")
        return namespace or self.namespace, name


class HuggingFaceProviderData(BaseModel):
    """What a client may send in `X-LlamaStack-ProviderData`."""

    huggingface_api_token: SecretStr | None = Field(default=None, description="The client's own token")
