"""Inference by OpenAI, or another server or service that speaks its API."""

from __future__ import annotations

from collections.abc import Mapping

from llamastack.api.models import Model
from llamastack.provider import Deps, NotSupportedError
from llamastack_adapters.credentials import ApiKey
from llamastack_adapters.openai_dialect import Dialect, OpenAIInference
from llamastack_provider_openai.config import HeadersConfig, OpenAIProviderConfig
from llamastack_provider_openai.preset_config import PresetConfig
from llamastack_provider_openai.presets import OPENAI_SAMPLERS


class OpenAICompatibleInference(OpenAIInference):
    """The OpenAI dialect with headers of the config. The key is optional, because local servers rarely need one."""

    key_field = "openai_api_key"
    key_needed = False

    def __init__(
        self,
        config: HeadersConfig,
        deps: Deps,
        dialect: Dialect,
        *,
        key: ApiKey | None = None,
        url: str | None = None,
    ) -> None:
        """key, url: in place of those in the config."""
        super().__init__(config, deps, dialect, url=url or config.url, key=key or config.api_key)
        self._headers = {name: value.get_secret_value() for name, value in config.headers.items()}

    def key_header(self) -> Mapping[str, str]:
        """The header that carries the key. Raises as `ApiKey.value` does."""
        return self.key.bearer()

    def request_headers(self) -> Mapping[str, str]:
        return {**self._headers, **self.key_header()} if self._headers else self.key_header()


class PresetInference(OpenAICompatibleInference):
    """A service with the settings of its preset."""

    def __init__(self, config: PresetConfig, deps: Deps, dialect: Dialect) -> None:
        self.preset = config.preset
        """Its row."""
        key = ApiKey(deps, config.api_key, field=self.preset.key_field, needed=self.preset.key_needed)
        super().__init__(config, deps, dialect, key=key)

    async def served(self) -> list[Model]:
        preset = self.preset
        if not preset.lists_models:
            raise NotSupportedError(f"{preset.title} has no list of models", provider_id=self.provider_id)
        entries = await self.listed(self.path_of("models"))
        if preset.model_prefix:
            entries = [{**entry, "id": entry["id"].removeprefix(preset.model_prefix)} for entry in entries]
        return self.models_of(entries)


async def get_adapter_impl(config: OpenAIProviderConfig, deps: Deps) -> OpenAICompatibleInference:
    """The provider; nothing is opened before its first call."""
    dialect = Dialect(
        deps.provider_id,
        max_tokens=config.max_tokens_field,
        top_k=config.top_k_field,
        repetition_penalty=config.repetition_penalty_field,
        samplers=OPENAI_SAMPLERS,
    )
    return OpenAICompatibleInference(config, deps, dialect)


async def get_preset_impl(config: PresetConfig, deps: Deps) -> PresetInference:
    """The provider of a preset; nothing is opened before its first call."""
    preset = config.preset
    dialect = Dialect(
        deps.provider_id,
        max_tokens=preset.max_tokens,
        top_k=preset.top_k,
        repetition_penalty=preset.repetition_penalty,
        seed=preset.seed,
        samplers=preset.samplers,
        tool_choice_required=preset.tool_choice_required,
        other_names=preset.other_names,
        not_forwarded=frozenset() if preset.stream_options or config.stream_usage else frozenset({"stream_options"}),
    )
    return PresetInference(config, deps, dialect)
