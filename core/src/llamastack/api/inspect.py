"""Inspect: what this stack consists of and how it is."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Protocol

from llamastack.api.base import OMIT_IF_NONE, WireModel
from llamastack.api.webmethod import webmethod


class ProviderInfo(WireModel):
    provider_id: str
    provider_type: str


class RouteInfo(WireModel):
    route: str
    method: str
    provider_types: list[str]


class ProviderStatus(StrEnum):
    starting = "starting"
    healthy = "healthy"
    down = "down"


class ProviderProgress(WireModel):
    """How far a provider is with something long; `done` and `total` are in `unit`."""

    task: str
    done: float
    total: Annotated[float | None, OMIT_IF_NONE] = None
    unit: str


class ProviderHealth(WireModel):
    """How one provider is; `reason` says why it is not healthy, `retry_in_s` (seconds) when it is tried again."""

    api: str
    provider_id: str
    provider_type: str
    status: ProviderStatus
    reason: Annotated[str | None, OMIT_IF_NONE] = None
    retry_in_s: Annotated[float | None, OMIT_IF_NONE] = None
    serves: Annotated[int | None, OMIT_IF_NONE] = None
    """How many objects (models, shields, memory banks) it serves, where its API has any."""
    progress: Annotated[ProviderProgress | None, OMIT_IF_NONE] = None
    """Of what it is at now, such as loading or fetching a model."""
    note: Annotated[str | None, OMIT_IF_NONE] = None
    """What is to be known although it is healthy: it lists nothing without a key, or does not take what is registered.
    """

    @property
    def shown_status(self) -> str:
        """The status for a person: one that is down stands out."""
        return "DOWN" if self.status is ProviderStatus.down else str(self.status)

    @property
    def shown_reason(self) -> str:
        """Why it is not healthy and when it is tried again; empty where it is healthy."""
        again = "" if self.retry_in_s is None else f" (retrying in {self.retry_in_s:.0f} s)"
        return f"{self.reason}{again}" if self.reason else ""


class HealthStatus(StrEnum):
    ok = "OK"
    degraded = "DEGRADED"


class HealthInfo(WireModel):
    """OK when every provider is healthy, DEGRADED when some are not."""

    status: HealthStatus
    providers: list[ProviderHealth]


class Readiness(WireModel):
    """The stack can serve what the call names. `apis` has the providers of each API, also those that are down."""

    apis: dict[str, list[ProviderHealth]]
    model: Annotated[str | None, OMIT_IF_NONE] = None


class Inspect(Protocol):
    """Look at the running stack."""

    @webmethod("/providers/list", methods=("GET",))
    async def list_providers(self) -> dict[str, list[ProviderInfo]]:
        """The configured providers by API, in config order."""
        ...

    @webmethod("/routes/list", methods=("GET",))
    async def list_routes(self) -> dict[str, list[RouteInfo]]:
        """The routes by API."""
        ...

    @webmethod("/health", methods=("GET",))
    async def health(self) -> HealthInfo:
        """The state of the stack and of each provider."""
        ...

    @webmethod("/ready", methods=("GET",))
    async def ready(self, *, api: str | None = None, model: str | None = None) -> Readiness:
        """Whether calls can be served now: by default, whether each API has a provider that is healthy.

        api: only this API. model: whether this model can be called; the other APIs do not count. Raises
        ProviderUnavailableError, which names what is not ready and why, and NotFoundError for what this stack does not
        have. With access control, a caller without a principal learns of a model only whether it is ready.
        """
        ...
