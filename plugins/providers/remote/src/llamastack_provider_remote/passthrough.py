"""`provider_type: remote`: another llamastack server as the provider, for every API.

The module makes one spec per API on demand. An API of a plugin needs only one more entry point for its passthrough:
`remote = "llamastack_provider_remote.passthrough:<name of the API>"`.
"""

from __future__ import annotations

from typing import Any

import httpx
from pydantic import Field

from llamastack.api.created_ids import PROVIDER_ID
from llamastack.api.definition import MethodDefinition, ResourceKind
from llamastack.api.pagination import all_listed
from llamastack.api.webmethod import ResourceAction
from llamastack.client import LlamaStackClient
from llamastack.http.client import authorities
from llamastack.provider.deps import Deps
from llamastack.provider.errors import LlamaStackError
from llamastack.provider.spec import RemoteProviderSpec
from llamastack_adapters.http_client import http_client
from llamastack_adapters.remote_inference import AnswersConfig, BackendUrl


class PassthroughConfig(AnswersConfig):
    """The config of `remote` for every API."""

    url: BackendUrl = Field(description="Base URL of the other llamastack server")
    timeout_s: float = Field(default=600.0, gt=0, description="Seconds between bytes of a reply")
    remote_provider_id: str = Field(
        default="",
        description="`provider_id` at the other server for registrations, and for calls that take one; optional if it "
        "has only one",
    )


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    return RemoteProviderSpec(
        api=name,
        provider_type="remote",
        description="Another llamastack server",
        config_class=f"{__name__}:PassthroughConfig",
        factory=f"{__name__}:get_adapter_impl",
    )


class Passthrough:
    """Forwards every call. Its methods are made from the API's definition."""

    def __init__(self, client: LlamaStackClient, http: httpx.AsyncClient) -> None:
        self._client = client
        self._http = http

    async def health(self) -> None:
        """Raises if the other server does not answer."""
        await self._client.inspect.health()

    async def shutdown(self) -> None:
        await self._http.aclose()


def _handed_on(client: LlamaStackClient, method: MethodDefinition, provider_id: str, remote_provider_id: str) -> Any:
    call = client.api(method.api).methods[method.name].dispatch
    takes_provider_id = remote_provider_id and PROVIDER_ID in method.parameters
    fixed = {PROVIDER_ID: remote_provider_id} if takes_provider_id else {}

    async def handed_on(**arguments: Any) -> Any:
        try:
            return await call({**arguments, **fixed})
        except LlamaStackError as error:
            if error.provider_id is not None:  # the other server's provider_id; here it is this provider's
                error.amend(provider_id=provider_id)
            raise

    return handed_on


def _table_hooks(client: LlamaStackClient, pair: ResourceKind, remote_provider_id: str) -> dict[str, Any]:
    table = client.api(pair.resource_api)
    calls = {
        action: table.methods[table.definition.method_for(action).name]
        for action in (ResourceAction.LIST, ResourceAction.REGISTER, ResourceAction.UNREGISTER)
    }

    async def list_objects() -> list[Any]:
        return [item async for item in all_listed(calls[ResourceAction.LIST]) if item.unavailable_reason is None]

    async def register(**named: Any) -> None:
        item = named[pair.object_name]
        await calls[ResourceAction.REGISTER](item.model_copy(update={"provider_id": remote_provider_id}))

    async def unregister(**named: Any) -> None:
        await calls[ResourceAction.UNREGISTER](named[pair.object_name].identifier)

    return {pair.list_hook: list_objects, pair.register_hook: register, pair.unregister_hook: unregister}


async def get_adapter_impl(config: PassthroughConfig, deps: Deps) -> Passthrough:
    definition = deps.definitions[deps.api]
    http = http_client(
        timeout=httpx.Timeout(config.timeout_s, connect=10.0),
        answer_limits=config.answer_limits,
        verify=config.url.scheme == "https" and authorities(config.ca_file),
    )
    client = LlamaStackClient(
        str(config.url),
        forward_provider_data=True,
        apis=deps.definitions.values(),
        answer_limits=config.answer_limits,
        http=http,
    )
    provider = Passthrough(client, http)
    for method in definition.methods.values():
        setattr(provider, method.name, _handed_on(client, method, deps.provider_id, config.remote_provider_id))
    if definition.pair is not None:
        for name, hook in _table_hooks(client, definition.pair, config.remote_provider_id).items():
            setattr(provider, name, hook)
    return provider
