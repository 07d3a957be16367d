"""`llamastack inspect`: the providers, health and routes of a running server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llamastack_cli.output import show_json, show_table
from llamastack_cli.server_connection import Server, server_options

if TYPE_CHECKING:
    from llamastack.client import LlamaStackClient


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@server_options
def inspect(server: Server, as_json: bool) -> None:
    """Show a running server's providers, health and routes."""

    async def talk(client: LlamaStackClient) -> tuple[Any, Any, Any]:
        api = client.api("inspect")
        return await api.list_providers(), await api.health(), await api.list_routes()

    providers, health, routes = server.run(talk)
    if as_json:
        show_json(
            {
                "providers": {api: [item.to_wire() for item in items] for api, items in providers.items()},
                "health": health.to_wire(),
                "routes": {api: [item.to_wire() for item in items] for api, items in routes.items()},
            }
        )
        return
    show_table(
        ("API", "PROVIDER", "TYPE"),
        [(api, item.provider_id, item.provider_type) for api, items in providers.items() for item in items],
        title="Providers",
    )
    click.echo()
    show_table(
        ("API", "PROVIDER", "STATUS", "SERVES", "REASON"),
        [
            (item.api, item.provider_id, item.shown_status, item.serves, item.shown_reason or item.note)
            for item in health.providers
        ],
        title=f"Health: {health.status}",
    )
    click.echo()
    show_table(
        ("API", "METHOD", "ROUTE", "PROVIDER TYPES"),
        [
            (api, item.method, item.route, ", ".join(item.provider_types))
            for api, items in routes.items()
            for item in items
        ],
        title="Routes",
    )
