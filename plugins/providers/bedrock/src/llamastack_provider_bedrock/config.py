"""The config of the bedrock provider."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, Field, SecretStr, StringConstraints, model_validator

from llamastack_adapters.remote_inference import BackendUrl, RemoteConfig

Name = Annotated[str, StringConstraints(min_length=1)]


class BedrockConfig(RemoteConfig):
    region_name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+$")] | None = Field(
        default=None,
        description="AWS region, such as us-east-1. By default AWS_DEFAULT_REGION, or the region of the AWS profile.",
    )
    aws_access_key_id: SecretStr | None = Field(
        default=None,
        description="Access key id. Without one, credentials are looked for where every AWS tool does; see README.",
    )
    aws_secret_access_key: SecretStr | None = Field(
        default=None, description="The secret that belongs to `aws_access_key_id`"
    )
    aws_session_token: SecretStr | None = Field(
        default=None, description="The session token that belongs to temporary credentials"
    )
    profile_name: Name | None = Field(
        default=None,
        description="Profile of the AWS config files for region and credentials; by default AWS_PROFILE",
    )
    endpoint_url: BackendUrl | None = Field(
        default=None, description="URL of the service instead of AWS's own for the region, such as a VPC endpoint"
    )
    control_endpoint_url: BackendUrl | None = Field(
        default=None,
        description="URL of the service that lists models (bedrock, not bedrock-runtime); default `endpoint_url`",
    )

    @model_validator(mode="after")
    def _whole_pair(self) -> Self:
        key, secret = bool(self.aws_access_key_id), bool(self.aws_secret_access_key)
        if key != secret:
            missing = "aws_secret_access_key" if key else "aws_access_key_id"
            raise ValueError(f"{missing} is missing: both keys belong together")
        if self.aws_session_token and not key:
            raise ValueError("aws_access_key_id and aws_secret_access_key are missing: they belong to a session token")
        return self


class BedrockProviderData(BaseModel):
    """What a client may send in `X-LlamaStack-ProviderData`: its own credentials."""

    aws_access_key_id: SecretStr | None = Field(default=None, description="The client's own access key id")
    aws_secret_access_key: SecretStr | None = Field(default=None, description="The secret that belongs to it")
    aws_session_token: SecretStr | None = Field(
        default=None, description="The session token that belongs to temporary credentials"
    )
