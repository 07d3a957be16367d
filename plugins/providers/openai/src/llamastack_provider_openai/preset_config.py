"""The config class, and the model of the provider data, of each preset: `GroqConfig`, `GroqProviderData`.

They are made from the table on first use, because making all of them is slow.
"""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

from pydantic import BaseModel, Field, HttpUrl, SecretStr, create_model

from llamastack.api.base import Identifier
from llamastack_adapters.remote_inference import BackendUrl
from llamastack_provider_openai.config import HeaderName, HeadersConfig, HeaderValue
from llamastack_provider_openai.presets import PRESETS, Preset


class PresetConfig(HeadersConfig):
    """The config of a preset; each has a subclass with its own defaults."""

    preset: ClassVar[Preset]


@cache
def __getattr__(name: str) -> type[BaseModel]:
    for preset in PRESETS:
        if name == f"{preset.class_prefix}Config":
            return _config_class(name, preset)
        if name == f"{preset.class_prefix}ProviderData":
            return _provider_data_class(name, preset)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _described(name: str, more: str = "") -> str:
    return f"{PresetConfig.model_fields[name].description}{more}"


def _config_class(name: str, row: Preset) -> type[PresetConfig]:
    usual = f"usually `${{env.{row.key_variable}}}`" if row.key_variable else "if it asks for one"
    without = "Without one, clients send" if row.key_needed else "Usually none is needed; clients may send"
    known = f" Known: {', '.join(f'`{header}`' for header in row.headers)}." if row.headers else ""

    class Defaults(PresetConfig):
        preset: ClassVar[Preset] = row
        url: BackendUrl = Field(default=HttpUrl(row.url), description=_described("url"))
        api_key: SecretStr | None = Field(
            default=None, description=f"Key for {row.title}, {usual}. {without} their own as provider data."
        )
        stream_usage: bool = Field(default=row.stream_options, description=_described("stream_usage"))
        models: dict[Identifier, Identifier] = Field(
            default={model: model for model in row.models}, description=_described("models")
        )
        trust_models: bool = Field(default=not row.lists_models, description=_described("trust_models"))
        headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict, description=_described("headers", known))

    return create_model(name, __base__=Defaults, __module__=__name__, __doc__=f"The config of {row.provider_type}.")


def _provider_data_class(name: str, row: Preset) -> type[BaseModel]:
    fields: dict[str, Any] = {
        row.key_field: (SecretStr | None, Field(default=None, description="The client's own key"))
    }
    doc = "What a client may send in `X-LlamaStack-ProviderData`."
    made: type[BaseModel] = create_model(name, __module__=__name__, __doc__=doc, **fields)
    return made
