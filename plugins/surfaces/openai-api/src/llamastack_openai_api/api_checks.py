"""Checks, when an API is loaded, that it leaves the routes of OpenAI's API to this package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llamastack.api.definition import ApiDefinition
from llamastack_openai_api.paths import PREFIX


def check_apis(apis: Mapping[str, ApiDefinition], added: Iterable[str]) -> None:
    """Raises DiscoveryError if one of the added APIs claims one of these routes, whether a stack serves it or not."""
    near = [name for name in added if any(m.web.route.startswith(PREFIX) for m in apis[name].methods.values())]
    if near:
        # The command line makes this check, too. It imports nothing for it unless an API comes near these routes.
        from llamastack_openai_api.routes import ROUTES
        from llamastack_openai_api.routes_beyond_openai import STACK_ROUTES
        from llamastack_server import refuse_routes

        taken = [(each.http_method, each.route) for each in (*ROUTES, *STACK_ROUTES)]
        refuse_routes(apis, near, taken, "llamastack-openai-api")
