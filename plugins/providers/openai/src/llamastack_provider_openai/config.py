"""The config of the openai provider, and the base of its presets' configs."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, HttpUrl, SecretStr, StringConstraints

from llamastack_adapters.credentials import fits_header
from llamastack_adapters.openai_dialect import OpenAIConfig
from llamastack_adapters.remote_inference import BackendUrl

FieldName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

_TAKEN = {"accept", "accept-encoding", "api-key", "authorization", "connection", "content-length", "content-type"}
_TAKEN |= {"host", "transfer-encoding"}


def _free(name: str) -> str:
    if name.lower() in _TAKEN:
        raise ValueError("is set by the provider itself; put the key into 'api_key'")
    return name


def _sendable(value: SecretStr) -> SecretStr:
    if not fits_header(value.get_secret_value()):
        raise ValueError("must be printable ASCII")
    return value


# RFC 9110, 5.1: the name of a field is a token.
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"), AfterValidator(_free)]
HeaderValue = Annotated[SecretStr, AfterValidator(_sendable)]


class HeadersConfig(OpenAIConfig):
    """The config of a service that may need further headers."""

    headers: dict[HeaderName, HeaderValue] = Field(
        default_factory=dict,
        description="Further headers of every request: name -> value. Values are treated as secrets.",
    )


class OpenAIProviderConfig(HeadersConfig):
    url: BackendUrl = Field(
        default=HttpUrl("https://api.openai.com/v1"),
        description="Base URL of the API, as an OpenAI client takes it; most end in /v1",
    )
    max_tokens_field: FieldName = Field(
        default="max_tokens",
        description="The backend's field of a chat for `max_tokens`. OpenAI's reasoning models want "
        "`max_completion_tokens`.",
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
