"""Inference by model serving endpoints of Databricks.

APIs: https://docs.databricks.com/aws/en/machine-learning/foundation-model-apis/api-reference and
https://docs.databricks.com/api/workspace/servingendpoints/get
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import anyio

from llamastack.api.models import Model
from llamastack.provider import BackendError, Deps, LlamaStackError, NotFoundError, PermissionDeniedError
from llamastack_adapters.openai_dialect import Dialect, OpenAIInference
from llamastack_provider_databricks.config import DatabricksConfig


class DatabricksInference(OpenAIInference):
    """Serves the configured endpoints that exist and are ready."""

    key_field = "databricks_api_token"
    key_name = "api_token"
    api_path = "/serving-endpoints"

    def __init__(self, config: DatabricksConfig, deps: Deps, dialect: Dialect) -> None:
        workspace = str(config.url).rstrip("/").removesuffix(self.api_path)
        super().__init__(config, deps, dialect, url=workspace, key=config.api_token)
        self._endpoints = config.endpoints
        self.wanted |= set(config.endpoints)

    async def served(self) -> list[Model]:
        """Metadata: `task`, such as `llm/v1/chat`, if Databricks reports one."""
        found: dict[str, Model] = {}
        failures: list[LlamaStackError] = []

        async def look(name: str) -> None:
            try:
                endpoint = await self._endpoint(name)
            except NotFoundError:
                return
            except LlamaStackError as error:
                failures.append(error)
                return
            if endpoint["state"].get("ready") == "READY":
                task = endpoint.get("task")
                found[name] = Model(identifier=name, metadata={"task": task} if task else {})

        async with anyio.create_task_group() as group:
            for name in self._endpoints:
                group.start_soon(look, name)
        # The token may lack access to some endpoints.
        hard = [error for error in failures if not isinstance(error, PermissionDeniedError)]
        if hard or (failures and not found):
            raise (hard or failures)[0]
        return [found[name] for name in self._endpoints if name in found]

    async def _endpoint(self, name: str) -> dict[str, Any]:
        endpoint = await self.backend.get(f"/api/2.0/serving-endpoints/{quote(name, safe='')}")
        if not isinstance(endpoint, dict) or not isinstance(endpoint.get("state"), dict):
            raise BackendError(f"{self.backend.where} did not answer with a serving endpoint for '{name}'")
        return endpoint


async def get_adapter_impl(config: DatabricksConfig, deps: Deps) -> DatabricksInference:
    """The provider; nothing is opened before its first call."""
    return DatabricksInference(config, deps, Dialect(deps.provider_id, top_k="top_k", seed=None))
