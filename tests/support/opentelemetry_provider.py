"""The OpenTelemetry provider outside a stack."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from llamastack.provider import Deps
from llamastack_provider_opentelemetry.config import OpenTelemetryConfig
from llamastack_provider_opentelemetry.provider import OpenTelemetryTelemetry, get_adapter_impl


@asynccontextmanager
async def started(**config: Any) -> AsyncIterator[OpenTelemetryTelemetry]:
    """The provider with this config, until the end of the block."""
    async with anyio.create_task_group() as tasks:
        deps = Deps(provider_id="otel", api="telemetry", task_group=tasks)
        provider = await get_adapter_impl(OpenTelemetryConfig(**config), deps)
        await provider.initialize()
        try:
            yield provider
        finally:
            with anyio.CancelScope(shield=True):
                await provider.shutdown()
            tasks.cancel_scope.cancel()
