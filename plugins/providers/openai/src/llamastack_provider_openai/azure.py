"""Inference by deployments of Azure OpenAI.

API: https://learn.microsoft.com/azure/ai-foundry/openai/latest (`/openai/v1/`) and
https://learn.microsoft.com/azure/ai-foundry/openai/reference (`/openai/deployments/NAME/` with an `api-version`).
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from llamastack.api.models import Model
from llamastack.provider import Deps
from llamastack_adapters.openai_dialect import Dialect
from llamastack_provider_openai.azure_config import AzureConfig
from llamastack_provider_openai.inference import OpenAICompatibleInference
from llamastack_provider_openai.presets import OPENAI_SAMPLERS

_ENDS = ("/openai/v1", "/openai")


class AzureInference(OpenAICompatibleInference):
    """Serves the deployments that the config names; a model is a deployment.

    Azure lists only the base models that a resource could deploy. That list is read to check the resource and its key,
    and is not shown.
    """

    key_field = "azure_api_key"
    key_needed = True

    def __init__(self, config: AzureConfig, deps: Deps, dialect: Dialect) -> None:
        resource = str(config.url).rstrip("/")
        for end in _ENDS:
            resource = resource.removesuffix(end)
        super().__init__(config, deps, dialect, url=resource)
        self._deployments = config.deployments
        self._query = f"?api-version={config.api_version}" if config.api_version else ""

    def key_header(self) -> Mapping[str, str]:
        key = self.key.value()
        return {} if key is None else {"api-key": key}

    def path_of(self, route: str, model: str = "") -> str:
        if not self._query:
            return f"/openai/v1/{route}"
        place = f"/openai/deployments/{quote(model, safe='')}" if model else "/openai"
        return f"{place}/{route}{self._query}"

    async def served(self) -> list[Model]:
        await self.listed(self.path_of("models"))
        return [Model(identifier=name) for name in self._deployments]


async def get_adapter_impl(config: AzureConfig, deps: Deps) -> AzureInference:
    """The provider; nothing is opened before its first call."""
    dialect = Dialect(deps.provider_id, max_tokens=config.max_tokens_field, samplers=OPENAI_SAMPLERS)
    return AzureInference(config, deps, dialect)
