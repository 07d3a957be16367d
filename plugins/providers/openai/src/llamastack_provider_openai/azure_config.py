"""The config of Azure OpenAI."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, SecretStr, StringConstraints

from llamastack.api.base import Identifier
from llamastack_adapters.remote_inference import BackendUrl
from llamastack_provider_openai.config import FieldName, HeadersConfig

ApiVersion = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]+$", max_length=64)]


class AzureConfig(HeadersConfig):
    url: BackendUrl = Field(description="Endpoint of the resource, such as https://NAME.openai.azure.com")
    api_key: SecretStr | None = Field(
        default=None,
        description="Key of the resource, usually `${env.AZURE_OPENAI_API_KEY}`. Without one, clients send their own "
        "as provider data.",
    )
    deployments: Annotated[list[Identifier], Field(min_length=1)] = Field(
        description="Names of the deployments to serve, as in the Azure portal; Azure does not list them to clients"
    )
    api_version: ApiVersion | None = Field(
        default=None,
        description="Version of the API, such as `2024-10-21`, for the paths `/openai/deployments/NAME/...`. By "
        "default the paths of `/openai/v1/`, which need no version.",
    )
    max_tokens_field: FieldName = Field(
        default="max_completion_tokens",
        description="The field of a chat for `max_tokens`. Models that do not reason also take `max_tokens`; "
        "older versions of the API take only that.",
    )

    @property
    def configured_names(self) -> list[str]:
        return [*self.models, *self.deployments]


class AzureProviderData(BaseModel):
    """What a client may send in `X-LlamaStack-ProviderData`."""

    azure_api_key: SecretStr | None = Field(default=None, description="The client's own key")
