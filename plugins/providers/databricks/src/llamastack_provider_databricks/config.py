"""The config of the databricks provider."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, SecretStr

from llamastack.api.base import Identifier
from llamastack_adapters.openai_dialect import StreamUsageConfig
from llamastack_adapters.remote_inference import BackendUrl


class DatabricksConfig(StreamUsageConfig):
    url: BackendUrl = Field(description="URL of the workspace, such as https://dbc-a1b2345c-d6e7.cloud.databricks.com")
    api_token: SecretStr | None = Field(
        default=None, description="Access token. Without one, clients send their own as provider data."
    )
    endpoints: Annotated[list[Identifier], Field(min_length=1)] = Field(
        description="Names of the serving endpoints to use. An endpoint that is missing or not ready is not served."
    )

    @property
    def configured_names(self) -> list[str]:
        return [*self.models, *self.endpoints]


class DatabricksProviderData(BaseModel):
    """What a client may send in `X-LlamaStack-ProviderData`."""

    databricks_api_token: SecretStr | None = Field(default=None, description="The client's own access token")
