"""The configs of the vLLM providers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, HttpUrl, SecretStr, StringConstraints, field_validator

from llamastack.api.base import Identifier
from llamastack_adapters.openai_dialect import OpenAIConfig
from llamastack_adapters.remote_inference import BackendUrl, RemoteConfig

Flag = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$")]
_OURS = {"model", "served-model-name", "uds", "host", "port", "api-key"}


class RemoteVLLMConfig(OpenAIConfig):
    url: BackendUrl = Field(
        default=HttpUrl("http://127.0.0.1:8000/v1"), description="Base URL of the server's API; it ends in /v1"
    )
    api_key: SecretStr | None = Field(
        default=None, description="The server's `--api-key`, if it has one. Without it, clients may send the key."
    )


class VLLMProviderData(BaseModel):
    """What a client may send in `X-LlamaStack-ProviderData`."""

    vllm_api_key: SecretStr | None = Field(default=None, description="The server's key")


class VLLMConfig(RemoteConfig):
    """The config of a vLLM that the stack starts itself, for one model."""

    model: Annotated[str, StringConstraints(min_length=1)] = Field(
        description="Folder of the model, or its name on Hugging Face, as vLLM takes it"
    )
    identifier: Identifier | None = Field(default=None, description="Name of the model in requests. Default: `model`.")
    python: Path | None = Field(
        default=None,
        description="Python of the environment that vLLM is installed in. Default: the stack's own. vLLM pins many "
        "packages, so a separate environment is often easier.",
    )
    context_length: int | None = Field(
        default=None, ge=16, description="Tokens of prompt and reply, per request. Default: the model's."
    )
    tensor_parallel_size: int = Field(default=1, ge=1, description="GPUs that share the model")
    gpu_memory_utilization: float | None = Field(
        default=None, gt=0, le=1, description="Fraction of each GPU's memory to use. Default: vLLM's."
    )
    tool_call_parser: str | None = Field(
        default=None, description="vLLM's parser of the model's tool calls, such as `hermes`; required for tools"
    )
    chat_template: Path | None = Field(default=None, description="A Jinja file. Default: the model's own.")
    arguments: dict[Flag, str | int | float | bool] = Field(
        default_factory=dict,
        description="Further arguments of vLLM's server, without the dashes: `{enforce-eager: true, dtype: float32}`",
    )
    environment: dict[str, SecretStr] = Field(
        default_factory=dict,
        description="Environment variables of the vLLM process, such as `HF_TOKEN`; no log or error shows them",
    )
    load_timeout_s: float = Field(
        default=1800.0, gt=0, allow_inf_nan=False, description="Seconds that loading the model may take"
    )

    @field_validator("arguments")
    @classmethod
    def _are_not_ours(cls, arguments: dict[str, object]) -> dict[str, object]:
        taken = sorted(_OURS & arguments.keys())
        if taken:
            raise ValueError(f"'{taken[0]}' is set by the provider")
        return arguments
